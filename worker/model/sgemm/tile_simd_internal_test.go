//go:build goexperiment.simd && amd64

package sgemm

import (
	"math"
	"math/rand/v2"
	"simd/archsimd"
	"testing"
)

// Which tile Sgemm takes follows from the processor, so that the narrower one can only be
// reached from inside.
func TestTiles(t *testing.T) {
	for _, c := range []struct {
		name    string
		has     bool
		tile    tile
		columns int
	}{
		{"AVX-512", archsimd.X86.AVX512(), tileAVX512, 32},
		{"AVX2", archsimd.X86.AVX2() && archsimd.X86.FMA(), tileAVX2, 16},
	} {
		t.Run(c.name+" adds the product", func(t *testing.T) {
			if !c.has {
				t.Skip("the processor does not have it")
			}
			rng := rand.New(rand.NewPCG(1, 0))
			const deep, stride = 37, 50
			a, b := make([]float32, deep*tileRows+3), make([]float32, deep*c.columns)
			got, want := make([]float32, tileRows*stride), make([]float64, tileRows*stride)
			for _, s := range [][]float32{a, b, got} {
				for i := range s {
					s[i] = float32(rng.NormFloat64())
				}
			}
			for i := range want {
				want[i] = float64(got[i])
				if row, column := i/stride, i%stride; column < c.columns {
					for k := range deep {
						want[i] += float64(a[k*tileRows+row]) * float64(b[k*c.columns+column])
					}
				}
			}
			c.tile(deep, a, b, got, stride)
			for i, v := range got {
				if math.Abs(float64(v)-want[i]) > 1e-5 { // 37 products of about 1
					t.Errorf("row %d, column %d: %v, want %v", i/stride, i%stride, v, want[i])
				}
			}
		})
	}
}
