package graft_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/chain"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/graft"
	"github.com/freshet-ml/freshet/ps/shard"
)

const shards = 4

var model = ps.Model{Name: "shop", Version: 1, Stream: "s", Partitions: 1, Layout: ps.Layout{Seed: 7, Tables: []ps.Table{
	{Name: "linear", Kind: ps.Float32, Width: 1, Optimizer: ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, Beta: 1}, Initializer: ps.Initializer{Name: ps.Zero}},
	{
		Name: "factors", Kind: ps.Float32, Width: 2, Optimizer: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.1, InitialAccumulator: 1},
		Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.1},
	},
	{Name: "figures", Kind: ps.Float64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}},
}}}

// key returns the n-th key of a shard.
func key(of ps.ShardID, n uint64) ps.Key { return ps.Key(uint64(of)<<62 | n) }

// push applies an event to rows of a shard.
func push(t *testing.T, s *shard.Shard, keys ...ps.Key) {
	t.Helper()
	p := s.Progress()
	at := p.Partitions[0].Applied
	n := len(keys)
	item := &ps.Item{Shard: p.Shard, From: at, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1, Sum: uint64(at) + 5}, Rows: []ps.Rows{
		{Table: 0, Keys: keys, Values: ps.Bytes(slices.Repeat([]float32{0.5}, n))},
		{Table: 1, Keys: keys, Values: ps.Bytes(slices.Repeat([]float32{-0.25}, 2*n))},
		{Table: 2, Keys: keys[:1], Values: ps.Bytes([]float64{1})},
	}}
	u := &ps.Update{Model: model.Name, Stream: model.Stream, Layout: model.Layout.Hash(), Version: 1, To: at + 1}
	if a := s.Push(u, item); a.Outcome != ps.Applied {
		t.Fatalf("%+v", a)
	}
}

