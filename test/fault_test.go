//go:build unix

package test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// events are so many that a cluster is still learning while a lease runs out.
const events = 250_000

// faultyCluster is a cluster of two nodes and two workers under way.
type faultyCluster struct {
	*cluster
	nodes   [2]*process
	ids     [2]ps.NodeID
	workers [2]*process
}

// newFaultyCluster starts one and waits until some of the stream is learned.
func newFaultyCluster(t *testing.T, coordinator ...string) *faultyCluster {
	t.Helper()
	f := &faultyCluster{cluster: newCluster(t, time.Second, 2, 2, coordinator...)}
	f.apply([]byte(clicksSpec), f.writeClicks(events))
	f.nodes[0], f.ids[0] = f.startNode("a")
	f.nodes[1], f.ids[1] = f.startNode("b")
	f.workers[0] = f.startWorker("v")
	f.workers[1] = f.startWorker("w")
	f.dial()
	f.learnOn(events / 20)
	return f
}

// learnOn waits until n events are learned and insists that there are more to come:
// else the fault to follow would say nothing.
func (f *faultyCluster) learnOn(n int64) {
	f.t.Helper()
	if got := f.waitFor(n); got >= events*9/10 {
		f.t.Fatalf("%d of %d events are learned before the fault, so that it finds nothing under way", got, events)
	}
}

// finish waits for the end and checks that the faults cost nothing.
func (f *faultyCluster) finish() {
	f.t.Helper()
	f.waitForEnd()
	f.audit(events)
}

func TestAKilledNodeCostsNothing(t *testing.T) {
	f := newFaultyCluster(t)
	_, successor := f.startNode("c") // before, or there would be nothing left for it
	f.nodes[1].kill()
	f.finish()
	if _, replayed := f.figures(events); replayed.Events == 0 {
		t.Error("no event was replayed: the node died too late for the test to say anything")
	}
	var s coordinator.Status
	f.must(&s, "status")
	if s.ShardsWithoutOwner != 0 || len(s.Nodes) != 2 {
		t.Fatalf("status %+v, want two nodes that own every shard", s)
	}
	for _, n := range s.Nodes {
		if n.ID != f.ids[0] && n.ID != successor || n.Shards == 0 {
			t.Errorf("node %+v, want %s and %s, each with shards", n, f.ids[0], successor)
		}
	}
}

// TestAStandbyGoesOnWhereAKilledNodeWas has no epochs, so that whatever the dead node's
// shards have after it died can only come from the copies.
func TestAStandbyGoesOnWhereAKilledNodeWas(t *testing.T) {
	f := newFaultyCluster(t, "--standbys", "1")
	before, _ := f.applied()
	killed := time.Now()
	f.nodes[1].kill()
	promoted := f.nodes[0].await(`"shards opened" .*promoted=([1-9]\d*) restored=0`)
	t.Logf("%s shards were promoted within %.2f s of the kill", promoted[1], time.Since(killed).Seconds())
	if after, _ := f.applied(); after < before-before/2 {
		t.Errorf("%d events are applied everywhere, %d were before the kill: the copies were not used", after, before)
	}
	f.startNode("c")
	f.finish()
	f.figures(events)
}

func TestAKilledWorkerCostsNothing(t *testing.T) {
	f := newFaultyCluster(t)
	f.workers[1].kill()
	f.startWorker("x").await(`"partitions assigned"`)
	f.learnOn(events / 10)
	f.finish()
	f.figures(events)
}

// A process that sleeps through its lease wakes up as a zombie: it has not heard
// that it was replaced, and what it had in hand (requests in its sockets, batches
// computed from old rows) it goes on with. Nothing of it may count.
func TestANodeThatSleepsThroughItsLeaseDoublesNothing(t *testing.T) {
	f := newFaultyCluster(t)
	f.nodes[1].signal(syscall.SIGSTOP)
	f.until("the sleeper's shards are the other node's", 20*time.Millisecond, awaitMax, func() (bool, string) {
		m, err := f.client.Map(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		owned := len(m.Owned(f.ids[0]))
		return owned == shards, fmt.Sprintf("%d of %d are", owned, shards)
	})
	f.nodes[1].signal(syscall.SIGCONT)
	f.learnOn(events / 20)
	f.wokeUpReplaced(f.nodes[1])
	f.finish()
	if _, replayed := f.figures(events); replayed.Events == 0 {
		t.Error("no event was replayed: the node slept too late for the test to say anything")
	}
}

func TestAWorkerThatSleepsThroughItsLeaseDoublesNothing(t *testing.T) {
	f := newFaultyCluster(t)
	f.workers[1].signal(syscall.SIGSTOP)
	f.until("the sleeper's partitions are the other worker's", 20*time.Millisecond, awaitMax, func() (bool, string) {
		var s coordinator.Status
		f.must(&s, "status")
		return len(s.Workers) == 1 && len(s.Workers[0].Partitions) == f.model.Partitions, fmt.Sprintf("workers %+v", s.Workers)
	})
	sofar, _ := f.applied()
	f.learnOn(sofar + events/10) // so that what the sleeper has in hand is old
	f.workers[1].signal(syscall.SIGCONT)
	f.wokeUpReplaced(f.workers[1])
	f.finish()
	f.figures(events)
}

// wokeUpReplaced checks that a process that lost its lease notices, says so and ends:
// whoever supervises it starts it anew.
func (f *faultyCluster) wokeUpReplaced(p *process) {
	f.t.Helper()
	if code := p.exitCode(awaitMax); code != 3 {
		f.t.Errorf("%s woke up and ended with %v, want exit code 3", p.name, p.command.ProcessState)
	}
	p.await(`registration of .* is lost: etcd did not hear of it for`)
}
