package table

import "runtime"

// changes are the rows that were updated since they were last taken, each once.
type changes struct {
	rows []uint32 // their numbers
	seen []uint64 // a bit for each row number
}

// Record begins to note which rows Apply changes, for TakeChanged, or forgets
// those noted so far.
func (t *Table) Record() { t.changes = &changes{} }

// Forget ends what Record began and frees its memory.
func (t *Table) Forget() { t.changes = nil }

// Changed returns how many rows have changed since Record or the last TakeChanged.
// It is 0 without Record.
func (t *Table) Changed() int {
	if t.changes == nil {
		return 0
	}
	return len(t.changes.rows)
}

// TakeChanged appends the rows that have changed since Record or the last
// TakeChanged to dst, each once as it is now, encoded as in a Snapshot.
func (t *Table) TakeChanged(dst []byte) []byte {
	if t.changes == nil {
		return dst
	}
	for _, n := range t.changes.rows {
		dst = t.encode(dst, n)
		t.changes.seen[n/64] &^= 1 << (n % 64)
	}
	t.changes.rows = t.changes.rows[:0]
	runtime.KeepAlive(t)
	return dst
}

// note adds rows, given as numbers plus one, of a table of the given size.
func (c *changes) note(rows []uint32, size int) {
	if words := (size + 63) / 64; words > len(c.seen) {
		c.seen = append(c.seen, make([]uint64, words-len(c.seen))...)
	}
	for _, at := range rows {
		word, bit := &c.seen[(at-1)/64], uint64(1)<<((at-1)%64)
		if *word&bit == 0 {
			*word |= bit
			c.rows = append(c.rows, at-1)
		}
	}
}

// bytes returns the memory of what is noted.
func (c *changes) bytes() int { return 4*cap(c.rows) + 8*cap(c.seen) }
