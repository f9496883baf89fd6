package client

import (
	"context"
	"fmt"
	"sync"

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
		sends.Go(func() { c.send(ctx, address, u, p) })
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

// send puts a part of an update on the node's stream, opening one if need be. What goes
// wrong becomes the part's answer.
func (c *Client) send(ctx context.Context, address string, u *ps.Update, p *part) {
	var broken error
	for range 2 { // a stream that was found broken is replaced once
		s, err := c.ordered(address)
		if err != nil {
			p.answers <- partAnswers{err: err}
			return
		}
		if broken = s.push(ctx, u, p); broken == nil {
			return
		}
		if ctx.Err() != nil {
			break // nothing is known against the stream
		}
		c.forget(address, s)
	}
	p.answers <- partAnswers{err: broken}
}

// take implements waiter.
func (p *part) take(m *wire.Response) (done bool, err error) {
	answers, err := m.Answers(make([]ps.Answer, 0, len(p.positions)))
	if err == nil {
		p.answers <- partAnswers{answers: answers}
	}
	return true, err
}

// fail implements waiter.
func (p *part) fail(err error) { p.answers <- partAnswers{err: err} }
