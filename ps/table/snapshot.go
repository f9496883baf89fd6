package table

import (
	"fmt"
	"io"
	"runtime"

	"github.com/freshet-ml/freshet/ps"
)

// BlockBytes is the most that one Read of a Snapshot gives, and so a good size
// for its buffer.
const BlockBytes = slabBytes

// Snapshot reads a table as it was when the snapshot began, in blocks, while
// updates go on between the reads. It belongs to the table's owner.
//
// An encoded row is key and seq, then weights and state, little endian and
// without padding:
//
//	0      8      16                    Stride
//	│ key  │ seq  │ weights │ state     │
//
// A row is taken either by Read, in the order of row numbers, or by the first
// Apply that is about to change it and finds it unread: its before-image goes to
// a queue, which Read gives after all other rows. The row's own seq tells whether
// that has happened, so nothing is stored beside it.
//
// Invariant: the rows of the boundary with seq above since are those that Read has
// given, those in the queue, and those in [next, end) whose seq is still between
// since (exclusive) and seq (inclusive); each is in one place.
type Snapshot struct {
	table      *Table
	since, seq uint64
	next, end  uint32 // rows [next, end) are not yet read; rows from end on were born later
	saved      [][]byte
	at         int // bytes of saved[0] that were given
	err        error
}

// Snapshot begins a snapshot of the rows whose seq is above since: 0 for all of
// them. seq is that of the table's latest mutation; until the snapshot has ended,
// every Apply must have a higher one. It takes the same short time whatever the
// table's size. It wraps ps.ErrConflict if a snapshot is under way.
func (t *Table) Snapshot(since, seq uint64) (*Snapshot, error) {
	if t.snapshot != nil {
		return nil, fmt.Errorf("table %q: a snapshot is under way: %w", t.desc.Name, ps.ErrConflict)
	}
	t.snapshot = &Snapshot{table: t, since: since, seq: seq, end: uint32(t.rows.len)}
	return t.snapshot, nil
}

// Stride returns the bytes of one encoded row.
func (t *Table) Stride() int { return encodedHeader + t.elements.size() }

// Read encodes some of the rows that are left into dst, and returns the part of
// dst that it has used: whole rows, in no particular order, each row once. It
// looks at one slab of rows at most, so that it is soon done even if few of them
// have changed; the result may therefore be empty before the end. Where dst is
// shorter than BlockBytes it looks at no more rows than fit.
//
// At the end it returns io.EOF and the snapshot is closed. It wraps ps.ErrInvalid
// if dst is too short for a row, or if the snapshot was closed before its end. It
// allocates nothing.
func (sn *Snapshot) Read(dst []byte) ([]byte, error) {
	if sn.err != nil {
		return nil, sn.err
	}
	stride := sn.table.Stride()
	if len(dst) < stride {
		return nil, fmt.Errorf("table %q: read into %d bytes: a row has %d: %w", sn.table.desc.Name, len(dst), stride, ps.ErrInvalid)
	}
	switch {
	case sn.next < sn.end:
		return sn.rows(dst[:0], min(len(dst)/stride, 1<<sn.table.rows.shift)), nil
	case len(sn.saved) > 0:
		return sn.images(dst[:len(dst)/stride*stride]), nil
	}
	sn.finish(io.EOF)
	return nil, io.EOF
}

// rows looks at the given number of unread rows and appends those of the
// snapshot.
func (sn *Snapshot) rows(dst []byte, rows int) []byte {
	stop := min(sn.end, sn.next+uint32(rows))
	for ; sn.next < stop; sn.next++ {
		if sn.has(sn.next) {
			dst = sn.table.encode(dst, sn.next)
		}
	}
	runtime.KeepAlive(sn.table)
	return dst
}

// has reports whether row n is as it was at the boundary and has changed since the
// earlier one.
func (sn *Snapshot) has(n uint32) bool {
	seq := sn.table.seq(n)
	return sn.since < seq && seq <= sn.seq
}

// images moves before-images from the queue to dst.
func (sn *Snapshot) images(dst []byte) []byte {
	first := sn.saved[0]
	moved := copy(dst, first[sn.at:])
	sn.at += moved
	if sn.at == len(first) {
		sn.saved[0] = nil // so that its memory can be used again
		sn.saved, sn.at = sn.saved[1:], 0
	}
	return dst[:moved]
}

// Close ends the snapshot, read or not, and frees its before-images. It may be
// called any number of times.
func (sn *Snapshot) Close() {
	if sn.err == nil {
		sn.finish(fmt.Errorf("table %q: the snapshot was closed before its end: %w", sn.table.desc.Name, ps.ErrInvalid))
	}
}

func (sn *Snapshot) finish(err error) {
	sn.err, sn.saved = err, nil
	sn.table.snapshot = nil
}

// save queues the before-images of rows, given as numbers plus one, that are
// about to be changed and stamped.
func (sn *Snapshot) save(rows []uint32, stamp uint32) {
	for _, at := range rows {
		if n := at - 1; sn.next <= n && n < sn.end && sn.has(n) {
			sn.keep(n)
			setStamp(sn.table.rows.row(n), stamp) // so that it is not saved again if its key is there twice
		}
	}
}

// keep appends row n to the queue, which grows by pieces and never moves.
func (sn *Snapshot) keep(n uint32) {
	stride := sn.table.Stride()
	last := len(sn.saved) - 1
	if last < 0 || cap(sn.saved[last])-len(sn.saved[last]) < stride {
		rows := min(int(sn.end-sn.next), slabBytes/stride)
		sn.saved = append(sn.saved, make([]byte, 0, rows*stride))
		last++
	}
	sn.saved[last] = sn.table.encode(sn.saved[last], n)
}

// bytes returns the memory of the queue.
func (sn *Snapshot) bytes() int {
	sum := 0
	for _, piece := range sn.saved {
		sum += cap(piece)
	}
	return sum
}
