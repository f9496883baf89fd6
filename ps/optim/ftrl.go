package optim

import (
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// ftrl is FTRL-proximal, with per-coordinate learning rates:
//
//	σ ← (√(n + g²) − √n) / α
//	z ← z + g − σ w
//	n ← n + g²
//	w ← 0                                        if |z| ≤ λ1
//	w ← −(z − sign(z) λ1) / ((β + √n)/α + λ2)    otherwise
//
// State: z (width), then n (width).
//
// The weight is derived from z and n, and written back at every update so that
// a pull reads it as it is. Init and Rebase choose the z of which a non-zero
// weight is derived. Under β = λ2 = 0 a coordinate without a gradient has
// nothing to divide by: it keeps its initial weight, and its first step, of size
// α, starts there.
//
// σ is the difference of the roots as written, and not the equal g²/(√(n+g²)+√n)/α
// that rounds less: when n is so large that g² vanishes in it, the difference is
// 0 as well, and Σσ stays √n/α, on which the weight's derivation rests.
//
// Source: McMahan et al. 2013, Ad Click Prediction: a View from the Trenches,
// Algorithm 1 (doi:10.1145/2487575.2488200).
type ftrl struct {
	float32s
	alpha, beta, l1, l2 float32
}

func newFTRL(o ps.Optimizer) Rule {
	return ftrl{alpha: float32(o.LearningRate), beta: float32(o.Beta), l1: float32(o.L1), l2: float32(o.L2)}
}

func (ftrl) StateWidth(width int) int { return 2 * width }

func (r ftrl) Init(weights, state []float32) {
	clear(state)
	r.Rebase(weights, state)
}

func (r ftrl) Rebase(weights, state []float32) {
	zs, ns := state[:len(weights)], state[len(weights):]
	for i, w := range weights {
		z := float32(-w * ((r.beta+sqrt(ns[i]))/r.alpha + r.l2))
		switch {
		case w > 0:
			z -= r.l1
		case w < 0:
			z += r.l1
		}
		zs[i] = z
	}
}

func (r ftrl) Apply(weights, state, grad []float32) {
	r.update(weights, state[:len(weights)], state[len(weights):], grad)
}

func (r ftrl) update(weights, zs, ns, grad []float32) {
	zs, ns, grad = zs[:len(weights)], ns[:len(weights)], grad[:len(weights)]
	for i, w := range weights {
		g, n := grad[i], ns[i]
		root := sqrt(n)
		n += float32(g * g)
		rootNew := sqrt(n)
		sigma := (rootNew - root) / r.alpha
		z := zs[i] + (g - float32(sigma*w))
		zs[i], ns[i] = z, n
		weights[i] = r.weight(w, z, rootNew)
	}
}

// weight derives a coordinate's weight from z and √n; w is the weight so far. It
// works on the magnitude of z and puts the sign back, since a branch on the sign
// is guessed wrong half the time.
func (r ftrl) weight(w, z, root float32) float32 {
	divisor := (r.beta+root)/r.alpha + r.l2
	if divisor == 0 { // no gradient yet, or only such whose squares vanish
		return w
	}
	sign := math.Float32bits(z) & (1 << 31)
	magnitude := math.Float32frombits(math.Float32bits(z)^sign) - r.l1
	if magnitude <= 0 {
		return 0
	}
	return math.Float32frombits(math.Float32bits(magnitude/divisor) ^ sign ^ 1<<31)
}

func (r ftrl) ApplyRows(rows [][]float32, grads []float32) {
	if len(rows) == 0 {
		return
	}
	width := len(grads) / len(rows)
	if !r.applyVectors(rows, width, grads) {
		r.applyPlain(rows, width, grads)
	}
}

func (r ftrl) applyPlain(rows [][]float32, width int, grads []float32) {
	for i, row := range rows {
		r.Apply(row[:width], row[width:], grads[i*width:(i+1)*width])
	}
}
