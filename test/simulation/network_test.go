package simulation_test

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// message is a request to a node, or an answer to somebody.
type message struct {
	from, to string // hosts
	what     string
	// request is set for what a node is to do.
	request func(n *node, how delivery) (any, error)
	call    *call // nil for a duplicate
	// answer's content.
	result any
	err    error

	duplicate bool
}

// delivery says what was special about how a request came.
type delivery struct{ duplicate, overtook, late bool }

// call is a request that somebody waits for.
type call struct {
	to   string
	push string // shard and partition of a push; nothing else is worth delaying
	done bool
	// abandoned: who waited did so no longer.
	abandoned bool
	result    any
	err       error
}

// later is an answer that a node gives when one of its tasks has come to an end.
type later struct{ run func(t *task) (any, error) }

// send puts a request on its way.
func (w *world) send(from, to, what string, request func(n *node, how delivery) (any, error)) *call {
	c := &call{to: to}
	w.calls = append(w.calls, c)
	w.network = append(w.network, &message{from: from, to: to, what: what, request: request, call: c})
	return c
}

// answer puts an answer on its way.
func (w *world) answer(m *message, result any, err error) {
	if m.call != nil {
		w.network = append(w.network, &message{from: m.to, to: m.from, what: "answer to " + m.what, call: m.call, result: result, err: err})
	}
}

// deliverOne lets one message arrive: of any pair of hosts, the first sent, unless a
// push overtakes another. It reports whether there was one.
func (w *world) deliverOne() bool {
	if len(w.network) == 0 {
		return false
	}
	if w.strikes(reorder, 1) {
		if at, found := w.overtaker(); found {
			return w.deliver(at, true)
		}
	}
	i := w.random.IntN(len(w.network))
	for j, m := range w.network[:i] {
		if m.from == w.network[i].from && m.to == w.network[i].to {
			i = j
			break
		}
	}
	if m := w.network[i]; m.call != nil && m.call.push != "" && w.strikes(reorder, 1) && w.random.IntN(4) > 0 {
		return false // what is to be overtaken has to be slow
	}
	return w.deliver(i, false)
}

// deliver lets a message arrive, before its turn or in it.
func (w *world) deliver(i int, overtook bool) bool {
	m := w.network[i]
	if n := w.nodes[m.to]; m.request != nil && n != nil && n.pausedUntil > w.steps {
		return false
	}
	if m.request != nil && m.call != nil && w.strikes(duplicate, 6) {
		again := *m
		again.call, again.duplicate = nil, true
		w.network = append(w.network, &again)
	}
	w.network = append(w.network[:i], w.network[i+1:]...)
	if m.request != nil {
		w.deliverRequest(m, overtook)
	} else {
		w.deliverAnswer(m)
	}
	return true
}

// overtaker returns where among the messages is a push that is not the first of its sender
// to its shard.
func (w *world) overtaker() (int, bool) {
	for _, j := range w.pushes() {
		for _, m := range w.network[:j] {
			if m.request != nil && m.call != nil && m.from == w.network[j].from && m.call.push == w.network[j].call.push {
				return j, true
			}
		}
	}
	return 0, false
}

// pushes returns where the pushes are among the messages.
func (w *world) pushes() (at []int) {
	for i, m := range w.network {
		if m.call != nil && m.call.push != "" && m.request != nil {
			at = append(at, i)
		}
	}
	return at
}

func (w *world) deliverRequest(m *message, overtook bool) {
	how := delivery{duplicate: m.duplicate, overtook: overtook, late: m.call != nil && m.call.abandoned}
	n := w.nodes[m.to]
	switch {
	case n == nil || !n.alive:
		w.tracef("%s → %s: %s: nobody is there", m.from, m.to, m.what)
		w.answer(m, nil, fmt.Errorf("node %s is gone: %w", m.to, ps.ErrUnavailable))
		return
	case m.call != nil && w.strikes(loseRequest, 12):
		w.tracef("%s → %s: %s: lost", m.from, m.to, m.what)
		w.bite(loseRequest)
		w.answer(m, nil, fmt.Errorf("the connection to %s broke: %w", m.to, ps.ErrUnavailable))
		return
	}
	w.tracef("%s → %s: %s%s", m.from, m.to, m.what, how)
	result, err := m.request(n, how)
	if l, ok := result.(later); ok {
		w.spawn(&n.host, m.to+" "+m.what, func(t *task) {
			result, err := l.run(t)
			if !t.dead {
				w.answer(m, result, err)
			}
		})
		return
	}
	if m.call != nil && w.strikes(loseAnswer, 12) {
		w.tracef("the answer is lost")
		w.bite(loseAnswer)
		result, err = nil, fmt.Errorf("the connection to %s broke: %w", m.to, ps.ErrUnavailable)
	}
	w.answer(m, result, err)
}

func (d delivery) String() string {
	s := ""
	if d.duplicate {
		s += ", once more"
	}
	if d.overtook {
		s += ", before its turn"
	}
	if d.late {
		s += ", late"
	}
	return s
}

func (w *world) deliverAnswer(m *message) {
	if !m.call.done {
		m.call.done, m.call.result, m.call.err = true, m.result, m.err
	}
}

// abandon makes a call that somebody waits for look as if its connection had broken,
// while the request goes on.
func (w *world) abandon(c *call) {
	c.done, c.abandoned, c.err = true, true, fmt.Errorf("no answer from %s: %w", c.to, ps.ErrUnavailable)
}

// forget drops the calls that have been answered.
func (w *world) openCalls() []*call {
	open := w.calls[:0]
	for _, c := range w.calls {
		if !c.done {
			open = append(open, c)
		}
	}
	w.calls = open
	return open
}

// all reports whether calls are done.
func all(calls []*call) func() bool {
	return func() bool {
		for _, c := range calls {
			if !c.done {
				return false
			}
		}
		return true
	}
}
