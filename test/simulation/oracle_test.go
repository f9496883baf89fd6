package simulation_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"reflect"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	psnode "github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/shard"
)

// lineage says which files belong to the line of epochs that the last rollback began:
// those that it went back to, and those of owners after it.
type lineage struct {
	number uint64
	files  map[string]bool
	fences [shards]ps.Fence
}

// routes returns the shard map as it is. Nobody writes to it.
func (w *world) routes() route.Map {
	if w.mapRead.Version != w.register.revision {
		w.quietly(func() { w.mapRead, _ = w.store.Map(context.Background()) })
	}
	return w.mapRead
}

// shardMap returns the owners as they are.
func (w *world) shardMap() []route.Shard { return w.routes().Shards }

// examine holds a shard against the prefix of the stream that it says it has applied.
func (w *world) examine(s *shard.Shard) {
	if wrong := w.stream.wrong(s); wrong != "" {
		w.failf("%s", wrong)
	}
}

// examineFiles holds what a shard of the current lineage was made of against the lineage.
func (w *world) examineFiles(id ps.ShardID, files []checkpoint.File, doing string) {
	for _, f := range files {
		if !w.lineage.files[f.Name] && f.Fence < w.lineage.fences[id] {
			w.failf("invariant 13: %s: shard %d descends from %s, which lineage %d was set back from", doing, id, f.Name, w.lineage.number)
		}
	}
}

// committed looks at what a transaction has changed.
func (w *world) committed() {
	owners := w.shardMap()
	for s, shard := range owners {
		if s < len(w.owners) && shard.Fence < w.owners[s].Fence {
			w.failf("invariant 6: the fence of shard %d falls from %d to %d", s, w.owners[s].Fence, shard.Fence)
		}
		if s < len(w.owners) && shard.Owner != w.owners[s].Owner && shard.Owner == w.owners[s].Target {
			if before := w.nodes[string(w.owners[s].Owner)]; before != nil && before.alive {
				w.moved[s] = shard.Fence
			}
		}
	}
	w.owners = slices.Clone(owners)
	kv := w.register.get(epochKey)
	if kv == nil || kv.ModRevision != w.register.revision {
		return
	}
	var e checkpoint.Epoch
	if err := json.Unmarshal(kv.Value, &e); err != nil {
		w.failf("the epoch does not decode: %v", err)
		return
	}
	w.quietly(func() { w.examineEpoch(e, owners) })
}

// examineEpoch looks at an epoch at the instant of its commit.
func (w *world) examineEpoch(e checkpoint.Epoch, owners []route.Shard) {
	before, had := w.newest()
	w.epochs++
	m, err := checkpoint.ReadManifest(context.Background(), w.bucket, e.Retained[0].Manifest)
	if err != nil {
		w.failf("invariant 9: epoch %d is committed, and its manifest is not there: %v", e.Number, err)
		return
	}
	w.manifests[e.Retained[0].Manifest.Name] = m
	if e.Lineage != w.epoch.Lineage {
		w.lineage = lineage{number: e.Lineage, files: make(map[string]bool)}
		for _, name := range m.Names() {
			w.lineage.files[name] = true
		}
		for s, owner := range owners {
			w.lineage.fences[s] = owner.Fence
		}
		w.bite(rollback)
	} else {
		for s, entry := range m.Shards {
			w.examineEntry(before, had, entry, owners[s].Fence)
		}
	}
	w.epoch = e
	clear(w.reached)
	for _, r := range e.Retained {
		w.reached[r.Manifest.Name] = true
		known := w.manifests[r.Manifest.Name]
		for _, name := range known.Names() {
			w.reached[name] = true
		}
	}
	for name := range w.reached {
		if _, there := w.disk.content[name]; !there && !w.disk.damaged[name] {
			w.failf("invariant 9: epoch %d is committed, and %s, which it needs, is not there", e.Number, name)
		}
	}
	w.examineStart()
}

