// Package optim holds the update rules that parameter servers apply to rows:
// what becomes of a row's weights and of the optimizer's state beside them when
// a gradient arrives.
//
// A rule knows weights, state and a gradient, all flat slices of one element
// type, and nothing of keys, tables or shards. It keeps nothing between calls,
// so one rule serves all rows of a table and any number of goroutines, as long
// as no two of them work on the same row.
//
// Settings and gradients are held to ranges in which the arithmetic cannot
// leave the finite numbers, however many updates a row sees: the caller refuses
// what FirstInvalid finds, and every row stays finite for ever. The reasoning is
// at GradientMax.
//
// A rule gives the same bits on every machine: each operation is correctly rounded
// by itself (a product is converted before it is added, so that no compiler fuses
// the two), and the vector forms in vectors_simd.go do the same operations in the
// same order. They are built where the Go toolchain has the experiment simd and
// chosen by the processor at run time; the plain loops are their reference.
package optim

import (
	"fmt"
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// Largest magnitudes of a gradient's elements.
const (
	// GradientMax bounds gradients of float32 rules. A sum of squares up to 2^100
	// stops growing at about 2^125, because a float32 has 24 significant bits and
	// smaller addends vanish; no rule's steps exceed its learning rate times
	// GradientMax, and with the settings' ranges all products stay below 2^127.
	// A gradient beyond it belongs to a model that has diverged already.
	GradientMax = 1 << 50
	// IncrementMax bounds increments of float64 sums, for the same reason.
	IncrementMax = 0x1p900
)

// Rule is an update rule with its settings. The rules of this package are each
// a RuleOf the element type of their kind.
type Rule interface {
	// Kind returns the element type of the rows it updates.
	Kind() ps.Kind
	// StateWidth returns how many elements of state a row of width weights has.
	StateWidth(width int) int
}

// RuleOf is the rule for rows of element type T. It is safe for concurrent use
// on different rows and allocates nothing.
type RuleOf[T ps.Element] interface {
	Rule
	// Init sets the state of a new row from its initial weights, which it leaves
	// alone. weights: (width); state: (StateWidth(width)), overwritten whole.
	Init(weights, state []T)
	// Rebase sets right the state of a row whose weights were set from outside: the
	// next update starts from them, and what the state says of past gradients stays. Of
	// weights up to ps.WeightMax all that is derived stays finite.
	// Shapes are Init's; state is changed only where weights are derived from it.
	Rebase(weights, state []T)
	// Apply updates one row. weights, grad: (width); state: (StateWidth(width)).
	// The slices share no memory; grad is not changed. What FirstInvalid finds
	// in grad is the caller's to refuse.
	Apply(weights, state, grad []T)
	// ApplyRows updates rows one after the other, so that a row which stands in
	// rows twice is updated twice, in order. Each row is (width + StateWidth(width)):
	// weights, then state. grads: (len(rows), width).
	ApplyRows(rows [][]T, grads []T)
	// FirstInvalid returns the position of the first element that is not finite
	// or beyond the rule's largest magnitude, or -1.
	FirstInvalid(grads []T) int
}

// New returns the rule of an optimizer for rows of the given kind. The result is
// a RuleOf[float32], RuleOf[float64] or RuleOf[uint64], as the kind says.
//
// It wraps ps.ErrInvalid and names the key if a setting is out of range, is set
// although the rule does not read it, or the rule does not work on the kind.
func New(o ps.Optimizer, kind ps.Kind) (Rule, error) {
	r, known := rules[o.Name]
	if !known {
		return nil, fmt.Errorf("optimizer name %q: want one of %s, %s, %s, %s, %s, %s, %s: %w",
			o.Name, ps.SGD, ps.AdaGrad, ps.Adam, ps.AdamW, ps.FTRL, ps.Sum, ps.Audit, ps.ErrInvalid)
	}
	if kind != r.kind {
		return nil, fmt.Errorf("optimizer %s: kind %v: it updates rows of %v: %w", o.Name, kind, r.kind, ps.ErrInvalid)
	}
	for _, s := range settings {
		if err := r.limits[s.key].check(s.value(o)); err != nil {
			return nil, fmt.Errorf("optimizer %s: %s = %g: %w", o.Name, s.key, s.value(o), err)
		}
	}
	if decay := o.LearningRate * o.L2; o.Name != ps.FTRL && decay > 1 {
		return nil, fmt.Errorf("optimizer %s: l2 = %g: times learning_rate it is %g, and above 1 each step overshoots zero: %w",
			o.Name, o.L2, decay, ps.ErrInvalid)
	}
	if decay := o.LearningRate * o.WeightDecay; decay > 1 {
		return nil, fmt.Errorf("optimizer %s: weight_decay = %g: times learning_rate it is %g, and above 1 each step overshoots zero: %w",
			o.Name, o.WeightDecay, decay, ps.ErrInvalid)
	}
	if o.Beta1 > o.Beta2 {
		return nil, fmt.Errorf("optimizer %s: beta1 = %g: want at most beta2 = %g, or steps have no bound: %w", o.Name, o.Beta1, o.Beta2, ps.ErrInvalid)
	}
	return r.make(o), nil
}

// rules says for each optimizer which rows it updates and which settings it reads.
var rules = map[string]struct {
	kind   ps.Kind
	limits map[string]limits
	make   func(ps.Optimizer) Rule
}{
	ps.SGD: {ps.Float32, map[string]limits{"learning_rate": positive, "l2": fromZero}, newSGD},
	ps.AdaGrad: {ps.Float32, map[string]limits{
		"learning_rate": positive, "initial_accumulator": positive, "l2": fromZero,
	}, newAdaGrad},
	ps.Adam: {ps.Float32, map[string]limits{
		"learning_rate": positive, "beta1": fading, "beta2": fading, "epsilon": positive, "l2": fromZero,
	}, newAdam},
	ps.AdamW: {ps.Float32, map[string]limits{
		"learning_rate": positive, "beta1": fading, "beta2": fading, "epsilon": positive, "weight_decay": fromZero,
	}, newAdam},
	ps.FTRL: {ps.Float32, map[string]limits{
		"learning_rate": positive, "beta": fromZero, "l1": fromZero, "l2": fromZero,
	}, newFTRL},
	ps.Sum:   {ps.Float64, nil, func(ps.Optimizer) Rule { return add[float64]{ps.Float64} }},
	ps.Audit: {ps.Uint64, nil, func(ps.Optimizer) Rule { return add[uint64]{ps.Uint64} }},
}

var settings = []struct {
	key   string
	value func(ps.Optimizer) float64
}{
	{"learning_rate", func(o ps.Optimizer) float64 { return o.LearningRate }},
	{"initial_accumulator", func(o ps.Optimizer) float64 { return o.InitialAccumulator }},
	{"beta", func(o ps.Optimizer) float64 { return o.Beta }},
	{"l1", func(o ps.Optimizer) float64 { return o.L1 }},
	{"l2", func(o ps.Optimizer) float64 { return o.L2 }},
	{"beta1", func(o ps.Optimizer) float64 { return o.Beta1 }},
	{"beta2", func(o ps.Optimizer) float64 { return o.Beta2 }},
	{"epsilon", func(o ps.Optimizer) float64 { return o.Epsilon }},
	{"weight_decay", func(o ps.Optimizer) float64 { return o.WeightDecay }},
}

// limits is the range of a setting, ends included. The zero value is that of a
// setting which the rule does not read.
type limits struct{ least, most float64 }

// The ranges are far wider than any use and keep the arithmetic finite.
var (
	positive = limits{1e-12, 1e6}
	fromZero = limits{0, 1e6}
	// fading is of the shares that a mean keeps of itself: with 1 it would keep all.
	fading = limits{0, 1 - 1e-6}
)

func (l limits) check(value float64) error {
	switch {
	case l == limits{} && value != 0:
		return fmt.Errorf("this optimizer does not read it, leave it out: %w", ps.ErrInvalid)
	case !(l.least <= value && value <= l.most): // so that NaN is refused
		return fmt.Errorf("want %g to %g: %w", l.least, l.most, ps.ErrInvalid)
	}
	return nil
}

// float32s is what the float32 rules share.
type float32s struct{}

func (float32s) Kind() ps.Kind { return ps.Float32 }

func (float32s) FirstInvalid(grads []float32) int {
	at := validPrefix(grads)
	for i, g := range grads[at:] {
		if !(-GradientMax <= g && g <= GradientMax) { // so that NaN is found
			return at + i
		}
	}
	return -1
}

// sqrt is correctly rounded: the compiler makes it the processor's float32 root.
func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }
