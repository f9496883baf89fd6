package optim

import (
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// adam moves along a mean of the past gradients, scaled by a mean of their squares,
//
//	g ← g + λ2 w
//	m ← β1 m + (1−β1) g
//	v ← β2 v + (1−β2) g²
//	w ← w − η ( m/(1−β1^t) / (√(v/(1−β2^t)) + ε) + λ w )
//
// where t counts the row's updates and λ, the weight decay, is adamw's; adam has λ2
// instead, whose pull is scaled as the gradient's is.
//
// It is lazy: a row that gets no gradient is left alone, its means too, and t is the
// row's own. So a rare row's means do not fade while it is not seen, and its bias is
// corrected by its own age; a row of a dense layer, which has a gradient at every push,
// is updated as in the paper.
//
// State: m (width), v (width), t (1). As a float32, t ends at 2^24, when β^t has long
// been nothing.
//
// No step is longer than η √((1−β1)/(1−β2)) times a small constant: with β1 ≤ β2, m² is
// at most (1−β1)/(1−β2) v, by Cauchy and Schwarz. That is why New refuses others.
//
// Source: Kingma & Ba 2015, Adam: A Method for Stochastic Optimization, Algorithm 1
// (arXiv:1412.6980); adamw as Loshchilov & Hutter 2019, Algorithm 2, with its schedule
// multiplier and its step size as one η (arXiv:1711.05101).
type adam struct {
	float32s
	learningRate, beta1, beta2, epsilon, l2, weightDecay float32
}

func newAdam(o ps.Optimizer) Rule {
	return adam{
		learningRate: float32(o.LearningRate), beta1: float32(o.Beta1), beta2: float32(o.Beta2),
		epsilon: float32(o.Epsilon), l2: float32(o.L2), weightDecay: float32(o.WeightDecay),
	}
}

func (adam) StateWidth(width int) int { return 2*width + 1 }

func (adam) Init(_, state []float32) { clear(state) }

func (adam) Rebase(_, _ []float32) {}

func (r adam) Apply(weights, state, grad []float32) {
	n := len(weights)
	m, v, grad := state[:n], state[n:2*n], grad[:n]
	t := state[2*n] + 1
	state[2*n] = t
	// Both corrections are computed once a row: step = η/(1−β1^t), root = √(1−β2^t).
	step := float32(float64(r.learningRate) / (1 - power(float64(r.beta1), uint32(t))))
	root := float32(math.Sqrt(1 - power(float64(r.beta2), uint32(t))))
	decay := r.learningRate * r.weightDecay
	for i, w := range weights {
		g := grad[i] + r.l2*w
		m[i] = r.beta1*m[i] + (1-r.beta1)*g
		v[i] = r.beta2*v[i] + (1-r.beta2)*g*g
		weights[i] = w - step*m[i]/(sqrt(v[i])/root+r.epsilon) - decay*w
	}
}

func (r adam) ApplyRows(rows [][]float32, grads []float32) {
	if len(rows) == 0 {
		return
	}
	width := len(grads) / len(rows)
	for i, row := range rows {
		r.Apply(row[:width], row[width:], grads[i*width:(i+1)*width])
	}
}

// power returns x^n by repeated squaring: only products, which every machine rounds
// alike.
func power(x float64, n uint32) float64 {
	result := 1.0
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			result *= x
		}
		x *= x
	}
	return result
}
