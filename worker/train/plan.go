package train

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
)

// Plan is what becomes of one batch: which shards are sent what.
type Plan struct {
	// Items are for the shards that lack the batch's events and to which these
	// contribute, ascending, without their rows.
	Items []ps.Item
	// Replaying: some shard has the batch's events already, so the model knows them.
	Replaying bool
	// Score: some item needs the events' scores.
	Score bool
}

// Plan decides what each shard is sent of a batch that begins at Next and ends no
// later than the next cut, and moves the cursor behind it. everybody adds an empty
// item for the shards that lack the batch's events and get nothing from them.
//
// counter is the partition's or any other of the same shards and windows; it is
// reset. The plan's items use the memory of items.
func (c *Cursor) Plan(b *worker.Batch, counter *contribution.Counter, everybody bool, items []ps.Item) Plan {
	counter.Reset()
	counter.AddAll(b) // a shard knows either all of the batch or nothing
	p := Plan{Items: items[:0], Replaying: c.Replaying()}
	for i, count := range counter.Counts() {
		shard := ps.ShardID(i)
		known := c.Sent(shard)
		if known >= b.To || (count.Fingerprint.Count == 0 && !everybody) {
			continue
		}
		p.Items = append(p.Items, ps.Item{
			Shard: shard, From: known,
			Trained: count.Trained, Held: count.Held, Skipped: count.Skipped, Fingerprint: count.Fingerprint,
			EventTime: b.EventTime,
		})
		p.Score = p.Score || count.Trained+count.Held > 0
		c.Send(shard, b.To)
	}
	c.Take(b.To)
	return p
}
