package model

import (
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

// tower is a network of rectified layers over the factors of an event's fields:
//
//	a₀ = ( Σ_{j in field 0} v_j x_j, Σ_{j in field 1} v_j x_j, … )
//	a_l = max(0, a_{l−1} W_l + b_l) ∘ d_l
//	score = ⟨a_L, w⟩
//
// with d_l = 1, or under dropout with share p: 0 with that probability and else 1/(1−p).
// The events of a batch are the rows of a_l, so that a layer is a product of matrices;
// blas32 computes it with whatever implementation the program has chosen.
//
// Skipped and dropped events are not computed, so that whatever is in them cannot spread.
//
// Source: Guo et al. 2017, DeepFM, Section 2.1 (arXiv:1703.04247); dropout as Srivastava
// et al. 2014, Section 4 (JMLR 15:1929), scaled while learning instead of afterwards.
type tower struct {
	fields, factors int
	units           []int // of the inputs, then of each hidden layer
	dropout         float64
	seed            uint64

	// Of the last forward pass.
	events      []int32     // those that are rows, by their number in the batch
	activations [][]float32 // a_l: (events, units[l])
	kept        float32     // what d is where it is not 0

	deltas [2][]float32 // d(loss)/d(a_l) of two layers at a time
	slopes []float32    // the events' dscores
}

func newTower(s *spec.Spec) *tower {
	t := &tower{
		fields: s.Fields(), factors: s.Network.Factors,
		dropout: s.Network.Dropout, seed: ps.Mix(s.Seed ^ dropoutSeed),
	}
	t.units = append([]int{t.fields * t.factors}, s.Network.Hidden...)
	t.activations = make([][]float32, len(t.units))
	return t
}

// dropoutSeed keeps what is left out apart from other things that the seed decides.
const dropoutSeed = 0x64726f706f7574

// layers is the tower's part of rows: the weights of each hidden layer, the output's, and
// the biases, as spec.Spec.Dense has them.
type layers [][]float32

func (l layers) output() []float32 { return l[len(l)-2] }

// biases returns the biases of hidden layer i, which is below the last one's index.
func (l layers) biases(i, units int) []float32 {
	widest := len(l[len(l)-1]) / (len(l) - 2)
	return l[len(l)-1][i*widest : i*widest+units]
}

// addScores adds the tower's scores to those of the events that it computes. If thinned,
// units are left out as the events' offsets say.
func (t *tower) addScores(b *worker.Batch, index []int32, factors []float32, layers layers, thinned bool, scores []float32) {
	t.pool(b, index, factors)
	t.kept = 1
	if thinned {
		t.kept = float32(1 / (1 - t.dropout))
	}
	n := len(t.events)
	if n == 0 {
		return
	}
	for l, units := range t.units[1:] {
		t.activations[l+1] = sized(t.activations[l+1], n*units)
		in, weights, out := matrix(t.activations[l], n), matrix(layers[l], t.units[l]), matrix(t.activations[l+1], n)
		biases := layers.biases(l, units)
		for at := 0; at < len(out.Data); at += units {
			copy(out.Data[at:at+units], biases)
		}
		blas32.Gemm(blas.NoTrans, blas.NoTrans, 1, in, weights, 1, out)
		rectify(out.Data)
		if thinned {
			t.thin(b, l, out)
		}
	}
	top, output := t.activations[len(t.units)-1], layers.output()
	for row, event := range t.events {
		scores[event] += dotProduct(top[row*len(output):(row+1)*len(output)], output)
	}
}

// pool fills events and a₀.
func (t *tower) pool(b *worker.Batch, index []int32, factors []float32) {
	t.events = t.events[:0]
	for i, role := range b.Roles {
		if role != worker.Skip && role != worker.Drop && b.Starts[i+1] > b.Starts[i] {
			t.events = append(t.events, int32(i))
		}
	}
	width := t.units[0]
	t.activations[0] = sized(t.activations[0], len(t.events)*width)
	clear(t.activations[0])
	for row, event := range t.events {
		inputs := t.activations[0][row*width : (row+1)*width]
		for at := b.Starts[event]; at < b.Starts[event+1]; at++ {
			field := b.Fields[at]
			if field == worker.NoField {
				continue
			}
			to, from := int(field)*t.factors, int(index[at])*t.factors
			axpy(b.Values[at], factors[from:from+t.factors], inputs[to:to+t.factors])
		}
	}
}

// thin leaves out units of hidden layer l: which ones is a function of seed, partition,
// offset, layer and unit alone, 16 bits of a hash for each.
func (t *tower) thin(b *worker.Batch, l int, out blas32.General) {
	below := uint64(math.Round(t.dropout * (1 << 16)))
	layer := ps.Mix(t.seed ^ uint64(b.Partition)<<32 ^ uint64(l))
	for row, event := range t.events {
		draw := ps.Mix(layer ^ uint64(b.From+ps.Offset(event)))
		units := out.Data[row*out.Stride : (row+1)*out.Stride]
		for at := 0; at < len(units); at += 4 {
			bits := ps.Mix(draw + uint64(at))
			for i := at; i < min(at+4, len(units)); i++ {
				units[i] *= t.kept
				if bits&0xffff < below {
					units[i] = 0
				}
				bits >>= 16
			}
		}
	}
}

// addGradients adds to grads, which has the shape of layers, and to factorGrads the
// gradients of Σ dscores · score of the last forward pass.
//
// Where a unit's activation is 0, it was rectified or left out, and passes nothing on;
// elsewhere it passes kept times what it gets. So the activations say all of d_l.
func (t *tower) addGradients(b *worker.Batch, index []int32, layers, grads layers, dscores, factorGrads []float32) {
	n := len(t.events)
	if n == 0 {
		return
	}
	t.slopes = sized(t.slopes, n)
	for row, event := range t.events {
		t.slopes[row] = dscores[event]
	}
	last := len(t.units) - 1
	delta := t.delta(last)
	output, outputGrad := layers.output(), grads.output()
	for row, d := range t.slopes {
		from, to := row*len(output), (row+1)*len(output)
		axpy(d, t.activations[last][from:to], outputGrad)
		scaled(d, output, delta[from:to])
	}
	for l := last; l > 0; l-- {
		pass(t.activations[l], delta, t.kept)
		biases := grads.biases(l-1, t.units[l])
		for at := 0; at < len(delta); at += t.units[l] {
			axpy(1, delta[at:at+t.units[l]], biases)
		}
		below := t.delta(l - 1)
		out, in := matrix(delta, n), matrix(t.activations[l-1], n)
		blas32.Gemm(blas.Trans, blas.NoTrans, 1, in, out, 1, matrix(grads[l-1], t.units[l-1]))
		blas32.Gemm(blas.NoTrans, blas.Trans, 1, out, matrix(layers[l-1], t.units[l-1]), 0, matrix(below, n))
		delta = below
	}
	t.scatter(b, index, delta, factorGrads)
}

// delta returns room for d(loss)/d(a_l); that of layer l+1 stays.
func (t *tower) delta(l int) []float32 {
	t.deltas[l%2] = sized(t.deltas[l%2], len(t.events)*t.units[l])
	return t.deltas[l%2]
}

// scatter adds d(loss)/d(a₀) to the gradients of the factors that were pooled.
func (t *tower) scatter(b *worker.Batch, index []int32, delta, factorGrads []float32) {
	width := t.units[0]
	for row, event := range t.events {
		if t.slopes[row] == 0 {
			continue
		}
		inputs := delta[row*width : (row+1)*width]
		for at := b.Starts[event]; at < b.Starts[event+1]; at++ {
			field := b.Fields[at]
			if field == worker.NoField {
				continue
			}
			from, to := int(field)*t.factors, int(index[at])*t.factors
			axpy(b.Values[at], inputs[from:from+t.factors], factorGrads[to:to+t.factors])
		}
	}
}

// matrix returns data as a matrix of the given rows, of which there is at least one.
func matrix(data []float32, rows int) blas32.General {
	columns := len(data) / rows
	return blas32.General{Rows: rows, Cols: columns, Stride: columns, Data: data}
}

// sized returns s with length n, reusing its memory where it can. What is in it is
// undefined.
func sized(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n, n+n/4)
	}
	return s[:n]
}
