package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// What an operator asks for is a change of the map like every other: a coordinator that
// does not lead makes it as well, and whoever leads carries on from there.

// changeTries is how often a change that an operator asks for is tried against a map that
// changes meanwhile.
const changeTries = 20

// loadSample is for how long the use of shards is counted for an operator, this many times.
const (
	loadSample  = 100 * time.Millisecond
	loadSamples = 20
)

// Move makes shards move to a node, or stay where they are if it is "". It returns when
// that is agreed on, not when they have arrived. The error wraps ps.ErrInvalid for a shard
// that the cluster does not have or a node that is not there, ps.ErrConflict for one that is
// to give up what it has, and ps.ErrNoOwner for a shard without an owner, which nothing can be
// copied from. by is who asks.
func (c *Controller) Move(ctx context.Context, shards []ps.ShardID, to ps.NodeID, by string) error {
	return c.change(ctx, func(v coordinator.View) ([]route.Shard, []coordinator.Event, error) {
		live, _ := living(v.Nodes)
		target := slices.IndexFunc(live, func(n placement.Node) bool { return n.ID == to })
		switch {
		case to != "" && target < 0:
			return nil, nil, fmt.Errorf("move shards to node %s: it is not there: %w", to, ps.ErrInvalid)
		case to != "" && live[target].Draining:
			return nil, nil, fmt.Errorf("move shards to node %s: it is being drained: %w", to, ps.ErrConflict)
		}
		next := slices.Clone(v.Shards)
		var p plan
		for _, id := range shards {
			if int(id) >= len(next) {
				return nil, nil, fmt.Errorf("move shard %d: the cluster has shards 0 to %d: %w", id, len(next)-1, ps.ErrInvalid)
			}
			s := &next[id]
			before := s.Target
			switch s.Target = to; {
			case !slices.ContainsFunc(live, func(n placement.Node) bool { return n.ID == s.Owner }):
				return nil, nil, fmt.Errorf("move shard %d: it has no living owner to be copied from: %w", id, ps.ErrNoOwner)
			case s.Owner == to:
				s.Target = ""
			}
			switch s.Target {
			case before:
			case "":
				p.change(id, "an operator wants it", "to stay at %s", s.Owner)
			default:
				p.change(id, "an operator wants it", "to move from %s to %s", s.Owner, s.Target)
			}
		}
		return next, p.events(by), nil
	})
}

// Rebalance returns the moves of shards that would load the nodes evenly, and makes them
// begin, all at once, unless it is a dry run. by is who asks.
func (c *Controller) Rebalance(ctx context.Context, dry bool, by string) (moves []coordinator.Move, err error) {
	v, err := c.cfg.Store.View(ctx)
	if err != nil {
		return nil, err
	}
	loads, err := c.sampleLoads(ctx, v)
	if err != nil {
		return nil, err
	}
	return moves, c.change(ctx, func(v coordinator.View) ([]route.Shard, []coordinator.Event, error) {
		live, _ := living(v.Nodes)
		moves = placement.Moves(v.Shards, placement.Cluster{Nodes: live, Standbys: c.cfg.Standbys, Loads: loads, Moves: len(v.Shards)})
		if dry {
			return nil, nil, nil
		}
		next := slices.Clone(v.Shards)
		var p plan
		for _, m := range moves {
			next[m.Shard].Target = m.To
			p.change(m.Shard, m.Why, "to move from %s to %s", m.From, m.To)
		}
		return next, p.events(by), nil
	})
}

// sampleLoads counts for a while how much shards are used; nil without nodes to ask.
func (c *Controller) sampleLoads(ctx context.Context, v coordinator.View) ([]float64, error) {
	if c.cfg.Nodes == nil {
		return nil, nil
	}
	o := newObserver(c.cfg.Nodes, c.cfg.Store, c.cfg.Logger)
	for i := range loadSamples + 1 {
		if i > 0 {
			select {
			case <-time.After(loadSample):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		o.loads.take(o.ask(ctx, v.Nodes), len(v.Shards), time.Now())
	}
	return o.loads.perShard, nil
}

// Drain makes a node give up all it has, or takes that back. by is who asks. The error
// wraps ps.ErrUnavailable if the node is not there, and ps.ErrConflict if there is no other
// that could take what it has.
func (c *Controller) Drain(ctx context.Context, node ps.NodeID, drain bool, by string) error {
	if drain {
		v, err := c.cfg.Store.View(ctx)
		if err != nil {
			return err
		}
		live, _ := living(v.Nodes)
		if !slices.ContainsFunc(live, func(n placement.Node) bool { return n.ID != node && !n.Draining }) {
			return fmt.Errorf("drain node %s: no other node is there that could take its shards; start one first: %w", node, ps.ErrConflict)
		}
	}
	if err := c.cfg.Store.Drain(ctx, node, drain); err != nil {
		return err
	}
	what := "node " + string(node) + " is to give up all it has"
	if !drain {
		what = "node " + string(node) + " may have shards again"
	}
	return c.cfg.Store.Record(ctx, coordinator.Event{Kind: coordinator.EventDrain, What: what, Why: "an operator wants it", By: by})
}

// change makes a change of the map of the newest view, again if it has changed meanwhile.
// A nil map is no change.
func (c *Controller) change(ctx context.Context, plan func(coordinator.View) ([]route.Shard, []coordinator.Event, error)) error {
	for try := 1; ; try++ {
		v, err := c.cfg.Store.View(ctx)
		if err != nil {
			return err
		}
		next, events, err := plan(v)
		if err != nil || next == nil || slices.EqualFunc(next, v.Shards, route.Shard.Equal) {
			return err
		}
		_, err = c.cfg.Store.SetMap(ctx, v.Read(), next, events...)
		if !errors.Is(err, ps.ErrConflict) || try == changeTries {
			return err
		}
	}
}
