// Package sink keeps a copy of a model's weights in a store that is not Freshet's, such
// as Redis, so that whoever reads there already goes on to.
//
// It follows all shards of the model, as a standby does, and hands their rows to a Target.
// It knows neither what a row's key is called there nor how its weights are written, and
// it deletes nothing.
//
// The one idea to keep in mind: rows are state, never increments. To write a row twice, or
// an older base over half of a newer one that follows, does no harm once the rest has
// come; so rows are written at least once, and a shard's position only after its rows.
//
// Invariants:
//
//  1. A position in the target stands for rows that are all there: those of its boundary,
//     or newer ones.
//  2. Of a shard, rows are written in the order of (fence, seq); what a former owner sends
//     after its successor has begun is not written.
//  3. A target that has lost what was written, as a Redis without persistence that was
//     restarted, is written from the bases again.
//  4. What is held in memory is bounded, however slow the target is: the shards' owners
//     then cut the sink off, and it begins again with their bases.
package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
)

// Source is what a sink follows.
type Source interface {
	// Follow calls take with bases and deltas of all shards until ctx ends. It may call
	// it from several goroutines, but for one node's shards from one at a time. After an
	// error of take it begins the shard again with a base. ps/client says more.
	Follow(ctx context.Context, take func(*ps.Delta) error) error
}

// ErrLost says that a target is not where the sink has left it: it was emptied, or set
// back to an older state.
var ErrLost = errors.New("what was written is lost")

// Target is where rows are written. One goroutine calls it.
type Target interface {
	// Positions returns what was written by an earlier sink of the same rows in the same
	// form, by shard, and forgets what was in another form. An error is as Write's.
	Positions(ctx context.Context) (map[ps.ShardID]Position, error)
	// Write stores all of the batch's rows, later ones over earlier ones, and only then
	// its positions. An error that wraps ps.ErrUnavailable passes: Write is called again
	// with the same batch. After one that wraps ErrLost the sink begins anew, with
	// Positions. Any other ends the sink.
	Write(ctx context.Context, b *Batch) error
}

// Position is how far a shard is in the target.
type Position struct {
	Fence ps.Fence `json:"fence"`
	Seq   uint64   `json:"seq"`
	// Rows counts the shard's rows of all tables, also of those that are not written.
	Rows uint64 `json:"rows"`
	// Applied is the first offset that is not applied, by partition.
	Applied []ps.Offset `json:"applied"`
	// EventTime is the largest that is applied, in milliseconds since 1970; 0 if unknown.
	EventTime int64 `json:"event_time"`
}

// positionOf returns where a delta leads.
func positionOf(d *ps.Delta) Position {
	p := Position{Fence: d.Fence, Seq: d.Seq, Rows: d.Rows, Applied: make([]ps.Offset, len(d.Partitions))}
	for i, at := range d.Partitions {
		p.Applied[i] = at.Applied
		p.EventTime = max(p.EventTime, at.EventTime)
	}
	return p
}

// same reports whether p and q are one boundary. Fence and Seq alone say so within a
// cluster; the rest is for one that was made anew and counts from the beginning.
func (p Position) same(q Position) bool {
	return p.Fence == q.Fence && p.Seq == q.Seq && p.Rows == q.Rows && p.EventTime == q.EventTime && slices.Equal(p.Applied, q.Applied)
}

// Config is what a sink needs.
type Config struct {
	Source Source
	Target Target
	// Model is followed. Tables are those of its layout that are written, all of them of
	// kind float32.
	Model  ps.Model
	Tables []ps.TableID
	// Shards is the cluster's number of shards.
	Shards int
	// Once ends the sink when every shard was written as it was at one moment.
	Once bool
	// Metrics, if not nil, is told what is written.
	Metrics prometheus.Registerer
	Logger  *slog.Logger
}

func (c *Config) validate() error {
	if c.Source == nil || c.Target == nil || c.Logger == nil {
		return fmt.Errorf("a sink needs a source, a target and a logger: %w", ps.ErrInvalid)
	}
	if err := ps.ValidShards(c.Shards); err != nil {
		return err
	}
	for _, id := range c.Tables {
		if int(id) >= len(c.Model.Layout.Tables) || c.Model.Layout.Tables[id].Kind != ps.Float32 {
			return fmt.Errorf("table %d is no table of weights of model %s: %w", id, c.Model.Name, ps.ErrInvalid)
		}
	}
	if len(c.Tables) == 0 {
		return fmt.Errorf("a sink without tables to write: %w", ps.ErrInvalid)
	}
	return nil
}

