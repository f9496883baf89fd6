package table_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

// rows maps keys to encoded rows: those of the table whose seq is above since.
func rows(tab *table.Table, since uint64) map[ps.Key]string {
	m := make(map[ps.Key]string)
	tab.Range(func(key ps.Key, seq uint64, row []byte) bool {
		if seq > since {
			m[key] = encoded(key, seq, row)
		}
		return true
	})
	return m
}

func encoded(key ps.Key, seq uint64, row []byte) string {
	b := binary.LittleEndian.AppendUint64(nil, uint64(key))
	return string(append(binary.LittleEndian.AppendUint64(b, seq), row...))
}

// block adds the rows of a block to those read before.
func block(t interface{ Fatalf(string, ...any) }, to map[ps.Key]string, b []byte, stride int) {
	if len(b)%stride != 0 {
		t.Fatalf("block of %d bytes, no multiple of %d", len(b), stride)
	}
	for ; len(b) > 0; b = b[stride:] {
		key := ps.Key(binary.LittleEndian.Uint64(b))
		if _, ok := to[key]; ok {
			t.Fatalf("key %#x is in the snapshot twice", uint64(key))
		}
		to[key] = string(b[:stride])
	}
}

// rest reads a snapshot to its end.
func rest(t testing.TB, tab *table.Table, sn *table.Snapshot) map[ps.Key]string {
	t.Helper()
	m, dst := make(map[ps.Key]string), make([]byte, table.BlockBytes)
	for {
		b, err := sn.Read(dst)
		if errors.Is(err, io.EOF) {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		block(t, m, b, tab.Stride())
	}
}

func snapshot(t testing.TB, tab *table.Table, since, seq uint64) *table.Snapshot {
	t.Helper()
	sn, err := tab.Snapshot(since, seq)
	if err != nil {
		t.Fatal(err)
	}
	return sn
}

func TestSnapshot(t *testing.T) {
	t.Run("rows that change, are born, or do neither are as they were", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain(), Seed: 3})
		apply(t, tab, 1, []ps.Key{1, 2, 3}, 1, 1, 2, 2, 3, 3)
		want := rows(tab, 0)
		sn := snapshot(t, tab, 0, 1)
		apply(t, tab, 2, []ps.Key{2, 4, 2}, 5, 5, 5, 5, 5, 5) // a key twice in a chunk
		apply(t, tab, 3, []ps.Key{2, 4}, 5, 5, 5, 5)
		if got := rest(t, tab, sn); !maps.Equal(got, want) {
			t.Errorf("snapshot is %x\nwant %x", got, want)
		}
	})
	t.Run("an increment has the rows of its seqs only", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		for seq := range uint64(9) {
			apply(t, tab, seq+1, []ps.Key{ps.Key(seq)}, 1, 1)
		}
		want := rows(tab, 4)
		sn := snapshot(t, tab, 4, 9)
		apply(t, tab, 10, []ps.Key{0, 3, 4, 8}, make([]float32, 8)...) // keys k of seq k+1
		if got := rest(t, tab, sn); !maps.Equal(got, want) || len(want) != 5 {
			t.Errorf("snapshot is %x\nwant %x", got, want)
		}
	})
	t.Run("the first slab may be copied meanwhile", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{1, 2}, 1, 1, 2, 2)
		want := rows(tab, 0)
		sn := snapshot(t, tab, 0, 1)
		keys := make([]ps.Key, 5000)
		for i := range keys {
			keys[i] = ps.Key(i + 2)
		}
		apply(t, tab, 2, keys, make([]float32, 2*len(keys))...)
		if got := rest(t, tab, sn); !maps.Equal(got, want) {
			t.Errorf("snapshot is %x\nwant %x", got, want)
		}
	})
	t.Run("only one at a time, until it is read or closed", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{1}, 1, 1)
		sn := snapshot(t, tab, 0, 1)
		if _, err := tab.Snapshot(0, 1); !errors.Is(err, ps.ErrConflict) {
			t.Errorf("a second snapshot: %v, want ps.ErrConflict", err)
		}
		if err := tab.Load(nil, 0, 1); !errors.Is(err, ps.ErrConflict) {
			t.Errorf("load: %v, want ps.ErrConflict", err)
		}
		sn.Close()
		sn.Close()
		if _, err := sn.Read(make([]byte, table.BlockBytes)); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("read of a closed snapshot: %v, want ps.ErrInvalid", err)
		}
		second := snapshot(t, tab, 0, 1)
		rest(t, tab, second)
		if _, err := second.Read(nil); !errors.Is(err, io.EOF) {
			t.Errorf("read after the end: %v, want io.EOF", err)
		}
		third := snapshot(t, tab, 0, 1)
		second.Close() // after its end: it is not the third's
		sn.Close()
		if got := rest(t, tab, third); len(got) != 1 {
			t.Errorf("third snapshot has %d rows, want 1", len(got))
		}
	})
	t.Run("an update of the snapshot's own past is refused", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 5, []ps.Key{1}, 1, 1)
		before := dump(tab)
		snapshot(t, tab, 0, 5)
		if err := tab.Apply(ps.Rows{Keys: []ps.Key{1}, Values: make([]byte, 8)}, 5); !errors.Is(err, ps.ErrInvalid) || dump(tab) != before {
			t.Errorf("%v, table\n%swant ps.ErrInvalid and\n%s", err, dump(tab), before)
		}
	})
	t.Run("a buffer too short for a row is refused and nothing is lost", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{1}, 1, 1)
		sn := snapshot(t, tab, 0, 1)
		if _, err := sn.Read(make([]byte, 23)); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "a row has 24") {
			t.Errorf("%v, want ps.ErrInvalid that says a row has 24 bytes", err)
		}
		if got := rest(t, tab, sn); len(got) != 1 {
			t.Errorf("%d rows, want 1", len(got))
		}
	})
	t.Run("before-images are counted, and freed", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		keys := make([]ps.Key, 1000)
		for i := range keys {
			keys[i] = ps.Key(i)
		}
		apply(t, tab, 1, keys, make([]float32, 2000)...)
		size, encoded := tab.Bytes(), len(keys)*tab.Stride()
		for _, end := range []func(*table.Snapshot){(*table.Snapshot).Close, func(sn *table.Snapshot) { rest(t, tab, sn) }} {
			sn := snapshot(t, tab, 0, 1)
			for seq := range uint64(5) {
				apply(t, tab, seq+2, keys, make([]float32, 2000)...)
			}
			if got := tab.Bytes() - size; got != encoded {
				t.Errorf("%d bytes of before-images, want %d", got, encoded)
			}
			end(sn)
			if got := tab.Bytes() - size; got != 0 {
				t.Errorf("%d bytes of before-images after the end, want none", got)
			}
			apply(t, tab, 1, keys, make([]float32, 2000)...)
		}
	})
}

