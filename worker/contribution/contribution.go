// Package contribution decides which shards an event contributes to. The trainer
// counts and fingerprints what it pushes by it, and the audit what should have
// been pushed: there is one rule, so that they cannot disagree.
//
// The rule, for an event of a batch:
//
//   - skipped: one skip at every shard;
//   - trained: once at each shard that has one of its keys or a row of the network's
//     layers, which every event touches, and at the shard of its window's figures;
//   - dropped: as a skip where it would have been trained, so that the audit, which
//     does not know of it, finds the same events everywhere;
//   - held out: at the shard of its window's figures only.
//
// Figures are those of the first pass over a file, so in later passes an event
// contributes to none, and a held-out event to no shard at all.
package contribution

import (
	"math/bits"

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
	counts []Count  // by shard; their Fingerprint.Count is set by Counts
	shift  int      // of a key, to its shard
	at     []uint64 // a bit per shard that the event at hand contributes to
	dense  []uint64 // a bit per shard with rows that every trained event touches
}

// New returns a counter for a cluster of shards and figures in windows of the
// given number of offsets. dense are the keys that every trained event has: those of
// the rows of a network's layers.
func New(shards, window int, dense ...ps.Key) *Counter {
	c := &Counter{
		window: window, counts: make([]Count, shards),
		shift: 64 - bits.TrailingZeros(uint(shards)),
		at:    make([]uint64, (shards+63)/64), dense: make([]uint64, (shards+63)/64),
	}
	for _, key := range dense {
		s := ps.ShardOf(key, shards)
		c.dense[s/64] |= 1 << (s % 64)
	}
	return c
}

// Reset forgets what was counted.
func (c *Counter) Reset() { clear(c.counts) }

// Counts returns what was counted since Reset, indexed by shard. It is valid until
// the next Reset or Add.
func (c *Counter) Counts() []Count {
	for i := range c.counts {
		n := &c.counts[i]
		n.Fingerprint.Count = n.Trained + n.Held + n.Skipped
	}
	return c.counts
}

// Figures reports whether the batch's events have figures.
func Figures(b *worker.Batch) bool { return b.Pass == 0 }

// FiguresShard returns the shard of the figures of an event.
func (c *Counter) FiguresShard(p ps.Partition, o ps.Offset) ps.ShardID {
	return ps.ShardOf(eval.Key(eval.Progressive, eval.WindowOf(p, o, c.window)), len(c.counts))
}

// AddAll counts every event of b at every shard it contributes to.
func (c *Counter) AddAll(b *worker.Batch) {
	for i := range b.Len() {
		c.Add(b, i, nil)
	}
}

// Add counts event i of b at every shard it contributes to and that wants it; a
// nil wants means all.
func (c *Counter) Add(b *worker.Batch, i int, wants func(ps.ShardID) bool) {
	role := b.Roles[i]
	c.find(b, i, role)
	if wants != nil {
		c.keep(wants)
	}
	hash := ps.EventHash(b.Partition, b.From+ps.Offset(i))
	switch role {
	case worker.Train:
		c.count(hash, func(n *Count) { n.Trained++ })
	case worker.Hold:
		c.count(hash, func(n *Count) { n.Held++ })
	case worker.Skip, worker.Drop:
		c.count(hash, func(n *Count) { n.Skipped++ })
	}
}

// find sets the bits of the shards that event i contributes to.
func (c *Counter) find(b *worker.Batch, i int, role worker.Role) {
	if role == worker.Skip {
		for s := range c.counts {
			c.at[s/64] |= 1 << (s % 64)
		}
		return
	}
	if Figures(b) {
		s := c.FiguresShard(b.Partition, b.From+ps.Offset(i))
		c.at[s/64] |= 1 << (s % 64)
	}
	if role != worker.Train && role != worker.Drop {
		return
	}
	for k, set := range c.dense {
		c.at[k] |= set
	}
	keys := b.Keys[b.Starts[i]:b.Starts[i+1]]
	if len(c.at) == 1 { // the bits stay in a register
		set := c.at[0]
		for _, key := range keys {
			set |= 1 << (uint64(key) >> c.shift % 64)
		}
		c.at[0] = set
		return
	}
	for _, key := range keys {
		s := uint64(key) >> c.shift
		c.at[s/64] |= 1 << (s % 64)
	}
}

// keep clears the bits of the shards that do not want the event.
func (c *Counter) keep(wants func(ps.ShardID) bool) {
	for s := range c.counts {
		if bit := uint64(1) << (s % 64); c.at[s/64]&bit != 0 && !wants(ps.ShardID(s)) {
			c.at[s/64] &^= bit
		}
	}
}

// count counts an event at the shards whose bits are set, and clears them.
func (c *Counter) count(hash uint64, add func(*Count)) {
	for w, set := range c.at {
		c.at[w] = 0
		for ; set != 0; set &= set - 1 {
			n := &c.counts[w*64+bits.TrailingZeros64(set)]
			n.Fingerprint.Sum += hash
			n.Fingerprint.Xor ^= hash
			add(n)
		}
	}
}
