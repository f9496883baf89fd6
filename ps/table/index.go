package table

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
)

const (
	// segmentBits is log2 of the most cells that a segment has: it is small enough
	// that its rows are read anew in a fraction of a millisecond, and large enough
	// that the directory stays in the processor's cache.
	segmentBits  = 14
	segmentCells = 1 << segmentBits
	// lineCells is how many cells there are in a line of the processor's cache.
	lineCells = 16
	cellsMin  = 8
)

// index finds the row of a key: a directory of segments, each of them an
// open-addressing table of its own. A segment grows by itself, to twice its cells
// or, at its largest, by a split into two, so that the index never grows as a
// whole.
//
// Keys of one shard share their high bits and may differ in a few low ones only,
// so positions come from ps.Mix of the key:
//
//	63…32          31…14                    13…0
//	tag (highest)  directory (lowest few)   position in the segment
//
// The row itself has the key; the tag keeps probes from touching the rows of other
// keys, and tells keys apart that collide in the low bits.
type index struct {
	// directory has 2^depth entries; a segment that was split less often than
	// others has several.
	directory []*segment
	depth     uint
	moved     int // cells that growth has written anew, ever
	memory    memory
}

// segment is a part of the index. A cell is 0 or
//
//	bits 31…r       r-1…0
//	tag of the key  number of the row plus one
//
// where rows = 2^r - 1.
type segment struct {
	cells []uint32
	mask  uint32 // len(cells) - 1
	rows  uint32 // mask of the row's number in a cell
	used  int
	// depth is how many bits of the directory's index all its keys share.
	depth  uint
	full   int32 // how many rows it takes
	wanted int32 // scratch of reserve, and 0 outside
}

func newIndex(m memory) index {
	x := index{memory: m}
	first := x.newSegment(cellsMin, cellsMin-1, 0)
	x.directory = []*segment{first}
	return x
}

func (x *index) newSegment(cells int, rows uint32, depth uint) *segment {
	return &segment{cells: x.newCells(cells), mask: uint32(cells - 1), rows: rows, full: int32(cells - cells/4), depth: depth}
}

// setFull makes s take between nine and twelve sixteenths of its cells, as a hash says:
// segments of one size, in this table and in those of other shards, would else all be full
// within a few pushes. Fuller, probes go beyond their cache line; emptier, memory is wasted.
func (s *segment) setFull(hash uint64) {
	s.full = int32(len(s.cells)*9/16) + int32(hash%uint64(len(s.cells)*3/16+1))
}

func (x *index) newCells(n int) []uint32 {
	if n < segmentCells {
		return make([]uint32, n)
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x.memory.piece(4*n)))), n)
}

// segment returns the segment of hash.
func (x *index) segment(hash uint64) *segment {
	return x.directory[hash>>segmentBits&uint64(len(x.directory)-1)]
}

// room is how many more rows s takes.
func (s *segment) room() int { return int(s.full) - s.used }

// tag returns the bits of hash that stand above the row's number in a cell.
func (s *segment) tag(hash uint64) uint32 { return uint32(hash>>32) &^ s.rows }

// address is where the path of hash begins, for prefetch.
func (s *segment) address(hash uint64) unsafe.Pointer {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s.cells)), 4*uintptr(uint32(hash)&s.mask))
}

// probe returns the number plus one of the row in the first cell on the path of
// hash that has its tag, or 0 if a free one comes before.
func (s *segment) probe(hash uint64) uint32 {
	tag := s.tag(hash)
	for at := uint32(hash) & s.mask; ; at = s.next(at, hash) {
		cell := s.cells[at]
		if cell == 0 || cell&^s.rows == tag {
			return cell & s.rows
		}
	}
}

// next returns the cell after the one at a position on the path of hash: a path goes
// round in the line where it begins before it goes on to the next, since another line
// is another miss.
func (s *segment) next(at uint32, hash uint64) uint32 {
	at = (at&^(lineCells-1) | (at+1)%lineCells) & s.mask // there may be less than a line
	if (at^uint32(hash))%lineCells == 0 {
		at = (at + lineCells) & s.mask
	}
	return at
}

// probe does that for each of hashes, in their segments. What it finds may be the row of
// another key with the same tag.
func (x *index) probe(hashes []uint64, rows []uint32) {
	if vectors {
		x.probeVectors(hashes, rows)
		return
	}
	for i, hash := range hashes {
		rows[i] = x.segment(hash).probe(hash)
	}
}

// find returns the number plus one of key's row and the position of its cell, or 0
// and that of the free cell where it would go.
func (s *segment) find(key ps.Key, hash uint64, rows *slabs) (row, at uint32) {
	tag := s.tag(hash)
	for at = uint32(hash) & s.mask; ; at = s.next(at, hash) {
		cell := s.cells[at]
		if cell == 0 {
			return 0, at
		}
		if cell&^s.rows == tag && rows.key(cell&s.rows-1) == uint64(key) {
			return cell & s.rows, at
		}
	}
}