// TestSnapshotAmongUpdates reads snapshots, full or not, in steps of any size
// between updates of any kind, and loads them one after the other into a second
// table.
func TestSnapshotAmongUpdates(t *testing.T) {
	steps, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		desc := ps.Table{
			Name: "item", Kind: ps.Float32,
			Width:       rapid.SampledFrom([]int{1, 3, 500}).Draw(t, "width"), // 500: several slabs
			Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.5},
			Optimizer: rapid.SampledFrom([]ps.Optimizer{
				{Name: ps.SGD, LearningRate: 0.5},
				{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 1},
				{Name: ps.FTRL, LearningRate: 0.5, Beta: 1, L1: 0.1},
			}).Draw(t, "optimizer"),
		}
		tab, err := table.New(table.Config{Table: desc, Seed: 9})
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := table.New(table.Config{Table: desc, Seed: 9})
		if err != nil {
			t.Fatal(err)
		}
		var (
			seq, since, at uint64 // at: the boundary of sn, since: of the last that was loaded
			sn             *table.Snapshot
			want, got      map[ps.Key]string
			all            map[ps.Key]string
		)
		read := func(t *rapid.T, dst []byte) bool {
			steps++
			b, err := sn.Read(dst)
			if errors.Is(err, io.EOF) {
				sn = nil
				if !maps.Equal(got, want) {
					t.Fatalf("snapshot has %d rows that differ from the %d at the boundary", len(got), len(want))
				}
				if !maps.Equal(rows(loaded, 0), all) {
					t.Fatalf("the loaded table differs from the one at the boundary of seq %d", at)
				}
				since = at
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			block(t, got, b, tab.Stride())
			shifted := append([]byte{0}, b...)[1:] // loading needs no alignment
			if err := loaded.Load(shifted, since, at); err != nil {
				t.Fatal(err)
			}
			return true
		}
		keys := rapid.SliceOfN(rapid.Map(rapid.Uint64Range(0, 150), func(i uint64) ps.Key { return ps.Key(0x42<<56 | i) }), 0, 150)
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				seq++
				batch := keys.Draw(t, "keys")
				grads := make([]float32, len(batch)*desc.Width)
				for i := range grads {
					grads[i] = float32(int64(ps.Mix(seq<<32+uint64(i)))) * 0x1p-62
				}
				size := tab.Bytes()
				if err := tab.Apply(ps.Rows{Keys: batch, Values: ps.Bytes(grads)}, seq); err != nil {
					t.Fatal(err)
				}
				if sn != nil && tab.Bytes() > size {
					kept++
				}
			},
			"snapshot": func(t *rapid.T) {
				if sn != nil {
					return
				}
				at = seq
				all, want, got = rows(tab, 0), rows(tab, since), map[ps.Key]string{}
				if sn, err = tab.Snapshot(since, at); err != nil {
					t.Fatal(err)
				}
			},
			"read": func(t *rapid.T) {
				for range rapid.IntRange(1, 4).Draw(t, "reads") {
					if sn == nil || !read(t, make([]byte, tab.Stride()*rapid.SampledFrom([]int{1, 5, 40}).Draw(t, "rows")+1)) {
						return
					}
				}
			},
			"": func(t *rapid.T) {
				if err := errors.Join(tab.Valid(), loaded.Valid()); err != nil {
					t.Fatal(err)
				}
			},
		})
		for dst := make([]byte, table.BlockBytes); sn != nil && read(t, dst); {
		}
	})
	t.Logf("%d reads, %d updates saved before-images", steps, kept)
	if kept == 0 {
		t.Error("no before-image was saved: the test does not test")
	}
}

