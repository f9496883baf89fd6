package model

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Network computes the scores of a batch's events, and the gradients of rows from
// those of scores. It owns scratch memory, so it has one user at a time; it
// allocates nothing once it has seen an event of a size.
//
// In both methods, index has one entry per feature of the batch: the position of
// its key among the distinct keys, as in ps.Group.Index of b.Keys. rows[t] holds
// table t's weights of the distinct keys: (distinct keys, Widths()[t]), row-major.
// A key may occur several times in one event; each occurrence counts.
//
// Slices whose sizes do not belong together are a mistake of the caller's and
// panic.
type Network interface {
	// Widths returns the widths of the tables that the network reads and has
	// gradients for: those with the first TableIDs of the layout. The caller does
	// not change it.
	Widths() []int
	// Scores sets scores[i] to the score of event i of b; scores has an entry per
	// event. An event without features, as every skipped one is, has score 0.
	Scores(b *worker.Batch, index []int32, rows [][]float32, scores []float32)
	// Gradients adds to grads, which have the shapes of rows, the gradients of
	// Σ dscores[i] · score of event i. The caller zeroes grads before the first
	// call. An event whose dscore is 0 is not looked at, so that held-out and
	// skipped events cost nothing and cannot leak.
	Gradients(b *worker.Batch, index []int32, rows [][]float32, dscores []float32, grads [][]float32)
}

// New returns the network that a spec describes; ps.ErrInvalid if there is none
// of its kind.
func New(n spec.Network) (Network, error) {
	switch n.Kind {
	case spec.Logistic:
		return linear{}, nil
	case spec.FM:
		if n.Factors < 1 || n.Factors > ps.WidthMax {
			return nil, fmt.Errorf("network %s with %d factors: want 1 to %d: %w", n.Kind, n.Factors, ps.WidthMax, ps.ErrInvalid)
		}
		return &fm{factors: n.Factors, sums: make([]float64, n.Factors)}, nil
	}
	return nil, fmt.Errorf("network %q: want %s or %s: %w", n.Kind, spec.Logistic, spec.FM, ps.ErrInvalid)
}
