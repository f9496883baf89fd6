package simulation_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/control"
	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// leader is one life of a coordinator, with the product's control and epochs.
type leader struct {
	host
	world *world
	// leads is what it believes.
	leads   bool
	control *control.Controller
	keeper  *epochs.Keeper
	idle    int
}

func (w *world) startCoordinator(leads bool) {
	w.lives++
	c := &leader{host: host{name: fmt.Sprintf("c%d", w.lives), alive: true}, world: w, leads: leads}
	logger := slog.New(slog.DiscardHandler)
	if w.tracing != nil {
		logger = slog.New(slog.NewTextHandler(w.tracing, &slog.HandlerOptions{
			Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
					return slog.Attr{}
				}
				return a
			},
		}))
	}
	standbys := 0
	if w.planned[promotion] {
		standbys = 1
	}
	var err error
	if c.control, err = control.New(control.Config{Store: controlStore{w}, ID: c.name, Standbys: standbys, Nodes: holdings{w}, Logger: logger}); err != nil {
		panic(err)
	}
	c.keeper, err = epochs.Open(context.Background(), epochs.Config{
		Store: epochStore{w, c}, Nodes: asked{w, c}, Bucket: "sim://bucket",
		OpenBucket: func(context.Context, string) (*checkpoint.Bucket, error) { return w.bucket, nil },
		Now:        func() time.Time { return time.UnixMilli(int64(w.steps)) },
		Logger:     logger,
	})
	if err != nil {
		panic(err)
	}
	w.coordinators = append(w.coordinators, c)
	w.tracef("coordinator %s starts", c.name)
	w.spawn(&c.host, c.name, c.run)
}

// run does what a leader does, one thing after the other, in any order.
func (c *leader) run(t *task) {
	w, ctx := c.world, context.Background()
	for {
		if t.wait(func() bool { return c.leads && w.steps >= c.idle }) != nil {
			return
		}
		var err error
		switch w.random.IntN(4) {
		case 0, 1:
			var v coordinator.View
			if v, err = w.store.View(ctx); err == nil {
				err = c.control.Step(ctx, v)
			}
		default:
			if w.strikes(moving, 3) {
				shard, to := ps.ShardID(w.random.IntN(shards)), oneOf(w.random, w.places[:])
				w.tracef("%s: shard %d is to move to %s", c.name, shard, to.id)
				if err = c.control.Move(ctx, []ps.ShardID{shard}, to.id, c.name); err != nil || t.dead {
					break
				}
			}
			if w.strikes(rollback, 8) {
				err = c.setBack(ctx)
			} else if _, err = c.keeper.Take(ctx, modelName); err == nil && w.healing {
				w.takenHealed = true
			}
		}
		if t.dead {
			return
		}
		if err != nil {
			w.tracef("%s: %v", c.name, err)
		}
		c.idle = w.steps + w.random.IntN(30)/max(1, w.leaders()*w.leaders())
	}
}

// setBack sets the model back to any epoch that is kept.
func (c *leader) setBack(ctx context.Context) error {
	w := c.world
	e, err := w.store.Epoch(ctx, modelName)
	if err != nil || len(e.Retained) == 0 {
		return err
	}
	chosen := oneOf(w.random, e.Retained)
	if w.planned[trimming] && !w.whole(chosen) {
		return nil // an operator looks before, where the stream's beginning is gone
	}
	w.settingBack++
	defer func() { w.settingBack-- }()
	to := chosen.Number
	if _, err = c.keeper.SetBack(ctx, modelName, to); err == nil {
		w.tracef("%s: set back to epoch %d", c.name, to)
	}
	return err
}

// controlStore is the product's store with the two ways in that Step does not take.
type controlStore struct{ *world }

func (s controlStore) Lead(context.Context, string, func(context.Context) error) error { return nil }

func (s controlStore) WatchView(context.Context) <-chan coordinator.View { return nil }

func (s controlStore) Workers(context.Context) ([]coordinator.Worker, error) { return nil, nil }

func (s controlStore) View(ctx context.Context) (coordinator.View, error) { return s.store.View(ctx) }

func (s controlStore) Drain(context.Context, ps.NodeID, bool) error { return nil }

// Record keeps nothing: what has happened is in the transcript.
func (s controlStore) Record(context.Context, ...coordinator.Event) error { return nil }

func (s controlStore) SetMap(ctx context.Context, read coordinator.Read, shards []route.Shard, _ ...coordinator.Event) (int64, error) {
	return s.store.SetMap(ctx, read, shards)
}

func (s controlStore) SetAssignment(ctx context.Context, expected ps.Generation, a coordinator.Assignment, _ ...coordinator.Event) (coordinator.Assignment, error) {
	return s.store.SetAssignment(ctx, expected, a)
}

