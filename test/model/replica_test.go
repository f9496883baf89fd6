package model_test

import (
	"fmt"
	"testing"
)

const replicaEvents = 3

// lineages are rows that remember, for each event, under which fence it was learned
// from (0: not yet). Learning from an event again under another fence gives another
// row, since the parameters were others.
type lineages [copyRows][replicaEvents]uint8

// served is a pair of rows and applied, of an owner or a replica.
type served struct {
	Applied uint8
	Rows    lineages
}

// next returns p after its next event under a fence.
func (p served) next(fence uint8) served {
	for row := range p.Rows {
		if changes[p.Applied][row] {
			p.Rows[row][p.Applied] = fence
		}
	}
	p.Applied++
	return p
}

// before returns p as it was when it had applied that much.
func (p served) before(applied uint8) served {
	for row := range p.Rows {
		clear(p.Rows[row][applied:])
	}
	p.Applied = applied
	return p
}

// take applies the owner's next delta: the rows that its event has changed, as they
// were then.
func (p served) take(owner served) served {
	then := owner.before(p.Applied + 1)
	for row := range p.Rows {
		if changes[p.Applied][row] {
			p.Rows[row] = then.Rows[row]
		}
	}
	p.Applied++
	return p
}

type replicaState struct {
	Owner   served
	Fence   uint8
	Standby served
	Epoch   served
	// The owner before, which does not know; fence 0 is none.
	Former      served
	FormerFence uint8
	// The replica: what it serves, whom it follows, and the shadow it loads.
	Replica      served
	ReplicaFence uint8
	Loading      bool
	Shadow       served
	Changes      uint8 // budget
}

// replicaRules are the rules of a reader's copy at a change of owner.
type replicaRules struct {
	swap func(shadow, served uint8) bool
	// merges: the replica goes on with the new owner's deltas over what it has.
	merges bool

	changes uint8
}

// following is the machine of a replica that follows deltas while owners change: to a
// standby that lags, or back to the epoch.
func (r replicaRules) following() machine[replicaState] {
	return machine[replicaState]{
		start: replicaState{Fence: 1, ReplicaFence: 1, Changes: r.changes},
		steps: func(s replicaState, emit emit[replicaState]) {
			ownerSteps(s, emit)
			r.replicaSteps(s, emit)
		},
		wrong: wrongReplica,
		done: func(s replicaState) bool {
			return s.ReplicaFence == s.Fence && !s.Loading && s.Replica.Applied == replicaEvents && s.Replica == s.Owner
		},
	}
}

func wrongReplica(from, to replicaState) string {
	if to.Replica.Applied < from.Replica.Applied {
		return fmt.Sprintf("invariant 13: what is served goes back from applied %d to %d", from.Replica.Applied, to.Replica.Applied)
	}
	if to.ReplicaFence == to.Fence && !to.Loading && to.Replica.Applied <= to.Owner.Applied {
		if was := to.Owner.before(to.Replica.Applied); to.Replica != was {
			return fmt.Sprintf("invariant 12: the replica serves %v at applied %d, the owner had %v", to.Replica.Rows, was.Applied, was.Rows)
		}
	}
	return ""
}

func ownerSteps(s replicaState, emit emit[replicaState]) {
	if s.Owner.Applied < replicaEvents {
		n := s
		n.Owner = s.Owner.next(s.Fence)
		emit(n, "the owner, fence %d, applies event %d", s.Fence, s.Owner.Applied)
	}
	if s.FormerFence != 0 && s.Former.Applied < replicaEvents {
		n := s
		n.Former = s.Former.next(s.FormerFence)
		emit(n, "the former owner, fence %d, applies event %d", s.FormerFence, s.Former.Applied)
	}
	n := s
	n.Standby = s.Owner
	emit(n, "the standby is at applied %d", s.Owner.Applied)
	n = s
	n.Epoch = s.Owner
	emit(n, "an epoch is committed at applied %d", s.Owner.Applied)
	if s.Changes == 0 {
		return
	}
	move := func(to served, from string) {
		n := s
		n.Changes--
		n.Former, n.FormerFence = s.Owner, s.Fence
		n.Owner, n.Standby = to, to
		n.Fence++
		emit(n, "the %s becomes the owner, fence %d, applied %d", from, n.Fence, to.Applied)
	}
	move(s.Epoch, "copy that loads the epoch")
	if mayPromote(s.Fence, s.Fence, offsets{s.Standby.Applied}, offsets{s.Epoch.Applied}) {
		move(s.Standby, "standby")
	}
}

func (r replicaRules) replicaSteps(s replicaState, emit emit[replicaState]) {
	n := s
	switch {
	case s.ReplicaFence == s.FormerFence && s.Replica.Applied < s.Former.Applied && !s.Loading:
		n.Replica = s.Replica.take(s.Former)
		emit(n, "the replica follows the former owner to applied %d", n.Replica.Applied)
	case s.ReplicaFence == s.Fence && s.Replica.Applied < s.Owner.Applied && !s.Loading:
		n.Replica = s.Replica.take(s.Owner)
		emit(n, "the replica follows the owner to applied %d", n.Replica.Applied)
	case s.ReplicaFence == s.Fence && s.Loading && s.Shadow.Applied < s.Owner.Applied:
		n.Shadow = s.Shadow.take(s.Owner)
		emit(n, "the shadow follows the owner to applied %d", n.Shadow.Applied)
	}
	if s.ReplicaFence != s.Fence {
		n := s
		n.ReplicaFence = s.Fence
		if r.merges {
			emit(n, "the replica, applied %d, goes on with the deltas of fence %d", s.Replica.Applied, s.Fence)
			return
		}
		n.Loading, n.Shadow = true, s.Owner
		emit(n, "the replica, applied %d, sees fence %d and loads a shadow, applied %d", s.Replica.Applied, s.Fence, s.Owner.Applied)
		return
	}
	if s.Loading && r.swap(s.Shadow.Applied, s.Replica.Applied) {
		n := s
		n.Replica, n.Shadow, n.Loading = s.Shadow, served{}, false
		emit(n, "the replica serves its shadow, applied %d", s.Shadow.Applied)
	}
}

// TestAReplicaNeverGoesBackNorMixesOwners protects invariants 12 and 13, which readers
// rest on: what they are served is at every moment some state of one owner's, and
// newer than what they were served before. An owner that comes back from an epoch learns
// the same events again from other parameters, so its rows and the former owner's fit
// together only whole.
func TestAReplicaNeverGoesBackNorMixesOwners(t *testing.T) {
	t.Run("a new fence is loaded as a whole, and served when it is as new", func(t *testing.T) {
		r := replicaRules{swap: maySwap, changes: 3}
		if testing.Short() {
			r.changes = 2
		}
		holds(t, r.following())
	})
	t.Run("the deltas of a new fence are merged into what is there", func(t *testing.T) {
		breaks(t, replicaRules{swap: maySwap, merges: true, changes: 1}.following(), "invariant 12")
	})
	t.Run("the shadow is served as soon as it is there", func(t *testing.T) {
		breaks(t, replicaRules{swap: func(_, _ uint8) bool { return true }, changes: 1}.following(), "invariant 13")
	})
}
