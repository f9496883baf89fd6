package table

import (
	"encoding/binary"
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
	// keyBytes and seqBytes are at the beginning of a row.
	keyBytes, seqBytes = 8, 4
)

// slabs is a growing array of rows of one size. Every slab holds the same number
// of rows, a power of two; only the first begins small and is copied while it grows
// to that size. After that no row ever moves.
type slabs struct {
	list   [][]byte
	header int  // bytes of a row before its weights
	stride int  // bytes of a row
	shift  uint // log2 of the rows of a full slab
	len    int  // rows in use
	memory memory
}

// newSlabs returns an array of rows of size bytes of elements of the given size, to
// which they are aligned.
func newSlabs(size, element int, m memory) slabs {
	header := (keyBytes + seqBytes + element - 1) / element * element
	stride := header + size
	rows := max(1, slabBytes/stride)
	return slabs{header: header, stride: stride, shift: uint(bits.Len(uint(rows))) - 1, memory: m}
}

// row returns the bytes of row n.
func (s *slabs) row(n uint32) []byte {
	at := int(n&(1<<s.shift-1)) * s.stride
	return s.list[n>>s.shift][at : at+s.stride]
}

// elements returns the weights and state of row n.
func (s *slabs) elements(n uint32) []byte { return s.row(n)[s.header:] }

// address is where row n is. It is so until first is another.
func (s *slabs) address(n uint32) unsafe.Pointer {
	at := int(n&(1<<s.shift-1)) * s.stride
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s.list[n>>s.shift])), at)
}

// first is where the first slab is, which changes when it grows, or nil.
func (s *slabs) first() *byte {
	if len(s.list) == 0 {
		return nil
	}
	return unsafe.SliceData(s.list[0])
}

// keyAt returns the key of the row at an address.
func keyAt(at unsafe.Pointer) uint64 {
	return binary.LittleEndian.Uint64(unsafe.Slice((*byte)(at), keyBytes))
}

// key returns the key of row n.
func (s *slabs) key(n uint32) uint64 { return binary.LittleEndian.Uint64(s.row(n)) }

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
		rows := min(max(1, slabBytesFirst/s.stride, 2*s.capacity(), n), full)
		first := s.slab(rows)
		if len(s.list) == 1 {
			copy(first, s.list[0])
		}
		s.list = [][]byte{first}
	}
	for s.capacity() < n {
		s.list = append(s.list, s.slab(full))
	}
}

// slab returns memory for rows, of zeros.
func (s *slabs) slab(rows int) []byte {
	size := rows * s.stride
	if rows < 1<<s.shift || size < slabBytes/2 {
		return heap(size)
	}
	return s.memory.piece(size)[:size]
}

func (s *slabs) bytes() int {
	n := 0
	for _, slab := range s.list {
		n += len(slab)
	}
	return n
}

// view returns b as n elements, which it has room for and is aligned for, sharing
// memory.
func view[T ps.Element](b []byte, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}
