package breaker_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict/breaker"
)

func TestABreakerTripsOnceWhenAMeanLeavesItsBoundsAndIsClosedByAReset(t *testing.T) {
	for name, c := range map[string]struct {
		bounds breaker.Bounds
		happen func(b *breaker.Breaker)
		reason string // empty: it stays closed
	}{
		"predictions within bounds": {breaker.Bounds{MeanMin: 0.1, MeanMax: 0.3, Run: 4}, func(b *breaker.Breaker) { say(b, 0.9, 0, 0, 0, 0.1, 0.2, 0.3, 0.2) }, ""},
		"predictions too high":      {breaker.Bounds{MeanMin: 0.1, MeanMax: 0.3, Run: 4}, func(b *breaker.Breaker) { say(b, 0.2, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.4) }, "mean of the last 4 predictions is 0.4"},
		"predictions too low":       {breaker.Bounds{MeanMin: 0.1, MeanMax: 0.3, Run: 4}, func(b *breaker.Breaker) { say(b, 0, 0, 0, 0) }, "is 0, its bounds are 0.1 and 0.3"},
		"a run that is not over":    {breaker.Bounds{MeanMin: 0.1, MeanMax: 0.3, Run: 4}, func(b *breaker.Breaker) { say(b, 9, 9, 9) }, ""},
		"no bounds":                 {breaker.Bounds{Run: 2}, func(b *breaker.Breaker) { say(b, 9, 9, -9, -9); b.Learned(1, 1); b.Learned(1e9, 100) }, ""},
		"a prediction that is NaN":  {breaker.Bounds{}, func(b *breaker.Breaker) { say(b, math.NaN()) }, "a prediction is NaN"},
		"a loss within its bound":   {breaker.Bounds{LossMax: 0.5, Run: 10}, func(b *breaker.Breaker) { b.Learned(100, 100); b.Learned(104, 110); b.Learned(108, 120) }, ""},
		"a loss above it":           {breaker.Bounds{LossMax: 0.5, Run: 10}, func(b *breaker.Breaker) { b.Learned(100, 100); b.Learned(104, 110); b.Learned(110, 120) }, "loss of the last events is 0.6"},
		"of too few events":         {breaker.Bounds{LossMax: 0.5, Run: 10}, func(b *breaker.Breaker) { b.Learned(0, 0); b.Learned(9, 9) }, ""},
		"a model that was set back": {breaker.Bounds{LossMax: 0.5, Run: 10}, func(b *breaker.Breaker) { b.Learned(50, 100); b.Learned(40, 40); b.Learned(44, 50) }, ""},
		"losses that are NaN":       {breaker.Bounds{}, func(b *breaker.Breaker) { b.Learned(math.NaN(), 3) }, "the sum of losses is NaN"},
	} {
		b, err := breaker.New(c.bounds)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time after a reset
			c.happen(b)
			if got := b.Reason(); !strings.Contains(got, c.reason) || (got == "") != (c.reason == "") {
				t.Errorf("%s: reason %q, want %q", name, got, c.reason)
			}
			if tripped := len(b.Tripped()) == 1; tripped != (c.reason != "") {
				t.Errorf("%s: tripped %v, want %v", name, tripped, c.reason != "")
			}
			b.Reset()
			if b.Reason() != "" || len(b.Tripped()) != 0 {
				t.Errorf("%s: after a reset it is still tripped: %s", name, b.Reason())
			}
		}
	}
}

func say(b *breaker.Breaker, values ...float64) {
	for _, v := range values {
		b.Predicted(v)
	}
}

func TestBoundsThatCannotBeMeantAreRefused(t *testing.T) {
	for _, b := range []breaker.Bounds{{MeanMin: 2, MeanMax: 1}, {LossMax: -1}, {LossMax: math.NaN()}, {MeanMax: math.Inf(1)}, {Run: -1}} {
		if _, err := breaker.New(b); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%+v: %v, want ErrInvalid", b, err)
		}
	}
}
