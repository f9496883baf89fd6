package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
)

// commit takes snapshots of all shards and makes them the epoch after the last one.
func commit(t *testing.T, o *ownership, c *client.Client, url string, last checkpoint.Manifest) (checkpoint.Manifest, []checkpoint.Taken) {
	t.Helper()
	wants := make([]checkpoint.Want, shards)
	for s := range wants {
		wants[s].Shard = ps.ShardID(s)
		if files := last.Shards[s].Files; len(files) > 0 {
			wants[s].Parent = files[len(files)-1].Hash
		}
	}
	taken, err := c.TakeSnapshots(t.Context(), "m", url, wants)
	if err != nil {
		t.Fatal(err)
	}
	next := last
	next.Shards = append([]checkpoint.Shard(nil), last.Shards...)
	next.Epoch, next.Parent = last.Epoch+1, last.Epoch
	for s, got := range taken {
		if got.Err != nil {
			t.Fatalf("shard %d: %v", s, got.Err)
		}
		entry := &next.Shards[s]
		entry.Fence, entry.Applied = got.Fence, got.Applied
		switch {
		case got.File.Bytes == 0:
		case got.File.Full():
			entry.Files, entry.Seq = []checkpoint.File{got.File}, got.File.Seq
		default:
			entry.Files, entry.Seq = append(append([]checkpoint.File(nil), entry.Files...), got.File), got.File.Seq
		}
	}
	bucket, err := checkpoint.OpenBucket(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	ref, err := checkpoint.WriteManifest(t.Context(), bucket, next)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.epoch = checkpoint.Epoch{Number: next.Epoch, Bucket: url, Retained: append([]checkpoint.Retained{{Number: next.Epoch, Manifest: ref}}, o.epoch.Retained...)}
	return next, taken
}

// nothing is the manifest before the first epoch.
func nothing() checkpoint.Manifest {
	m := testModel()
	none := checkpoint.Manifest{
		Model: m.Name, Version: m.Version, Layout: m.Layout.Hash(), Stream: m.Stream, Partitions: m.Partitions,
		Created: time.UnixMilli(1_700_000_000_000), Shards: make([]checkpoint.Shard, shards),
	}
	for s := range none.Shards {
		none.Shards[s] = checkpoint.Shard{Shard: ps.ShardID(s), Applied: make([]ps.Offset, m.Partitions)}
	}
	return none
}

func bucketURL(t *testing.T) (url, dir string) {
	dir = t.TempDir()
	return "file://" + dir, dir
}

func TestShardsGoOnFromTheirEpochOnAnotherNode(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a")
	c := dial(t, o)
	<-a.node.Ready()
	url, _ := bucketURL(t)

	push(t, c, everyShard(0, 1, 1))
	first, taken := commit(t, o, c, url, nothing())
	for s, got := range taken {
		if !got.File.Full() || got.File.Rows != 1 {
			t.Errorf("shard %d: the first snapshot is %+v, want a full one of 1 row", s, got.File)
		}
	}
	if _, again := commit(t, o, c, url, first); again[0].File.Bytes != 0 {
		t.Errorf("nothing has changed, and shard 0 wrote %+v", again[0].File)
	}
	push(t, c, everyShard(1, 2, 10))
	_, taken = commit(t, o, c, url, first)
	if taken[3].File.Full() || taken[3].File.Since != first.Shards[3].Seq {
		t.Errorf("the next snapshot is %+v, want an increment since seq %d", taken[3].File, first.Shards[3].Seq)
	}
	push(t, c, everyShard(2, 3, 100)) // in no epoch: lost with its node

	o.set(map[ps.NodeID]string{"b": b.address}, "b")
	a.stop()
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	for s, shard := range progress {
		if at := shard.Partitions[0]; at.Applied != 2 || at.Trained != 2 || shard.Fence != 2 {
			t.Errorf("shard %d is at %+v under fence %d, want 2 applied under fence 2", s, at, shard.Fence)
		}
	}
	if got := pull(t, c, keyOf(5, 1)); got[0] != 11 || got[1] != 2 {
		t.Errorf("pulled %v, want [11 2]", got)
	}
	for _, answer := range push(t, c, everyShard(2, 3, 100)) {
		if answer.Outcome != ps.Applied {
			t.Errorf("shard %d answered the replay with %v (%v)", answer.Shard, answer.Outcome, answer.Err)
		}
	}
	if got := pull(t, c, keyOf(5, 1)); got[0] != 111 {
		t.Errorf("after the replay the sum is %v, want 111", got[0])
	}
}

func TestADamagedFileMakesItsShardAloneFallBack(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	url, dir := bucketURL(t)
	push(t, c, everyShard(0, 1, 1))
	first, _ := commit(t, o, c, url, nothing())
	push(t, c, everyShard(1, 2, 10))
	second, _ := commit(t, o, c, url, first)

	damage(t, dir, second.Shards[6].Files[1].Name) // the increment
	damage(t, dir, second.Shards[2].Files[0].Name) // the full one, which both epochs reach
	moveTo(t, o, c, "b", b.address)
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	for s, shard := range progress {
		want := map[int]ps.Offset{6: 1, 2: 0}
		applied, damaged := want[s]
		if !damaged {
			applied = 2
		}
		if got := shard.Partitions[0].Applied; got != applied {
			t.Errorf("shard %d has applied %d, want %d", s, got, applied)
		}
	}
}

// moveTo makes one node own all shards and waits until the client knows it: it would
// else ask the old one, which is still there.
func moveTo(t *testing.T, o *ownership, c *client.Client, id ps.NodeID, address string) {
	t.Helper()
	before, err := c.Map(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	o.set(map[ps.NodeID]string{id: address}, id)
	if _, err := c.Map(t.Context(), before.Version); err != nil {
		t.Fatal(err)
	}
}

// damage flips a byte in the middle of a file.
func damage(t *testing.T, dir, name string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 0x10
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhateverByteOfAnEpochIsDamagedItsShardsFallBackAndTrainingGoesOn flips every byte
// of every file of a small epoch: of a shard's newest file, of the full one below it,
// and of the manifest. Each time the shards are restored, as far as the damage lets
// them, and taught the rest of the stream.
func TestWhateverByteOfAnEpochIsDamagedItsShardsFallBackAndTrainingGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this restores thousands of times")
	}
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	nodes := [2]*running{a, b}
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	url, dir := bucketURL(t)
	push(t, c, everyShard(0, 1, 1))
	first, _ := commit(t, o, c, url, nothing())
	push(t, c, everyShard(1, 2, 10))
	second, _ := commit(t, o, c, url, first)

	restores := 0
	var keys []ps.Key
	for s := range ps.ShardID(shards) {
		keys = append(keys, keyOf(s, 1))
	}
	// restored moves the shards, which are to come back with n events, and goes on.
	restored := func(n ps.Offset, what string) {
		t.Helper()
		restores++
		moveTo(t, o, c, []ps.NodeID{"a", "b"}[restores%2], nodes[restores%2].address)
		progress, err := c.Applied(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		for s, shard := range progress {
			if got := shard.Partitions[0].Applied; got != n {
				t.Fatalf("%s: shard %d came back with %d events, want %d", what, s, got, n)
			}
		}
		for i, value := range []float64{1, 10, 100} {
			if from := ps.Offset(i); from >= n {
				for _, answer := range push(t, c, everyShard(from, from+1, value)) {
					if answer.Outcome != ps.Applied {
						t.Fatalf("%s: event %d at shard %d: %v (%v)", what, i, answer.Shard, answer.Outcome, answer.Err)
					}
				}
			}
		}
		rows := pull(t, c, keys...)
		for s := range shards {
			if got := rows[2*s : 2*s+2]; got[0] != 111 || got[1] != 3 {
				t.Fatalf("%s: shard %d: row %v after all events, want [111 3]", what, s, got)
			}
		}
	}
	// flipped damages byte i of all files that have it, restores, and mends them.
	flipped := func(i int, n ps.Offset, what string, names ...string) (more bool) {
		t.Helper()
		whole := make(map[string][]byte)
		for _, name := range names {
			path := filepath.Join(dir, filepath.FromSlash(name))
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if i >= len(content) {
				return false // they are of one length
			}
			whole[path] = slices.Clone(content)
			content[i] ^= 1 << (i % 8)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		restored(n, fmt.Sprintf("byte %d of %s", i, what))
		for path, content := range whole {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return true
	}

	restored(2, "no damage")
	var increments, fulls []string
	for _, s := range second.Shards {
		fulls, increments = append(fulls, s.Files[0].Name), append(increments, s.Files[1].Name)
	}
	manifest := o.epoch.Retained[0].Manifest.Name
	for i := 0; flipped(i, 1, "the increments", increments...); i++ { //nolint:revive // the condition does the work
	}
	for i := 0; flipped(i, 0, "the full snapshots", fulls...); i++ { //nolint:revive // the condition does the work
	}
	for i := 0; flipped(i, 1, "the manifest", manifest); i++ { //nolint:revive // the condition does the work
	}
	restored(2, "all damage mended")
	t.Logf("%d restores", restores)
	if restores < 1000 {
		t.Errorf("only %d restores: the files cannot be that short", restores)
	}
}

func TestASnapshotOfAShardThatIsElsewhereSaysSo(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a")
	<-a.node.Ready()
	<-b.node.Ready()
	url, _ := bucketURL(t)
	var got []checkpoint.Taken
	if err := b.node.TakeSnapshots(t.Context(), "m", url, []checkpoint.Want{{Shard: 1}}, func(taken checkpoint.Taken) error {
		got = append(got, taken)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !errors.Is(got[0].Err, ps.ErrNotOwner) {
		t.Errorf("got %+v, want one refusal with ErrNotOwner", got)
	}
}

func TestPushesGoOnWhileSnapshotsAreTaken(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	url, _ := bucketURL(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan ps.Offset)
	go func() {
		to := ps.Offset(0)
		for ctx.Err() == nil {
			push(t, c, everyShard(to, to+1, 1))
			to++
		}
		done <- to
	}()
	manifest := nothing()
	for range 10 {
		manifest, _ = commit(t, o, c, url, manifest)
	}
	cancel()
	end := <-done
	b := start(t, "b", o)
	moveTo(t, o, c, "b", b.address)
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	sums := pull(t, c, keyOf(0, 1), keyOf(7, 1))
	for i, s := range []int{0, 7} {
		at := progress[s].Partitions[0].Applied
		if at > end || sums[2*i] != float64(at) {
			t.Errorf("shard %d was restored with %d applied of %d and a sum of %v: want the sum of what is applied", s, at, end, sums[2*i])
		}
	}
}
