package optim

import "github.com/freshet-ml/freshet/ps"

// add is the rule of sum and audit tables: w ← w + g. It has no state. Counts
// wrap around as uint64 do.
type add[T ~float64 | ~uint64] struct{ kind ps.Kind }

func (r add[T]) Kind() ps.Kind { return r.kind }

func (add[T]) StateWidth(int) int { return 0 }

func (add[T]) Init(_, _ []T) {}

func (add[T]) Rebase(_, _ []T) {}

func (add[T]) Apply(weights, _, grad []T) {
	grad = grad[:len(weights)]
	for i := range weights {
		weights[i] += grad[i]
	}
}

func (r add[T]) ApplyRows(rows [][]T, grads []T) {
	if len(rows) == 0 {
		return
	}
	width := len(grads) / len(rows)
	for i, row := range rows {
		r.Apply(row[:width], nil, grads[i*width:(i+1)*width])
	}
}

func (r add[T]) FirstInvalid(grads []T) int {
	if r.kind == ps.Uint64 {
		return -1
	}
	for i, g := range grads {
		if v := float64(g); !(-IncrementMax <= v && v <= IncrementMax) { // so that NaN is found
			return i
		}
	}
	return -1
}
