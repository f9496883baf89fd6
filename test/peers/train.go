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
)

// The stream that is learned, and what learning it sequentially comes to.
const (
	streamSeed = 42
	// Of a million examples, one in flight: sequentialLoss is FTRL's with the settings
	// below, and sequentialFM that of a factorization machine with 16 factors.
	sequentialExamples = 1_000_000
	sequentialLoss     = 0.53434
	sequentialFM       = 0.53808
)

// trainParts compares learning with Vowpal Wabbit's, and DeepFM with itself.
func trainParts(s *settings) []*part {
	v := &vw{settings: s}
	logistic := func(more ...string) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			return s.train(ctx, append([]string{"--network", "logistic", "--source", "file://" + v.stream}, more...)...)
		}
	}
	// The settings of FTRL are those of bench train.
	text := &part{
		name: "vw-text", prepare: v.prepare, own: logistic(),
		peer: v.side("--ftrl", "--ftrl_alpha", "0.05", "--ftrl_beta", "1"),
		goals: []goal{
			{"logistic regression with FTRL from text, examples per second, against Vowpal Wabbit", "examples", "examples", moreBy, 1.3},
			s.lossGoal("its log loss", sequentialLoss+0.0005),
		},
	}
	cached := &part{
		name: "vw-cache", own: logistic("--cache", s.examplesCache()),
		goals: []goal{
			{"the same from a binary cache, examples per second, against Vowpal Wabbit's default", "examples", "examples", moreBy, 1},
			s.lossGoal("its log loss", sequentialLoss+0.0005),
		},
	}
	cached.prepare = func(ctx context.Context) error {
		if err := v.prepare(ctx); err != nil {
			return err
		}
		// The first run of each makes its cache.
		if _, err := v.learn(ctx, "--cache_file", v.cache()); err != nil {
			return err
		}
		_, err := cached.own(ctx)
		return err
	}
	cached.peer = v.side("--cache_file", v.cache())
	fm := &part{
		name: "fm", prepare: v.makeStream,
		own: func(ctx context.Context) (figures, error) {
			return s.train(ctx, "--network", "fm", "--source", "file://"+v.stream)
		},
		goals: []goal{
			s.lossGoal("factorization machine with 16 factors, log loss", sequentialFM+0.003),
			{"its examples per second", "", "examples", noted, 0},
		},
	}
	return []*part{text, cached, fm, deepPart(s)}
}

// examplesCache is where Freshet keeps extracted examples.
func (s *settings) examplesCache() string {
	return filepath.Join(s.work, fmt.Sprintf("examples-%d", s.examples))
}

// deepPart compares DeepFM by our own matrix product with gonum's.
func deepPart(s *settings) *part {
	side := func(product string) func(context.Context) (figures, error) {
		return func(ctx context.Context) (figures, error) {
			return s.train(ctx, "--network", "deepfm", "--product", product,
				"--examples", strconv.Itoa(s.deep), "--data", s.work)
		}
	}
	return &part{name: "deepfm", peer: side("gonum"), own: side("freshet"), goals: []goal{
		{"DeepFM, examples per worker CPU-second, against gonum's matrix product", "worker", "worker", moreBy, 4},
		{"its examples per second", "", "examples", noted, 0},
	}}
}

// lossGoal returns the goal of a log loss. Of other streams than the usual one it is not
// known what it should be.
func (s *settings) lossGoal(work string, limit float64) goal {
	if s.examples != sequentialExamples {
		return goal{work, "", "loss", noted, 0}
	}
	return goal{work, "", "loss", atMost, limit}
}

// trainDocument is what is read of "freshet bench train -o json".
type trainDocument struct {
	PerSecond float64  `json:"examples_per_second"`
	PerWorker float64  `json:"examples_per_worker_cpu_second"`
	LogLoss   *float64 `json:"log_loss"`
	Audit     struct{ Lost, Doubled int64 }
}

