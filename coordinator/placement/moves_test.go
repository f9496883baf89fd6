package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// arrive makes every target the owner, as control does when copies are whole.
func arrive(shards []route.Shard) (moved []ps.ShardID) {
	for s := range shards {
		if shard := &shards[s]; shard.Target != "" {
			*shard = route.Shard{
				Owner: shard.Target, Fence: shard.Fence + 1,
				Standbys: slices.DeleteFunc(slices.Clone(shard.Standbys), func(n ps.NodeID) bool { return n == shard.Target }),
			}
			moved = append(moved, ps.ShardID(s))
		}
	}
	return moved
}

// settle plans and lets shards arrive until nothing changes, and returns how often each
// shard has moved.
func settle(t fataler, shards []route.Shard, c placement.Cluster) (next []route.Shard, moves map[ps.ShardID]int) {
	moves = make(map[ps.ShardID]int)
	next = shards
	for round := 0; ; round++ {
		var changed []ps.ShardID
		next, changed = placement.Shards(next, c)
		moved := arrive(next)
		c.Arrived = moved
		for _, s := range moved {
			moves[s]++
		}
		if len(changed) == 0 && len(moved) == 0 {
			return next, moves
		}
		if round > 2*len(shards)+10 {
			t.Fatalf("not settled after %d rounds: shards %v still change", round, changed)
		}
	}
}

type fataler interface {
	Fatalf(format string, args ...any)
}

func owned(shards []route.Shard) map[ps.NodeID]int {
	count := make(map[ps.NodeID]int)
	for _, s := range shards {
		count[s.Owner]++
	}
	return count
}

// nodes returns n nodes that are alike.
func nodes(n int) (list []placement.Node) {
	for i := range n {
		list = append(list, placement.Node{ID: ps.NodeID(fmt.Sprintf("n%04d", i))})
	}
	return list
}

func TestWhoJoinsOrLeavesMovesNoMoreShardsThanItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "nodes")
		shards := 1 << rapid.IntRange(4, 8).Draw(t, "log2 shards")
		c := placement.Cluster{Nodes: nodes(n), Moves: rapid.IntRange(1, 8).Draw(t, "moves")}
		before, _ := settle(t, make([]route.Shard, shards), c)

		c.Nodes = nodes(n + 1)
		joined, moves := settle(t, slices.Clone(before), c)
		if most := (shards+n)/(n+1) + 1; len(moves) > most {
			t.Fatalf("%d shards have moved when node %d joined, want at most %d", len(moves), n+1, most)
		}
		for s, times := range moves {
			if times > 1 || joined[s].Owner != c.Nodes[n].ID {
				t.Fatalf("shard %d has moved %d times, to %s, though only %s has joined", s, times, joined[s].Owner, c.Nodes[n].ID)
			}
		}
		if mean := float64(shards) / float64(n+1); float64(owned(joined)[c.Nodes[n].ID]) < mean-max(0.05*mean, 2.5) {
			t.Fatalf("who joined has %d of %d shards on %d nodes", owned(joined)[c.Nodes[n].ID], shards, n+1)
		}

		// The same node is drained, and then leaves: all that it has moves, and nothing else.
		c.Nodes[n].Draining = true
		drained, moves := settle(t, slices.Clone(joined), c)
		if left := owned(drained)[c.Nodes[n].ID]; left > 0 {
			t.Fatalf("%d shards are left on a drained node", left)
		}
		for s := range moves {
			if joined[s].Owner != c.Nodes[n].ID {
				t.Fatalf("shard %d of %s has moved, though only %s is drained", s, joined[s].Owner, c.Nodes[n].ID)
			}
		}
		c.Nodes = nodes(n)
		if _, moves := settle(t, slices.Clone(drained), c); len(moves) > 0 {
			t.Fatalf("shards %v move when an empty node leaves", moves)
		}
	})
}

func TestLoadsThatWaverMoveNothingBackAndForth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		c := placement.Cluster{Nodes: nodes(rapid.IntRange(2, 8).Draw(t, "nodes")), Moves: 4}
		base := make([]float64, 64)
		for s := range base {
			base[s] = random.ExpFloat64()
		}
		c.Loads = base
		shards, _ := settle(t, make([]route.Shard, len(base)), c)
		moves := make(map[ps.ShardID]int)
		for range 100 {
			c.Loads = make([]float64, len(base))
			for s := range c.Loads {
				c.Loads[s] = base[s] * (0.9 + 0.2*random.Float64())
			}
			shards, _ = placement.Shards(shards, c)
			c.Arrived = arrive(shards)
			for _, s := range c.Arrived {
				if moves[s]++; moves[s] > 1 {
					t.Fatalf("shard %d has moved twice in 100 plans of loads that waver by a tenth", s)
				}
			}
		}
	})
}

