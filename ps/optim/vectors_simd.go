//go:build goexperiment.simd && amd64

package optim

import (
	"math"
	"simd/archsimd"
)

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

// widthMin is the least width at which a row of its own is worth vectors. What a row
// has beyond whole vectors is computed one by one: loads and stores of parts of
// vectors cost more than that saves.
const widthMin = 8

// signBit is that of a float32.
const signBit = 1 << 31

// applyVectors updates rows by vectors. It reports whether it has.
func (r sgd) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch {
	case width < widthMin:
		return false
	case lanes == 16:
		r.apply16(rows, width, grads)
	case lanes == 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

// sgd16 is the settings of sgd, each in all lanes.
type sgd16 struct{ learningRate, l2 archsimd.Float32x16 }

func (r sgd) in16() sgd16 {
	return sgd16{archsimd.BroadcastFloat32x16(r.learningRate), archsimd.BroadcastFloat32x16(r.l2)}
}

// step is sgd.Apply on coordinates side by side.
func (r *sgd16) step(w, g archsimd.Float32x16) archsimd.Float32x16 {
	return w.Sub(r.learningRate.Mul(g.Add(r.l2.Mul(w))))
}

// sgd8 is the settings of sgd, each in all lanes.
type sgd8 struct{ learningRate, l2 archsimd.Float32x8 }

func (r sgd) in8() sgd8 {
	return sgd8{archsimd.BroadcastFloat32x8(r.learningRate), archsimd.BroadcastFloat32x8(r.l2)}
}

// step is sgd.Apply on coordinates side by side.
func (r *sgd8) step(w, g archsimd.Float32x8) archsimd.Float32x8 {
	return w.Sub(r.learningRate.Mul(g.Add(r.l2.Mul(w))))
}

func (r sgd) apply16(rows [][]float32, width int, grads []float32) {
	by16, by8 := r.in16(), r.in8()
	for _, row := range rows {
		ws, gs := row[:width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(gs) >= 16 {
			w := by16.step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(gs))
			w.StoreSlice(ws)
			ws, gs = ws[16:], gs[16:]
		}
		if len(ws) >= 8 && len(gs) >= 8 {
			w := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			ws, gs = ws[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, gs)
		}
	}
}

func (r sgd) apply8(rows [][]float32, width int, grads []float32) {
	by8 := r.in8()
	for _, row := range rows {
		ws, gs := row[:width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(gs) >= 8 {
			w := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			ws, gs = ws[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, gs)
		}
	}
}

// applyVectors updates rows by vectors. It reports whether it has.
func (r adagrad) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch {
	case width < widthMin:
		return false
	case lanes == 16:
		r.apply16(rows, width, grads)
	case lanes == 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

// adagrad16 is the settings of adagrad, each in all lanes.
type adagrad16 struct{ learningRate, l2 archsimd.Float32x16 }

func (r adagrad) in16() adagrad16 {
	return adagrad16{archsimd.BroadcastFloat32x16(r.learningRate), archsimd.BroadcastFloat32x16(r.l2)}
}

// step is adagrad.Apply on coordinates side by side.
func (r *adagrad16) step(w, a, g archsimd.Float32x16) (_, _ archsimd.Float32x16) {
	g = g.Add(r.l2.Mul(w))
	a = a.Add(g.Mul(g))
	return w.Sub(r.learningRate.Mul(g).Div(a.Sqrt())), a
}

// adagrad8 is the settings of adagrad, each in all lanes.
type adagrad8 struct{ learningRate, l2 archsimd.Float32x8 }

func (r adagrad) in8() adagrad8 {
	return adagrad8{archsimd.BroadcastFloat32x8(r.learningRate), archsimd.BroadcastFloat32x8(r.l2)}
}

// step is adagrad.Apply on coordinates side by side.
func (r *adagrad8) step(w, a, g archsimd.Float32x8) (_, _ archsimd.Float32x8) {
	g = g.Add(r.l2.Mul(w))
	a = a.Add(g.Mul(g))
	return w.Sub(r.learningRate.Mul(g).Div(a.Sqrt())), a
}

func (r adagrad) apply16(rows [][]float32, width int, grads []float32) {
	by16, by8 := r.in16(), r.in8()
	for _, row := range rows {
		ws, as, gs := row[:width], row[width:2*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(as) >= 16 && len(gs) >= 16 {
			w, a := by16.step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(as), archsimd.LoadFloat32x16Slice(gs))
			w.StoreSlice(ws)
			a.StoreSlice(as)
			ws, as, gs = ws[16:], as[16:], gs[16:]
		}
		if len(ws) >= 8 && len(as) >= 8 && len(gs) >= 8 {
			w, a := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(as), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			a.StoreSlice(as)
			ws, as, gs = ws[8:], as[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, as, gs)
		}
	}
}

func (r adagrad) apply8(rows [][]float32, width int, grads []float32) {
	by8 := r.in8()
	for _, row := range rows {
		ws, as, gs := row[:width], row[width:2*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(as) >= 8 && len(gs) >= 8 {
			w, a := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(as), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			a.StoreSlice(as)
			ws, as, gs = ws[8:], as[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, as, gs)
		}
	}
}

// applyVectors updates rows by vectors. It reports whether it has.
func (r ftrl) applyVectors(rows [][]float32, width int, grads []float32) bool {
	switch {
	case lanes == 16 && width == 1:
		r.applySingles(rows, grads)
	case width < widthMin:
		return false
	case lanes == 16:
		r.apply16(rows, width, grads)
	case lanes == 8:
		r.apply8(rows, width, grads)
	default:
		return false
	}
	archsimd.ClearAVXUpperBits()
	return true
}

// ftrl16 is the settings of ftrl, each in all lanes.
type ftrl16 struct{ alpha, beta, l1, l2 archsimd.Float32x16 }

func (r ftrl) in16() ftrl16 {
	return ftrl16{archsimd.BroadcastFloat32x16(r.alpha), archsimd.BroadcastFloat32x16(r.beta), archsimd.BroadcastFloat32x16(r.l1), archsimd.BroadcastFloat32x16(r.l2)}
}

// step is ftrl.Apply on coordinates side by side.
func (r *ftrl16) step(w, z, n, g archsimd.Float32x16) (_, _, _ archsimd.Float32x16) {
	signs, zero := archsimd.BroadcastUint32x16(signBit), archsimd.BroadcastFloat32x16(0)
	root := n.Sqrt()
	n = n.Add(g.Mul(g))
	rootNew := n.Sqrt()
	sigma := rootNew.Sub(root).Div(r.alpha)
	z = z.Add(g.Sub(sigma.Mul(w)))
	divisor := r.beta.Add(rootNew).Div(r.alpha).Add(r.l2)
	sign := z.AsUint32x16().And(signs)
	magnitude := z.AsUint32x16().Xor(sign).AsFloat32x16().Sub(r.l1)
	derived := magnitude.Div(divisor).AsUint32x16().Xor(sign).Xor(signs).AsFloat32x16()
	derived = derived.Masked(magnitude.Greater(zero))
	return w.Merge(derived, divisor.Equal(zero)), z, n
}

// ftrl8 is the settings of ftrl, each in all lanes.
type ftrl8 struct{ alpha, beta, l1, l2 archsimd.Float32x8 }

func (r ftrl) in8() ftrl8 {
	return ftrl8{archsimd.BroadcastFloat32x8(r.alpha), archsimd.BroadcastFloat32x8(r.beta), archsimd.BroadcastFloat32x8(r.l1), archsimd.BroadcastFloat32x8(r.l2)}
}

// step is ftrl.Apply on coordinates side by side.
func (r *ftrl8) step(w, z, n, g archsimd.Float32x8) (_, _, _ archsimd.Float32x8) {
	signs, zero := archsimd.BroadcastUint32x8(signBit), archsimd.BroadcastFloat32x8(0)
	root := n.Sqrt()
	n = n.Add(g.Mul(g))
	rootNew := n.Sqrt()
	sigma := rootNew.Sub(root).Div(r.alpha)
	z = z.Add(g.Sub(sigma.Mul(w)))
	divisor := r.beta.Add(rootNew).Div(r.alpha).Add(r.l2)
	sign := z.AsUint32x8().And(signs)
	magnitude := z.AsUint32x8().Xor(sign).AsFloat32x8().Sub(r.l1)
	derived := magnitude.Div(divisor).AsUint32x8().Xor(sign).Xor(signs).AsFloat32x8()
	derived = derived.Masked(magnitude.Greater(zero))
	return w.Merge(derived, divisor.Equal(zero)), z, n
}

func (r ftrl) apply16(rows [][]float32, width int, grads []float32) {
	by16, by8 := r.in16(), r.in8()
	for _, row := range rows {
		ws, zs, ns, gs := row[:width], row[width:2*width], row[2*width:3*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 16 && len(zs) >= 16 && len(ns) >= 16 && len(gs) >= 16 {
			w, z, n := by16.step(archsimd.LoadFloat32x16Slice(ws), archsimd.LoadFloat32x16Slice(zs), archsimd.LoadFloat32x16Slice(ns), archsimd.LoadFloat32x16Slice(gs))
			w.StoreSlice(ws)
			z.StoreSlice(zs)
			n.StoreSlice(ns)
			ws, zs, ns, gs = ws[16:], zs[16:], ns[16:], gs[16:]
		}
		if len(ws) >= 8 && len(zs) >= 8 && len(ns) >= 8 && len(gs) >= 8 {
			w, z, n := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(zs), archsimd.LoadFloat32x8Slice(ns), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			z.StoreSlice(zs)
			n.StoreSlice(ns)
			ws, zs, ns, gs = ws[8:], zs[8:], ns[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, zs, ns, gs)
		}
	}
}

func (r ftrl) apply8(rows [][]float32, width int, grads []float32) {
	by8 := r.in8()
	for _, row := range rows {
		ws, zs, ns, gs := row[:width], row[width:2*width], row[2*width:3*width], grads[:width]
		grads = grads[width:]
		for len(ws) >= 8 && len(zs) >= 8 && len(ns) >= 8 && len(gs) >= 8 {
			w, z, n := by8.step(archsimd.LoadFloat32x8Slice(ws), archsimd.LoadFloat32x8Slice(zs), archsimd.LoadFloat32x8Slice(ns), archsimd.LoadFloat32x8Slice(gs))
			w.StoreSlice(ws)
			z.StoreSlice(zs)
			n.StoreSlice(ns)
			ws, zs, ns, gs = ws[8:], zs[8:], ns[8:], gs[8:]
		}
		if len(ws) > 0 {
			r.update(ws, zs, ns, gs)
		}
	}
}

// applySingles updates rows of width 1, each a weight with its z and n, 16 of them
// in one vector.
func (r ftrl) applySingles(rows [][]float32, grads []float32) {
	by16 := r.in16()
	var ws, zs, ns [16]float32
	for len(rows) >= 16 && len(grads) >= 16 {
		group := (*[16][]float32)(rows)
		for i, row := range group {
			row = row[:3]
			ws[i], zs[i], ns[i] = row[0], row[1], row[2]
		}
		if twice(group) {
			for i, row := range group {
				row[0] = ws[i]
			}
			r.applyPlain(rows[:16], 1, grads[:16])
		} else {
			w, z, n := by16.step(archsimd.LoadFloat32x16(&ws), archsimd.LoadFloat32x16(&zs),
				archsimd.LoadFloat32x16(&ns), archsimd.LoadFloat32x16Slice(grads))
			w.Store(&ws)
			z.Store(&zs)
			n.Store(&ns)
			for i, row := range group {
				row = row[:3]
				row[0], row[1], row[2] = ws[i], zs[i], ns[i]
			}
		}
		rows, grads = rows[16:], grads[16:]
	}
	r.applyPlain(rows, 1, grads)
}

// twice reports whether a row is there more than once: then one of the numbers that
// it writes into their first elements is overwritten by another.
func twice(rows *[16][]float32) bool {
	for i, row := range rows {
		row[0] = math.Float32frombits(uint32(i))
	}
	different := uint32(0)
	for i, row := range rows {
		different |= math.Float32bits(row[0]) ^ uint32(i)
	}
	return different != 0
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