// Sink writes one model to one target. Run is called once; Figures at any time, by
// anybody.
type Sink struct {
	config  Config
	metrics metrics

	mu      sync.Mutex
	shards  []shard // guarded by mu; by ps.ShardID
	figures tally   // guarded by mu
}

// New returns a sink. It wraps ps.ErrInvalid.
func New(config Config) (*Sink, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	s := &Sink{config: config, shards: make([]shard, config.Shards)}
	var err error
	s.metrics, err = newMetrics(config.Metrics, config.Model.Name)
	return s, err
}

const (
	// queueDepth deltas wait for the target; each has at most some 256 KiB of changes or
	// one block of a base, but for what a single push changed.
	queueDepth = 32
	// batchBytes of rows are written at once, if as many wait.
	batchBytes = 1 << 20
	// While the target is away it is asked again after a pause that doubles.
	pauseMin, pauseMax = 50 * time.Millisecond, 5 * time.Second
)

// work is a delta that is to be written.
type work struct {
	delta *ps.Delta
	// known says that its rows are in the target already.
	known bool
}

// Run writes until ctx ends, and returns nil then; with Once, until all is written, and
// ctx's error if it ends before. While the target is away it waits and says so. It
// returns the target's error if that does not pass.
func (s *Sink) Run(ctx context.Context) error {
	err := s.run(ctx)
	for errors.Is(err, ErrLost) && ctx.Err() == nil {
		s.config.Logger.Warn("the sink begins anew", "because", err)
		s.mu.Lock()
		clear(s.shards)
		s.mu.Unlock()
		err = s.run(ctx)
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		if s.config.Once && !s.done() {
			return ctx.Err()
		}
		return nil
	}
	return err
}

func (s *Sink) run(ctx context.Context) error {
	var stored map[ps.ShardID]Position
	err := s.insist(ctx, func() (err error) {
		stored, err = s.config.Target.Positions(ctx)
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	for id, p := range stored {
		if int(id) < len(s.shards) {
			s.shards[id].stored = p
		}
	}
	s.mu.Unlock()
	ctx, end := context.WithCancel(ctx)
	defer end()
	queue := make(chan work, queueDepth) // closed when nobody follows any more
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		return s.config.Source.Follow(ctx, func(d *ps.Delta) error { return s.take(ctx, d, queue) })
	})
	g.Go(func() error {
		defer end()
		return s.write(ctx, queue)
	})
	return g.Wait()
}

// take queues a delta, and waits while the queue is full.
func (s *Sink) take(ctx context.Context, d *ps.Delta, queue chan<- work) error {
	if err := s.check(d); err != nil {
		return err
	}
	s.mu.Lock()
	f := &s.shards[d.Shard]
	if s.config.Once && f.written {
		s.mu.Unlock()
		return nil
	}
	admitted, err := f.admit(d)
	w := work{delta: d, known: f.known && d.Since == 0}
	s.mu.Unlock()
	if err != nil || !admitted {
		return err
	}
	select {
	case queue <- w:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check reports a delta that cannot be of the model.
func (s *Sink) check(d *ps.Delta) error {
	if int(d.Shard) >= len(s.shards) {
		return fmt.Errorf("a delta of shard %d of %d: %w", d.Shard, len(s.shards), ps.ErrCorrupt)
	}
	tables := s.config.Model.Layout.Tables
	for _, b := range d.Blocks {
		if int(b.Table) >= len(tables) || b.Stride < weightsAt+tables[b.Table].RowBytes() || len(b.Rows)%b.Stride != 0 {
			return fmt.Errorf("shard %d: %d bytes in rows of %d of table %d are not of this layout: %w",
				d.Shard, len(b.Rows), b.Stride, b.Table, ps.ErrCorrupt)
		}
	}
	return nil
}

// insist calls f until it has done what it should or cannot, or ctx ends.
func (s *Sink) insist(ctx context.Context, f func() error) error {
	var away time.Time // since when
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		err := f()
		if err == nil {
			if !away.IsZero() {
				s.config.Logger.Info("the target is back", "after", time.Since(away).Round(time.Millisecond))
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, ps.ErrUnavailable) {
			return err
		}
		if away.IsZero() {
			away = time.Now()
		}
		s.config.Logger.Warn("the target cannot be reached; trying again", "in", pause, "error", err)
		s.metrics.retries.Inc()
		s.mu.Lock()
		s.figures.retries++
		s.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// done reports whether every shard has been written whole.
func (s *Sink) done() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.shards, func(f shard) bool { return !f.written })
}
