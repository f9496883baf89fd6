package table

import (
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/freshet-ml/freshet/ps"
)

// Load stores rows that a Snapshot has encoded, each with its own seq, instead of
// those of the same keys that are there from an earlier snapshot. since and seq
// are those of the snapshot that the rows are from.
//
// Rows come from outside and are judged: it wraps ps.ErrCorrupt and says which row
// if they are no whole number of rows, if a seq is not above since or is above
// seq, if a key was already loaded from the same snapshot, or if an element is
// not finite; ps.ErrOutOfMemory if the table would grow beyond its limit, and
// ps.ErrConflict if a snapshot of this table is under way. After an error some of
// the rows are stored: the table is to be dropped. The caller keeps rows, which
// need not be aligned.
func (t *Table) Load(rows []byte, since, seq uint64) error {
	if t.snapshot != nil {
		return fmt.Errorf("table %q: rows to load while a snapshot is under way: %w", t.desc.Name, ps.ErrConflict)
	}
	stride := t.Stride()
	if len(rows)%stride != 0 {
		return fmt.Errorf("table %q: %d bytes of rows: want a multiple of %d: %w", t.desc.Name, len(rows), stride, ps.ErrCorrupt)
	}
	if err := t.follow(seq); err != nil {
		return err
	}
	for len(rows) > 0 {
		n := min(len(rows), chunk*stride)
		if err := t.load(rows[:n], stride, since, seq); err != nil {
			return err
		}
		rows = rows[n:]
	}
	runtime.KeepAlive(t)
	return nil
}

func (t *Table) load(rows []byte, stride int, since, seq uint64) error {
	var room [chunk]ps.Key
	keys := room[:len(rows)/stride]
	for i := range keys {
		row := rows[i*stride:]
		keys[i] = ps.Key(binary.LittleEndian.Uint64(row))
		if at := binary.LittleEndian.Uint64(row[8:]); at <= since || at > seq {
			return fmt.Errorf("table %q: key %#016x has seq %d: want more than %d, at most %d: %w",
				t.desc.Name, uint64(keys[i]), at, since, seq, ps.ErrCorrupt)
		}
	}
	if err := t.Fits(keys); err != nil {
		return err
	}
	var err error
	t.locate(keys, t.rows.stride, func(found *location, _, _ int) {
		t.reserve(keys)
		t.settle(found, keys)
		err = t.store(found, keys, rows, since)
	})
	return err
}

// store sets the rows of a chunk of keys to those that are loaded.
func (t *Table) store(found *location, keys []ps.Key, rows []byte, since uint64) error {
	stride := t.Stride()
	for i, key := range keys {
		n := found.rows[i] - 1
		if found.rows[i] == 0 {
			n, _ = t.place(key)
		}
		// A row from before cannot say more than base if its seq was below that.
		if was := t.seq(n); was > max(since, t.base) {
			return fmt.Errorf("table %q: key %#016x is there twice, with seq %d and %d: %w",
				t.desc.Name, uint64(key), was, binary.LittleEndian.Uint64(rows[i*stride+keyBytes:]), ps.ErrCorrupt)
		}
		t.decode(n, rows[i*stride:(i+1)*stride])
		if !t.elements.finite(t.rows.elements(n)) {
			return fmt.Errorf("table %q: key %#016x: row is not finite: %w", t.desc.Name, uint64(key), ps.ErrCorrupt)
		}
	}
	return nil
}
