//go:build goexperiment.simd && amd64

package sgemm

import "simd/archsimd"

// chooseTile returns the processor's widest tile and its columns; nil if it has none.
func chooseTile() (tile, int) {
	switch {
	case archsimd.X86.AVX512():
		return tileAVX512, 32
	case archsimd.X86.AVX2() && archsimd.X86.FMA():
		return tileAVX2, 16
	}
	return nil, 0
}

// tileAVX512 is a tile of 6 by 32. The bounds are checked once per step: the arrays that
// a step reads are of constant size. An element of the left panel is loaded with its
// neighbours, because copying one lane to all is one instruction and placing one element
// is two.
func tileAVX512(depth int, a, b, c []float32, stride int) {
	var c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51 archsimd.Float32x16
	for range depth {
		x, y := (*[tileRows + 3]float32)(a), (*[32]float32)(b)
		y0, y1 := archsimd.LoadFloat32x16((*[16]float32)(y[:])), archsimd.LoadFloat32x16((*[16]float32)(y[16:]))
		x0 := archsimd.LoadFloat32x4((*[4]float32)(x[0:])).Broadcast1To16()
		c00, c01 = x0.MulAdd(y0, c00), x0.MulAdd(y1, c01)
		x1 := archsimd.LoadFloat32x4((*[4]float32)(x[1:])).Broadcast1To16()
		c10, c11 = x1.MulAdd(y0, c10), x1.MulAdd(y1, c11)
		x2 := archsimd.LoadFloat32x4((*[4]float32)(x[2:])).Broadcast1To16()
		c20, c21 = x2.MulAdd(y0, c20), x2.MulAdd(y1, c21)
		x3 := archsimd.LoadFloat32x4((*[4]float32)(x[3:])).Broadcast1To16()
		c30, c31 = x3.MulAdd(y0, c30), x3.MulAdd(y1, c31)
		x4 := archsimd.LoadFloat32x4((*[4]float32)(x[4:])).Broadcast1To16()
		c40, c41 = x4.MulAdd(y0, c40), x4.MulAdd(y1, c41)
		x5 := archsimd.LoadFloat32x4((*[4]float32)(x[5:])).Broadcast1To16()
		c50, c51 = x5.MulAdd(y0, c50), x5.MulAdd(y1, c51)
		a, b = a[tileRows:], b[32:]
	}
	tileAVX512Row(c, c00, c01)
	tileAVX512Row(c[1*stride:], c10, c11)
	tileAVX512Row(c[2*stride:], c20, c21)
	tileAVX512Row(c[3*stride:], c30, c31)
	tileAVX512Row(c[4*stride:], c40, c41)
	tileAVX512Row(c[5*stride:], c50, c51)
	archsimd.ClearAVXUpperBits()
}

func tileAVX512Row(c []float32, v0, v1 archsimd.Float32x16) {
	to := (*[32]float32)(c)
	left, right := (*[16]float32)(to[:]), (*[16]float32)(to[16:])
	archsimd.LoadFloat32x16(left).Add(v0).Store(left)
	archsimd.LoadFloat32x16(right).Add(v1).Store(right)
}

// tileAVX2 is tileAVX512 by 16.
func tileAVX2(depth int, a, b, c []float32, stride int) {
	var c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51 archsimd.Float32x8
	for range depth {
		x, y := (*[tileRows + 3]float32)(a), (*[16]float32)(b)
		y0, y1 := archsimd.LoadFloat32x8((*[8]float32)(y[:])), archsimd.LoadFloat32x8((*[8]float32)(y[8:]))
		x0 := archsimd.LoadFloat32x4((*[4]float32)(x[0:])).Broadcast1To8()
		c00, c01 = x0.MulAdd(y0, c00), x0.MulAdd(y1, c01)
		x1 := archsimd.LoadFloat32x4((*[4]float32)(x[1:])).Broadcast1To8()
		c10, c11 = x1.MulAdd(y0, c10), x1.MulAdd(y1, c11)
		x2 := archsimd.LoadFloat32x4((*[4]float32)(x[2:])).Broadcast1To8()
		c20, c21 = x2.MulAdd(y0, c20), x2.MulAdd(y1, c21)
		x3 := archsimd.LoadFloat32x4((*[4]float32)(x[3:])).Broadcast1To8()
		c30, c31 = x3.MulAdd(y0, c30), x3.MulAdd(y1, c31)
		x4 := archsimd.LoadFloat32x4((*[4]float32)(x[4:])).Broadcast1To8()
		c40, c41 = x4.MulAdd(y0, c40), x4.MulAdd(y1, c41)
		x5 := archsimd.LoadFloat32x4((*[4]float32)(x[5:])).Broadcast1To8()
		c50, c51 = x5.MulAdd(y0, c50), x5.MulAdd(y1, c51)
		a, b = a[tileRows:], b[16:]
	}
	tileAVX2Row(c, c00, c01)
	tileAVX2Row(c[1*stride:], c10, c11)
	tileAVX2Row(c[2*stride:], c20, c21)
	tileAVX2Row(c[3*stride:], c30, c31)
	tileAVX2Row(c[4*stride:], c40, c41)
	tileAVX2Row(c[5*stride:], c50, c51)
	archsimd.ClearAVXUpperBits()
}

func tileAVX2Row(c []float32, v0, v1 archsimd.Float32x8) {
	to := (*[16]float32)(c)
	left, right := (*[8]float32)(to[:]), (*[8]float32)(to[8:])
	archsimd.LoadFloat32x8(left).Add(v0).Store(left)
	archsimd.LoadFloat32x8(right).Add(v1).Store(right)
}
