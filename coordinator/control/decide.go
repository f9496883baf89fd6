package control

import (
	"fmt"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// limits say what decide waits for.
type limits struct {
	nodesMin, workersMin int
	standbys             int
	// moves is how many shards may be on the move at once by control's own will.
	moves int
	// impatient: a cluster that has lost all its nodes has waited long enough for
	// nodesMin of them to come back.
	impatient bool
}

// known is what the nodes have told. It may be old; nothing depends on it but when and
// what to move.
type known struct {
	// whole has the shards of which a node had a whole copy of every model.
	whole map[ps.ShardID]copied
	// loads has how much each shard is used, in keys a second; nil while nobody knows.
	loads []float64
	// rates has how many events each worker can learn in a second, as far as that is known.
	rates map[string]float64
}

// copied is a copy of a shard: at which node, and of which ownership.
type copied struct {
	by    ps.NodeID
	fence ps.Fence
}

// plan is what should be done about a view. Its parts are independent of each other.
type plan struct {
	// shards is the map to set, nil to leave it, and changes says what is new in it.
	shards  []route.Shard
	changes []change
	// assignments are to be set, each with the generation it follows.
	assignments []coordinator.Assignment
	// waiting says, to people, what is not done yet and why.
	waiting []string
	// returning: the cluster has lost all owners, and some nodes are there again but
	// not nodesMin. It is so whether or not that is waited for.
	returning bool
}

// change is shards that change alike.
type change struct {
	what   string // such as "from a to b"
	why    string
	shards []ps.ShardID
}

// change adds a change of a shard.
func (p *plan) change(id ps.ShardID, why, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	for i := range p.changes {
		if c := &p.changes[i]; c.what == what && c.why == why {
			c.shards = append(c.shards, id)
			return
		}
	}
	p.changes = append(p.changes, change{what, why, []ps.ShardID{id}})
}

// events says what the changes of shards are, by the name of who makes them.
func (p *plan) events(by string) []coordinator.Event {
	events := make([]coordinator.Event, len(p.changes))
	for i, c := range p.changes {
		events[i] = coordinator.Event{Kind: coordinator.EventShards, What: fmt.Sprintf("%s %s", numbered(c.shards), c.what), Why: c.why, By: by}
	}
	return events
}

// numbered names shards, but not hundreds of them.
func numbered(shards []ps.ShardID) string {
	if len(shards) == 1 {
		return fmt.Sprintf("shard %d", shards[0])
	}
	const most = 8
	names := make([]string, 0, most)
	for i, s := range shards {
		if i == most {
			return fmt.Sprintf("%d shards (%s, ...)", len(shards), strings.Join(names, ", "))
		}
		names = append(names, fmt.Sprint(s))
	}
	return fmt.Sprintf("%d shards (%s)", len(shards), strings.Join(names, ", "))
}

// decide plans what should change in the cluster of a view. It is a pure function:
// planning again from the same view gives the same plan, and planning from a view in
// which the plan was carried out gives none.
func decide(v coordinator.View, k known, l limits) plan {
	var p plan
	p.placeShards(v, k, l)
	models := make(map[string]bool)
	for _, m := range v.Models {
		models[m.Name] = true
		p.assignPartitions(v, k, l, m)
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

// placeShards gives shards without a living owner to living nodes, and those that have
// arrived at their target to that.
//
// While no shard has one, or a standby, which is as good, the first node to come would
// get them all and keep them, since a shard with a living owner stays where it is; so
// a cluster waits for its nodes before it places the first shard. It does so without
// end when it was created, and for a while when it has lost all of them: being out of
// balance is then better than not being there.
func (p *plan) placeShards(v coordinator.View, k known, l limits) {
	live, replaced := living(v.Nodes)
	lives := func(id ps.NodeID) bool {
		return slices.ContainsFunc(live, func(n placement.Node) bool { return n.ID == id })
	}
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
	cluster := placement.Cluster{Nodes: live, Standbys: l.standbys, Loads: k.loads, Moves: l.moves}
	arrived := slices.Clone(v.Shards)
	for id, s := range arrived {
		if s.Target != "" && k.whole[ps.ShardID(id)] == (copied{s.Target, s.Fence}) && lives(s.Target) {
			arrived[id] = promoted(s)
			cluster.Arrived = append(cluster.Arrived, ps.ShardID(id))
		}
	}
	draining := make(map[ps.NodeID]bool)
	for _, n := range live {
		draining[n.ID] = n.Draining
	}
	next, _ := placement.Shards(arrived, cluster)
	for id, before := range v.Shards {
		after := next[id]
		if after.Equal(before) {
			continue
		}
		p.shards = next
		p.explain(ps.ShardID(id), before, arrived[id], after, replaced, draining)
	}
}

// explain says what changes at a shard and why: from before, by its arrival at its target,
// to after.
func (p *plan) explain(id ps.ShardID, before, arrived, after route.Shard, replaced map[ps.NodeID]ps.NodeID, draining map[ps.NodeID]bool) {
	switch {
	case arrived.Owner != before.Owner:
		p.change(id, "the copy there is whole", "moved from %s to %s", before.Owner, after.Owner)
	case before.Owner == "" && after.Owner != "":
		p.change(id, "nobody owned that", "given to %s", after.Owner)
	case after.Owner != before.Owner:
		why := fmt.Sprintf("node %s is gone", before.Owner)
		if by, ok := replaced[before.Owner]; ok {
			why = fmt.Sprintf("node %s was replaced by %s at its address", before.Owner, by)
		}
		p.change(id, why, "from %s to %s", before.Owner, after.Owner)
	case after.Target != before.Target && draining[after.Owner]:
		p.change(id, "node "+string(after.Owner)+" is being drained", "to move from %s to %s", after.Owner, after.Target)
	case after.Target == "" && before.Target != "":
		p.change(id, "node "+string(before.Target)+" is gone or takes no more", "to stay at %s", after.Owner)
	case after.Target != before.Target:
		p.change(id, "the nodes are not evenly loaded", "to move from %s to %s", after.Owner, after.Target)
	default:
		p.change(id, "a standby is gone, missing or not needed", "with other standbys")
	}
}

// promoted returns a shard that has moved to its target. The old owner has all that the new
// one needs a standby for, so it becomes one; if there are too many, placement chooses.
func promoted(s route.Shard) route.Shard {
	standbys := slices.Clone(s.Standbys)
	if i := slices.Index(standbys, s.Target); i >= 0 {
		standbys[i] = s.Owner
	}
	return route.Shard{Owner: s.Target, Fence: s.Fence + 1, Standbys: standbys}
}

// assignPartitions shares a model's partitions among its workers.
func (p *plan) assignPartitions(v coordinator.View, k known, l limits, m ps.Model) {
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
		if next, changed := placement.Partitions(current, workers, m.Partitions, k.rates); changed {
			p.assignments = append(p.assignments, next)
		}
	}
}

// living returns the nodes that can own shards, and which of the others was replaced
// by whom. A node that restarts faster than its lease runs out is there twice, under
// one address; the one that joined first is dead, and waiting for its lease would
// leave its shards without an owner for nothing.
func living(nodes []coordinator.Node) (live []placement.Node, replaced map[ps.NodeID]ps.NodeID) {
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
			live = append(live, placement.Node{ID: n.ID, Zone: n.Zone, Capacity: n.Capacity, Draining: n.Draining})
		}
	}
	return live, replaced
}