// train runs "freshet bench train".
func (s *settings) train(ctx context.Context, args ...string) (figures, error) {
	var d trainDocument
	args = append([]string{"train", "--in-flight", strconv.Itoa(s.window)}, args...)
	if err := s.bench(ctx, &d, args...); err != nil {
		return nil, err
	}
	if d.Audit.Lost != 0 || d.Audit.Doubled != 0 || d.LogLoss == nil {
		return nil, fmt.Errorf("freshet lost %d events and doubled %d", d.Audit.Lost, d.Audit.Doubled)
	}
	return figures{"examples": d.PerSecond, "worker": d.PerWorker, "loss": *d.LogLoss}, nil
}

// vw is Vowpal Wabbit in a virtual environment of Python.
type vw struct {
	*settings
	stream string // file
}

// vwProgram does what Vowpal Wabbit's command line does, and tells how long it took
// without the start of Python.
const vwProgram = `
import sys, time, vowpalwabbit
start = time.perf_counter()
vowpalwabbit.Workspace(arg_list=sys.argv[1:]).finish()
print("seconds = %.6f" % (time.perf_counter() - start))
`

func (v *vw) python() string { return filepath.Join(v.work, "vw", "bin", "python") }
func (v *vw) cache() string  { return filepath.Join(v.work, fmt.Sprintf("criteo-%d.cache", v.examples)) }

// prepare installs Vowpal Wabbit and makes the stream.
func (v *vw) prepare(ctx context.Context) error {
	if err := v.install(ctx); err != nil {
		return fmt.Errorf("vowpalwabbit cannot be installed: %w", err)
	}
	return v.makeStream(ctx)
}

func (v *vw) install(ctx context.Context) error {
	const try = "import vowpalwabbit"
	if _, err := output(ctx, v.python(), "-c", try); err == nil {
		return nil
	}
	if _, err := output(ctx, "python3", "-m", "venv", filepath.Join(v.work, "vw")); err != nil {
		return err
	}
	if _, err := output(ctx, v.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "vowpalwabbit"); err != nil {
		return err
	}
	_, err := output(ctx, v.python(), "-c", try)
	return err
}

// makeStream makes the stream, unless it is there.
func (v *vw) makeStream(ctx context.Context) error {
	path, err := filepath.Abs(filepath.Join(v.work, fmt.Sprintf("criteo-%d-%d.vw", v.examples, streamSeed)))
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		v.stream = path
		return nil
	}
	part := path + ".part"
	if _, err := output(ctx, v.freshet, "stream", "generate", "--shape", "criteo",
		"--events", strconv.Itoa(v.examples), "--seed", strconv.Itoa(streamSeed), "--out", part); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	v.stream = path
	return nil
}

// side returns what learns the stream once.
func (v *vw) side(args ...string) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) { return v.learn(ctx, args...) }
}

var (
	vwSeconds = regexp.MustCompile(`(?m)^seconds = (\S+)$`)
	vwLoss    = regexp.MustCompile(`(?m)^average loss = (\S+)`)
)

func (v *vw) learn(ctx context.Context, args ...string) (figures, error) {
	args = append([]string{
		"-c", vwProgram, "--loss_function", "logistic", "-b", "22",
		"--no_stdin", "-P", strconv.Itoa(v.examples), "-d", v.stream,
	}, args...)
	command := exec.CommandContext(ctx, v.python(), args...)
	command.SysProcAttr = ended()
	out, err := command.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("vowpal wabbit: %w: %s", err, lastLine(out))
	}
	seconds, loss, err := readVW(out)
	if err != nil {
		return nil, err
	}
	return figures{"examples": float64(v.examples) / seconds, "loss": loss}, nil
}

// readVW reads what vwProgram writes.
func readVW(out []byte) (seconds, loss float64, err error) {
	s, l := vwSeconds.FindSubmatch(out), vwLoss.FindSubmatch(out)
	if s == nil || l == nil {
		return 0, 0, fmt.Errorf("vowpal wabbit says neither time nor loss: %s", lastLine(out))
	}
	seconds, secondsErr := strconv.ParseFloat(string(s[1]), 64)
	loss, lossErr := strconv.ParseFloat(string(l[1]), 64)
	return seconds, loss, errors.Join(secondsErr, lossErr)
}
