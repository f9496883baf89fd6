package retrieve_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/retrieve"
)

var seed = flag.Uint64("seed", 0, "seed of the tables and queries (0: draw one)")

func random(t *testing.T) *rand.Rand {
	t.Helper()
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, 0))
}

func newTable(t *testing.T, width int) *retrieve.Table {
	t.Helper()
	table, err := retrieve.New(width)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func update(t *testing.T, table *retrieve.Table, item int, vector ...float32) {
	t.Helper()
	if err := table.Update(item, vector); err != nil {
		t.Fatalf("Update(%d, %v): %v", item, vector, err)
	}
}

func top(t *testing.T, table *retrieve.Table, k int, query ...float32) []retrieve.Hit {
	t.Helper()
	hits, err := table.Top(query, k, nil, nil)
	if err != nil {
		t.Fatalf("Top(%v, %d): %v", query, k, err)
	}
	return hits
}

func expect(t *testing.T, what string, got []retrieve.Hit, want ...retrieve.Hit) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestTopByHand(t *testing.T) {
	table := newTable(t, 2)
	update(t, table, 3, 1, 0)
	update(t, table, 0, 0, 1)
	update(t, table, 5000, -1, -1)
	update(t, table, 7, 0, 0)
	update(t, table, 1, 2, -2)
	expect(t, "the larger score comes first", top(t, table, 3, 2, 1),
		retrieve.Hit{Item: 1, Score: 2}, retrieve.Hit{Item: 3, Score: 2}, retrieve.Hit{Item: 0, Score: 1})
	expect(t, "all there are, if fewer than k", top(t, table, 100, 2, 1),
		retrieve.Hit{Item: 1, Score: 2}, retrieve.Hit{Item: 3, Score: 2}, retrieve.Hit{Item: 0, Score: 1},
		retrieve.Hit{Item: 7, Score: 0}, retrieve.Hit{Item: 5000, Score: -3})
	expect(t, "none of them", top(t, table, 0, 2, 1))

	update(t, table, 3, 1, 1)
	expect(t, "an item has the vector of its last update", top(t, table, 1, 2, 1), retrieve.Hit{Item: 3, Score: 3})
	if !table.Remove(3) {
		t.Error("Remove(3) says that it was not there")
	}
	expect(t, "a removed item is not found", top(t, table, 2, 2, 1),
		retrieve.Hit{Item: 1, Score: 2}, retrieve.Hit{Item: 0, Score: 1})
	for _, item := range []int{3, 2, 1_000_000, -1} {
		if table.Remove(item) {
			t.Errorf("Remove(%d) says that it was there", item)
		}
	}
	if got := table.Len(); got != 4 {
		t.Errorf("Len() is %d, want 4", got)
	}
	update(t, table, 3, 1, 1)
	expect(t, "a removed item may come back", top(t, table, 1, 2, 1), retrieve.Hit{Item: 3, Score: 3})
}

func TestTopAppendsToDst(t *testing.T) {
	table := newTable(t, 1)
	update(t, table, 0, 1)
	update(t, table, 1, 2)
	first := retrieve.Hit{Item: 77, Score: -5}
	for _, room := range []int{1, 2, 3, 10} {
		dst := append(make([]retrieve.Hit, 0, room), first)
		hits, err := table.Top([]float32{1}, 2, nil, dst)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, fmt.Sprintf("dst with room for %d", room), hits, first, retrieve.Hit{Item: 1, Score: 2}, retrieve.Hit{Item: 0, Score: 1})
	}
}

// reference is Top as its comment says it: everything is scored and sorted.
func reference(vectors map[int][]float32, query []float32, k int, keep func(int) bool) []retrieve.Hit {
	hits := []retrieve.Hit{}
	for item, vector := range vectors {
		if keep != nil && !keep(item) {
			continue
		}
		var score float32
		for i, x := range query {
			score += float32(x * vector[i])
		}
		hits = append(hits, retrieve.Hit{Item: item, Score: score})
	}
	slices.SortFunc(hits, func(a, b retrieve.Hit) int {
		switch {
		case a.Score != b.Score:
			return int(math.Copysign(1, float64(b.Score-a.Score)))
		default:
			return a.Item - b.Item
		}
	})
	return hits[:min(k, len(hits))]
}

