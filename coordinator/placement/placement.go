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
// are the living and every shard should have the given number of standbys, and the
// shards that differ, ascending. live may be in any order.
//
// A shard whose owner lives stays where it is. Every other one goes to a living standby
// of its own, for that has a copy, of several the one with the fewest shards; if it has
// none, to the living node with the fewest shards, of several the one whose ID sorts
// first. A map placed from nothing is therefore even to within one shard. Without a
// living node nothing changes: a dead owner stays in the map, where nobody can reach
// it, until there is one to follow it, since a fence raised for no owner would say
// nothing.
//
// Living standbys stay, too, as far as the number allows; what is missing is filled up
// with the nodes that stand by for the fewest shards.
func place(current []route.Shard, live []ps.NodeID, standbys int) (next []route.Shard, changed []ps.ShardID) {
	next = slices.Clone(current)
	nodes := ordered(live)
	if len(nodes) == 0 {
		return next, nil
	}
	place := func(n ps.NodeID) int {
		if i, found := slices.BinarySearch(nodes, n); found {
			return i
		}
		return -1
	}
	held, copies := make([]int, len(nodes)), make([]int, len(nodes))
	for _, shard := range current {
		if i := place(shard.Owner); i >= 0 {
			held[i]++
		}
		for _, n := range shard.Standbys {
			if i := place(n); i >= 0 {
				copies[i]++
			}
		}
	}
	for s, shard := range current {
		if place(shard.Owner) >= 0 {
			continue
		}
		to := fewest(held, func(i int) bool { return slices.Contains(shard.Standbys, nodes[i]) })
		if to < 0 {
			to = fewest(held, func(int) bool { return true })
		}
		held[to]++
		next[s] = route.Shard{Owner: nodes[to], Fence: shard.Fence + 1, Standbys: shard.Standbys}
	}
	for s := range next {
		next[s].Standbys = standing(next[s], nodes, copies, standbys)
		if !next[s].Equal(current[s]) {
			changed = append(changed, ps.ShardID(s))
		}
	}
	return next, changed
}

// standing returns the standbys that a shard should have, and counts them in copies.
func standing(shard route.Shard, nodes []ps.NodeID, copies []int, number int) (chosen []ps.NodeID) {
	for _, n := range shard.Standbys {
		i, lives := slices.BinarySearch(nodes, n)
		switch {
		case !lives:
		case n == shard.Owner || len(chosen) == number:
			copies[i]--
		default:
			chosen = append(chosen, n)
		}
	}
	for len(chosen) < number {
		i := fewest(copies, func(i int) bool { return nodes[i] != shard.Owner && !slices.Contains(chosen, nodes[i]) })
		if i < 0 {
			break // more are wanted than there are
		}
		copies[i]++
		chosen = append(chosen, nodes[i])
	}
	return chosen
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

// fewest returns the position of the smallest count that qualifies, of several the
// first, or -1 if none does.
func fewest(counts []int, qualifies func(i int) bool) int {
	at := -1
	for i, n := range counts {
		if qualifies(i) && (at < 0 || n < counts[at]) {
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
