package model_test

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/train"
)

const (
	pushEvents  = 3
	pushShards  = 2
	pushCopies  = 2
	pushWorkers = 2
)

// contributions says which shards each event contributes to, a bit per shard.
type contributions [pushEvents]uint8

var (
	everyShard = contributions{0b11, 0b11, 0b11}
	someShards = contributions{0b11, 0b01, 0b10}
)

func (c contributions) has(event, shard int) bool { return c[event]>>shard&1 != 0 }

// shardPart is what a shard stores: a pair of its rows and what it has applied. The
// rows are modelled as how often each event was learned from.
type shardPart struct {
	Applied uint8
	Learned [pushEvents]uint8
}

// sound reports whether the rows are the contributions of the events below Applied,
// each exactly once.
func (p shardPart) sound(c contributions, shard int) bool {
	for event, times := range p.Learned {
		want := uint8(0)
		if event < int(p.Applied) && c.has(event, shard) {
			want = 1
		}
		if times != want {
			return false
		}
	}
	return true
}

// pushItem is one shard's part of a batch on its way.
type pushItem struct {
	On       bool
	From, To uint8
	Events   uint8 // whose contributions it holds, a bit per event
}

// pushCopy is a node's copy of a shard. Owns is what the node believes.
type pushCopy struct {
	Alive, Owns bool
	Fence       uint8
	Part        shardPart
}

type pushShard struct {
	Copies       [pushCopies]pushCopy
	Owner, Fence uint8 // the map's
	Epoch        shardPart
}

// position is what a worker knows of its progress: a train.Cursor as a value.
type position struct {
	Next uint8
	Sent [pushShards]uint8
}

// cursor returns the product's cursor at p.
func (p position) cursor() train.Cursor {
	var sent [pushShards]ps.Offset
	for s, to := range p.Sent {
		sent[s] = ps.Offset(to)
	}
	c := train.NewCursor(sent[:])
	for _, cut := range c.Cuts() {
		if cut < ps.Offset(p.Next) {
			c.Take(cut)
		}
	}
	c.Take(ps.Offset(p.Next))
	return c
}

func positionOf(c train.Cursor) position {
	p := position{Next: uint8(c.Next())}
	for s := range p.Sent {
		p.Sent[s] = uint8(c.Sent(ps.ShardID(s)))
	}
	return p
}

type pushWorker struct {
	// Known: the shard has said what it has applied. When all have, the worker runs.
	Known   [pushShards]bool
	Running bool
	At      position
	Route   [pushShards]uint8 // the copy it takes for the owner
	// Items were taken from the stream and have not been delivered.
	Items [pushShards]pushItem
}

// packet is a push that the network keeps: it comes late, twice, or never.
type packet struct {
	Shard, Copy uint8
	Item        pushItem
}

type pushState struct {
	Shards    [pushShards]pushShard
	Workers   [pushWorkers]pushWorker
	Network   packet
	Committed uint8 // the consumer group's, for workers that use such a thing
	// Budgets.
	Crashes, Changes, Delays uint8
}

// offsetRule judges an item as ps.Judge does, and says what the shard has applied
// afterwards. Only for Applied does the shard learn.
type offsetRule func(applied uint8, r ps.Range) (ps.Outcome, uint8)

// exact is the product's rule.
func exact(applied uint8, r ps.Range) (ps.Outcome, uint8) {
	outcome := ps.Judge(ps.Offset(applied), r)
	if outcome == ps.Applied {
		applied = uint8(r.To)
	}
	return outcome, applied
}

// planRule takes the events below to into a batch: it returns the position behind
// it and the items to send. everybody asks for items without events, too.
type planRule func(c contributions, at position, to uint8, everybody bool) (position, [pushShards]pushItem)

// planned is the product's rule, in the words of the worker's planning: who lacks
// the batch gets what it contributes, from where that shard is.
func planned(c contributions, at position, to uint8, everybody bool) (after position, items [pushShards]pushItem) {
	cursor := at.cursor()
	for s := range items {
		id := ps.ShardID(s)
		lacks := cursor.Lacks(id)
		events := uint8(0)
		if lacks {
			events = eventsOf(c, s, at.Next, to)
		}
		if cursor.Sent(id) >= ps.Offset(to) || events == 0 && !(everybody && lacks) {
			continue
		}
		items[s] = pushItem{On: true, From: uint8(cursor.Sent(id)), To: to, Events: events}
		cursor.Send(id, ps.Offset(to))
	}
	cursor.Take(ps.Offset(to))
	return positionOf(cursor), items
}

func eventsOf(c contributions, shard int, from, to uint8) (events uint8) {
	for e := from; e < to; e++ {
		if c.has(int(e), shard) {
			events |= 1 << e
		}
	}
	return events
}

// firstCut returns where a batch from at must end at the latest.
func firstCut(at position) uint8 {
	cursor := at.cursor()
	if cuts := cursor.Cuts(); len(cuts) > 0 {
		return uint8(cuts[0])
	}
	return pushEvents
}

