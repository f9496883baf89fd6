package node_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/node"
)

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	late := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// caughtUp waits until a node's copies have applied a partition up to an offset.
func caughtUp(t *testing.T, r *running, to ps.Offset) {
	t.Helper()
	until(t, "all copies are up to date", func() bool {
		kept := copiesOf(t, r)
		for _, c := range kept {
			if c.Seq < uint64(to) { // the tests push one event at a time
				return false
			}
		}
		return len(kept) == shards
	})
}

// copiesOf returns the whole copies that a node has.
func copiesOf(t *testing.T, r *running) []ps.Holding {
	t.Helper()
	all, err := r.node.Holdings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(h ps.Holding) bool { return !h.Copy })
}

func addresses(nodes map[ps.NodeID]*running) map[ps.NodeID]string {
	all := make(map[ps.NodeID]string)
	for id, r := range nodes {
		all[id] = r.address
	}
	return all
}

// checkSums checks that every shard has applied n pushes of the value 1, once each.
func checkSums(t *testing.T, c *client.Client, n ps.Offset) {
	t.Helper()
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	for s, p := range progress {
		if p.Partitions[0].Applied != n || p.Partitions[0].Trained != uint64(n) {
			t.Errorf("shard %d: %+v, want %d applied and trained", s, p.Partitions[0], n)
		}
		if got := pull(t, c, keyOf(ps.ShardID(s), 1)); got[0] != float64(n) || got[1] != float64(n) {
			t.Errorf("shard %d: row %v, want %d twice", s, got, n)
		}
	}
}

func TestAStandbyTakesOverWhereItsOwnerWas(t *testing.T) {
	o := newOwnership(testModel())
	nodes := map[ps.NodeID]*running{"a": start(t, "a", o), "b": start(t, "b", o), "c": start(t, "c", o)}
	o.setWith(addresses(nodes), []ps.NodeID{"b"}, "a")
	c := dial(t, o)
	<-nodes["a"].node.Ready()
	push(t, c, everyShard(0, 1, 1)) // may be in the base
	caughtUp(t, nodes["b"], 1)
	for i := range ps.Offset(20) { // and these are deltas
		push(t, c, everyShard(i+1, i+2, 1))
	}
	caughtUp(t, nodes["b"], 21)
	nodes["a"].stop()
	delete(nodes, "a")
	o.setWith(addresses(nodes), []ps.NodeID{"c"}, "b")
	checkSums(t, c, 21)

	// It goes on, and its own standby with it.
	push(t, c, everyShard(21, 22, 1))
	caughtUp(t, nodes["c"], 22)
	nodes["b"].stop()
	delete(nodes, "b")
	o.set(addresses(nodes), "c")
	checkSums(t, c, 22)
	if kept := copiesOf(t, nodes["c"]); len(kept) != 0 {
		t.Errorf("a node that was promoted still has copies: %+v", kept)
	}
}

// TestACopyThatLacksWhatAnEpochHasIsNotPromoted moves a shard with all its events past
// a standby that has missed them: by then the stream may be trimmed.
func TestACopyThatLacksWhatAnEpochHasIsNotPromoted(t *testing.T) {
	o := newOwnership(testModel())
	nodes := map[ps.NodeID]*running{"a": start(t, "a", o), "b": start(t, "b", o)}
	o.setWith(addresses(nodes), []ps.NodeID{"b"}, "a")
	c := dial(t, o)
	<-nodes["a"].node.Ready()
	push(t, c, everyShard(0, 1, 1))
	caughtUp(t, nodes["b"], 1)
	// a is cut off from b, but not from the bucket.
	o.setWith(addresses(nodes), nil, "a")
	until(t, "b keeps no copies", func() bool { return len(copiesOf(t, nodes["b"])) == 0 })
	push(t, c, everyShard(1, 2, 1))
	url, _ := bucketURL(t)
	commit(t, o, c, url, nothing())
	o.set(addresses(nodes), "b")
	until(t, "b serves", func() bool {
		progress, err := nodes["b"].node.Applied(t.Context(), "m", nil)
		return err == nil && len(progress) == shards
	})
	checkSums(t, c, 2)
}

