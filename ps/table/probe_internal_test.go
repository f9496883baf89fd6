package table

import (
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// TestVectorsFollowThePathsOfThePlainForm looks up stored and absent keys in indexes
// from their first row on, some with lines that overflow.
func TestVectorsFollowThePathsOfThePlainForm(t *testing.T) {
	if !vectors {
		t.Skip("no vectors in this build or processor")
	}
	for name, key := range map[string]func(uint64) ps.Key{
		"mixed":      func(i uint64) ps.Key { return ps.Key(i) },
		"full lines": func(i uint64) ps.Key { return unmix(ps.Mix(i)&^0xfffff | i%256) },
	} {
		tab, err := New(Config{Table: embeddingOf(1, ps.Optimizer{Name: ps.SGD, LearningRate: 1})})
		if err != nil {
			t.Fatal(err)
		}
		left := 0 // paths that leave their line
		for n, next := uint64(0), uint64(1); n < 4_000; n, next = next, next+next/3+1 {
			var keys []ps.Key
			for i := n; i < next; i++ {
				keys = append(keys, key(i))
			}
			if err := tab.Apply(ps.Rows{Keys: keys, Values: make([]byte, 4*len(keys))}, 1); err != nil {
				t.Fatal(err)
			}
			var hashes []uint64
			for i := range 2 * next {
				hashes = append(hashes, ps.Mix(uint64(key(i))))
			}
			got := make([]uint32, len(hashes))
			tab.index.probeVectors(hashes, got)
			for i, hash := range hashes {
				s := tab.index.segment(hash)
				want := s.probe(hash)
				_, at := s.find(key(uint64(i)), hash, &tab.rows)
				if at/lineCells != uint32(hash)&s.mask/lineCells {
					left++
				}
				// Another key's cell with the tag may be found as well, or instead.
				if got[i] != want && (got[i] == 0 || s.tag(ps.Mix(tab.rows.key(got[i]-1))) != s.tag(hash)) {
					t.Fatalf("%s: %d rows: hash %#016x leads to row %d, want %d (numbers plus one)", name, next, hash, got[i], want)
				}
			}
		}
		t.Logf("%s: %d paths leave their line", name, left)
		if left == 0 && name == "full lines" {
			t.Errorf("%s: no path leaves its line", name)
		}
	}
}
