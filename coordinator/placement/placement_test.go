package placement_test

import (
	gocmp "cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// names are few, so that the living and the owners of the past often meet.
var names = []string{"a", "b", "c", "d", "e", "f", "g"}

func drawNames(t *rapid.T, label string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, len(names), rapid.ID[string]).Draw(t, label)
}

func nodeIDs(names []string) []ps.NodeID {
	ids := make([]ps.NodeID, len(names))
	for i, n := range names {
		ids[i] = ps.NodeID(n)
	}
	return ids
}

// cluster returns a cluster of nodes that are alike, in which nothing moves by itself.
func cluster(standbys int, nodes ...ps.NodeID) placement.Cluster {
	c := placement.Cluster{Standbys: standbys}
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, placement.Node{ID: n})
	}
	return c
}

func drawShards(t *rapid.T) []route.Shard {
	shards := make([]route.Shard, 1<<rapid.IntRange(0, 6).Draw(t, "log2 shards"))
	for s := range shards {
		shards[s] = route.Shard{
			Owner: ps.NodeID(rapid.SampledFrom(append([]string{""}, names...)).Draw(t, "owner")),
			Fence: ps.Fence(rapid.Uint64Range(0, 9).Draw(t, "fence")),
		}
	}
	return shards
}

func TestShards(t *testing.T) {
	t.Run("fences rise by one exactly where the owner changes, and the living keep what they have", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			current, live := drawShards(t), nodeIDs(drawNames(t, "live"))
			before := slices.Clone(current)
			next, changed := placement.Shards(current, cluster(0, live...))
			if diff := cmp.Diff(before, current); diff != "" {
				t.Fatalf("the argument was written to (-before +after):\n%s", diff)
			}
			for s := range current {
				id := ps.ShardID(s)
				moved := next[s].Owner != current[s].Owner
				if moved != slices.Contains(changed, id) {
					t.Fatalf("shard %d: %+v -> %+v with live %v: listed as changed: %v", s, current[s], next[s], live, !moved)
				}
				switch {
				case moved && next[s].Fence != current[s].Fence+1, !moved && next[s].Fence != current[s].Fence:
					t.Fatalf("shard %d: %+v -> %+v: the fence must rise by one if and only if the owner changes", s, current[s], next[s])
				case moved && slices.Contains(live, current[s].Owner):
					t.Fatalf("shard %d: taken from %q, which lives", s, current[s].Owner)
				case len(live) > 0 && !slices.Contains(live, next[s].Owner):
					t.Fatalf("shard %d: owned by %q, which does not live (live: %v)", s, next[s].Owner, live)
				case len(live) == 0 && moved:
					t.Fatalf("shard %d: moved although nobody lives", s)
				}
			}
		})
	})
	t.Run("from nothing the shards are even to within one", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			live := nodeIDs(drawNames(t, "live"))
			next, _ := placement.Shards(make([]route.Shard, 64), cluster(0, live...))
			count := make(map[ps.NodeID]int)
			for _, s := range next {
				count[s.Owner]++
			}
			for _, n := range live {
				if fair := 64 / len(live); count[n] < fair || count[n] > fair+1 {
					t.Fatalf("64 shards on %v: %v", live, count)
				}
			}
		})
	})
	t.Run("shards that must move go to who has fewest", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			current, live := drawShards(t), nodeIDs(drawNames(t, "live"))
			next, changed := placement.Shards(current, cluster(0, live...))
			// Whoever was given a shard had, before the last one, no more than anybody.
			count := make(map[ps.NodeID]int)
			for _, s := range next {
				count[s.Owner]++
			}
			for _, s := range changed {
				for _, n := range live {
					if to := next[s].Owner; count[to]-1 > count[n] {
						t.Fatalf("shard %d went to %s with %d shards in the end, while %s has %d", s, to, count[to], n, count[n])
					}
				}
			}
		})
	})
	t.Run("the order and doubles of the living do not matter", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			current, live := drawShards(t), nodeIDs(drawNames(t, "live"))
			want, _ := placement.Shards(current, cluster(0, live...))
			shuffled := append(rapid.Permutation(live).Draw(t, "order"), live...)
			got, _ := placement.Shards(current, cluster(0, shuffled...))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("live %v and %v place differently (-first +second):\n%s", live, shuffled, diff)
			}
		})
	})
}