// examineEntry looks at one shard's part of a new epoch.
func (w *world) examineEntry(before checkpoint.Manifest, had bool, entry checkpoint.Shard, fence ps.Fence) {
	if w.wasKept(entry) {
		return
	}
	if entry.Fence != fence {
		w.failf("invariant 6: the epoch has shard %d of fence %d, it is owned under fence %d", entry.Shard, entry.Fence, fence)
	}
	w.examineFiles(entry.Shard, entry.Files, "an epoch is committed")
	for p, applied := range entry.Applied {
		if had && applied < before.Shards[entry.Shard].Applied[p] && !w.disk.damaged[w.epoch.Retained[0].Manifest.Name] {
			w.failf("invariant 8: shard %d goes back in partition %d from %d to %d within a lineage", entry.Shard, p, before.Shards[entry.Shard].Applied[p], applied)
		}
	}
	if len(entry.Files) == 0 || w.epochs%2 != int(entry.Shard)%2 { // half of them: reading is dear
		return
	}
	if restored := w.restore(entry); restored != nil {
		w.examine(restored)
		for p, o := range applied(restored) {
			if o != entry.Applied[p] {
				w.failf("the epoch says shard %d has applied partition %d up to %d, its file %d", entry.Shard, p, entry.Applied[p], o)
			}
		}
	}
}

// wasKept reports whether an entry is that of the newest epoch of the lineage, or of an
// older one if that one's manifest is damaged now.
func (w *world) wasKept(entry checkpoint.Shard) bool {
	for _, r := range w.epoch.Retained {
		if r.Lineage != w.epoch.Lineage {
			continue
		}
		if reflect.DeepEqual(w.manifests[r.Manifest.Name].Shards[entry.Shard], entry) {
			return true
		}
		if !w.disk.damaged[r.Manifest.Name] {
			return false
		}
	}
	return entry.Fence == 0 && len(entry.Files) == 0
}

// restore loads a shard from an entry's files as a node would; nil if one is damaged.
func (w *world) restore(entry checkpoint.Shard) *shard.Shard {
	for _, f := range entry.Files {
		if w.disk.damaged[f.Name] {
			return nil
		}
	}
	// A manifest with this entry alone, so that nothing can be fallen back to.
	m := checkpoint.Manifest{
		Model: modelName, Epoch: 1, Version: 1, Layout: w.layout, Stream: w.model.Stream, Partitions: partitions,
		Shards: make([]checkpoint.Shard, shards),
	}
	for s := range m.Shards {
		m.Shards[s] = checkpoint.Shard{Shard: ps.ShardID(s), Applied: make([]ps.Offset, partitions)}
	}
	m.Shards[entry.Shard] = entry
	object, ref, err := m.Encode()
	if err != nil {
		w.failf("shard %d's entry is not valid: %v", entry.Shard, err)
		return nil
	}
	aside := &objects{world: w, content: map[string][]byte{ref.Name: object}}
	for _, f := range entry.Files {
		if content, there := w.disk.content[f.Name]; there {
			aside.content[f.Name] = content
		}
	}
	restored, _, _, err := psnode.Restore(context.Background(), w.model, shard.Config{Model: w.model, ID: entry.Shard, Shards: shards, Fence: entry.Fence + 1},
		checkpoint.Epoch{Number: 1, Retained: []checkpoint.Retained{{Number: 1, Manifest: ref}}}, checkpoint.NewBucket("sim://aside", aside), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		w.failf("shard %d cannot be restored from what was committed: %v", entry.Shard, err)
		return nil
	}
	if restored.Progress().Seq != entry.Seq {
		w.failf("invariant 10: shard %d is restored at seq %d from an entry of seq %d: a file is lost", entry.Shard, restored.Progress().Seq, entry.Seq)
	}
	return restored
}

// examineStart holds the stream's start against what every retained epoch needs.
func (w *world) examineStart() {
	for _, r := range w.epoch.Retained {
		m := w.manifests[r.Manifest.Name]
		for p, start := range w.stream.start {
			if lowest := m.Applied(ps.Partition(p)); lowest < start {
				w.failf("invariant 8: partition %d begins at %d, epoch %d has applied it up to %d", p, start, r.Number, lowest)
			}
		}
	}
}

// examineEnd looks at everything once the stream is applied.
func (w *world) examineEnd() {
	for s, owner := range w.shardMap() {
		held := w.nodes[string(owner.Owner)].held[s].shard
		w.examine(held)
		if err := held.Valid(); err != nil {
			w.failf("%v", err)
		}
	}
	for _, r := range w.epoch.Retained {
		for _, entry := range w.manifests[r.Manifest.Name].Shards {
			if len(entry.Files) == 0 {
				continue
			}
			if restored := w.restore(entry); restored != nil {
				w.examine(restored)
			}
		}
	}
}
