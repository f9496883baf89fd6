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
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// world is a cluster as a transcript changes it.
type world struct {
	view   coordinator.View
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
			return ""
		case "change":
			for _, line := range strings.Split(d.Input, "\n") {
				change(t, d, w, strings.Fields(line))
			}
		case "patience-ends":
			w.limits.impatient = true
		default:
			d.Fatalf(t, "unknown command %s", d.Cmd)
		}
		p := decide(w.view, w.limits)
		w.carryOut(p)
		w.limits.impatient = false
		return describe(w, p)
	})
}

// change makes one change to the world, such as "node a host:1", "worker w model",
// "model m 4" or "leave a".
func change(t *testing.T, d *datadriven.TestData, w *world, words []string) {
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
	default:
		d.Fatalf(t, "unknown change %v", words)
	}
}

func describe(w *world, p plan) string {
	var out strings.Builder
	for _, m := range p.moves {
		fmt.Fprintf(&out, "%d shards %q -> %q because %s\n", m.shards, m.from, m.to, m.why)
	}
	if p.shards != nil {
		out.WriteString("map:")
		for _, s := range w.view.Shards {
			fmt.Fprintf(&out, " %s/%d", s.Owner, s.Fence)
			for _, n := range s.Standbys {
				fmt.Fprintf(&out, "+%s", n)
			}
		}
		out.WriteByte('\n')
	}
	if p.standbys > 0 {
		fmt.Fprintf(&out, "%d shards have other standbys\n", p.standbys)
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

			before := slices.Clone(w.view.Shards)
			live, _ := living(w.view.Nodes)
			w.carryOut(decide(w.view, w.limits))
			for s, shard := range w.view.Shards {
				if shard.Fence < before[s].Fence || shard.Owner != before[s].Owner && shard.Fence == before[s].Fence {
					t.Fatalf("shard %d: %+v -> %+v", s, before[s], shard)
				}
				if shard.Owner != before[s].Owner && slices.Contains(live, before[s].Owner) {
					t.Fatalf("shard %d was taken from %s, which lives", s, before[s].Owner)
				}
			}
			if again := decide(w.view, w.limits); again.shards != nil || again.assignments != nil {
				t.Fatalf("after the plan was carried out there is another: %+v", again)
			}
		}
	})
}
