package delta_test

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
)

// readLayout has three tables, of which the second has a row of state behind each weight.
func readLayout() ps.Layout {
	return ps.Layout{Tables: []ps.Table{
		{Name: "first", Kind: ps.Float32, Width: 1},
		{Name: "second", Kind: ps.Float32, Width: 2},
		{Name: "third", Kind: ps.Float32, Width: 2},
	}}
}

// stored returns a row as it is stored: key, seq, elements.
func stored(key, seq uint64, elements ...float32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, key)
	b = binary.LittleEndian.AppendUint64(b, seq)
	for _, e := range elements {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(e))
	}
	return b
}

func changed() *ps.Delta {
	return &ps.Delta{
		Since: 3, ShardProgress: ps.ShardProgress{Shard: 5, Fence: 2, Seq: 9, Rows: 10}, TableRows: []int{4, 5, 1}, Lineage: 7,
		Blocks: []ps.Block{
			{Table: 0, Stride: 20, Rows: stored(1, 4, .5)},
			{Table: 1, Stride: 32, Rows: slices.Concat(stored(2, 5, 1, -2, 100, 200), stored(3, 9, 4, 8, 300, 400))},
		},
	}
}

func TestAReaderIsSentTheWeightsOfItsTablesAndNoState(t *testing.T) {
	r := ps.Reading{Layout: 1}
	r.Tables.Add(1)
	r.Tables.Add(2)
	for e := range ps.Int8 + 1 {
		r.Encoding = e
		d := changed()
		got := delta.Read(readLayout(), r, d)
		if got.Rows != 6 || got.Since != 3 || got.Seq != 9 || got.Shard != 5 || got.Lineage != 7 || len(got.Blocks) != 1 || got.Blocks[0].Table != 1 {
			t.Fatalf("%v: got %+v: want two rows of table 1 of six stored rows, and the rest as it was", e, got)
		}
		tab := readLayout().Tables[1]
		if want := 2 * (8 + e.RowBytes(tab)); got.Bytes() != want {
			t.Errorf("%v: %d bytes of rows, want %d", e, got.Bytes(), want)
		}
		whole, err := delta.Whole(tab, e, got.Blocks[0], got.Seq)
		if err != nil {
			t.Fatal(err)
		}
		// These weights are exact in every encoding but int8, which is off by 8/253.
		want := slices.Concat(stored(2, 9, 1, -2), stored(3, 9, 4, 8))
		if whole.Stride != 24 || len(whole.Rows) != len(want) {
			t.Fatalf("%v: rows of %d bytes, %d in all: want 24 and %d", e, whole.Stride, len(whole.Rows), len(want))
		}
		for i := 0; i < len(want); i += 24 {
			if !slices.Equal(whole.Rows[i:i+16], want[i:i+16]) {
				t.Errorf("%v: key and seq %x, want %x", e, whole.Rows[i:i+16], want[i:i+16])
			}
			for k := i + 16; k < i+24; k += 4 {
				g := math.Float32frombits(binary.LittleEndian.Uint32(whole.Rows[k:]))
				w := math.Float32frombits(binary.LittleEndian.Uint32(want[k:]))
				if off := math.Abs(float64(g - w)); off > 8./253 || e != ps.Int8 && off != 0 {
					t.Errorf("%v: weight %v, want %v", e, g, w)
				}
			}
		}
		if after := changed(); !slices.Equal(after.Blocks[1].Rows, d.Blocks[1].Rows) || d.Rows != 10 {
			t.Fatalf("%v: the delta itself was changed: %+v", e, d)
		}
	}
}

func TestReadersWhoReadAlikeShareWhatTheyAreSent(t *testing.T) {
	feed := delta.NewFeed(readLayout(), 1<<20)
	r := ps.Reading{Layout: 1, Encoding: ps.Float16}
	wake := make(chan struct{}, 1)
	first, second, copying := feed.Follow(r, wake), feed.Follow(r, wake), feed.Follow(ps.Reading{}, wake)
	d := changed()
	feed.Publish(d)
	a, errA := first.Next()
	b, errB := second.Next()
	c, errC := copying.Next()
	if err := errors.Join(errA, errB, errC); err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("two readers of one reading were sent %p and %p: want the same", a, b)
	}
	if c != d {
		t.Errorf("who copies was sent %p: want the delta itself, %p", c, d)
	}
}

func TestABlockThatIsNoneOfAReadersIsRefused(t *testing.T) {
	tab := readLayout().Tables[1]
	for name, b := range map[string]ps.Block{
		"another stride": {Stride: 32, Rows: make([]byte, 32)},
		"half a row":     {Stride: 16, Rows: make([]byte, 24)},
		"a NaN":          {Stride: 16, Rows: slices.Delete(stored(1, 0, float32(math.NaN()), 1), 8, 16)},
	} {
		if _, err := delta.Whole(tab, ps.Plain, b, 1); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: %v: want %v", name, err, ps.ErrCorrupt)
		}
	}
}
