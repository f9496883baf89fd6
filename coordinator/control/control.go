// Package control is the leader's loop: it observes a cluster, plans what should
// change and carries that out. What to do is decided by a pure function of a view; how
// it is stored is the business of coordinator/meta.
//
// The one idea to keep in mind: the loop remembers nothing that matters. Every plan is
// made from a whole view and every change is a transaction against what that view
// showed, so a leader that dies, loses its lead unnoticed or acts on an old view does
// no harm, and the next view puts right what was left undone.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// Store is what control needs of the cluster's store; coordinator/meta has it. See
// there for what the methods promise.
type Store interface {
	Lead(ctx context.Context, id string, lead func(ctx context.Context) error) error
	View(ctx context.Context) (coordinator.View, error)
	Workers(ctx context.Context) ([]coordinator.Worker, error)
	WatchView(ctx context.Context) <-chan coordinator.View
	SetMap(ctx context.Context, read coordinator.Read, shards []route.Shard, events ...coordinator.Event) (revision int64, err error)
	SetAssignment(ctx context.Context, expected ps.Generation, a coordinator.Assignment, events ...coordinator.Event) (coordinator.Assignment, error)
	Drain(ctx context.Context, node ps.NodeID, drain bool) error
	Record(ctx context.Context, events ...coordinator.Event) error
}

