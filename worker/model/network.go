package model

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Network computes the scores of a batch's events, and the gradients of rows from
// those of scores. It owns scratch memory, so it has one user at a time; it
// allocates nothing once it has seen an event of a size.
//
// In all methods, index has one entry per feature of the batch: the position of
// its key among the distinct keys, as in ps.Group.Index of b.Keys. rows[t] holds
// table t's weights, row-major: of the first spec.Spec.FeatureTables tables those of the
// distinct keys, (distinct keys, Widths()[t]); of those behind them, a layer's rows in
// their order, (rows, Widths()[t]), as Dense puts them. A key may occur several times in
// one event; each occurrence counts.
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
	// Thinned is Scores with units left out, as the network is to be learned: by a
	// function of the spec's seed and the event's offset. It returns false, and leaves
	// scores alone, if the network leaves out none and is learned by its Scores.
	Thinned(b *worker.Batch, index []int32, rows [][]float32, scores []float32) bool
	// Gradients adds to grads, which have the shapes of rows, the gradients of
	// Σ dscores[i] · score of event i, as the last call of Scores, or of Thinned if
	// that returned true, made it of the same batch and rows. The caller zeroes grads
	// before the first call. An event whose dscore is 0 adds nothing, so that held-out
	// and skipped events cannot leak.
	Gradients(b *worker.Batch, index []int32, rows [][]float32, dscores []float32, grads [][]float32)
}

// New returns the network that a spec describes; ps.ErrInvalid if there is none
// of its kind.
func New(s *spec.Spec) (Network, error) {
	n := s.Network
	switch n.Kind {
	case spec.Logistic:
		return linear{}, nil
	case spec.FM, spec.DeepFM, spec.MLP:
	default:
		return nil, fmt.Errorf("network %q: want %s, %s, %s or %s: %w", n.Kind, spec.Logistic, spec.FM, spec.DeepFM, spec.MLP, ps.ErrInvalid)
	}
	if n.Factors < 1 || n.Factors > ps.WidthMax {
		return nil, fmt.Errorf("network %s with %d factors: want 1 to %d: %w", n.Kind, n.Factors, ps.WidthMax, ps.ErrInvalid)
	}
	if n.Kind == spec.FM {
		return newFM(n.Factors), nil
	}
	return newDeep(s)
}

func newDeep(s *spec.Spec) (Network, error) {
	if len(s.Network.Hidden) == 0 || slices.Min(s.Network.Hidden) < 1 || s.Fields() < 1 || !(s.Network.Dropout >= 0 && s.Network.Dropout < 1) {
		return nil, fmt.Errorf("network %s with hidden layers of %d, %d fields and dropout %v: want at least one of each, and a share below 1: %w",
			s.Network.Kind, s.Network.Hidden, s.Fields(), s.Network.Dropout, ps.ErrInvalid)
	}
	d := &deep{wide: linear{}, tower: newTower(s), widths: []int{1, s.Network.Factors}}
	if s.Network.Kind == spec.DeepFM {
		d.wide = newFM(s.Network.Factors)
	}
	for _, dense := range s.Dense() {
		d.widths = append(d.widths, dense.Table.Width)
	}
	return d, nil
}

// whole is what networks share that leave out no units.
type whole struct{}

func (whole) Thinned(*worker.Batch, []int32, [][]float32, []float32) bool { return false }
