package table

import (
	"math/bits"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
)

const (
	// slabBytes is the most that a slab has: small beside a shard, and few enough
	// slabs for the allocator.
	slabBytes = 256 << 10
	// slabBytesFirst is what the first begins with: a cluster has many tables with
	// few rows.
	slabBytesFirst = 2 << 10
	// lineWords is the words of a cache line.
	lineWords = 8
)

// slabs is a growing array of rows of one size, in words of 8 bytes. Every slab
// holds the same number of rows, a power of two; only the first begins small and
// is copied while it grows to that size. After that no row ever moves.
type slabs struct {
	list   [][]uint64
	stride int  // words of a row
	shift  uint // log2 of the rows of a full slab
	len    int  // rows in use
}

func newSlabs(stride int) slabs {
	rows := max(1, slabBytes/8/stride)
	return slabs{stride: stride, shift: uint(bits.Len(uint(rows))) - 1}
}

// row returns the words of row n.
func (s *slabs) row(n uint32) []uint64 {
	at := int(n&(1<<s.shift-1)) * s.stride
	return s.list[n>>s.shift][at : at+s.stride]
}

// touch returns the first word of row n and reads one word of each of its cache
// lines up to the given number of words, so that they are on their way when the
// row is worked on. sum makes the compiler keep the reads.
func (s *slabs) touch(n uint32, words int) (first, sum uint64) {
	row := s.row(n)
	for i := lineWords; i < words; i += lineWords {
		sum += row[i]
	}
	return row[0], sum + row[words-1]
}

// capacity is how many rows there is memory for.
func (s *slabs) capacity() int {
	if len(s.list) == 1 {
		return len(s.list[0]) / s.stride
	}
	return len(s.list) << s.shift
}

// grow gets memory for n rows.
func (s *slabs) grow(n int) {
	full := 1 << s.shift
	if len(s.list) <= 1 && s.capacity() < min(n, full) {
		rows := max(1, slabBytesFirst/8/s.stride, 2*s.capacity(), n)
		first := make([]uint64, min(rows, full)*s.stride)
		if len(s.list) == 1 {
			copy(first, s.list[0])
		}
		s.list = [][]uint64{first}
	}
	for s.capacity() < n {
		s.list = append(s.list, make([]uint64, s.stride<<s.shift))
	}
}

func (s *slabs) bytes() int {
	words := 0
	for _, slab := range s.list {
		words += len(slab)
	}
	return words * 8
}

// view returns words as n elements, which they have room for, sharing memory.
func view[T ps.Element](words []uint64, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(words))), n)
}