func TestStandbys(t *testing.T) {
	var promoted int
	rapid.Check(t, func(t *rapid.T) {
		current, live := drawShards(t), nodeIDs(drawNames(t, "live"))
		number := rapid.IntRange(0, 3).Draw(t, "standbys")
		for s := range current {
			for _, n := range nodeIDs(drawNames(t, "standbys")) {
				if n != current[s].Owner {
					current[s].Standbys = append(current[s].Standbys, n)
				}
			}
		}
		next, changed := placement.Shards(current, cluster(number, live...))
		for s, was := range current {
			now := next[s]
			if len(live) == 0 {
				if !now.Equal(was) {
					t.Fatalf("shard %d: %+v -> %+v although nobody lives", s, was, now)
				}
				continue
			}
			for _, n := range now.Standbys {
				if n == now.Owner || !slices.Contains(live, n) {
					t.Fatalf("shard %d: %+v with live %v: %s cannot stand by", s, now, live, n)
				}
			}
			if want := min(number, len(live)-1); len(now.Standbys) != want || len(slices.Compact(slices.Sorted(slices.Values(now.Standbys)))) != want {
				t.Fatalf("shard %d: standbys %v with live %v, want %d of them", s, now.Standbys, live, want)
			}
			livingStandby := slices.ContainsFunc(was.Standbys, func(n ps.NodeID) bool { return slices.Contains(live, n) })
			if now.Owner != was.Owner && livingStandby {
				promoted++
				if !slices.Contains(was.Standbys, now.Owner) {
					t.Fatalf("shard %d: %+v -> %+v with live %v: a standby was passed over", s, was, now, live)
				}
			}
			for i, n := range was.Standbys {
				if i < number && slices.Contains(live, n) && n != now.Owner && !slices.Contains(now.Standbys, n) {
					t.Fatalf("shard %d: %+v -> %+v with live %v: %s has a copy and was sent away", s, was, now, live, n)
				}
			}
			if listed := slices.Contains(changed, ps.ShardID(s)); listed == now.Equal(was) {
				t.Fatalf("shard %d: %+v -> %+v: listed as changed: %v", s, was, now, listed)
			}
		}
		if again, changed := placement.Shards(next, cluster(number, live...)); len(changed) > 0 {
			t.Fatalf("planning again changes the plan: %v\n%s", changed, cmp.Diff(next, again))
		}
	})
	if promoted == 0 && !testing.Short() {
		t.Error("no standby was promoted: the test does not test")
	}
	t.Run("from nothing the copies are even to within one", func(t *testing.T) {
		next, _ := placement.Shards(make([]route.Shard, 64), cluster(2, nodeIDs(names[:5])...))
		count := make(map[ps.NodeID]int)
		for _, s := range next {
			for _, n := range s.Standbys {
				count[n]++
			}
		}
		for _, n := range nodeIDs(names[:5]) {
			if count[n] < 25 || count[n] > 26 {
				t.Errorf("128 copies on 5 nodes: %v", count)
			}
		}
	})
}

func TestPartitions(t *testing.T) {
	t.Run("everybody has an even share, with the fewest moves that takes", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.IntRange(1, 9).Draw(t, "partitions")
			current := coordinator.Assignment{Model: "m", Generation: 3, Owners: make([]string, n)}
			for p := range current.Owners {
				current.Owners[p] = rapid.SampledFrom(append([]string{""}, names...)).Draw(t, "owner")
			}
			live := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 4, rapid.ID[string]).Draw(t, "live")
			next, changed := placement.Partitions(current, live, n, nil)

			count, held, moves := make(map[string]int), make(map[string]int), 0
			for p, owner := range next.Owners {
				count[owner]++
				held[current.Owners[p]]++
				if owner != current.Owners[p] {
					moves++
				}
			}
			for _, w := range live {
				if fair := n / len(live); count[w] < fair || count[w] > fair+1 {
					t.Fatalf("%v with live %v: %v is uneven", current.Owners, live, next.Owners)
				}
			}
			if want := fewestMoves(held, live, n); moves != want {
				t.Fatalf("%v with live %v: %v takes %d moves, want %d", current.Owners, live, next.Owners, moves, want)
			}
			if next.Workers != len(count) || next.Model != "m" || next.Generation != 3 {
				t.Fatalf("%v with live %v: next is %+v", current.Owners, live, next)
			}
			if changed != (moves > 0 || next.Workers != current.Workers) {
				t.Fatalf("%+v -> %+v: changed is %v", current, next, changed)
			}

			again, changed := placement.Partitions(next, rapid.Permutation(live).Draw(t, "order"), n, nil)
			if diff := cmp.Diff(next, again); diff != "" || changed {
				t.Fatalf("planning again changes the plan (-first +second):\n%s", diff)
			}
		})
	})
	t.Run("without a living worker nothing changes", func(t *testing.T) {
		current := coordinator.Assignment{Model: "m", Generation: 2, Workers: 1, Owners: []string{"a", "a"}}
		next, changed := placement.Partitions(current, nil, 2, nil)
		if diff := cmp.Diff(current, next); diff != "" || changed {
			t.Errorf("changed %v (-current +next):\n%s", changed, diff)
		}
	})
}

// fewestMoves tries every way to hand the remainder to the living: the slow
// reference for the planner's choice.
func fewestMoves(held map[string]int, live []string, n int) int {
	even, rest := n/len(live), n%len(live)
	best := n
	for set := range 1 << len(live) {
		kept, extra := 0, 0
		for i, w := range live {
			quota := even
			if set>>i&1 == 1 {
				quota++
				extra++
			}
			kept += min(held[w], quota)
		}
		if extra == rest {
			best = min(best, n-kept)
		}
	}
	return best
}

// TestTranscript reads as the life of a small cluster.
func TestTranscript(t *testing.T) {
	var shards []route.Shard
	var assignment coordinator.Assignment
	datadriven.RunTest(t, "testdata/placement.txt", func(t *testing.T, d *datadriven.TestData) string {
		live := strings.Fields(d.Input)
		var out strings.Builder
		switch d.Cmd {
		case "cluster":
			var n int
			d.ScanArgs(t, "shards", &n)
			shards = make([]route.Shard, n)
		case "nodes":
			next, changed := placement.Shards(shards, cluster(0, nodeIDs(live)...))
			shards = next
			for s, shard := range shards {
				fmt.Fprintf(&out, "%s/%d ", gocmp.Or(string(shard.Owner), "-"), shard.Fence)
				if s%8 == 7 {
					out.WriteByte('\n')
				}
			}
			fmt.Fprintf(&out, "changed: %v\n", changed)
		case "workers":
			var n int
			d.ScanArgs(t, "partitions", &n)
			next, changed := placement.Partitions(assignment, live, n, nil)
			assignment = next
			fmt.Fprintf(&out, "%s of %d workers, changed: %v\n", strings.Join(next.Owners, " "), next.Workers, changed)
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		return out.String()
	})
}
