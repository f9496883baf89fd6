// Package table stores the rows of one table in one shard: for each key that was
// ever pushed to, its weights and the optimizer's state beside them, and the
// number of the mutation that last changed it. It does no I/O, reads no clock,
// starts no goroutine and takes no lock (but for the process's memory, once per
// slab): a Table has one owner at a time.
//
// The one idea to keep in mind: cache misses are the cost, so they must overlap.
// Keys are handled in chunks, and each chunk in phases: compute all hashes and ask
// for all index cells, then ask for all rows, and only then work on them, while the
// chunks after it are in the phases before. See DESIGN.md for the layout of index and
// slabs.
package table

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
)

const (
	// chunk is how many keys go through a phase together: the fewer, the better does
	// the work on one chunk hide the misses of others, and the more often is it begun.
	chunk = 16
	// cellsAhead and rowsAhead are how many chunks before the work on one its index
	// cells and rows are asked for: far enough ahead to be there, and not so far that
	// a shard's part of a message, often 64 keys, has no work to hide misses behind.
	cellsAhead, rowsAhead = 4, 2
	// prefetchBytes is the most that is asked for of a row: what follows in a long
	// one the processor sees coming.
	prefetchBytes = 512
	// rowsLimit keeps a row's number within an index cell.
	rowsLimit = 1 << 30
)

// Config describes a table.
type Config struct {
	// Table is its description in the layout.
	Table ps.Table
	// Seed is the layout's seed of initial values.
	Seed uint64
	// RowsMax is the most rows it may store; 0 means no limit but the machine's.
	RowsMax int
}

// Table is the rows of one table in one shard. It has one owner at a time.
//
// Invariants, checked by Valid:
//
//  1. Every stored row is found by its key, and no two rows share one.
//  2. The index is at most three quarters full, so that every probe ends.
//  3. Weights and state of float tables are finite.
//  4. What a row says of its last change, base + seq, is never below the truth, and
//     above it only where the truth is below base.
type Table struct {
	desc     ps.Table
	rowBytes int // of the weights
	rowsMax  int
	elements elements
	index    index
	rows     slabs
	base     uint64    // what the seqs in rows are relative to
	snapshot *Snapshot // under way, or nil
	changes  *changes  // since Record, or nil

	// Scratch of one call.
	found  [cellsAhead + 1]location // of the chunks that are in phases
	absent []ps.Key
}

// New returns an empty table. It wraps ps.ErrInvalid and names table and key if
// the description or one of its settings is out of range.
func New(c Config) (*Table, error) {
	if err := (ps.Layout{Tables: []ps.Table{c.Table}}).Validate(); err != nil {
		return nil, err
	}
	if c.RowsMax < 0 {
		return nil, fmt.Errorf("table %q: at most %d rows: %w", c.Table.Name, c.RowsMax, ps.ErrInvalid)
	}
	rule, err := optim.New(c.Table.Optimizer, c.Table.Kind)
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", c.Table.Name, err)
	}
	initial, err := NewInitial(c.Table, c.Seed)
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", c.Table.Name, err)
	}
	width := c.Table.Width
	t := &Table{
		desc:     c.Table,
		rowBytes: c.Table.RowBytes(),
		rowsMax:  rowsLimit,
		elements: newElements(rule, initial, width),
	}
	m := newMemory(t)
	t.index = newIndex(m)
	t.rows = newSlabs(t.elements.size(), c.Table.Kind.Size(), m)
	if c.RowsMax > 0 {
		t.rowsMax = min(c.RowsMax, rowsLimit)
	}
	return t, nil
}

// Len returns the number of stored rows.
func (t *Table) Len() int { return t.rows.len }

// Bytes returns the memory of rows and index, used or reserved, and of the
// before-images of a snapshot under way and the changes that are noted.
func (t *Table) Bytes() int {
	n := t.rows.bytes() + t.index.bytes()
	if t.snapshot != nil {
		n += t.snapshot.bytes()
	}
	if t.changes != nil {
		n += t.changes.bytes()
	}
	return n
}

// Gather reads the weights of keys into dst, which is (len(keys), width) elements
// of the table's kind, little endian. A key without a row gets its initial
// value, and no row. Keys may repeat. hints, if there are as many as keys, receives
// where the rows are. The caller keeps the slices.
//
// It allocates nothing. It wraps ps.ErrInvalid, and leaves dst alone, if the
// length of dst does not fit.
func (t *Table) Gather(keys []ps.Key, dst []byte, hints []ps.Hint) error {
	if len(dst) != len(keys)*t.rowBytes {
		return t.badLength(len(keys), len(dst))
	}
	t.locate(keys, t.rows.header+t.rowBytes, func(found *location, from, to int) {
		t.settle(found, keys[from:to])
		copy(hints[min(from, len(hints)):], found.rows[:to-from])
		t.gather(found, keys[from:to], dst[from*t.rowBytes:to*t.rowBytes])
	})
	runtime.KeepAlive(t)
	return nil
}

