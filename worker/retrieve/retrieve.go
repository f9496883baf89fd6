// Package retrieve finds the items whose vectors have the largest inner products with a
// query. It knows items by their index alone: names, queries and where vectors come from
// are the caller's.
//
// The one idea to keep in mind: what limits a search is reading the vectors, so every
// vector is read once, in the order of memory, and none is looked at twice. Sixteen items
// lie side by side, element by element, so that one instruction does the same step for
// several of them and no sum has to be gathered from parts; see DESIGN.md.
//
// Invariants:
//
//  1. A search is exact: no item is left out because it looks unpromising.
//  2. A score is the sum of the products from the first element to the last, in float32,
//     each product and each sum rounded. It does not depend on the processor, on the
//     other items or on the form that computed it.
//  3. Every score is finite: vectors and queries are bounded by ElementMax and WidthMax.
//  4. A search sees of each item a vector that it had while the search went on, whole.
package retrieve

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/freshet-ml/freshet/ps"
)

const (
	// ElementMax bounds the elements of vectors and queries, in magnitude: 2^16 products
	// of up to 2^100 stay below 2^127, so that no score is infinite or NaN.
	ElementMax = 1 << 50
	// WidthMax bounds the elements of a vector.
	WidthMax = 1 << 16
	// ItemsMax bounds the indices of items, so that one wrong index does not fill the
	// memory: the list of segments has at most 16 MiB.
	ItemsMax = 1 << 31
)

// Table holds the vectors of items. All its methods are safe for concurrent use. An update
// waits for searches only while they read the same 1024 items, a few microseconds at width
// 32, and a search for updates likewise.
type Table struct {
	width int
	items atomic.Int64

	mu       sync.RWMutex // after it a segment's
	segments []*segment   // by item/segmentItems; nil where no item has been
}

// New returns a table without items whose vectors have width elements, from 1 to WidthMax;
// otherwise the error wraps ps.ErrInvalid.
func New(width int) (*Table, error) {
	if width < 1 || width > WidthMax {
		return nil, fmt.Errorf("%w: vectors of %d elements; a table of items has from 1 to %d", ps.ErrInvalid, width, WidthMax)
	}
	return &Table{width: width}, nil
}

// Width returns the number of elements of a vector.
func (t *Table) Width() int { return t.width }

// Len returns the number of items.
func (t *Table) Len() int { return int(t.items.Load()) }

// Update gives an item, from 0 to ItemsMax-1, a vector, which is copied. Memory is taken for
// 1024 neighbouring items at a time, so that indices should be close together.
//
// The error wraps ps.ErrInvalid, and the item is as it was, if there can be no such item, if
// the vector is not of the table's width, or if an element is NaN or beyond ElementMax.
func (t *Table) Update(item int, vector []float32) error {
	if item < 0 || item >= ItemsMax {
		return fmt.Errorf("%w: item %d; items are numbered from 0 to %d", ps.ErrInvalid, item, ItemsMax-1)
	}
	if err := t.check(vector); err != nil {
		return fmt.Errorf("vector of item %d: %w", item, err)
	}
	s := t.segment(item / segmentItems)
	if s == nil {
		s = t.grow(item / segmentItems)
	}
	if s.put(item%segmentItems, vector) {
		t.items.Add(1)
	}
	return nil
}

// Remove takes an item out and reports whether it was there. Its memory is kept for when it
// comes back.
func (t *Table) Remove(item int) bool {
	if item < 0 {
		return false
	}
	s := t.segment(item / segmentItems)
	if s == nil || !s.remove(item%segmentItems) {
		return false
	}
	t.items.Add(-1)
	return true
}

func (t *Table) check(vector []float32) error {
	if len(vector) != t.width {
		return fmt.Errorf("%w: it has %d elements, those of the table have %d", ps.ErrInvalid, len(vector), t.width)
	}
	for i, x := range vector {
		if !(-ElementMax <= x && x <= ElementMax) { // so that NaN is found
			return fmt.Errorf("%w: element %d is %v; it has to be a number from -2^50 to 2^50", ps.ErrInvalid, i, x)
		}
	}
	return nil
}

// segment returns nil where no item has been.
func (t *Table) segment(i int) *segment {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if i >= len(t.segments) {
		return nil
	}
	return t.segments[i]
}

// grow returns the segment, which it makes unless somebody else just has.
func (t *Table) grow(i int) *segment {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i >= len(t.segments) {
		t.segments = append(t.segments, nil)
	}
	if t.segments[i] == nil {
		t.segments[i] = &segment{vectors: make([]float32, segmentItems*t.width)}
	}
	return t.segments[i]
}

// extent returns how many segments there are, with those where no item has been.
func (t *Table) extent() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.segments)
}
