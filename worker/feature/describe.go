package feature

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// Example is an event as a network sees it, for people to look at.
type Example struct {
	Role     worker.Role
	Label    float32
	Weight   float32
	Features []Named
}

// Named is one feature's value of an event.
type Named struct {
	// Feature is the feature's name in the spec, or Constant.
	Feature string
	// Value is the text that is hashed, empty if it is missing; of a cross, the
	// texts with " × " between them. Identifiers are masked already.
	Value string
	Key   ps.Key
	// X is what the row of Key is multiplied with.
	X float32
}

// Describe returns what Append makes of e, and its error. It allocates.
func (x *Extractor) Describe(e *worker.Event) (Example, error) {
	x.describing = true
	defer func() { x.describing = false }()
	var b worker.Batch
	b.Reset(e.Partition, e.Offset, e.Pass)
	err := x.Append(&b, e)
	example := Example{Role: b.Roles[0], Label: b.Labels[0], Weight: b.Weights[0]}
	if err != nil {
		return example, err
	}
	for i := range x.inputs {
		if x.inputs[i].CrossOnly {
			continue
		}
		from, to := x.span(i)
		for at := from; at < to; at++ {
			example.Features = append(example.Features, Named{x.inputs[i].Name, x.texts[at], x.keys[at], x.values[at]})
		}
	}
	if x.constant {
		example.Features = append(example.Features, Named{Feature: Constant, Key: constantKey, X: 1})
	}
	return example, nil
}