func (t *Table) gather(found *location, keys []ps.Key, dst []byte) {
	for i, key := range keys {
		weights := dst[i*t.rowBytes : (i+1)*t.rowBytes]
		if found.rows[i] == 0 {
			t.elements.initial(weights, key)
			continue
		}
		copy(weights, unsafe.Slice((*byte)(unsafe.Add(found.at[i], t.rows.header)), t.rowBytes))
	}
}

// Validate reports the first thing wrong with rows that are to be applied: a
// number of values that does not fit the keys, or a value that is not finite or
// is beyond the optimizer's range. It wraps ps.ErrInvalid and says which key.
// The Table field of rows is the caller's business.
func (t *Table) Validate(rows ps.Rows) error {
	if len(rows.Values) != len(rows.Keys)*t.rowBytes {
		return t.badLength(len(rows.Keys), len(rows.Values))
	}
	if i, value := t.elements.firstInvalid(rows.Values); i >= 0 {
		row := i / t.desc.Width
		return fmt.Errorf("table %q: key %d (%#016x): element %d is %s: the model has diverged, or the update is damaged: %w",
			t.desc.Name, row, uint64(rows.Keys[row]), i%t.desc.Width, value, ps.ErrInvalid)
	}
	return nil
}

func (t *Table) badLength(keys, bytes int) error {
	return fmt.Errorf("table %q: %d bytes of values for %d keys: want %d each (%d %v): %w",
		t.desc.Name, bytes, keys, t.rowBytes, t.desc.Width, t.desc.Kind, ps.ErrInvalid)
}

// Fits reports that an Apply of keys would make the table grow beyond its limit, and
// wraps ps.ErrOutOfMemory then. If it does not, and nothing but Gather and Range
// comes between, that Apply cannot fail for want of room. It changes nothing, and
// looks keys up only if there is not room for all of them as new ones.
func (t *Table) Fits(keys []ps.Key) error {
	if len(keys) <= t.rowsMax-t.rows.len {
		return nil
	}
	if fresh := len(t.missing(keys)); fresh > t.rowsMax-t.rows.len {
		return fmt.Errorf("table %q: %d rows and %d new ones are more than %d: raise the limit or add nodes: %w",
			t.desc.Name, t.rows.len, fresh, t.rowsMax, ps.ErrOutOfMemory)
	}
	return nil
}

// Reserve makes room for the rows that keys lack, all at once, so that an Apply of
// the same keys takes no memory if nothing but Gather and Range comes between. It
// stores no row. It wraps ps.ErrOutOfMemory, and changes nothing, as Fits does.
//
// Nobody has to call it: Apply makes room chunk by chunk.
func (t *Table) Reserve(keys []ps.Key) error {
	if err := t.Fits(keys); err != nil {
		return err
	}
	t.reserve(t.missing(keys))
	return nil
}

// reserve makes room for a row of each of keys.
func (t *Table) reserve(keys []ps.Key) {
	t.rows.grow(min(t.rows.len+len(keys), t.rowsMax))
	t.index.reserve(keys, &t.rows)
}

// missing returns the distinct keys without a row. It is valid until the next call.
func (t *Table) missing(keys []ps.Key) []ps.Key {
	t.absent = t.absent[:0]
	t.locate(keys, keyBytes, func(found *location, from, to int) {
		t.settle(found, keys[from:to])
		for i, key := range keys[from:to] {
			if found.rows[i] == 0 {
				t.absent = append(t.absent, key)
			}
		}
	})
	runtime.KeepAlive(t)
	t.absent = distinct(t.absent)
	return t.absent
}