// put stores row n, of the given hash, at a position that find has returned.
func (x *index) put(s *segment, at uint32, hash uint64, n uint32) {
	s.fit(n + 1)
	s.cells[at] = s.tag(hash) | (n + 1)
	s.used++
}

// fit gives a row's number as many bits of the cells as it needs: what tags lose at
// their lower end needs no hash to be computed anew.
func (s *segment) fit(number uint32) {
	if number <= s.rows {
		return
	}
	rows := uint32(1)<<bits.Len32(number) - 1
	for i, cell := range s.cells {
		s.cells[i] = cell &^ (rows &^ s.rows)
	}
	s.rows = rows
}

// reserve makes room for rows of keys, as many as there are.
func (x *index) reserve(keys []ps.Key, rows *slabs) {
	for grown := true; grown; {
		grown = false
		for _, key := range keys {
			x.segment(ps.Mix(uint64(key))).wanted++
		}
		for _, key := range keys {
			hash := ps.Mix(uint64(key))
			if s := x.segment(hash); int(s.wanted) > s.room() {
				s.wanted, grown = 0, true
				x.enlarge(s, rows)
			} else {
				s.wanted = 0
			}
		}
	}
}

// enlarge doubles a segment's cells, or splits it if it has as many as it may.
// Keys that were made to collide are not told apart by splits: so that they do not
// make the directory grow without end, it has no more than some 16 entries for as
// many rows as a full segment has, and a segment beyond that gets more cells.
func (x *index) enlarge(s *segment, rows *slabs) {
	numbers := s.take()
	hash := ps.Mix(uint64(len(numbers)))
	if len(numbers) > 0 {
		hash = ps.Mix(rows.key(numbers[0]))
	}
	// Twice as many rows will have numbers that fit: by then it is enlarged again, so that
	// fit need not be called for all segments at once.
	s.rows = max(s.rows, 1<<bits.Len(uint(2*rows.len))-1)
	if len(s.cells) < segmentCells || segmentCells<<s.depth > 16*rows.len {
		s.cells = x.newCells(2 * len(s.cells))
		s.mask = uint32(len(s.cells) - 1)
		s.setFull(hash)
		x.refill(numbers, rows)
		return
	}
	if s.depth == x.depth {
		x.directory = append(x.directory, x.directory...)
		x.depth++
	}
	clear(s.cells)
	other := x.newSegment(len(s.cells), s.rows, s.depth+1)
	for i, at := range x.directory {
		if at == s && i>>s.depth&1 == 1 {
			x.directory[i] = other
		}
	}
	s.depth++
	s.setFull(hash)
	other.setFull(ps.Mix(hash))
	x.refill(numbers, rows)
}

// take returns the numbers of all rows in the segment, and counts them as taken
// out.
func (s *segment) take() []uint32 {
	numbers := make([]uint32, 0, s.used)
	for _, cell := range s.cells {
		if cell != 0 {
			numbers = append(numbers, cell&s.rows-1)
		}
	}
	s.used = 0
	return numbers
}

// refill puts rows, all different, into the index, by the keys in them.
func (x *index) refill(numbers []uint32, rows *slabs) {
	x.moved += len(numbers)
	for len(numbers) > 0 {
		n := min(len(numbers), chunk)
		var at [chunk]unsafe.Pointer
		for i, number := range numbers[:n] {
			at[i] = rows.address(number)
		}
		prefetch(&at, n, 0)
		for _, number := range numbers[:n] {
			hash := ps.Mix(rows.key(number))
			s := x.segment(hash)
			free := uint32(hash) & s.mask
			for s.cells[free] != 0 {
				free = s.next(free, hash)
			}
			x.put(s, free, hash, number)
		}
		numbers = numbers[n:]
	}
}

// each calls yield with every segment, once.
func (x *index) each(yield func(*segment)) {
	for i, s := range x.directory {
		if i < 1<<s.depth {
			yield(s)
		}
	}
}

// valid reports a broken invariant of an index of the given number of rows.
func (x *index) valid(rows int) error {
	sum, least := 0, math.MaxInt
	x.each(func(s *segment) {
		used := 0
		for _, cell := range s.cells {
			if cell != 0 {
				used++
			}
		}
		if used == s.used {
			sum += used
		}
		least = min(least, s.room())
	})
	if sum != rows || least < 0 {
		return fmt.Errorf("%d index cells for %d rows, in one segment room for %d more: %w", sum, rows, least, ps.ErrCorrupt)
	}
	return nil
}

// bytes returns the memory of the index.
func (x *index) bytes() int {
	n := 8 * len(x.directory)
	x.each(func(s *segment) { n += 4*len(s.cells) + int(unsafe.Sizeof(*s)) })
	return n
}

// distinct sorts keys and returns those that are different.
func distinct(keys []ps.Key) []ps.Key {
	slices.Sort(keys)
	return slices.Compact(keys)
}
