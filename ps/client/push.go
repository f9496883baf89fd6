package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Push sends an update's items to their nodes, after everything that was pushed
// before, and returns without waiting. The returned function waits for the
// answers, one per item in the items' order; it is called at most once.
// The update's memory is the caller's again when Push returns. If ctx ends while
// a node does not take its part, the connection to that node is given up.
//
// Nothing is sent twice: if an item's node is unknown, gone or breaks the
// connection, the item's answer is Refused with ps.ErrNoOwner or
// ps.ErrUnavailable, and whether it was applied is then unknown. The sender asks
// with Applied and goes on from there; the shards' offset rule makes every
// misunderstanding harmless.
func (c *Client) Push(ctx context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	m, err := c.Map(ctx, 0)
	if err != nil {
		return nil, err
	}
	answers := make([]ps.Answer, len(u.Items))
	parts := make(map[string]*part)
	for i := range u.Items {
		answers[i].Shard = u.Items[i].Shard
		address, err := m.Address(answers[i].Shard)
		if err != nil {
			answers[i].Err = err
			continue
		}
		p := parts[address]
		if p == nil {
			p = &part{answers: make(chan partAnswers, 1)}
			parts[address] = p
		}
		p.positions = append(p.positions, i)
		for _, rows := range u.Items[i].Rows {
			p.bytes += 8*len(rows.Keys) + len(rows.Values)
		}
	}
	var sends sync.WaitGroup
	for address, p := range parts {
		if p.bytes > wire.MessageBytesMax-bytesSpare {
			p.answers <- partAnswers{err: fmt.Errorf("an update of %d bytes for one node, at most %d: push fewer events at a time: %w",
				p.bytes, wire.MessageBytesMax-bytesSpare, ps.ErrTooLarge)}
			continue
		}
		// At the same time, so that a node that is slow to take its part, or to
		// connect to, does not hold up the others'.
		sends.Go(func() { c.send(ctx, address, p.cut(u), p) })
	}
	sends.Wait()
	return func(ctx context.Context) ([]ps.Answer, error) {
		for address, p := range parts {
			select {
			case got := <-p.answers:
				p.fill(answers, address, got)
			case <-ctx.Done():
				return nil, fmt.Errorf("waiting for node at %s to answer a push: %w", address, ctx.Err())
			}
		}
		return answers, nil
	}, nil
}

// bytesSpare is what the message around the rows may take: 64 bytes for each item
// of the largest cluster.
const bytesSpare = 64 * ps.ShardsMax

// part is one node's part of an update.
type part struct {
	bytes     int              // of its rows
	positions []int            // of its items in the update
	answers   chan partAnswers // capacity 1; sent to exactly once
}

type partAnswers struct {
	answers []ps.Answer
	err     error
}

// cut returns the part of u, which shares u's rows.
func (p *part) cut(u *ps.Update) *ps.Update {
	cut := *u
	cut.Items = make([]ps.Item, len(p.positions))
	for k, i := range p.positions {
		cut.Items[k] = u.Items[i]
	}
	return &cut
}

// fill puts what a node answered in the places of the part's items.
func (p *part) fill(answers []ps.Answer, address string, got partAnswers) {
	if got.err == nil && len(got.answers) != len(p.positions) {
		got.err = fmt.Errorf("%d answers to %d items: %w", len(got.answers), len(p.positions), ps.ErrCorrupt)
	}
	for k, i := range p.positions {
		switch {
		case got.err != nil:
			answers[i].Err = fmt.Errorf("push to node at %s: %w", address, got.err)
		case got.answers[k].Shard != answers[i].Shard:
			answers[i].Err = fmt.Errorf("push to node at %s: answer of shard %d in the place of shard %d's: %w",
				address, got.answers[k].Shard, answers[i].Shard, ps.ErrCorrupt)
		default:
			answers[i] = got.answers[k]
		}
	}
}

