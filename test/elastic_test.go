//go:build linux

package test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

var (
	movesFlag       = flag.Int("moves", 8, "elastic suite: shards that are moved, one after the other")
	cyclesFlag      = flag.Int("cycles", 1, "elastic suite: how often the cluster grows from one node to four and shrinks back")
	elasticRateFlag = flag.Int("elastic-rate", 3000, "elastic suite: events a second")
	elasticRestFlag = flag.Duration("elastic-rest", 300*time.Millisecond, "elastic suite: time between changes of the cluster")
)

// elasticNodes is how many nodes the cluster grows to.
const elasticNodes = 4

// elastic is a cluster that grows and shrinks while it learns and is read.
type elastic struct {
	*cluster
	random *rand.Rand
	events int
	nodes  []*seat
	reads  *timedReads
	done   map[string]int
}

// timedReads pulls all the time and notes how long that takes.
type timedReads struct {
	mu     sync.Mutex
	took   []time.Duration // guarded by mu; since take was called last
	failed int             // guarded by mu
	last   error           // guarded by mu
}

// readWithin is how long a pull may take, whatever happens.
const readWithin = time.Second

func newElastic(t *testing.T, events int) *elastic {
	t.Helper()
	e := &elastic{random: rand.New(rand.NewPCG(1, 0)), events: events, done: make(map[string]int)}
	e.cluster = newCluster(t, 2*time.Second, 1, 1, "--standbys", "1", "--checkpoints", "file://"+t.TempDir(), "--checkpoint-every", "2s")
	free := e.freeAddresses(elasticNodes)
	e.apply([]byte(clicksSpec), e.writeClicks(events))
	for i := range elasticNodes {
		e.nodes = append(e.nodes, &seat{name: fmt.Sprintf("n%d", i), args: func() []string {
			return e.role("ps", "--name", fmt.Sprintf("n%d", i), "--listen", free[i], "--zone", fmt.Sprint("z", i%2))
		}})
	}
	e.sit(e.nodes[0])
	e.startWorker("w", "--rate", strconv.Itoa(*elasticRateFlag))
	e.dial()
	e.waitFor(int64(*elasticRateFlag) / 10)
	e.reads = e.startReading()
	return e
}

// sit starts a node, which ends with the test if it has not before.
func (e *elastic) sit(s *seat) {
	s.process = e.start(s.name, s.args()...)
	s.joined()
}

func (e *elastic) startReading() *timedReads {
	r := new(timedReads)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(2, 0))
		keys := make([]ps.Key, 256)
		for ticks := time.NewTicker(2 * time.Millisecond); ctx.Err() == nil; <-ticks.C {
			for i := range keys {
				keys[i] = ps.Key(random.Uint64())
			}
			bounded, stop := context.WithTimeout(ctx, readWithin)
			began := time.Now()
			_, err := e.pull(bounded, 0, keys)
			took := time.Since(began)
			stop()
			if ctx.Err() != nil {
				return
			}
			r.mu.Lock()
			if r.took = append(r.took, took); err != nil {
				r.failed, r.last = r.failed+1, err
			}
			r.mu.Unlock()
		}
	}()
	e.t.Cleanup(func() { cancel(); <-ended })
	return r
}

// take returns how long the pulls took since the last call, in order.
func (r *timedReads) take() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	took := r.took
	r.took = nil
	slices.Sort(took)
	return took
}

func (e *elastic) alive() (alive []*seat) {
	for _, s := range e.nodes {
		if s.alive() {
			alive = append(alive, s)
		}
	}
	return alive
}

// settled waits until every shard has an owner among the living nodes and a standby where
// there can be one, nothing moves, and the nodes are even.
func (e *elastic) settled(what string) {
	e.t.Helper()
	began := time.Now()
	n := len(e.alive())
	e.until(what, 20*time.Millisecond, learnMax, func() (bool, string) {
		m, err := e.client.Map(e.t.Context(), 0)
		if err != nil {
			return false, err.Error()
		}
		for _, s := range e.alive() {
			owned := len(m.Owned(ps.NodeID(s.id())))
			if owned < shards/n-2 {
				return false, fmt.Sprintf("%s has %d of %d shards", s.name, owned, shards)
			}
		}
		for id, s := range m.Shards {
			lives := func(n ps.NodeID) bool {
				return slices.ContainsFunc(e.alive(), func(s *seat) bool { return s.id() == string(n) })
			}
			if !lives(s.Owner) || s.Target != "" || n > 1 && (len(s.Standbys) != 1 || !lives(s.Standbys[0])) {
				return false, fmt.Sprintf("shard %d is %+v", id, s)
			}
		}
		return true, ""
	})
	e.t.Logf("%s: %.2f s", what, time.Since(began).Seconds())
}

// learnsAgain waits until all shards have learned more.
func (e *elastic) learnsAgain() {
	e.t.Helper()
	before, _ := e.applied()
	if before > int64(e.events)*19/20 {
		e.t.Fatalf("%d of %d events are learned: the run is void", before, e.events)
	}
	e.waitFor(before + int64(*elasticRateFlag)/4)
}

func (e *elastic) grow() {
	e.t.Helper()
	for _, s := range e.nodes {
		if !s.alive() {
			e.sit(s)
			e.settled("after " + s.name + " joined the nodes are even")
			e.learnsAgain()
			e.done["joined"]++
			time.Sleep(*elasticRestFlag)
		}
	}
}

