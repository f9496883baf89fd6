package server

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// pulls are the last numbered pulls of one stream: their keys, which pushes refer to, and
// where the node found them, so that it need not look them up again.
type pulls struct {
	kept [wire.PullsKept]pulled
	next int // where the next goes

	// Memory of one push.
	keys  []ps.Key
	hints []ps.Hint
}

// pulled is one of them. Its memory is its own.
type pulled struct {
	number uint64 // 0: none
	model  string
	layout uint64
	shards []ps.ShardID
	tables []ps.TableKeys
	starts [][]int // by table: where each shard's keys begin
}

// keep copies a numbered pull, and has its hints filled when it is answered.
func (a *pulls) keep(p *ps.Pull) {
	k := a.find(p.Number)
	if k == nil {
		k = &a.kept[a.next]
		a.next = (a.next + 1) % len(a.kept)
	}
	k.number, k.model, k.layout = p.Number, p.Model, p.Layout
	k.shards = append(k.shards[:0], p.Shards...)
	for len(k.tables) < len(p.Tables) {
		k.tables, k.starts = append(k.tables, ps.TableKeys{}), append(k.starts, nil)
	}
	k.tables, k.starts = k.tables[:len(p.Tables)], k.starts[:len(p.Tables)]
	for t := range p.Tables {
		from, to := &p.Tables[t], &k.tables[t]
		to.Table = from.Table
		to.Keys = append(to.Keys[:0], from.Keys...)
		to.Hints = slices.Grow(to.Hints[:0], len(from.Keys))[:len(from.Keys)]
		clear(to.Hints)
		from.Hints = to.Hints
		starts, at := k.starts[t][:0], 0
		for _, count := range from.Counts {
			starts = append(starts, at)
			at += int(count)
		}
		k.starts[t] = append(starts, at)
	}
}

// find returns the pull of that number, or nil.
func (a *pulls) find(number uint64) *pulled {
	for i := range a.kept {
		if number != 0 && a.kept[i].number == number {
			return &a.kept[i]
		}
	}
	return nil
}

// drop forgets a pull that was refused.
func (a *pulls) drop(number uint64) {
	if k := a.find(number); k != nil {
		k.number = 0
	}
}

// fill puts the keys that u's rows refer to in their places. They are valid until the next
// call. It wraps ps.ErrKeysUnknown and ps.ErrInvalid.
func (a *pulls) fill(u *ps.Update) error {
	a.keys, a.hints = a.keys[:0], a.hints[:0]
	for i := range u.Items {
		item := &u.Items[i]
		for r := range item.Rows {
			rows := &item.Rows[r]
			if len(rows.Pulled) == 0 {
				continue
			}
			if err := a.fillRows(u, item.Shard, rows); err != nil {
				return fmt.Errorf("shard %d: table %d refers to keys of pull %d: %w", item.Shard, rows.Table, u.Pulled, err)
			}
		}
	}
	return nil
}

func (a *pulls) fillRows(u *ps.Update, shard ps.ShardID, rows *ps.Rows) error {
	k := a.find(u.Pulled)
	if k == nil || k.model != u.Model || k.layout != u.Layout {
		return fmt.Errorf("it is none of the last %d of this model on the stream: %w", len(a.kept), ps.ErrKeysUnknown)
	}
	s, found := slices.BinarySearch(k.shards, shard)
	t := slices.IndexFunc(k.tables, func(t ps.TableKeys) bool { return t.Table == rows.Table })
	if !found || t < 0 {
		return fmt.Errorf("it asked for none of the shard and the table: %w", ps.ErrKeysUnknown)
	}
	if len(rows.Keys) > 0 {
		return fmt.Errorf("and has keys of its own: %w", ps.ErrInvalid)
	}
	from, to := k.starts[t][s], k.starts[t][s+1]
	keys, hints := k.tables[t].Keys[from:to], k.tables[t].Hints[from:to]
	start := len(a.keys)
	for i, b := range rows.Pulled {
		at := 8 * i
		if at+bits.Len8(b) > len(keys) {
			return fmt.Errorf("the %d. of %d: %w", at+bits.Len8(b), len(keys), ps.ErrInvalid)
		}
		if b == 0xff {
			a.keys, a.hints = append(a.keys, keys[at:at+8]...), append(a.hints, hints[at:at+8]...)
			continue
		}
		for ; b != 0; b &= b - 1 {
			n := at + bits.TrailingZeros8(b)
			a.keys, a.hints = append(a.keys, keys[n]), append(a.hints, hints[n])
		}
	}
	// What was there before stays valid when the memory grows.
	rows.Keys, rows.Hints = a.keys[start:len(a.keys):len(a.keys)], a.hints[start:len(a.hints):len(a.hints)]
	return nil
}
