package model

import "github.com/freshet-ml/freshet/worker"

// deep is a wide network, which sees each feature's row by itself, plus a tower over the
// same factors: deepfm if wide is fm, wide and deep learning if it is linear.
//
// Source: Cheng et al. 2016, Wide & Deep Learning for Recommender Systems, Section 3
// (arXiv:1606.07792).
type deep struct {
	wide  Network
	tower *tower
	// widths are those of linear, factors and the layers.
	widths []int
}

const factorsTable = 1 // position in rows

func (d *deep) Widths() []int { return d.widths }

func (d *deep) Scores(b *worker.Batch, index []int32, rows [][]float32, scores []float32) {
	d.wide.Scores(b, index, rows, scores)
	d.tower.addScores(b, index, rows[factorsTable], rows[factorsTable+1:], false, scores)
}

func (d *deep) Thinned(b *worker.Batch, index []int32, rows [][]float32, scores []float32) bool {
	if d.tower.dropout == 0 {
		return false
	}
	d.wide.Scores(b, index, rows, scores)
	d.tower.addScores(b, index, rows[factorsTable], rows[factorsTable+1:], true, scores)
	return true
}

func (d *deep) Gradients(b *worker.Batch, index []int32, rows [][]float32, dscores []float32, grads [][]float32) {
	d.wide.Gradients(b, index, rows, dscores, grads)
	d.tower.addGradients(b, index, rows[factorsTable+1:], grads[factorsTable+1:], dscores, grads[factorsTable])
}
