package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestVectorsComputeWhatLoopsDo holds the forms with vectors, which are not told from
// outside, to the plain ones: the same bits, and nothing written behind the end.
func TestVectorsComputeWhatLoopsDo(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	// numbers has a zero, a NaN and the like here and there, and room behind.
	numbers := func(n int) []float32 {
		v := make([]float32, n, n+16)
		for i := range v {
			switch rng.IntN(20) {
			case 0:
				v[i] = 0
			case 1:
				v[i] = float32(math.Copysign(0, -1))
			case 2:
				v[i] = float32(math.NaN())
			case 3:
				v[i] = float32(math.Inf(-1))
			default:
				v[i] = float32(rng.NormFloat64())
			}
		}
		return v
	}
	check := func(what string, got, want []float32) {
		t.Helper()
		for i, w := range want {
			if same := got[i] == w || got[i] != got[i] && w != w; !same {
				t.Fatalf("%s of %d: element %d is %v, want %v", what, len(want), i, got[i], w)
			}
		}
		for i, v := range got[:cap(got)][len(got):] {
			if v != 0 {
				t.Fatalf("%s of %d wrote %v at %d behind the end", what, len(got), v, i)
			}
		}
	}
	like := func(v []float32) []float32 { return append(make([]float32, 0, cap(v)), v...) }
	for n := range 70 {
		x, y := numbers(n), numbers(n)
		got, want := like(y), like(y)
		axpy(1.5, x, got)
		for i := range want {
			want[i] += float32(1.5 * x[i])
		}
		check("axpy", got, want)

		got, want = like(x), like(x)
		rectify(got)
		for i, v := range want {
			if v < 0 {
				want[i] = 0
			}
		}
		check("rectify", got, want)

		got, want = like(y), like(y)
		pass(x, got, 1.25)
		for i := range want {
			want[i] *= 1.25
			if x[i] == 0 {
				want[i] = 0
			}
		}
		check("pass", got, want)
	}
}

func TestFactorsInVectorsAreThoseOfLoops(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for _, k := range []int{1, 8, 15, 16, 17, 32, 40, 48} {
		t.Run(fmt.Sprintf("%d factors", k), func(t *testing.T) {
			const rows = 9
			factors, grads, want := make([]float32, rows*k), make([]float32, rows*k), make([]float32, rows*k)
			for i := range factors {
				factors[i] = float32(rng.NormFloat64())
			}
			index, values := []int32{3, 0, 8, 3}, []float32{1, -0.3, 2.7, 0.1}
			sums, squares := make([]float64, k), make([]float64, k)
			sumFactors(index, values, factors, sums, squares)
			for f := range k {
				var sum, square float64
				for j, row := range index {
					vx := float64(factors[int(row)*k+f]) * float64(values[j])
					sum += vx
					square += float64(vx * vx)
				}
				if sums[f] != sum || squares[f] != square {
					t.Errorf("factor %d: sums %v and %v, want %v and %v", f, sums[f], squares[f], sum, square)
				}
			}
			addFactors(index, values, factors, sums, 0.7, grads)
			for j, row := range index {
				for f := range k {
					at, x := int(row)*k+f, float64(values[j])
					want[at] += float32(0.7 * x * (sums[f] - float64(float64(factors[at])*x)))
				}
			}
			for i := range want {
				if grads[i] != want[i] {
					t.Errorf("gradient %d is %v, want %v", i, grads[i], want[i])
				}
			}
		})
	}
}
