package simulation_test

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/shard"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/train"
)

// variant is the product with one decision broken. The zero value is the product.
type variant struct {
	name  string
	finds string // what the failure must say
	// needs are faults that every seed plans, for what takes more than one at a time.
	needs []fault

	anyNewer           bool // a shard accepts whatever ends behind what it has applied
	overlapIsDuplicate bool // a shard takes an item of which it has some for one it has all of
	commitIgnoresMap   bool // the commit of an epoch does not compare the map's revision
	commitIgnoresEpoch bool // nor, in another variant, the epoch before
	collectsEarly      bool // files are deleted before the epoch that needs them no more is committed
	ignoresLineage     bool // a shard is restored from an epoch that was set back from
	uncut              bool // a worker does not end its batches at what a shard has applied
	trimsToNewest      bool // the stream is trimmed behind the newest epoch, not the oldest kept
	promotesAny        bool // a whole copy takes over, whatever it has followed and applied
	forgesFence        bool // a snapshot is committed whoever's it is
}

// variants are the product broken in ways that look harmless.
var variants = []*variant{
	{name: "a shard accepts any newer batch", anyNewer: true, finds: "invariant 1"},
	{name: "an overlap counts as a duplicate", overlapIsDuplicate: true, finds: "invariant 1"},
	{name: "an epoch's commit does not compare the map", commitIgnoresMap: true, needs: []fault{crashNode, zombieNode, pauseNode}, finds: "invariant 6"},
	{name: "an epoch's commit does not compare the epoch", commitIgnoresEpoch: true, finds: "invariant"},
	{name: "files are collected before the commit", collectsEarly: true, finds: "invariant 10"},
	{name: "a restore ignores the lineage", ignoresLineage: true, needs: []fault{rollback, damage}, finds: "invariant 13"},
	{name: "a worker does not cut at what is applied", uncut: true, finds: "invariant 1"},
	{name: "the stream is trimmed behind the newest epoch", trimsToNewest: true, finds: "invariant 8"},
	{name: "any copy is promoted", promotesAny: true, needs: []fault{promotion, rollback, trimming}, finds: "invariant"},
	{name: "a snapshot counts whoever wrote it", forgesFence: true, finds: "invariant"},
}

// push is what a shard makes of an item.
func (v *variant) push(s *shard.Shard, u *ps.Update, item *ps.Item) ps.Answer {
	if !v.anyNewer && !v.overlapIsDuplicate {
		return s.Push(u, item)
	}
	applied := s.Progress().Partitions[u.Partition].Applied
	switch outcome := ps.Judge(applied, ps.Range{From: item.From, To: u.To}); {
	case v.anyNewer && (outcome == ps.Gap || outcome == ps.Overlap):
		taken := *item
		taken.From = applied
		return s.Push(u, &taken)
	case v.overlapIsDuplicate && outcome == ps.Overlap:
		return s.Push(u, &ps.Item{Shard: item.Shard, From: applied})
	}
	return s.Push(u, item)
}

// plan is what a worker makes of a batch.
func (v *variant) plan(c *train.Cursor, b *worker.Batch, counter *contribution.Counter, everybody bool) train.Plan {
	if !v.uncut {
		return c.Plan(b, counter, everybody, nil)
	}
	counter.Reset()
	for i := range b.Len() {
		counter.Add(b, i, nil)
	}
	plan := train.Plan{Replaying: c.Replaying(), Score: true}
	for s, count := range counter.Counts() {
		if id := ps.ShardID(s); c.Sent(id) < b.To {
			plan.Items = append(plan.Items, ps.Item{
				Shard: id, From: c.Sent(id), Trained: count.Trained, Held: count.Held, Skipped: count.Skipped, Fingerprint: count.Fingerprint,
			})
			c.Send(id, b.To)
		}
	}
	c.Take(b.To)
	return plan
}

// ignores reports whether a condition of a transaction is not looked at.
func (v *variant) ignores(t *transaction, key string) bool {
	if !t.writes(epochKey) || t.writes(mapKey) {
		return false
	}
	return v.commitIgnoresMap && key == mapKey || v.commitIgnoresEpoch && key == epochKey
}

// restored is what a node believes of the epochs it may restore a shard from.
func (v *variant) restored(e checkpoint.Epoch) checkpoint.Epoch {
	if v.ignoresLineage {
		retained := append([]checkpoint.Retained(nil), e.Retained...)
		for i := range retained {
			retained[i].Lineage = e.Lineage
		}
		e.Retained = retained
	}
	return e
}

// taken is what a coordinator believes of a snapshot.
func (v *variant) taken(w *world, t checkpoint.Taken) checkpoint.Taken {
	if v.forgesFence {
		t.Fence = w.shardMap()[t.Shard].Fence
	}
	return t
}
