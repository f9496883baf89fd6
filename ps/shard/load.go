package shard

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// Loader makes a shard from a chain of snapshots: a full one, then increments,
// each of which continues the one before it. It has one owner at a time, who need
// not be the later shard's.
//
// For each snapshot of the chain, oldest first, call Begin with its head and Rows
// with all its blocks; then Shard. The shard does not exist before: nobody can
// push to, or read from, half of it. The first error is final: every later call
// returns it, and the loader is to be dropped.
//
// That the snapshots are of the same model, stream and layout is the caller's to
// check: they are not in a Head.
type Loader struct {
	shard *Shard
	head  Head // of the latest snapshot
	begun bool
	part  int  // of the latest delta
	more  bool // the latest delta has more parts
	err   error
}

// Load returns the loader of a shard, which will have the fence of c, whatever the
// snapshots' was. It wraps ps.ErrInvalid as New does.
func Load(c Config) (*Loader, error) {
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	return &Loader{shard: s}, nil
}

// Begin starts the next snapshot of the chain. It wraps ps.ErrCorrupt if the head
// is of another shard, contradicts itself, or does not continue the snapshot
// before it, or if that one's rows are not complete.
func (l *Loader) Begin(h Head) error {
	if l.err == nil {
		l.err = l.begin(h)
	}
	return l.err
}

func (l *Loader) begin(h Head) error {
	id, last := l.shard.config.ID, &l.head
	if err := l.complete(); err != nil {
		return err
	}
	switch {
	case h.Shard != id:
		return fmt.Errorf("shard %d: snapshot of shard %d: %w", id, h.Shard, ps.ErrCorrupt)
	case h.Since != last.Seq: // 0 for the first: it must be full
		return fmt.Errorf("shard %d: snapshot of seq %d since %d after one of seq %d: a link of the chain is missing: %w",
			id, h.Seq, h.Since, last.Seq, ps.ErrCorrupt)
	case h.Seq < h.Since:
		return fmt.Errorf("shard %d: snapshot of seq %d since %d: %w", id, h.Seq, h.Since, ps.ErrCorrupt)
	case h.Fence < last.Fence:
		return fmt.Errorf("shard %d: snapshot under fence %d after one under %d: %w", id, h.Fence, last.Fence, ps.ErrCorrupt)
	case len(h.Partitions) != l.shard.config.Model.Partitions:
		return fmt.Errorf("shard %d: progress of %d partitions: want %d: %w",
			id, len(h.Partitions), l.shard.config.Model.Partitions, ps.ErrCorrupt)
	}
	for i, p := range h.Partitions {
		if p.Valid() != nil {
			return fmt.Errorf("shard %d: partition %d: progress does not add up: %+v: %w", id, i, p, ps.ErrCorrupt)
		}
		if l.begun && p.Applied < last.Partitions[i].Applied {
			return fmt.Errorf("shard %d: partition %d: %d applied in the snapshot of seq %d, and before it %d: %w",
				id, i, p.Applied, h.Seq, last.Partitions[i].Applied, ps.ErrCorrupt)
		}
	}
	l.head, l.begun = h, true
	l.head.Partitions = slices.Clone(h.Partitions)
	return nil
}

// Rows stores a block of the snapshot that was begun, in place of what earlier
// snapshots have for its keys. The caller keeps the block's memory. It says which
// row is wrong and wraps ps.ErrCorrupt for a table that does not exist, another
// stride, a key of another shard, a key that was in an earlier block of the
// snapshot, a seq that is not above the head's Since or is above its Seq, or an
// element that is not finite; ps.ErrOutOfMemory if a table would have more rows
// than RowsMax; ps.ErrInvalid if no snapshot was begun.
func (l *Loader) Rows(b ps.Block) error {
	if l.err == nil {
		l.err = l.rows(b)
	}
	return l.err
}

func (l *Loader) rows(b ps.Block) error {
	s := l.shard
	if !l.begun {
		return fmt.Errorf("shard %d: rows before the head of their snapshot: %w", s.config.ID, ps.ErrInvalid)
	}
	if int64(b.Table) >= int64(len(s.tables)) {
		return fmt.Errorf("shard %d: rows of table %d of a layout of %d: %w", s.config.ID, b.Table, len(s.tables), ps.ErrCorrupt)
	}
	t := s.tables[b.Table]
	if want := t.Stride(); b.Stride != want || len(b.Rows)%want != 0 {
		return fmt.Errorf("shard %d: table %q: %d bytes of rows of %d: want rows of %d: %w",
			s.config.ID, s.name(b.Table), len(b.Rows), b.Stride, want, ps.ErrCorrupt)
	}
	for at := 0; at < len(b.Rows); at += b.Stride {
		key := ps.Key(binary.LittleEndian.Uint64(b.Rows[at:]))
		if of := ps.ShardOf(key, s.config.Shards); of != s.config.ID {
			return fmt.Errorf("shard %d: table %q: key %#016x is of shard %d: %w",
				s.config.ID, s.name(b.Table), uint64(key), of, ps.ErrCorrupt)
		}
	}
	if err := t.Load(b.Rows, l.head.Since, l.head.Seq); err != nil {
		return fmt.Errorf("shard %d: %w", s.config.ID, err)
	}
	return nil
}

// Shard returns the shard as it was at the boundary of the latest snapshot: rows
// with their state and seq, offsets, counts and seq, under its own fence. The
// loader is of no use after it. It wraps ps.ErrCorrupt if rows are missing, and
// ps.ErrInvalid if there was no snapshot.
func (l *Loader) Shard() (*Shard, error) {
	if l.err == nil {
		l.err = l.finish()
	}
	if l.err != nil {
		return nil, l.err
	}
	s := l.shard
	l.err = fmt.Errorf("shard %d: it was loaded before: %w", s.config.ID, ps.ErrInvalid)
	l.shard = nil
	return s, nil
}

func (l *Loader) finish() error {
	if l.more {
		return fmt.Errorf("shard %d: the delta to seq %d is not complete: %w", l.shard.config.ID, l.head.Seq, ps.ErrCorrupt)
	}
	if !l.begun {
		return fmt.Errorf("shard %d: no snapshot to load: %w", l.shard.config.ID, ps.ErrInvalid)
	}
	if err := l.complete(); err != nil {
		return err
	}
	l.shard.seq = l.head.Seq
	copy(l.shard.partitions, l.head.Partitions)
	return nil
}

// Gather reads rows of what is loaded, as Shard.Gather does. It wraps ps.ErrInvalid once
// Shard was called.
func (l *Loader) Gather(id ps.TableID, keys []ps.Key, dst []byte) error {
	if l.shard == nil {
		return l.err
	}
	return l.shard.Gather(id, keys, dst, nil)
}

// Bytes returns the memory of what is loaded.
func (l *Loader) Bytes() int { return l.shard.Bytes() }

// complete reports that the latest snapshot had not all rows that it should.
func (l *Loader) complete() error {
	rows := uint64(0)
	for _, t := range l.shard.tables {
		rows += uint64(t.Len())
	}
	if rows != l.head.Rows {
		return fmt.Errorf("shard %d: %d rows after the snapshot of seq %d: want %d: %w",
			l.shard.config.ID, rows, l.head.Seq, l.head.Rows, ps.ErrCorrupt)
	}
	return nil
}
