package placement

import (
	"slices"

	"github.com/freshet-ml/freshet/coordinator"
)

// When workers get uneven shares: the slowest does less than the fastest by this factor,
// and with the shares they have, the one that is busiest has so much more to do than it
// would have with those they should have.
const (
	unevenRates  = 1.5
	unevenShares = 1.25
)

// Partitions returns the assignment that should follow current while the workers of
// live are the living, for a stream of the given number of partitions, and whether
// it differs. live may be in any order. The generation is current's: it is raised by
// who stores the assignment.
//
// rates is what workers can do, in events a second, by ID; one that is not in it is taken
// for average. Unless they have long differed much, every living worker gets its even
// share, to within one partition, else one by its rate and at least one; of all such
// assignments this is one that takes the fewest partitions from living workers.
// Without a living worker nothing changes.
func Partitions(current coordinator.Assignment, live []string, partitions int, rates map[string]float64) (next coordinator.Assignment, changed bool) {
	next = current
	workers := ordered(live)
	if len(workers) == 0 {
		next.Owners = slices.Clone(current.Owners)
		return next, false
	}
	next.Owners = make([]string, partitions)
	copy(next.Owners, current.Owners)
	held := make([]int, len(workers))
	nobodys := len(next.Owners)
	for _, owner := range next.Owners {
		if i, found := slices.BinarySearch(workers, owner); found {
			held[i]++
			nobodys--
		}
	}
	quota := quotas(held, partitions)
	if speeds := speedsOf(workers, rates); partitions >= len(workers) && slices.Max(speeds) > unevenRates*slices.Min(speeds) {
		quota = proportional(speeds, partitions)
		if nobodys == 0 && slices.Min(held) > 0 && busiest(held, speeds) <= unevenShares*busiest(quota, speeds) {
			quota = held // near enough: what was measured is not worth a move
		}
	}
	share(next.Owners, workers, quota)
	next.Workers = min(partitions, len(workers)) // nobody's share is nothing, while there is enough
	return next, next.Workers != current.Workers || !slices.Equal(next.Owners, current.Owners)
}

// speedsOf returns the rates of workers, in their order.
func speedsOf(workers []string, rates map[string]float64) []float64 {
	sum, known := 0.0, 0
	for _, w := range workers {
		if rates[w] > 0 {
			sum, known = sum+rates[w], known+1
		}
	}
	speeds := make([]float64, len(workers))
	for i, w := range workers {
		switch {
		case rates[w] > 0:
			speeds[i] = rates[w]
		case known > 0:
			speeds[i] = sum / float64(known)
		default:
			speeds[i] = 1
		}
	}
	return speeds
}

// busiest returns how long the worker takes that takes longest for what it holds.
func busiest(held []int, speeds []float64) (longest float64) {
	for i, n := range held {
		longest = max(longest, float64(n)/speeds[i])
	}
	return longest
}

// proportional divides n partitions by speed, at least one for each: one after the other
// goes to who will be through with it first.
func proportional(speeds []float64, n int) []int {
	quota := make([]int, len(speeds))
	for i := range quota {
		quota[i] = 1
	}
	for range n - len(speeds) {
		to := 0
		for i := range quota {
			if float64(quota[i]+1)/speeds[i] < float64(quota[to]+1)/speeds[to] {
				to = i
			}
		}
		quota[to]++
	}
	return quota
}

// share changes owners as little as a quota for each of workers allows. workers are
// ascending, distinct and at least one; the quotas add up to len(owners).
func share(owners, workers []string, quota []int) {
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
