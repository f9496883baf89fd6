package table

// Internal: rows are visited in random order without an index in between, and only
// here can addresses be prefetched.

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
)

// BenchmarkRandomRows updates rows of 16 weights that lie in random order in memory
// far larger than any cache: AdaGrad's have 128 bytes, FTRL's 192. "plain" is the plain
// form of the rule, row by row as they come; "vectors" is what tables do.
func BenchmarkRandomRows(b *testing.B) {
	const width, count = 16, 1 << 20
	for _, o := range []ps.Optimizer{
		{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 1},
		{Name: ps.FTRL, LearningRate: 0.1, Beta: 1},
	} {
		made, err := optim.New(o, ps.Float32)
		if err != nil {
			b.Fatal(err)
		}
		rule, ok := made.(optim.RuleOf[float32])
		if !ok {
			b.Fatalf("%s is a %T", o.Name, made)
		}
		full := width + rule.StateWidth(width)
		all := view[float32](mapped.take(4*full*count), full*count)
		row := func(n int32) []float32 { return all[int(n)*full : (int(n)+1)*full : (int(n)+1)*full] }
		rng := rand.New(rand.NewPCG(1, 2))
		order := make([]int32, count)
		for i, n := range rng.Perm(count) {
			order[i] = int32(n)
			rule.Init(row(int32(n))[:width], row(int32(n))[width:])
		}
		grads := make([]float32, chunk*width)
		for i := range grads {
			grads[i] = float32(rng.NormFloat64())
		}
		for _, form := range []struct {
			name   string
			update func(numbers []int32)
		}{
			{"plain", func(numbers []int32) {
				for i, n := range numbers {
					rule.Apply(row(n)[:width], row(n)[width:], grads[i*width:(i+1)*width])
				}
			}},
			{"vectors", func(numbers []int32) {
				var at [chunk]uintptr
				var rows [chunk][]float32
				for i, n := range numbers {
					rows[i] = row(n)
					at[i] = uintptr(unsafe.Pointer(unsafe.SliceData(rows[i])))
				}
				prefetch(&at[0], len(numbers), uintptr(4*full-1))
				rule.ApplyRows(rows[:len(numbers)], grads)
			}},
		} {
			b.Run(o.Name+"/"+form.name, func(b *testing.B) {
				next := 0
				for b.Loop() {
					form.update(order[next : next+chunk])
					next = (next + chunk) % count
				}
				b.ReportMetric(float64(b.N)*chunk/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
