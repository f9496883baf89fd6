package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// kernelParts compare the vector kernels with their plain forms, and the matrix product
// with gonum's, by the Go benchmarks beside them.
func kernelParts(s *settings) []*part {
	return []*part{
		kernelPart(s, "kernels", "ps/table", [2]build{{false, "^BenchmarkRandomRows$//^plain$"}, {true, "^BenchmarkRandomRows$//^vectors$"}}, []goal{
			{"AdaGrad on random rows of 16 floats, rows per second, against plain Go", "adagrad rows/s", "adagrad rows/s", moreBy, 10},
			{"FTRL, the same", "ftrl rows/s", "ftrl rows/s", moreBy, 10},
		}),
		kernelPart(s, "sgemm", "worker/model/sgemm", [2]build{{true, "^BenchmarkSgemm$/^gonum" + product}, {true, "^BenchmarkSgemm$/^freshet" + product}}, []goal{
			{"matrix product 512³ of float32, GFLOP/s, against gonum", "gonum GFLOP/s", "freshet GFLOP/s", moreBy, 4},
		}),
	}
}

// product is the matrix product that is compared.
const product = "$/^NN$/^m=512$/^n=512$/^k=512$"

// build is a build with vectors or without, and a benchmark of it.
type build struct {
	vectors   bool
	benchmark string
}

// kernelPart compares benchmarks of a package: the peer's, then ours.
func kernelPart(s *settings, name, folder string, sides [2]build, goals []goal) *part {
	binary := func(with bool) string {
		form := "plain"
		if with {
			form = "simd"
		}
		return filepath.Join(s.work, fmt.Sprintf("%s-%s.test", name, form))
	}
	side := func(b build) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			out, err := output(ctx, binary(b.vectors), "-test.run", "^$", "-test.bench", b.benchmark, "-test.cpu", "1", "-test.benchtime", "0.5s")
			if err != nil {
				return nil, err
			}
			return readBenchmarks(out)
		}
	}
	prepare := func(ctx context.Context) error {
		for _, b := range sides {
			compile := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary(b.vectors), "./"+folder)
			compile.Env = append(os.Environ(), "GOEXPERIMENT=")
			if b.vectors {
				compile.Env = append(compile.Env, "GOEXPERIMENT=simd")
			}
			if out, err := compile.CombinedOutput(); err != nil {
				return fmt.Errorf("go test -c ./%s: %w: %s", folder, err, lastLine(out))
			}
		}
		return nil
	}
	return &part{name: name, prepare: prepare, peer: side(sides[0]), own: side(sides[1]), goals: goals}
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark[^/\s]+/([^/\s]+)\S*\s+\d+\s+(.*)$`)

// readBenchmarks reads the metrics of Go benchmarks, by the first level of their names
// and the metric's unit.
func readBenchmarks(out []byte) (figures, error) {
	f := figures{}
	for _, l := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
		words := strings.Fields(l[2])
		for i := 0; i+1 < len(words); i += 2 {
			value, err := strconv.ParseFloat(words[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark %s: %w", l[1], err)
			}
			f[l[1]+" "+words[i+1]] = value
		}
	}
	if len(f) == 0 {
		return nil, errors.New("there are no such benchmarks")
	}
	return f, nil
}
