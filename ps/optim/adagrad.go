package optim

import "github.com/freshet-ml/freshet/ps"

// adagrad scales each coordinate's step by its past gradients:
//
//	g ← g + λ2 w
//	a ← a + g²
//	w ← w − η g / √a
//
// State: a (width), which starts at the initial accumulator. Since a holds g²
// before the division, no step exceeds η.
//
// Source: Duchi, Hazan & Singer 2011, Adaptive Subgradient Methods for Online
// Learning and Stochastic Optimization, Section 1.1 with a diagonal matrix (JMLR
// 12:2121).
type adagrad struct {
	float32s
	learningRate, initialAccumulator, l2 float32
}

func newAdaGrad(o ps.Optimizer) Rule {
	return adagrad{
		learningRate:       float32(o.LearningRate),
		initialAccumulator: float32(o.InitialAccumulator),
		l2:                 float32(o.L2),
	}
}

func (adagrad) StateWidth(width int) int { return width }

func (r adagrad) Init(_, state []float32) {
	for i := range state {
		state[i] = r.initialAccumulator
	}
}

func (adagrad) Rebase(_, _ []float32) {}

func (r adagrad) Apply(weights, state, grad []float32) {
	r.update(weights, state, grad)
}

func (r adagrad) update(weights, state, grad []float32) {
	state, grad = state[:len(weights)], grad[:len(weights)]
	for i, w := range weights {
		g := grad[i] + float32(r.l2*w)
		a := state[i] + float32(g*g)
		state[i] = a
		weights[i] = w - r.learningRate*g/sqrt(a)
	}
}

func (r adagrad) ApplyRows(rows [][]float32, grads []float32) {
	if len(rows) == 0 {
		return
	}
	width := len(grads) / len(rows)
	if r.applyVectors(rows, width, grads) {
		return
	}
	for i, row := range rows {
		r.Apply(row[:width], row[width:], grads[i*width:(i+1)*width])
	}
}
