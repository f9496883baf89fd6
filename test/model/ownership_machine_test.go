package model_test

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

const (
	ownCopies   = 3
	ownAttempts = 2
	ownChanges  = 2
)

// ownPair is what a shard stores and what a file holds: rows and what they have
// applied. The rows are modelled as the set of events learned from, a bit per event;
// learning from one a second time sets the highest bit.
type ownPair struct {
	Applied offsets
	Learned [2]uint8
}

const twice = 0x80

func (p ownPair) sound() bool {
	return p.Learned[0] == 1<<p.Applied[0]-1 && p.Learned[1] == 1<<p.Applied[1]-1
}

// ownCopy is a node's copy of the shard. Owns is what the node believes; a copy that
// does not own follows, and Fence is then the fence of what it follows.
type ownCopy struct {
	Alive, Owns bool
	Fence       uint8
	Pair        ownPair
}

// Phases of an attempt to commit an epoch.
const (
	idle      = iota
	begun     // the previous epoch was read
	half      // the first half of a snapshot that is not atomic was taken
	written   // the snapshot is in
	decidable // the map was read
)

// attempt is one coordinator's way to an epoch. Moved says what has changed since it
// read it, which is what comparing revisions finds out.
type attempt struct {
	Phase                uint8
	Copy, Fence          uint8 // who writes the snapshot, under which fence
	Pair                 ownPair
	MapMoved, EpochMoved bool
}

// change is one coordinator's way to a new owner: all of it was read and judged in
// one step and is carried out in another.
type change struct {
	On                   bool
	To, Fence            uint8   // Fence is the map's when it was read
	Promote              bool    // the copy takes over as it is
	Files                ownPair // else it loads these
	Gone                 bool    // the copy's process has died since
	MapMoved, EpochMoved bool
}

type ownState struct {
	Copies          [ownCopies]ownCopy
	Owner, Fence    uint8 // the map's
	Epoch           ownPair
	Start           offsets // of the stream: what is below was trimmed
	Attempts        [ownAttempts]attempt
	Plans           [ownChanges]change
	Crashes, Budget uint8 // Budget is for changes of an owner that lives
}

// ownRules are the rules of ownership, epochs and trimming.
type ownRules struct {
	promote    func(followed, fence uint8, applied, epoch offsets) bool
	mayMove    func(mapMoved, epochMoved bool) bool
	commit     func(mapMoved, epochMoved bool) bool
	contribute func(written, fence uint8) bool
	trim       func(epoch, current offsets) offsets
	// snapshot is how rows and applied are copied.
	snapshot snapshotRule
	// lateEpoch: an attempt reads the previous epoch with the map, when the snapshot
	// is in, and not before it asks for one.
	lateEpoch bool

	events                   offsets // the partitions' lengths
	copies, attempts, plans  int
	follow                   bool // copies follow the owner
	crashes, changesOfLiving uint8
}

type snapshotRule uint8

const (
	together snapshotRule = iota
	appliedFirst
	rowsFirst
)

// safeRules are those of the design, with the decisions of this package.
func safeRules() ownRules {
	return ownRules{
		promote: mayPromote, mayMove: mayCommit, commit: mayCommit, contribute: mayContribute, trim: trimTo,
		events: offsets{2, 1}, copies: 2, attempts: 1, plans: 1, follow: true, crashes: 1, changesOfLiving: 1,
	}
}

// owning is the machine of one shard's ownership: coordinators read, decide and
// commit in separate steps, nodes crash, an old owner lives on, and the stream is
// trimmed behind epochs. Any worker may push any range that can still be read to any
// node that believes to be the owner.
func (r ownRules) owning() machine[ownState] {
	start := ownState{Fence: 1, Crashes: r.crashes, Budget: r.changesOfLiving}
	start.Copies[0] = ownCopy{Alive: true, Owns: true, Fence: 1}
	return machine[ownState]{
		start: start,
		steps: func(s ownState, emit emit[ownState]) {
			r.copySteps(s, emit)
			for i := range r.attempts {
				r.attemptSteps(s, i, emit)
			}
			for i := range r.plans {
				r.planSteps(s, i, emit)
			}
			if to := r.trim(s.Epoch.Applied, s.Copies[s.Owner].Pair.Applied); to != s.Start && to.reaches(s.Start) {
				n := s
				n.Start = to
				emit(n, "the stream is trimmed to %v", to)
			}
		},
		wrong: wrongOwnership,
		done: func(s ownState) bool {
			c := s.Copies[s.Owner]
			return c.Alive && c.Owns && c.Fence == s.Fence && c.Pair.Applied == r.events
		},
	}
}

