package optim_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
)

func rule[T ps.Element](t testing.TB, o ps.Optimizer, kind ps.Kind) optim.RuleOf[T] {
	t.Helper()
	r, err := optim.New(o, kind)
	if err != nil {
		t.Fatal(err)
	}
	typed, ok := r.(optim.RuleOf[T])
	if !ok {
		t.Fatalf("%s for %v is a %T", o.Name, kind, r)
	}
	if r.Kind() != kind {
		t.Fatalf("%s says it is for %v, want %v", o.Name, r.Kind(), kind)
	}
	return typed
}

var (
	sgd     = ps.Optimizer{Name: ps.SGD, LearningRate: 0.5}
	adagrad = ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 9}
	adam    = ps.Optimizer{Name: ps.Adam, LearningRate: 0.5, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8}
	ftrl    = ps.Optimizer{Name: ps.FTRL, LearningRate: 0.5, Beta: 1, L1: 1, L2: 2}
)

func TestByHand(t *testing.T) {
	type step struct{ grad, weight, state []float32 }
	for _, test := range []struct {
		name           string
		optimizer      ps.Optimizer
		initial, state []float32 // state after Init
		steps          []step
	}{
		{
			"sgd follows the gradient", sgd,
			[]float32{1, -2},
			nil,
			[]step{{[]float32{2, 4}, []float32{0, -4}, nil}},
		},
		{
			"sgd adds l2 times the weight to the gradient",
			ps.Optimizer{Name: ps.SGD, LearningRate: 0.5, L2: 0.5},
			[]float32{4},
			nil,
			[]step{{[]float32{1}, []float32{2.5}, nil}, {[]float32{0}, []float32{1.875}, nil}},
		},
		{
			// a = 9 + 16 = 25, step 0.5·4/5; then a = 25 + 144 = 169, step 0.5·12/13
			"adagrad adds the square before it divides", adagrad,
			[]float32{1},
			[]float32{9},
			[]step{
				{[]float32{4}, []float32{0.6}, []float32{25}},
				{[]float32{-12}, []float32{0.6 + 6.0/13}, []float32{169}},
			},
		},
		{
			// g = 2 + 0.5·4 = 4, as above
			"adagrad adds l2 times the weight to the gradient",
			ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 9, L2: 0.5},
			[]float32{4},
			[]float32{9},
			[]step{{[]float32{2}, []float32{3.6}, []float32{25}}},
		},
		{
			// σ = (3-0)/0.5 = 6, z = 3, n = 9, w = -(3-1)/((1+3)/0.5 + 2) = -0.2
			// σ = (5-3)/0.5 = 4, z = 3 - 4 + 0.8 = -0.2: within l1, so w = 0; n = 25
			// σ = (13-5)/0.5, z = -0.2 - 12 = -12.2, n = 169, w = 11.2/(14/0.5+2)
			"ftrl follows algorithm 1", ftrl,
			[]float32{0},
			[]float32{0, 0},
			[]step{
				{[]float32{3}, []float32{-0.2}, []float32{3, 9}},
				{[]float32{-4}, []float32{0}, []float32{-0.2, 25}},
				{[]float32{-12}, []float32{11.2 / 30}, []float32{-12.2, 169}},
			},
		},
		{
			// At t = 1 the means, corrected, are g and g². Then m = 1 − 3, v = 3 + 9, and the
			// corrections are 1 − .5² = .75 and 1 − .75² = .4375: √(12/.4375) = 5.237.
			"adam steps by its learning rate first, and then by means",
			ps.Optimizer{Name: ps.Adam, LearningRate: 0.5, Beta1: 0.5, Beta2: 0.75, Epsilon: 1},
			[]float32{3},
			[]float32{0, 0, 0},
			[]step{
				{[]float32{4}, []float32{3 - 0.5*4/(4+1)}, []float32{2, 4, 1}},
				{[]float32{-6}, []float32{2.6 + 0.5*(2.0/0.75)/(5.237229+1)}, []float32{-2, 12, 2}},
			},
		},
		{
			// w loses η λ = .05 of itself, and the gradient's step besides
			"adamw decays the weight itself",
			ps.Optimizer{Name: ps.AdamW, LearningRate: 0.5, Beta1: 0.5, Beta2: 0.75, Epsilon: 1, WeightDecay: 0.1},
			[]float32{4, 4},
			[]float32{0, 0, 0, 0, 0},
			[]step{{[]float32{4, 0}, []float32{4 - 0.4 - 0.2, 4 - 0.2}, []float32{2, 0, 4, 0, 1}}},
		},
		{
			// z = -w (β/α + λ2) - sign(w) λ1 = -3·4 - 1, and 12 + 1; a gradient of 0 changes nothing
			"ftrl keeps initial weights that are not zero", ftrl,
			[]float32{3, -3},
			[]float32{-13, 13, 0, 0},
			[]step{{[]float32{0, 0}, []float32{3, -3}, []float32{-13, 13, 0, 0}}},
		},
		{
			// n = 0 leaves nothing to divide by; the first step is α, from the initial weight
			"ftrl without beta and l2 starts from its initial weight",
			ps.Optimizer{Name: ps.FTRL, LearningRate: 0.5, L1: 1},
			[]float32{3, 0},
			[]float32{-1, 0, 0, 0},
			[]step{
				{[]float32{0, 0}, []float32{3, 0}, []float32{-1, 0, 0, 0}},
				{[]float32{4, 4}, []float32{2.5, -0.375}, []float32{-1 + 4 - 8*3, 4, 16, 16}},
			},
		},
		{
			"ftrl stays finite where squares vanish",
			ps.Optimizer{Name: ps.FTRL, LearningRate: 0.5},
			[]float32{0},
			[]float32{0, 0},
			[]step{{[]float32{1e-30}, []float32{0}, []float32{1e-30, 0}}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := rule[float32](t, test.optimizer, ps.Float32)
			weights := append([]float32(nil), test.initial...)
			state := make([]float32, r.StateWidth(len(weights)))
			for i := range state {
				state[i] = 777 // Init overwrites it
			}
			r.Init(weights, state)
			near(t, "state after Init", state, test.state)
			near(t, "weights after Init", weights, test.initial)
			for i, s := range test.steps {
				r.Apply(weights, state, s.grad)
				near(t, fmt.Sprintf("weights after step %d", i), weights, s.weight)
				near(t, fmt.Sprintf("state after step %d", i), state, s.state)
			}
		})
	}
}

