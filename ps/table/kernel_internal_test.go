package table

// Internal: rows are visited in random order without an index in between, and only
// here can they be without.

import (
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// BenchmarkRandomRows updates rows of 16 weights that lie in random order in memory
// far larger than any cache: with their state AdaGrad's have 128 bytes, FTRL's 192, and
// 12 of key and seq before them. "plain" is the plain form of the rule, row by row as
// they come; "vectors" is what Apply does with rows that it has found.
func BenchmarkRandomRows(b *testing.B) {
	const width, count, batch = 16, 1 << 20, 64 * chunk
	for _, o := range []ps.Optimizer{
		{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 1},
		{Name: ps.FTRL, LearningRate: 0.1, Beta: 1},
	} {
		t, err := New(Config{Table: embeddingOf(width, o)})
		if err != nil {
			b.Fatal(err)
		}
		keys := make([]ps.Key, count)
		for i := range keys {
			keys[i] = ps.Key(i)
		}
		if err := t.Apply(ps.Rows{Keys: keys, Values: make([]byte, 4*width*count)}, 1); err != nil {
			b.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		order := make([]uint32, count) // numbers plus one
		for i, n := range rng.Perm(count) {
			order[i] = uint32(n) + 1
		}
		grads := make([]float32, batch*width)
		for i := range grads {
			grads[i] = float32(rng.NormFloat64())
		}
		e := t.elements.(*typed[float32])
		for _, form := range []struct {
			name   string
			update func(rows []uint32)
		}{
			{"plain", func(rows []uint32) {
				for i, n := range rows {
					row := view[float32](t.rows.elements(n-1), e.full)
					e.rule.Apply(row[:width], row[width:], grads[i*width:(i+1)*width])
				}
			}},
			{"vectors", func(rows []uint32) {
				t.phases(len(rows), func(found *location, from, to int) {
					copy(found.rows[:], rows[from:to])
				}, func(found *location, from, to int) {
					t.fetch(found, to-from, t.rows.stride)
				}, func(found *location, from, to int) {
					t.elements.apply(found.at[:to-from], t.rows.header, ps.Bytes(grads[from*width:to*width]), 1)
				})
			}},
		} {
			b.Run(o.Name+"/"+form.name, func(b *testing.B) {
				next := 0
				for b.Loop() {
					form.update(order[next : next+batch])
					next = (next + batch) % count
				}
				b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
