package shard_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

const (
	nShards     = 4
	nPartitions = 2
	nEvents     = 60 // of a partition
	nKeys       = 40
	audit       = ps.TableID(3) // its position in layout
)

// event is what a place of the stream contributes: a pure function of it.
type event struct {
	hash    uint64
	skipped bool // contributes a skip to every shard
	held    bool
	keys    []ps.Key
}

func eventAt(p ps.Partition, o ps.Offset) event {
	hash := ps.EventHash(p, o)
	e := event{hash: hash, skipped: hash%11 == 0, held: hash%7 == 0}
	for i := range hash >> 8 % 5 {
		e.keys = append(e.keys, ps.Key(ps.Mix(ps.Mix(hash+i)%nKeys)))
	}
	return e
}

// contribution is everything the events of a range contribute to a shard.
func contribution(p ps.Partition, s ps.ShardID, r ps.Range) *ps.Item {
	item := &ps.Item{Shard: s, From: r.From}
	var keys []ps.Key
	for o := r.From; o < r.To; o++ {
		e := eventAt(p, o)
		n := len(keys)
		for _, key := range e.keys {
			if ps.ShardOf(key, nShards) == s && !e.skipped && !slices.Contains(keys[n:], key) {
				keys = append(keys, key)
			}
		}
		switch {
		case e.skipped:
			item.Skipped++
		case len(keys) == n:
			continue
		case e.held:
			item.Held++
		default:
			item.Trained++
		}
		item.Fingerprint.Add(e.hash)
		item.EventTime = int64(o)
	}
	if len(keys) > 0 {
		ones, gradients := make([]uint64, len(keys)), make([]float32, len(keys))
		for i := range ones {
			ones[i], gradients[i] = 1, 1
		}
		item.Rows = []ps.Rows{
			{Table: 0, Keys: keys, Values: ps.Bytes(gradients)},
			{Table: audit, Keys: keys, Values: ps.Bytes(ones)},
		}
	}
	return item
}

