package retrieve

import (
	"fmt"
	"math"
	"slices"
)

// Hit is an item that a search found, with its score.
type Hit struct {
	Item  int
	Score float32
}

// before reports whether h comes before other: the larger score first, of equal ones the
// lower index.
func (h Hit) before(other Hit) bool {
	return h.Score > other.Score || h.Score == other.Score && h.Item < other.Item
}

// Top appends to dst the k items with the largest inner product with query, fewer if there
// are fewer, and returns it: the largest first, of equal ones the lower index first. It
// allocates only if dst has no room for k more.
//
// keep says of an item whether it may be returned; nil keeps all. It is called by the
// goroutine that called Top, with no lock held, in the order of the items, and only for those
// that would be among the k best so far: a keep that refuses almost all is called for almost
// all.
//
// A search reads all vectors once: the time is the memory's. An update during it is seen for
// an item that it has not come to and not for one that it has passed.
//
// The error wraps ps.ErrInvalid if query is not of the table's width or has an element that
// is NaN or beyond ElementMax; dst is then returned as it was.
func (t *Table) Top(query []float32, k int, keep func(item int) bool, dst []Hit) ([]Hit, error) {
	if err := t.check(query); err != nil {
		return dst, fmt.Errorf("query: %w", err)
	}
	if k <= 0 {
		return dst, nil
	}
	best := selection{hits: dst[len(dst):], k: k}
	var found scored
	for n := range t.extent() {
		s := t.segment(n)
		if s == nil {
			continue
		}
		s.score(query, best.threshold(), &found)
		found.each(func(i int, score float32) {
			item := n*segmentItems + i
			if score > best.threshold() && (keep == nil || keep(item)) {
				best.add(Hit{Item: item, Score: score})
			}
		})
	}
	slices.SortFunc(best.hits, func(a, b Hit) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	return append(dst, best.hits...), nil
}

// selection is the best hits so far: a heap with the last of them in order at the root.
type selection struct {
	hits []Hit
	k    int
}

// threshold is what the score of a further item has to be above to be selected. Items come
// by rising index, so that one of equal score comes after those that are there.
func (s *selection) threshold() float32 {
	if len(s.hits) < s.k {
		return float32(math.Inf(-1))
	}
	return s.hits[0].Score
}

// add selects a hit whose score is above the threshold.
func (s *selection) add(h Hit) {
	if len(s.hits) < s.k {
		s.hits = append(s.hits, h)
		s.rise()
		return
	}
	s.hits[0] = h
	s.sink()
}

// rise moves the last hit to its place.
func (s *selection) rise() {
	h, i := s.hits, len(s.hits)-1
	moved := h[i]
	for i > 0 && h[(i-1)/2].before(moved) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = moved
}

// sink moves the root to its place.
func (s *selection) sink() {
	h, i := s.hits, 0
	moved := h[i]
	for child := 1; child < len(h); child = 2*i + 1 {
		if other := child + 1; other < len(h) && h[child].before(h[other]) {
			child = other
		}
		if !moved.before(h[child]) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = moved
}