func TestAHotShardIsLeftAloneOrMovesAlone(t *testing.T) {
	// Two nodes of 16 shards; two shards of one of them take most of the load.
	c := placement.Cluster{Nodes: nodes(2), Moves: 8}
	shards, _ := settle(t, make([]route.Shard, 32), c)
	c.Loads = make([]float64, 32)
	for s := range c.Loads {
		c.Loads[s] = 1
	}
	c.Loads[0], c.Loads[2] = 30, 30
	after, moves := settle(t, shards, c)
	if after[0].Owner == after[2].Owner {
		t.Errorf("both hot shards are at %s; moves %v", after[0].Owner, moves)
	}
	if len(moves) > 3 {
		t.Errorf("%d shards have moved, want the hot one and few others: %v", len(moves), moves)
	}
	// One shard that is more than half of everything: its node gives up others, in time.
	c.Loads[2] = 1
	c.Loads[0] = 200
	after, _ = settle(t, after, c)
	if n := owned(after)[after[0].Owner]; n > 8 {
		t.Errorf("the node of a shard with six sevenths of the load has %d of 32 shards", n)
	}
}

func TestWhatAnOperatorMovesStaysMoved(t *testing.T) {
	c := placement.Cluster{Nodes: nodes(3), Moves: 4}
	shards, _ := settle(t, make([]route.Shard, 64), c)
	from, to := shards[5].Owner, c.Nodes[0].ID
	if from == to {
		to = c.Nodes[1].ID
	}
	shards[5].Target = to
	after, moves := settle(t, shards, c)
	if after[5].Owner != to || len(moves) > 2 {
		t.Errorf("shard 5 is at %s, want %s; moves, one of which may make up for it: %v", after[5].Owner, to, moves)
	}
}

func TestAtMostSoManyShardsMoveAtOnce(t *testing.T) {
	c := placement.Cluster{Nodes: nodes(1), Moves: 3}
	shards, _ := settle(t, make([]route.Shard, 64), c)
	c.Nodes = nodes(4)
	shards[9].Target = c.Nodes[2].ID
	next, _ := placement.Shards(shards, c)
	moving := 0
	for _, s := range next {
		if s.Target != "" {
			moving++
		}
	}
	if moving != 3 || next[9].Target != c.Nodes[2].ID {
		t.Errorf("%d shards move, want 3, one of which is shard 9 to %s: %+v", moving, c.Nodes[2].ID, next)
	}
	c.Moves = 0
	if next, _ := placement.Shards(shards, c); next[9].Target == "" {
		t.Error("a move of an operator's was taken back where nothing moves by itself")
	}
	if moves := placement.Moves(shards, c); len(moves) != 47 { // 48 must, one is on its way
		t.Errorf("%d moves would even out 4 nodes of which one has all 64 shards, want 47", len(moves))
	}
}

func TestCapacityIsWhatANodeTakesNextToOthers(t *testing.T) {
	c := placement.Cluster{Nodes: nodes(3), Moves: 8}
	c.Nodes[1].Capacity = 2
	shards, _ := settle(t, make([]route.Shard, 64), c)
	if got := owned(shards); got["n0000"] != 16 || got["n0001"] != 32 || got["n0002"] != 16 {
		t.Errorf("64 shards on nodes of capacity 1, 2 and 1: %v", got)
	}
	c.Nodes[0].Capacity = 4
	shards, _ = settle(t, shards, c)
	if got := owned(shards); math.Abs(float64(got["n0000"])-64.*4/7) > 3 {
		t.Errorf("64 shards on nodes of capacity 4, 2 and 1: %v", got)
	}
}

func TestStandbysAreInOtherZones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(1, 4).Draw(t, "zones")
		c := placement.Cluster{Nodes: nodes(rapid.IntRange(4, 9).Draw(t, "nodes")), Standbys: rapid.IntRange(1, 2).Draw(t, "standbys"), Moves: 4}
		for i := range c.Nodes {
			c.Nodes[i].Zone = fmt.Sprint("z", i%zones)
		}
		shards, _ := settle(t, make([]route.Shard, 32), c)
		c.Nodes = slices.Delete(c.Nodes, 1, 2) // with its zone, if there are as many as nodes
		shards, _ = settle(t, shards, c)
		zone := make(map[ps.NodeID]string)
		all := make(map[string]bool)
		for _, n := range c.Nodes {
			zone[n.ID], all[n.Zone] = n.Zone, true
		}
		for s, shard := range shards {
			distinct := map[string]bool{zone[shard.Owner]: true}
			for _, n := range shard.Standbys {
				distinct[zone[n]] = true
			}
			if want := min(len(all), 1+c.Standbys); len(distinct) < want {
				t.Fatalf("shard %d: %s of zone %s and standbys %v are in %d zones, want %d of %d", s, shard.Owner, zone[shard.Owner], shard.Standbys, len(distinct), want, len(all))
			}
		}
	})
}

