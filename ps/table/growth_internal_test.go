package table

import (
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

func embeddingOf(width int, o ps.Optimizer) ps.Table {
	return ps.Table{Name: "item", Kind: ps.Float32, Width: width, Optimizer: o, Initializer: ps.Initializer{Name: ps.Zero}}
}

// TestGrowthMovesFewCellsAtATime counts the work that growth adds to a push, at
// sizes where an index that grew as a whole would move all of its cells.
func TestGrowthMovesFewCellsAtATime(t *testing.T) {
	for _, push := range []struct{ keys, segments int }{{64, 4}, {4096, 40}} {
		tab, err := New(Config{Table: embeddingOf(1, ps.Optimizer{Name: ps.SGD, LearningRate: 1})})
		if err != nil {
			t.Fatal(err)
		}
		const rows = 1 << 20
		keys, values := make([]ps.Key, push.keys), make([]byte, 4*push.keys)
		worst, at := 0, 0
		for n := 0; n < rows; n += push.keys {
			for i := range keys {
				keys[i] = ps.Key(0x5a<<56 | uint64(n+i))
			}
			before := tab.index.moved
			if err := tab.Apply(ps.Rows{Keys: keys, Values: values}, 1); err != nil {
				t.Fatal(err)
			}
			if moved := tab.index.moved - before; moved > worst {
				worst, at = moved, n
			}
		}
		if err := tab.Valid(); err != nil {
			t.Fatal(err)
		}
		t.Logf("pushes of %d new keys move at most %d cells, at %d rows; in all %d, in %d entries of the directory",
			push.keys, worst, at, tab.index.moved, len(tab.index.directory))
		if most := push.segments * segmentCells; worst > most {
			t.Errorf("a push of %d keys moves %d cells at %d rows, want at most %d", push.keys, worst, at, most)
		}
		if tab.index.moved > 3*rows {
			t.Errorf("%d cells moved for %d rows, want at most three each", tab.index.moved, rows)
		}
	}
}

// TestKeysMadeToCollideDoNotGrowTheDirectory stores more keys than a segment has
// cells that agree in all bits by which segments are told apart.
func TestKeysMadeToCollideDoNotGrowTheDirectory(t *testing.T) {
	tab, err := New(Config{Table: embeddingOf(1, ps.Optimizer{Name: ps.SGD, LearningRate: 1})})
	if err != nil {
		t.Fatal(err)
	}
	var keys []ps.Key
	for i := uint64(1); len(keys) < segmentCells; i++ {
		// Positions are spread, so that only the directory's bits collide.
		keys = append(keys, unmix(i<<32|i&(segmentCells-1)))
	}
	if err := tab.Apply(ps.Rows{Keys: keys, Values: make([]byte, 4*len(keys))}, 1); err != nil {
		t.Fatal(err)
	}
	if err := tab.Valid(); err != nil {
		t.Fatal(err)
	}
	if got := len(tab.index.directory); got > 64 {
		t.Errorf("%d keys that collide make a directory of %d entries, want at most 64", len(keys), got)
	}
}

// unmix is the inverse of ps.Mix.
func unmix(x uint64) ps.Key {
	unshift := func(x uint64, n uint) uint64 {
		y := x
		for range 64 / n {
			y = x ^ y>>n
		}
		return y
	}
	inverse := func(a uint64) uint64 { // modulo 2^64, by Newton's method
		b := a
		for range 6 {
			b *= 2 - a*b
		}
		return b
	}
	x = unshift(x, 31) * inverse(0x94d049bb133111eb)
	x = unshift(x, 27) * inverse(0xbf58476d1ce4e5b9)
	return ps.Key(unshift(x, 30) - 0x9e3779b97f4a7c15)
}
