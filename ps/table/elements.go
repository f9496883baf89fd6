package table

import (
	"fmt"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
)

// elements is what depends on a table's kind. Its methods take whole chunks
// where speed matters, so that the calls through the interface do not.
type elements interface {
	// initial writes the weights that key has before its first update.
	initial(weights []byte, key ps.Key)
	// birth sets the weights and state of a new row, which are zeros.
	birth(row []byte, key ps.Key)
	// apply updates rows, given by their addresses, whose elements are behind a header,
	// and stamps them.
	apply(rows []unsafe.Pointer, header int, values []byte, stamp uint32)
	// set replaces a row's weights, and sets its state right or, if fresh, to that of a
	// row which is born with these weights.
	set(row, weights []byte, fresh bool)
	// firstInvalid returns the position and text of the first value that the
	// optimizer does not take, or -1.
	firstInvalid(values []byte) (int, string)
	// finite reports whether all weights and state are.
	finite(row []byte) bool
	// size is the bytes of weights and state.
	size() int
}

// typed is elements for T.
type typed[T ps.Element] struct {
	rule   optim.RuleOf[T]
	width  int
	full   int               // width of weights and state
	fill   func([]T, ps.Key) // writes initial weights; nil where they are zero
	single []T               // scratch of initial: (width)
	rows   [][]T             // scratch of apply: (chunk), made when first needed
}

func newElements(rule optim.Rule, initial Initial, width int) elements {
	switch rule := rule.(type) {
	case optim.RuleOf[float32]:
		e := newTyped(rule, width)
		if !initial.Zero() {
			e.fill = initial.Fill
			e.single = make([]float32, width)
		}
		return e
	case optim.RuleOf[float64]:
		return newTyped(rule, width)
	case optim.RuleOf[uint64]:
		return newTyped(rule, width)
	}
	panic(fmt.Sprintf("table: optimizer for rows of %v", rule.Kind())) // optim.New returns no other
}

func newTyped[T ps.Element](rule optim.RuleOf[T], width int) *typed[T] {
	return &typed[T]{rule: rule, width: width, full: width + rule.StateWidth(width)}
}

func (e *typed[T]) size() int { return e.full * e.rule.Kind().Size() }

func (e *typed[T]) initial(weights []byte, key ps.Key) {
	if e.fill == nil {
		clear(weights)
		return
	}
	e.fill(e.single, key) // weights need not be aligned
	copy(weights, ps.Bytes(e.single))
}

func (e *typed[T]) birth(row []byte, key ps.Key) {
	elements := view[T](row, e.full)
	if e.fill != nil {
		e.fill(elements[:e.width], key)
	}
	e.rule.Init(elements[:e.width], elements[e.width:])
}

func (e *typed[T]) apply(rows []unsafe.Pointer, header int, values []byte, stamp uint32) {
	if e.rows == nil {
		e.rows = make([][]T, chunk)
	}
	for i, at := range rows {
		setStamp(unsafe.Slice((*byte)(at), header), stamp)
		e.rows[i] = unsafe.Slice((*T)(unsafe.Add(at, header)), e.full)
	}
	e.rule.ApplyRows(e.rows[:len(rows)], ps.View[T](values))
}

func (e *typed[T]) set(row, weights []byte, fresh bool) {
	copy(row, weights)
	elements := view[T](row, e.full)
	if fresh {
		e.rule.Init(elements[:e.width], elements[e.width:])
	} else {
		e.rule.Rebase(elements[:e.width], elements[e.width:])
	}
}

func (e *typed[T]) firstInvalid(values []byte) (int, string) {
	elements := ps.View[T](values)
	if i := e.rule.FirstInvalid(elements); i >= 0 {
		return i, fmt.Sprint(elements[i])
	}
	return -1, ""
}

func (e *typed[T]) finite(row []byte) bool {
	for _, v := range view[T](row, e.full) {
		if v-v != 0 {
			return false
		}
	}
	return true
}