func TestLoadRefuses(t *testing.T) {
	row := func(key ps.Key, seq uint64, values ...float32) []byte {
		return []byte(encoded(key, seq, ps.Bytes(values)))
	}
	nan := float32(math.NaN())
	for _, test := range []struct {
		name string
		rows []byte
		want error
		says string
	}{
		{"part of a row", row(1, 5, 1, 2)[:23], ps.ErrCorrupt, "23 bytes of rows: want a multiple of 24"},
		{"a seq of the snapshot before", row(0xa, 3, 1, 2), ps.ErrCorrupt, "key 0x000000000000000a has seq 3: want more than 3, at most 6"},
		{"a seq beyond the boundary", row(0xa, 7, 1, 2), ps.ErrCorrupt, "has seq 7"},
		{"a key twice", append(row(7, 5, 1, 2), row(7, 4, 1, 2)...), ps.ErrCorrupt, "key 0x0000000000000007 is there twice, with seq 5 and 4"},
		{"a weight that is no number", row(7, 5, 1, nan), ps.ErrCorrupt, "key 0x0000000000000007: row is not finite"},
		{"an infinite weight of a row that is there", row(1, 5, float32(math.Inf(-1)), 1), ps.ErrCorrupt, "row is not finite"},
		{"more rows than the limit", append(row(7, 5, 1, 2), row(8, 5, 1, 2)...), ps.ErrOutOfMemory, "more than 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tab := open(t, table.Config{Table: plain(), RowsMax: 2})
			if err := tab.Load(row(1, 3, 1, 2), 0, 3); err != nil {
				t.Fatal(err)
			}
			if err := tab.Load(test.rows, 3, 6); !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v\nwant %v that says %q", err, test.want, test.says)
			}
		})
	}
	t.Run("what is good is taken, within the limit", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain(), RowsMax: 2})
		if err := errors.Join(tab.Load(row(1, 3, 1, 2), 0, 3), tab.Load(append(row(1, 4, 3, 4), row(2, 6, 5, 6)...), 3, 6)); err != nil {
			t.Fatal(err)
		}
		want := "0x0000000000000001 seq 4: 0000404000008040\n0x0000000000000002 seq 6: 0000a0400000c040\n"
		if got := dump(tab); got != want || tab.Valid() != nil {
			t.Errorf("table is\n%swant\n%s", got, want)
		}
	})
}

