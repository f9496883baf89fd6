package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// says returns a side that measures one figure after the other.
func says(name string, values ...float64) func(context.Context) (figures, error) {
	return func(context.Context) (figures, error) {
		f := figures{name: values[0]}
		values = values[1:]
		return f, nil
	}
}

func TestALineIsJudgedByTheMedianOfItsRatios(t *testing.T) {
	for name, test := range map[string]struct {
		kind      kind
		limit     float64
		peer, own []float64
		median    float64
		met       bool
	}{
		"more, and enough":       {moreBy, 2, []float64{1, 1, 10}, []float64{3, 2, 10}, 2, true},
		"more, and not enough":   {moreBy, 2, []float64{1, 1, 1}, []float64{9, 1.9, 1}, 1.9, false},
		"less, and enough":       {lessBy, 5, []float64{10, 5, 50}, []float64{1, 1, 10}, 5, true},
		"less, and not enough":   {lessBy, 5, []float64{4, 4, 4}, []float64{1, 1, 1}, 4, false},
		"at most, and it is":     {atMost, 0.5, nil, []float64{0.4, 0.5, 0.9}, 0.5, true},
		"at most, and it is not": {atMost, 0.5, nil, []float64{0.4, 0.6, 0.9}, 0.6, false},
		"for orientation":        {noted, 0, nil, []float64{7, 8, 9}, 8, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := &part{name: "p", own: says("own", test.own...), goals: []goal{{"work", "peer", "own", test.kind, test.limit}}}
			if test.peer != nil {
				p.peer = says("peer", test.peer...)
			}
			l := p.run(t.Context(), len(test.own), io.Discard)[0]
			if l.Median != test.median || l.Met != test.met || l.Error != "" {
				t.Errorf("peer %v, own %v: median %v, met %v, error %q; want %v, %v and none", test.peer, test.own, l.Median, l.Met, l.Error, test.median, test.met)
			}
		})
	}
}

func TestWhoIsFirstChangesFromRoundToRound(t *testing.T) {
	var order []string
	side := func(name string) func(context.Context) (figures, error) {
		return func(context.Context) (figures, error) {
			order = append(order, name)
			return figures{"x": 1}, nil
		}
	}
	p := &part{peer: side("peer"), own: side("own"), goals: []goal{{"work", "x", "x", moreBy, 1}}}
	p.run(t.Context(), 3, io.Discard)
	if want := []string{"peer", "own", "own", "peer", "peer", "own"}; !slices.Equal(order, want) {
		t.Errorf("the sides ran in the order %v, want %v", order, want)
	}
}

func TestWhatFailsFailsItsLinesAndIsEnded(t *testing.T) {
	broken := errors.New("no such package")
	fails := func(context.Context) (figures, error) { return nil, broken }
	for name, p := range map[string]*part{
		"cannot be installed": {prepare: func(context.Context) error { return broken }, own: says("own", 1, 1)},
		"the peer fails":      {peer: fails, own: says("own", 1, 1)},
		"freshet fails":       {peer: says("peer", 1, 1), own: fails},
		"a figure is missing": {peer: says("peer", 1, 1), own: says("other", 1, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			ended := 0
			p.end = func() error { ended++; return nil }
			p.goals = []goal{{"one", "peer", "own", moreBy, 0}, {"two", "", "own", noted, 0}}
			d := document{Lines: p.run(t.Context(), 2, io.Discard)}
			for _, l := range d.Lines {
				if l.Met || l.Error == "" {
					t.Errorf("line %s: met %v, error %q; want neither met nor without an error", l.Work, l.Met, l.Error)
				}
			}
			if d.met() || ended != 1 {
				t.Errorf("all met: %v, ended %d times; want false and once", d.met(), ended)
			}
			var out bytes.Buffer
			if err := d.print(&out); err != nil || strings.Count(out.String(), "NO") != 2 {
				t.Errorf("%v, the table does not say NO twice:\n%s", err, &out)
			}
		})
	}
}

func TestWrongFlagsOfPeersAreUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no rounds":       {[]string{"-rounds", "0"}, "-rounds 0"},
		"no time":         {[]string{"-seconds", "0"}, "-seconds 0"},
		"an unknown part": {[]string{"-only", "redis,oracle"}, `"oracle"`},
		"no such form":    {[]string{"-o", "xml"}, `"xml"`},
		"an argument":     {[]string{"now"}, `"now"`},
		"no such flag":    {[]string{"-fast"}, "-fast"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"-work", t.TempDir()}, test.args...), &out, &stderr)
			if code != exitUsage || !strings.Contains(stderr.String(), test.want) || out.Len() > 0 {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %d, nothing, and %s", code, &out, &stderr, exitUsage, test.want)
			}
		})
	}
}

func TestOutputsOfPeersAreRead(t *testing.T) {
	seconds, loss, err := readVW([]byte("creating cache_file = x\nfinished run\naverage loss = 0.534417\nbest constant's loss = 0.598004\nseconds = 1.250000\n"))
	if err != nil || seconds != 1.25 || loss != 0.534417 {
		t.Errorf("Vowpal Wabbit: %v s, loss %v, %v; want 1.25, 0.534417 and no error", seconds, loss, err)
	}
	if _, _, err := readVW([]byte("vw: error: no such file\n")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Vowpal Wabbit that failed: %v, want its last line", err)
	}
	f, err := readBenchmarks([]byte("goos: linux\nBenchmarkApplyRows/adagrad/rows=256/width=16 \t 100 \t 8.5 ns/op \t 25463515 rows/s\n" +
		"BenchmarkSgemm/gonum/NN/m=512-2 50 2000 ns/op 15.5 GFLOP/s 0 B/op\nPASS\n"))
	if err != nil || f["adagrad rows/s"] != 25463515 || f["gonum GFLOP/s"] != 15.5 || f["gonum ns/op"] != 2000 {
		t.Errorf("benchmarks %v, %v; want rows/s of adagrad and GFLOP/s of gonum", f, err)
	}
	if _, err := readBenchmarks([]byte("PASS\n")); err == nil {
		t.Error("no benchmark was run and there is no error")
	}
}
