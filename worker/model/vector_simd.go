//go:build goexperiment.simd && amd64

package model

import "simd/archsimd"

// Vectors of AVX2 are enough here: the loops wait for memory more than they compute.
// Products are rounded before they are added, as in the plain loops.

func rectifyWide(v []float32) int {
	if !archsimd.X86.AVX2() {
		return 0
	}
	var zero archsimd.Float32x8
	n := len(v) &^ 7
	for i := 0; i < n; i += 8 {
		p := (*[8]float32)(v[i:])
		x := archsimd.LoadFloat32x8(p)
		// What is no number is not below 0: it stays.
		zero.Merge(x, x.Less(zero)).Store(p)
	}
	archsimd.ClearAVXUpperBits()
	return n
}

func passWide(activations, delta []float32, kept float32) int {
	if !archsimd.X86.AVX2() {
		return 0
	}
	var zero archsimd.Float32x8
	factor := archsimd.BroadcastFloat32x8(kept)
	n := len(delta) &^ 7
	for i := 0; i < n; i += 8 {
		p := (*[8]float32)(delta[i:])
		off := archsimd.LoadFloat32x8((*[8]float32)(activations[i:])).Equal(zero)
		zero.Merge(archsimd.LoadFloat32x8(p).Mul(factor), off).Store(p)
	}
	archsimd.ClearAVXUpperBits()
	return n
}

func axpyWide(a float32, x, y []float32) int {
	if !archsimd.X86.AVX2() {
		return 0
	}
	factor := archsimd.BroadcastFloat32x8(a)
	n := len(x) &^ 7
	for i := 0; i < n; i += 8 {
		p := (*[8]float32)(y[i:])
		archsimd.LoadFloat32x8((*[8]float32)(x[i:])).Mul(factor).Add(archsimd.LoadFloat32x8(p)).Store(p)
	}
	archsimd.ClearAVXUpperBits()
	return n
}

// sumWide does the factors by sixteen, whose sums stay in registers over all features.
func sumWide(index []int32, values, factors []float32, sums, squares []float64) int {
	k := len(sums)
	n := k &^ 15
	if n == 0 || !archsimd.X86.AVX2() {
		return 0
	}
	values = values[:len(index)]
	for f := 0; f < n; f += 16 {
		s, q := (*[16]float64)(sums[f:]), (*[16]float64)(squares[f:])
		s0, q0 := archsimd.LoadFloat64x4((*[4]float64)(s[0:])), archsimd.LoadFloat64x4((*[4]float64)(q[0:]))
		s1, q1 := archsimd.LoadFloat64x4((*[4]float64)(s[4:])), archsimd.LoadFloat64x4((*[4]float64)(q[4:]))
		s2, q2 := archsimd.LoadFloat64x4((*[4]float64)(s[8:])), archsimd.LoadFloat64x4((*[4]float64)(q[8:]))
		s3, q3 := archsimd.LoadFloat64x4((*[4]float64)(s[12:])), archsimd.LoadFloat64x4((*[4]float64)(q[12:]))
		for j, row := range index {
			v := (*[16]float32)(factors[int(row)*k+f:])
			x := archsimd.BroadcastFloat64x4(float64(values[j]))
			vx0 := archsimd.LoadFloat32x4((*[4]float32)(v[0:])).ConvertToFloat64().Mul(x)
			s0, q0 = s0.Add(vx0), q0.Add(vx0.Mul(vx0))
			vx1 := archsimd.LoadFloat32x4((*[4]float32)(v[4:])).ConvertToFloat64().Mul(x)
			s1, q1 = s1.Add(vx1), q1.Add(vx1.Mul(vx1))
			vx2 := archsimd.LoadFloat32x4((*[4]float32)(v[8:])).ConvertToFloat64().Mul(x)
			s2, q2 = s2.Add(vx2), q2.Add(vx2.Mul(vx2))
			vx3 := archsimd.LoadFloat32x4((*[4]float32)(v[12:])).ConvertToFloat64().Mul(x)
			s3, q3 = s3.Add(vx3), q3.Add(vx3.Mul(vx3))
		}
		s0.Store((*[4]float64)(s[0:]))
		q0.Store((*[4]float64)(q[0:]))
		s1.Store((*[4]float64)(s[4:]))
		q1.Store((*[4]float64)(q[4:]))
		s2.Store((*[4]float64)(s[8:]))
		q2.Store((*[4]float64)(q[8:]))
		s3.Store((*[4]float64)(s[12:]))
		q3.Store((*[4]float64)(q[12:]))
	}
	archsimd.ClearAVXUpperBits()
	return n
}

// addFactorsWide does the factors by sixteen, as sumWide.
func addFactorsWide(index []int32, values, factors []float32, sums []float64, d float64, grads []float32) int {
	k := len(sums)
	n := k &^ 15
	if n == 0 || !archsimd.X86.AVX2() {
		return 0
	}
	values = values[:len(index)]
	for f := 0; f < n; f += 16 {
		s := (*[16]float64)(sums[f:])
		s0 := archsimd.LoadFloat64x4((*[4]float64)(s[0:]))
		s1 := archsimd.LoadFloat64x4((*[4]float64)(s[4:]))
		s2 := archsimd.LoadFloat64x4((*[4]float64)(s[8:]))
		s3 := archsimd.LoadFloat64x4((*[4]float64)(s[12:]))
		for j, row := range index {
			at := int(row)*k + f
			v, g := (*[16]float32)(factors[at:]), (*[16]float32)(grads[at:])
			x, dx := archsimd.BroadcastFloat64x4(float64(values[j])), archsimd.BroadcastFloat64x4(d*float64(values[j]))
			g0 := (*[4]float32)(g[0:])
			add0 := s0.Sub(archsimd.LoadFloat32x4((*[4]float32)(v[0:])).ConvertToFloat64().Mul(x)).Mul(dx).ConvertToFloat32()
			archsimd.LoadFloat32x4(g0).Add(add0).Store(g0)
			g1 := (*[4]float32)(g[4:])
			add1 := s1.Sub(archsimd.LoadFloat32x4((*[4]float32)(v[4:])).ConvertToFloat64().Mul(x)).Mul(dx).ConvertToFloat32()
			archsimd.LoadFloat32x4(g1).Add(add1).Store(g1)
			g2 := (*[4]float32)(g[8:])
			add2 := s2.Sub(archsimd.LoadFloat32x4((*[4]float32)(v[8:])).ConvertToFloat64().Mul(x)).Mul(dx).ConvertToFloat32()
			archsimd.LoadFloat32x4(g2).Add(add2).Store(g2)
			g3 := (*[4]float32)(g[12:])
			add3 := s3.Sub(archsimd.LoadFloat32x4((*[4]float32)(v[12:])).ConvertToFloat64().Mul(x)).Mul(dx).ConvertToFloat32()
			archsimd.LoadFloat32x4(g3).Add(add3).Store(g3)
		}
	}
	archsimd.ClearAVXUpperBits()
	return n
}
