package spec

import (
	"fmt"
	"hash/fnv"
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// Names of the tables of a tower's layers. They reach checkpoints, and keys and initial
// values depend on them: append only.
const (
	hiddenTable = "hidden%d" // of hidden layer 1, 2, …: row i weighs input i, (outputs)
	OutputTable = "output"   // one row: (the last hidden layer's units)
	BiasesTable = "biases"   // row i: hidden layer i+1's, and zeros up to the largest layer's
)

// Dense is a table whose rows every event touches: a layer's parameters.
type Dense struct {
	Table ps.Table
	// Rows is how many the layer has. Their keys are Key of 0 to Rows-1.
	Rows int
}

// Key returns the key of a row:
//
//	Mix(Mix(FNV-1a(table's name)) XOR row)
//
// with ps.Mix, so that a layer's rows lie on all shards. It never changes.
func (d Dense) Key(row int) ps.Key {
	name := fnv.New64a()
	name.Write([]byte(d.Table.Name))
	return ps.Key(ps.Mix(ps.Mix(name.Sum64()) ^ uint64(row)))
}

// HasTower reports whether the network has hidden layers.
func (n Network) HasTower() bool { return n.Kind == DeepFM || n.Kind == MLP }

// hasFactors reports whether the network has a vector per key.
func (n Network) hasFactors() bool { return n.Kind == FM || n.HasTower() }

// Fields returns how many fields a tower sees: one for each feature that is seen outside
// of crosses, and Feature.Fields for one whose tokens have a field each.
func (s *Spec) Fields() int {
	n := 0
	for _, f := range s.Features {
		if !f.CrossOnly {
			n += max(1, f.Fields)
		}
	}
	return n
}

// Dense returns the tables of the network's layers, from the hidden layer next to the
// factors to the biases; none if it has no layers.
//
// A layer begins as suits rectified units: normal, with standard deviation √(2/inputs),
// and the output, which is not rectified, √(1/inputs).
//
// Source: He et al. 2015, Delving Deep into Rectifiers, equation 10 (arXiv:1502.01852).
func (s *Spec) Dense() []Dense {
	if !s.Network.HasTower() {
		return nil
	}
	table := func(name string, rows, width int, begin ps.Initializer) Dense {
		return Dense{ps.Table{Name: name, Kind: ps.Float32, Width: width, Optimizer: s.Network.HiddenOptimizer, Initializer: begin}, rows}
	}
	normal := func(variance float64) ps.Initializer {
		return ps.Initializer{Name: ps.Normal, Scale: math.Sqrt(variance)}
	}
	var tables []Dense
	inputs, widest := s.Fields()*s.Network.Factors, 0
	for i, units := range s.Network.Hidden {
		tables = append(tables, table(fmt.Sprintf(hiddenTable, i+1), inputs, units, normal(2/float64(inputs))))
		inputs, widest = units, max(widest, units)
	}
	return append(tables,
		table(OutputTable, 1, inputs, normal(1/float64(inputs))),
		table(BiasesTable, len(s.Network.Hidden), widest, ps.Initializer{Name: ps.Zero}))
}

// DenseKeys returns the keys of all rows of the tables of layers.
func (s *Spec) DenseKeys() []ps.Key {
	var keys []ps.Key
	for _, d := range s.Dense() {
		for row := range d.Rows {
			keys = append(keys, d.Key(row))
		}
	}
	return keys
}