// Config is what a Controller needs.
type Config struct {
	Store Store
	// ID names this coordinator.
	ID string
	// NodesMin is how many nodes must be there before the first shard is placed, so
	// that a cluster that starts is spread evenly. Default: 1.
	NodesMin int
	// NodesWait is how long a cluster that has lost all its nodes waits for NodesMin
	// of them to come back before it makes do with those that are there. Default: 30 s,
	// in which processes restart and machines do not.
	NodesWait time.Duration
	// WorkersMin is how many workers of a model must be there before its partitions
	// are assigned for the first time. Default: 1.
	WorkersMin int
	// Standbys is how many copies of every shard are kept on other nodes, as far as
	// there are nodes. Default: 0.
	Standbys int
	// Nodes tells which copies are whole and how much shards are used. Without it no shard
	// with a living owner is moved.
	Nodes Nodes
	// Moves is how many shards may be on the move at once to keep the nodes evenly loaded.
	// Default 0: only those move that an operator says.
	Moves int
	// Beside, if not nil, runs for as long as this coordinator leads. If it returns
	// an error, leadership ends.
	Beside func(ctx context.Context) error
	// RetryDelay is how long to wait after an error of the store. Default: 1 s.
	RetryDelay time.Duration
	// Logger is told of every change and why it was made. Default: discarded.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil {
		return fmt.Errorf("control without a store: %w", ps.ErrInvalid)
	}
	if err := coordinator.ValidID("coordinator", c.ID); err != nil {
		return err
	}
	if c.NodesMin < 0 || c.WorkersMin < 0 || c.Standbys < 0 || c.Moves < 0 || c.NodesWait < 0 || c.RetryDelay < 0 {
		return fmt.Errorf("control with %d nodes, %d workers, %d standbys, %d moves, wait %v, retry %v: want nothing negative: %w",
			c.NodesMin, c.WorkersMin, c.Standbys, c.Moves, c.NodesWait, c.RetryDelay, ps.ErrInvalid)
	}
	if c.Moves > 0 && c.Nodes == nil {
		return fmt.Errorf("control that moves shards without nodes to ask: %w", ps.ErrInvalid)
	}
	c.NodesMin, c.WorkersMin = max(c.NodesMin, 1), max(c.WorkersMin, 1)
	if c.NodesWait == 0 {
		c.NodesWait = 30 * time.Second
	}
	if c.RetryDelay == 0 {
		c.RetryDelay = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Controller is a coordinator that leads, or waits to.
type Controller struct {
	cfg Config
}

// New returns a Controller that does nothing until it is run.
func New(cfg Config) (*Controller, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Controller{cfg: cfg}, nil
}

// Run leads whenever no other coordinator does, until ctx ends; then it returns nil.
// Errors of the store are logged and tried again.
func (c *Controller) Run(ctx context.Context) error {
	for {
		err := c.cfg.Store.Lead(ctx, c.cfg.ID, c.lead)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ps.ErrInvalid) {
			return fmt.Errorf("lead the cluster: %w", err)
		}
		c.cfg.Logger.Warn("not leading; trying again", "id", c.cfg.ID, "err", err)
		timer := time.NewTimer(c.cfg.RetryDelay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// lead does what a leader does until ctx ends.
func (c *Controller) lead(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	o := newObserver(c.cfg.Nodes, c.cfg.Store, c.cfg.Logger)
	if c.cfg.Nodes != nil {
		g.Go(func() error { return o.run(ctx) })
	}
	g.Go(func() error { return c.follow(ctx, o) })
	if c.cfg.Beside != nil {
		g.Go(func() error { return c.cfg.Beside(ctx) })
	}
	return g.Wait()
}

// follow observes, plans and acts until ctx ends.
func (c *Controller) follow(ctx context.Context, o *observer) error {
	c.cfg.Logger.Info("leading the cluster", "id", c.cfg.ID)
	limits := c.limits()
	views := c.cfg.Store.WatchView(ctx)
	var view coordinator.View
	var known known
	var waiting []string                 // as last logged
	var again, patience <-chan time.Time // nil unless something is waited for
	for {
		select {
		case v, ok := <-views:
			if !ok {
				return fmt.Errorf("watch the cluster: %w", cause(ctx))
			}
			c.recordMembers(ctx, view, v)
			view = v
			latest(o.views, view)
		case known = <-o.found:
			if view.Revision == 0 {
				continue
			}
		case <-again:
		case <-patience:
			c.cfg.Logger.Warn("not all nodes have come back; going on with those that are there", "waited", c.cfg.NodesWait)
			limits.impatient = true
		}
		again = nil

		plan := decide(view, known, limits)
		switch {
		case !plan.returning:
			patience, limits.impatient = nil, false
		case patience == nil: // it stays, once it has fired, for as long as they return
			patience = time.After(c.cfg.NodesWait)
		}
		if !slices.Equal(plan.waiting, waiting) {
			waiting = plan.waiting
			if len(waiting) > 0 {
				c.cfg.Logger.Info("waiting", "because", strings.Join(waiting, "; "))
			}
		}
		if err := c.act(ctx, view, plan); err != nil {
			if ctx.Err() != nil {
				return cause(ctx)
			}
			c.cfg.Logger.Warn("a change was not made; trying again", "err", err)
			again = time.After(c.cfg.RetryDelay)
		}
	}
}

// Step plans what should change in the cluster of one view and carries it out, as a
// leader does with every view of it, except that it never loses its patience with
// nodes that are to come back, and knows of no load.
func (c *Controller) Step(ctx context.Context, v coordinator.View) error {
	var k known
	if moving := targets(v); len(moving) > 0 && c.cfg.Nodes != nil {
		k.whole = whole(v, newObserver(c.cfg.Nodes, c.cfg.Store, c.cfg.Logger).ask(ctx, moving))
	}
	return c.act(ctx, v, decide(v, k, c.limits()))
}

func (c *Controller) limits() limits {
	return limits{nodesMin: c.cfg.NodesMin, workersMin: c.cfg.WorkersMin, standbys: c.cfg.Standbys, moves: c.cfg.Moves}
}

// cause returns why ctx ended, or that a watch ended without it.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return fmt.Errorf("the store is closed: %w", ps.ErrUnavailable)
}

// act carries a plan out. What somebody else has changed since the view is left to
// the next one, which is on its way for just that reason. One change's failing does not
// keep the others.
func (c *Controller) act(ctx context.Context, v coordinator.View, p plan) error {
	var errs []error
	if p.shards != nil {
		events := p.events(c.cfg.ID)
		revision, err := c.cfg.Store.SetMap(ctx, v.Read(), p.shards, events...)
		switch {
		case errors.Is(err, ps.ErrConflict):
			c.cfg.Logger.Debug("the shard map has changed meanwhile; looking again", "err", err)
		case err != nil:
			errs = append(errs, err)
		default:
			for _, e := range events {
				c.cfg.Logger.Info(e.What, "because", e.Why, "revision", revision)
			}
		}
	}
	for _, a := range p.assignments {
		because := difference(v.Assignments[a.Model].Owners, a.Owners)
		event := coordinator.Event{
			Kind: coordinator.EventPartitions, Why: because, By: c.cfg.ID,
			What: fmt.Sprintf("%d partitions of model %s are read by %d workers", len(a.Owners), a.Model, a.Workers),
		}
		set, err := c.cfg.Store.SetAssignment(ctx, a.Generation, a, event)
		switch {
		case errors.Is(err, ps.ErrConflict):
			c.cfg.Logger.Debug("the assignment has changed meanwhile; looking again", "model", a.Model, "err", err)
		case err != nil:
			errs = append(errs, err)
		default:
			c.cfg.Logger.Info("partitions are assigned anew", "model", set.Model, "partitions", len(set.Owners),
				"workers", set.Workers, "generation", set.Generation, "because", because)
		}
	}
	return errors.Join(errs...)
}

// difference says who came and who left between two lists of owners.
func difference(before, after []string) string {
	were, are := distinct(before), distinct(after)
	var parts []string
	for _, name := range are {
		if _, found := slices.BinarySearch(were, name); !found {
			parts = append(parts, name+" joined")
		}
	}
	for _, name := range were {
		if _, found := slices.BinarySearch(are, name); !found {
			parts = append(parts, name+" left")
		}
	}
	return strings.Join(parts, ", ")
}

// distinct returns the names in owners, sorted.
func distinct(owners []string) []string {
	names := slices.Clone(owners)
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > 0 && names[0] == "" {
		names = names[1:]
	}
	return names
}

// recordMembers records who has come and gone between two views. What happened while
// nobody led is not among it; events are for people.
func (c *Controller) recordMembers(ctx context.Context, before, after coordinator.View) {
	if before.Revision == 0 {
		return
	}
	were, are := members(before), members(after)
	var events []coordinator.Event
	for _, name := range are {
		if !slices.Contains(were, name) {
			events = append(events, coordinator.Event{Kind: coordinator.EventMember, What: name + " joined", By: c.cfg.ID})
		}
	}
	for _, name := range were {
		if !slices.Contains(are, name) {
			events = append(events, coordinator.Event{
				Kind: coordinator.EventMember, What: name + " is gone", Why: "it left, was expelled or was not heard of", By: c.cfg.ID,
			})
		}
	}
	if err := c.cfg.Store.Record(ctx, events...); err != nil {
		c.cfg.Logger.Debug("events are not recorded", "events", len(events), "err", err)
	}
}

func members(v coordinator.View) (names []string) {
	for _, n := range v.Nodes {
		names = append(names, "node "+string(n.ID))
	}
	for _, w := range v.Workers {
		names = append(names, "worker "+w.ID)
	}
	return names
}
