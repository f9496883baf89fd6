package table

import (
	"bytes"
	"testing"
	"unsafe"
)

func TestAPieceGivenBackIsZerosForTheNext(t *testing.T) {
	r := regions{free: make(map[int][][]byte)}
	const size = 5000 // no whole number of pages
	a, b := r.take(size), r.take(size)
	if len(a) < size || len(a)%4096 != 0 || uintptr(unsafe.Pointer(&a[0]))%hugePage != 0 {
		t.Errorf("the first piece has %d bytes at %p, want at least %d in whole pages at a huge page", len(a), &a[0], size)
	}
	for i := range a {
		a[i], b[i] = 1, 2
	}
	at := &a[0]
	r.give(a)
	if b[0] != 2 || b[len(b)-1] != 2 {
		t.Errorf("giving a piece back has changed another")
	}
	again := r.take(size)
	if &again[0] != at || !bytes.Equal(again, make([]byte, len(again))) {
		t.Errorf("the next piece is at %p with %x…, want zeros at %p", &again[0], again[:8], at)
	}
	if other := r.take(2 * size); &other[0] == &b[0] || &other[0] == at {
		t.Errorf("a piece is shared")
	}
	r.take(2 * regionBytes)
}
