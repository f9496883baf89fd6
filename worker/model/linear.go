package model

import "github.com/freshet-ml/freshet/worker"

// linear is Σ w x: logistic regression under the log loss, linear regression
// under the squared.
type linear struct{ whole }

func (linear) Widths() []int { return []int{1} }

func (linear) Scores(b *worker.Batch, index []int32, rows [][]float32, scores []float32) {
	weights := rows[0]
	for i := range scores {
		from, to := b.Starts[i], b.Starts[i+1]
		scores[i] = float32(dot(index[from:to], b.Values[from:to], weights))
	}
}

func (linear) Gradients(b *worker.Batch, index []int32, _ [][]float32, dscores []float32, grads [][]float32) {
	for i, d := range dscores {
		if d == 0 {
			continue
		}
		from, to := b.Starts[i], b.Starts[i+1]
		addDot(index[from:to], b.Values[from:to], d, grads[0])
	}
}

// dot returns Σ w x of one event.
func dot(index []int32, values, weights []float32) (sum float64) {
	values = values[:len(index)]
	for j, row := range index {
		sum += float64(weights[row]) * float64(values[j])
	}
	return sum
}

// addDot adds the gradient of d · dot to grad.
func addDot(index []int32, values []float32, d float32, grad []float32) {
	values = values[:len(index)]
	for j, row := range index {
		grad[row] += d * values[j]
	}
}
