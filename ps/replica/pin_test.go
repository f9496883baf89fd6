package replica_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/replica"
)

// epoch writes the owners' shards as an epoch.
func epoch(t *testing.T, b *checkpoint.Bucket, number ps.Epoch, owners []*owner) checkpoint.Manifest {
	t.Helper()
	m := checkpoint.Manifest{
		Model: model.Name, Epoch: number, Created: time.Now().Add(-time.Minute), Version: 1, Layout: model.Layout.Hash(),
		Stream: model.Stream, Partitions: model.Partitions,
	}
	for s, o := range owners {
		head, blocks := o.snapshot(t)
		entry := checkpoint.Shard{Shard: ps.ShardID(s), Fence: head.Fence, Seq: head.Seq}
		for _, p := range head.Partitions {
			entry.Applied = append(entry.Applied, p.Applied)
		}
		if head.Seq > 0 {
			entry.Files = append(entry.Files, snapshotFile(t, b, number, o, blocks))
		}
		m.Shards = append(m.Shards, entry)
	}
	if err := m.Valid(); err != nil {
		t.Fatal(err)
	}
	return m
}

func snapshotFile(t *testing.T, b *checkpoint.Bucket, number ps.Epoch, o *owner, blocks []ps.Block) checkpoint.File {
	t.Helper()
	p := o.shard.Progress()
	head := checkpoint.Head{
		Model: model.Name, Version: 1, Layout: model.Layout.Hash(), Stream: model.Stream, Shard: p.Shard, Shards: shards,
		Fence: p.Fence, Seq: p.Seq, Stored: p.Rows, Partitions: p.Partitions,
		Tables: []checkpoint.Table{
			{Kind: ps.Float32, Stride: checkpoint.RowHeadBytes + 2*12}, // weights and AdaGrad's sums
			{Kind: ps.Float64, Stride: checkpoint.RowHeadBytes + 8},
		},
	}
	w, err := checkpoint.Create(t.Context(), b, checkpoint.Name(&head, uint64(number)), head)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for _, block := range blocks {
		if err := w.Rows(block.Table, block.Stride, block.Rows); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAnEpochIsServedInThePlaceOfWhatIsLearnedAndTheOtherWayRound(t *testing.T) {
	b, err := checkpoint.OpenBucket(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	swapped := make(chan ps.ShardID, 100)
	r, w, end := follow(t, replica.Config{Encoding: ps.Float16, Swapped: func(s ps.ShardID) { swapped <- s }})
	var owners []*owner
	send := func() {
		t.Helper()
		for _, o := range owners {
			for _, part := range o.base(t, w.reading) {
				if err := w.take(part); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for s := range ps.ShardID(shards) {
		owners = append(owners, newOwner(t, s))
	}
	for _, o := range owners[1:] { // shard 0 has no files
		o.push(t, 0)
	}
	old, had := epoch(t, b, 3, owners), make([][]byte, shards)
	for s, o := range owners {
		had[s] = o.rows(t)
		o.push(t, 1)
	}
	send()
	if err := r.Pin(t.Context(), b, old); !errors.Is(err, ps.ErrConflict) {
		t.Errorf("an epoch while following gave %v, want ErrConflict", err)
	}
	end()
	if err := r.Pin(t.Context(), b, old); err != nil {
		t.Fatal(err)
	}
	for s, rows := range pull(t, r) {
		if !slices.Equal(rows, had[s]) {
			t.Errorf("shard %d: %v, the epoch has %v to the bit", s, ps.View[float32](rows), ps.View[float32](had[s]))
		}
	}
	if f := r.Fresh(); f.Epoch != 3 || !slices.Equal(f.Applied, []ps.Offset{0, 0}) || f.Age < time.Minute || f.Age > time.Hour {
		t.Errorf("fresh %+v, want epoch 3, nothing applied (of shard 0), a minute old", f)
	}
	next := epoch(t, b, 4, owners)
	if err := r.Pin(t.Context(), b, next); err != nil {
		t.Fatal(err)
	}
	if err := r.Pin(t.Context(), b, old); err != nil { // and back, though less is applied
		t.Fatal(err)
	}
	if f := r.Fresh(); f.Epoch != 3 {
		t.Errorf("having gone back it serves %+v, want epoch 3", f)
	}
	_, end = again(t, r, w)
	defer end()
	send()
	if f := r.Fresh(); f.Epoch != 0 || !slices.Equal(f.Applied, []ps.Offset{0, 1}) {
		t.Errorf("following again it serves %+v, want no epoch, and 0 and 1 applied", f)
	}
	for s, rows := range pull(t, r) {
		for i, got := range ps.View[float32](rows) {
			if want := ps.View[float32](owners[s].rows(t))[i]; math.Abs(float64(got-want)) > math.Abs(float64(want))/2048 {
				t.Errorf("shard %d: weight %d is %v, want %v as float16 has it", s, i, got, want)
			}
		}
	}
	if len(swapped) != 5*shards {
		t.Errorf("%d shards were swapped, want %d", len(swapped), 5*shards)
	}
}

func TestEpochsOfAnotherModelOrWithDamagedFilesAreNotServed(t *testing.T) {
	b, err := checkpoint.OpenBucket(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, w, end := follow(t, replica.Config{})
	var owners []*owner
	for s := range ps.ShardID(shards) {
		o := newOwner(t, s)
		o.push(t, 0)
		owners = append(owners, o)
		for _, part := range o.base(t, w.reading) {
			if err := w.take(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	end()
	good, before := epoch(t, b, 1, owners), pull(t, r)
	for name, c := range map[string]struct {
		spoil func(*checkpoint.Manifest)
		want  error
	}{
		"another model":          {func(m *checkpoint.Manifest) { m.Model = "x" }, ps.ErrModelMismatch},
		"another layout":         {func(m *checkpoint.Manifest) { m.Layout++ }, ps.ErrModelMismatch},
		"fewer shards":           {func(m *checkpoint.Manifest) { m.Shards = m.Shards[:2] }, ps.ErrModelMismatch},
		"another hash of a file": {func(m *checkpoint.Manifest) { m.Shards[3].Files[0].Hash[0]++ }, ps.ErrCorrupt},
		"a file that is gone":    {func(m *checkpoint.Manifest) { m.Shards[3].Files[0].Name += "x" }, ps.ErrCorrupt},
	} {
		bad := good
		bad.Shards = slices.Clone(good.Shards)
		for i := range bad.Shards {
			bad.Shards[i].Files = slices.Clone(bad.Shards[i].Files)
		}
		c.spoil(&bad)
		if err := r.Pin(t.Context(), b, bad); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if rows := pull(t, r)[3]; !slices.Equal(rows, before[3]) {
			t.Errorf("%s: the shard that could not be read is served otherwise than before", name)
		}
	}
	if err := r.Pin(t.Context(), b, good); err != nil {
		t.Errorf("after all that the good epoch gave %v", err)
	}
}
