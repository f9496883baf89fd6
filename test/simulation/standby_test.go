package simulation_test

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
	psnode "github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/shard"
)

// standby is the product's copy of a shard, with what the oracle wants to know of it.
type standby struct {
	psnode.Standby
	wanted    bool
	following bool
	lineage   uint64 // of the owner that it has followed
	// news since the last base, which only a variant looks at.
	news []*ps.Delta
}

// standBy makes the node follow the shards that the map says.
func (n *node) standBy(list []ps.ShardID) {
	for s := range n.copies {
		id := ps.ShardID(s)
		c := n.copies[s]
		wanted := slices.Contains(list, id)
		switch {
		case c == nil && !wanted:
			continue
		case c == nil:
			c = &standby{}
			n.copies[s] = c
		case !wanted && n.held[s] == nil:
			n.copies[s] = nil
		}
		if c.wanted = wanted; wanted && !c.following {
			c.following = true
			n.world.spawn(&n.host, fmt.Sprintf("%s following shard %d", n.id, s), func(t *task) { n.follow(t, id, c) })
		}
	}
}

// follow asks the owner for a base and what changes, again and again.
func (n *node) follow(t *task, id ps.ShardID, c *standby) {
	w := n.world
	for c.wanted {
		owner := string(n.routes.Shards[id].Owner)
		ask := w.send(n.name, owner, fmt.Sprintf("follow shard %d", id), func(of *node, _ delivery) (any, error) {
			return later{func(t *task) (any, error) { return nil, of.feed(t, id, n.name) }}, nil
		})
		next := w.steps + 20
		if t.wait(func() bool { return ask.done && w.steps >= next }) != nil {
			return
		}
	}
	c.following = false
}

// feed sends a shard's base and then its deltas to a follower, as the product's node does.
func (n *node) feed(t *task, id ps.ShardID, to string) error {
	h, err := n.shard(id)
	if err != nil {
		return err
	}
	if h.busy {
		return ps.ErrUnavailable
	}
	h.busy = true
	snapshot, err := h.shard.Snapshot(0)
	if err != nil {
		h.busy = false
		return err
	}
	if h.feed == nil {
		h.feed = delta.NewFeed(ps.Layout{}, 64<<10)
		h.shard.Record()
	} else if d := h.shard.Delta(); d != nil {
		h.feed.Publish(d)
	}
	follower := h.feed.Follow(ps.Reading{}, make(chan struct{}, 1))
	defer follower.Close()
	if err := n.sendBase(t, h, snapshot, to); err != nil {
		return err
	}
	for {
		d, err := follower.Next()
		switch {
		case err != nil:
			return err
		case d != nil:
			n.sendNews(to, h, d)
		}
		if err := t.wait(nil); err != nil {
			return err
		}
		if peer := n.world.nodes[to]; !peer.alive {
			return ps.ErrUnavailable
		}
	}
}

func (n *node) sendBase(t *task, h *held, snapshot *shard.Snapshot, to string) error {
	defer func() { h.busy = false }()
	defer snapshot.Close()
	for part := 0; ; part++ {
		d := &ps.Delta{ShardProgress: snapshot.Head().ShardProgress, Part: part, More: true}
		block, err := snapshot.Read(make([]byte, 4<<10))
		switch {
		case errors.Is(err, io.EOF):
			d.More = false
		case err != nil:
			return err
		default:
			d.Blocks = []ps.Block{block}
		}
		n.sendNews(to, h, d)
		if !d.More {
			return nil
		}
		if err := t.wait(nil); err != nil {
			return err
		}
	}
}

// sendNews puts a delta on its way. It is no call, so that nothing delays, doubles or loses
// it alone: who follows gets all in order, or nothing more.
func (n *node) sendNews(to string, h *held, d *ps.Delta) {
	lineage := h.lineage
	n.world.network = append(n.world.network, &message{
		from: n.name, to: to, what: fmt.Sprintf("shard %d from %d to %d, part %d", d.Shard, d.Since, d.Seq, d.Part),
		request: func(peer *node, _ delivery) (any, error) {
			peer.take(d, lineage)
			return nil, nil
		},
	})
}

// take brings a copy up to date.
func (n *node) take(d *ps.Delta, lineage uint64) {
	c := n.copies[d.Shard]
	if c == nil {
		return
	}
	w := n.world
	if err := c.Take(d, shard.Config{Model: w.model, ID: d.Shard, Shards: shards, Fence: d.Fence + 1}); err != nil {
		w.tracef("node %s: copy of shard %d: %v", n.id, d.Shard, err)
		return
	}
	c.lineage = lineage
	if w.variant.promotesAny {
		if d.Since == 0 && d.Part == 0 {
			c.news = nil
		}
		c.news = append(c.news, d)
	}
}

// replay makes a shard of what a copy was told, whoever told it and whenever.
func (c *standby) replay(config shard.Config) *shard.Shard {
	loader, err := shard.Load(config)
	for _, d := range c.news {
		if err == nil {
			err = loader.Take(d)
		}
	}
	if err != nil || !loader.Whole() {
		return nil
	}
	s, err := loader.Shard()
	if err != nil {
		return nil
	}
	return s
}

// publish hands what has changed on to those who follow a node's shards.
func (n *node) publish() {
	for _, h := range n.held {
		switch {
		case h == nil || h.feed == nil:
		case !h.feed.Followed():
			h.shard.Forget()
			h.feed = nil
		default:
			if d := h.shard.Delta(); d != nil {
				h.feed.Publish(d)
			}
		}
	}
}
