// Package model computes: scores from pulled rows, losses from scores, and
// gradients back to the rows. It knows neither where rows come from nor how they
// are updated, and it is deterministic.
//
// The one idea to keep in mind: a network is two functions on a batch, from rows
// to scores and from d(loss)/d(score) to d(loss)/d(rows), and a loss is three
// functions of one score and one label. Neither knows the other.
//
// Rows are float32, as they travel; what is summed within one event is summed in
// float64, because a factorization machine subtracts nearly equal sums.
package model

import (
	"fmt"
	"math"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Loss says what a score means and what a wrong one costs. Its methods are safe
// for concurrent use.
type Loss uint8

// The losses.
const (
	// Log is the logistic loss of a label that is 0 or 1; the score is the logit.
	Log Loss = iota
	// Squared is (score - label)².
	Squared
)

// NewLoss returns the loss that a spec calls name; ps.ErrInvalid if there is none.
func NewLoss(name string) (Loss, error) {
	switch name {
	case spec.Log:
		return Log, nil
	case spec.Squared:
		return Squared, nil
	}
	return 0, fmt.Errorf("loss %q: want %s or %s: %w", name, spec.Log, spec.Squared, ps.ErrInvalid)
}

// String returns the loss's name in a spec.
func (l Loss) String() string {
	if l == Log {
		return spec.Log
	}
	return spec.Squared
}

// Prediction returns what the score predicts: a probability, or the score itself.
func (l Loss) Prediction(score float32) float64 {
	if l == Log {
		return sigmoid(float64(score))
	}
	return float64(score)
}

// Value returns the loss, at least 0. Under Log it is computed from the logit, so
// that it is finite and precise where the probability has rounded to 0 or 1.
func (l Loss) Value(score, label float32) float64 {
	s, y := float64(score), float64(label)
	if l == Log {
		// -y log p - (1-y) log(1-p) = log(1 + e^s) - y s
		return max(s, 0) - y*s + math.Log1p(math.Exp(-math.Abs(s)))
	}
	return (s - y) * (s - y)
}

// Gradient returns the derivative of Value by the score.
func (l Loss) Gradient(score, label float32) float64 {
	s, y := float64(score), float64(label)
	if l == Log {
		return sigmoid(s) - y
	}
	return 2 * (s - y)
}

// Judge returns Prediction, Value and Gradient of a score, for one exponential in place of
// three.
func (l Loss) Judge(score, label float32) (prediction, value, gradient float64) {
	s, y := float64(score), float64(label)
	if l != Log {
		return s, (s - y) * (s - y), 2 * (s - y)
	}
	e := math.Exp(-math.Abs(s))
	prediction = 1 / (1 + e)
	if s < 0 {
		prediction = e / (1 + e)
	}
	return prediction, max(s, 0) - y*s + math.Log1p(e), prediction - y
}

// sigmoid returns 1/(1+e^-s) without overflow: e^-|s| is at most 1.
func sigmoid(s float64) float64 {
	e := math.Exp(-math.Abs(s))
	if s < 0 {
		return e / (1 + e)
	}
	return 1 / (1 + e)
}
