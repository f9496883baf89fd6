package table

import "unsafe"

// prefetch asks the processor for the cache lines from each of n addresses to last
// bytes behind it, and does not wait for them. Unlike a load it holds nothing up
// behind it, and an address may be of nothing.
//
//go:noescape
func prefetch(at *[chunk]unsafe.Pointer, n int, last uintptr)
