package eval_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
)

const window = 100

// cluster is a parameter server of two tables in a map.
type cluster struct {
	layout ps.Layout
	binary bool
	tables [3]map[ps.Key][]float64
	pulled [3]int // keys
	err    error
}

func newCluster(binary bool) *cluster {
	c := &cluster{binary: binary}
	c.layout.Tables = append([]ps.Table{{Name: "weights", Width: 1}}, eval.Tables()...)
	for i := range c.tables {
		c.tables[i] = make(map[ps.Key][]float64)
	}
	return c
}

// push adds events of a partition from offset 0, as a worker would in batches.
func (c *cluster) push(s eval.Series, p ps.Partition, events []eval.Scored) {
	y := eval.NewTally(c.binary)
	for i, e := range events {
		if i%33 == 0 {
			c.add(y)
			y.Reset()
		}
		y.Add(s, eval.WindowOf(p, ps.Offset(i), window), e)
	}
	c.add(y)
}

func (c *cluster) add(y *eval.Tally) {
	for id, n := range map[int]eval.Increments{1: y.Figures, 2: y.Histogram} {
		width := c.layout.Tables[id].Width
		for i, key := range n.Keys {
			if c.tables[id][key] == nil {
				c.tables[id][key] = make([]float64, width)
			}
			for j, v := range n.Values[i*width : (i+1)*width] {
				c.tables[id][key][j] += v
			}
		}
	}
}

func (c *cluster) pull(_ context.Context, table ps.TableID, keys []ps.Key) ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	c.pulled[table] += len(keys)
	var values []float64
	for _, key := range keys {
		row := c.tables[table][key]
		if row == nil {
			row = make([]float64, c.layout.Tables[table].Width)
		}
		values = append(values, row...)
	}
	return ps.Bytes(values), nil
}

