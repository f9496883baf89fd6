package table_test

import (
	"errors"
	"io"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
)

func seqs(tab *table.Table) map[ps.Key]uint64 {
	m := make(map[ps.Key]uint64)
	tab.Range(func(key ps.Key, seq uint64, _ []byte) bool { m[key] = seq; return true })
	return m
}

// read returns the keys of what is left of a snapshot, and its rows.
func read(t *testing.T, sn *table.Snapshot, stride int) (map[ps.Key]bool, []byte) {
	t.Helper()
	keys, all := make(map[ps.Key]bool), []byte(nil)
	for {
		rows, err := sn.Read(make([]byte, table.BlockBytes))
		if errors.Is(err, io.EOF) {
			return keys, all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rows...)
		for ; len(rows) > 0; rows = rows[stride:] {
			keys[ps.View[ps.Key](rows[:8])[0]] = true
		}
	}
}

const late = 1<<40 + 5 // a seq far beyond what 4 bytes tell apart from 1

func TestARowIsNeverOlderThanItsLastChange(t *testing.T) {
	t.Run("a seq far ahead clamps old rows up and leaves newer ones exact", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{1, 2}, 1, 1, 1, 1)
		apply(t, tab, late, []ps.Key{2}, 1, 1)
		apply(t, tab, late+1<<30, []ps.Key{3}, 1, 1)
		got := seqs(tab)
		if got[1] < 1 || got[1] >= late || got[2] != late || got[3] != late+1<<30 {
			t.Errorf("seqs %v, want key 1 from 1 up to below %d, key 2 at that, key 3 at %d", got, uint64(late), uint64(late+1<<30))
		}
		sn, err := tab.Snapshot(late-1, late+1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if keys, _ := read(t, sn, tab.Stride()); len(keys) != 2 || !keys[2] || !keys[3] {
			t.Errorf("increment has keys %v, want 2 and 3", keys)
		}
	})
	t.Run("a snapshot under way keeps its rows", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{1, 2}, 1, 1, 1, 1)
		sn, err := tab.Snapshot(0, 1<<31)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, tab, 1<<32+7, []ps.Key{2}, 1, 1)
		if err := tab.Apply(ps.Rows{Keys: []ps.Key{2}, Values: make([]byte, 8)}, late); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("update of a seq that the snapshot is too old for: %v, want ps.ErrInvalid", err)
		}
		if keys, _ := read(t, sn, tab.Stride()); len(keys) != 2 {
			t.Errorf("snapshot has keys %v, want 1 and 2", keys)
		}
	})
	t.Run("rows of a chain with large seqs are loaded", func(t *testing.T) {
		tab, loaded := open(t, table.Config{Table: plain()}), open(t, table.Config{Table: plain()})
		since := uint64(0)
		for _, seq := range []uint64{3, late, late + 1<<33} {
			apply(t, tab, seq, []ps.Key{1, ps.Key(seq)}, 1, 1, 1, 1)
			sn, err := tab.Snapshot(since, seq)
			if err != nil {
				t.Fatal(err)
			}
			_, rows := read(t, sn, tab.Stride())
			if err := loaded.Load(rows, since, seq); err != nil {
				t.Fatal(err)
			}
			if err := loaded.Load(rows, since, seq); !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("the rows of seq %d loaded twice: %v, want ps.ErrCorrupt", seq, err)
			}
			since = seq
		}
		if got, want := dump(loaded), dump(tab); got != want {
			t.Errorf("loaded\n%swant\n%s", got, want)
		}
	})
}