// Apply updates the rows of keys by values, which Validate has accepted: (len(Keys),
// width) elements of the table's kind, gradients or increments as its optimizer
// wants them. A key without a row gets one with its initial value first. A key
// that is there twice is updated twice, in order. The stored rows' seq becomes seq, which
// must be above a snapshot's that is under way. Hints, if there are as many as keys, save
// looking these up. The caller keeps the slices; the Table field is the caller's business.
//
// It is all or nothing: it wraps ps.ErrInvalid if the lengths or seq do not fit and
// ps.ErrOutOfMemory as Fits does. For existing rows it allocates nothing, unless values is not aligned for
// its elements (see ps.View) or a snapshot has not read them yet.
func (t *Table) Apply(rows ps.Rows, seq uint64) error {
	keys, values, hints := rows.Keys, rows.Values, rows.Hints
	if len(values) != len(keys)*t.rowBytes {
		return t.badLength(len(keys), len(values))
	}
	if t.snapshot != nil && seq <= t.snapshot.seq {
		return fmt.Errorf("table %q: update of seq %d during a snapshot of seq %d: %w",
			t.desc.Name, seq, t.snapshot.seq, ps.ErrInvalid)
	}
	if err := t.Fits(keys); err != nil {
		return err
	}
	if err := t.follow(seq); err != nil {
		return err
	}
	stamp := t.stamp(seq)
	work := func(found *location, from, to int) {
		t.apply(found, keys[from:to], values[from*t.rowBytes:to*t.rowBytes], stamp)
	}
	if len(hints) > 0 && len(hints) == len(keys) {
		t.recall(keys, hints, t.rows.stride, work)
	} else {
		t.locate(keys, t.rows.stride, work)
	}
	runtime.KeepAlive(t)
	return nil
}

func (t *Table) apply(found *location, keys []ps.Key, values []byte, stamp uint32) {
	t.settle(found, keys)
	t.insertMissing(found, keys)
	rows := found.rows[:len(keys)]
	if t.snapshot != nil {
		t.snapshot.save(rows, stamp)
	}
	if t.changes != nil {
		t.changes.note(rows, t.rows.len)
	}
	t.elements.apply(found.at[:len(keys)], t.rows.header, values, stamp)
}

// insertMissing makes a row for each of keys that has none.
func (t *Table) insertMissing(found *location, keys []ps.Key) {
	var missing [chunk]ps.Key
	n := 0
	for i, key := range keys {
		if found.rows[i] == 0 {
			missing[n] = key
			n++
		}
	}
	if n == 0 {
		return
	}
	first := t.rows.first()
	t.reserve(missing[:n])
	moved := t.rows.first() != first
	for i, key := range keys {
		if found.rows[i] == 0 {
			found.rows[i] = t.insert(key) + 1
		} else if !moved {
			continue
		}
		found.at[i] = t.rows.address(found.rows[i] - 1)
	}
}

// insert returns the row of key, with its initial value if it was not there: another of
// the chunk, or of one before, may have been the same key.
func (t *Table) insert(key ps.Key) uint32 {
	n, born := t.place(key)
	if born {
		t.elements.birth(t.rows.elements(n), key)
	}
	return n
}

// place returns the row of key, which it makes, of zeros, if it is not there. There is
// room for it.
func (t *Table) place(key ps.Key) (n uint32, born bool) {
	hash := ps.Mix(uint64(key))
	segment := t.index.segment(hash)
	row, at := segment.find(key, hash, &t.rows)
	if row != 0 {
		return row - 1, false
	}
	n = uint32(t.rows.len)
	t.rows.len++
	binary.LittleEndian.PutUint64(t.rows.row(n), uint64(key))
	t.index.put(segment, at, hash, n)
	return n, true
}

// Range calls yield with every row, in the order in which they were stored (which
// loading does not keep), until it returns false: its key, the seq of its last
// change, and the bytes of its weights and then its state, which are valid during
// the call and must not be changed.
func (t *Table) Range(yield func(key ps.Key, seq uint64, row []byte) bool) {
	for n := range uint32(t.rows.len) {
		if !yield(ps.Key(t.rows.key(n)), t.seq(n), t.rows.elements(n)) {
			break
		}
	}
	runtime.KeepAlive(t)
}

// Valid reports a broken invariant of the table. It reads every row.
func (t *Table) Valid() error {
	if t.rows.len > t.rows.capacity() || t.rows.len > t.rowsMax {
		return fmt.Errorf("table %q: %d rows, room for %d, at most %d: %w",
			t.desc.Name, t.rows.len, t.rows.capacity(), t.rowsMax, ps.ErrCorrupt)
	}
	if err := t.index.valid(t.rows.len); err != nil {
		return fmt.Errorf("table %q: %w", t.desc.Name, err)
	}
	for n := range uint32(t.rows.len) {
		key := t.rows.key(n)
		hash := ps.Mix(key)
		if row, _ := t.index.segment(hash).find(ps.Key(key), hash, &t.rows); row != n+1 {
			return fmt.Errorf("table %q: key %#016x of row %d is not found there: %w", t.desc.Name, key, n, ps.ErrCorrupt)
		}
		if !t.elements.finite(t.rows.elements(n)) {
			return fmt.Errorf("table %q: key %#016x: row is not finite: %w", t.desc.Name, key, ps.ErrCorrupt)
		}
	}
	runtime.KeepAlive(t)
	return nil
}