// send puts an update on the node's stream, opening one if need be. What goes
// wrong becomes the part's answer.
func (c *Client) send(ctx context.Context, address string, u *ps.Update, p *part) {
	var broken error
	for range 2 { // a stream that was found broken is replaced once
		s, err := c.pushStream(address)
		if err != nil {
			p.answers <- partAnswers{err: err}
			return
		}
		if broken = s.send(ctx, u, p); broken == nil {
			return
		}
		if ctx.Err() != nil {
			break // nothing is known against the stream
		}
		c.forget(address, s)
	}
	p.answers <- partAnswers{err: broken}
}

// pushStream returns the stream to an address, which may still be opening.
func (c *Client) pushStream(address string) (*pushStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pushes[address]; s != nil {
		return s, nil
	}
	conn, err := c.connLocked(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.life)
	s := &pushStream{cancel: cancel, turn: make(chan struct{}, 1), opened: make(chan struct{})}
	c.pushes[address] = s
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		defer c.forget(address, s)
		defer cancel()
		s.run(ctx, conn)
	}()
	return s, nil
}

// forget makes the next push to an address open another stream than s.
func (c *Client) forget(address string, s *pushStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pushes[address] == s {
		delete(c.pushes, address)
	}
}

// pushStream is one ordered stream of updates to one node.
type pushStream struct {
	cancel context.CancelFunc
	turn   chan struct{} // capacity 1: held while a message is sent, so that waiting keeps their order
	opened chan struct{} // closed by run once stream is set or could not be

	stream grpc.BidiStreamingClient[psv1.PushRequest, psv1.PushResponse] // set before opened is closed

	mu      sync.Mutex
	waiting []*part // guarded by mu; sent and not answered, in order
	broken  error   // guarded by mu; set once, by run
}

// send sends an update and lets p wait for its answer. If the stream was broken
// before, or ctx ends before its turn comes, it returns why, with p untouched.
func (s *pushStream) send(ctx context.Context, u *ps.Update, p *part) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for earlier pushes: %w: %w", ps.ErrUnavailable, ctx.Err())
	}
	defer func() { <-s.turn }()
	select {
	case <-s.opened:
	case <-ctx.Done():
		return fmt.Errorf("connecting: %w: %w", ps.ErrUnavailable, ctx.Err())
	}
	if err := s.wait(p); err != nil {
		return err
	}
	// A message cannot be taken back half sent, so giving up ends the stream. run
	// then tells everybody who waits, p among them.
	giveUp := context.AfterFunc(ctx, s.cancel)
	defer giveUp()
	if err := s.stream.Send(wire.PushRequest(u)); err != nil {
		s.cancel()
	}
	return nil
}

// wait puts p behind those who wait for answers, unless the stream is broken.
func (s *pushStream) wait(p *part) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.waiting = append(s.waiting, p)
	}
	return s.broken
}

// run opens the stream and hands answers to those who wait for them until it ends.
func (s *pushStream) run(ctx context.Context, conn *grpc.ClientConn) {
	var err error
	if s.stream, err = psv1.NewParametersClient(conn).Push(ctx); err != nil {
		s.end(err)
		close(s.opened)
		return
	}
	close(s.opened)
	for {
		resp, err := s.stream.Recv()
		if err != nil {
			s.end(err)
			return
		}
		answers, err := wire.Answers(resp)
		if err != nil {
			s.end(err)
			return
		}
		p := s.first()
		if p == nil {
			s.end(fmt.Errorf("an answer to no push: %w", ps.ErrCorrupt))
			return
		}
		p.answers <- partAnswers{answers: answers}
	}
}

// first takes out the part that has waited longest, or returns nil.
func (s *pushStream) first() *part {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	p := s.waiting[0]
	s.waiting = s.waiting[1:]
	return p
}

// end marks the stream as broken by err and tells everybody who waits.
func (s *pushStream) end(err error) {
	broken := brokenBy(err)
	s.mu.Lock()
	s.broken = broken
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, p := range waiting {
		p.answers <- partAnswers{err: broken}
	}
}

// brokenBy returns why a stream ended. An end for no reason that the node gave
// means that it cannot be reached this way any more.
func brokenBy(err error) error {
	err = wire.FromStatus(err)
	if errors.Is(err, context.Canceled) || wire.Reason(err) == "INTERNAL" {
		return fmt.Errorf("the push stream broke: %w: %w", ps.ErrUnavailable, err)
	}
	return err
}
