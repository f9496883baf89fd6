package table

import (
	"runtime"

	"github.com/freshet-ml/freshet/ps"
)

// memory gives a table its large pieces: full slabs of rows and full segments of
// the index. They are not on the Go heap where that can be (see mapped), so that
// the collector neither counts them, which would let as much garbage pile up
// beside them, nor cuts them into small pages.
//
// They are given back after the table that owns them has become unreachable.
// Hence whoever works on pieces keeps the table alive to the end of it
// (runtime.KeepAlive): a slice of a piece does not.
type memory struct{ pieces *pieces }

// pieces are what a table has been given. It is an object of its own, which the
// cleanup can hold without holding the table.
type pieces struct{ list [][]byte }

func (p *pieces) release() {
	for _, piece := range p.list {
		mapped.give(piece)
	}
}

// newMemory returns the memory of t.
func newMemory(t *Table) memory {
	m := memory{new(pieces)}
	runtime.AddCleanup(t, (*pieces).release, m.pieces)
	return m
}

// piece returns size bytes of zeros, which begin at a page.
func (m memory) piece(size int) []byte {
	p := mapped.take(size)
	m.pieces.list = append(m.pieces.list, p)
	return p
}

// heap returns size bytes of zeros that are aligned for words.
func heap(size int) []byte { return ps.Bytes(make([]uint64, (size+7)/8))[:size] }
