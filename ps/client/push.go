package client

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
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
	answers, _, err := c.Exchange(ctx, u, "", 0, nil)
	return answers, err
}

// Exchange is Push and, behind it, a pull of rows that an update will be pushed to: one
// message to every node that has to do with both. u may be nil, and reads empty. They
// return without waiting; answers waits for the one, and rows for the other as Pull does,
// which is when the reads' values are valid. The update's memory is the caller's when
// Exchange returns, the reads' when rows does.
//
// rows returns a number for Update.Pulled: nodes keep the keys of the last few pulls and
// where their rows are, so that a push need not send keys again (see Rows.Pulled) nor have
// them looked up.
func (c *Client) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (pulled uint64, err error), err error,
) {
	m, err := c.Map(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	wanted, err := prepare(m, reads)
	if err != nil {
		return nil, nil, err
	}
	e := &exchange{client: c, model: model, layout: layout, reads: reads, parts: make(map[string]*part)}
	if u != nil {
		e.push(m, u)
	}
	if len(wanted) > 0 {
		e.number = c.numbers.Add(1)
		e.pull(m, wanted)
	}
	e.send(ctx, u)
	return e.waitAnswers, e.waitRows, nil
}

// exchange is one call of Exchange.
type exchange struct {
	client  *Client
	parts   map[string]*part // by address
	answers []ps.Answer

	model   string
	layout  uint64
	number  uint64
	reads   []ps.Read
	missing []ps.ShardID // of the pull; nobody was asked for them
}

func (e *exchange) part(address string) *part {
	p := e.parts[address]
	if p == nil {
		p = &part{answers: make(chan partAnswers, 1)}
		e.parts[address] = p
	}
	return p
}

// push deals out u's items to the nodes.
func (e *exchange) push(m route.Map, u *ps.Update) {
	e.answers = make([]ps.Answer, len(u.Items))
	for i := range u.Items {
		e.answers[i].Shard = u.Items[i].Shard
		address, err := m.Address(u.Items[i].Shard)
		if err != nil {
			e.answers[i].Err = err
			continue
		}
		p := e.part(address)
		p.positions = append(p.positions, i)
		for _, rows := range u.Items[i].Rows {
			p.bytes += 8*len(rows.Keys) + len(rows.Values) + len(rows.Pulled)
		}
	}
}

// pull deals out the wanted shards to the nodes.
func (e *exchange) pull(m route.Map, wanted []ps.ShardID) {
	for _, s := range wanted {
		address, err := m.Address(s)
		if err != nil {
			e.missing = append(e.missing, s)
			continue
		}
		p := e.part(address)
		if p.pull == nil {
			p.pull = newOrderedPull(e.model, e.layout, e.number, nil, e.reads)
		}
		p.pull.shards = append(p.pull.shards, s)
	}
	for _, p := range e.parts {
		if p.pull != nil {
			p.pull.to.Begin(p.pull.shards, e.reads)
		}
	}
}

// send sends the parts at the same time, so that a node that is slow to take its part, or
// to connect to, does not hold up the others'.
func (e *exchange) send(ctx context.Context, u *ps.Update) {
	var sends sync.WaitGroup
	for address, p := range e.parts {
		if err := p.checkSize(); err != nil {
			p.refuse(err)
			continue
		}
		if len(e.parts) == 1 {
			e.client.send(ctx, address, u, p)
			break
		}
		sends.Go(func() { e.client.send(ctx, address, u, p) })
	}
	sends.Wait()
}

func (e *exchange) waitAnswers(ctx context.Context) ([]ps.Answer, error) {
	for address, p := range e.parts {
		if len(p.positions) == 0 {
			continue
		}
		select {
		case got := <-p.answers:
			p.fill(e.answers, address, got)
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for node at %s to answer a push: %w", address, ctx.Err())
		}
	}
	return e.answers, nil
}

// waitRows waits for what was asked for, and asks again for what did not come.
func (e *exchange) waitRows(ctx context.Context) (pulled uint64, err error) {
	for address, p := range e.parts {
		if p.pull == nil {
			continue
		}
		err := e.client.attempt(ctx, address, p.pull.shards, func(ctx context.Context, _ string, _ []ps.ShardID) error {
			return p.pull.wait(ctx)
		})
		switch {
		case err == nil:
		case retryable(err):
			e.missing = append(e.missing, p.pull.shards...)
		default:
			return 0, err
		}
	}
	if len(e.missing) > 0 {
		slices.Sort(e.missing)
		err = e.client.pull(ctx, e.model, e.layout, e.number, e.missing, e.reads)
	}
	return e.number, err
}

// bytesSpare is what the message around the rows may take: 64 bytes for each item
// of the largest cluster.
const bytesSpare = 64 * ps.ShardsMax

// part is one node's part of an exchange.
type part struct {
	bytes     int              // of its rows
	positions []int            // of its items in the update
	answers   chan partAnswers // capacity 1; sent to exactly once
	pull      *orderedPull     // or nil
}

// checkSize reports a part that no node takes or answers.
func (p *part) checkSize() error {
	pull := 0
	if p.pull != nil {
		if err := checkPullSize(p.pull.shards, p.pull.reads); err != nil {
			return err
		}
		pull = p.pull.keyBytes()
	}
	if p.bytes+pull > wire.MessageBytesMax-bytesSpare {
		return fmt.Errorf("an update of %d bytes for one node, and %d of keys to pull, at most %d: push fewer events at a time: %w",
			p.bytes, pull, wire.MessageBytesMax-bytesSpare, ps.ErrTooLarge)
	}
	return nil
}

// waiters returns who waits for the answers to a part, in their order.
func (p *part) waiters() []waiter {
	var all []waiter
	if len(p.positions) > 0 {
		all = append(all, p)
	}
	if p.pull != nil {
		all = append(all, p.pull)
	}
	return all
}

// refuse answers a part that was not sent.
func (p *part) refuse(err error) {
	for _, w := range p.waiters() {
		w.fail(err)
	}
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

// send puts a part on the node's stream, opening one if need be. What goes
// wrong becomes the part's answer.
func (c *Client) send(ctx context.Context, address string, u *ps.Update, p *part) {
	var broken error
	for range 2 { // a stream that was found broken is replaced once
		s, err := c.ordered(address)
		if err != nil {
			p.refuse(err)
			return
		}
		if broken = s.exchange(ctx, u, p); broken == nil {
			return
		}
		if ctx.Err() != nil {
			break // nothing is known against the stream
		}
		c.forget(address, s)
	}
	p.refuse(broken)
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
