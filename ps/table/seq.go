package table

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// A row in memory has the seq of its last change in 4 bytes, relative to the
// table's base; outside it has 8. The base is raised once in two thousand million
// mutations. Rows that were last changed before say from then on that they were
// changed at the base: an increment has them once too often, and never too seldom.

// encodedHeader is the bytes of key and seq of an encoded row.
const encodedHeader = 16

// seq returns the number of row n's last change, or base if that was before.
func (t *Table) seq(n uint32) uint64 {
	return t.base + uint64(binary.LittleEndian.Uint32(t.rows.row(n)[keyBytes:]))
}

// stamp returns what stands for seq in a row.
func (t *Table) stamp(seq uint64) uint32 {
	if seq <= t.base {
		return 0
	}
	return uint32(seq - t.base)
}

func setStamp(row []byte, stamp uint32) {
	binary.LittleEndian.PutUint32(row[keyBytes:], stamp)
}

// follow raises the base where seq could not be told in a row without. A snapshot
// under way tells by the seq which rows it has yet to read, so the base stays below
// its own: it wraps ps.ErrInvalid if that is not enough.
func (t *Table) follow(seq uint64) error {
	if seq < t.base || seq-t.base <= math.MaxUint32 {
		return nil
	}
	base := seq - 1<<31
	if t.snapshot != nil {
		base = min(base, t.snapshot.seq)
	}
	if seq-base > math.MaxUint32 {
		return fmt.Errorf("table %q: update of seq %d during a snapshot of seq %d, which is too old: %w",
			t.desc.Name, seq, t.snapshot.seq, ps.ErrInvalid)
	}
	for n := range uint32(t.rows.len) {
		was := t.seq(n)
		setStamp(t.rows.row(n), uint32(max(was, base)-base))
	}
	t.base = base
	return nil
}

// encode appends row n as it is outside of memory.
func (t *Table) encode(dst []byte, n uint32) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, t.rows.key(n))
	dst = binary.LittleEndian.AppendUint64(dst, t.seq(n))
	return append(dst, t.rows.elements(n)...)
}

// decode sets seq, weights and state of row n to those of an encoded row.
func (t *Table) decode(n uint32, encoded []byte) {
	setStamp(t.rows.row(n), t.stamp(binary.LittleEndian.Uint64(encoded[keyBytes:])))
	copy(t.rows.elements(n), encoded[encodedHeader:])
}