func TestWhoMayBePromoted(t *testing.T) {
	at := func(fence ps.Fence, applied ...ps.Offset) ps.ShardProgress {
		p := ps.ShardProgress{Fence: fence}
		for _, a := range applied {
			p.Partitions = append(p.Partitions, ps.Progress{Applied: a})
		}
		return p
	}
	for _, test := range []struct {
		name  string
		copy  ps.ShardProgress
		fence ps.Fence
		epoch []ps.Offset
		may   bool
	}{
		{"it has followed the ownership before and has all that the epoch has", at(4, 7, 9), 5, []ps.Offset{7, 9}, true},
		{"it has more than the epoch", at(4, 8, 9), 5, []ps.Offset{7, 9}, true},
		{"there is no epoch", at(4, 0, 0), 5, nil, true},
		{"it lacks something of one partition", at(4, 99, 8), 5, []ps.Offset{7, 9}, false},
		{"somebody owned the shard in between", at(3, 99, 99), 5, []ps.Offset{7, 9}, false},
		{"it has followed the same ownership", at(5, 99, 99), 5, []ps.Offset{7, 9}, false},
	} {
		if err := node.MayPromote(test.copy, test.fence, test.epoch); (err == nil) != test.may || err != nil && !errors.Is(err, ps.ErrConflict) {
			t.Errorf("%s: %v, want promoted: %v", test.name, err, test.may)
		}
	}
}

// TestCopiesKeepUpWhilePushesSnapshotsAndOwnersGoOn is everything at once: a shard's
// copies are made while it is pushed to and snapshots are taken, followers come and go,
// and shards move from node to node under it.
func TestCopiesKeepUpWhilePushesSnapshotsAndOwnersGoOn(t *testing.T) {
	const events = 400
	o := newOwnership(testModel())
	nodes := map[ps.NodeID]*running{"a": start(t, "a", o), "b": start(t, "b", o), "c": start(t, "c", o)}
	ids := []ps.NodeID{"a", "b", "c"}
	all := addresses(nodes)
	o.setWith(all, []ps.NodeID{"c"}, "a", "b")
	c := dial(t, o)
	for _, id := range ids[:2] {
		<-nodes[id].node.Ready()
	}
	url, _ := bucketURL(t)
	last := nothing()
	var snapshots sync.WaitGroup
	for i := range ps.Offset(events) {
		for _, a := range push(t, c, everyShard(i, i+1, 1)) {
			if a.Outcome != ps.Applied {
				t.Fatalf("push %d: %+v", i, a)
			}
		}
		switch i {
		case events / 8: // another follower from here on
			o.setWith(all, []ps.NodeID{"c", "a", "b"}, "a", "b")
		case events / 4:
			last, _ = commit(t, o, c, url, last)
		case events / 2: // both owners' shards go to the standby
			caughtUp(t, nodes["c"], i+1)
			before, err := c.Map(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			o.setWith(all, []ps.NodeID{"a", "b"}, "c")
			if _, err := c.Map(t.Context(), before.Version); err != nil {
				t.Fatal(err)
			}
			checkSums(t, c, i+1)
		case events * 3 / 4:
			wants := []checkpoint.Want{{Shard: 0}, {Shard: 5}}
			snapshots.Go(func() {
				taken, err := c.TakeSnapshots(t.Context(), "m", url, wants)
				if err != nil || slices.ContainsFunc(taken, func(t checkpoint.Taken) bool { return t.Err != nil }) {
					t.Errorf("snapshots beside copies: %+v, %v", taken, err)
				}
			})
		}
	}
	snapshots.Wait()
	checkSums(t, c, events)
	caughtUp(t, nodes["a"], events)
	moveTo(t, o, c, "a", nodes["a"].address)
	checkSums(t, c, events)
}
