package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/chain"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/delta"
	"github.com/freshet-ml/freshet/ps/shard"
)

// opening is a shard of a model that a stripe owns and does not hold yet.
type opening struct {
	model  ps.Model
	config shard.Config
}

// opened is a shard that a stripe holds.
type opened struct {
	*shard.Shard
	// files are the snapshots that the shard's rows descend from, oldest first: what
	// it was loaded from and what was written of it since. An increment of any of
	// them is a true one; of any other file it would mix two histories.
	files []checkpoint.File
	// feed is what is published of the shard; nil while nobody follows.
	feed *delta.Feed
	// turn is held while a snapshot is under way: there is one at a time, for an epoch
	// or for a copy.
	turn chan struct{}
	// promoted: it was a copy before.
	promoted bool
	// appliedAt is when a push last changed the shard; zero if none has since it was opened,
	// which was at openedAt.
	appliedAt time.Time
	openedAt  time.Time
	// keysPulled and keysPushed count keys since the shard was opened.
	keysPulled, keysPushed uint64
	// lineage is that of the epoch that was committed when the shard was opened.
	lineage uint64
}

// newOpened returns a shard that descends from the given files.
func newOpened(s *shard.Shard, files ...checkpoint.File) *opened {
	return &opened{Shard: s, files: files, turn: make(chan struct{}, 1), openedAt: time.Now()}
}

// filesMax bounds opened.files. Only the newest committed file is asked for, and at
// most one was written after it.
const filesMax = 4

// wrote adds a file that was written of the shard.
func (o *opened) wrote(f checkpoint.File) {
	o.files = append(o.files, f)
	if len(o.files) > filesMax {
		o.files = append(o.files[:0], o.files[len(o.files)-filesMax:]...)
	}
}

// file returns the file of the given hash that the shard descends from.
func (o *opened) file(hash checkpoint.Hash) (checkpoint.File, bool) {
	for _, f := range o.files {
		if f.Hash == hash && hash != (checkpoint.Hash{}) {
			return f, true
		}
	}
	return checkpoint.File{}, false
}

// Pauses between attempts to open shards whose epoch cannot be read just now.
const (
	openPauseMin = 100 * time.Millisecond
	openPauseMax = 5 * time.Second
)

// open makes the shards ready to be served, each from its model's newest committed
// epoch, and hands them to their stripes. It tries until ctx ends; a shard that is
// owned by somebody else by then is dropped by its stripe.
func (n *Node) open(ctx context.Context, list []opening) {
	byModel := make(map[string][]opening)
	for _, o := range list {
		byModel[o.model.Name] = append(byModel[o.model.Name], o)
	}
	var models errgroup.Group
	for name, shards := range byModel {
		models.Go(func() error {
			for pause := openPauseMin; ; pause = min(2*pause, openPauseMax) {
				left, err := n.openModel(ctx, name, shards)
				if ctx.Err() != nil || len(left) == 0 {
					return nil
				}
				n.config.Logger.Warn("shards are not open yet; trying again", "model", name, "shards", len(left), "error", err, "in", pause)
				shards = left
				select {
				case <-time.After(pause):
				case <-ctx.Done():
					return nil
				}
			}
		})
	}
	_ = models.Wait() // they return no errors
}

// openModel opens shards of one model. It returns those that could not be opened just
// now, and why.
func (n *Node) openModel(ctx context.Context, name string, list []opening) (left []opening, err error) {
	epoch, err := n.config.Ownership.Epoch(ctx, name)
	if err != nil {
		return list, err
	}
	source := &epochSource{epoch: epoch}
	if epoch.Number > 0 {
		if source.bucket, err = checkpoint.OpenBucket(ctx, epoch.Bucket); err != nil {
			return list, err
		}
		defer source.bucket.Close()
	}
	var mu sync.Mutex // guards left, err and promoted
	promoted := 0
	var loads errgroup.Group
	loads.SetLimit(len(n.stripes))
	for _, o := range list {
		loads.Go(func() error {
			loaded, loadErr := n.load(ctx, o, source)
			if loadErr == nil {
				loaded.lineage = epoch.Lineage
				loadErr = n.install(ctx, o, loaded)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case loadErr != nil:
				left, err = append(left, o), loadErr
			case loaded.promoted:
				promoted++
			}
			return nil
		})
	}
	_ = loads.Wait() // failures are in left
	n.config.Logger.Info("shards opened", "model", name, "promoted", promoted, "restored", len(list)-len(left)-promoted, "left", len(left), "epoch", epoch.Number)
	return left, err
}

// install hands a shard to its stripe.
func (n *Node) install(ctx context.Context, o opening, loaded *opened) error {
	s := n.stripes[n.stripeOf(o.config.ID)]
	return s.do(ctx, func(s *stripe) error {
		s.install(o, loaded)
		return nil
	})
}

// epochSource is a model's committed epochs and where they are.
type epochSource struct {
	epoch  checkpoint.Epoch
	bucket *checkpoint.Bucket // nil without an epoch

	mu        sync.Mutex
	manifests map[string]checkpoint.Manifest // guarded by mu; by name
}

// manifest returns the manifest of a retained epoch, read once.
func (s *epochSource) manifest(ctx context.Context, r checkpoint.Retained) (checkpoint.Manifest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.manifests[r.Manifest.Name]; ok {
		return m, nil
	}
	m, err := checkpoint.ReadManifest(ctx, s.bucket, r.Manifest)
	if err == nil {
		if s.manifests == nil {
			s.manifests = make(map[string]checkpoint.Manifest)
		}
		s.manifests[r.Manifest.Name] = m
	}
	return m, err
}

// load returns the copy that was kept of a shard, if it may be promoted, else the shard
// as the newest epoch of the lineage has it that can be read whole. A damaged file makes
// this shard alone fall back to an older epoch, and at last to nothing: it is then taught
// more of the stream again. What cannot be read just now is an error.
func (n *Node) load(ctx context.Context, o opening, source *epochSource) (*opened, error) {
	if promoted, err := n.promote(ctx, o, source); promoted != nil || err != nil {
		return promoted, err
	}
	for _, retained := range source.epoch.Retained {
		if retained.Lineage != source.epoch.Lineage {
			continue
		}
		m, err := source.manifest(ctx, retained)
		if err == nil {
			var loaded *shard.Shard
			if loaded, err = chain.Load(ctx, source.bucket, &m, o.config); err == nil {
				return newOpened(loaded, newest(m.Shards[o.config.ID].Files)...), nil
			}
		}
		if !errors.Is(err, ps.ErrCorrupt) {
			return nil, err
		}
		n.config.Logger.Error("a shard cannot be restored from an epoch; it falls back to an older one and is taught more of the stream again",
			"model", o.model.Name, "shard", o.config.ID, "epoch", retained.Number, "error", err)
	}
	fresh, err := shard.New(o.config)
	if err != nil {
		return nil, err
	}
	return newOpened(fresh), nil
}

// newest returns the newest file of a chain, if there is one.
func newest(files []checkpoint.File) []checkpoint.File { return files[max(0, len(files)-1):] }
