package table

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	hugePage = 2 << 20
	// regionBytes is how much is mapped at a time. What is not yet used of it costs
	// nothing but addresses.
	regionBytes = 64 << 20
)

// mapped is the memory of all tables of the process outside the Go heap.
var mapped = regions{free: make(map[int][][]byte)}

// regions is mapped memory, cut into pieces one after the other, so that pieces of
// all tables share huge pages and at most one of these is used in part.
type regions struct {
	mu   sync.Mutex
	rest []byte           // of the newest region; guarded by mu
	free map[int][][]byte // pieces given back, by size; guarded by mu
}

// take returns size bytes of zeros. It panics, as make would end the process, if
// there is no memory.
func (r *regions) take(size int) []byte {
	page := unix.Getpagesize()
	size = (size + page - 1) / page * page
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.free[size]) - 1; last >= 0 {
		piece := r.free[size][last]
		r.free[size] = r.free[size][:last]
		return piece
	}
	if len(r.rest) < size {
		r.rest = region(max(size, regionBytes))
	}
	piece := r.rest[:size:size]
	r.rest = r.rest[size:]
	return piece
}

// give takes a piece back: its memory becomes the system's at once, its addresses
// are kept for the next piece of the size, which then holds zeros.
func (r *regions) give(piece []byte) {
	if err := unix.Madvise(piece, unix.MADV_DONTNEED); err != nil {
		return // it keeps its memory and is not used again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free[len(piece)] = append(r.free[len(piece)], piece)
}

// region maps memory that begins at a huge page.
func region(size int) []byte {
	all, err := unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("table: map %d bytes for rows: %v", size+hugePage, err))
	}
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(all)))) & (hugePage - 1)
	all = all[skip : skip+size]
	// Where the system has no huge pages it is memory all the same.
	_ = unix.Madvise(all, unix.MADV_HUGEPAGE)
	return all
}