// near compares by hand-computed values: equal but for a few roundings of float32.
func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range want {
		if !(math.Abs(float64(got[i]-want[i])) <= 3e-7*math.Max(1, math.Abs(float64(want[i])))) {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

func TestSumsAndCounts(t *testing.T) {
	sums := rule[float64](t, ps.Optimizer{Name: ps.Sum}, ps.Float64)
	w := []float64{1, 1 << 53}
	sums.Apply(w, nil, []float64{0.25, 2})
	if w[0] != 1.25 || w[1] != 1<<53+2 {
		t.Errorf("sums are %v, want [1.25 2^53+2]", w)
	}
	counts := rule[uint64](t, ps.Optimizer{Name: ps.Audit}, ps.Uint64)
	n := []uint64{1<<53 + 1, math.MaxUint64}
	counts.Apply(n, nil, []uint64{1, 2})
	if n[0] != 1<<53+2 || n[1] != 1 {
		t.Errorf("counts are %v, want [2^53+2 1]", n)
	}
	if sums.StateWidth(3) != 0 || counts.StateWidth(3) != 0 {
		t.Errorf("sums and counts have state: %d and %d elements", sums.StateWidth(3), counts.StateWidth(3))
	}
}

// reference is one coordinate under a rule in float64, written from the papers.
type reference struct {
	o       ps.Optimizer
	w, z, n float64
	m, v, t float64
}

func newReference(o ps.Optimizer, w float64) *reference {
	c := &reference{o: o, w: w, n: o.InitialAccumulator}
	if o.Name == ps.FTRL && w != 0 {
		c.z = -w*(o.Beta/o.LearningRate+o.L2) - math.Copysign(o.L1, w)
	}
	return c
}

func (c *reference) apply(g float64) {
	o := c.o
	switch o.Name {
	case ps.SGD:
		c.w -= o.LearningRate * (g + o.L2*c.w)
	case ps.AdaGrad:
		g += o.L2 * c.w
		c.n += g * g
		c.w -= o.LearningRate * g / math.Sqrt(c.n)
	case ps.Adam, ps.AdamW:
		g += o.L2 * c.w
		c.t++
		c.m = o.Beta1*c.m + (1-o.Beta1)*g
		c.v = o.Beta2*c.v + (1-o.Beta2)*g*g
		m, v := c.m/(1-math.Pow(o.Beta1, c.t)), c.v/(1-math.Pow(o.Beta2, c.t))
		c.w -= o.LearningRate * (m/(math.Sqrt(v)+o.Epsilon) + o.WeightDecay*c.w)
	case ps.FTRL:
		sigma := (math.Sqrt(c.n+g*g) - math.Sqrt(c.n)) / o.LearningRate
		c.z += g - sigma*c.w
		c.n += g * g
		c.w = 0
		if math.Abs(c.z) > o.L1 {
			c.w = -(c.z - math.Copysign(o.L1, c.z)) / ((o.Beta+math.Sqrt(c.n))/o.LearningRate + o.L2)
		}
	}
}

// TestAgainstFloat64 runs rules beside the reference, on a least-squares problem
// whose gradient depends on the rule's own weight as in real learning.
//
// The tolerances are for weights of about 1, which float32 rounds by 2^-24 =
// 6e-8. Over 10 steps a few such errors add up: 3e-7. Over 100,000 the gradient
// pulls back most of what √100,000 = 300 of them add: 2e-5.
func TestAgainstFloat64(t *testing.T) {
	const seed = 20130811
	for _, o := range []ps.Optimizer{
		{Name: ps.SGD, LearningRate: 0.05},
		{Name: ps.SGD, LearningRate: 0.05, L2: 0.01},
		{Name: ps.AdaGrad, LearningRate: 0.1, InitialAccumulator: 0.1},
		{Name: ps.AdaGrad, LearningRate: 0.1, InitialAccumulator: 1e-6, L2: 0.01},
		{Name: ps.Adam, LearningRate: 0.01, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8},
		{Name: ps.Adam, LearningRate: 0.01, Beta1: 0.5, Beta2: 0.9, Epsilon: 1e-3, L2: 0.1},
		{Name: ps.AdamW, LearningRate: 0.01, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.1},
		{Name: ps.FTRL, LearningRate: 0.1, Beta: 1},
		{Name: ps.FTRL, LearningRate: 0.1},
		{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L1: 0.5, L2: 1},
	} {
		for _, long := range []struct {
			steps     int
			tolerance float64
		}{{10, 3e-7}, {100_000, 2e-5}} {
			t.Run(fmt.Sprintf("%+v over %d steps", o, long.steps), func(t *testing.T) {
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, uint64(long.steps)))
				const width = 8
				r := rule[float32](t, o, ps.Float32)
				weights := make([]float32, width)
				state := make([]float32, r.StateWidth(width))
				grad := make([]float32, width)
				var want [width]*reference
				var optimum [width]float64
				for i := range weights {
					weights[i] = float32(rng.NormFloat64() * 0.1)
					want[i] = newReference(o, float64(weights[i]))
					optimum[i] = rng.NormFloat64()
				}
				r.Init(weights, state)
				worst := 0.0
				for range long.steps {
					for i := range grad {
						noise := rng.NormFloat64()
						grad[i] = float32(float64(weights[i]) - optimum[i] + noise)
						want[i].apply(want[i].w - optimum[i] + noise)
					}
					r.Apply(weights, state, grad)
					for i := range weights {
						worst = math.Max(worst, math.Abs(float64(weights[i])-want[i].w))
					}
				}
				t.Logf("largest difference %.2g", worst)
				if !(worst <= long.tolerance) {
					t.Errorf("largest difference is %g, want at most %g", worst, long.tolerance)
				}
			})
		}
	}
}