func wrongOwnership(from, to ownState) string {
	owners := [16]bool{}
	for k, c := range to.Copies {
		if c.Alive && !c.Pair.sound() {
			return fmt.Sprintf("invariant 1: copy %d has applied %v and learned from %b", k, c.Pair.Applied, c.Pair.Learned)
		}
		if c.Alive && c.Owns {
			if owners[c.Fence] {
				return fmt.Sprintf("invariant 6: two owners have the fence %d", c.Fence)
			}
			owners[c.Fence] = true
		}
	}
	owner := to.Copies[to.Owner]
	switch {
	case to.Fence < from.Fence:
		return fmt.Sprintf("invariant 6: the fence falls from %d to %d", from.Fence, to.Fence)
	case !to.Epoch.sound():
		return fmt.Sprintf("invariant 1: the epoch has applied %v and learned from %b", to.Epoch.Applied, to.Epoch.Learned)
	case !to.Epoch.Applied.reaches(to.Start):
		return fmt.Sprintf("invariant 8: the stream starts at %v, the epoch has applied %v", to.Start, to.Epoch.Applied)
	case !to.Epoch.Applied.reaches(from.Epoch.Applied):
		return fmt.Sprintf("invariant 6: the epoch goes back from %v to %v", from.Epoch.Applied, to.Epoch.Applied)
	case owner.Alive && owner.Fence == to.Fence && !owner.Pair.Applied.reaches(to.Start):
		return fmt.Sprintf("invariant 7: the stream starts at %v, the owner has applied %v", to.Start, owner.Pair.Applied)
	}
	return ""
}

// copySteps are pushes, following and crashes.
func (r ownRules) copySteps(s ownState, emit emit[ownState]) {
	for k, c := range s.Copies[:r.copies] {
		if c.Alive && c.Owns {
			for p, events := range r.events {
				for from := s.Start[p]; from < events; from++ {
					for to := from + 1; to <= events; to++ {
						n := s
						if n.Copies[k].Pair.push(p, from, to) {
							emit(n, "copy %d applies [%d,%d) of partition %d", k, from, to, p)
						}
					}
				}
			}
		}
		if r.follow && !c.Owns {
			for j, o := range s.Copies[:r.copies] {
				if o.Alive && o.Owns && (!c.Alive || o.Fence >= c.Fence) {
					n := s
					n.Copies[k] = ownCopy{Alive: true, Fence: o.Fence, Pair: o.Pair}
					emit(n, "copy %d follows copy %d, fence %d, to %v", k, j, o.Fence, o.Pair.Applied)
				}
			}
		}
		if c.Alive && s.Crashes > 0 {
			n := s
			n.Crashes--
			n.Copies[k] = ownCopy{}
			for i := range n.Attempts {
				if a := &n.Attempts[i]; a.Phase == half && int(a.Copy) == k {
					*a = attempt{}
				}
			}
			for i := range n.Plans {
				if n.Plans[i].On && int(n.Plans[i].To) == k {
					n.Plans[i].Gone = true
				}
			}
			emit(n, "copy %d is lost in a crash", k)
		}
	}
}

// push judges an item and applies it if its turn has come.
func (p *ownPair) push(partition int, from, to uint8) bool {
	r := ps.Range{From: ps.Offset(from), To: ps.Offset(to)}
	if ps.Judge(ps.Offset(p.Applied[partition]), r) != ps.Applied {
		return false
	}
	for e := from; e < to; e++ {
		if p.Learned[partition]>>e&1 != 0 {
			p.Learned[partition] |= twice
		}
		p.Learned[partition] |= 1 << e
	}
	p.Applied[partition] = to
	return true
}

