package feature

import (
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

// shared are the values of features that several events have in common.
type shared struct {
	fixed  []bool // by input; empty: nothing is shared
	kept   []kept // by input
	keys   []ps.Key
	values []float32
	places []uint16
}

// kept is where the values of an input are, once it was extracted: keys and values
// [from:to], and places from place on.
type kept struct{ from, to, place int }

// Share says what the events that are appended from now on, until it is called again, have
// in common: the text of the columns for which columns is true, and the event time if
// clock is. What depends on nothing else is then extracted once, of the first event, and
// copied for the others, so the examples are the same and cost less. Nil columns share
// nothing.
//
// columns has an entry per column of the extractor, and is not kept.
func (x *Extractor) Share(columns []bool, clock bool) {
	s := &x.shared
	s.keys, s.values, s.places = s.keys[:0], s.values[:0], s.places[:0]
	s.fixed, s.kept = s.fixed[:0], s.kept[:0]
	if columns == nil {
		return
	}
	for i := range x.inputs {
		in, fixed := &x.inputs[i], false
		switch in.Kind {
		case spec.Clock:
			fixed = clock
		case spec.Cross:
			fixed = !slices.ContainsFunc(in.of, func(of int) bool { return !s.fixed[of] })
		default:
			fixed = columns[in.column]
		}
		s.fixed, s.kept = append(s.fixed, fixed), append(s.kept, kept{})
	}
}

// keep notes the values of input i, which begin at those positions of the event at hand.
func (x *Extractor) keep(i, value, place int) {
	s := &x.shared
	s.kept[i] = kept{len(s.keys), len(s.keys) + len(x.keys) - value, len(s.places)}
	s.keys = append(s.keys, x.keys[value:]...)
	s.values = append(s.values, x.values[value:]...)
	s.places = append(s.places, x.places[place:]...)
}

// reuse adds the values of input i that were kept, and reports whether any were: there is
// no input without a value.
func (x *Extractor) reuse(i int) bool {
	s := &x.shared
	k := s.kept[i]
	if k.to == k.from {
		return false
	}
	x.keys = append(x.keys, s.keys[k.from:k.to]...)
	x.values = append(x.values, s.values[k.from:k.to]...)
	if x.inputs[i].Fields > 0 {
		x.places = append(x.places, s.places[k.place:k.place+k.to-k.from]...)
	}
	return true
}

// Span says that an example has so many values of a feature, one after the other.
type Span struct {
	// Feature is its name in the spec, or Constant.
	Feature string
	Values  int
}

// Constant is what the feature that every event has is called where people read it. In
// keys it has no name, so a feature of a spec may be called so too.
const Constant = "constant"

// AppendSpans appends what the example that Append made last, without an error, consists
// of, in the order of its keys in the batch.
func (x *Extractor) AppendSpans(spans []Span) []Span {
	for i := range x.inputs {
		if from, to := x.span(i); !x.inputs[i].CrossOnly {
			spans = append(spans, Span{x.inputs[i].Name, to - from})
		}
	}
	if x.constant {
		spans = append(spans, Span{Constant, 1})
	}
	return spans
}
