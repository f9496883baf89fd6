package optim_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
)

// extremes are what rounding, branches and special cases of the rules depend on.
var extremes = []float32{
	0, float32(math.Copysign(0, -1)), 1, -1, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1e-40, -1e-40,
	0x1p-126, 1e-23, -1e-20, 0.1, 1e6, -1e7, optim.GradientMax, -optim.GradientMax,
}

// TestVectorsAreThePlainFormBitForBit compares rows that were updated by vectors with
// rows that the plain form has updated, in all bits.
func TestVectorsAreThePlainFormBitForBit(t *testing.T) {
	for _, lanes := range []int{8, 16} {
		if !optim.WithLanes(lanes, func() {}) {
			t.Logf("no vectors of %d in this build or processor", lanes)
			continue
		}
		rapid.Check(t, func(t *rapid.T) {
			o := ps.Optimizer{
				Name:         rapid.SampledFrom([]string{ps.SGD, ps.AdaGrad, ps.FTRL}).Draw(t, "name"),
				LearningRate: rapid.SampledFrom([]float64{1e-12, 0.05, 0.3, 1}).Draw(t, "learning_rate"),
				L2:           rapid.SampledFrom([]float64{0, 0.01, 1}).Draw(t, "l2"),
			}
			switch o.Name {
			case ps.AdaGrad:
				o.InitialAccumulator = rapid.SampledFrom([]float64{1e-12, 0.1, 1e6}).Draw(t, "initial_accumulator")
			case ps.FTRL:
				o.Beta = rapid.SampledFrom([]float64{0, 1, 1e6}).Draw(t, "beta")
				o.L1 = rapid.SampledFrom([]float64{0, 0.01, 1}).Draw(t, "l1")
			}
			r, err := optim.New(o, ps.Float32)
			if err != nil {
				t.Fatal(err)
			}
			update := r.(optim.RuleOf[float32])
			width := rapid.IntRange(1, 70).Draw(t, "width")
			rows := rapid.IntRange(1, 40).Draw(t, "rows")
			twice := rapid.IntRange(0, rows-1).Draw(t, "row that is there twice")
			seed := rapid.Uint64().Draw(t, "seed")
			draw := func(i int) float32 {
				bits := ps.Mix(seed + uint64(i))
				if bits%4 == 0 {
					return extremes[bits>>32%uint64(len(extremes))]
				}
				return float32(int64(bits)) * 0x1p-62
			}
			full := width + update.StateWidth(width)
			want, got := make([][]float32, rows), make([][]float32, rows)
			for i := range want {
				want[i] = make([]float32, full)
				for j := range width {
					want[i][j] = draw(i*width+j) * 0x1p-30
				}
				update.Init(want[i][:width], want[i][width:])
				got[i] = slices.Clone(want[i])
			}
			want[rows-1], got[rows-1] = want[twice], got[twice]
			for step := range 5 {
				grads := make([]float32, rows*width)
				for i := range grads {
					grads[i] = draw((step+1)<<20 + i)
				}
				optim.WithLanes(0, func() { update.ApplyRows(want, grads) })
				optim.WithLanes(lanes, func() { update.ApplyRows(got, grads) })
				for i := range want {
					for j := range want[i] {
						if math.Float32bits(got[i][j]) != math.Float32bits(want[i][j]) {
							t.Fatalf("%+v, %d lanes, %d rows of width %d: after step %d element %d of row %d is %v (%#x), want %v (%#x)", o, lanes,
								rows, width, step, j, i, got[i][j], math.Float32bits(got[i][j]), want[i][j], math.Float32bits(want[i][j]))
						}
					}
				}
			}
		})
	}
}

func TestVectorsFindTheFirstInvalidElement(t *testing.T) {
	r := rule[float32](t, sgd, ps.Float32)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, lanes := range []int{0, 8, 16} {
		optim.WithLanes(lanes, func() {
			for n := range 70 {
				grads := make([]float32, n)
				for i := range grads {
					grads[i] = extremes[i%len(extremes)]
				}
				if i := r.FirstInvalid(grads); i != -1 {
					t.Errorf("%d lanes: element %d of %d good ones is invalid", lanes, i, n)
				}
				for at := range grads {
					for _, bad := range []float32{nan, -nan, inf, -inf, 1 << 51, -(1 << 51)} {
						damaged := slices.Clone(grads)
						damaged[at], damaged[n-1] = bad, bad
						if i := r.FirstInvalid(damaged); i != at {
							t.Fatalf("%d lanes: first invalid element of %d is %d, want %d, which is %v", lanes, n, i, at, bad)
						}
					}
				}
			}
		})
	}
}