// location is where the keys of a chunk are, as far as the phases have found out.
type location struct {
	hashes [chunk]uint64         // between ask and guess
	rows   [chunk]ps.Hint        // number of the row plus one, or 0 without a row
	at     [chunk]unsafe.Pointer // of the row, or without one of the index cell
	first  *byte                 // slabs.first when at was found out
}

// locate calls work for every chunk of keys in turn, with what is guessed of it and
// which it is: keys[from:to]. So that the misses of the work to come overlap, it asks for
// the given number of bytes of every row.
//
// Work may store rows and grow the index. So it calls settle, when it has made room.
func (t *Table) locate(keys []ps.Key, bytes int, work func(found *location, from, to int)) {
	t.phases(len(keys), func(found *location, from, to int) {
		t.ask(found, keys[from:to])
	}, func(found *location, from, to int) {
		t.guess(found, to-from, bytes)
	}, work)
}

// recall is locate by hints, as many as keys, which it does not trust: a row has its key.
func (t *Table) recall(keys []ps.Key, hints []ps.Hint, bytes int, work func(found *location, from, to int)) {
	t.phases(len(keys), func(*location, int, int) {
		// There is no cell to ask for.
	}, func(found *location, from, to int) {
		t.believe(found, keys[from:to], hints[from:to], bytes)
	}, work)
}

// phases takes every chunk of n keys through three phases, whose cache misses overlap:
// nothing in a phase waits for another key's, and while work goes on with one chunk, the
// rows of those after it are on their way, and the cells of some more.
func (t *Table) phases(n int, ask, guess, work func(found *location, from, to int)) {
	for from := -cellsAhead * chunk; from < n; from += chunk {
		t.phase(n, from+cellsAhead*chunk, ask)
		t.phase(n, from+rowsAhead*chunk, guess)
		t.phase(n, from, work)
	}
}

// phase takes the chunk of n keys that begins at from, if there is one, through a phase.
func (t *Table) phase(n, from int, phase func(found *location, from, to int)) {
	if 0 <= from && from < n {
		phase(&t.found[from/chunk%len(t.found)], from, min(from+chunk, n))
	}
}

// ask computes the hashes of at most chunk keys and asks for their index cells.
func (t *Table) ask(found *location, keys []ps.Key) {
	for i, key := range keys[:min(len(keys), chunk)] {
		hash := ps.Mix(uint64(key))
		found.hashes[i], found.at[i] = hash, t.index.segment(hash).address(hash)
	}
	prefetch(&found.at, len(keys), 0)
}

// guess finds the rows that cells with the tags of n keys lead to, and asks for as many
// bytes of them.
func (t *Table) guess(found *location, n, bytes int) {
	t.index.probe(found.hashes[:n], found.rows[:n])
	t.fetch(found, n, bytes)
}

// believe makes hints the guesses. Where there is none the row was missing then, and so
// it asks for the index cell.
func (t *Table) believe(found *location, keys []ps.Key, hints []ps.Hint, bytes int) {
	for i, hint := range hints {
		if int64(hint) > int64(t.rows.len) {
			hint = 0
		}
		found.rows[i] = hint
		if hint == 0 {
			hash := ps.Mix(uint64(keys[i]))
			found.at[i] = t.index.segment(hash).address(hash)
		}
	}
	t.fetch(found, len(hints), bytes)
}

// fetch asks for as many bytes of n rows.
func (t *Table) fetch(found *location, n, bytes int) {
	found.first = t.rows.first()
	for i, row := range found.rows[:n] {
		if row != 0 {
			found.at[i] = t.rows.address(row - 1)
		}
	}
	prefetch(&found.at, n, uintptr(min(bytes, prefetchBytes)-1))
}

// settle makes of guesses what is so now: it replaces rows whose tag is that of another
// key by chance, and addresses of rows that were moved. A key without a row may have got
// one from a chunk before.
func (t *Table) settle(found *location, keys []ps.Key) {
	moved := found.first != t.rows.first()
	for i, key := range keys[:min(len(keys), chunk)] {
		row := found.rows[i]
		if row == 0 || (!moved && keyAt(found.at[i]) == uint64(key)) {
			continue
		}
		hash := ps.Mix(uint64(key))
		if row, _ = t.index.segment(hash).find(key, hash, &t.rows); row != 0 {
			found.at[i] = t.rows.address(row - 1)
		}
		found.rows[i] = row
	}
}
