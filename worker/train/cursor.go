package train

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// Cursor is how far one partition has been sent to each shard. It is what a
// worker knows of its progress, and it is never stored: it begins with what the
// shards say they have applied.
//
// The rules it keeps:
//
//  1. A batch begins at the lowest position and ends no later than the next one
//     (Cuts), so for every shard a batch is either wholly new or wholly known.
//  2. An item's from is the shard's position, so that what the shard has and what
//     it is sent fit together without gap or overlap.
//  3. Events between a shard's position and the batch's first event were read in
//     batches before and had no contribution to the shard.
type Cursor struct {
	next ps.Offset   // first event not yet taken into a batch
	sent []ps.Offset // by shard: end of what it was sent, or said it had applied
}

// NewCursor returns the cursor of a partition whose shards have applied the given
// offsets. It keeps a copy.
func NewCursor(applied []ps.Offset) Cursor {
	return Cursor{next: slices.Min(applied), sent: slices.Clone(applied)}
}

// Next returns the first event of the next batch.
func (c *Cursor) Next() ps.Offset { return c.next }

// Cuts returns, in ascending order, the offsets above Next where a batch must end.
func (c *Cursor) Cuts() []ps.Offset {
	cuts := make([]ps.Offset, 0, len(c.sent))
	for _, sent := range c.sent {
		if sent > c.next {
			cuts = append(cuts, sent)
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// Lacks reports whether a shard lacks the events from Next on.
func (c *Cursor) Lacks(s ps.ShardID) bool { return c.sent[s] <= c.next }

// Replaying reports whether some shard has the events from Next on already, which
// means that the model knows them.
func (c *Cursor) Replaying() bool {
	for _, sent := range c.sent {
		if sent > c.next {
			return true
		}
	}
	return false
}

// Sent returns a shard's position: the from of its next item.
func (c *Cursor) Sent(s ps.ShardID) ps.Offset { return c.sent[s] }

// Send notes that a shard is being sent everything below to.
func (c *Cursor) Send(s ps.ShardID, to ps.Offset) {
	if to <= c.sent[s] {
		panic(fmt.Sprintf("train: shard %d is sent up to %d after %d", s, to, c.sent[s]))
	}
	c.sent[s] = to
}

// Take notes that the events below to have been taken into a batch.
func (c *Cursor) Take(to ps.Offset) {
	if to < c.next {
		panic(fmt.Sprintf("train: batch taken up to %d after %d", to, c.next))
	}
	for s, sent := range c.sent {
		if sent > c.next && sent < to {
			panic(fmt.Sprintf("train: batch up to %d straddles the position %d of shard %d", to, sent, s))
		}
	}
	c.next = to
}