func (c *cluster) newSummary(t *testing.T) *eval.Summary {
	t.Helper()
	s, err := eval.NewSummary(eval.SummaryConfig{Layout: c.layout, Binary: c.binary, Window: window, Pull: c.pull})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// summary is of one partition.
func (c *cluster) summary(t *testing.T, from, to int) *eval.Summary {
	t.Helper()
	s := c.newSummary(t)
	if err := s.Update(t.Context(), []ps.Range{{From: ps.Offset(from), To: ps.Offset(to)}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func someEvents(seed uint64, n int) []eval.Scored {
	rng := rand.New(rand.NewPCG(seed, 0))
	events := make([]eval.Scored, n)
	for i := range events {
		events[i] = eval.Scored{
			Label: float32(rng.IntN(2)), Weight: float32(1 + rng.IntN(3)), Score: rng.Float32()*10 - 5,
			Prediction: rng.Float64(), Loss: rng.Float64(),
		}
	}
	return events
}

// sums are order-dependent in their last bits.
var approximately = cmpopts.EquateApprox(1e-12, 0)

func TestSummary(t *testing.T) {
	t.Run("is the same however it was followed", func(t *testing.T) {
		c := newCluster(true)
		followed := c.newSummary(t)
		a, b := someEvents(1, 3456), someEvents(2, 1234)
		applied := []ps.Range{{}, {}}
		for to := 0; to <= 3456; to += 144 {
			fresh := newCluster(true)
			c.tables = fresh.tables
			c.push(eval.Progressive, 0, a[:to])
			c.push(eval.Progressive, 1, b[:min(to, len(b))])
			c.push(eval.HeldOut, 0, a[:to])
			// Some shard is always behind.
			applied[0] = ps.Range{From: ps.Offset(max(0, to-250)), To: ps.Offset(to)}
			applied[1] = ps.Range{From: ps.Offset(min(max(0, to-250), len(b))), To: ps.Offset(min(to, len(b)))}
			if err := followed.Update(t.Context(), applied); err != nil {
				t.Fatal(err)
			}
		}
		// Everything is applied everywhere.
		applied[0].From, applied[1].From = applied[0].To, applied[1].To
		fresh := c.newSummary(t)
		for _, s := range []*eval.Summary{followed, fresh} {
			if err := s.Update(t.Context(), applied); err != nil {
				t.Fatal(err)
			}
		}
		for _, series := range []eval.Series{eval.Progressive, eval.Replayed, eval.HeldOut} {
			if diff := cmp.Diff(fresh.Figures(series), followed.Figures(series), approximately); diff != "" {
				t.Errorf("%v, at once and followed (-at once +followed):\n%.2000s", series, diff)
			}
		}
		if got := followed.Figures(eval.Progressive).Events; got != 3456+1234 {
			t.Errorf("%v progressive events, want %d", got, 3456+1234)
		}
		if got := followed.Figures(eval.HeldOut).Events; got != 3456 {
			t.Errorf("%v held-out events, want 3456", got)
		}
		if got := followed.Figures(eval.Replayed).Events; got != 0 {
			t.Errorf("%v replayed events, want 0", got)
		}
	})

	t.Run("sees what the furthest shard has applied", func(t *testing.T) {
		c := newCluster(true)
		c.push(eval.Progressive, 0, someEvents(3, 250))
		if got := c.summary(t, 0, 250).Figures(eval.Progressive).Events; got != 250 {
			t.Errorf("%v events, want 250", got)
		}
	})

	t.Run("pulls a finished window once", func(t *testing.T) {
		c := newCluster(true)
		c.push(eval.Progressive, 0, someEvents(4, 53*window))
		s := c.summary(t, 53*window, 53*window+1)
		first := c.pulled
		if first[1] != 54*3 || first[2] != 53*eval.Bins {
			t.Errorf("at first %d rows of figures and %d of the histogram, want %d and %d", first[1], first[2], 54*3, 53*eval.Bins)
		}
		for range 2 {
			before := c.pulled
			if err := s.Update(t.Context(), []ps.Range{{From: 53 * window, To: 53*window + 1}}); err != nil {
				t.Fatal(err)
			}
			if more := c.pulled[1] - before[1]; more != 3 {
				t.Errorf("then %d rows of figures, want the 3 of the newest window", more)
			}
			if more := c.pulled[2] - before[2]; more != 0 {
				t.Errorf("then %d rows of the histogram, want none: the window is empty", more)
			}
		}
	})

	t.Run("starts over where a shard went back", func(t *testing.T) {
		c := newCluster(true)
		c.push(eval.Progressive, 0, someEvents(5, 10*window))
		s := c.summary(t, 10*window, 10*window)
		c.tables = newCluster(true).tables
		c.push(eval.Progressive, 0, someEvents(5, 6*window))
		if err := s.Update(t.Context(), []ps.Range{{From: 6 * window, To: 6 * window}}); err != nil {
			t.Fatal(err)
		}
		if got := s.Figures(eval.Progressive).Events; got != 6*window {
			t.Errorf("%v events after the restore, want %d", got, 6*window)
		}
	})

	t.Run("keeps its figures over a pull that fails", func(t *testing.T) {
		c := newCluster(true)
		c.push(eval.Progressive, 0, someEvents(6, 30*window))
		s := c.summary(t, 5*window, 5*window)
		before := s.Figures(eval.Progressive)
		all := []ps.Range{{From: 30 * window, To: 30 * window}}
		c.err = fmt.Errorf("node 3: %w", ps.ErrUnavailable)
		if err := s.Update(t.Context(), all); !errors.Is(err, ps.ErrUnavailable) {
			t.Fatalf("err = %v, want %v", err, ps.ErrUnavailable)
		}
		if diff := cmp.Diff(before, s.Figures(eval.Progressive)); diff != "" {
			t.Errorf("(-before +after):\n%.2000s", diff)
		}
		c.err = nil
		if err := s.Update(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if got := s.Figures(eval.Progressive).Events; got != 30*window {
			t.Errorf("%v events, want %d", got, 30*window)
		}
	})

	t.Run("asks for no histogram under the squared loss", func(t *testing.T) {
		c := newCluster(false)
		c.push(eval.Progressive, 0, someEvents(7, 250))
		s := c.summary(t, 250, 250)
		if got := s.Figures(eval.Progressive).Events; got != 250 || c.pulled[2] != 0 {
			t.Errorf("%v events, %d rows of the histogram, want 250 and 0", got, c.pulled[2])
		}
	})
}

func TestSummaryRefusals(t *testing.T) {
	good := eval.SummaryConfig{Layout: ps.Layout{Tables: eval.Tables()}, Binary: true, Window: window}
	wide := eval.Tables()
	wide[0].Width++
	for _, c := range []struct {
		name   string
		change func(*eval.SummaryConfig)
	}{
		{"a layout without the tables", func(c *eval.SummaryConfig) { c.Layout.Tables = c.Layout.Tables[:1] }},
		{"a table of another width", func(c *eval.SummaryConfig) { c.Layout.Tables = wide }},
		{"windows of nothing", func(c *eval.SummaryConfig) { c.Window = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good
			c.change(&config)
			if _, err := eval.NewSummary(config); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("err = %v, want %v", err, ps.ErrInvalid)
			}
		})
	}
	t.Run("an answer of the wrong size", func(t *testing.T) {
		config := good
		config.Pull = func(context.Context, ps.TableID, []ps.Key) ([]byte, error) { return make([]byte, 8), nil }
		s, err := eval.NewSummary(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), []ps.Range{{To: 1}}); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("err = %v, want %v", err, ps.ErrCorrupt)
		}
	})
}
