package model_test

import (
	"fmt"
	"math/bits"
	"testing"
)

const (
	copyEvents = 4
	copyRows   = 2
	copyQueue  = 5 // messages on the way; more would wait at the owner
)

// changes says which rows an event changes.
var changes = [copyEvents][copyRows]bool{{true, true}, {true, false}, {false, true}, {true, true}}

// learned are rows, each as the set of events it was learned from, a bit per event.
// What is learned from twice has the bit twice.
type learned [copyRows]uint8

func (l *learned) learn(event uint8) {
	for row := range l {
		if changes[event][row] {
			l.learnRow(row, event)
		}
	}
}

func (l *learned) learnRow(row int, event uint8) {
	if l[row]>>event&1 != 0 {
		l[row] |= twice
	}
	l[row] |= 1 << event
}

// at returns the rows that have learned from all events below applied.
func at(applied uint8) (l learned) {
	for event := range applied {
		l.learn(event)
	}
	return l
}

type messageKind uint8

const (
	baseRow messageKind = iota + 1
	delta
	endMark
)

// message is one on the way to the follower. Applied is the owner's when it was sent.
type message struct {
	Kind         messageKind
	Row, Applied uint8
	Rows         learned // as they were when it was sent
}

type copyState struct {
	Applied uint8 // the owner's
	Rows    learned
	Begun   bool
	Scanned uint8 // base rows and the end mark sent
	Queue   [copyQueue]message
	Queued  uint8
	Beside  [copyRows]message // base rows on a channel of their own

	// The follower's.
	Got          uint8 // base rows, a bit per row
	Ended        bool
	CopyApplied  uint8
	Copy         learned
	Redeliveries uint8
}

// copyRules are the rules of copying a shard that goes on learning.
type copyRules struct {
	use func(rows int, ended bool) bool
	// increments: a delta says what to add to a row, not what the row is.
	increments bool
	// beside: base rows travel on a channel of their own.
	beside bool
}

// copying is the machine of one copy: the owner learns, sends the base rows one by one
// and, between them, a delta for each event; the follower takes what arrives.
func (r copyRules) copying() machine[copyState] {
	return machine[copyState]{
		start: copyState{Redeliveries: 1},
		steps: func(s copyState, emit emit[copyState]) {
			r.ownerSteps(s, emit)
			r.followerSteps(s, emit)
		},
		wrong: func(_, s copyState) string {
			if s.Begun && r.use(bits.OnesCount8(s.Got), s.Ended) && s.Copy != at(s.CopyApplied) {
				return fmt.Sprintf("invariant 1: a copy is used that has applied %d and learned from %08b", s.CopyApplied, s.Copy)
			}
			return ""
		},
		done: func(s copyState) bool { return s.Ended && s.CopyApplied == copyEvents },
	}
}

func (s *copyState) send(m message) bool {
	if s.Queued == copyQueue {
		return false
	}
	s.Queue[s.Queued] = m
	s.Queued++
	return true
}

func (r copyRules) ownerSteps(s copyState, emit emit[copyState]) {
	if s.Applied < copyEvents {
		n := s
		n.Rows.learn(s.Applied)
		n.Applied++
		if !s.Begun || n.send(message{Kind: delta, Applied: n.Applied, Rows: n.Rows}) {
			emit(n, "the owner applies event %d", s.Applied)
		}
	}
	n := s
	switch {
	case !s.Begun:
		n.Begun, n.CopyApplied = true, s.Applied
		emit(n, "the copy begins at applied %d", s.Applied)
		return
	case s.Scanned > copyRows:
		return
	case s.Scanned == copyRows:
		n.Scanned++
		if n.send(message{Kind: endMark, Applied: s.Applied}) {
			emit(n, "the owner sends the end mark at applied %d", s.Applied)
		}
		return
	}
	n.Scanned++
	base := message{Kind: baseRow, Row: s.Scanned, Applied: s.Applied, Rows: s.Rows}
	if r.beside {
		n.Beside[s.Scanned] = base
	} else if !n.send(base) {
		return
	}
	emit(n, "the owner sends base row %d at applied %d", s.Scanned, s.Applied)
}

