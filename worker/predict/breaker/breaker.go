// Package breaker watches what a model says and how well it does, and trips when that leaves
// its bounds, so that whoever serves it can go back to a state that was good. It acts on
// nothing by itself, reads no clock and starts no goroutine.
//
// The one idea to keep in mind: a diverged model answers as fast and as confidently as a good
// one. So a breaker knows only figures that an operator has bounds for: the mean of
// predictions over a run of them, the loss over a run of events, and that every prediction
// is a number.
package breaker

import (
	"fmt"
	"math"
	"sync"

	"github.com/freshet-ml/freshet/ps"
)

// Bounds are what a model has to keep to. The zero value of a bound leaves it out.
type Bounds struct {
	// MeanMin and MeanMax bound the mean prediction of a run, if MeanMax is above MeanMin.
	MeanMin, MeanMax float64
	// LossMax bounds the mean loss of the events of a run, scored before they were learned
	// from.
	LossMax float64
	// Run is how many predictions, or events, a mean is taken over. Default 10,000, where
	// the mean of clicks of one in ten is off by 0.003 by chance.
	Run int
}

func (b *Bounds) validate() error {
	for _, v := range []float64{b.MeanMin, b.MeanMax, b.LossMax} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("bounds %v to %v of the mean prediction, %v of the loss: want numbers: %w", b.MeanMin, b.MeanMax, b.LossMax, ps.ErrInvalid)
		}
	}
	if b.MeanMin > b.MeanMax || b.LossMax < 0 || b.Run < 0 {
		return fmt.Errorf("a mean prediction from %v to %v, a loss up to %v, over %d: want bounds in order, and none negative: %w",
			b.MeanMin, b.MeanMax, b.LossMax, b.Run, ps.ErrInvalid)
	}
	if b.Run == 0 {
		b.Run = 10_000
	}
	return nil
}

// Breaker is closed until something leaves its bounds, and then tripped until it is reset.
// It is safe for concurrent use.
type Breaker struct {
	bounds  Bounds
	tripped chan struct{} // capacity 1

	mu sync.Mutex
	// Guarded by mu.
	reason string // why it is tripped; empty if it is closed
	sum    float64
	count  int
	// Of the events at the beginning of the run of losses.
	losses, weight float64
	begun          bool
}

// New returns a closed breaker. It wraps ps.ErrInvalid.
func New(b Bounds) (*Breaker, error) {
	if err := b.validate(); err != nil {
		return nil, err
	}
	return &Breaker{bounds: b, tripped: make(chan struct{}, 1)}, nil
}

// Predicted takes note of a prediction.
func (b *Breaker) Predicted(value float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if math.IsNaN(value) || math.IsInf(value, 0) {
		b.tripLocked(fmt.Sprintf("a prediction is %v", value))
		return
	}
	b.sum += value
	if b.count++; b.count < b.bounds.Run {
		return
	}
	mean := b.sum / float64(b.count)
	b.sum, b.count = 0, 0
	if b.bounds.MeanMax > b.bounds.MeanMin && (mean < b.bounds.MeanMin || mean > b.bounds.MeanMax) {
		b.tripLocked(fmt.Sprintf("the mean of the last %d predictions is %.4g, its bounds are %.4g and %.4g", b.bounds.Run, mean, b.bounds.MeanMin, b.bounds.MeanMax))
	}
}

// Learned takes note of how well the model does, by sums over all events since some moment
// that stays the same: of losses and of weights. Sums that have become smaller, as when the
// model was set back, begin a run anew.
func (b *Breaker) Learned(losses, weight float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if math.IsNaN(losses) || math.IsInf(losses, 0) {
		b.tripLocked(fmt.Sprintf("the sum of losses is %v", losses))
		return
	}
	if !b.begun || weight < b.weight {
		b.losses, b.weight, b.begun = losses, weight, true
		return
	}
	if weight-b.weight < float64(b.bounds.Run) {
		return
	}
	mean := (losses - b.losses) / (weight - b.weight)
	b.losses, b.weight = losses, weight
	if b.bounds.LossMax > 0 && mean > b.bounds.LossMax {
		b.tripLocked(fmt.Sprintf("the loss of the last events is %.4g, its bound is %.4g", mean, b.bounds.LossMax))
	}
}

func (b *Breaker) tripLocked(reason string) {
	if b.reason != "" {
		return
	}
	b.reason = reason
	select {
	case b.tripped <- struct{}{}:
	default:
	}
}

// Tripped has a value when the breaker has tripped.
func (b *Breaker) Tripped() <-chan struct{} { return b.tripped }

// Reason says why the breaker is tripped; empty if it is closed.
func (b *Breaker) Reason() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reason
}

// Reset closes the breaker and begins all runs anew.
func (b *Breaker) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reason, b.sum, b.count, b.begun = "", 0, 0, false
	select {
	case <-b.tripped:
	default:
	}
}
