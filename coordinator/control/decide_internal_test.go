package control

// White box: the decision is the part worth testing in every situation, and it is not
// exported because nobody else should make it.

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/placement"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// world is a cluster as a transcript changes it.
type world struct {
	view   coordinator.View
	known  known
	limits limits
}

func (w *world) tick() int64 {
	w.view.Revision++
	return w.view.Revision
}

// carryOut does what a leader does with a plan.
func (w *world) carryOut(p plan) {
	if p.shards != nil {
		w.view.Shards, w.view.MapRevision = p.shards, w.tick()
	}
	for _, a := range p.assignments {
		a.Generation++
		w.view.Assignments[a.Model] = a
		w.tick()
	}
}

func (w *world) node(id, address string) {
	w.view.Nodes = append(w.view.Nodes, coordinator.Node{ID: ps.NodeID(id), Address: address, Joined: w.tick()})
}

func (w *world) leave(id string) {
	w.view.Nodes = slices.DeleteFunc(w.view.Nodes, func(n coordinator.Node) bool { return string(n.ID) == id })
	w.view.Workers = slices.DeleteFunc(w.view.Workers, func(n coordinator.Worker) bool { return n.ID == id })
}

func newWorld(shards int) *world {
	return &world{
		view: coordinator.View{
			Shards: make([]route.Shard, shards), Assignments: make(map[string]coordinator.Assignment),
		},
		known:  known{whole: make(map[ps.ShardID]copied)},
		limits: limits{nodesMin: 1, workersMin: 1},
	}
}

func TestDecisions(t *testing.T) {
	var w *world
	datadriven.RunTest(t, "testdata/decide.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "cluster":
			var shards int
			d.ScanArgs(t, "shards", &shards)
			w = newWorld(shards)
			d.MaybeScanArgs(t, "nodes-min", &w.limits.nodesMin)
			d.MaybeScanArgs(t, "workers-min", &w.limits.workersMin)
			d.MaybeScanArgs(t, "standbys", &w.limits.standbys)
			d.MaybeScanArgs(t, "moves", &w.limits.moves)
			return ""
		case "change":
			for _, line := range strings.Split(d.Input, "\n") {
				happen(t, d, w, strings.Fields(line))
			}
		case "patience-ends":
			w.limits.impatient = true
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		p := decide(w.view, w.known, w.limits)
		w.carryOut(p)
		w.limits.impatient = false
		return describe(w, p)
	})
}

// happen makes one change to the world, such as "node a host:1", "worker w model",
// "model m 4" or "leave a".
func happen(t *testing.T, d *datadriven.TestData, w *world, words []string) {
	switch words[0] {
	case "node":
		w.node(words[1], words[2])
	case "worker":
		w.view.Workers = append(w.view.Workers, coordinator.Worker{ID: words[1], Model: words[2]})
	case "model":
		m := ps.Model{Name: words[1]}
		if _, err := fmt.Sscan(words[2], &m.Partitions); err != nil {
			d.Fatalf(t, "partitions of %v: %v", words, err)
		}
		w.view.Models = append(w.view.Models, m)
	case "leave":
		w.leave(words[1])
	case "drain":
		for i := range w.view.Nodes {
			w.view.Nodes[i].Draining = w.view.Nodes[i].Draining || string(w.view.Nodes[i].ID) == words[1]
		}
	case "target": // an operator's: of a shard, to a node
		var s ps.ShardID
		if _, err := fmt.Sscan(words[1], &s); err != nil {
			d.Fatalf(t, "shard of %v: %v", words, err)
		}
		w.view.Shards = slices.Clone(w.view.Shards)
		w.view.Shards[s].Target = ps.NodeID(words[2])
	case "arrive": // all copies of shards that move are whole
		for s, shard := range w.view.Shards {
			if shard.Target != "" {
				w.known.whole[ps.ShardID(s)] = copied{shard.Target, shard.Fence}
			}
		}
	default:
		d.Fatalf(t, "unknown change %v", words)
	}
}

func describe(w *world, p plan) string {
	var out strings.Builder
	for _, e := range p.events("c") {
		fmt.Fprintf(&out, "%s because %s\n", e.What, e.Why)
	}
	if p.shards != nil {
		out.WriteString("map:")
		for _, s := range w.view.Shards {
			fmt.Fprintf(&out, " %s/%d", s.Owner, s.Fence)
			for _, n := range s.Standbys {
				fmt.Fprintf(&out, "+%s", n)
			}
			if s.Target != "" {
				fmt.Fprintf(&out, ">%s", s.Target)
			}
		}
		out.WriteByte('\n')
	}
	for _, a := range p.assignments {
		fmt.Fprintf(&out, "model %s generation %d: %s\n", a.Model, w.view.Assignments[a.Model].Generation, strings.Join(a.Owners, " "))
	}
	for _, line := range p.waiting {
		fmt.Fprintf(&out, "waiting: %s\n", line)
	}
	if p.returning {
		out.WriteString("nodes are returning\n")
	}
	if out.Len() == 0 {
		return "nothing to do\n"
	}
	return out.String()
}

func TestDecidingAgainGivesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(8)
		w.limits.nodesMin = rapid.IntRange(1, 3).Draw(t, "nodesMin")
		w.limits.workersMin = rapid.IntRange(1, 3).Draw(t, "workersMin")
		w.limits.standbys = rapid.IntRange(0, 2).Draw(t, "standbys")
		w.view.Models = []ps.Model{{Name: "m", Partitions: 5}, {Name: "n", Partitions: 2}}
		for i := range rapid.IntRange(1, 20).Draw(t, "steps") {
			id := fmt.Sprint(i)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				w.node("node-"+id, rapid.SampledFrom([]string{"h:1", "h:2", "h:3"}).Draw(t, "address"))
			case 1:
				w.view.Workers = append(w.view.Workers, coordinator.Worker{ID: "worker-" + id, Model: rapid.SampledFrom([]string{"m", "n", "o"}).Draw(t, "model")})
			default:
				w.leave(rapid.SampledFrom([]string{"node-", "worker-"}).Draw(t, "kind") + fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "who")))
			}
			w.limits.impatient = rapid.Bool().Draw(t, "impatient")
			w.limits.moves = rapid.IntRange(0, 3).Draw(t, "moves")
			for id, s := range w.view.Shards {
				if s.Target != "" && rapid.Bool().Draw(t, "the copy is whole") {
					w.known.whole[ps.ShardID(id)] = copied{s.Target, s.Fence}
				}
			}

			before := slices.Clone(w.view.Shards)
			nodes, _ := living(w.view.Nodes)
			lives := func(id ps.NodeID) bool {
				return slices.ContainsFunc(nodes, func(n placement.Node) bool { return n.ID == id })
			}
			w.carryOut(decide(w.view, w.known, w.limits))
			for s, shard := range w.view.Shards {
				if shard.Fence < before[s].Fence || shard.Owner != before[s].Owner && shard.Fence == before[s].Fence {
					t.Fatalf("shard %d: %+v -> %+v", s, before[s], shard)
				}
				arrived := w.known.whole[ps.ShardID(s)] == copied{shard.Owner, before[s].Fence} && shard.Owner == before[s].Target
				if shard.Owner != before[s].Owner && lives(before[s].Owner) && !arrived {
					t.Fatalf("shard %d was taken from %s, which lives, by %s, where no copy is whole", s, before[s].Owner, shard.Owner)
				}
			}
			if again := decide(w.view, w.known, w.limits); again.shards != nil || again.assignments != nil {
				t.Fatalf("after the plan was carried out there is another: %+v", again)
			}
		}
	})
}
