// Package shard is the deterministic state machine of one shard of one model:
// its tables, and for each partition of the model's stream the first offset not
// yet applied. It does no I/O, reads no clock, starts no goroutine and takes no
// lock: a Shard has one owner at a time, and the same pushes in the same order
// make the same shard.
//
// The one idea to keep in mind: Push is a compare-and-set on the offset. Rows and
// offset change together, and only if the item begins exactly at the offset, so
// that duplicates, retries, reordering and zombies are harmless without anything
// being remembered about them.
package shard

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

// Config describes a shard of a model.
type Config struct {
	Model ps.Model
	// ID is the shard's number among the cluster's Shards.
	ID     ps.ShardID
	Shards int
	// Fence numbers the ownership under which the shard is opened.
	Fence ps.Fence
	// RowsMax is the most rows of each table; 0 means no limit but the machine's.
	RowsMax int
}

func (c Config) validate() error {
	if err := ps.ValidShards(c.Shards); err != nil {
		return err
	}
	if int(c.ID) >= c.Shards {
		return fmt.Errorf("shard %d of %d: %w", c.ID, c.Shards, ps.ErrInvalid)
	}
	if c.Model.Partitions < 1 {
		return fmt.Errorf("stream of %d partitions: want at least 1: %w", c.Model.Partitions, ps.ErrInvalid)
	}
	return c.Model.Layout.Validate()
}

// Shard is one model's part of one shard. It has one owner at a time.
//
// Invariants, checked by Valid:
//
//  1. Every row is the initial value, or what Set made it, and the contribution of
//     each event below applied exactly once, as far as the shard can tell: every
//     partition's Progress is valid.
//  2. Every stored key belongs to the shard, and no row's seq is above the
//     shard's.
//  3. The tables' own invariants.
type Shard struct {
	config     Config
	layout     uint64 // Model.Layout.Hash()
	seq        uint64
	tables     []*table.Table
	partitions []ps.Progress
	// generations are the highest seen, by partition. They are no part of the
	// state: a shard that is opened anew begins without.
	generations []ps.Generation
	snapshot    *Snapshot // under way, or nil
	recording   bool      // of what changes, for Delta
	since       uint64    // seq of the last delta, or of Record
}

// New returns the shard before its first event: no rows, and every partition at
// offset 0. It wraps ps.ErrInvalid and says which table and which setting if the
// model cannot be learnt.
func New(c Config) (*Shard, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("open model %q: %w", c.Model.Name, err)
	}
	s := &Shard{
		config:      c,
		layout:      c.Model.Layout.Hash(),
		partitions:  make([]ps.Progress, c.Model.Partitions),
		generations: make([]ps.Generation, c.Model.Partitions),
	}
	for _, desc := range c.Model.Layout.Tables {
		t, err := table.New(table.Config{Table: desc, Seed: c.Model.Layout.Seed, RowsMax: c.RowsMax})
		if err != nil {
			return nil, fmt.Errorf("open model %q: %w", c.Model.Name, err)
		}
		s.tables = append(s.tables, t)
	}
	return s, nil
}

// Gather reads the weights of keys in a table into dst, which is (len(keys), width)
// elements of the table's kind, little endian. A key without a row gets its
// initial value, and no row. Keys may repeat. hints, if there are as many as keys,
// receives where the rows are. The caller keeps the slices.
//
// It allocates nothing. It wraps ps.ErrInvalid, and leaves dst alone, if there is
// no such table, a key belongs to another shard, or the length of dst does not
// fit.
func (s *Shard) Gather(id ps.TableID, keys []ps.Key, dst []byte, hints []ps.Hint) error {
	t, err := s.table(id)
	if err != nil {
		return err
	}
	if err := s.own(id, keys); err != nil {
		return err
	}
	if err := t.Gather(keys, dst, hints); err != nil {
		return fmt.Errorf("shard %d: %w", s.config.ID, err)
	}
	return nil
}

// Range calls yield with every row of a table, in no particular order, until it
// returns false: its key, the seq of its last change, and the bytes of its weights
// and then of its optimizer's state, which are valid during the call and must not
// be changed. It wraps ps.ErrInvalid if there is no such table.
func (s *Shard) Range(id ps.TableID, yield func(key ps.Key, seq uint64, row []byte) bool) error {
	t, err := s.table(id)
	if err != nil {
		return err
	}
	t.Range(yield)
	return nil
}

// Progress returns how far the shard is. The caller owns the result.
func (s *Shard) Progress() ps.ShardProgress {
	p := ps.ShardProgress{
		Shard:      s.config.ID,
		Fence:      s.config.Fence,
		Seq:        s.seq,
		Partitions: append([]ps.Progress(nil), s.partitions...),
	}
	for _, t := range s.tables {
		p.Rows += uint64(t.Len())
	}
	return p
}

// Freshness writes to f how fresh the shard's rows are, but for Age, which no shard knows.
// The memory of f.Applied is used again where it is large enough.
func (s *Shard) Freshness(f *ps.Freshness) {
	f.Boundary = ps.Boundary{Fence: s.config.Fence, Seq: s.seq}
	f.Applied, f.EventTime = f.Applied[:0], 0
	for i := range s.partitions {
		p := &s.partitions[i]
		f.Applied, f.EventTime = append(f.Applied, p.Applied), max(f.EventTime, p.EventTime)
	}
}

// Bytes returns the memory of all rows and their indexes, used or reserved, and of
// the rows copied for a snapshot under way.
func (s *Shard) Bytes() int {
	n := 0
	for _, t := range s.tables {
		n += t.Bytes()
	}
	return n
}

// Valid reports a broken invariant of the shard. It reads every row.
func (s *Shard) Valid() error {
	for p, progress := range s.partitions {
		if err := progress.Valid(); err != nil {
			return fmt.Errorf("shard %d: partition %d: %w", s.config.ID, p, err)
		}
	}
	for i, t := range s.tables {
		if err := t.Valid(); err != nil {
			return fmt.Errorf("shard %d: %w", s.config.ID, err)
		}
		var err error
		t.Range(func(key ps.Key, seq uint64, _ []byte) bool {
			if err = s.own(ps.TableID(i), []ps.Key{key}); err == nil && seq > s.seq {
				err = fmt.Errorf("shard %d: table %q: key %#016x has seq %d, the shard %d: %w",
					s.config.ID, s.name(ps.TableID(i)), uint64(key), seq, s.seq, ps.ErrCorrupt)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Shard) table(id ps.TableID) (*table.Table, error) {
	if int64(id) >= int64(len(s.tables)) {
		return nil, fmt.Errorf("shard %d: table %d of a layout of %d: %w", s.config.ID, id, len(s.tables), ps.ErrInvalid)
	}
	return s.tables[id], nil
}

func (s *Shard) name(id ps.TableID) string { return s.config.Model.Layout.Tables[id].Name }

// own reports the first of keys that belongs to another shard.
func (s *Shard) own(id ps.TableID, keys []ps.Key) error {
	for i, key := range keys {
		if of := ps.ShardOf(key, s.config.Shards); of != s.config.ID {
			return fmt.Errorf("shard %d: table %q: key %d (%#016x) is of shard %d: %w",
				s.config.ID, s.name(id), i, uint64(key), of, ps.ErrInvalid)
		}
	}
	return nil
}
