package table

import (
	"math/bits"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// index finds the row of a key: open addressing with linear probing over cells
// of 4 bytes. A cell is 0 or
//
//	bits 31…c       c-1…0
//	tag of the key  number of the row plus one
//
// where len(cells) = 2^c. The row itself has the key; the tag keeps probes from
// touching the rows of other keys.
//
// Keys of one shard share their high bits and may differ in a few low ones
// only, so positions come from ps.Mix of the key: the position from the hash's
// low bits, the tag from its highest, which therefore tells keys apart that
// collide.
type index struct {
	cells []uint32
	mask  uint32 // len(cells) - 1
}

const cellsMin = 16

func newIndex() index {
	return index{make([]uint32, cellsMin), cellsMin - 1}
}

// capacity is how many rows the index takes: three quarters of its cells. Fuller,
// probes get long; emptier, memory is wasted.
func (x *index) capacity() int { return len(x.cells) - len(x.cells)/4 }

// tag returns the bits of hash that stand above the row's number in a cell.
func (x *index) tag(hash uint64) uint32 { return uint32(hash>>32) &^ x.mask }

// probe returns the first cell on the path of hash that is free or has its tag.
// first is the cell at its home position, which the caller has loaded.
func (x *index) probe(hash uint64, first uint32) uint32 {
	tag := x.tag(hash)
	cell := first
	for at := uint32(hash); cell != 0 && cell&^x.mask != tag; {
		at++
		cell = x.cells[at&x.mask]
	}
	return cell
}

// find returns the position of key's cell, or of the free cell where it would
// go, and whether it is there.
func (x *index) find(key ps.Key, hash uint64, rows *slabs) (at uint32, ok bool) {
	tag := x.tag(hash)
	for at = uint32(hash) & x.mask; ; at = (at + 1) & x.mask {
		cell := x.cells[at]
		if cell == 0 {
			return at, false
		}
		if cell&^x.mask == tag && rows.row(cell&x.mask - 1)[0] == uint64(key) {
			return at, true
		}
	}
}

// put stores row n, of the given hash, at a position that find has returned.
func (x *index) put(at uint32, hash uint64, n uint32) { x.cells[at] = x.tag(hash) | (n + 1) }

// grow makes the index large enough for n rows. It is made anew from the keys in
// the rows.
func (x *index) grow(n int, rows *slabs) {
	if n <= x.capacity() {
		return
	}
	cells := 1 << bits.Len(uint(n+n/3)) // more than 4/3 n, so that n fits
	x.cells = make([]uint32, cells)
	x.mask = uint32(cells - 1)
	for i := range uint32(rows.len) {
		hash := ps.Mix(rows.row(i)[0])
		at := uint32(hash) & x.mask
		for x.cells[at] != 0 {
			at = (at + 1) & x.mask
		}
		x.put(at, hash, i)
	}
}

// distinct counts the distinct keys, and sorts them.
func distinct(keys []ps.Key) int {
	slices.Sort(keys)
	n := 0
	for i, key := range keys {
		if i == 0 || key != keys[i-1] {
			n++
		}
	}
	return n
}
