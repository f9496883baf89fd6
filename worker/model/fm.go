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
	sums    []float64 // Σ_j v_jf x_j per factor, of the event at hand
}

func newFM(factors int) *fm { return &fm{factors: factors, sums: make([]float64, factors)} }

func (m *fm) Widths() []int { return []int{1, m.factors} }

func (m *fm) Scores(b *worker.Batch, index []int32, rows [][]float32, scores []float32) {
	for i := range scores {
		from, to := b.Starts[i], b.Starts[i+1]
		at, x := index[from:to], b.Values[from:to]
		squares := m.sum(at, x, rows[1])
		var pairs float64
		for _, s := range m.sums {
			pairs += s * s
		}
		scores[i] = float32(dot(at, x, rows[0]) + (pairs-squares)/2)
	}
}

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
		m.sum(at, x, rows[1])
		for j, row := range at {
			first := int(row) * m.factors
			v, g := rows[1][first:first+m.factors], grads[1][first:first+m.factors]
			addFactor(v, g, m.sums, float64(x[j]), float64(d))
		}
	}
}

// sum sets m.sums for one event and returns Σ_jf (v_jf x_j)².
func (m *fm) sum(index []int32, values, factors []float32) (squares float64) {
	clear(m.sums)
	values = values[:len(index)]
	for j, row := range index {
		first := int(row) * m.factors
		squares += addScaled(factors[first:first+m.factors], m.sums, float64(values[j]))
	}
	return squares
}

// addScaled adds v x to sums and returns Σ (v x)².
func addScaled(v []float32, sums []float64, x float64) (squares float64) {
	sums = sums[:len(v)]
	for f := range v {
		vx := float64(v[f]) * x
		sums[f] += vx
		squares += vx * vx
	}
	return squares
}

// addFactor adds d x (sums − v x) to g.
func addFactor(v, g []float32, sums []float64, x, d float64) {
	g, sums = g[:len(v)], sums[:len(v)]
	dx := d * x
	for f := range v {
		g[f] += float32(dx * (sums[f] - float64(v[f])*x))
	}
}
