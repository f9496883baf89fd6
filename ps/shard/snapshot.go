package shard

import (
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

// BlockBytes is the most that a ps.Block of a snapshot has, and so a good size for
// the buffers of Snapshot.Read.
const BlockBytes = table.BlockBytes

// Head describes a snapshot: what its rows alone do not say.
type Head struct {
	// Since is the seq of the snapshot that this one continues: rows with a seq
	// above it are in the snapshot, no others. It is 0 for a full one.
	Since uint64
	// ShardProgress is the shard's at the snapshot's boundary: a push was either
	// applied before, and is in rows and offsets, or after, and is in neither.
	// Rows counts all stored rows then, also those that are not in an increment.
	ps.ShardProgress
	// TableRows counts them by table. It is not needed to load a snapshot.
	TableRows []int
}

// Snapshot reads a shard as it was at one boundary between two pushes, while
// pushes and pulls go on between the reads. It belongs to the shard's owner, who
// alone may call its methods; what Read has returned can be handed to others.
//
// Before it changes a row that is not yet read, a push copies it, so pushes never
// wait for the snapshot. The copies are at most the rows that pushes change while
// the snapshot is read, and at most SnapshotBytes at the boundary; Shard.Bytes
// counts them.
type Snapshot struct {
	shard  *Shard
	head   Head
	tables []*table.Snapshot
	next   int // the table that is read
	err    error
}

// Snapshot begins a snapshot of the shard as it is now: of all rows if since is 0,
// else of those whose seq is above it. It takes microseconds whatever the shard's
// size. The snapshot is under way until Read has returned io.EOF or Close is
// called; it wraps ps.ErrConflict if another one is, and ps.ErrInvalid if the
// shard has not come to since.
func (s *Shard) Snapshot(since uint64) (*Snapshot, error) {
	if s.snapshot != nil {
		return nil, fmt.Errorf("shard %d: a snapshot of seq %d is under way: read it to its end or close it: %w",
			s.config.ID, s.snapshot.head.Seq, ps.ErrConflict)
	}
	if since > s.seq {
		return nil, fmt.Errorf("shard %d: snapshot since seq %d of a shard of seq %d: %w", s.config.ID, since, s.seq, ps.ErrInvalid)
	}
	sn := &Snapshot{
		shard:  s,
		head:   Head{Since: since, ShardProgress: s.Progress(), TableRows: s.TableRows()},
		tables: make([]*table.Snapshot, len(s.tables)),
	}
	for i, t := range s.tables {
		var err error
		if sn.tables[i], err = t.Snapshot(since, s.seq); err != nil {
			panic(fmt.Sprintf("shard %d: snapshot of table %q without one of the shard: %v", s.config.ID, s.name(ps.TableID(i)), err))
		}
	}
	s.snapshot = sn
	return sn, nil
}

// SnapshotBytes returns the size that all rows of a full snapshot would have now,
// which is also the most that an increment can have.
func (s *Shard) SnapshotBytes() int {
	n := 0
	for _, t := range s.tables {
		n += t.Len() * t.Stride()
	}
	return n
}

// Strides returns the bytes of an encoded row, by table: the strides of all blocks.
func (s *Shard) Strides() []int {
	strides := make([]int, len(s.tables))
	for i, t := range s.tables {
		strides[i] = t.Stride()
	}
	return strides
}

// Head describes the snapshot. It is the same at any time. The caller must not
// change Partitions.
func (sn *Snapshot) Head() Head { return sn.head }

// Read encodes some of the rows that are left into dst and returns them as a block
// whose Rows share dst's memory. Together the blocks have every row of the
// snapshot once. A call looks at BlockBytes of rows at most (of one table), so
// that pushes need not wait long for it; a block of an increment may therefore be
// empty before the end.
//
// At the end it returns io.EOF, and another snapshot may begin. It wraps
// ps.ErrInvalid if dst is too short for a row (BlockBytes never is), or if the
// snapshot was closed before its end. It allocates nothing.
func (sn *Snapshot) Read(dst []byte) (ps.Block, error) {
	if sn.err != nil {
		return ps.Block{}, sn.err
	}
	for ; sn.next < len(sn.tables); sn.next++ {
		rows, err := sn.tables[sn.next].Read(dst)
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return ps.Block{}, fmt.Errorf("shard %d: %w", sn.shard.config.ID, err)
		}
		return ps.Block{Table: ps.TableID(sn.next), Stride: sn.shard.tables[sn.next].Stride(), Rows: rows}, nil
	}
	sn.err = io.EOF
	sn.shard.snapshot = nil
	return ps.Block{}, io.EOF
}

// Close ends the snapshot, read or not, and frees its memory. It may be called any
// number of times; after the end of the snapshot it does nothing.
func (sn *Snapshot) Close() {
	if sn.err != nil {
		return
	}
	sn.err = fmt.Errorf("shard %d: the snapshot of seq %d was closed before its end: %w", sn.shard.config.ID, sn.head.Seq, ps.ErrInvalid)
	for _, t := range sn.tables {
		t.Close()
	}
	sn.shard.snapshot = nil
}