func (r copyRules) followerSteps(s copyState, emit emit[copyState]) {
	for row, m := range s.Beside {
		if m.Kind == baseRow {
			n := s
			n.Beside[row] = message{}
			r.receive(&n, m)
			emit(n, "base row %d of applied %d arrives beside the deltas", row, m.Applied)
		}
	}
	if s.Queued == 0 {
		return
	}
	m := s.Queue[0]
	n := s
	copy(n.Queue[:], s.Queue[1:])
	n.Queue[copyQueue-1] = message{}
	n.Queued--
	r.receive(&n, m)
	emit(n, "%v arrives", m)
	if s.Redeliveries > 0 {
		n := s
		n.Redeliveries--
		r.receive(&n, m)
		emit(n, "%v arrives and will be sent again", m)
	}
}

func (r copyRules) receive(s *copyState, m message) {
	switch m.Kind {
	case baseRow:
		s.Copy[m.Row] = m.Rows[m.Row]
		s.Got |= 1 << m.Row
	case delta:
		event := m.Applied - 1
		for row := range s.Copy {
			switch {
			case !changes[event][row]:
			case !r.increments:
				s.Copy[row] = m.Rows[row]
			case s.Got>>row&1 != 0: // an increment means nothing to a row that is not there
				s.Copy.learnRow(row, event)
			}
		}
		s.CopyApplied = m.Applied
	case endMark:
		s.Ended = true
		s.CopyApplied = m.Applied
	}
}

func (m message) String() string {
	switch m.Kind {
	case baseRow:
		return fmt.Sprintf("base row %d of applied %d", m.Row, m.Applied)
	case delta:
		return fmt.Sprintf("the delta of event %d", m.Applied-1)
	}
	return fmt.Sprintf("the end mark of applied %d", m.Applied)
}

// TestCopyingALiveShard explores the one mechanism behind standby, migration, replica
// and bootstrap (invariants 1 and 12): base rows and state deltas in one order, then an
// end mark. The copy may be used at any moment after it, and is then always some state
// that the owner was in.
func TestCopyingALiveShard(t *testing.T) {
	t.Run("base rows and deltas in one order, then an end mark", func(t *testing.T) {
		holds(t, copyRules{use: mayUse}.copying())
	})
	t.Run("a copy that does not wait for the end mark lacks rows", func(t *testing.T) {
		breaks(t, copyRules{use: func(rows int, _ bool) bool { return rows > 0 }}.copying(), "invariant 1")
	})
	t.Run("an increment that arrives twice is added twice", func(t *testing.T) {
		breaks(t, copyRules{use: mayUse, increments: true}.copying(), "invariant 1")
	})
	t.Run("a base row beside the deltas undoes one", func(t *testing.T) {
		breaks(t, copyRules{use: mayUse, beside: true}.copying(), "invariant 1")
	})
}

// rowwise is a snapshot written row by row while the shard goes on learning, without
// deltas.
type rowwise struct {
	Applied, Noted, Scanned uint8
	Rows, File              learned
}

// TestASnapshotRowByRow protects invariants 1 and 2: whenever applied is noted, some
// row is of another moment, so a snapshot without deltas is taken at once (or of
// memory that nobody changes meanwhile).
func TestASnapshotRowByRow(t *testing.T) {
	writing := func(noteAt uint8) machine[rowwise] {
		return machine[rowwise]{
			steps: func(s rowwise, emit emit[rowwise]) {
				if s.Applied < copyEvents {
					n := s
					n.Rows.learn(s.Applied)
					n.Applied++
					emit(n, "the owner applies event %d", s.Applied)
				}
				if s.Scanned < copyRows {
					n := s
					n.File[s.Scanned] = s.Rows[s.Scanned]
					if s.Scanned == noteAt {
						n.Noted = s.Applied
					}
					n.Scanned++
					emit(n, "row %d is copied at applied %d", s.Scanned, s.Applied)
				}
			},
			wrong: func(_, s rowwise) string {
				if s.Scanned == copyRows && s.File != at(s.Noted) {
					return fmt.Sprintf("invariant 1: a file has applied %d and learned from %08b", s.Noted, s.File)
				}
				return ""
			},
		}
	}
	t.Run("applied is noted with the first row", func(t *testing.T) { breaks(t, writing(0), "invariant 1") })
	t.Run("applied is noted with the last row", func(t *testing.T) { breaks(t, writing(copyRows-1), "invariant 1") })
}
