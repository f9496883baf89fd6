package server

import (
	"errors"
	"io"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// replyBytes is about the most rows of one message of a reply, in bytes. Larger messages
// cost more per row: they leave the processor's caches between the steps of their way.
const replyBytes = 256 << 10

// Exchange answers requests one after the other, like Push. It bypasses the generated
// code's messages: see wire.Codec.
func (p *parameters) Exchange(stream grpc.BidiStreamingServer[psv1.ExchangeRequest, psv1.ExchangeResponse]) error {
	e := exchange{shards: p.shards, stream: stream}
	for {
		err := stream.RecvMsg(&e.request)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		update, pull, err := e.request.Words()
		if err != nil {
			return wire.ToStatus(err)
		}
		if err := e.answer(update, pull); err != nil {
			return err
		}
	}
}

// exchange is one call of Exchange, and memory that its messages use one after the other.
type exchange struct {
	shards  Shards
	stream  grpc.ServerStream
	request wire.Request
	reply   wire.Reply
	sizes   []int
	room    []int
	part    ps.Pull
	pulls   pulls
	before  *wire.Message // the answer to a push, for the first part of that to its pull
}

// answer answers a push, a pull, or a push and the pull behind it.
func (e *exchange) answer(u *ps.Update, p *ps.Pull) error {
	if u != nil {
		answered, err := e.push(u)
		if err != nil {
			return err
		}
		if p == nil {
			return e.send(answered)
		}
		e.before = answered
	}
	return e.pull(p)
}

func (e *exchange) push(u *ps.Update) (*wire.Message, error) {
	if err := e.pulls.fill(u); err != nil {
		return wire.Answered(refusals(u, err)), nil
	}
	answers, err := e.shards.Push(e.stream.Context(), u)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return wire.Answered(answers), nil
}

// refusals are the answers to an update of which no item is looked at.
func refusals(u *ps.Update, err error) []ps.Answer {
	answers := make([]ps.Answer, len(u.Items))
	for i := range u.Items {
		answers[i] = ps.Answer{Shard: u.Items[i].Shard, Outcome: ps.Refused, Err: err}
	}
	return answers
}

// pull answers a pull in parts that end with shards.
func (e *exchange) pull(p *ps.Pull) error {
	var err error
	if e.sizes, err = e.shards.Sizes(p, e.sizes[:0]); err != nil {
		return e.send(wire.Refused(err))
	}
	if p.Number != 0 {
		e.pulls.keep(p)
	}
	e.begin(p)
	for first := 0; ; {
		last := e.cut(p, first)
		if err := e.shards.Pull(e.stream.Context(), &e.part, e.reply.Values); err != nil {
			e.reply.Free()
			e.pulls.drop(p.Number)
			return e.send(wire.Refused(err))
		}
		if err := e.send(e.reply.Message(last < len(p.Shards))); err != nil || last == len(p.Shards) {
			return err
		}
		first = last
	}
}

// begin turns sizes into those of one row of each table, and makes part the empty one
// before the first.
func (e *exchange) begin(p *ps.Pull) {
	e.part = ps.Pull{Model: p.Model, Layout: p.Layout, Tables: e.part.Tables[:0]}
	for t := range p.Tables {
		table := &p.Tables[t]
		e.part.Tables = append(e.part.Tables, ps.TableKeys{Table: table.Table, Keys: table.Keys[:0], Hints: table.Hints[:0]})
		if len(table.Keys) > 0 {
			e.sizes[t] /= len(table.Keys)
		}
	}
}

// cut makes part the rows of as many shards of p, from the first on, as belong into one
// message, with room for them in reply. It returns the end of these shards.
func (e *exchange) cut(p *ps.Pull, first int) (last int) {
	total := 0
	for last = first; last < len(p.Shards); last++ {
		bytes := 0
		for t := range p.Tables {
			bytes += int(p.Tables[t].Counts[last]) * e.sizes[t]
		}
		if total > 0 && total+bytes > replyBytes {
			break
		}
		total += bytes
	}
	e.part.Shards = p.Shards[first:last]
	e.room = e.room[:0]
	for t := range p.Tables {
		table := &e.part.Tables[t]
		table.Counts = p.Tables[t].Counts[first:last]
		n := 0
		for _, count := range table.Counts {
			n += int(count)
		}
		done := len(table.Keys)                // of the part before, which end where these begin
		table.Keys = table.Keys[done : done+n] // within what the request holds: its counts add up
		if p.Number != 0 {
			table.Hints = table.Hints[done : done+n]
		}
		e.room = append(e.room, n*e.sizes[t])
	}
	e.reply.Room(e.room)
	return last
}

func (e *exchange) send(m *wire.Message) error {
	if e.before != nil {
		m, e.before = wire.Join(e.before, m), nil
	}
	err := e.stream.SendMsg(m)
	m.Free()
	return err
}
