package node

import (
	"context"
	"fmt"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
)

// Tables returns the tables of a model by its layout, which the caller must not change. It
// returns ps.ErrUnknownModel, ps.ErrModelMismatch or ps.ErrUnavailable.
func (n *Node) Tables(model string, layout uint64) ([]ps.Table, error) {
	l, err := n.layout(model, layout)
	return l.tables, err
}

// Lookup reads rows as Pull does and writes them, in the encoding that is asked for, into
// values: for each of l's tables l.Encoding.RowBytes for each key, aligned for the table's
// kind. Fresh receives, for each of l's shards, how fresh its rows are: they are read under
// one hold of the lock, in all tables, so that they are of the boundary itself. The memory
// of Applied is used again where it is large enough.
//
// It returns what Pull does, and ps.ErrBehind, with the shard and both figures, where a shard
// has less than l.Seen says or is older than l.AgeMax. An error of ctx ends it between
// stripes and tables. Values and fresh then hold anything.
func (n *Node) Lookup(ctx context.Context, l *ps.Lookup, values [][]byte, fresh []ps.Freshness) error {
	model, err := n.layout(l.Model, l.Layout)
	if err != nil {
		return err
	}
	if len(values) != len(l.Tables) || len(fresh) != len(l.Shards) || (len(l.Seen) > 0 && len(l.Seen) != len(l.Shards)) {
		return fmt.Errorf("look-up of %d tables and %d shards into memory for %d and %d: %w", len(l.Tables), len(l.Shards), len(values), len(fresh), ps.ErrInvalid)
	}
	rows, free, err := n.plain(model, l, values)
	if err != nil {
		return err
	}
	defer free()
	var few [stripesFew]bool
	busy := n.idle(few[:0])
	for _, id := range l.Shards {
		busy[n.stripeOf(id)] = true
	}
	if err := n.each(ctx, busy, func(i int, s *stripe) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		mine := func(id ps.ShardID) bool { return n.stripeOf(id) == i }
		if err := s.freshness(l, fresh, mine); err != nil {
			return err
		}
		return s.pull(&l.Pull, rows, mine)
	}); err != nil {
		return err
	}
	for t := range l.Tables {
		if len(rows[t]) == len(values[t]) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		quant.Encode(values[t], l.Encoding, model.tables[l.Tables[t].Table], rows[t])
	}
	return nil
}

// plain returns memory for the rows of l's tables as they are stored: values itself for
// those that travel so. The caller frees it.
func (n *Node) plain(model layout, l *ps.Lookup, values [][]byte) (rows [][]byte, free func(), err error) {
	size := 0
	for t := range l.Tables {
		table := &l.Tables[t]
		if int64(table.Table) >= int64(len(model.tables)) {
			return nil, nil, fmt.Errorf("model %q has %d tables, table %d was asked for: %w", l.Model, len(model.tables), table.Table, ps.ErrInvalid)
		}
		desc := model.tables[table.Table]
		if len(values[t]) != len(table.Keys)*l.Encoding.RowBytes(desc) {
			return nil, nil, fmt.Errorf("look-up of %d keys of table %d into memory for others: %w", len(table.Keys), table.Table, ps.ErrInvalid)
		}
		if plain := len(table.Keys) * desc.RowBytes(); plain != len(values[t]) {
			size += plain
		}
	}
	if size == 0 {
		return values, func() {}, nil
	}
	memory, _ := n.lookups.Get().(*[]uint64)
	if memory == nil || len(*memory) < (size+7)/8 {
		memory = new(make([]uint64, (size+7)/8))
	}
	left := ps.Bytes(*memory)
	rows = make([][]byte, len(values))
	for t := range l.Tables {
		rows[t] = values[t]
		if plain := len(l.Tables[t].Keys) * model.widths[l.Tables[t].Table]; plain != len(values[t]) {
			rows[t], left = left[:plain], left[plain:] // of float32s
		}
	}
	return rows, func() { n.lookups.Put(memory) }, nil
}

// freshness writes how fresh the shards are that are mine, and refuses what the reader does
// not want.
func (s *stripe) freshness(l *ps.Lookup, fresh []ps.Freshness, mine func(ps.ShardID) bool) error {
	now := time.Now()
	for i, id := range l.Shards {
		if !mine(id) {
			continue
		}
		held, err := s.shard(l.Model, id)
		if err != nil {
			return err
		}
		f := &fresh[i]
		held.Freshness(f)
		since := held.appliedAt
		if since.IsZero() {
			since = held.openedAt
		}
		f.Age = max(0, now.Sub(since))
		if len(l.Seen) > 0 && f.Behind(l.Seen[i]) {
			return fmt.Errorf("shard %d is at fence %d, seq %d, the reader has seen fence %d, seq %d: %w", id, f.Fence, f.Seq, l.Seen[i].Fence, l.Seen[i].Seq, ps.ErrBehind)
		}
		if l.AgeMax > 0 && f.Age > l.AgeMax {
			return fmt.Errorf("nothing was applied to shard %d for %v, the reader accepts %v: %w", id, f.Age, l.AgeMax, ps.ErrBehind)
		}
	}
	return nil
}