// write adds a file to a shard's chain.
func write(t *testing.T, b *checkpoint.Bucket, s *shard.Shard, entry *checkpoint.Shard) {
	t.Helper()
	var parent checkpoint.File
	if n := len(entry.Files); n > 0 {
		parent = entry.Files[n-1]
	}
	sn, err := s.Snapshot(parent.Seq)
	if err != nil {
		t.Fatal(err)
	}
	head := chain.Head(&model, shards, sn.Head(), s.Strides(), parent)
	w, err := checkpoint.Create(t.Context(), b, checkpoint.Name(&head, 1), head)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for {
		block, err := sn.Read(make([]byte, shard.BlockBytes))
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.Rows(block.Table, block.Stride, block.Rows)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := s.Progress()
	entry.Files, entry.Seq, entry.Fence, entry.Applied = append(entry.Files, file), p.Seq, p.Fence, []ps.Offset{p.Partitions[0].Applied}
}

// newEpoch makes a bucket with an epoch, in which shard 0 has an increment, 1 has learned, 2
// nothing yet, and 3 is not to be touched.
func newEpoch(t *testing.T) (*checkpoint.Bucket, checkpoint.Manifest) {
	t.Helper()
	b, err := checkpoint.OpenBucket(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	m := checkpoint.Manifest{
		Model: model.Name, Epoch: 5, Lineage: 2, Parent: 4, Version: 1, Layout: model.Layout.Hash(), Stream: model.Stream, Partitions: 1,
		Shards: make([]checkpoint.Shard, shards),
	}
	for id := range ps.ShardID(shards) {
		entry := &m.Shards[id]
		*entry = checkpoint.Shard{Shard: id, Fence: 3, Applied: make([]ps.Offset, 1)}
		s, err := shard.New(shard.Config{Model: model, ID: id, Shards: shards, Fence: 3})
		if err != nil {
			t.Fatal(err)
		}
		if id == 2 {
			continue
		}
		push(t, s, key(id, 1), key(id, 2))
		write(t, b, s, entry)
		if id == 0 {
			push(t, s, key(id, 2), key(id, 3))
			write(t, b, s, entry)
		}
	}
	return b, m
}

// content is what a shard has of rows, without their seq, by table and key, and how far it is.
func content(t *testing.T, b *checkpoint.Bucket, m checkpoint.Manifest, id ps.ShardID) (rows map[string]string, seqs map[string]uint64, p ps.ShardProgress) {
	t.Helper()
	s, err := chain.Load(t.Context(), b, &m, shard.Config{Model: model, ID: id, Shards: shards, Fence: 9})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Valid(); err != nil {
		t.Fatal(err)
	}
	rows, seqs = make(map[string]string), make(map[string]uint64)
	for i, table := range model.Layout.Tables {
		if err := s.Range(ps.TableID(i), func(key ps.Key, seq uint64, row []byte) bool {
			name := fmt.Sprintf("%s %#x", table.Name, uint64(key))
			rows[name], seqs[name] = string(row), seq
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return rows, seqs, s.Progress()
}

func TestAGraftChangesTheRowsThatItIsGivenAndNothingElse(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("fresh %v", fresh), func(t *testing.T) {
			b, base := newEpoch(t)
			before := fmt.Sprint(base)
			keys := []ps.Key{key(1, 9), key(0, 2), key(2, 1), key(0, 9)} // born, there, in an empty shard, born
			weights := []float32{1, 2, 3, 4, 5, 6, 7, 8}
			var progress []int
			r, err := graft.Run(t.Context(), graft.Config{
				Bucket: b, Base: base, Model: model, Fresh: fresh, Rows: ps.Rows{Table: 1, Keys: keys, Values: ps.Bytes(weights)},
				Progress: func(n int) { progress = append(progress, n) },
			})
			if err != nil {
				t.Fatal(err)
			}
			if r.Born != 3 || r.Replaced != 1 || r.Shards != 3 || r.Bytes == 0 || !slices.Equal(progress, []int{1, 2, 3}) {
				t.Errorf("%+v, progress %v, want 3 rows born and 1 replaced in 3 shards", r, progress)
			}
			m, err := checkpoint.ReadManifest(t.Context(), b, r.Manifest)
			if err != nil {
				t.Fatal(err)
			}
			if m.Epoch != 6 || m.Parent != 5 || m.Lineage != 3 || fmt.Sprint(m.Shards[3]) != fmt.Sprint(base.Shards[3]) || fmt.Sprint(base) != before {
				t.Errorf("the manifest is %+v of %s", m, before)
			}
			for id := range ps.ShardID(shards) {
				want, _, was := content(t, b, base, id)
				got, seqs, is := content(t, b, m, id)
				changed := uint64(0)
				for i, key := range keys {
					if ps.ShardOf(key, shards) != id {
						continue
					}
					changed++
					name := fmt.Sprintf("factors %#x", uint64(key))
					state := []float32{1, 1} // of a new row
					if old, there := want[name]; there && !fresh {
						state = ps.View[float32]([]byte(old))[2:]
						if state[0] == 1 {
							t.Error("the row that is replaced has learned nothing")
						}
					}
					want[name] = string(ps.Bytes(slices.Concat(weights[2*i:2*i+2], state)))
					if seqs[name] != was.Seq+1 {
						t.Errorf("%s has seq %d, want %d: increments must have it", name, seqs[name], was.Seq+1)
					}
				}
				if !maps.Equal(got, want) {
					t.Errorf("shard %d has rows\n%q\nwant\n%q", id, got, want)
				}
				if changed > 0 {
					was.Seq++
				}
				was.Rows = uint64(len(want))
				if fmt.Sprint(is) != fmt.Sprint(was) {
					t.Errorf("shard %d is at %+v, want %+v", id, is, was)
				}
			}
		})
	}
}

func TestWhatCannotBeGraftedLeavesNoManifest(t *testing.T) {
	b, base := newEpoch(t)
	list := func() string {
		t.Helper()
		objects, err := b.List(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(objects)
	}
	before := list()
	row := ps.Rows{Table: 1, Keys: []ps.Key{key(0, 2)}, Values: ps.Bytes([]float32{1, 2})}
	r, err := graft.Run(t.Context(), graft.Config{Bucket: b, Base: base, Model: model, Rows: row, DryRun: true})
	if err != nil || r.Replaced != 1 || r.Bytes != 0 || r.Manifest != (checkpoint.Ref{}) || list() != before {
		t.Errorf("a dry run gives %+v, %v and the bucket has %s, was %s", r, err, list(), before)
	}
	for name, test := range map[string]struct {
		rows ps.Rows
		want string
	}{
		"a table that is not": {ps.Rows{Table: 3, Keys: row.Keys, Values: row.Values}, "table 3 of a layout of 3"},
		"another width":       {ps.Rows{Table: 0, Keys: row.Keys, Values: row.Values}, "8 bytes of weights for 1 rows of 4"},
		"sums":                {ps.Rows{Table: 2, Keys: row.Keys, Values: row.Values}, "sums of events"},
		"not a number":        {ps.Rows{Table: 1, Keys: row.Keys, Values: ps.Bytes([]float32{1, float32(math.NaN())})}, "element 1 is NaN"},
	} {
		_, err := graft.Run(t.Context(), graft.Config{Bucket: b, Base: base, Model: model, Rows: test.rows})
		if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, test.want)
		}
	}
	if list() != before {
		t.Errorf("the bucket has %s, was %s", list(), before)
	}
	gone := base
	gone.Shards = slices.Clone(base.Shards)
	gone.Shards[0].Files = slices.Clone(gone.Shards[0].Files)
	binary.LittleEndian.PutUint64(gone.Shards[0].Files[0].Hash[:], 1)
	if _, err := graft.Run(t.Context(), graft.Config{Bucket: b, Base: gone, Model: model, Rows: row}); !errors.Is(err, ps.ErrCorrupt) {
		t.Errorf("a file that is another: %v, want ErrCorrupt", err)
	}
}