// counts returns the audit table: how often each key was contributed to.
func counts(t interface{ Fatal(...any) }, s *shard.Shard) map[ps.Key]uint64 {
	m := make(map[ps.Key]uint64)
	if err := s.Range(audit, func(key ps.Key, _ uint64, row []byte) bool {
		m[key] = ps.View[uint64](row)[0]
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// message is an item on its way.
type message struct {
	update ps.Update
	item   *ps.Item
}

// cluster is shards, workers and the messages between them.
type cluster struct {
	t        *rapid.T
	shards   []*shard.Shard
	workers  []*worker
	network  []message
	outcomes *[ps.Overlap + 1]int
}

// worker reads a partition. What it believes of the shards may be wrong.
type worker struct {
	partition ps.Partition
	sent      [nShards]ps.Offset
}

func open(t interface{ Fatal(...any) }, id ps.ShardID, fence ps.Fence) *shard.Shard {
	s, err := shard.New(shard.Config{Model: model(nPartitions), ID: id, Shards: nShards, Fence: fence})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (c *cluster) deliver(m message) {
	s := c.shards[m.item.Shard]
	before := s.Progress()
	a := s.Push(&m.update, m.item)
	c.outcomes[a.Outcome]++
	after := s.Progress()
	if a.Outcome == ps.Refused {
		c.t.Fatalf("item [%d,%d) of partition %d is refused: %v", m.item.From, m.update.To, m.update.Partition, a.Err)
	}
	if applied := after.Partitions[m.update.Partition].Applied; a.Applied != applied {
		c.t.Fatalf("the answer says %d applied, the shard %d", a.Applied, applied)
	}
	if a.Outcome != ps.Applied && fmt.Sprint(before) != fmt.Sprint(after) {
		c.t.Fatalf("%v changed %v to %v", a.Outcome, before, after)
	}
}

// send puts a worker's next batch on the network, one item per shard.
func (w *worker) send(c *cluster, to ps.Offset) {
	for s, from := range w.sent {
		if from >= to {
			continue
		}
		c.network = append(c.network, message{
			ps.Update{
				Model: "shop", Stream: "orders@1", Layout: layout.Hash(), Version: 1,
				Partition: w.partition, To: to,
			},
			contribution(w.partition, ps.ShardID(s), ps.Range{From: from, To: to}),
		})
		w.sent[s] = to
	}
}

// TestExactlyOnce lets several workers, some of them on the same partition, send
// batches of any size over a network that duplicates, delays and reorders, with
// shards that lose everything now and then; in the end each event must have
// contributed once to each shard that it touches.
func TestExactlyOnce(t *testing.T) {
	var outcomes [ps.Overlap + 1]int
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{t: t, outcomes: &outcomes}
		for s := range ps.ShardID(nShards) {
			c.shards = append(c.shards, open(t, s, 1))
		}
		for i := range 2 * nPartitions {
			c.workers = append(c.workers, &worker{partition: ps.Partition(i % nPartitions)})
		}
		pick := func(t *rapid.T) *worker { return rapid.SampledFrom(c.workers).Draw(t, "worker") }
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				w := pick(t)
				end := slices.Min(w.sent[:]) + ps.Offset(rapid.IntRange(1, 20).Draw(t, "events"))
				w.send(c, min(end, nEvents))
			},
			"ask": func(t *rapid.T) {
				w := pick(t)
				for s := range w.sent {
					w.sent[s] = c.shards[s].Progress().Partitions[w.partition].Applied
				}
			},
			"deliver": func(t *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(t, "messages") {
					if len(c.network) == 0 {
						return
					}
					i := 0 // in order, most of the time
					if rapid.IntRange(0, 3).Draw(t, "out of order") == 3 {
						i = rapid.IntRange(0, len(c.network)-1).Draw(t, "message")
					}
					c.deliver(c.network[i])
					if rapid.IntRange(0, 3).Draw(t, "again later") < 3 {
						c.network = slices.Delete(c.network, i, i+1)
					}
				}
			},
			"lose": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 9 {
					s := rapid.IntRange(0, nShards-1).Draw(t, "shard")
					c.shards[s] = open(t, ps.ShardID(s), c.shards[s].Progress().Fence+1)
				}
			},
			"": func(t *rapid.T) {
				for _, s := range c.shards {
					if err := s.Valid(); err != nil {
						t.Fatal(err)
					}
				}
			},
		})
		// The last word of a worker that asks and finishes; then all that was late.
		late := c.network
		c.network = nil
		for p := range ps.Partition(nPartitions) {
			w := &worker{partition: p}
			for s := range w.sent {
				w.sent[s] = c.shards[s].Progress().Partitions[p].Applied
			}
			w.send(c, nEvents)
		}
		for _, m := range append(c.network, late...) {
			c.deliver(m)
		}
		for i, s := range c.shards {
			one := open(t, ps.ShardID(i), 1) // the same stream in one pass
			for p := range ps.Partition(nPartitions) {
				u := ps.Update{Model: "shop", Stream: "orders@1", Layout: layout.Hash(), Version: 1, Partition: p, To: nEvents}
				if a := one.Push(&u, contribution(p, ps.ShardID(i), ps.Range{To: nEvents})); a.Outcome != ps.Applied {
					t.Fatalf("one pass: %v: %v", a.Outcome, a.Err)
				}
			}
			if got, want := fmt.Sprint(s.Progress().Partitions), fmt.Sprint(one.Progress().Partitions); got != want {
				t.Errorf("shard %d: progress\n%s\nwant\n%s", i, got, want)
			}
			if got, want := fmt.Sprint(counts(t, s)), fmt.Sprint(counts(t, one)); got != want {
				t.Errorf("shard %d: counts\n%s\nwant\n%s", i, got, want)
			}
		}
	})
	t.Logf("%d applied, %d duplicates, %d gaps, %d overlaps",
		outcomes[ps.Applied], outcomes[ps.Duplicate], outcomes[ps.Gap], outcomes[ps.Overlap])
	for o := ps.Applied; o <= ps.Overlap; o++ {
		if outcomes[o] == 0 && !testing.Short() { // which tries a fifth as much
			t.Errorf("no item was answered %v: the test does not test", o)
		}
	}
}