func TestADrainedNodeGetsNothingAndGivesUpItsStandbysToo(t *testing.T) {
	c := placement.Cluster{Nodes: nodes(4), Standbys: 1, Moves: 64}
	shards, _ := settle(t, make([]route.Shard, 64), c)
	c.Nodes[2].Draining = true
	shards, _ = settle(t, shards, c)
	for s, shard := range shards {
		if shard.Owner == c.Nodes[2].ID || shard.Copied(c.Nodes[2].ID) || len(shard.Standbys) != 1 {
			t.Errorf("shard %d: %+v while %s is drained", s, shard, c.Nodes[2].ID)
		}
	}
	for i := range c.Nodes {
		c.Nodes[i].Draining = true
	}
	if next, changed := placement.Shards(shards, placement.Cluster{Nodes: c.Nodes, Standbys: 1, Moves: 64}); slices.ContainsFunc(next, func(s route.Shard) bool { return s.Target != "" }) {
		t.Errorf("shards %v move while all nodes are drained", changed)
	}
}

func TestPlanningAgainChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := placement.Cluster{Standbys: rapid.IntRange(0, 2).Draw(t, "standbys"), Moves: rapid.IntRange(0, 9).Draw(t, "moves")}
		for _, name := range drawNames(t, "live") {
			c.Nodes = append(c.Nodes, placement.Node{
				ID: ps.NodeID(name), Zone: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "zone"),
				Capacity: rapid.SampledFrom([]float64{0, 1, 2.5}).Draw(t, "capacity"), Draining: rapid.IntRange(0, 4).Draw(t, "draining") == 0,
			})
		}
		current := drawShards(t)
		for s := range current {
			current[s].Target = ps.NodeID(rapid.SampledFrom(append(names, "", "", "", "", "", "", "", "", "")).Draw(t, "target"))
			for _, n := range nodeIDs(drawNames(t, "standbys")) {
				if n != current[s].Owner {
					current[s].Standbys = append(current[s].Standbys, n)
				}
			}
		}
		if rapid.Bool().Draw(t, "loads are known") {
			c.Loads = make([]float64, len(current))
			for s := range c.Loads {
				c.Loads[s] = rapid.Float64Range(0, 9).Draw(t, "load")
			}
		}
		next, _ := placement.Shards(current, c)
		for s := range next {
			lives := slices.ContainsFunc(c.Nodes, func(n placement.Node) bool { return n.ID == current[s].Owner })
			if lives && (next[s].Owner != current[s].Owner || next[s].Fence != current[s].Fence) {
				t.Fatalf("shard %d: %+v -> %+v: taken from a living owner", s, current[s], next[s])
			}
		}
		if again, changed := placement.Shards(next, c); len(changed) > 0 {
			t.Fatalf("planning again changes shards %v:\n%+v\n%+v", changed, next, again)
		}
	})
}

func TestWorkersThatLongDifferGetPartitionsByWhatTheyCanDo(t *testing.T) {
	even := coordinator.Assignment{Owners: []string{"a", "a", "a", "a", "b", "b", "b", "b", "c", "c", "c", "c"}, Workers: 3}
	shares := func(a coordinator.Assignment) map[string]int {
		count := make(map[string]int)
		for _, w := range a.Owners {
			count[w]++
		}
		return count
	}
	live := []string{"a", "b", "c"}
	if next, changed := placement.Partitions(even, live, 12, map[string]float64{"a": 1300, "b": 1000, "c": 1000}); changed {
		t.Errorf("rates that differ by less than half move partitions: %v", next.Owners)
	}
	next, changed := placement.Partitions(even, live, 12, map[string]float64{"a": 1000, "b": 2000, "c": 1000})
	if got := shares(next); !changed || got["a"] != 3 || got["b"] != 6 || got["c"] != 3 {
		t.Errorf("12 partitions for workers of which one is twice as fast: %v", got)
	}
	for p, w := range next.Owners {
		if even.Owners[p] == "b" && w != "b" {
			t.Errorf("partition %d was taken from b, which gets more", p)
		}
	}
	if again, changed := placement.Partitions(next, live, 12, map[string]float64{"a": 1000, "b": 1700, "c": 900}); changed {
		t.Errorf("another measurement moves partitions: %v", again.Owners)
	}
	if next, _ := placement.Partitions(even, live, 12, map[string]float64{"a": 1000, "b": 2000}); shares(next)["c"] != 4 {
		t.Errorf("a worker of which nothing is known is taken for average: %v", shares(next))
	}
}