// TestTopIsExact compares with the reference tables of all sorts: those of few different
// elements have many equal scores and equal vectors, and zeros.
func TestTopIsExact(t *testing.T) {
	rng := random(t)
	elements := map[string]func() float32{
		"normal":                  func() float32 { return float32(rng.NormFloat64()) },
		"few values, many ties":   func() float32 { return float32(rng.IntN(3) - 1) },
		"almost all zero":         func() float32 { return float32(rng.IntN(50) / 49) },
		"all the same":            func() float32 { return 0.1 },
		"as large as may be":      func() float32 { return float32(1-2*rng.IntN(2)) * retrieve.ElementMax },
		"too small to be normal":  func() float32 { return float32(rng.NormFloat64()) * 1e-22 },
		"of all orders":           func() float32 { return float32(rng.NormFloat64() * math.Exp(rng.Float64()*60-30)) },
		"zeros with a minus":      func() float32 { return float32(math.Copysign(0, rng.NormFloat64())) },
		"one bit apart if at all": func() float32 { return math.Float32frombits(math.Float32bits(1) + uint32(rng.IntN(2))) },
		"one sign, a wide spread": func() float32 { return -float32(rng.ExpFloat64()) },
	}
	keeps := []func(int) bool{nil, func(i int) bool { return i%3 == 0 }, func(i int) bool { return i > 2000 }, func(int) bool { return false }}
	for name, element := range elements {
		t.Run(name, func(t *testing.T) {
			for _, width := range []int{1, 2, 7, 8, 16, 31, 32, 64, 100, 256} {
				table, vectors := newTable(t, width), map[int][]float32{}
				spread := 1 + rng.IntN(5000)
				for range 1 + rng.IntN(3000) {
					item := rng.IntN(spread)
					if rng.IntN(8) == 0 {
						_, there := vectors[item]
						if got := table.Remove(item); got != there {
							t.Fatalf("Remove(%d) says %v, want %v", item, got, there)
						}
						delete(vectors, item)
						continue
					}
					vectors[item] = make([]float32, width)
					for i := range vectors[item] {
						vectors[item][i] = element()
					}
					update(t, table, item, vectors[item]...)
				}
				if table.Len() != len(vectors) {
					t.Fatalf("width %d: Len() is %d, want %d", width, table.Len(), len(vectors))
				}
				for _, keep := range keeps {
					query, k := make([]float32, width), 1+rng.IntN(1+rng.IntN(len(vectors)+2))
					for i := range query {
						query[i] = element()
					}
					got, err := table.Top(query, k, keep, nil)
					if err != nil {
						t.Fatal(err)
					}
					want := reference(vectors, query, k, keep)
					if len(got) != len(want) {
						t.Fatalf("width %d, k %d of %d: %d hits, want %d", width, k, len(vectors), len(got), len(want))
					}
					for i := range want {
						if got[i] != want[i] {
							t.Fatalf("width %d, k %d of %d: hit %d is %v, want %v", width, k, len(vectors), i, got[i], want[i])
						}
					}
				}
			}
		})
	}
}

func TestScoresOfTheLargestElementsAreFinite(t *testing.T) {
	table := newTable(t, retrieve.WidthMax)
	vector := slices.Repeat([]float32{retrieve.ElementMax}, retrieve.WidthMax)
	update(t, table, 0, vector...)
	expect(t, "2^16 products of 2^100", top(t, table, 1, vector...), retrieve.Hit{Item: 0, Score: 1 << 116})
}

func TestWhatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	beyond := math.Nextafter32(retrieve.ElementMax, inf)
	for _, width := range []int{-1, 0, retrieve.WidthMax + 1} {
		if _, err := retrieve.New(width); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("New(%d): %v, want ps.ErrInvalid", width, err)
		}
	}
	table := newTable(t, 2)
	update(t, table, 0, 1, 2)
	before := retrieve.Hit{Item: 0, Score: 3}
	for _, vector := range [][]float32{nil, {1}, {1, 2, 3}, {nan, 1}, {1, nan}, {inf, 1}, {1, -inf}, {beyond, 1}, {1, -beyond}} {
		if err := table.Update(0, vector); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("Update(0, %v): %v, want ps.ErrInvalid", vector, err)
		}
		if err := table.Update(9, vector); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("Update(9, %v): %v, want ps.ErrInvalid", vector, err)
		}
		if hits, err := table.Top(vector, 1, nil, []retrieve.Hit{before}); !errors.Is(err, ps.ErrInvalid) || len(hits) != 1 {
			t.Errorf("Top(%v): %v, %v, want dst as it was and ps.ErrInvalid", vector, hits, err)
		}
	}
	for _, item := range []int{-1, retrieve.ItemsMax, math.MaxInt, math.MinInt} {
		if err := table.Update(item, []float32{1, 2}); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("Update(%d): %v, want ps.ErrInvalid", item, err)
		}
	}
	expect(t, "after all that", top(t, table, 10, 1, 1), before)
	if got := table.Len(); got != 1 {
		t.Errorf("Len() is %d, want 1", got)
	}
}

func TestKeepMayUseTheTable(t *testing.T) {
	table := newTable(t, 1)
	for item := range 3000 {
		update(t, table, item, float32(item))
	}
	hits, err := table.Top([]float32{1}, 2, func(item int) bool {
		if item == 2999 {
			return table.Remove(item) && false
		}
		return table.Update(item, []float32{0}) == nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "scores are those of when the item was read", hits, retrieve.Hit{Item: 2998, Score: 2998}, retrieve.Hit{Item: 2997, Score: 2997})
}

// TestSearchesSeeWholeVectors updates and removes items while they are searched. All elements
// of a vector are the same whole number, so that no mix of two has a score that one has.
func TestSearchesSeeWholeVectors(t *testing.T) {
	const width, items, updates, searches = 32, 3000, 20_000, 60
	table, rng := newTable(t, width), random(t)
	query := slices.Repeat([]float32{1}, width)
	update(t, table, items, slices.Repeat([]float32{1 << 15}, width)...) // is never touched and always the best
	var group sync.WaitGroup
	for range 2 {
		updater := rand.New(rand.NewPCG(rng.Uint64(), 0))
		group.Go(func() {
			vector := make([]float32, width)
			for range updates {
				item := updater.IntN(items)
				if updater.IntN(10) == 0 {
					table.Remove(item)
					continue
				}
				x := float32(updater.IntN(1 << 10))
				for i := range vector {
					vector[i] = x
				}
				if err := table.Update(item, vector); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		group.Go(func() {
			for range searches {
				hits, err := table.Top(query, 200, nil, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if hits[0].Item != items {
					t.Errorf("the best is %v, want item %d", hits[0], items)
				}
				for i, h := range hits {
					if math.Mod(float64(h.Score), width) != 0 {
						t.Errorf("hit %d is %v: that is of no whole vector", i, h)
					}
					if i > 0 && (h.Score > hits[i-1].Score || h.Score == hits[i-1].Score && h.Item <= hits[i-1].Item) {
						t.Errorf("hit %d is %v, after %v", i, h, hits[i-1])
					}
				}
			}
		})
	}
	group.Wait()
	if got, want := len(top(t, table, items+1, query...)), table.Len(); got != want {
		t.Errorf("%d hits, Len() is %d", got, want)
	}
}

func TestTopAllocatesNothingInRoomEnough(t *testing.T) {
	table, rng := filled(t, 5000, 32)
	query, hits := normal(rng, make([]float32, 32)), make([]retrieve.Hit, 0, 100)
	if got := testing.AllocsPerRun(10, func() { table.Top(query, 100, nil, hits) }); got != 0 {
		t.Errorf("a search allocates %v times, want 0", got)
	}
	if got := testing.AllocsPerRun(10, func() { table.Update(17, query) }); got != 0 {
		t.Errorf("an update allocates %v times, want 0", got)
	}
}
