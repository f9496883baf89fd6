package retrieve

import (
	"math/bits"
	"sync"
)

const (
	// lanes is the number of items side by side, a group: two vectors of AVX2.
	lanes = 16
	// segmentItems is the number of items under one lock: enough that taking it costs
	// nothing beside reading them, few enough that who waits for it does not wait long.
	segmentItems = 1024
	groups       = segmentItems / lanes
)

// segment is segmentItems items, some of which may not be there.
type segment struct {
	mu sync.RWMutex
	// vectors is (groups, width, lanes): element e of item i is at
	// (i/lanes*width + e)*lanes + i%lanes.
	vectors []float32
	// present has a bit for each item of a group that is there. The elements of others
	// are what they last were, which is as finite as any.
	present [groups]uint16
}

// put reports whether the item was not there before.
func (s *segment) put(i int, vector []float32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.vectors[i/lanes*len(vector)*lanes+i%lanes:]
	for e, x := range vector {
		to[e*lanes] = x
	}
	return s.mark(i, true)
}

// remove reports whether the item was there.
func (s *segment) remove(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark(i, false)
}

// mark reports whether that is a change.
func (s *segment) mark(i int, present bool) bool {
	group, bit := &s.present[i/lanes], uint16(1)<<(i%lanes)
	if (*group&bit != 0) == present {
		return false
	}
	*group ^= bit
	return true
}

// scored is what a search knows of a segment's items.
type scored struct {
	scores [segmentItems]float32
	// above has a bit for each item of a group whose score is above the threshold.
	above [groups]uint16
}

// score scores all items, and marks those that are there and whose score is above the
// threshold.
func (s *segment) score(query []float32, threshold float32, to *scored) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !scoreWide(s.vectors, query, threshold, to) {
		scorePlain(s.vectors, query, threshold, to)
	}
	for g, present := range &s.present {
		to.above[g] &= present
	}
}

// scorePlain is what scoreWide has to equal, to the last bit.
func scorePlain(vectors, query []float32, threshold float32, to *scored) {
	for g := range to.above {
		scores := to.scores[g*lanes:][:lanes]
		clear(scores)
		for _, x := range query {
			for i, y := range vectors[:lanes] {
				scores[i] += float32(x * y) // not in one with the sum: that would round once
			}
			vectors = vectors[lanes:]
		}
		var above uint16
		for i, score := range scores {
			if score > threshold {
				above |= 1 << i
			}
		}
		to.above[g] = above
	}
}

// each calls f with the index and the score of each item above the threshold, in order.
func (r *scored) each(f func(i int, score float32)) {
	for g, above := range &r.above {
		for ; above != 0; above &= above - 1 {
			i := g*lanes + bits.TrailingZeros16(above)
			f(i, r.scores[i])
		}
	}
}
