package model

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Parts computes what some of an event's features say by themselves, so that they can be
// put together with others later. The score of a factorization machine of an event whose
// features are those of two parts p and q is
//
//	own(p) + own(q) + ⟨vector(p), vector(q)⟩,
//	own = Σ_j w_j x_j + Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l,   vector = Σ_j v_j x_j,
//
// each over the part's features. It owns scratch memory, so it has one user at a time.
type Parts struct {
	linear linear
	fm     *fm // nil: there are no vectors
}

// NewParts returns the parts of a spec's network: of a logistic one, which has no vectors,
// of a factorization machine, and of the one in a deepfm. The scores of an mlp are no sum
// of parts, so that it is ps.ErrInvalid.
func NewParts(s *spec.Spec) (*Parts, error) {
	switch s.Network.Kind {
	case spec.Logistic:
		return &Parts{}, nil
	case spec.FM, spec.DeepFM:
		return &Parts{fm: newFM(s.Network.Factors)}, nil
	}
	return nil, fmt.Errorf("network %s: its score is no sum over pairs of features; %s, %s and %s have one: %w",
		s.Network.Kind, spec.Logistic, spec.FM, spec.DeepFM, ps.ErrInvalid)
}

// Width returns the number of elements of a vector; 0 if there are none.
func (p *Parts) Width() int {
	if p.fm == nil {
		return 0
	}
	return p.fm.factors
}

// Of sets own[i] and vectors, (events, Width()), to those of the features that event i of b
// has. index and rows are as Network says, of the tables of features.
func (p *Parts) Of(b *worker.Batch, index []int32, rows [][]float32, own, vectors []float32) {
	if p.fm == nil {
		p.linear.Scores(b, index, rows, own)
		return
	}
	p.fm.Scores(b, index, rows, own)
	for i, sum := range p.fm.sums {
		vectors[i] = float32(sum)
	}
}
