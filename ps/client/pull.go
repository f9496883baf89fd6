package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// pullsIdle bounds the pull streams to a node that are kept for later: one for each pull
// that was under way at once.
const pullsIdle = 16

// pullStream is a stream that serves one pull at a time.
type pullStream struct {
	cancel context.CancelFunc
	stream grpc.ClientStream
}

// pullFrom fills the reads' rows of the given shards from one node. It returns when nobody
// writes to the reads any more.
//
// Behind pushes that were not answered, or with a number to push by, it takes the stream
// of the pushes and has its turn after them.
// Otherwise it has a stream of its own, so that others do not wait for it.
func (c *Client) pullFrom(ctx context.Context, address, model string, layout, number uint64, shards []ps.ShardID, reads []ps.Read) error {
	if err := checkPullSize(shards, reads); err != nil {
		return err
	}
	s, err := c.orderedFor(address, number)
	if err != nil {
		return err
	}
	if s != nil {
		return newOrderedPull(model, layout, number, shards, reads).do(ctx, s)
	}
	return c.pullAside(ctx, address, model, layout, shards, reads)
}

// checkPullSize reports a pull from one node whose request or answer is too large.
func checkPullSize(shards []ps.ShardID, reads []ps.Read) error {
	total := 0
	for i := range reads {
		for _, s := range shards {
			from, to := reads[i].Group.Shard(s)
			total += (to - from) * (reads[i].RowBytes + 8)
		}
	}
	if total > wire.MessageBytesMax {
		return fmt.Errorf("a pull of %d bytes from one node, at most %d: pull fewer keys at a time: %w", total, wire.MessageBytesMax, ps.ErrTooLarge)
	}
	return nil
}

// orderedFor returns the stream of pushes to an address if a pull belongs on it, else nil.
func (c *Client) orderedFor(address string, number uint64) (*ordered, error) {
	if number == 0 {
		return c.behindPushes(address), nil
	}
	return c.ordered(address)
}

// pullAside is pullFrom on a stream of its own.
func (c *Client) pullAside(ctx context.Context, address, model string, layout uint64, shards []ps.ShardID, reads []ps.Read) error {
	var to wire.Destination
	to.Begin(shards, reads)
	if s := c.idlePull(address); s != nil {
		broken, err := s.pull(ctx, wire.Pulling(model, layout, 0, shards, reads), &to)
		if !broken {
			c.keepPull(address, s)
			return err
		}
		s.cancel()
		if ctx.Err() != nil {
			return err
		}
		// It may have broken long ago, as the others will then have, too.
		c.dropPulls(address)
	}
	s, err := c.openPull(ctx, address)
	if err != nil {
		return err
	}
	to.Begin(shards, reads)
	broken, err := s.pull(ctx, wire.Pulling(model, layout, 0, shards, reads), &to)
	if broken {
		s.cancel()
		return err
	}
	c.keepPull(address, s)
	return err
}

// idlePull takes out a stream that nobody uses, or returns nil if there is none.
func (c *Client) idlePull(address string) *pullStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.pulls[address]
	if len(idle) == 0 {
		return nil
	}
	s := idle[len(idle)-1]
	c.pulls[address] = idle[:len(idle)-1]
	return s
}

// openPull opens a stream. It lives until it is cancelled or the client is closed; ctx
// bounds the wait for a connection.
func (c *Client) openPull(ctx context.Context, address string) (*pullStream, error) {
	conn, err := c.conn(address)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(c.life)
	giveUp := context.AfterFunc(ctx, cancel)
	stream, err := psv1.NewParametersClient(conn).Exchange(life)
	if !giveUp() {
		return nil, ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &pullStream{cancel: cancel, stream: stream}, nil
}

// keepPull gives back a stream whose pull was answered.
func (c *Client) keepPull(address string, s *pullStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns[address] == nil || len(c.pulls[address]) >= pullsIdle {
		s.cancel()
		return
	}
	c.pulls[address] = append(c.pulls[address], s)
}

// dropPulls ends the streams that nobody uses.
func (c *Client) dropPulls(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropPullsLocked(address)
}

func (c *Client) dropPullsLocked(address string) {
	for _, s := range c.pulls[address] {
		s.cancel()
	}
	delete(c.pulls, address)
}

// pull asks and waits for the answer. Broken says that the stream can be used no more.
func (s *pullStream) pull(ctx context.Context, m *wire.Message, to *wire.Destination) (broken bool, err error) {
	giveUp := context.AfterFunc(ctx, s.cancel)
	defer func() {
		if !giveUp() { // it has cancelled the stream, or is about to
			broken = true
			if err != nil {
				err = ctx.Err()
			}
		}
	}()
	err = s.stream.SendMsg(m)
	m.Free()
	if err != nil && !errors.Is(err, io.EOF) { // which says that who receives is told why
		return true, brokenBy(err)
	}
	for {
		var answer wire.Response
		if err := s.stream.RecvMsg(&answer); err != nil {
			return true, brokenBy(err)
		}
		more, refused, err := answer.Rows(to)
		answer.Free()
		switch {
		case err != nil:
			return true, err
		case !more || refused != nil:
			return false, refused
		}
	}
}

// orderedPull is a pull behind pushes.
type orderedPull struct {
	model  string
	layout uint64
	number uint64 // by which pushes will refer to its keys, or 0
	shards []ps.ShardID
	reads  []ps.Read
	done   chan error // capacity 1; sent to exactly once

	mu    sync.Mutex
	to    wire.Destination // guarded by mu while the answer comes
	ended bool             // guarded by mu; the rows are to be written to no more
}

func newOrderedPull(model string, layout, number uint64, shards []ps.ShardID, reads []ps.Read) *orderedPull {
	p := &orderedPull{model: model, layout: layout, number: number, shards: shards, reads: reads, done: make(chan error, 1)}
	p.to.Begin(shards, reads)
	return p
}

// keyBytes returns how much its keys are.
func (p *orderedPull) keyBytes() int {
	n := 0
	for i := range p.reads {
		for _, s := range p.shards {
			from, to := p.reads[i].Group.Shard(s)
			n += 8 * (to - from)
		}
	}
	return n
}

// request returns the message that asks for it.
func (p *orderedPull) request() *wire.Message {
	return wire.Pulling(p.model, p.layout, p.number, p.shards, p.reads)
}

// do has the pull done on the stream.
func (p *orderedPull) do(ctx context.Context, s *ordered) error {
	if err := s.pull(ctx, p.request(), p); err != nil {
		return err
	}
	return p.wait(ctx)
}

// wait waits for the rows. If ctx ends, the answer is thrown away when it comes.
func (p *orderedPull) wait(ctx context.Context) error {
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		return ctx.Err()
	}
}

// take implements waiter.
func (p *orderedPull) take(m *wire.Response) (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := &p.to
	if p.ended {
		to = nil
	}
	more, refused, err := m.Rows(to)
	if err == nil && (!more || refused != nil) {
		p.done <- refused
		return true, nil
	}
	return false, err
}

// fail implements waiter.
func (p *orderedPull) fail(err error) { p.done <- err }
