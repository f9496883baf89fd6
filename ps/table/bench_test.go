package table_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

var sizes = []struct{ rows, keys, width int }{
	{1_000_000, 4096, 16},
	{1_000_000, 64, 16},
	{1_000_000, 4096, 1},
	{10_000, 4096, 16},
}

// filled returns a table with rows, and keys of them in random batches.
func filled(b *testing.B, desc ps.Table, rows, keys int) (*table.Table, [][]ps.Key) {
	b.Helper()
	t, err := table.New(table.Config{Table: desc})
	if err != nil {
		b.Fatal(err)
	}
	all := make([]ps.Key, rows)
	for i := range all {
		all[i] = ps.Key(ps.Mix(uint64(i)))
	}
	if err := t.Apply(ps.Rows{Keys: all, Values: make([]byte, rows*desc.RowBytes())}, 1); err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	batches := make([][]ps.Key, max(16, 1<<22/keys))
	for i := range batches {
		batches[i] = make([]ps.Key, keys)
		for j := range batches[i] {
			batches[i][j] = all[rng.IntN(rows)]
		}
	}
	return t, batches
}

func BenchmarkGather(b *testing.B) {
	for _, s := range sizes {
		b.Run(fmt.Sprintf("rows=%d/keys=%d/width=%d", s.rows, s.keys, s.width), func(b *testing.B) {
			t, batches := filled(b, embedding("adagrad", s.width), s.rows, s.keys)
			dst := make([]byte, s.keys*s.width*4)
			i := 0
			for b.Loop() {
				if err := t.Gather(batches[i%len(batches)], dst, nil); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(float64(b.N*s.keys)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(t.Bytes())/float64(t.Len()), "B/row")
		})
	}
}

// BenchmarkGrowth fills a table with 10 M new keys, 4096 a push, and reports the longest time
// that a push took to make room for its rows: to map memory, and to split what is full of
// the index. A machine has pauses of its own, a fresh page now and then 20 ms: of each push
// the least counts that it took in three tables, which grow alike.
func BenchmarkGrowth(b *testing.B) {
	const rows, batch = 10 << 20, 4096
	fill := func(b *testing.B, times []time.Duration) {
		t, err := table.New(table.Config{Table: embedding(ps.AdaGrad, 16)})
		if err != nil {
			b.Fatal(err)
		}
		keys, values := make([]ps.Key, batch), make([]byte, 64*batch)
		for n := 0; n < rows; n += batch {
			for i := range keys {
				keys[i] = ps.Key(ps.Mix(uint64(n + i)))
			}
			start := time.Now()
			if err := t.Reserve(keys); err != nil {
				b.Fatal(err)
			}
			times[n/batch] = min(times[n/batch], time.Since(start))
			if err := t.Apply(ps.Rows{Keys: keys, Values: values}, 1); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("adagrad", func(b *testing.B) {
		for b.Loop() {
			times := slices.Repeat([]time.Duration{time.Hour}, rows/batch)
			for range 3 {
				fill(b, times)
			}
			b.ReportMetric(float64(slices.Max(times).Microseconds())/1000, "ms-longest")
		}
	})
}

func BenchmarkGatherAbsent(b *testing.B) {
	for _, name := range []string{ps.Zero, ps.Uniform, ps.Normal} {
		b.Run(name+"/keys=4096/width=16", func(b *testing.B) {
			desc := embedding("adagrad", 16)
			desc.Initializer = ps.Initializer{Name: name}
			if name != ps.Zero {
				desc.Initializer.Scale = 0.01
			}
			t, _ := filled(b, desc, 1, 1)
			keys := make([]ps.Key, 4096)
			for i := range keys {
				keys[i] = ps.Key(ps.Mix(uint64(i) + 1<<40))
			}
			dst := make([]byte, len(keys)*64)
			for b.Loop() {
				if err := t.Gather(keys, dst, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*len(keys))/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, optimizer := range []string{ps.SGD, ps.AdaGrad, ps.FTRL} {
		for _, s := range sizes {
			b.Run(fmt.Sprintf("%s/rows=%d/keys=%d/width=%d", optimizer, s.rows, s.keys, s.width), func(b *testing.B) {
				t, batches := filled(b, embedding(optimizer, s.width), s.rows, s.keys)
				rng := rand.New(rand.NewPCG(3, 4))
				grads := make([]float32, s.keys*s.width)
				for i := range grads {
					grads[i] = float32(rng.NormFloat64())
				}
				i := 0
				for b.Loop() {
					if err := t.Apply(ps.Rows{Keys: batches[i%len(batches)], Values: ps.Bytes(grads)}, uint64(i)); err != nil {
						b.Fatal(err)
					}
					i++
				}
				b.ReportMetric(float64(b.N*s.keys)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	const keys, width = 4096, 16
	t, batches := filled(b, embedding(ps.AdaGrad, width), 1, keys)
	rows := ps.Rows{Keys: batches[0], Values: make([]byte, keys*width*4)}
	b.Run(fmt.Sprintf("keys=%d/width=%d", keys, width), func(b *testing.B) {
		for b.Loop() {
			if err := t.Validate(rows); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N*keys)/b.Elapsed().Seconds(), "rows/s")
	})
}

func BenchmarkInsert(b *testing.B) {
	const rows, keys, width = 1_000_000, 4096, 16
	all := make([]ps.Key, rows)
	for i := range all {
		all[i] = ps.Key(ps.Mix(uint64(i)))
	}
	grads := make([]byte, keys*width*4)
	b.Run(fmt.Sprintf("rows=%d/keys=%d/width=%d", rows, keys, width), func(b *testing.B) {
		for b.Loop() {
			t, err := table.New(table.Config{Table: embedding(ps.AdaGrad, width)})
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; i+keys <= rows; i += keys {
				if err := t.Apply(ps.Rows{Keys: all[i : i+keys], Values: grads}, 1); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
	})
}

func embedding(optimizer string, width int) ps.Table {
	o := ps.Optimizer{Name: optimizer, LearningRate: 0.05}
	switch optimizer {
	case ps.AdaGrad:
		o.InitialAccumulator = 0.1
	case ps.FTRL:
		o.Beta, o.L1 = 1, 0.01
	}
	return ps.Table{Name: "item", Kind: ps.Float32, Width: width, Optimizer: o, Initializer: ps.Initializer{Name: ps.Zero}}
}