// shrink drains and ends all nodes but one.
func (e *elastic) shrink() {
	e.t.Helper()
	for alive := e.alive(); len(alive) > 1; alive = e.alive() {
		s := alive[e.random.IntN(len(alive))]
		var drained struct {
			Shards  int     `json:"shards"`
			Seconds float64 `json:"seconds"`
		}
		e.must(&drained, "drain", s.name)
		e.t.Logf("%s has given up %d shards in %.2f s", s.name, drained.Shards, drained.Seconds)
		s.terminate()
		e.settled("after " + s.name + " was drained and has left the nodes are even")
		e.learnsAgain()
		e.done["drained"]++
		time.Sleep(*elasticRestFlag)
	}
}

// killOne kills a node without a warning, and puts another in its place.
func (e *elastic) killOne() {
	e.t.Helper()
	alive := e.alive()
	s := alive[e.random.IntN(len(alive))]
	s.kill()
	e.settled("after " + s.name + " was killed its shards are others'")
	e.sit(s)
	e.settled("after " + s.name + " is back the nodes are even")
	e.learnsAgain()
	e.done["killed"]++
}

// moveOne moves a shard to another node, at times one that dies then, or from one that does.
func (e *elastic) moveOne(kill bool) {
	e.t.Helper()
	m, err := e.client.Map(e.t.Context(), 0)
	if err != nil {
		e.t.Fatal(err)
	}
	shard := e.random.IntN(shards)
	from := m.Shards[shard].Owner
	others := slices.DeleteFunc(e.alive(), func(s *seat) bool { return s.id() == string(from) })
	to := others[e.random.IntN(len(others))]
	args := []string{"move", "--shards", strconv.Itoa(shard), "--to", to.id(), "--coordinator", e.address}
	if !kill {
		code, _, stderr := e.run(args...)
		if code != 0 && !strings.Contains(stderr, "moved elsewhere meanwhile") {
			e.t.Fatalf("move shard %d to %s: %s", shard, to.name, stderr)
		}
		e.done["moved"]++
		return
	}
	if code, _, stderr := e.run(append(args, "--wait", "0")...); code != 0 {
		e.t.Fatalf("move shard %d to %s: %s", shard, to.name, stderr)
	}
	victim := to
	if e.random.IntN(2) == 0 {
		victim = e.alive()[slices.IndexFunc(e.alive(), func(s *seat) bool { return s.id() == string(from) })]
	}
	time.Sleep(time.Duration(e.random.IntN(30)) * time.Millisecond)
	victim.kill()
	e.settled(fmt.Sprintf("after %s died while shard %d moved from %s to %s", victim.name, shard, from, to.name))
	e.sit(victim)
	e.settled("after " + victim.name + " is back the nodes are even")
	e.done["moved while a node died"]++
}

func p99(took []time.Duration) time.Duration { return took[len(took)*99/100] }

// TestTheClusterGrowsAndShrinksWhileItLearns lets nodes join, be drained, die and leave, and
// moves shards, while events are learned and rows are read. Nothing may be lost or doubled,
// and every pull has to be answered within a second.
func TestTheClusterGrowsAndShrinksWhileItLearns(t *testing.T) {
	perCycle := 3*(elasticNodes-1)*(time.Second+*elasticRestFlag) + 5*time.Second
	total := 10*time.Second + time.Duration(*cyclesFlag)*perCycle + time.Duration(*movesFlag)*350*time.Millisecond
	e := newElastic(t, int(total.Seconds()*float64(*elasticRateFlag)))
	began := time.Now()
	time.Sleep(3 * time.Second)
	quiet := e.reads.take()
	for range *cyclesFlag {
		e.grow()
		e.killOne()
		e.shrink()
	}
	grown := e.reads.take()

	e.grow()
	e.reads.take()
	for i := range *movesFlag {
		e.moveOne(i%8 == 7)
	}
	e.settled("after the moves the nodes are even")
	moved := e.reads.take()
	left, _ := e.applied()
	left = int64(e.events) - left
	e.until("all events are learned", 200*time.Millisecond, learnMax+time.Duration(left/int64(*elasticRateFlag))*time.Second, func() (bool, string) {
		events, _ := e.applied()
		return events == int64(e.events), fmt.Sprintf("%d of %d are", events, e.events)
	})
	e.audit(int64(e.events))
	e.reads.mu.Lock()
	defer e.reads.mu.Unlock()
	var events []coordinator.Event
	e.must(&events, "events", "--most", "10000")
	t.Logf("%v in %.0f s, %d events at %d/s, %d entries in the log of the cluster", e.done, time.Since(began).Seconds(), e.events, *elasticRateFlag, len(events))
	for _, of := range []struct {
		when string
		took []time.Duration
	}{{"before", quiet}, {"while it grows and shrinks", grown}, {"while shards move", moved}} {
		t.Logf("pulls %-26s %7d, p50 %v, p99 %v, longest %v", of.when, len(of.took), of.took[len(of.took)/2], p99(of.took), of.took[len(of.took)-1])
	}
	if e.reads.failed > 0 {
		t.Errorf("%d pulls were not answered within %v, the last with %v", e.reads.failed, readWithin, e.reads.last)
	}
}
