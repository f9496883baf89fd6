package spec

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// rule is an update rule that a network's table may have: the settings it reads and
// what they are where the spec does not say. ps has more rules, whose gradients are
// counts; a network has no use for them.
type rule struct {
	settings []string
	defaults ps.Optimizer
}

// rules, in the order in which messages list them.
var rules = []rule{
	{
		settings: []string{"learning_rate", "beta", "l1", "l2"},
		// McMahan et al. 2013 take α from data and β = 1; these two suit hashed
		// logistic regression on clicks. λ2 steadies keys that were seen once.
		defaults: ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L2: 0.1},
	},
	{
		settings: []string{"learning_rate", "initial_accumulator", "l2"},
		defaults: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 1},
	},
	{
		settings: []string{"learning_rate", "beta1", "beta2", "epsilon", "l2"},
		// Kingma & Ba 2015, Algorithm 1.
		defaults: ps.Optimizer{Name: ps.Adam, LearningRate: 0.001, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8},
	},
	{
		settings: []string{"learning_rate", "beta1", "beta2", "epsilon", "weight_decay"},
		defaults: ps.Optimizer{Name: ps.AdamW, LearningRate: 0.001, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.01},
	},
	{
		settings: []string{"learning_rate", "l2"},
		defaults: ps.Optimizer{Name: ps.SGD, LearningRate: 0.01},
	},
}

// allSettings are the keys of an optimizer other than its name.
var allSettings = []string{"learning_rate", "initial_accumulator", "beta", "l1", "l2", "beta1", "beta2", "epsilon", "weight_decay"}

// ruleOf returns the rule with the given name.
func ruleOf(name string) (rule, bool) {
	for _, r := range rules {
		if r.defaults.Name == name {
			return r, true
		}
	}
	return rule{}, false
}

func ruleNames() []string {
	var names []string
	for _, r := range rules {
		names = append(names, r.defaults.Name)
	}
	return names
}

// setting returns where o keeps a setting.
func setting(o *ps.Optimizer, name string) *float64 {
	switch name {
	case "learning_rate":
		return &o.LearningRate
	case "initial_accumulator":
		return &o.InitialAccumulator
	case "beta":
		return &o.Beta
	case "l1":
		return &o.L1
	case "l2":
		return &o.L2
	case "beta1":
		return &o.Beta1
	case "beta2":
		return &o.Beta2
	case "epsilon":
		return &o.Epsilon
	case "weight_decay":
		return &o.WeightDecay
	}
	panic(fmt.Sprintf("spec: %q is no setting of an optimizer", name))
}

// checkOptimizer checks the optimizer at path. accepts are the rules that the table
// may have; why says what is wrong with the others.
func checkOptimizer(r *reporter, path string, o ps.Optimizer, accepts []string, why string) {
	rule, ok := ruleOf(o.Name)
	switch {
	case !ok:
		r.report(join(path, "name"), "unknown optimizer "+quoted(o.Name), advise(o.Name, "the optimizers are", accepts))
		return
	case !slices.Contains(accepts, o.Name):
		r.report(join(path, "name"), why, "take one of "+listed(accepts))
		return
	}
	for _, name := range allSettings {
		at, v := join(path, name), *setting(&o, name)
		switch {
		case !slices.Contains(rule.settings, name):
			if v != 0 {
				r.report(at, o.Name+" has no such setting", "its settings are "+listed(rule.settings))
			}
		case name == "beta1" || name == "beta2":
			checkFading(r, at, v)
		case name == "learning_rate" || name == "initial_accumulator" || name == "epsilon":
			checkPositive(r, at, v)
		default:
			checkNotNegative(r, at, v)
		}
	}
	if o.Beta1 > o.Beta2 {
		r.report(join(path, "beta1"), fmt.Sprintf("%v is above beta2, %v", o.Beta1, o.Beta2), "want at most beta2, or steps have no bound")
	}
}

// fadingMax is the largest share that a mean may keep of itself.
const fadingMax = 1 - 1e-6

// checkFading checks the share that a mean keeps of itself.
func checkFading(r *reporter, path string, v float64) {
	if !(v >= 0 && v <= fadingMax) {
		r.report(path, fmt.Sprintf("%v", v), "want a share from 0 to less than 1, such as 0.9")
	}
}

// checkPositive checks a number that reaches 32-bit arithmetic and must be above 0.
func checkPositive(r *reporter, path string, v float64) {
	if f := float32(v); !(f > 0 && finite(float64(f))) {
		r.report(path, fmt.Sprintf("%v", v), "want a number above 0 that a 32-bit float can hold")
	}
}

// checkNotNegative checks a number that reaches 32-bit arithmetic and may be 0.
func checkNotNegative(r *reporter, path string, v float64) {
	if !(v >= 0 && finite(float64(float32(v)))) {
		r.report(path, fmt.Sprintf("%v", v), "want 0 or a number above it that a 32-bit float can hold")
	}
}
