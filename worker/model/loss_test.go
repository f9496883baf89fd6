package model_test

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/diff/fd"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestLoss(t *testing.T) {
	for _, c := range []struct {
		name                    string
		loss                    model.Loss
		score, label            float32
		prediction, value, grad float64
	}{
		{"an even chance that came true", model.Log, 0, 1, 0.5, math.Ln2, -0.5},
		{"an even chance that did not", model.Log, 0, 0, 0.5, math.Ln2, 0.5},
		{"odds of 3 to 1 that came true", model.Log, float32(math.Log(3)), 1, 0.75, math.Log(4.0 / 3), -0.25},
		{"odds of 3 to 1 that did not", model.Log, float32(math.Log(3)), 0, 0.75, math.Log(4), 0.75},
		{"a certainty that did not", model.Log, 1000, 0, 1, 1000, 1},
		{"an impossibility that came true", model.Log, -1000, 1, 0, 1000, -1},
		{"a certainty that came true", model.Log, 1000, 1, 1, 0, 0},
		{"a near certainty keeps its small loss", model.Log, 40, 1, 1, math.Exp(-40), 0},
		{"the largest score", model.Log, math.MaxFloat32, 0, 1, math.MaxFloat32, 1},
		{"too much of a quantity", model.Squared, 3, 1, 3, 4, 4},
		{"too little of a quantity", model.Squared, 3, 4.5, 3, 2.25, -3},
	} {
		t.Run(c.name, func(t *testing.T) {
			near := func(what string, got, want float64) {
				if math.IsNaN(got) || math.Abs(got-want) > 1e-6*math.Abs(want)+1e-16 {
					t.Errorf("%v of score %v, label %v: %s = %v, want %v", c.loss, c.score, c.label, what, got, want)
				}
			}
			near("prediction", c.loss.Prediction(c.score), c.prediction)
			near("value", c.loss.Value(c.score, c.label), c.value)
			near("gradient", c.loss.Gradient(c.score, c.label), c.grad)
			prediction, value, gradient := c.loss.Judge(c.score, c.label)
			if prediction != c.loss.Prediction(c.score) || value != c.loss.Value(c.score, c.label) || gradient != c.loss.Gradient(c.score, c.label) {
				t.Errorf("%v of score %v, label %v: Judge says %v, %v, %v, which are not Prediction, Value and Gradient", c.loss, c.score, c.label, prediction, value, gradient)
			}
		})
	}
	t.Run("the gradient is the value's", func(t *testing.T) {
		for _, loss := range []model.Loss{model.Log, model.Squared} {
			for _, label := range []float32{0, 1} {
				for score := -8.0; score <= 8; score += 0.5 {
					want := fd.Derivative(func(s float64) float64 { return loss.Value(float32(s), label) }, score,
						&fd.Settings{Formula: fd.Central, Step: 1.0 / 256})
					// float32 scores of 8 and a step of 2^-8 leave about 1e-5.
					if got := loss.Gradient(float32(score), label); math.Abs(got-want) > 2e-5 {
						t.Errorf("%v at score %v, label %v: gradient %v, by differences %v", loss, score, label, got, want)
					}
				}
			}
		}
	})
}

func TestNewLoss(t *testing.T) {
	for _, name := range []string{spec.Log, spec.Squared} {
		if l, err := model.NewLoss(name); err != nil || l.String() != name {
			t.Errorf("NewLoss(%q) = %v, %v", name, l, err)
		}
	}
	if _, err := model.NewLoss("hinge"); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("NewLoss(hinge): %v, want %v", err, ps.ErrInvalid)
	}
}