// pushRules is a protocol of shards and workers. The zero value is no protocol; see
// pushing.
type pushRules struct {
	judge offsetRule
	plan  planRule
	// cut returns where a batch must end at the latest.
	cut func(position) uint8
	// sizes are the numbers of events a batch may have, unless it is cut.
	sizes []uint8
	// commits: a worker begins where the group has committed, and asks no shard.
	commits bool
	// goesOn: a worker takes a duplicate for success and anything else for a reason
	// to send the same again; it never asks a shard again.
	goesOn bool

	contributions            contributions
	workers                  int
	crashes, changes, delays uint8
}

// productRules are what the product does.
func productRules() pushRules {
	return pushRules{
		judge: exact, plan: planned, cut: firstCut, sizes: []uint8{1, 2}, contributions: someShards,
		workers: 2, crashes: 1, changes: 1, delays: 1,
	}
}

// pushing is the machine of learning: workers read, cut and push one partition;
// nodes crash and come back from the epoch, ownership moves while the old owner lives
// on, sessions end at any time, the network delays, doubles and drops. Routes are
// learned late and no fence is checked: exactly-once rests on the offset rule alone.
func (r pushRules) pushing() machine[pushState] {
	start := pushState{Crashes: r.crashes, Changes: r.changes, Delays: r.delays}
	for s := range start.Shards {
		start.Shards[s].Fence = 1
		start.Shards[s].Copies[0] = pushCopy{Alive: true, Owns: true, Fence: 1}
	}
	return machine[pushState]{
		start: start,
		steps: func(s pushState, emit emit[pushState]) {
			for w := range r.workers {
				r.workerSteps(s, w, emit)
			}
			r.networkSteps(s, emit)
			for i := range s.Shards {
				shardSteps(s, i, emit)
			}
		},
		wrong: func(_, to pushState) string { return r.wrong(to) },
		done: func(s pushState) bool {
			for _, shard := range s.Shards {
				c := shard.Copies[shard.Owner]
				if !c.Alive || !c.Owns || c.Fence != shard.Fence || c.Part.Applied != pushEvents {
					return false
				}
			}
			return true
		},
	}
}

// wrong checks invariants 1 and 2 on every copy and every file.
func (r pushRules) wrong(s pushState) string {
	for i, shard := range s.Shards {
		for k, c := range shard.Copies {
			if c.Alive && !c.Part.sound(r.contributions, i) {
				return fmt.Sprintf("invariant 1: shard %d at copy %d has applied %d and learned from its events %v times", i, k, c.Part.Applied, c.Part.Learned)
			}
		}
		if !shard.Epoch.sound(r.contributions, i) {
			return fmt.Sprintf("invariant 1: shard %d's checkpoint has applied %d and learned from its events %v times", i, shard.Epoch.Applied, shard.Epoch.Learned)
		}
	}
	return ""
}

func (r pushRules) workerSteps(s pushState, w int, emit emit[pushState]) {
	worker := s.Workers[w]
	for i, shard := range s.Shards {
		if worker.Route[i] != shard.Owner {
			n := s
			n.Workers[w].Route[i] = shard.Owner
			emit(n, "worker %d learns that copy %d owns shard %d", w, shard.Owner, i)
		}
	}
	if !worker.Running {
		r.beginSteps(s, w, emit)
		return
	}
	if !r.goesOn || r.commits {
		n := s
		n.Workers[w] = pushWorker{Route: worker.Route}
		emit(n, "worker %d ends its session, whatever is on its way", w)
	}
	r.batchSteps(s, w, emit)
	for i := range worker.Items {
		if worker.Items[i].On {
			r.sendSteps(s, w, i, emit)
		}
	}
}

// beginSteps are what a worker does before its first batch.
func (r pushRules) beginSteps(s pushState, w int, emit emit[pushState]) {
	worker := s.Workers[w]
	if r.commits {
		n := s
		n.Workers[w].Running = true
		n.Workers[w].At.Next = s.Committed
		emit(n, "worker %d begins at the committed offset %d", w, s.Committed)
		return
	}
	for i := range s.Shards {
		c := s.Shards[i].Copies[worker.Route[i]]
		if worker.Known[i] || !c.Alive || !c.Owns {
			continue
		}
		n := s
		begun := &n.Workers[w]
		begun.Known[i] = true
		begun.At.Sent[i] = c.Part.Applied
		if begun.Known == [pushShards]bool{true, true} {
			begun.Known = [pushShards]bool{}
			begun.Running = true
			begun.At.Next = min(begun.At.Sent[0], begun.At.Sent[1])
		}
		emit(n, "shard %d at copy %d tells worker %d that it has applied %d", i, worker.Route[i], w, c.Part.Applied)
	}
}

