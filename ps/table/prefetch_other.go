//go:build !amd64

package table

import "unsafe"

// prefetch does nothing here: the loads of a chunk still overlap as far as the
// processor looks ahead.
func prefetch(*[chunk]unsafe.Pointer, int, uintptr) {}
