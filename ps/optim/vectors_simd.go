//go:build goexperiment.simd && amd64

package optim

import "simd/archsimd"

// lanes is how many float32 the vectors of this processor have that the kernels
// are written for: 16 with AVX-512, 8 with AVX2, and 0 where the plain form is
// used. Only tests change it.
var lanes = func() int {
	switch {
	case archsimd.X86.AVX512():
		return 16
	case archsimd.X86.AVX2():
		return 8
	}
	return 0
}()

// signBit is that of a float32.
const signBit = 1 << 31

// applyVectors updates rows by vectors. It reports whether it has.
func (r sgd) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch lanes {
	case 16:
		r.apply16(rows, width, grads)
	case 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

func (r sgd) apply16(rows [][]float32, width int, grads []float32) {
	rate, l2 := archsimd.BroadcastFloat32x16(r.learningRate), archsimd.BroadcastFloat32x16(r.l2)
	step := func(w, g archsimd.Float32x16) archsimd.Float32x16 {
		return w.Sub(rate.Mul(g.Add(l2.Mul(w))))
	}
	for _, row := range rows {
		ws, gs := row[:width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(gs) >= 16 {
			step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(gs)).StoreSlice(ws)
			ws, gs = ws[16:], gs[16:]
		}
		if len(ws) > 0 {
			step(archsimd.LoadFloat32x16SlicePart(ws), archsimd.LoadFloat32x16SlicePart(gs)).StoreSlicePart(ws)
		}
	}
}

func (r sgd) apply8(rows [][]float32, width int, grads []float32) {
	rate, l2 := archsimd.BroadcastFloat32x8(r.learningRate), archsimd.BroadcastFloat32x8(r.l2)
	step := func(w, g archsimd.Float32x8) archsimd.Float32x8 {
		return w.Sub(rate.Mul(g.Add(l2.Mul(w))))
	}
	for _, row := range rows {
		ws, gs := row[:width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(gs) >= 8 {
			step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(gs)).StoreSlice(ws)
			ws, gs = ws[8:], gs[8:]
		}
		if len(ws) > 0 {
			step(archsimd.LoadFloat32x8SlicePart(ws), archsimd.LoadFloat32x8SlicePart(gs)).StoreSlicePart(ws)
		}
	}
}

// applyVectors updates rows by vectors. It reports whether it has.
func (r adagrad) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch lanes {
	case 16:
		r.apply16(rows, width, grads)
	case 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

func (r adagrad) apply16(rows [][]float32, width int, grads []float32) {
	rate, l2 := archsimd.BroadcastFloat32x16(r.learningRate), archsimd.BroadcastFloat32x16(r.l2)
	step := func(w, a, g archsimd.Float32x16) (archsimd.Float32x16, archsimd.Float32x16) {
		g = g.Add(l2.Mul(w))
		a = a.Add(g.Mul(g))
		return w.Sub(rate.Mul(g).Div(a.Sqrt())), a
	}
	for _, row := range rows {
		ws, as, gs := row[:width], row[width:2*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(as) >= 16 && len(gs) >= 16 {
			w, a := step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(as), archsimd.LoadFloat32x16Slice(gs))
			w.StoreSlice(ws)
			a.StoreSlice(as)
			ws, as, gs = ws[16:], as[16:], gs[16:]
		}
		if len(ws) > 0 {
			w, a := step(archsimd.LoadFloat32x16SlicePart(ws), archsimd.LoadFloat32x16SlicePart(as), archsimd.LoadFloat32x16SlicePart(gs))
			w.StoreSlicePart(ws)
			a.StoreSlicePart(as)
		}
	}
}

func (r adagrad) apply8(rows [][]float32, width int, grads []float32) {
	rate, l2 := archsimd.BroadcastFloat32x8(r.learningRate), archsimd.BroadcastFloat32x8(r.l2)
	step := func(w, a, g archsimd.Float32x8) (archsimd.Float32x8, archsimd.Float32x8) {
		g = g.Add(l2.Mul(w))
		a = a.Add(g.Mul(g))
		return w.Sub(rate.Mul(g).Div(a.Sqrt())), a
	}
	for _, row := range rows {
		ws, as, gs := row[:width], row[width:2*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(as) >= 8 && len(gs) >= 8 {
			w, a := step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(as), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			a.StoreSlice(as)
			ws, as, gs = ws[8:], as[8:], gs[8:]
		}
		if len(ws) > 0 {
			w, a := step(archsimd.LoadFloat32x8SlicePart(ws), archsimd.LoadFloat32x8SlicePart(as), archsimd.LoadFloat32x8SlicePart(gs))
			w.StoreSlicePart(ws)
			a.StoreSlicePart(as)
		}
	}
}

// applyVectors updates rows by vectors. It reports whether it has.
func (r ftrl) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch lanes {
	case 16:
		r.apply16(rows, width, grads)
	case 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

func (r ftrl) apply16(rows [][]float32, width int, grads []float32) {
	alpha, beta := archsimd.BroadcastFloat32x16(r.alpha), archsimd.BroadcastFloat32x16(r.beta)
	l1, l2 := archsimd.BroadcastFloat32x16(r.l1), archsimd.BroadcastFloat32x16(r.l2)
	signs, zero := archsimd.BroadcastUint32x16(signBit), archsimd.BroadcastFloat32x16(0)
	step := func(w, z, n, g archsimd.Float32x16) (_, _, _ archsimd.Float32x16) {
		root := n.Sqrt()
		n = n.Add(g.Mul(g))
		rootNew := n.Sqrt()
		sigma := rootNew.Sub(root).Div(alpha)
		z = z.Add(g.Sub(sigma.Mul(w)))
		divisor := beta.Add(rootNew).Div(alpha).Add(l2)
		sign := z.AsUint32x16().And(signs)
		magnitude := z.AsUint32x16().Xor(sign).AsFloat32x16().Sub(l1)
		derived := magnitude.Div(divisor).AsUint32x16().Xor(sign).Xor(signs).AsFloat32x16()
		derived = derived.Masked(magnitude.Greater(zero))
		return w.Merge(derived, divisor.Equal(zero)), z, n
	}
	for _, row := range rows {
		ws, zs, ns, gs := row[:width], row[width:2*width], row[2*width:3*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(zs) >= 16 && len(ns) >= 16 && len(gs) >= 16 {
			w, z, n := step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(zs),
				archsimd.LoadFloat32x16Slice(ns), archsimd.LoadFloat32x16Slice(gs))
			w.StoreSlice(ws)
			z.StoreSlice(zs)
			n.StoreSlice(ns)
			ws, zs, ns, gs = ws[16:], zs[16:], ns[16:], gs[16:]
		}
		if len(ws) > 0 {
			w, z, n := step(archsimd.LoadFloat32x16SlicePart(ws), archsimd.LoadFloat32x16SlicePart(zs),
				archsimd.LoadFloat32x16SlicePart(ns), archsimd.LoadFloat32x16SlicePart(gs))
			w.StoreSlicePart(ws)
			z.StoreSlicePart(zs)
			n.StoreSlicePart(ns)
		}
	}
}

func (r ftrl) apply8(rows [][]float32, width int, grads []float32) {
	alpha, beta := archsimd.BroadcastFloat32x8(r.alpha), archsimd.BroadcastFloat32x8(r.beta)
	l1, l2 := archsimd.BroadcastFloat32x8(r.l1), archsimd.BroadcastFloat32x8(r.l2)
	signs, zero := archsimd.BroadcastUint32x8(signBit), archsimd.BroadcastFloat32x8(0)
	step := func(w, z, n, g archsimd.Float32x8) (_, _, _ archsimd.Float32x8) {
		root := n.Sqrt()
		n = n.Add(g.Mul(g))
		rootNew := n.Sqrt()
		sigma := rootNew.Sub(root).Div(alpha)
		z = z.Add(g.Sub(sigma.Mul(w)))
		divisor := beta.Add(rootNew).Div(alpha).Add(l2)
		sign := z.AsUint32x8().And(signs)
		magnitude := z.AsUint32x8().Xor(sign).AsFloat32x8().Sub(l1)
		derived := magnitude.Div(divisor).AsUint32x8().Xor(sign).Xor(signs).AsFloat32x8()
		derived = derived.Masked(magnitude.Greater(zero))
		return w.Merge(derived, divisor.Equal(zero)), z, n
	}
	for _, row := range rows {
		ws, zs, ns, gs := row[:width], row[width:2*width], row[2*width:3*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(zs) >= 8 && len(ns) >= 8 && len(gs) >= 8 {
			w, z, n := step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(zs),
				archsimd.LoadFloat32x8Slice(ns), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			z.StoreSlice(zs)
			n.StoreSlice(ns)
			ws, zs, ns, gs = ws[8:], zs[8:], ns[8:], gs[8:]
		}
		if len(ws) > 0 {
			w, z, n := step(archsimd.LoadFloat32x8SlicePart(ws), archsimd.LoadFloat32x8SlicePart(zs),
				archsimd.LoadFloat32x8SlicePart(ns), archsimd.LoadFloat32x8SlicePart(gs))
			w.StoreSlicePart(ws)
			z.StoreSlicePart(zs)
			n.StoreSlicePart(ns)
		}
	}
}

// validPrefix returns how many elements at the beginning of grads were looked at
// by vectors and found valid.
func validPrefix(grads []float32) int {
	at := 0
	switch lanes {
	case 16:
		signs, most := archsimd.BroadcastUint32x16(signBit), archsimd.BroadcastFloat32x16(GradientMax)
		for ; len(grads)-at >= 16; at += 16 {
			g := archsimd.LoadFloat32x16Slice(grads[at:]).AsUint32x16().AndNot(signs).AsFloat32x16()
			if g.LessEqual(most).ToBits() != 1<<16-1 { // NaN is not
				break
			}
		}
	case 8:
		signs, most := archsimd.BroadcastUint32x8(signBit), archsimd.BroadcastFloat32x8(GradientMax)
		for ; len(grads)-at >= 8; at += 8 {
			g := archsimd.LoadFloat32x8Slice(grads[at:]).AsUint32x8().AndNot(signs).AsFloat32x8()
			if g.LessEqual(most).ToBits() != 1<<8-1 {
				break
			}
		}
	default:
		return 0
	}
	archsimd.ClearAVXUpperBits()
	return at
}