// holdings tells at once what a node holds, if it can be reached: what a coordinator is
// told may be old by the time that it acts, which its other reads are, too.
type holdings struct{ *world }

func (s holdings) Holdings(_ context.Context, address string) (all []ps.Holding, err error) {
	for _, n := range s.places {
		if n.address != address || !n.alive || n.pausedUntil > s.steps {
			continue
		}
		for id, c := range n.copies {
			if c == nil {
				continue
			}
			if h, whole := c.Whole(modelName, ps.ShardID(id)); whole {
				all = append(all, h)
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("nobody answers at %s: %w", address, ps.ErrUnavailable)
}

// epochStore is the product's store, where variants may come in between.
type epochStore struct {
	*world
	by *leader
}

func (s epochStore) View(ctx context.Context) (coordinator.View, error) { return s.store.View(ctx) }

func (s epochStore) CommitEpoch(ctx context.Context, model string, next checkpoint.Epoch, expected, mapRevision int64) (coordinator.Epoch, error) {
	if s.variant.collectsEarly {
		s.collect(ctx, next)
	}
	return s.store.CommitEpoch(ctx, model, next, expected, mapRevision)
}

func (s epochStore) BeginLineage(ctx context.Context, model string, next checkpoint.Epoch, shards []route.Shard, expected, mapRevision int64) error {
	return s.store.BeginLineage(ctx, model, next, shards, expected, mapRevision)
}

// asked asks the nodes for snapshots, as the product's client does.
type asked struct {
	*world
	by *leader
}

func (a asked) TakeSnapshots(ctx context.Context, _, _ string, wants []checkpoint.Want) ([]checkpoint.Taken, error) {
	routes, err := a.store.Map(ctx)
	if err != nil {
		return nil, err
	}
	taken := make([]checkpoint.Taken, len(wants))
	byNode := make(map[ps.NodeID][]checkpoint.Want)
	var order []ps.NodeID
	for i, want := range wants {
		taken[i] = checkpoint.Taken{Shard: want.Shard, Err: ps.ErrUnavailable}
		owner := routes.Shards[want.Shard].Owner
		if !slices.Contains(order, owner) {
			order = append(order, owner)
		}
		byNode[owner] = append(byNode[owner], want)
	}
	var calls []*call
	for _, owner := range order {
		list := byNode[owner]
		calls = append(calls, a.send(a.by.name, string(owner), fmt.Sprintf("write snapshots of %d shards", len(list)), func(n *node, _ delivery) (any, error) {
			return later{func(t *task) (any, error) { return n.takeSnapshots(t, list), nil }}, nil
		}))
	}
	if err := a.current.wait(all(calls)); err != nil {
		return nil, err
	}
	for _, c := range calls {
		if c.err != nil {
			continue
		}
		for _, t := range c.result.([]checkpoint.Taken) {
			taken[t.Shard] = a.variant.taken(a.world, t)
		}
	}
	return taken, nil
}

func (a asked) Applied(context.Context, string) ([]ps.ShardProgress, error) {
	return nil, ps.ErrUnavailable // only automatic epochs ask
}

// trim lets the stream begin at what the oldest epoch that is kept still needs. It is
// what whoever keeps the stream does, and no part of the product.
func (w *world) trimmer(t *task) {
	for {
		next := w.steps + 20 + w.random.IntN(40)
		if t.wait(func() bool { return w.steps >= next }) != nil {
			return
		}
		e, err := w.store.Epoch(context.Background(), modelName)
		if err != nil || len(e.Retained) < 3 {
			continue
		}
		if w.variant.trimsToNewest {
			e.Retained = e.Retained[:1]
		}
		to := [partitions]ps.Offset{}
		for i, r := range e.Retained {
			m, err := checkpoint.ReadManifest(context.Background(), w.bucket, r.Manifest)
			for p := range to {
				if err != nil {
					to[p] = 0
				} else if o := m.Applied(ps.Partition(p)); i == 0 || o < to[p] {
					to[p] = o
				}
			}
		}
		for p, o := range to {
			if o > w.stream.start[p] {
				w.tracef("partition %d is trimmed up to %d", p, o)
				w.stream.start[p] = o
				w.bite(trimming)
			}
		}
		w.examineStart()
	}
}

// collect deletes, for a variant, what an epoch will need no more, before its commit.
func (s epochStore) collect(ctx context.Context, next checkpoint.Epoch) {
	var manifests []checkpoint.Manifest
	for _, r := range next.Retained {
		m, err := checkpoint.ReadManifest(ctx, s.bucket, r.Manifest)
		if err != nil {
			return
		}
		manifests = append(manifests, m)
	}
	for _, name := range checkpoint.Garbage(manifests, nil, slices.Clone(s.disk.names)) {
		_ = s.bucket.Delete(ctx, name)
	}
}