func TestSnapshotsCostNothingAfterwards(t *testing.T) {
	tab := open(t, table.Config{Table: plain()})
	keys := make([]ps.Key, 2000)
	for i := range keys {
		keys[i] = ps.Key(i)
	}
	values := make([]byte, len(keys)*8)
	seq := uint64(1)
	update := func() {
		if err := tab.Apply(ps.Rows{Keys: keys, Values: values}, seq); err != nil {
			t.Fatal(err)
		}
		seq++
	}
	update()
	sn := snapshot(t, tab, 0, seq-1)
	update() // the only one that saves rows
	if n := testing.AllocsPerRun(10, update); n != 0 {
		t.Errorf("an update whose rows are saved already: %v allocations, want none", n)
	}
	sn.Close()
	if n := testing.AllocsPerRun(10, update); n != 0 {
		t.Errorf("an update after a snapshot: %v allocations, want none", n)
	}
	sn = snapshot(t, tab, 0, seq-1)
	dst := make([]byte, 10*tab.Stride())
	if n := testing.AllocsPerRun(100, func() {
		if b, err := sn.Read(dst); err != nil || len(b) != len(dst) {
			t.Fatal(len(b), err)
		}
	}); n != 0 {
		t.Errorf("a read: %v allocations, want none", n)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	const rows, width = 1_000_000, 16
	t, _ := filled(b, embedding(ps.AdaGrad, width), rows, 64)
	dst := make([]byte, table.BlockBytes)
	read := func(b *testing.B, since uint64) int {
		sn, err := t.Snapshot(since, 1)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			got, err := sn.Read(dst)
			if errors.Is(err, io.EOF) {
				return n
			}
			if err != nil {
				b.Fatal(err)
			}
			n += len(got)
		}
	}
	b.Run(fmt.Sprintf("full/rows=%d/width=%d", rows, width), func(b *testing.B) {
		n := 0
		for b.Loop() {
			n += read(b, 0)
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e9, "GB/s")
	})
	b.Run(fmt.Sprintf("unchanged/rows=%d/width=%d", rows, width), func(b *testing.B) {
		for b.Loop() {
			read(b, 1)
		}
		b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
	})
}

func BenchmarkLoad(b *testing.B) {
	const rows, width = 1_000_000, 16
	b.Run(fmt.Sprintf("rows=%d/width=%d", rows, width), func(b *testing.B) {
		from, _ := filled(b, embedding(ps.AdaGrad, width), rows, 64)
		sn, err := from.Snapshot(0, 1)
		if err != nil {
			b.Fatal(err)
		}
		var blocks [][]byte
		for {
			block, err := sn.Read(make([]byte, table.BlockBytes))
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			blocks = append(blocks, block)
		}
		for b.Loop() {
			t, err := table.New(table.Config{Table: embedding(ps.AdaGrad, width)})
			if err != nil {
				b.Fatal(err)
			}
			for _, block := range blocks {
				if err := t.Load(block, 0, 1); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
	})
}