// TestAThousandNodesAreEvenWithinAFewPercent lives through a large cluster's life: nodes
// join, leave and are drained, and the loads, of which few shards have most, drift.
func TestAThousandNodesAreEvenWithinAFewPercent(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this takes seconds")
	}
	const shardsN, partitions = 16_384, 4_096
	random := rand.New(rand.NewPCG(1, 2))
	c := placement.Cluster{Nodes: nodes(1000), Standbys: 1, Moves: 300}
	for i := range c.Nodes {
		c.Nodes[i].Zone = fmt.Sprint("z", i%3)
	}
	c.Loads = make([]float64, shardsN)
	for s := range c.Loads {
		c.Loads[s] = random.ExpFloat64()
	}
	var longest time.Duration
	plan := func(shards []route.Shard) ([]route.Shard, []ps.ShardID) {
		began := time.Now()
		next, changed := placement.Shards(shards, c)
		longest = max(longest, time.Since(began))
		return next, changed
	}
	shards := make([]route.Shard, shardsN)
	converge := func(what string) {
		moved := 0
		for {
			next, changed := plan(shards)
			shards = next
			c.Arrived = arrive(shards)
			moved += len(c.Arrived)
			if len(changed) == 0 && len(c.Arrived) == 0 {
				break
			}
		}
		most, least := imbalance(shards, c)
		t.Logf("%-22s %5d moves, the node with most has %.3f of the mean, with least %.3f", what, moved, most, least)
		if most > 1.05 {
			t.Errorf("%s: a node has %.3f of the mean load", what, most)
		}
	}
	converge("from nothing")
	c.Nodes = nodes(1050)
	for i := range c.Nodes {
		c.Nodes[i].Zone = fmt.Sprint("z", i%3)
	}
	converge("50 nodes join")
	for i := range 30 {
		c.Nodes[i*7].Draining = true
	}
	converge("30 nodes are drained")
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n placement.Node) bool { return n.Draining })
	c.Nodes = slices.Delete(c.Nodes, 100, 120)
	converge("20 nodes die")
	base := slices.Clone(c.Loads)
	for range 3 {
		for s := range c.Loads {
			c.Loads[s] = base[s] * math.Exp(0.2*random.NormFloat64())
		}
		converge("loads drift by a fifth")
	}
	live := make([]string, 1000)
	rates := make(map[string]float64)
	for i := range live {
		live[i] = fmt.Sprintf("w%04d", i)
		rates[live[i]] = 1000 * math.Exp(0.5*random.NormFloat64())
	}
	began := time.Now()
	a, _ := placement.Partitions(coordinator.Assignment{}, live, partitions, rates)
	longest = max(longest, time.Since(began))
	a, _ = placement.Partitions(a, live[100:], partitions, rates)
	if len(a.Owners) != partitions || a.Workers != 900 {
		t.Errorf("%d partitions on %d workers", len(a.Owners), a.Workers)
	}
	t.Logf("the longest plan took %v", longest)
	if longest > 5*time.Second { // a plan takes a fifth of a second where nothing else runs
		t.Errorf("a plan took %v", longest)
	}
}

// imbalance returns the loads of the nodes with most and with least, over the mean; a
// shard weighs half for being there and half for its load.
func imbalance(shards []route.Shard, c placement.Cluster) (most, least float64) {
	sum := 0.0
	for _, l := range c.Loads {
		sum += l
	}
	load := make(map[ps.NodeID]float64)
	for s, shard := range shards {
		load[shard.Owner] += 0.5 + 0.5*c.Loads[s]/sum*float64(len(shards))
	}
	least = math.Inf(1)
	takers := 0
	for _, n := range c.Nodes {
		if !n.Draining {
			takers++
		}
	}
	mean := float64(len(shards)) / float64(takers)
	for _, n := range c.Nodes {
		if !n.Draining {
			most, least = max(most, load[n.ID]/mean), min(least, load[n.ID]/mean)
		}
	}
	return most, least
}

func BenchmarkPlan(b *testing.B) {
	c := placement.Cluster{Nodes: nodes(1000), Standbys: 1, Moves: 100}
	shards, _ := placement.Shards(make([]route.Shard, 16_384), c)
	c.Nodes = nodes(1100)
	for b.Loop() {
		placement.Shards(shards, c)
	}
}
