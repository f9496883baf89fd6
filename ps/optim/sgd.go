package optim

import "github.com/freshet-ml/freshet/ps"

// sgd is stochastic gradient descent: w ← w − η (g + λ2 w). It has no state.
type sgd struct {
	float32s
	learningRate, l2 float32
}

func newSGD(o ps.Optimizer) Rule {
	return sgd{learningRate: float32(o.LearningRate), l2: float32(o.L2)}
}

func (sgd) StateWidth(int) int { return 0 }

func (sgd) Init(_, _ []float32) {}

func (sgd) Rebase(_, _ []float32) {}

func (r sgd) Apply(weights, _, grad []float32) {
	r.update(weights, grad)
}

func (r sgd) update(weights, grad []float32) {
	grad = grad[:len(weights)]
	for i, w := range weights {
		weights[i] = w - float32(r.learningRate*(grad[i]+float32(r.l2*w)))
	}
}

func (r sgd) ApplyRows(rows [][]float32, grads []float32) {
	if len(rows) == 0 {
		return
	}
	width := len(grads) / len(rows)
	if r.applyVectors(rows, width, grads) {
		return
	}
	for i, row := range rows {
		r.Apply(row[:width], nil, grads[i*width:(i+1)*width])
	}
}
