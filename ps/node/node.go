// Package node is the life of one parameter-server process: it owns the shards
// that the shard map gives it, holds their state for every model, and answers
// pulls and pushes for them. It speaks no protocol (see ps/server) and knows no
// etcd: whoever wires it hands it an Ownership.
//
// The one idea to keep in mind: the shards are dealt out to stripes, and each
// stripe is one goroutine that alone touches its shards, reading or writing. No
// lock is taken per row, key or shard, and a push and a pull of the same shard
// never overlap.
package node

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

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

// Node serves shards. Pull, Push and Applied are safe for concurrent use. Until
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

	ready chan struct{} // closed once what the first map gives is open
	once  sync.Once     // closes ready
}

// layout is what a request has to agree with. It is immutable.
type layout struct {
	hash   uint64
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
	lists := make(chan []opening, len(n.stripes))
	for i, s := range n.stripes {
		mine := make(map[ps.ShardID]ps.Fence)
		for shard, fence := range owned {
			if n.stripeOf(shard) == i {
				mine[shard] = fence
			}
		}
		if s.do(ctx, func(s *stripe) { lists <- s.hold(mine, models, len(m.Shards)) }) != nil {
			return nil
		}
	}
	for range n.stripes {
		select {
		case list := <-lists:
			missing = append(missing, list...)
		case <-ctx.Done():
			return nil
		}
	}
	layouts := make(map[string]layout, len(models))
	for _, model := range models {
		l := layout{hash: model.Layout.Hash()}
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

// Pull reads rows: for each of p's tables (keys, width) elements. It returns
// ps.ErrUnknownModel, ps.ErrModelMismatch, ps.ErrNotOwner, ps.ErrInvalid (an
// unknown table, a key of another shard), ps.ErrTooLarge or ps.ErrUnavailable.
func (n *Node) Pull(ctx context.Context, p *ps.Pull) ([][]byte, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	n.mu.RLock()
	model, known := n.models[p.Model]
	n.mu.RUnlock()
	switch {
	case !known:
		return nil, fmt.Errorf("model %q: %w", p.Model, ps.ErrUnknownModel)
	case model.hash != p.Layout:
		return nil, fmt.Errorf("pull of model %q with layout %016x, the cluster's is %016x: %w", p.Model, p.Layout, model.hash, ps.ErrModelMismatch)
	}
	reads := make([]pullRead, 0, len(p.Tables)*len(p.Shards))
	values := make([][]byte, len(p.Tables))
	total := 0
	for t, table := range p.Tables {
		if int64(table.Table) >= int64(len(model.widths)) {
			return nil, fmt.Errorf("model %q has %d tables, table %d was asked for: %w", p.Model, len(model.widths), table.Table, ps.ErrInvalid)
		}
		width := model.widths[table.Table]
		if total += len(table.Keys) * width; total > pullBytesMax {
			return nil, fmt.Errorf("pull of more than %d bytes of rows: pull fewer keys at a time: %w", pullBytesMax, ps.ErrTooLarge)
		}
		values[t] = make([]byte, len(table.Keys)*width)
		at := 0
		for i, shard := range p.Shards {
			end := at + int(table.Counts[i])
			if end > at {
				reads = append(reads, pullRead{shard, table.Table, table.Keys[at:end], values[t][at*width : end*width]})
			}
			at = end
		}
	}
	busy := make([]bool, len(n.stripes))
	for k := range reads {
		busy[n.stripeOf(reads[k].shard)] = true
	}
	if err := n.each(ctx, busy, func(i int, s *stripe) error {
		return s.pull(p.Model, reads, func(id ps.ShardID) bool { return n.stripeOf(id) == i })
	}); err != nil {
		return nil, err
	}
	return values, nil
}

// each runs op on the busy stripes, each by its own goroutine, and returns the first
// error. It waits for all of them even if the caller is gone, since they write to its
// memory.
func (n *Node) each(ctx context.Context, busy []bool, op func(i int, s *stripe) error) error {
	errs := make(chan error, len(n.stripes))
	var failed error
	sent := 0
	for i, s := range n.stripes {
		if !busy[i] {
			continue
		}
		if failed = s.do(ctx, func(s *stripe) { errs <- op(i, s) }); failed != nil {
			break
		}
		sent++
	}
	for range sent {
		select {
		case err := <-errs:
			if failed == nil {
				failed = err
			}
		case <-n.stopped:
			return fmt.Errorf("node %s stopped: %w", n.config.ID, ps.ErrUnavailable)
		}
	}
	return failed
}

// Push applies an update's items, each as one step, and answers each in its
// place. An error is about the node as a whole: ps.ErrUnavailable.
func (n *Node) Push(ctx context.Context, u *ps.Update) ([]ps.Answer, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	answers := make([]ps.Answer, len(u.Items))
	busy := make([]bool, len(n.stripes))
	for k := range u.Items {
		busy[n.stripeOf(u.Items[k].Shard)] = true
	}
	if err := n.each(ctx, busy, func(i int, s *stripe) error {
		for k := range u.Items {
			if n.stripeOf(u.Items[k].Shard) == i {
				answers[k] = s.push(u, &u.Items[k])
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
