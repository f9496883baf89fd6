package ps

import "math/bits"

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
	found []Key   // distinct keys in order of first appearance, then room for more
	order []int32 // position in found -> position in Keys
}

// Fill makes g the group of keys over a cluster's shards (a power of two). It
// keeps no reference to keys.
func (g *Group) Fill(keys []Key, shards int) {
	g.Index = resize(g.Index, len(keys))
	// Far fewer keys are distinct than there are, so the set begins small,
	// which stays in the nearest cache, and grows when it is a quarter full.
	if len(g.cells) == 0 {
		g.cells = make([]int32, cellsMin)
		g.found = make([]Key, cellsMin/4+1)
	}
	clear(g.cells)
	count, done := g.collect(keys, 0)
	for done < len(keys) {
		g.grow(count)
		var more int
		count, more = g.collect(keys[done:], count)
		done += more
	}
	g.found = g.found[:count]
	g.orderByShard(shards)
	for i, at := range g.Index {
		g.Index[i] = g.order[at]
	}
	g.found = g.found[:cap(g.found)]
}

// cellsMin is how many cells the set has at least; they are 16 KiB.
const cellsMin = 4096

// collect puts keys into the set, which holds count, until it is a quarter full. It
// returns what the set holds then, and how many keys it took.
//
// Whether a key is new is as good as random, so that nothing here branches on it: a key
// is written behind the found ones whether or not it stays there.
func (g *Group) collect(keys []Key, count int) (int, int) {
	cells, index := g.cells, g.Index[len(g.Index)-len(keys):]
	most := len(cells) / 4
	found := g.found[:most+1]
	shift := 64 - bits.Len(uint(len(cells)-1))
	mask := uint(len(cells) - 1)
	for i, key := range keys {
		if count == most {
			return count, i
		}
		at := uint(spread(key) >> shift)
		found[count] = key
		for {
			cell := int(cells[at&mask])
			isNew := int(uint(cell-1) >> 63) // 1 if the cell is free, else 0
			position := cell - 1 + isNew*(count+1)
			cells[at&mask] = int32(position + 1)
			if found[position] == key {
				count += isNew
				index[i] = int32(position)
				break
			}
			at++
		}
	}
	return count, len(keys)
}

// spread hashes a key to the highest bits. The high bits of a key choose its shard and
// may be alike; mixing keeps keys apart that were made to share a shard.
func spread(key Key) uint64 { return (uint64(key) ^ uint64(key)>>29) * 0x9e3779b97f4a7c15 }

// grow doubles the set of count keys.
func (g *Group) grow(count int) {
	g.cells = make([]int32, 2*len(g.cells))
	g.found = append(g.found[:count], make([]Key, len(g.cells)/4+1-count)...)
	shift, mask := 64-bits.Len(uint(len(g.cells)-1)), uint(len(g.cells)-1)
	for i, key := range g.found[:count] {
		at := uint(spread(key) >> shift)
		for g.cells[at&mask] != 0 {
			at++
		}
		g.cells[at&mask] = int32(i + 1)
	}
}

// orderByShard counting-sorts found into Keys and fills Ends and order.
func (g *Group) orderByShard(shards int) {
	g.Ends = resize(g.Ends, shards)
	clear(g.Ends)
	shift := 64 - bits.TrailingZeros(uint(shards)) // as ShardOf
	for _, key := range g.found {
		g.Ends[key>>shift]++
	}
	var start int32
	for s, count := range g.Ends {
		g.Ends[s] = start // for now the shard's next free position
		start += count
	}
	g.Keys = resize(g.Keys, len(g.found))
	g.order = resize(g.order, len(g.found))
	for i, key := range g.found {
		s := key >> shift
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
