package model_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestTwoPartsMakeTheScoreOfTheWhole(t *testing.T) {
	const seed, width, keys = 31, 5, 12
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, kind := range []string{spec.Logistic, spec.FM} {
		s := &spec.Spec{Network: spec.Network{Kind: kind}}
		if kind == spec.FM {
			s.Network.Factors = width
		}
		network, err := model.New(s)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := model.NewParts(s)
		if err != nil {
			t.Fatal(err)
		}
		rows := [][]float32{make([]float32, keys), make([]float32, keys*width)}
		for _, row := range rows {
			for i := range row {
				row[i] = float32(rng.NormFloat64())
			}
		}
		for range 50 {
			// Event 0 is the whole, the next two are its parts, one of which may be empty.
			var index [3][]int32
			var values [3][]float32
			for range rng.IntN(9) {
				at, x, part := rng.Int32N(keys), rng.Float32(), 1+rng.IntN(2)
				for _, event := range []int{0, part} {
					index[event], values[event] = append(index[event], at), append(values[event], x)
				}
			}
			var b worker.Batch
			b.Reset(0, 0, 0)
			for _, x := range values {
				for _, x := range x {
					b.AddFeature(0, x)
				}
				b.Close(worker.Train, 0, 1, 0)
			}
			all := slices.Concat(index[:]...)
			whole, own := make([]float32, 3), make([]float32, 3)
			network.Scores(&b, all, rows, whole)
			w := parts.Width()
			vectors := make([]float32, 3*w)
			parts.Of(&b, all, rows, own, vectors)
			got := float64(own[1] + own[2])
			for f := range w {
				got += float64(vectors[w+f] * vectors[2*w+f])
			}
			if math.Abs(got-float64(whole[0])) > 1e-4 || own[0] != whole[0] {
				t.Errorf("%s: parts %v with vectors %v make %v, want %v", kind, own, vectors, got, whole[0])
			}
		}
	}
	if _, err := model.NewParts(&spec.Spec{Network: spec.Network{Kind: spec.MLP}}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("parts of an mlp: %v, want ErrInvalid", err)
	}
}
