// Package placement plans who should do what: which node owns which shard, and
// which worker reads which partition. It is pure and deterministic: the same input
// gives the same plan, in whatever order the living are listed. It does not decide
// when to plan, and changes nothing.
//
// The one idea to keep in mind: moving a shard costs its rows, moving a partition
// costs a replay of a few batches. So a shard stays with its owner for as long as
// that one lives, and balance is looked for only among the shards that must move;
// partitions are kept even at all times, with as few moves as that takes.
//
// Invariants: a fence never falls, and rises exactly where the owner changes;
// neither argument is written to.
package placement

import (
	"slices"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// Shards returns the shard map that should follow current while the nodes of live
// are the living, and the shards that differ, ascending. live may be in any order.
//
// A shard whose owner lives stays where it is. Every other one goes to the living
// node with the fewest shards, of several the one whose ID sorts first; a map
// placed from nothing is therefore even to within one shard. Without a living node
// nothing changes: a dead owner stays in the map, where nobody can reach it, until
// there is one to follow it, since a fence raised for no owner would say nothing.
func Shards(current []route.Shard, live []ps.NodeID) (next []route.Shard, changed []ps.ShardID) {
	next = slices.Clone(current)
	nodes := ordered(live)
	if len(nodes) == 0 {
		return next, nil
	}
	held := make([]int, len(nodes))
	for s, shard := range current {
		if i, found := slices.BinarySearch(nodes, shard.Owner); found {
			held[i]++
		} else {
			changed = append(changed, ps.ShardID(s))
		}
	}
	for _, s := range changed {
		to := fewest(held)
		held[to]++
		next[s] = route.Shard{Owner: nodes[to], Fence: current[s].Fence + 1}
	}
	return next, changed
}

// Partitions returns the assignment that should follow current while the workers of
// live are the living, for a stream of the given number of partitions, and whether
// it differs. live may be in any order. The generation is current's: it is raised by
// who stores the assignment.
//
// Every living worker gets its even share, to within one partition, and of all such
// assignments this is one that takes the fewest partitions from living workers.
// Without a living worker nothing changes.
func Partitions(current coordinator.Assignment, live []string, partitions int) (next coordinator.Assignment, changed bool) {
	next = current
	workers := ordered(live)
	if len(workers) == 0 {
		next.Owners = slices.Clone(current.Owners)
		return next, false
	}
	next.Owners = make([]string, partitions)
	copy(next.Owners, current.Owners)
	share(next.Owners, workers)
	next.Workers = min(partitions, len(workers)) // an even share leaves nobody out
	return next, next.Workers != current.Workers || !slices.Equal(next.Owners, current.Owners)
}

// share changes owners as little as an even share for each of workers allows.
// workers are ascending, distinct and at least one.
func share(owners, workers []string) {
	held := make([]int, len(workers))
	for _, owner := range owners {
		if i, found := slices.BinarySearch(workers, owner); found {
			held[i]++
		}
	}
	quota := quotas(held, len(owners))
	kept := make([]int, len(workers))
	var free []int
	for p, owner := range owners {
		i, found := slices.BinarySearch(workers, owner)
		if found && kept[i] < quota[i] {
			kept[i]++
		} else {
			free = append(free, p)
		}
	}
	// The quotas add up to len(owners), so somebody below theirs is always left.
	for _, p := range free {
		to := -1
		for i := range workers {
			if kept[i] < quota[i] && (to < 0 || kept[i] < kept[to]) {
				to = i
			}
		}
		kept[to]++
		owners[p] = workers[to]
	}
}

// quotas divides n partitions evenly. The remainder goes, one each, to the workers
// that hold more than the even part already, since they can keep it.
func quotas(held []int, n int) []int {
	quota := make([]int, len(held))
	for i := range quota {
		quota[i] = n / len(held)
	}
	most := make([]int, len(held))
	for i := range most {
		most[i] = i
	}
	slices.SortStableFunc(most, func(a, b int) int { return held[b] - held[a] })
	for _, i := range most[:n%len(held)] {
		quota[i]++
	}
	return quota
}

// fewest returns the position of the smallest count, of several the first.
func fewest(counts []int) int {
	at := 0
	for i, n := range counts {
		if n < counts[at] {
			at = i
		}
	}
	return at
}

// ordered returns s sorted and without doubles or the empty name, which means
// "nobody" in maps and assignments.
func ordered[T ~string](s []T) []T {
	s = slices.Clone(s)
	slices.Sort(s)
	s = slices.Compact(s)
	if len(s) > 0 && s[0] == "" {
		s = s[1:]
	}
	return s
}
