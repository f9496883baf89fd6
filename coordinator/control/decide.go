package control

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// limits say what decide waits for.
type limits struct {
	nodesMin, workersMin int
	standbys             int
	// impatient: a cluster that has lost all its nodes has waited long enough for
	// nodesMin of them to come back.
	impatient bool
}

// plan is what should be done about a view. Its parts are independent of each other.
type plan struct {
	// shards is the map to set, nil to leave it, and moves says what is new in it.
	shards []route.Shard
	moves  []move
	// standbys is how many shards change them alone.
	standbys int
	// assignments are to be set, each with the generation it follows.
	assignments []coordinator.Assignment
	// waiting says, to people, what is not done yet and why.
	waiting []string
	// returning: the cluster has lost all owners, and some nodes are there again but
	// not nodesMin. It is so whether or not that is waited for.
	returning bool
}

// move is shards that change their owner alike.
type move struct {
	from, to ps.NodeID
	shards   int
	why      string
}

// decide plans what should change in the cluster of a view. It is a pure function:
// planning again from the same view gives the same plan, and planning from a view in
// which the plan was carried out gives none.
func decide(v coordinator.View, l limits) plan {
	var p plan
	p.placeShards(v, l)
	models := make(map[string]bool)
	for _, m := range v.Models {
		models[m.Name] = true
		p.assignPartitions(v, l, m)
	}
	for _, w := range v.Workers {
		if !models[w.Model] {
			p.wait("worker %s is there for model %s, which was not applied", w.ID, w.Model)
		}
	}
	return p
}

func (p *plan) wait(format string, args ...any) {
	p.waiting = append(p.waiting, fmt.Sprintf(format, args...))
}

// placeShards gives shards without a living owner to living nodes.
//
// While no shard has one, or a standby, which is as good, the first node to come would
// get them all and keep them, since a shard with a living owner stays where it is; so
// a cluster waits for its nodes before it places the first shard. It does so without
// end when it was created, and for a while when it has lost all of them: being out of
// balance is then better than not being there.
func (p *plan) placeShards(v coordinator.View, l limits) {
	live, replaced := living(v.Nodes)
	lives := func(n ps.NodeID) bool { return slices.Contains(live, n) }
	owned, placed := false, false
	for _, s := range v.Shards {
		owned = owned || lives(s.Owner) || slices.ContainsFunc(s.Standbys, lives)
		placed = placed || s.Fence > 0
	}
	if len(live) == 0 {
		p.wait("no node is there")
		return
	}
	if few := !owned && len(live) < l.nodesMin; few {
		p.returning = placed
		if !placed || !l.impatient {
			p.wait("%d of %d nodes are there", len(live), l.nodesMin)
			return
		}
	}
	next, changed := placement.Shards(v.Shards, live, l.standbys)
	if len(changed) == 0 {
		return
	}
	p.shards = next
	for _, id := range changed {
		if v.Shards[id].Owner == next[id].Owner {
			p.standbys++
			continue
		}
		p.addMove(v.Shards[id].Owner, next[id].Owner, replaced)
	}
}

// addMove counts a shard's change of owner.
func (p *plan) addMove(from, to ps.NodeID, replaced map[ps.NodeID]ps.NodeID) {
	for i := range p.moves {
		if p.moves[i].from == from && p.moves[i].to == to {
			p.moves[i].shards++
			return
		}
	}
	why := fmt.Sprintf("node %s is gone", from)
	if by, ok := replaced[from]; ok {
		why = fmt.Sprintf("node %s was replaced by %s at its address", from, by)
	}
	if from == "" {
		why = "they had no owner yet"
	}
	p.moves = append(p.moves, move{from: from, to: to, shards: 1, why: why})
}

// assignPartitions shares a model's partitions among its workers.
func (p *plan) assignPartitions(v coordinator.View, l limits, m ps.Model) {
	var workers []string
	for _, w := range v.Workers {
		if w.Model == m.Name {
			workers = append(workers, w.ID)
		}
	}
	current := v.Assignments[m.Name]
	current.Model = m.Name
	switch {
	case len(workers) == 0:
		p.wait("no worker is there for model %s", m.Name)
	case current.Generation == 0 && len(workers) < l.workersMin:
		p.wait("%d of %d workers are there for model %s", len(workers), l.workersMin, m.Name)
	default:
		if next, changed := placement.Partitions(current, workers, m.Partitions); changed {
			p.assignments = append(p.assignments, next)
		}
	}
}

// living returns the nodes that can own shards, and which of the others was replaced
// by whom. A node that restarts faster than its lease runs out is there twice, under
// one address; the one that joined first is dead, and waiting for its lease would
// leave its shards without an owner for nothing.
func living(nodes []coordinator.Node) (live []ps.NodeID, replaced map[ps.NodeID]ps.NodeID) {
	newest := make(map[string]coordinator.Node)
	for _, n := range nodes {
		if n.Joined > newest[n.Address].Joined {
			newest[n.Address] = n
		}
	}
	replaced = make(map[ps.NodeID]ps.NodeID)
	for _, n := range nodes {
		if by := newest[n.Address].ID; by != n.ID {
			replaced[n.ID] = by
		} else {
			live = append(live, n.ID)
		}
	}
	return live, replaced
}
