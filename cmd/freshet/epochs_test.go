package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// keeper returns what takes the cluster's epochs, into a new directory.
func (c *testCluster) keeper() (k *epochs.Keeper, dir string) {
	c.t.Helper()
	dir = c.t.TempDir()
	k, err := epochs.Open(c.t.Context(), epochs.Config{Store: c.store, Nodes: c.client, Bucket: "file://" + dir, Logger: c.logger})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { k.Close() })
	return k, dir
}

func (c *testCluster) take(k *epochs.Keeper) epochs.Result {
	c.t.Helper()
	result, err := k.Take(c.t.Context(), c.model.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	return result
}

// slowSpec learns slowly enough that epochs can be taken under way.
var slowSpec = strings.Replace(clusterSpec, "in_flight: 128", "in_flight: 8", 1)

func TestANodeThatLeavesIsReplacedFromTheEpoch(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 2, 2)
	c.apply(slowSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startNode("b")
	c.startWorker("v")
	c.startWorker("w")
	c.dial()
	k, _ := c.keeper()
	c.waitFor(events / 10)
	first := c.take(k)
	c.waitFor(events / 4)
	second := c.take(k)
	if !second.Taken || second.Epoch.Number != 2 || second.Epoch.Events <= first.Epoch.Events {
		t.Errorf("the second epoch is %+v after %+v, want a later one with more events", second, first)
	}
	stop()
	_, replayed := c.audit(events)
	if replayed.Events > events*9/10 {
		t.Errorf("%v of %d events were replayed: the epoch was not used", replayed.Events, events)
	}
}

func TestAClusterWithoutNodesGoesOnFromItsEpoch(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	stop := c.startNode("a")
	c.startWorker("w")
	c.dial()
	k, _ := c.keeper()
	c.waitFor(events)
	taken := c.take(k)
	if taken.Epoch.Events != events {
		t.Fatalf("the epoch at the end has %d events, want %d", taken.Epoch.Events, events)
	}
	stop()
	c.startNode("b")
	c.startNode("c")
	learned, replayed := c.audit(events)
	if replayed.Events != 0 || learned.Events == 0 {
		t.Errorf("%v events were replayed, want none: the epoch held them all", replayed.Events)
	}
	if again := c.take(k); again.Taken {
		t.Errorf("an epoch of nothing new was taken: %+v", again)
	}
}

func TestAModelIsSetBackToAnOlderEpoch(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 1, 1)
	c.apply(slowSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startWorker("w")
	c.dial()
	k, _ := c.keeper()
	c.waitFor(events / 5)
	first := c.take(k)
	c.waitFor(events / 2)
	stop()
	if second := c.take(k); !second.Taken {
		t.Fatal("no second epoch")
	}
	lineage, err := k.SetBack(t.Context(), c.model.Name, first.Epoch.Number)
	if err != nil {
		t.Fatal(err)
	}
	if lineage != 1 {
		t.Errorf("lineage %d, want 1", lineage)
	}
	for deadline := time.Now().Add(time.Minute); ; { // the node follows the map by itself
		at, _ := c.applied()
		if at == int64(first.Epoch.Events) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("set back to an epoch of %d events, the shards have %d", first.Epoch.Events, at)
		}
	}
	if _, err := k.SetBack(t.Context(), c.model.Name, 99); err == nil || !strings.Contains(err.Error(), "there is 3, 2, 1") {
		t.Errorf("an epoch that is not kept gave %v, want an error that lists those that are", err)
	}
	c.startWorker("x")
	c.audit(events)
}

func TestOldEpochsAndTheirFilesGo(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	k, dir := c.keeper()
	c.waitFor(1)
	taken := 0
	for n := int64(1); taken < 14; n++ {
		if c.take(k).Taken {
			taken++
		}
		if at, _ := c.applied(); at == events {
			break
		}
	}
	c.waitFor(events)
	c.take(k)
	epoch, err := c.store.Epoch(t.Context(), c.model.Name)
	if err != nil {
		t.Fatal(err)
	}
	if len(epoch.Retained) > 3 {
		t.Errorf("%d epochs are kept, want 3", len(epoch.Retained))
	}
	bucket, err := checkpoint.OpenBucket(t.Context(), "file://"+dir)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	kept := make(map[string]bool)
	for _, r := range epoch.Retained {
		kept[r.Manifest.Name] = true
		m, err := checkpoint.ReadManifest(t.Context(), bucket, r.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range m.Names() {
			kept[name] = true
		}
		for _, s := range m.Shards {
			for _, f := range s.Files {
				if err := checkpoint.Verify(t.Context(), bucket, f); err != nil {
					t.Error(err)
				}
			}
		}
	}
	objects, err := bucket.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if !kept[o.Name] {
			t.Errorf("%s is needed by no epoch and still there", o.Name)
		}
	}
}

func TestUpGoesOnWhereItWasInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	args := []string{
		"up", "--example", "shop", "--events", "150000", "--dir", dir, "--listen", "127.0.0.1:0", "--until-end",
		"--checkpoint-events", "10000", "-o", "json",
	}
	// The first up is interrupted once an epoch is there.
	ctx, interrupt := context.WithCancel(t.Context())
	var stdout, stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- runContext(ctx, args, &stdout, &syncBuffer{}) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if names, _ := filepath.Glob(filepath.Join(dir, epochsName, "manifests", "*", "*.json")); len(names) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no epoch was taken")
		}
	}
	interrupt()
	<-ended
	// The second goes on from there, and the third finds nothing left to do.
	for i := range 2 {
		stdout.Reset()
		if code := run(args, &stdout, &stderr); code != 0 {
			t.Fatalf("up number %d ended with %d: %s", i+2, code, &stderr)
		}
		var report upReport
		if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		if report.Events != 150_000 || !report.Audit.Clean() {
			t.Errorf("up number %d: %d events, audit %+v, want 150,000, none lost or doubled", i+2, report.Events, report.Audit)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, secretName)); err != nil {
		t.Error(err)
	}
}

func TestEpochsFollowOneAnother(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	first, dir := c.keeper()
	second, err := epochs.Open(t.Context(), epochs.Config{Store: c.store, Nodes: c.client, Bucket: "file://" + dir, Logger: c.logger})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	c.waitFor(1)
	// Two coordinators at once: each epoch that commits has a number of its own.
	numbers := make(chan ps.Epoch, 40)
	done := make(chan struct{})
	for _, k := range []*epochs.Keeper{first, second} {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 20 {
				if r, err := k.Take(context.Background(), c.model.Name); err == nil && r.Taken {
					numbers <- r.Epoch.Number
				}
			}
		}()
	}
	<-done
	<-done
	close(numbers)
	seen := make(map[ps.Epoch]bool)
	for n := range numbers {
		if seen[n] {
			t.Errorf("epoch %d was committed twice", n)
		}
		seen[n] = true
	}
	if len(seen) == 0 {
		t.Error("no epoch was committed")
	}
	c.audit(events)
}

func TestVerifyFindsADamagedFile(t *testing.T) {
	const events = 5_000
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	k, dir := c.keeper()
	c.waitFor(events)
	c.take(k)
	coordinators, err := c.store.Coordinators(t.Context())
	if err != nil || len(coordinators) != 1 {
		t.Fatalf("coordinators %v, %v: want one", coordinators, err)
	}
	verify := func() (code int, v verification) {
		var stdout, stderr bytes.Buffer
		code = run([]string{"verify", "--coordinator", coordinators[0].Address, "-o", "json"}, &stdout, &stderr)
		if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s%s", err, &stdout, &stderr)
		}
		return code, v
	}
	if code, v := verify(); code != 0 || v.Damaged != 0 || len(v.Epochs) != 1 || v.Epochs[0].Rows == 0 {
		t.Errorf("a whole epoch is verified as %+v with exit code %d", v, code)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "snapshots", "clicks", "00003", "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("files of shard 3: %v, %v: want one", paths, err)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-100] ^= 1
	if err := os.WriteFile(paths[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	code, v := verify()
	if code != exitFailure || v.Damaged != 1 || !strings.Contains(strings.Join(v.Epochs[0].Damage, ""), "00003") {
		t.Errorf("with a flipped bit in shard 3's file verify says %+v with exit code %d, want that file and 1", v, code)
	}
	if _, err := k.SetBack(t.Context(), c.model.Name, 1); !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), "00003") {
		t.Errorf("going back to an epoch with a damaged file: %v, want ErrCorrupt and the file", err)
	}
}
