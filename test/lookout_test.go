//go:build unix

package test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// longLease is as long as nobody waits here for a lease to run out.
const longLease = 10 * time.Second

// newWatchedCluster is a cluster of two nodes, two workers and long leases under way.
// more are flags of the second node.
func newWatchedCluster(t *testing.T, more ...string) *faultyCluster {
	t.Helper()
	f := &faultyCluster{cluster: newCluster(t, longLease, 2, 2)}
	f.apply([]byte(clicksSpec), f.writeClicks(events))
	f.nodes[0], f.ids[0] = f.startNode("a")
	f.nodes[1] = f.start("node b", f.role("ps", append(more, "--name", "b")...)...)
	f.ids[1] = ps.NodeID(f.nodes[1].await(`"node joined" node=(\S+)`)[1])
	f.workers[0] = f.startWorker("v")
	f.workers[1] = f.startWorker("w")
	f.dial()
	f.learnOn(events / 20)
	return f
}

// ownedByFirst waits until the first node owns every shard, for well below a lease, and
// says how long that took.
func (f *faultyCluster) ownedByFirst() {
	f.t.Helper()
	start := time.Now()
	f.until("the other node's shards have a new owner", 5*time.Millisecond, longLease*2/3, func() (bool, string) {
		m, err := f.client.Map(f.t.Context(), 0)
		if err != nil {
			f.t.Fatal(err)
		}
		owned := len(m.Owned(f.ids[0]))
		return owned == shards, fmt.Sprintf("%d of %d have", owned, shards)
	})
	f.t.Logf("after %.2f s, with leases of %v", time.Since(start).Seconds(), longLease)
}

func TestAKilledNodeIsMissedLongBeforeItsLeaseEnds(t *testing.T) {
	f := newWatchedCluster(t)
	f.nodes[1].kill()
	f.ownedByFirst()
	f.finish()
}

func TestAStoppedNodeIsMissedLongBeforeItsLeaseEnds(t *testing.T) {
	f := newWatchedCluster(t)
	f.nodes[1].signal(syscall.SIGSTOP)
	f.ownedByFirst()
	f.nodes[1].signal(syscall.SIGCONT)
	f.wokeUpReplaced(f.nodes[1])
	f.finish()
}

func TestAKilledWorkerIsMissedLongBeforeItsLeaseEnds(t *testing.T) {
	f := newWatchedCluster(t)
	start := time.Now()
	f.workers[1].kill()
	f.processes[0].await(`"a dead member is expelled" .*role=worker`)
	if took := time.Since(start); took > longLease*2/3 {
		t.Errorf("it was missed after %v, with a lease of %v", took, longLease)
	}
	f.finish()
}

// TestANodeThatGossipTakesForDeadKeepsItsShardsWhileItAnswers has a node that nobody
// can reach by gossip, which says so, and which everybody can reach otherwise.
func TestANodeThatGossipTakesForDeadKeepsItsShardsWhileItAnswers(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := closed.Addr().String()
	closed.Close()
	f := newWatchedCluster(t, "--gossip-advertise", nowhere)
	before, err := f.client.Map(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	coordinator := f.processes[0]
	coordinator.await(`"gossip says a member is dead, and its address answers" .*role=node id=b-`)
	f.finish()
	after, err := f.client.Map(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for s, shard := range after.Shards {
		if was := before.Shards[s]; shard.Owner != was.Owner || shard.Fence != was.Fence {
			t.Errorf("shard %d was %s's under fence %d and is %s's under fence %d", s, was.Owner, was.Fence, shard.Owner, shard.Fence)
		}
	}
	if text := coordinator.log.String(); strings.Contains(text, "expelled") {
		t.Error("somebody who answers was expelled")
	}
}
