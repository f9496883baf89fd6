package shard

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// Record begins to note which rows change, for Delta: the first delta is since now.
// What was noted before is forgotten.
func (s *Shard) Record() {
	s.since, s.recording = s.seq, true
	for _, t := range s.tables {
		t.Record()
	}
}

// Forget ends what Record began and frees its memory.
func (s *Shard) Forget() {
	s.recording = false
	for _, t := range s.tables {
		t.Forget()
	}
}

// ChangedBytes returns the size of the rows that the next Delta will have.
func (s *Shard) ChangedBytes() int {
	n := 0
	for _, t := range s.tables {
		n += t.Changed() * t.Stride()
	}
	return n
}

// Delta returns what has changed since Record or the last Delta, in one part, or nil
// if nothing has, or nothing is recorded. The result shares no memory with the shard.
func (s *Shard) Delta() *ps.Delta {
	if !s.recording || s.seq == s.since {
		return nil
	}
	d := &ps.Delta{Since: s.since, ShardProgress: s.Progress(), TableRows: s.TableRows()}
	for i, t := range s.tables {
		if n := t.Changed(); n > 0 {
			rows := t.TakeChanged(make([]byte, 0, n*t.Stride()))
			d.Blocks = append(d.Blocks, ps.Block{Table: ps.TableID(i), Stride: t.Stride(), Rows: rows})
		}
	}
	s.since = s.seq
	return d
}

// TableRows counts the stored rows by table.
func (s *Shard) TableRows() []int {
	rows := make([]int, len(s.tables))
	for i, t := range s.tables {
		rows[i] = t.Len()
	}
	return rows
}

// Take stores a part of a delta, as Begin and Rows do with a snapshot: the first has to
// be of a base, and each continues the one before it. It wraps ps.ErrCorrupt where it
// does not, and as Begin and Rows do.
func (l *Loader) Take(d *ps.Delta) error {
	if l.err == nil {
		l.err = l.take(d)
	}
	return l.err
}

func (l *Loader) take(d *ps.Delta) error {
	switch {
	case d.Part == 0 && l.more:
		return fmt.Errorf("shard %d: delta to seq %d before the end of the one to %d: %w", d.Shard, d.Seq, l.head.Seq, ps.ErrCorrupt)
	case d.Part == 0:
		if err := l.begin(Head{Since: d.Since, ShardProgress: d.ShardProgress}); err != nil {
			return err
		}
	case !l.more || d.Part != l.part+1 || d.Shard != l.head.Shard || d.Fence != l.head.Fence || d.Seq != l.head.Seq:
		return fmt.Errorf("shard %d: part %d of the delta to seq %d does not follow part %d of the one to %d of shard %d: %w",
			d.Shard, d.Part, d.Seq, l.part, l.head.Seq, l.head.Shard, ps.ErrCorrupt)
	}
	l.part, l.more = d.Part, d.More
	for _, b := range d.Blocks {
		if err := l.rows(b); err != nil {
			return err
		}
	}
	return nil
}

// Whole reports whether all that was begun is there, so that Shard can be called.
func (l *Loader) Whole() bool { return l.err == nil && l.begun && !l.more && l.complete() == nil }

// Progress returns how far the latest snapshot or delta is, under the fence that it
// was taken under. The caller must not change Partitions.
func (l *Loader) Progress() ps.ShardProgress { return l.head.ShardProgress }
