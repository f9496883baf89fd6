// Package node is the life of one parameter-server process: it owns the shards
// that the shard map gives it, holds their state for every model, and answers
// pulls and pushes for them. It speaks no protocol (see ps/server) and knows no
// etcd: whoever wires it hands it an Ownership.
//
// The one idea to keep in mind: the shards are dealt out to stripes, and each
// stripe has one writer at a time, whoever holds its lock, reading or writing. No
// lock is taken per row, key or shard, and a push and a pull of the same shard
// never overlap.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// Ownership tells a node what it owns. Both channels give the current value
// first and then newer ones, may skip values that were overtaken, and are closed
// when ctx ends.
type Ownership interface {
	WatchMap(ctx context.Context) <-chan route.Map
	// WatchModels gives all models of the cluster.
	WatchModels(ctx context.Context) <-chan []ps.Model
	// Epoch returns what is committed of a model; its Number is 0 if nothing is.
	Epoch(ctx context.Context, model string) (checkpoint.Epoch, error)
}

// Config is what a node needs.
type Config struct {
	// ID names this life of the process in the shard map.
	ID ps.NodeID
	// Ownership says what it owns.
	Ownership Ownership
	// Copies, if not nil, brings the copies that the map says the node keeps.
	Copies Copies
	// Stripes is the number of writers. Default: one per processor.
	Stripes int
	// RowsMax bounds the rows of one table in one shard; a push beyond it is
	// refused with ps.ErrOutOfMemory. Default 0: no bound.
	RowsMax int
	Logger  *slog.Logger
}

func (c *Config) validate() error {
	if c.ID == "" || c.Ownership == nil || c.Logger == nil {
		return fmt.Errorf("a node needs an id, an ownership and a logger: %w", ps.ErrInvalid)
	}
	if c.Stripes == 0 {
		c.Stripes = runtime.GOMAXPROCS(0)
	}
	if c.Stripes < 0 || c.RowsMax < 0 {
		return fmt.Errorf("node with %d stripes and at most %d rows: %w", c.Stripes, c.RowsMax, ps.ErrInvalid)
	}
	return nil
}

// pullBytesMax bounds the rows of one pull. More would not fit a message (see
// ps/wire), and the memory is taken before anything else is known to be right.
const pullBytesMax = 64 << 20

// Node serves shards. Pull, Lookup, Push and Applied are safe for concurrent use. Until
// Run has taken in the first shard map and models, and after it has returned,
// they return ps.ErrUnavailable.
type Node struct {
	config   Config
	stripes  []*stripe
	standbys standbys
	stopped  chan struct{} // closed when Run returns

	mu     sync.RWMutex
	routes route.Map         // guarded by mu
	models map[string]layout // guarded by mu; by name

	lookups sync.Pool // of *[]uint64: rows that are to be encoded

	ready chan struct{} // closed once what the first map gives is open
	once  sync.Once     // closes ready
}

// layout is what a request has to agree with. It is immutable.
type layout struct {
	hash   uint64
	tables []ps.Table
	widths []int // bytes of a row, by table
}

// New returns a node that does nothing until Run.
func New(c Config) (*Node, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := &Node{config: c, stopped: make(chan struct{}), ready: make(chan struct{})}
	n.standbys = standbys{node: n, models: make(map[string]*modelCopies)}
	for range c.Stripes {
		n.stripes = append(n.stripes, newStripe(n.config.RowsMax, c.Logger))
	}
	return n, nil
}

// Run takes in ownership and serves until ctx ends. It returns nil then.
func (n *Node) Run(ctx context.Context) error {
	defer close(n.stopped)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range n.stripes {
		g.Go(func() error { return s.run(ctx) })
	}
	g.Go(func() error { return n.follow(ctx) })
	return g.Wait()
}

