package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// followPause is how long a follower waits before it begins anew.
const followPause = 100 * time.Millisecond

// Follow hands everything that changes in some shards of a model to take, until ctx
// ends, and returns nil then. shards gives the shards to follow, all of them each time.
//
// Of each shard, take is first given a base and then deltas, in order and without a
// gap. Whatever happens (the shard moves, its owner is gone, this side is too slow, or
// take returns an error), it goes on with another base: the first part of one, Since
// and Part 0, always means that what was taken before is to be replaced once the base
// is whole. A shard that nobody owns waits for an owner. take is called by one goroutine
// for each node: while a shard changes its owner, it may be called for the same shard by
// two, and is to pass over what has a lower fence than what it has already.
func (c *Client) Follow(ctx context.Context, model string, shards <-chan []ps.ShardID, take func(*ps.Delta) error) error {
	f := &following{client: c, model: model, take: take, current: func([]ps.ShardID) {}}
	return f.follow(ctx, shards)
}

// Read is like Follow for a reader: take is given what reading, which is not the zero value,
// wants of each delta. Some ten times a second current is given the shards of which take was
// given all that there is; it is called as take is, and must not keep the list.
func (c *Client) Read(ctx context.Context, model string, reading ps.Reading, shards <-chan []ps.ShardID, take func(*ps.Delta) error, current func([]ps.ShardID)) error {
	f := &following{client: c, model: model, reading: reading, take: take, current: current}
	return f.follow(ctx, shards)
}

// follow goes on until ctx or shards end.
func (f *following) follow(ctx context.Context, shards <-chan []ps.ShardID) error {
	f.nodes = make(map[string]*followedNode)
	ctx, cancel := context.WithCancel(ctx)
	defer f.tasks.Wait()
	defer cancel()
	maps := f.client.maps(ctx)
	var wanted []ps.ShardID
	var m route.Map
	for {
		select {
		case list, ok := <-shards:
			if !ok {
				return nil
			}
			wanted = list
		case next, ok := <-maps:
			if !ok {
				return nil
			}
			m = next
		case <-ctx.Done():
			return nil
		}
		f.aim(ctx, wanted, m)
	}
}

