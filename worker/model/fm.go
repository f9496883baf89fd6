package model

import "github.com/freshet-ml/freshet/worker"

// fm is a factorization machine of order two over the features j of an event,
//
//	Σ_j w_j x_j  +  Σ_{j<l} ⟨v_j, v_l⟩ x_j x_l,
//
// computed in time linear in the features by
//
//	½ Σ_f ( (Σ_j v_jf x_j)² − Σ_j (v_jf x_j)² ).
//
// Source: Rendle 2010, Factorization Machines, equations 1, 4 and lemma 3.1
// (doi:10.1109/ICDM.2010.127).
type fm struct {
	whole
	factors int
	sums    []float64 // Σ_j v_jf x_j of the batch scored last: (events, factors)
	squares []float64 // Σ_j (v_jf x_j)² per factor, of the event at hand
}

func newFM(factors int) *fm { return &fm{factors: factors, squares: make([]float64, factors)} }

func (m *fm) Widths() []int { return []int{1, m.factors} }

func (m *fm) Scores(b *worker.Batch, index []int32, rows [][]float32, scores []float32) {
	if n := len(scores) * m.factors; cap(m.sums) < n {
		m.sums = make([]float64, n, n+n/4)
	}
	m.sums = m.sums[:len(scores)*m.factors]
	clear(m.sums)
	for i := range scores {
		from, to := b.Starts[i], b.Starts[i+1]
		at, x := index[from:to], b.Values[from:to]
		clear(m.squares)
		sums := m.of(i)
		sumFactors(at, x, rows[1], sums, m.squares)
		var pairs, squares float64
		for f, s := range sums {
			pairs += s * s
			squares += m.squares[f]
		}
		scores[i] = float32(dot(at, x, rows[0]) + (pairs-squares)/2)
	}
}

// of returns the sums of event i.
func (m *fm) of(i int) []float64 { return m.sums[i*m.factors : (i+1)*m.factors] }

// Gradients is as Network says, by d/dw_j = x_j and
// d/dv_jf = x_j (Σ_l v_lf x_l − v_jf x_j).
func (m *fm) Gradients(b *worker.Batch, index []int32, rows [][]float32, dscores []float32, grads [][]float32) {
	for i, d := range dscores {
		if d == 0 {
			continue
		}
		from, to := b.Starts[i], b.Starts[i+1]
		at, x := index[from:to], b.Values[from:to]
		addDot(at, x, d, grads[0])
		addFactors(at, x, rows[1], m.of(i), float64(d), grads[1])
	}
}
