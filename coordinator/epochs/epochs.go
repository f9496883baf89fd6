// Package epochs takes checkpoint epochs: it asks the nodes for snapshots, writes the
// manifest that lists them, commits it, keeps the newest epochs and deletes what no
// kept one needs; and it sets a model back to a kept epoch, or to what was made of one.
//
// The one idea to keep in mind: nothing stops while an epoch is taken. Each shard is a
// cut of its own, rows and offsets together, and the stream fills the differences
// between them when it is replayed. So a shard that does not answer keeps its entry of
// the epoch before, and the epoch commits all the same.
//
// Invariants:
//
//  1. An epoch is committed by one transaction that compares the shard map, read after
//     the snapshots were in, and the epoch before it. A snapshot whose fence is not the
//     map's is left out.
//  2. Within a lineage, no shard's offsets in an epoch are below those in the one before.
//  3. A file is deleted only if no committed manifest that is kept reaches it.
package epochs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// Store is what is needed of the cluster's store; coordinator/meta has it.
type Store interface {
	View(ctx context.Context) (coordinator.View, error)
	CommitEpoch(ctx context.Context, model string, next checkpoint.Epoch, expected, mapRevision int64) (coordinator.Epoch, error)
	BeginLineage(ctx context.Context, model string, next checkpoint.Epoch, shards []route.Shard, expected, mapRevision int64) error
}

// Nodes is what is needed of the parameter servers; ps/client has it.
type Nodes interface {
	// TakeSnapshots asks the owners for snapshots and returns one answer per want, in
	// their order.
	TakeSnapshots(ctx context.Context, model, bucket string, wants []checkpoint.Want) ([]checkpoint.Taken, error)
	// Applied returns the progress of every shard.
	Applied(ctx context.Context, model string) ([]ps.ShardProgress, error)
}