// follow hands every change of the map or the models to the stripes.
func (n *Node) follow(ctx context.Context) error {
	maps := n.config.Ownership.WatchMap(ctx)
	modelLists := n.config.Ownership.WatchModels(ctx)
	var current route.Map
	var models []ps.Model
	var mapKnown, modelsKnown bool
	var openings sync.WaitGroup
	defer openings.Wait()
	defer n.standbys.wg.Wait()
	for {
		select {
		case m, ok := <-maps:
			if !ok {
				return nil
			}
			current, mapKnown = m, true
		case list, ok := <-modelLists:
			if !ok {
				return nil
			}
			models, modelsKnown = list, true
		case <-ctx.Done():
			return nil
		}
		if mapKnown && modelsKnown {
			n.standbys.hold(ctx, current, models)
			missing, mapped := n.take(ctx, current, models), len(current.Shards) > 0
			openings.Go(func() {
				n.open(ctx, missing)
				if mapped {
					n.once.Do(func() { close(n.ready) })
				}
			})
		}
	}
}

// take makes the stripes own what m and models say and answer by them, and returns
// what is to be opened.
func (n *Node) take(ctx context.Context, m route.Map, models []ps.Model) (missing []opening) {
	owned := m.Owned(n.config.ID)
	for i, s := range n.stripes {
		mine := make(map[ps.ShardID]ps.Fence)
		for shard, fence := range owned {
			if n.stripeOf(shard) == i {
				mine[shard] = fence
			}
		}
		if s.do(ctx, func(s *stripe) error {
			missing = append(missing, s.hold(mine, models, len(m.Shards))...)
			return nil
		}) != nil {
			return nil
		}
	}
	layouts := make(map[string]layout, len(models))
	for _, model := range models {
		l := layout{hash: model.Layout.Hash(), tables: model.Layout.Tables}
		for _, t := range model.Layout.Tables {
			l.widths = append(l.widths, t.RowBytes())
		}
		layouts[model.Name] = l
	}
	n.mu.Lock()
	n.routes, n.models = m, layouts
	n.mu.Unlock()
	return missing
}

// Ready is closed once the node serves what its first shard map and models give it.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// serving returns ps.ErrUnavailable before the node is ready. After its end the
// stripes say so themselves.
func (n *Node) serving() error {
	select {
	case <-n.ready:
		return nil
	default:
		return fmt.Errorf("node %s has no shard map yet: %w", n.config.ID, ps.ErrUnavailable)
	}
}

func (n *Node) stripeOf(s ps.ShardID) int { return int(s) % len(n.stripes) }

// layout returns what requests for a model have to agree with.
func (n *Node) layout(name string, hash uint64) (layout, error) {
	if err := n.serving(); err != nil {
		return layout{}, err
	}
	n.mu.RLock()
	model, known := n.models[name]
	n.mu.RUnlock()
	switch {
	case !known:
		return layout{}, fmt.Errorf("model %q: %w", name, ps.ErrUnknownModel)
	case model.hash != hash:
		return layout{}, fmt.Errorf("model %q is asked for by layout %016x, the cluster's is %016x: %w", name, hash, model.hash, ps.ErrModelMismatch)
	}
	return model, nil
}

// Sizes appends, for each of p's tables, the bytes of the rows that p asks for. It
// returns ps.ErrUnknownModel, ps.ErrModelMismatch, ps.ErrInvalid (an unknown table),
// ps.ErrTooLarge or ps.ErrUnavailable.
func (n *Node) Sizes(p *ps.Pull, to []int) ([]int, error) {
	model, err := n.layout(p.Model, p.Layout)
	if err != nil {
		return to, err
	}
	total := 0
	for i := range p.Tables {
		table := &p.Tables[i]
		if int64(table.Table) >= int64(len(model.widths)) {
			return to, fmt.Errorf("model %q has %d tables, table %d was asked for: %w", p.Model, len(model.widths), table.Table, ps.ErrInvalid)
		}
		size := len(table.Keys) * model.widths[table.Table]
		if total += size; total > pullBytesMax {
			return to, fmt.Errorf("pull of more than %d bytes of rows: pull fewer keys at a time: %w", pullBytesMax, ps.ErrTooLarge)
		}
		to = append(to, size)
	}
	return to, nil
}

