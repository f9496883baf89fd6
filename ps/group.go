package ps

// Group is a set of distinct keys ordered by shard, and where each of the keys
// it was made from went. It is made once per batch and serves the pull, the
// computation and the push. Its memory is reused by the next Fill; it has one
// owner at a time.
type Group struct {
	// Keys are distinct; within a shard they are in order of first appearance.
	Keys []Key
	// Ends has one entry per shard: shard s has Keys[Ends[s-1]:Ends[s]].
	Ends []int32
	// Index has one entry per input key: its position in Keys.
	Index []int32

	cells []int32 // open-addressing set over found: position + 1, 0 is free
	found []Key   // distinct keys in order of first appearance
	order []int32 // position in found -> position in Keys
}

// Fill makes g the group of keys over a cluster's shards (a power of two). It
// keeps no reference to keys.
func (g *Group) Fill(keys []Key, shards int) {
	capacity := 16
	for capacity < 2*len(keys) {
		capacity *= 2
	}
	if capacity > len(g.cells) {
		g.cells = make([]int32, capacity)
	} else {
		capacity = len(g.cells)
		clear(g.cells)
	}
	mask := uint64(capacity - 1)
	g.found = g.found[:0]
	g.Index = resize(g.Index, len(keys))
	for i, key := range keys {
		// The high bits of a key choose its shard, so the low ones find its cell;
		// mixing keeps keys apart that were made to share a shard.
		at := (uint64(key) ^ uint64(key)>>29) * 0x9e3779b97f4a7c15 >> 20 & mask
		for {
			cell := g.cells[at]
			if cell == 0 {
				g.found = append(g.found, key)
				g.cells[at] = int32(len(g.found))
				g.Index[i] = int32(len(g.found) - 1)
				break
			}
			if g.found[cell-1] == key {
				g.Index[i] = cell - 1
				break
			}
			at = (at + 1) & mask
		}
	}
	g.orderByShard(shards)
	for i, at := range g.Index {
		g.Index[i] = g.order[at]
	}
}

// orderByShard counting-sorts found into Keys and fills Ends and order.
func (g *Group) orderByShard(shards int) {
	g.Ends = resize(g.Ends, shards)
	clear(g.Ends)
	for _, key := range g.found {
		g.Ends[ShardOf(key, shards)]++
	}
	var start int32
	for s, count := range g.Ends {
		g.Ends[s] = start // for now the shard's next free position
		start += count
	}
	g.Keys = resize(g.Keys, len(g.found))
	g.order = resize(g.order, len(g.found))
	for i, key := range g.found {
		s := ShardOf(key, shards)
		g.Keys[g.Ends[s]] = key
		g.order[i] = g.Ends[s]
		g.Ends[s]++ // ends at the shard's end
	}
}

// Shard returns the positions [from, to) in Keys of shard s.
func (g *Group) Shard(s ShardID) (from, to int) {
	if s > 0 {
		from = int(g.Ends[s-1])
	}
	return from, int(g.Ends[s])
}

// resize returns s with length n, reusing its memory where it can. What it held
// is not kept.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}