// maps gives the shard map and then newer ones, until ctx or the client ends.
func (c *Client) maps(ctx context.Context) <-chan route.Map {
	out := make(chan route.Map)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		close(out)
		return out
	}
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		defer close(out)
		for version := int64(0); ; {
			m, err := c.Map(ctx, version)
			if err != nil {
				return
			}
			version = m.Version
			select {
			case out <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// following is one call of Follow.
type following struct {
	client  *Client
	model   string
	reading ps.Reading
	take    func(*ps.Delta) error
	current func([]ps.ShardID)
	tasks   sync.WaitGroup
	nodes   map[string]*followedNode // by address
}

// target is what is followed of a shard: another fence is another history.
type target map[ps.ShardID]ps.Fence

// followedNode follows shards of one node.
type followedNode struct {
	*following
	address string
	aims    chan target // capacity 1: the latest
}

// aim tells every node's follower what to follow.
func (f *following) aim(ctx context.Context, wanted []ps.ShardID, m route.Map) {
	byAddress := make(map[string]target)
	for address := range f.nodes {
		byAddress[address] = nil
	}
	for _, s := range wanted {
		address, err := m.Address(s)
		if err != nil {
			continue // until another map comes
		}
		if byAddress[address] == nil {
			byAddress[address] = make(target)
		}
		byAddress[address][s] = m.Shards[s].Fence
	}
	for address, aim := range byAddress {
		n := f.nodes[address]
		if n == nil {
			n = &followedNode{following: f, address: address, aims: make(chan target, 1)}
			f.nodes[address] = n
			f.tasks.Go(func() { n.run(ctx) })
		}
		select {
		case <-n.aims:
		default:
		}
		n.aims <- aim
	}
}

// run follows the node until ctx ends.
func (n *followedNode) run(ctx context.Context) {
	var aim target
	for ctx.Err() == nil {
		for len(aim) == 0 {
			select {
			case aim = <-n.aims:
			case <-ctx.Done():
				return
			}
		}
		err := n.stream(ctx, &aim)
		if ctx.Err() == nil && err != nil {
			n.client.config.Logger.Debug("following a node has ended; beginning anew", "node", n.address, "model", n.model, "error", err)
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
		}
	}
}

// stream follows the node over one stream, until it breaks or there is nothing left to
// follow. aim is brought up to date.
func (n *followedNode) stream(ctx context.Context, aim *target) error {
	conn, err := n.client.conn(n.address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := psv1.NewCopiesClient(conn).Follow(ctx)
	if err != nil {
		return err
	}
	r := receiver{followedNode: n, begun: make(map[ps.ShardID]bool), whole: make(map[ps.ShardID]bool), lost: make(chan ps.ShardID, ps.ShardsMax)}
	var received error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		received = r.receive(stream)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	begun := make(target)
	for {
		change := difference(begun, *aim)
		if len(change.Begin)+len(change.End) > 0 {
			r.begin(change)
			if err := stream.Send(wire.FollowRequest(n.model, n.reading, change)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			begun = maps.Clone(*aim)
		}
		if len(*aim) == 0 {
			return nil
		}
		select {
		case *aim = <-n.aims:
		case s := <-r.lost: // it is begun anew when the pause is over
			delete(begun, s)
			if err := n.pause(ctx, r.lost, begun); err != nil {
				return err
			}
		case <-ended:
			return received
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause waits for a moment, in which more may be lost.
func (n *followedNode) pause(ctx context.Context, lost <-chan ps.ShardID, begun target) error {
	over := time.After(followPause)
	for {
		select {
		case s := <-lost:
			delete(begun, s)
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// difference returns what makes begun become aim.
func difference(begun, aim target) (c ps.FollowChange) {
	for s, fence := range aim {
		if was, ok := begun[s]; !ok || was != fence {
			c.Begin = append(c.Begin, s)
		}
	}
	for s := range begun {
		if _, ok := aim[s]; !ok {
			c.End = append(c.End, s)
		}
	}
	slices.Sort(c.Begin)
	slices.Sort(c.End)
	return c
}

// receiver takes what one stream brings.
type receiver struct {
	*followedNode
	mu    sync.Mutex
	begun map[ps.ShardID]bool // guarded by mu: whether its base has begun to come; not there if it is not followed
	whole map[ps.ShardID]bool // guarded by mu: those whose base has come
	lost  chan ps.ShardID     // room for all of them
}

// begin expects bases.
func (r *receiver) begin(c ps.FollowChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range c.Begin {
		r.begun[s] = false
		delete(r.whole, s)
	}
	for _, s := range c.End {
		delete(r.begun, s)
		delete(r.whole, s)
	}
}

// expected reports whether a delta is to be taken: what was under way before a shard
// was begun anew is not.
func (r *receiver) expected(d *ps.Delta) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	begun, followed := r.begun[d.Shard]
	if !followed {
		return false
	}
	if d.Since == 0 && d.Part == 0 {
		r.begun[d.Shard], begun = true, true
	}
	if begun && !d.More {
		r.whole[d.Shard] = true
	}
	return begun
}

// lose gives a shard up until it is begun anew.
func (r *receiver) lose(s ps.ShardID, err error) {
	r.mu.Lock()
	_, followed := r.begun[s]
	delete(r.begun, s)
	delete(r.whole, s)
	r.mu.Unlock()
	if followed {
		r.client.config.Logger.Debug("a shard is followed anew", "node", r.address, "model", r.model, "shard", s, "error", err)
		r.lost <- s
	}
}

// followed returns the shards that are followed and whose base has come.
func (r *receiver) followed() []ps.ShardID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.whole))
}

func (r *receiver) receive(stream grpc.BidiStreamingClient[psv1.FollowRequest, psv1.FollowResponse]) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("node at %s: %w", r.address, wire.FromStatus(err))
		}
		news := wire.News(resp)
		for _, d := range news.Deltas {
			if !r.expected(d) {
				continue
			}
			if err := r.take(d); err != nil {
				r.lose(d.Shard, err)
			}
		}
		for _, l := range news.Lost {
			r.lose(l.Shard, l.Err)
		}
		if len(news.Deltas)+len(news.Lost) == 0 {
			r.current(r.followed())
		}
	}
}