// Pull reads rows into values: for each of p's tables (keys, width) elements, as many
// bytes as Sizes says, aligned for the table's kind. It returns what Sizes does, and
// ps.ErrNotOwner, ps.ErrNoOwner and ps.ErrInvalid (a key of another shard, values of
// another size); values then hold anything.
//
// The caller's goroutine does the work: handing it to others costs two switches for each
// stripe, which is more than reading a few hundred rows.
func (n *Node) Pull(ctx context.Context, p *ps.Pull, values [][]byte) error {
	model, err := n.layout(p.Model, p.Layout)
	if err != nil {
		return err
	}
	var few [stripesFew]bool
	busy := n.idle(few[:0])
	for t := range p.Tables {
		table := &p.Tables[t]
		if int64(table.Table) >= int64(len(model.widths)) || t >= len(values) || len(values[t]) != len(table.Keys)*model.widths[table.Table] {
			return fmt.Errorf("pull of %d keys of table %d into memory for others: %w", len(table.Keys), table.Table, ps.ErrInvalid)
		}
		for i, count := range table.Counts {
			if count > 0 {
				busy[n.stripeOf(p.Shards[i])] = true
			}
		}
	}
	return n.each(ctx, busy, func(i int, s *stripe) error {
		return s.pull(p, values, func(id ps.ShardID) bool { return n.stripeOf(id) == i })
	})
}

// stripesFew are as many stripes as most nodes have at most.
const stripesFew = 64

// idle returns one false for each stripe, in the memory of few if it is enough.
func (n *Node) idle(few []bool) []bool {
	for range n.stripes {
		few = append(few, false)
	}
	return few
}

// each runs op on the busy stripes, one after the other, and returns the first error. It
// begins with those that nobody else works on.
func (n *Node) each(ctx context.Context, busy []bool, op func(i int, s *stripe) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, wait := range []bool{false, true} {
		for i, s := range n.stripes {
			if !busy[i] || (!wait && !s.mu.TryLock()) {
				continue
			}
			if wait {
				s.mu.Lock()
			}
			err := s.doLocked(func(s *stripe) error { return op(i, s) })
			s.mu.Unlock()
			if err != nil {
				return err
			}
			busy[i] = false
		}
	}
	return nil
}

// Push applies an update's items, each as one step, and answers each in its
// place. An error is about the node as a whole: ps.ErrUnavailable.
func (n *Node) Push(ctx context.Context, u *ps.Update) ([]ps.Answer, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	answers, now := make([]ps.Answer, len(u.Items)), time.Now()
	var few [stripesFew]bool
	busy := n.idle(few[:0])
	for k := range u.Items {
		busy[n.stripeOf(u.Items[k].Shard)] = true
	}
	if err := n.each(ctx, busy, func(i int, s *stripe) error {
		for k := range u.Items {
			if n.stripeOf(u.Items[k].Shard) == i {
				answers[k] = s.push(u, &u.Items[k], now)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return answers, nil
}

// Applied returns how far the given shards have applied a model's stream, in their
// order; none given means all owned ones, ascending. It returns
// ps.ErrUnknownModel, ps.ErrNotOwner, ps.ErrInvalid (more shards than a cluster can
// have) or ps.ErrUnavailable.
func (n *Node) Applied(ctx context.Context, model string, shards []ps.ShardID) ([]ps.ShardProgress, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	n.mu.RLock()
	_, known := n.models[model]
	if len(shards) == 0 {
		for s, shard := range n.routes.Shards {
			if shard.Owner == n.config.ID {
				shards = append(shards, ps.ShardID(s))
			}
		}
	}
	n.mu.RUnlock()
	switch {
	case !known:
		return nil, fmt.Errorf("model %q: %w", model, ps.ErrUnknownModel)
	case len(shards) > ps.ShardsMax:
		return nil, fmt.Errorf("asked about %d shards, a cluster has at most %d: %w", len(shards), ps.ShardsMax, ps.ErrInvalid)
	}
	progress := make([]ps.ShardProgress, len(shards))
	busy := make([]bool, len(n.stripes))
	for _, id := range shards {
		busy[n.stripeOf(id)] = true
	}
	if err := n.each(ctx, busy, func(i int, s *stripe) error {
		for k, id := range shards {
			if n.stripeOf(id) != i {
				continue
			}
			held, err := s.shard(model, id)
			if err != nil {
				return err
			}
			progress[k] = held.Progress()
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return progress, nil
}
