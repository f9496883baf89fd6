// Package placement plans who should do what: which node owns which shard, and
// which worker reads which partition. It is pure and deterministic: the same input
// gives the same plan, in whatever order the living are listed. It does not decide
// when to plan, and changes nothing.
//
// The one idea to keep in mind: moving a shard costs a copy of its rows, moving a
// partition costs a replay of a few batches. So a shard stays with its owner until the
// nodes are clearly uneven, and then as few move as that takes; partitions are kept even
// at all times.
//
// Invariants: a fence never falls, and rises exactly where the owner changes; a living
// owner is never replaced here; planning again from a plan changes nothing; no argument
// is written to.
package placement

import "slices"

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
