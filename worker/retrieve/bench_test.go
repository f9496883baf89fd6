package retrieve_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/worker/retrieve"
)

// filled returns a table of n items with normal vectors.
func filled(tb testing.TB, n, width int) (*retrieve.Table, *rand.Rand) {
	tb.Helper()
	rng := rand.New(rand.NewPCG(1, 0))
	table, err := retrieve.New(width)
	if err != nil {
		tb.Fatal(err)
	}
	vector := make([]float32, width)
	for item := range n {
		if err := table.Update(item, normal(rng, vector)); err != nil {
			tb.Fatal(err)
		}
	}
	return table, rng
}

func normal(rng *rand.Rand, to []float32) []float32 {
	for i := range to {
		to[i] = float32(rng.NormFloat64())
	}
	return to
}

// BenchmarkTop1M32 finds the best 100 of a million items, on one core.
func BenchmarkTop1M32(b *testing.B) {
	const n, width, k = 1_000_000, 32, 100
	table, rng := filled(b, n, width)
	query := normal(rng, make([]float32, width))
	odd := func(item int) bool { return item%2 == 1 }
	for _, c := range []struct {
		name string
		keep func(int) bool
	}{{"keep=all", nil}, {"keep=half", odd}, {"keep=none", func(int) bool { return false }}} {
		b.Run(c.name, func(b *testing.B) {
			hits := make([]retrieve.Hit, 0, k)
			b.SetBytes(n * width * 4)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Top(query, k, c.keep, hits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTopWidths finds the best 100 of 256 MiB of vectors of other widths.
func BenchmarkTopWidths(b *testing.B) {
	const elements, k = 1 << 26, 100
	for _, width := range []int{16, 64, 256} {
		b.Run(fmt.Sprintf("width=%d", width), func(b *testing.B) {
			table, rng := filled(b, elements/width, width)
			query, hits := normal(rng, make([]float32, width)), make([]retrieve.Hit, 0, k)
			b.SetBytes(elements * 4)
			for b.Loop() {
				if _, err := table.Top(query, k, nil, hits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTopRising has the order of items that is worst for a search: each is better than
// all before it.
func BenchmarkTopRising(b *testing.B) {
	const n, width, k = 1_000_000, 32, 100
	table, err := retrieve.New(width)
	if err != nil {
		b.Fatal(err)
	}
	vector := make([]float32, width)
	for item := range n {
		vector[0] = float32(item)
		if err := table.Update(item, vector); err != nil {
			b.Fatal(err)
		}
	}
	query := make([]float32, width)
	query[0] = 1
	hits := make([]retrieve.Hit, 0, k)
	for b.Loop() {
		if _, err := table.Top(query, k, nil, hits); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate gives items of a million vectors of 32 elements new ones, in random order.
func BenchmarkUpdate(b *testing.B) {
	const n, width = 1_000_000, 32
	table, rng := filled(b, n, width)
	vector := normal(rng, make([]float32, width))
	for b.Loop() {
		if err := table.Update(rng.IntN(n), vector); err != nil {
			b.Fatal(err)
		}
	}
}