// batchSteps take the next batch from the stream.
func (r pushRules) batchSteps(s pushState, w int, emit emit[pushState]) {
	worker := s.Workers[w]
	waiting := false
	for _, item := range worker.Items {
		waiting = waiting || item.On
	}
	if r.commits && !waiting && s.Committed < worker.At.Next {
		n := s
		n.Committed = worker.At.Next
		emit(n, "worker %d commits offset %d for its group", w, worker.At.Next)
		return
	}
	if r.goesOn && waiting {
		return
	}
	limit := min(pushEvents, r.cut(worker.At))
	take := func(to uint8, everybody bool) {
		at, items := r.plan(r.contributions, worker.At, to, everybody)
		n := s
		n.Workers[w].At = at
		for i, item := range items {
			if !item.On {
				continue
			}
			if worker.Items[i].On {
				return // one item per shard is on its way; other shards' may be of a later batch
			}
			n.Workers[w].Items[i] = item
		}
		emit(n, "worker %d takes events [%d,%d) into a batch: %v for shard 0, %v for shard 1", w, worker.At.Next, to, items[0], items[1])
	}
	if worker.At.Next == pushEvents {
		if !r.goesOn {
			take(pushEvents, true)
		}
		return
	}
	for _, size := range r.sizes {
		to := min(worker.At.Next+size, limit)
		take(to, false)
		take(to, true)
	}
}

// sendSteps send a worker's item to a shard.
func (r pushRules) sendSteps(s pushState, w, i int, emit emit[pushState]) {
	item, to := s.Workers[w].Items[i], s.Workers[w].Route[i]
	if s.Delays > 0 && !s.Network.Item.On {
		n := s
		n.Delays--
		n.Network = packet{Shard: uint8(i), Copy: to, Item: item}
		if !r.goesOn {
			n.Workers[w].Items[i] = pushItem{}
		}
		emit(n, "the network keeps worker %d's %v for shard %d", w, item, i)
	}
	if c := s.Shards[i].Copies[to]; !c.Alive || !c.Owns {
		return
	}
	n := s
	outcome := r.deliver(&n.Shards[i].Copies[to].Part, item)
	told := n
	switch {
	case outcome == ps.Applied || r.goesOn && outcome == ps.Duplicate:
		told.Workers[w].Items[i] = pushItem{}
	case !r.goesOn:
		told.Workers[w] = pushWorker{Route: s.Workers[w].Route}
	}
	emit(told, "worker %d's %v reaches shard %d at copy %d: %v, applied %d", w, item, i, to, outcome, n.Shards[i].Copies[to].Part.Applied)
	if r.goesOn {
		emit(n, "worker %d's %v reaches shard %d at copy %d: %v, and the answer is lost", w, item, i, to, outcome)
	}
}

// deliver is what a shard does with an item.
func (r pushRules) deliver(p *shardPart, item pushItem) ps.Outcome {
	outcome, applied := r.judge(p.Applied, ps.Range{From: ps.Offset(item.From), To: ps.Offset(item.To)})
	p.Applied = applied
	if outcome == ps.Applied {
		for e := range p.Learned {
			if item.Events>>e&1 != 0 && p.Learned[e] < 2 {
				p.Learned[e]++
			}
		}
	}
	return outcome
}

func (r pushRules) networkSteps(s pushState, emit emit[pushState]) {
	late := s.Network
	if !late.Item.On {
		return
	}
	if c := s.Shards[late.Shard].Copies[late.Copy]; c.Alive && c.Owns {
		n := s
		outcome := r.deliver(&n.Shards[late.Shard].Copies[late.Copy].Part, late.Item)
		emit(n, "the network delivers %v to shard %d at copy %d: %v", late.Item, late.Shard, late.Copy, outcome)
	}
	n := s
	n.Network = packet{}
	emit(n, "the network drops %v", late.Item)
}

// shardSteps are a shard's crash, its checkpoint and its change of owner. The latter
// two are single and safe steps here; see ownState for how they are made.
func shardSteps(s pushState, i int, emit emit[pushState]) {
	shard := s.Shards[i]
	owner := shard.Copies[shard.Owner]
	for k, c := range shard.Copies {
		if c.Alive && s.Crashes > 0 {
			n := s
			n.Crashes--
			n.Shards[i].Copies[k] = pushCopy{}
			emit(n, "shard %d's copy %d is lost in a crash", i, k)
		}
	}
	if owner.Alive && owner.Fence == shard.Fence {
		n := s
		n.Shards[i].Epoch = owner.Part
		emit(n, "shard %d's checkpoint at %d is committed", i, owner.Part.Applied)
	}
	move := func(n pushState, k uint8) {
		n.Shards[i].Owner = k
		n.Shards[i].Fence++
		n.Shards[i].Copies[k] = pushCopy{Alive: true, Owns: true, Fence: shard.Fence + 1, Part: shard.Epoch}
		emit(n, "shard %d moves to copy %d, which loads the checkpoint at %d", i, k, shard.Epoch.Applied)
	}
	if !owner.Alive {
		move(s, shard.Owner)
	} else if s.Changes > 0 {
		n := s
		n.Changes--
		move(n, 1-shard.Owner)
	}
}

// String returns an item as its range and the events that it holds.
func (it pushItem) String() string {
	if !it.On {
		return "nothing"
	}
	held := ""
	for e := range pushEvents {
		if it.Events>>e&1 != 0 {
			held += fmt.Sprintf(" e%d", e)
		}
	}
	if held == "" {
		held = " none"
	}
	return fmt.Sprintf("item [%d,%d) of%s", it.From, it.To, held)
}