// attemptSteps lead to an epoch: read the previous one, ask for the snapshot, read the
// map, commit.
func (r ownRules) attemptSteps(s ownState, i int, emit emit[ownState]) {
	a := s.Attempts[i]
	if a.Phase != idle {
		n := s
		n.Attempts[i] = attempt{}
		emit(n, "coordinator %d gives its epoch up", i)
	}
	switch a.Phase {
	case idle:
		n := s
		n.Attempts[i].Phase = begun
		emit(n, "coordinator %d reads the epoch at %v and asks for a snapshot", i, s.Epoch.Applied)
	case begun:
		for k, c := range s.Copies[:r.copies] {
			if !c.Alive || !c.Owns {
				continue
			}
			n := s
			b := &n.Attempts[i]
			b.Copy, b.Fence, b.Pair, b.Phase = uint8(k), c.Fence, c.Pair, written
			switch r.snapshot {
			case appliedFirst:
				b.Phase, b.Pair.Learned = half, [2]uint8{}
			case rowsFirst:
				b.Phase, b.Pair.Applied = half, offsets{}
			case together:
				b.Copy = 0
			}
			emit(n, "copy %d writes a snapshot under fence %d: %+v", k, c.Fence, b.Pair)
		}
	case half:
		n := s
		b := &n.Attempts[i]
		pair := s.Copies[a.Copy].Pair
		if r.snapshot == appliedFirst {
			b.Pair.Learned = pair.Learned
		} else {
			b.Pair.Applied = pair.Applied
		}
		b.Phase, b.Copy = written, 0
		emit(n, "copy %d writes the other half of its snapshot: %+v", a.Copy, b.Pair)
	case written:
		n := s
		b := &n.Attempts[i]
		if r.contribute(a.Fence, s.Fence) {
			b.Phase, b.MapMoved = decidable, false
			if r.lateEpoch {
				b.EpochMoved = false
			}
			emit(n, "coordinator %d reads the map: the snapshot's fence %d counts, the map has %d", i, a.Fence, s.Fence)
		} else {
			*b = attempt{}
			emit(n, "coordinator %d reads the map: the snapshot's fence %d is not the map's %d", i, a.Fence, s.Fence)
		}
	case decidable:
		if r.commit(a.MapMoved, a.EpochMoved) {
			n := s
			n.Attempts[i] = attempt{}
			n.Epoch = a.Pair
			for j := range n.Attempts {
				n.Attempts[j].EpochMoved = n.Attempts[j].Phase != idle
			}
			for j := range n.Plans {
				n.Plans[j].EpochMoved = n.Plans[j].On
			}
			emit(n, "coordinator %d commits an epoch at %v", i, a.Pair.Applied)
		}
	}
}

// planSteps lead to another owner: read and judge, then change the map.
func (r ownRules) planSteps(s ownState, i int, emit emit[ownState]) {
	plan := s.Plans[i]
	if !plan.On {
		owner := s.Copies[s.Owner]
		lost := !owner.Alive || !owner.Owns || owner.Fence != s.Fence
		if !lost && s.Budget == 0 {
			return
		}
		for k, c := range s.Copies[:r.copies] {
			if !lost && k == int(s.Owner) {
				continue
			}
			n := s
			if !lost {
				n.Budget--
			}
			promote := c.Alive && !c.Owns && r.promote(c.Fence, s.Fence, c.Pair.Applied, s.Epoch.Applied)
			n.Plans[i] = change{On: true, To: uint8(k), Fence: s.Fence, Promote: promote}
			if promote {
				emit(n, "coordinator %d plans to promote copy %d at %v; the epoch is at %v", i, k, c.Pair.Applied, s.Epoch.Applied)
			} else {
				n.Plans[i].Files = s.Epoch
				emit(n, "coordinator %d plans that copy %d loads the epoch at %v", i, k, s.Epoch.Applied)
			}
		}
		return
	}
	n := s
	n.Plans[i] = change{}
	if !r.mayMove(plan.MapMoved, plan.EpochMoved) {
		emit(n, "coordinator %d finds that what it planned from has changed", i)
		return
	}
	for j := range n.Plans {
		n.Plans[j].MapMoved = n.Plans[j].On
	}
	for j := range n.Attempts {
		n.Attempts[j].MapMoved = n.Attempts[j].Phase == decidable
	}
	n.Owner, n.Fence = plan.To, plan.Fence+1
	to := &n.Copies[plan.To]
	switch {
	case plan.Gone:
		*to = ownCopy{} // the map names a process that is dead
	case plan.Promote:
		to.Owns, to.Fence = true, n.Fence
	default:
		*to = ownCopy{Alive: true, Owns: true, Fence: n.Fence, Pair: plan.Files}
	}
	emit(n, "coordinator %d makes copy %d the owner, fence %d, applied %v", i, plan.To, n.Fence, to.Pair.Applied)
}