// TestAWeightThatWasSetIsLearnedOnFrom holds rules against the reference whose weight is set
// after some steps: from there it goes on, with what it remembers of past gradients.
func TestAWeightThatWasSetIsLearnedOnFrom(t *testing.T) {
	for _, o := range []ps.Optimizer{
		sgd, adagrad, adam, ftrl,
		{Name: ps.FTRL, LearningRate: 0.1},
		{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L1: 0.5, L2: 1},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := rule[float32](t, o, ps.Float32)
			weights, state := []float32{0.25, -0.5}, make([]float32, r.StateWidth(2))
			r.Init(weights, state)
			want := []*reference{newReference(o, 0.25), newReference(o, -0.5)}
			step := func(grads ...float32) {
				r.Apply(weights, state, grads)
				for i, c := range want {
					c.apply(float64(grads[i]))
				}
			}
			step(1, -2)
			step(-3, 0.5)
			for i, w := range []float32{-2, 1.5} {
				weights[i] = w
				c := want[i]
				c.w = float64(w)
				if o.Name == ps.FTRL {
					c.z = -c.w*((o.Beta+math.Sqrt(c.n))/o.LearningRate+o.L2) - math.Copysign(o.L1, c.w)
				}
			}
			r.Rebase(weights, state)
			if weights[0] != -2 || weights[1] != 1.5 {
				t.Fatalf("the weights became %v", weights)
			}
			step(0.125, 0.25)
			step(2, -1)
			for i, c := range want {
				// A few roundings of about 4 by 2^-24.
				if math.Abs(float64(weights[i])-c.w) > 2e-6 {
					t.Errorf("weight %d is %v, want %v", i, weights[i], c.w)
				}
			}
		})
	}
}

