// Package contribution decides which shards an event contributes to. The trainer
// counts and fingerprints what it pushes by it, and the audit what should have
// been pushed: there is one rule, so that they cannot disagree.
//
// The rule, for an event of a batch:
//
//   - skipped: one skip at every shard;
//   - trained: once at each shard that has one of its keys, and at the shard of
//     its window's figures;
//   - dropped: as a skip where it would have been trained, so that the audit, which
//     does not know of it, finds the same events everywhere;
//   - held out: at the shard of its window's figures only.
//
// Figures are those of the first pass over a file, so in later passes an event
// contributes to none, and a held-out event to no shard at all.
package contribution

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/eval"
)

// Count is what a set of events contributes to one shard.
//
// Invariant: Trained + Held + Skipped = Fingerprint.Count.
type Count struct {
	Trained, Held, Skipped uint64
	Fingerprint            ps.Fingerprint
}

// Counter counts contributions by shard. It has one owner at a time; its memory is
// reused and nothing is allocated per event.
type Counter struct {
	window int
	// counts and last are indexed by shard; last is the number of the last event
	// that was counted there, so that an event counts once.
	counts []Count
	last   []uint64
	event  uint64
}

// New returns a counter for a cluster of shards and figures in windows of the
// given number of offsets.
func New(shards, window int) *Counter {
	return &Counter{window: window, counts: make([]Count, shards), last: make([]uint64, shards)}
}

// Reset forgets what was counted.
func (c *Counter) Reset() { clear(c.counts) }

// Counts returns what was counted since Reset, indexed by shard. It is valid until
// the next Reset or Add.
func (c *Counter) Counts() []Count { return c.counts }

// Figures reports whether the batch's events have figures.
func Figures(b *worker.Batch) bool { return b.Pass == 0 }

// FiguresShard returns the shard of the figures of an event.
func (c *Counter) FiguresShard(p ps.Partition, o ps.Offset) ps.ShardID {
	return ps.ShardOf(eval.Key(eval.Progressive, eval.WindowOf(p, o, c.window)), len(c.counts))
}

// Add counts event i of b at every shard it contributes to and that wants it; a
// nil wants means all.
func (c *Counter) Add(b *worker.Batch, i int, wants func(ps.ShardID) bool) {
	c.event++
	hash := ps.EventHash(b.Partition, b.From+ps.Offset(i))
	role := b.Roles[i]
	if role == worker.Skip {
		for s := range c.counts {
			c.count(ps.ShardID(s), role, hash, wants)
		}
		return
	}
	if Figures(b) {
		c.count(c.FiguresShard(b.Partition, b.From+ps.Offset(i)), role, hash, wants)
	}
	if role == worker.Train || role == worker.Drop {
		for _, key := range b.Keys[b.Starts[i]:b.Starts[i+1]] {
			c.count(ps.ShardOf(key, len(c.counts)), role, hash, wants)
		}
	}
}

func (c *Counter) count(s ps.ShardID, role worker.Role, hash uint64, wants func(ps.ShardID) bool) {
	if c.last[s] == c.event || (wants != nil && !wants(s)) {
		return
	}
	c.last[s] = c.event
	n := &c.counts[s]
	n.Fingerprint.Add(hash)
	switch role {
	case worker.Train:
		n.Trained++
	case worker.Hold:
		n.Held++
	case worker.Skip, worker.Drop:
		n.Skipped++
	}
}
