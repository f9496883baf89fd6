package eval_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
)

func TestTables(t *testing.T) {
	l := ps.Layout{Tables: eval.Tables()}
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, table := range l.Tables {
		if table.Kind != ps.Float64 || table.Optimizer.Name != ps.Sum || table.Initializer.Name != ps.Zero {
			t.Errorf("table %q is %+v: want float64 sums from zero", table.Name, table)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Run("all rows of a window share a shard of the largest cluster", func(t *testing.T) {
		for n := range uint64(100) {
			w := eval.Window{Partition: 3, Number: n}
			want := ps.ShardOf(eval.Key(eval.Progressive, w), ps.ShardsMax)
			for _, s := range []eval.Series{eval.Progressive, eval.Replayed, eval.HeldOut} {
				for _, bin := range []int{0, 1, 511, eval.Bins - 1} {
					if got := ps.ShardOf(eval.BinKey(s, w, bin), ps.ShardsMax); got != want {
						t.Fatalf("window %v, series %v, bin %d: shard %d, want %d", w, s, bin, got, want)
					}
				}
			}
		}
	})
	t.Run("no two rows share a key", func(t *testing.T) {
		seen := make(map[ps.Key]string)
		add := func(key ps.Key, what string) {
			if other, ok := seen[key]; ok {
				t.Fatalf("key %#x is %s and %s", uint64(key), other, what)
			}
			seen[key] = what
		}
		for p := range ps.Partition(64) {
			for n := range uint64(1000) {
				add(eval.Key(eval.Progressive, eval.Window{Partition: p, Number: n}), "a window")
			}
		}
		w := eval.Window{Partition: 1 << 13, Number: 1 << 29}
		for _, s := range []eval.Series{eval.Progressive, eval.Replayed, eval.HeldOut} {
			for bin := range eval.Bins {
				add(eval.BinKey(s, w, bin), "a bin")
			}
		}
	})
	t.Run("windows are spread over shards", func(t *testing.T) {
		const shards, windows = 64, 64 * 200
		var counts [shards]int
		for n := range uint64(windows) {
			counts[ps.ShardOf(eval.Key(eval.Progressive, eval.Window{Partition: ps.Partition(n % 8), Number: n / 8}), shards)]++
		}
		for s, n := range counts { // mean 200, standard deviation 14
			if n < 120 || n > 280 {
				t.Errorf("shard %d has %d of %d windows: want about %d", s, n, windows, windows/shards)
			}
		}
	})
	t.Run("keys never change, for they are in checkpoints", func(t *testing.T) {
		got := []ps.Key{
			eval.Key(eval.Progressive, eval.Window{}),
			eval.Key(eval.Progressive, eval.Window{Partition: 0, Number: 1}),
			eval.Key(eval.HeldOut, eval.Window{Partition: 7, Number: 123456}),
			eval.BinKey(eval.Replayed, eval.Window{Partition: 1, Number: 2}, 999),
		}
		want := []ps.Key{0, 7239228076376195072, 9931644321762641920, 6326727775343347687}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
	})
}

func TestWindowOf(t *testing.T) {
	for _, c := range []struct {
		o    ps.Offset
		want uint64
	}{{0, 0}, {99, 0}, {100, 1}, {1050, 10}} {
		if got := eval.WindowOf(2, c.o, 100); got != (eval.Window{Partition: 2, Number: c.want}) {
			t.Errorf("offset %d in windows of 100: got %v, want number %d", c.o, got, c.want)
		}
	}
}

func TestBin(t *testing.T) {
	for _, c := range []struct {
		name  string
		score float64
		want  int
	}{
		{"the lowest logit", -12.5, 0},
		{"below the lowest", -1e30, 0},
		{"an endless loss", math.Inf(-1), 0},
		{"not a number", math.NaN(), 0},
		{"the middle", 0, 500},
		{"just below the middle", -1e-3, 499},
		{"just below the highest", 12.499, 999},
		{"the highest", 12.5, 999},
		{"above the highest", math.Inf(1), 999},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := eval.Bin(float32(c.score)); got != c.want {
				t.Errorf("Bin(%v) = %d, want %d", c.score, got, c.want)
			}
		})
	}
}

func TestTally(t *testing.T) {
	a, b := eval.Window{Partition: 1, Number: 4}, eval.Window{Partition: 1, Number: 5}
	yes := eval.Scored{Label: 1, Weight: 2, Score: 0, Prediction: 0.5, Loss: 0.75}
	no := eval.Scored{Label: 0, Weight: 1, Score: -12.5, Prediction: 0.25, Loss: 0.5}

	t.Run("adds what shares a row and keeps apart what does not", func(t *testing.T) {
		y := eval.NewTally(true)
		for range 2 { // the second time after Reset
			y.Reset()
			y.Add(eval.Progressive, a, yes)
			y.Add(eval.Progressive, a, no)
			y.Add(eval.Progressive, b, yes)
			y.Add(eval.HeldOut, a, no)
			y.Add(eval.Progressive, a, yes)
			wantKeys := []ps.Key{eval.Key(eval.Progressive, a), eval.Key(eval.Progressive, b), eval.Key(eval.HeldOut, a)}
			wantValues := []float64{
				3, 5, 4, 4, 2.25, 3.5, // events, weight, labels, their squares, predictions, losses
				1, 2, 2, 2, 1, 1.5,
				1, 1, 0, 0, 0.25, 0.5,
			}
			if diff := cmp.Diff(wantKeys, y.Figures.Keys) + cmp.Diff(wantValues, y.Figures.Values); diff != "" {
				t.Errorf("figures (-want +got):\n%s", diff)
			}
			wantKeys = []ps.Key{
				eval.BinKey(eval.Progressive, a, 500), eval.BinKey(eval.Progressive, a, 0),
				eval.BinKey(eval.Progressive, b, 500), eval.BinKey(eval.HeldOut, a, 0),
			}
			wantValues = []float64{0, 4, 1, 0, 0, 2, 1, 0} // negatives, positives
			if diff := cmp.Diff(wantKeys, y.Histogram.Keys) + cmp.Diff(wantValues, y.Histogram.Values); diff != "" {
				t.Errorf("histogram (-want +got):\n%s", diff)
			}
		}
	})
	t.Run("has no histogram under the squared loss", func(t *testing.T) {
		y := eval.NewTally(false)
		y.Add(eval.Progressive, a, yes)
		if len(y.Figures.Keys) != 1 || len(y.Histogram.Keys) != 0 {
			t.Errorf("%d rows of figures and %d of the histogram, want 1 and 0", len(y.Figures.Keys), len(y.Histogram.Keys))
		}
	})
	t.Run("allocates nothing once it has seen a batch", func(t *testing.T) {
		y := eval.NewTally(true)
		batch := func() {
			y.Reset()
			for i := range 512 {
				e := no
				e.Score = float32(i%400)/16 - 12.5
				y.Add(eval.Progressive, eval.WindowOf(1, ps.Offset(i), 100), e)
			}
		}
		if n := testing.AllocsPerRun(20, batch); n != 0 {
			t.Errorf("a batch of 512 allocates %v times, want 0", n)
		}
	})
}

func BenchmarkTally(b *testing.B) {
	y := eval.NewTally(true)
	for i := 0; b.Loop(); i++ {
		if i%256 == 0 {
			y.Reset()
		}
		y.Add(eval.Progressive, eval.WindowOf(1, ps.Offset(i), 10000),
			eval.Scored{Weight: 1, Score: float32(i%377)/37 - 5})
	}
}