// Config is what a Keeper needs.
type Config struct {
	Store Store
	Nodes Nodes
	// Bucket is the URL of where epochs are written: file:///dir, s3://, gs://,
	// azblob:// or mem://.
	Bucket string
	// OpenBucket opens it. Default: checkpoint.OpenBucket.
	OpenBucket func(ctx context.Context, url string) (*checkpoint.Bucket, error)
	// Every is the time between automatic epochs; 0 takes none by time.
	Every time.Duration
	// Events is the number of events between automatic epochs; 0 takes none by events.
	Events uint64
	// Keep is how many epochs can be restored. At least 3, which is the default.
	Keep int
	// Now is the clock, for people; no rule reads it. Default: time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

const keepMin = 3

func (c *Config) validate() error {
	if c.Store == nil || c.Nodes == nil || c.Logger == nil {
		return fmt.Errorf("epochs need a store, nodes and a logger: %w", ps.ErrInvalid)
	}
	if c.Bucket == "" {
		return fmt.Errorf("epochs need a bucket to be written to: %w", ps.ErrInvalid)
	}
	if c.Keep == 0 {
		c.Keep = keepMin
	}
	if c.Keep < keepMin || c.Every < 0 {
		return fmt.Errorf("keep %d epochs, one every %v: want at least %d and no negative time: %w", c.Keep, c.Every, keepMin, ps.ErrInvalid)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OpenBucket == nil {
		c.OpenBucket = checkpoint.OpenBucket
	}
	return nil
}

// Keeper takes and keeps epochs. It is safe for concurrent use; it takes one epoch at
// a time. Several Keepers, as on several coordinators, do no harm.
type Keeper struct {
	config Config
	bucket *checkpoint.Bucket

	taking sync.Mutex // held while an epoch is taken or a lineage begins
}

// Open returns a Keeper with its bucket open. It must be closed.
func Open(ctx context.Context, c Config) (*Keeper, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	bucket, err := c.OpenBucket(ctx, c.Bucket)
	if err != nil {
		return nil, err
	}
	return &Keeper{config: c, bucket: bucket}, nil
}

// Close closes the bucket.
func (k *Keeper) Close() error { return k.bucket.Close() }

// Result is what became of an epoch that was to be taken.
type Result struct {
	// Epoch is the newest committed one.
	Epoch checkpoint.Retained
	// Taken is false if nothing had changed since Epoch; the first epoch is always taken.
	Taken bool
	// Bytes were written.
	Bytes int64
	// ShardsKept have their entry of the epoch before, because they did not answer,
	// changed hands, or are still being taught again what they had.
	ShardsKept int
}

// Take takes an epoch of a model and commits it, unless nothing has changed since the one
// before; the first is committed even if nothing was learned yet. It wraps ps.ErrConflict if another
// epoch or a change of owner came in between: what was written is then garbage, and
// trying again helps. If no shard can be had, the error is the first one's.
func (k *Keeper) Take(ctx context.Context, name string) (Result, error) {
	k.taking.Lock()
	defer k.taking.Unlock()
	result, err := k.take(ctx, name)
	if err != nil {
		return result, fmt.Errorf("take an epoch of model %s: %w", name, err)
	}
	return result, nil
}

func (k *Keeper) take(ctx context.Context, name string) (Result, error) {
	before, err := k.config.Store.View(ctx)
	if err != nil {
		return Result{}, err
	}
	model, err := modelOf(before, name)
	if err != nil {
		return Result{}, err
	}
	current := before.Epochs[name]
	last, err := k.lastManifest(ctx, model, len(before.Shards), current.Epoch)
	if err != nil {
		return Result{}, err
	}
	taken, err := k.config.Nodes.TakeSnapshots(ctx, name, k.config.Bucket, wants(last))
	if err != nil {
		return Result{}, err
	}
	after, err := k.config.Store.View(ctx)
	if err != nil {
		return Result{}, err
	}
	if after.Epochs[name].Revision != current.Revision {
		return Result{}, fmt.Errorf("another epoch was committed meanwhile: %w", ps.ErrConflict)
	}
	next, changed, kept, because := join(last, taken, after.Shards)
	switch {
	case kept == len(taken):
		return Result{}, fmt.Errorf("no shard can be had: %w", because)
	case kept > 0:
		k.config.Logger.Warn("shards keep their entries of the epoch before", "model", name, "shards", kept, "because", because)
	}
	if changed == 0 && current.Number > 0 {
		return Result{Epoch: newest(current.Epoch), ShardsKept: kept}, nil
	}
	result := Result{Taken: true, ShardsKept: kept}
	for _, t := range taken {
		result.Bytes += t.File.Bytes
	}
	next.Epoch, next.Parent, next.Created = current.Number+1, current.Number, k.config.Now()
	committed, err := k.commit(ctx, next, current, kept == 0, after.MapRevision)
	if err != nil {
		return Result{}, err
	}
	result.Epoch = committed.Retained[0]
	k.config.Logger.Info("epoch committed", "model", name, "epoch", committed.Number, "lineage", committed.Lineage,
		"bytes", result.Bytes, "shards", changed, "kept", kept, "events", result.Epoch.Events)
	if err := k.collect(ctx, name, committed.Epoch); err != nil && ctx.Err() == nil {
		k.config.Logger.Warn("files that no epoch needs were not deleted; the next epoch tries again", "model", name, "error", err)
	}
	return result, nil
}

// modelOf returns a model of a view.
func modelOf(v coordinator.View, name string) (ps.Model, error) {
	for _, m := range v.Models {
		if m.Name == name {
			return m, nil
		}
	}
	return ps.Model{}, fmt.Errorf("model %q: %w", name, ps.ErrUnknownModel)
}

// newest returns the newest retained epoch, or the zero value if there is none.
func newest(e checkpoint.Epoch) checkpoint.Retained {
	if len(e.Retained) == 0 {
		return checkpoint.Retained{}
	}
	return e.Retained[0]
}

// lastManifest returns the manifest that the next one follows: the newest committed one
// of the lineage that can be read, or one of a model of which nothing was taken. One that
// is damaged must not keep all later epochs from being taken; what follows an older one is
// as true.
func (k *Keeper) lastManifest(ctx context.Context, model ps.Model, shards int, e checkpoint.Epoch) (checkpoint.Manifest, error) {
	if err := k.sameBucket(e); err != nil {
		return checkpoint.Manifest{}, err
	}
	for _, r := range e.Retained {
		if r.Lineage != e.Lineage {
			continue
		}
		m, err := checkpoint.ReadManifest(ctx, k.bucket, r.Manifest)
		if !errors.Is(err, ps.ErrCorrupt) {
			return m, err
		}
		k.config.Logger.Error("an epoch's manifest is damaged; the next epoch follows an older one", "model", model.Name, "epoch", r.Number, "error", err)
	}
	m := checkpoint.Manifest{
		Model: model.Name, Version: model.Version, Layout: model.Layout.Hash(), Stream: model.Stream,
		Partitions: model.Partitions, Shards: make([]checkpoint.Shard, shards),
	}
	for s := range m.Shards {
		m.Shards[s] = checkpoint.Shard{Shard: ps.ShardID(s), Applied: make([]ps.Offset, model.Partitions)}
	}
	return m, nil
}

// sameBucket reports that a model's epochs are not in the bucket of this Keeper.
func (k *Keeper) sameBucket(e checkpoint.Epoch) error {
	if e.Number > 0 && e.Bucket != k.config.Bucket {
		return fmt.Errorf("epochs of the model are in %s, this coordinator writes to %s: give all coordinators the same bucket: %w",
			e.Bucket, k.config.Bucket, ps.ErrConflict)
	}
	return nil
}

// wants says what is wanted of each shard: an increment, unless its chain of files is
// to be folded.
func wants(last checkpoint.Manifest) []checkpoint.Want {
	wanted := make([]checkpoint.Want, len(last.Shards))
	for s, entry := range last.Shards {
		wanted[s].Shard = ps.ShardID(s)
		if !checkpoint.Fold(entry.Files) {
			wanted[s].Parent = entry.Files[len(entry.Files)-1].Hash
		}
	}
	return wanted
}

// join returns the manifest that follows last, how many of its shards have changed,
// and how many keep their old entry although they were asked for a new one, with the
// first one's reason.
func join(last checkpoint.Manifest, taken []checkpoint.Taken, owners []route.Shard) (next checkpoint.Manifest, changed, kept int, because error) {
	next = last
	next.Shards = append([]checkpoint.Shard(nil), last.Shards...)
	for _, t := range taken {
		entry, why := follow(last.Shards[t.Shard], t, owners[t.Shard].Fence)
		if why != nil {
			kept++
			if because == nil {
				because = why
			}
			continue
		}
		if t.File.Bytes > 0 {
			changed++
		}
		next.Shards[t.Shard] = entry
	}
	return next, changed, kept, because
}

// follow returns the entry that follows last, or why there is none.
func follow(last checkpoint.Shard, t checkpoint.Taken, owned ps.Fence) (checkpoint.Shard, error) {
	switch {
	case t.Err != nil:
		return last, t.Err
	case t.Fence != owned:
		return last, fmt.Errorf("its snapshot was taken under fence %d, it is owned under fence %d", t.Fence, owned)
	case len(t.Applied) != len(last.Applied):
		return last, fmt.Errorf("its snapshot is of %d partitions, want %d", len(t.Applied), len(last.Applied))
	}
	for p, applied := range t.Applied {
		if applied < last.Applied[p] {
			return last, fmt.Errorf("it has applied partition %d up to %d, the epoch before up to %d: it is still being taught again", p, applied, last.Applied[p])
		}
	}
	entry := checkpoint.Shard{Shard: t.Shard, Fence: t.Fence, Seq: last.Seq, Applied: t.Applied, Files: last.Files}
	if t.File.Bytes == 0 { // unchanged since the file that was named as parent
		return entry, nil
	}
	files, ok := checkpoint.Extend(last.Files, t.File)
	if !ok {
		return last, fmt.Errorf("its snapshot adds to file %v, which is not the epoch's", t.File.Parent)
	}
	entry.Files, entry.Seq = files, t.File.Seq
	return entry, nil
}

// retain returns the epochs that are kept beside the next one. The oldest makes room if
// every shard contributed to the next one. Else the newest does, whose entries the next one
// has as well: a shard that did not answer may have to fall back to an older epoch, or
// have done so, and newer epochs must not push that out meanwhile.
func retain(current checkpoint.Epoch, keep int, everybody bool) []checkpoint.Retained {
	kept := current.Retained
	if len(kept) < keep {
		return kept
	}
	if oldest := kept[len(kept)-1]; everybody || oldest.Lineage != current.Lineage {
		return kept[:keep-1]
	}
	return kept[len(kept)-(keep-1):]
}

// commit writes a manifest and commits it after current.
func (k *Keeper) commit(ctx context.Context, m checkpoint.Manifest, current coordinator.Epoch, everybody bool, mapRevision int64) (coordinator.Epoch, error) {
	next, err := k.record(ctx, m, current.Lineage, retain(current.Epoch, k.config.Keep, everybody))
	if err != nil {
		return coordinator.Epoch{}, err
	}
	return k.config.Store.CommitEpoch(ctx, m.Model, next, current.Revision, mapRevision)
}

// record writes a manifest and returns what is to be committed of it.
func (k *Keeper) record(ctx context.Context, m checkpoint.Manifest, lineage uint64, kept []checkpoint.Retained) (checkpoint.Epoch, error) {
	m.Lineage = lineage
	ref, err := checkpoint.WriteManifest(ctx, k.bucket, m)
	if err != nil {
		return checkpoint.Epoch{}, err
	}
	retained := checkpoint.Retained{Number: m.Epoch, Lineage: lineage, Manifest: ref, Created: m.Created.UnixMilli()}
	for p := range m.Partitions {
		retained.Events += uint64(m.Applied(ps.Partition(p)))
	}
	next := checkpoint.Epoch{Number: m.Epoch, Lineage: lineage, Bucket: k.config.Bucket, Retained: []checkpoint.Retained{retained}}
	next.Retained = append(next.Retained, kept...)
	return next, nil
}

// collect deletes what no retained epoch of the model needs.
func (k *Keeper) collect(ctx context.Context, model string, e checkpoint.Epoch) error {
	manifests := make([]checkpoint.Manifest, len(e.Retained))
	for i, r := range e.Retained {
		var err error
		if manifests[i], err = checkpoint.ReadManifest(ctx, k.bucket, r.Manifest); err != nil {
			return err
		}
	}
	var listed []string
	for _, prefix := range []string{checkpoint.SnapshotPrefix(model), checkpoint.ManifestPrefix(model)} {
		objects, err := k.bucket.List(ctx, prefix)
		if err != nil {
			return err
		}
		for _, o := range objects {
			listed = append(listed, o.Name)
		}
	}
	var errs []error
	for _, name := range checkpoint.Garbage(manifests, nil, listed) {
		if err := k.bucket.Delete(ctx, name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// SetBack makes a retained epoch the newest of a new lineage: every shard is opened
// anew from it, and the stream is learned again from its offsets. It returns the
// lineage. An epoch that is not retained is ps.ErrInvalid, with those that are, and one of
// which a file cannot be read is refused, with that file.
func (k *Keeper) SetBack(ctx context.Context, name string, number ps.Epoch) (lineage uint64, err error) {
	k.taking.Lock()
	defer k.taking.Unlock()
	v, err := k.config.Store.View(ctx)
	if err != nil {
		return 0, err
	}
	current := v.Epochs[name]
	for _, r := range current.Retained {
		if r.Number != number {
			continue
		}
		m, err := checkpoint.ReadManifest(ctx, k.bucket, r.Manifest)
		if err != nil {
			return 0, fmt.Errorf("set model %s back to epoch %d: %w", name, number, err)
		}
		if err := k.verify(ctx, m); err != nil {
			return 0, fmt.Errorf("set model %s back to epoch %d, which cannot be read whole; choose another: %w", name, number, err)
		}
		m.Parent = number
		next, err := k.beginLineage(ctx, v, m)
		if err != nil {
			return 0, fmt.Errorf("set model %s back to epoch %d: %w", name, number, err)
		}
		k.config.Logger.Info("model set back", "model", name, "epoch", number, "lineage", next.Lineage, "as", next.Number)
		return next.Lineage, nil
	}
	return 0, fmt.Errorf("model %s has no epoch %d to go back to: %s: %w", name, number, listed(current.Retained), ps.ErrInvalid)
}

// beginLineage commits a manifest, which it numbers, as the first of a new lineage, on
// condition that nothing has changed since v was read.
func (k *Keeper) beginLineage(ctx context.Context, v coordinator.View, m checkpoint.Manifest) (checkpoint.Epoch, error) {
	current := v.Epochs[m.Model]
	m.Epoch, m.Created = current.Number+1, k.config.Now()
	next, err := k.record(ctx, m, current.Lineage+1, retain(current.Epoch, k.config.Keep, true))
	if err != nil {
		return checkpoint.Epoch{}, err
	}
	shards := append([]route.Shard(nil), v.Shards...)
	for s := range shards {
		shards[s].Fence++ // every shard begins another ownership, and with it from the epoch
	}
	return next, k.config.Store.BeginLineage(ctx, m.Model, next, shards, current.Revision, v.MapRevision)
}

// verify reads every file of an epoch: whoever goes back to it has nothing else.
func (k *Keeper) verify(ctx context.Context, m checkpoint.Manifest) error {
	for _, s := range m.Shards {
		for _, f := range s.Files {
			if err := checkpoint.Verify(ctx, k.bucket, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// listed names retained epochs to people.
func listed(retained []checkpoint.Retained) string {
	if len(retained) == 0 {
		return "none was taken yet"
	}
	text := "there is"
	for i, r := range retained {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %d", r.Number)
	}
	return text
}

// look is how often Run looks whether an epoch is due.
const look = 200 * time.Millisecond

// Run takes epochs of all models, by time and by events, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	if k.config.Every == 0 && k.config.Events == 0 {
		<-ctx.Done()
		return nil
	}
	due := make(map[string]*schedule)
	ticks := time.NewTicker(look)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		v, err := k.config.Store.View(ctx)
		if err != nil || !v.Map().Complete() {
			continue // there is nothing to ask yet; others say so
		}
		for _, m := range v.Models {
			if due[m.Name] == nil {
				due[m.Name] = &schedule{at: time.Now(), events: newest(v.Epochs[m.Name].Epoch).Events}
			}
			k.takeIfDue(ctx, m.Name, due[m.Name])
		}
	}
}

// schedule is when a model's last epoch was.
type schedule struct {
	at     time.Time
	events uint64
}

// takeIfDue takes an epoch if enough time or events have passed.
func (k *Keeper) takeIfDue(ctx context.Context, model string, last *schedule) {
	isDue := k.config.Every > 0 && time.Since(last.at) >= k.config.Every
	if !isDue && k.config.Events > 0 {
		events, err := k.applied(ctx, model)
		isDue = err == nil && events >= last.events+k.config.Events
	}
	if !isDue {
		return
	}
	result, err := k.Take(ctx, model)
	last.at = time.Now()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.config.Logger.Warn("no epoch was taken; the next one tries again", "model", model, "error", err)
	default:
		last.events = result.Epoch.Events
	}
}

// applied returns how many events all shards have applied.
func (k *Keeper) applied(ctx context.Context, model string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	progress, err := k.config.Nodes.Applied(ctx, model)
	if err != nil || len(progress) == 0 {
		return 0, err
	}
	var events uint64
	for p := range progress[0].Partitions {
		lowest := progress[0].Partitions[p].Applied
		for _, s := range progress[1:] {
			lowest = min(lowest, s.Partitions[p].Applied)
		}
		events += uint64(lowest)
	}
	return events, nil
}
