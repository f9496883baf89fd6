package placement

import (
	"cmp"
	"math"
	"slices"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// Node is a living node, as far as placement needs to know it.
type Node struct {
	ID ps.NodeID
	// Zone is what fails together.
	Zone string
	// Capacity is how much it takes, next to others; 0 is 1.
	Capacity float64
	// Draining: it is to give up all it has, and gets nothing.
	Draining bool
}

// Cluster is what shards are placed on.
type Cluster struct {
	// Nodes are the living, in any order.
	Nodes []Node
	// Standbys is how many copies every shard should have, as far as there are nodes.
	Standbys int
	// Loads is how much each shard is used, in any unit; nil if that is not known.
	Loads []float64
	// Moves bounds how many shards have a target at once, those that have one already
	// among them.
	Moves int
	// Arrived are shards that have just got where they were to move. They do not move on, and
	// what they were a part of goes on.
	Arrived []ps.ShardID
}

// When nodes are uneven. Loads are in shards: that of a node is the weight of its shards,
// which is 1 on average, divided by its capacity.
const (
	// beginAbove is by what part of the mean, and by how many shards, the node with most or
	// with least must be off for shards to begin to move.
	beginAbove       = 0.05
	beginAboveShards = 1.2
	// endBelow is the part of the mean at which no more begin to move, while some still do or
	// have just arrived. That they do is all the memory there is: it keeps the plan from
	// stopping at the edge where it began, and from going back and forth there.
	endBelow = 0.02
	// weightMin is the least weight of a shard that is worth its move.
	weightMin = 0.25
)

// Shards returns the shard map that should follow current, and the shards that differ,
// ascending.
//
// A shard whose owner is gone goes to a living standby of its own, for that has a copy; if
// it has none, to its target, and else to the node with the least load. Without a living
// node nothing changes: a dead owner stays in the map, where nobody can reach it, until
// there is one to follow it, since a fence raised for no owner would say nothing.
//
// A shard whose owner lives keeps it, and at most gets a target: where its owner is
// draining, or the loads of the nodes are uneven. Whoever sees it arrive makes the target
// its owner. A target that is gone or draining is taken back; others stay, whoever set
// them.
//
// Standbys stay as far as the number, and zones, allow; what is missing is filled up with
// the nodes that stand by for the fewest shards, those in other zones first.
func Shards(current []route.Shard, c Cluster) (next []route.Shard, changed []ps.ShardID) {
	p := newPlan(current, c)
	if len(p.nodes) == 0 {
		return p.next, nil
	}
	p.giveAway()
	p.move(c.Moves)
	p.standBy(c.Standbys)
	for s := range p.next {
		if !p.next[s].Equal(current[s]) {
			changed = append(changed, ps.ShardID(s))
		}
	}
	return p.next, changed
}

// Moves returns the moves that would load the nodes evenly and empty those that are
// draining, in the order in which Shards begins them, whatever c.Moves says. Shards that
// are on the move count as having arrived.
func Moves(current []route.Shard, c Cluster) []coordinator.Move {
	p := newPlan(current, c)
	if len(p.nodes) == 0 {
		return nil
	}
	p.giveAway()
	p.eager = true
	return p.move(len(current))
}

// plan is a map under way.
type plan struct {
	next    []route.Shard
	weights []float64 // by shard; 1 on average
	nodes   []node    // ordered by ID
	arrived map[ps.ShardID]bool
	eager   bool // even out what is not uneven enough to begin with
}

type node struct {
	Node
	load   float64 // weight of the shards it owns and will own, over capacity
	copies int     // shards it stands by for
	shards []ps.ShardID
	stuck  bool // it has nothing that could be moved
}

func newPlan(current []route.Shard, c Cluster) *plan {
	p := &plan{
		next: slices.Clone(current), weights: weights(c.Loads, len(current)),
		arrived: make(map[ps.ShardID]bool), eager: len(c.Arrived) > 0,
	}
	for _, s := range c.Arrived {
		p.arrived[s] = true
	}
	for _, n := range c.Nodes {
		if n.ID != "" {
			n.Capacity = cmp.Or(n.Capacity, 1)
			p.nodes = append(p.nodes, node{Node: n})
		}
	}
	slices.SortStableFunc(p.nodes, func(a, b node) int { return cmp.Compare(a.ID, b.ID) })
	p.nodes = slices.CompactFunc(p.nodes, func(a, b node) bool { return a.ID == b.ID })
	if len(p.nodes) == 0 {
		return p
	}
	for s := range p.next {
		shard := &p.next[s]
		if n := p.find(shard.Target); n == nil || n.Draining || shard.Target == shard.Owner {
			shard.Target = ""
		}
		if n := p.find(shard.Owner); n != nil {
			p.load(shard.Destination(), ps.ShardID(s))
		}
		for _, id := range shard.Standbys {
			if n := p.find(id); n != nil {
				n.copies++
			}
		}
	}
	return p
}

// weights returns how much each shard weighs, 1 on average: half of it for being there,
// half for its part of the load.
func weights(loads []float64, shards int) []float64 {
	sum := 0.0
	for _, load := range loads {
		sum += max(load, 0)
	}
	weights := make([]float64, shards)
	for s := range weights {
		weights[s] = 1
		if sum > 0 && len(loads) == shards {
			weights[s] = 0.5 + 0.5*max(loads[s], 0)/sum*float64(shards)
		}
	}
	return weights
}

// find returns a living node, or nil.
func (p *plan) find(id ps.NodeID) *node {
	i, found := slices.BinarySearchFunc(p.nodes, id, func(n node, id ps.NodeID) int { return cmp.Compare(n.ID, id) })
	if !found {
		return nil
	}
	return &p.nodes[i]
}

// load adds a shard to what a node will have.
func (p *plan) load(id ps.NodeID, s ps.ShardID) {
	n := p.find(id)
	n.load += p.weights[s] / n.Capacity
	n.shards = append(n.shards, s)
}

// unload takes a shard from what a node would have had.
func (p *plan) unload(id ps.NodeID, s ps.ShardID) {
	n := p.find(id)
	n.load -= p.weights[s] / n.Capacity
	n.shards = slices.DeleteFunc(n.shards, func(other ps.ShardID) bool { return other == s })
}

// least returns the node that qualifies whose load, with w more, is the least; of several
// the first. It is nil if none qualifies.
func (p *plan) least(w float64, qualifies func(*node) bool) (least *node) {
	best := 0.0
	for i := range p.nodes {
		n := &p.nodes[i]
		if load := n.load + w/n.Capacity; qualifies(n) && (least == nil || load < best) {
			least, best = n, load
		}
	}
	return least
}

// takes reports whether a node may get shards. If all are draining, somebody has to have
// the shards of the dead.
func (p *plan) takes() func(*node) bool {
	if slices.ContainsFunc(p.nodes, func(n node) bool { return !n.Draining }) {
		return func(n *node) bool { return !n.Draining }
	}
	return func(*node) bool { return true }
}

// giveAway gives the shards of the dead to the living, the heaviest first.
func (p *plan) giveAway() {
	var lost []ps.ShardID
	for s, shard := range p.next {
		if p.find(shard.Owner) == nil {
			lost = append(lost, ps.ShardID(s))
		}
	}
	slices.SortStableFunc(lost, func(a, b ps.ShardID) int { return cmp.Compare(p.weights[b], p.weights[a]) })
	takes := p.takes()
	for _, s := range lost {
		shard, w := &p.next[s], p.weights[s]
		to := p.least(w, func(n *node) bool { return takes(n) && slices.Contains(shard.Standbys, n.ID) })
		if to == nil { // a standby that is draining still has a copy, and gives it on
			to = p.least(w, func(n *node) bool { return slices.Contains(shard.Standbys, n.ID) })
		}
		if to == nil {
			to = p.find(shard.Target)
		}
		if to == nil {
			to = p.least(w, takes)
		}
		*shard = route.Shard{Owner: to.ID, Fence: shard.Fence + 1, Standbys: shard.Standbys}
		p.load(to.ID, s)
	}
}

// move gives shards targets, until as many have one as may, and says which and why.
func (p *plan) move(most int) (moves []coordinator.Move) {
	under := 0
	for _, shard := range p.next {
		if shard.Target != "" {
			under++
		}
	}
	begin := func(s ps.ShardID, to *node, why string) {
		shard := &p.next[s]
		p.unload(shard.Owner, s)
		shard.Target = to.ID
		p.load(to.ID, s)
		under++
		moves = append(moves, coordinator.Move{Shard: s, From: shard.Owner, To: to.ID, Why: why})
	}
	if slices.ContainsFunc(p.nodes, func(n node) bool { return !n.Draining }) {
		for s := range p.next {
			shard := p.next[s]
			if under >= most {
				return moves
			}
			if p.find(shard.Owner).Draining && shard.Target == "" {
				begin(ps.ShardID(s), p.refuge(ps.ShardID(s)), "node "+string(shard.Owner)+" is being drained")
			}
		}
	}
	for eager := p.eager || under > 0; under < most; eager = true {
		s, to := p.even(eager)
		if to == nil {
			break
		}
		begin(s, to, "node "+string(p.next[s].Owner)+" has more to do than "+string(to.ID))
	}
	return moves
}

// refuge returns where a shard goes whose owner is draining: to a standby, which has a
// copy, unless that has more than others already.
func (p *plan) refuge(s ps.ShardID) *node {
	w := p.weights[s]
	least := p.least(w, func(n *node) bool { return !n.Draining })
	standby := p.least(w, func(n *node) bool { return !n.Draining && slices.Contains(p.next[s].Standbys, n.ID) })
	if standby != nil && standby.load <= least.load+beginAboveShards {
		return standby
	}
	return least
}

// even returns a shard whose move to a node makes the loads more even, or nil for the
// node. It takes one from who has most for who has least; nobody else is touched. A node
// that has too much and nothing that could be moved, such as one very hot shard, is left
// alone, and the others are evened out among themselves.
func (p *plan) even(eager bool) (ps.ShardID, *node) {
	for i := range p.nodes {
		p.nodes[i].stuck = false
	}
	for {
		var most, least *node
		sum, capacity := 0.0, 0.0
		for i := range p.nodes {
			n := &p.nodes[i]
			if n.Draining || n.stuck {
				continue
			}
			sum, capacity = sum+n.load*n.Capacity, capacity+n.Capacity
			if most == nil || n.load > most.load {
				most = n
			}
			if least == nil || n.load < least.load {
				least = n
			}
		}
		if most == least { // one node, or none
			return 0, nil
		}
		mean := sum / capacity
		off := max(most.load-mean, mean-least.load)
		if off <= endBelow*mean || !eager && (off <= beginAbove*mean || off <= beginAboveShards) {
			return 0, nil
		}
		if s, found := p.movable(most, least); found {
			return s, least
		}
		most.stuck = true
	}
}

// movable returns the shard of a node whose move to another brings their loads closest to
// each other. One that would turn more than half of what they differ by around may not, so
// that it does not move back. A shard that the second stands by for goes first, since it
// has a copy.
func (p *plan) movable(from, to *node) (shard ps.ShardID, found bool) {
	differ := from.load - to.load
	best, free := 0.0, false
	for _, s := range from.shards {
		w := p.weights[s]
		left := differ - w/from.Capacity - w/to.Capacity
		if p.next[s].Owner != from.ID || p.arrived[s] || w < weightMin || left <= -differ/2 {
			continue // it is still on its way here or has just come, or is not worth it
		}
		left = math.Abs(left)
		copied := slices.Contains(p.next[s].Standbys, to.ID)
		if !found || copied && !free || copied == free && left < best {
			shard, found, best, free = s, true, left, copied
		}
	}
	return shard, found
}

// standBy gives shards the standbys they should have.
func (p *plan) standBy(number int) {
	for s := range p.next {
		p.next[s].Standbys = p.standing(p.next[s], number)
	}
}

// standing returns the standbys that a shard should have, and counts them.
func (p *plan) standing(shard route.Shard, number int) (chosen []ps.NodeID) {
	zones := []string{p.find(shard.Owner).Zone}
	shared := func(n *node) (with int) {
		for _, z := range zones {
			if z == n.Zone {
				with++
			}
		}
		return with
	}
	// free is the node in the least shared zone that stands by for the fewest.
	free := func() (best *node) {
		for i := range p.nodes {
			n := &p.nodes[i]
			if n.Draining || n.ID == shard.Owner || slices.Contains(chosen, n.ID) {
				continue
			}
			if best == nil || cmp.Or(cmp.Compare(shared(n), shared(best)),
				cmp.Compare(float64(n.copies)/n.Capacity, float64(best.copies)/best.Capacity)) < 0 {
				best = n
			}
		}
		return best
	}
	choose := func(n *node) {
		chosen, zones = append(chosen, n.ID), append(zones, n.Zone)
	}
	for _, id := range shard.Standbys {
		n := p.find(id)
		if n == nil {
			continue
		}
		drop := n.Draining || n.ID == shard.Owner || len(chosen) == number || slices.Contains(chosen, n.ID)
		if with := shared(n); !drop && with > 0 {
			drop = shared(free()) < with
		}
		if drop {
			n.copies--
			continue
		}
		choose(n)
	}
	for len(chosen) < number {
		n := free()
		if n == nil {
			break // more are wanted than there are
		}
		n.copies++
		choose(n)
	}
	return chosen
}
