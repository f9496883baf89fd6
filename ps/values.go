package ps

import (
	"fmt"
	"unsafe"
)

// Element is a type that rows, keys and lists of them are made of.
type Element interface {
	~float32 | ~float64 | ~uint16 | ~uint64 | ~int32 | ~int64
}

// WeightMax is the largest magnitude of a float32 weight that is set and not learned. Like
// the scale of initial values it is far beyond any use, and keeps arithmetic finite.
const WeightMax = 1e6

// View returns b as elements of type T, without copying: both share memory.
// b holds whole little-endian elements, as on the wire; big-endian machines are
// not supported (see littleEndian). A b that is not aligned for T, which only a
// decoder that aliases its input can bring, is copied.
//
// It panics if len(b) is not a multiple of T's size: whoever takes bytes from
// outside checks their length first.
func View[T Element](b []byte) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if len(b)%size != 0 {
		panic(fmt.Sprintf("ps: %d bytes are no whole number of %d-byte elements", len(b), size))
	}
	if len(b) == 0 {
		return nil
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(size) != 0 {
		aligned := make([]T, len(b)/size)
		copy(Bytes(aligned), b)
		return aligned
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/size)
}

// Bytes returns the little-endian bytes of s, without copying: both share memory.
func Bytes[T Element](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}