func TestApplyRowsIsApplyInOrder(t *testing.T) {
	for _, o := range []ps.Optimizer{sgd, adagrad, adam, ftrl} {
		t.Run(o.Name, func(t *testing.T) {
			r := rule[float32](t, o, ps.Float32)
			const width = 3
			full := width + r.StateWidth(width)
			one, two := make([]float32, full), make([]float32, full)
			r.Init(one[:width], one[width:])
			r.Init(two[:width], two[width:])
			grads := []float32{1, -2, 3, 4, -5, 6, -7, 8, 9}
			wantOne, wantTwo := append([]float32(nil), one...), append([]float32(nil), two...)
			r.Apply(wantOne[:width], wantOne[width:], grads[:3])
			r.Apply(wantTwo[:width], wantTwo[width:], grads[3:6])
			r.Apply(wantOne[:width], wantOne[width:], grads[6:])
			rows := [][]float32{one, two, one}
			if n := testing.AllocsPerRun(1, func() { r.ApplyRows(nil, nil) }); n != 0 {
				t.Errorf("no rows cost %v allocations", n)
			}
			r.ApplyRows(rows, grads)
			if got, want := fmt.Sprint(one, two), fmt.Sprint(wantOne, wantTwo); got != want {
				t.Errorf("rows are %s, want %s", got, want)
			}
			if n := testing.AllocsPerRun(100, func() { r.ApplyRows(rows, grads) }); n != 0 {
				t.Errorf("ApplyRows allocates %v times, want never", n)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	change := func(o ps.Optimizer, f func(*ps.Optimizer)) ps.Optimizer { f(&o); return o }
	for _, test := range []struct {
		name      string
		optimizer ps.Optimizer
		kind      ps.Kind
		says      string
	}{
		{"an unknown name", ps.Optimizer{Name: "sdg"}, ps.Float32, `name "sdg"`},
		{"no name", ps.Optimizer{}, ps.Float32, `name ""`},
		{"sgd of sums", sgd, ps.Float64, "kind float64"},
		{"adagrad of counts", adagrad, ps.Uint64, "kind uint64"},
		{"ftrl of an unknown kind", ftrl, 9, "kind kind(9)"},
		{"a sum of weights", ps.Optimizer{Name: ps.Sum}, ps.Float32, "kind float32"},
		{"an audit of sums", ps.Optimizer{Name: ps.Audit}, ps.Float64, "kind float64"},
		{"no learning rate", change(sgd, func(o *ps.Optimizer) { o.LearningRate = 0 }), ps.Float32, "learning_rate = 0"},
		{"a negative learning rate", change(ftrl, func(o *ps.Optimizer) { o.LearningRate = -1 }), ps.Float32, "learning_rate = -1"},
		{"a learning rate that is no number", change(ftrl, func(o *ps.Optimizer) { o.LearningRate = math.NaN() }), ps.Float32, "learning_rate = NaN"},
		{"an infinite learning rate", change(sgd, func(o *ps.Optimizer) { o.LearningRate = math.Inf(1) }), ps.Float32, "learning_rate = +Inf"},
		{"a learning rate that float32 makes zero", change(sgd, func(o *ps.Optimizer) { o.LearningRate = 1e-60 }), ps.Float32, "learning_rate = 1e-60"},
		{"no initial accumulator", change(adagrad, func(o *ps.Optimizer) { o.InitialAccumulator = 0 }), ps.Float32, "initial_accumulator = 0"},
		{"a negative beta", change(ftrl, func(o *ps.Optimizer) { o.Beta = -1 }), ps.Float32, "beta = -1"},
		{"a negative l1", change(ftrl, func(o *ps.Optimizer) { o.L1 = -1 }), ps.Float32, "l1 = -1"},
		{"a negative l2", change(ftrl, func(o *ps.Optimizer) { o.L2 = -1 }), ps.Float32, "l2 = -1"},
		{"an l1 that sgd does not read", change(sgd, func(o *ps.Optimizer) { o.L1 = 1 }), ps.Float32, "l1 = 1"},
		{"an initial accumulator that ftrl does not read", change(ftrl, func(o *ps.Optimizer) { o.InitialAccumulator = 1 }), ps.Float32, "initial_accumulator = 1"},
		{"a learning rate that sums do not read", ps.Optimizer{Name: ps.Sum, LearningRate: 1}, ps.Float64, "learning_rate = 1"},
		{"a beta1 of 1", change(adam, func(o *ps.Optimizer) { o.Beta1 = 1 }), ps.Float32, "beta1 = 1"},
		{"a beta1 above beta2", change(adam, func(o *ps.Optimizer) { o.Beta2 = 0.5 }), ps.Float32, "beta1 = 0.9"},
		{"no epsilon", change(adam, func(o *ps.Optimizer) { o.Epsilon = 0 }), ps.Float32, "epsilon = 0"},
		{"a weight decay that adam does not read", change(adam, func(o *ps.Optimizer) { o.WeightDecay = 1 }), ps.Float32, "weight_decay = 1"},
		{"a weight decay that overshoots", ps.Optimizer{Name: ps.AdamW, LearningRate: 0.5, Beta1: 0.5, Beta2: 0.75, Epsilon: 1, WeightDecay: 3}, ps.Float32, "weight_decay = 3"},
		{"a decay that overshoots", ps.Optimizer{Name: ps.SGD, LearningRate: 0.5, L2: 3}, ps.Float32, "l2 = 3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := optim.New(test.optimizer, test.kind)
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("New(%+v, %v): %v, want ps.ErrInvalid that says %q", test.optimizer, test.kind, err, test.says)
			}
		})
	}
}

func TestFirstInvalid(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, r := range []optim.RuleOf[float32]{rule[float32](t, sgd, ps.Float32), rule[float32](t, ftrl, ps.Float32)} {
		for _, bad := range []float32{float32(nan), float32(inf), float32(-inf), 1 << 51, -(1 << 51)} {
			if i := r.FirstInvalid([]float32{optim.GradientMax, -optim.GradientMax, bad, bad}); i != 2 {
				t.Errorf("first invalid element beside %v is %d, want 2", bad, i)
			}
		}
		if i := r.FirstInvalid([]float32{0, 1, -1, math.SmallestNonzeroFloat32}); i != -1 {
			t.Errorf("good gradients: element %d is invalid", i)
		}
	}
	sums := rule[float64](t, ps.Optimizer{Name: ps.Sum}, ps.Float64)
	for _, bad := range []float64{nan, inf, -inf, 0x1p901} {
		if i := sums.FirstInvalid([]float64{optim.IncrementMax, bad}); i != 1 {
			t.Errorf("first invalid element beside %v is %d, want 1", bad, i)
		}
	}
	counts := rule[uint64](t, ps.Optimizer{Name: ps.Audit}, ps.Uint64)
	if i := counts.FirstInvalid([]uint64{math.MaxUint64}); i != -1 {
		t.Errorf("counts: element %d is invalid", i)
	}
}

// TestRowsStayFinite looks for settings, weights and gradients, all within their
// ranges and mostly at their ends, that drive a row out of the finite numbers.
func TestRowsStayFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ends := func(least, most float64) *rapid.Generator[float64] {
			return rapid.OneOf(rapid.Just(least), rapid.Just(most), rapid.Float64Range(least, most))
		}
		o := ps.Optimizer{
			Name:         rapid.SampledFrom([]string{ps.SGD, ps.AdaGrad, ps.Adam, ps.AdamW, ps.FTRL}).Draw(t, "name"),
			LearningRate: ends(1e-12, 1e6).Draw(t, "learning_rate"),
			L2:           ends(0, 1e6).Draw(t, "l2"),
		}
		switch o.Name {
		case ps.AdaGrad:
			o.InitialAccumulator = ends(1e-12, 1e6).Draw(t, "initial_accumulator")
		case ps.FTRL:
			o.Beta = ends(0, 1e6).Draw(t, "beta")
			o.L1 = ends(0, 1e6).Draw(t, "l1")
		}
		if o.Name == ps.Adam || o.Name == ps.AdamW {
			o.Beta2 = ends(0, 1-1e-6).Draw(t, "beta2")
			o.Beta1 = ends(0, o.Beta2).Draw(t, "beta1")
			o.Epsilon = ends(1e-12, 1e6).Draw(t, "epsilon")
		}
		if o.Name == ps.AdamW {
			o.WeightDecay, o.L2 = math.Min(o.L2, 1/o.LearningRate*(1-1e-9)), 0
		}
		if o.Name != ps.FTRL {
			o.L2 = math.Min(o.L2, 1/o.LearningRate*(1-1e-9))
		}
		r, err := optim.New(o, ps.Float32)
		if err != nil {
			t.Fatal(err)
		}
		update := r.(optim.RuleOf[float32])
		weights := []float32{float32(ends(-1e7, 1e7).Draw(t, "weight"))}
		state := make([]float32, update.StateWidth(1))
		update.Init(weights, state)
		grads := rapid.SliceOfN(rapid.OneOf(
			rapid.SampledFrom([]float32{-optim.GradientMax, optim.GradientMax, 0, 1e-20, -1e-23, 1e-45, 1}),
			rapid.Float32Range(-optim.GradientMax, optim.GradientMax),
		), 1, 60).Draw(t, "gradients")
		for i, g := range grads {
			for range rapid.SampledFrom([]int{1, 1, 100}).Draw(t, "repeats") {
				update.Apply(weights, state, []float32{g})
			}
			for _, v := range append(state, weights...) {
				if v != v || v > math.MaxFloat32 || v < -math.MaxFloat32 {
					t.Fatalf("%+v: after gradient %d weight is %v and state %v", o, i, weights, state)
				}
			}
		}
	})
}

func BenchmarkApplyRows(b *testing.B) {
	const rows = 256
	for _, o := range []ps.Optimizer{sgd, adagrad, adam, ftrl} {
		for _, width := range []int{1, 2, 4, 8, 16} {
			b.Run(fmt.Sprintf("%s/rows=%d/width=%d", o.Name, rows, width), func(b *testing.B) {
				r := rule[float32](b, o, ps.Float32)
				table := make([][]float32, rows)
				for i := range table {
					table[i] = make([]float32, width+r.StateWidth(width))
					r.Init(table[i][:width], table[i][width:])
				}
				rng := rand.New(rand.NewPCG(1, 2))
				grads := make([]float32, rows*width)
				for i := range grads {
					grads[i] = float32(rng.NormFloat64())
				}
				for b.Loop() {
					r.ApplyRows(table, grads)
				}
				b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}
