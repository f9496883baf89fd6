//go:build linux

package test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/freshet-ml/freshet/coordinator"
	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/replica"
)

var failoversFlag = flag.Int("failovers", 8, "pod suite: nodes that are killed")

const (
	podNodes = 3
	podRate  = 3000 // events a second
	// perFailover is how long a failover and what follows takes, rather too much.
	perFailover = 1500 * time.Millisecond
	// podWait is the deadline of a request to the pod.
	podWait = time.Second
)

// podSpec has event times, by which freshness shows.
var podSpec = strings.Replace(clicksSpec, "identifiers: [user]", "identifiers: [user], time: {column: at, unit: ms}", 1)

// podFirst is the time of the first event; each comes a millisecond after the one before.
const podFirst = 1_700_000_000_000

// podCluster is a cluster whose nodes die, with a pod that serves what it learns, and a
// replica in the test that follows it too.
type podCluster struct {
	*cluster
	random  *rand.Rand
	events  int
	flagged []string // of the coordinator
	nodes   []*seat
	worker  *process
	done    map[string]int // faults, by name

	grpc, http string // of the pod
	pod        *process
	asked      *podAsker
	replica    *replica.Replica
	watched    *shardWatch
}

// newPodCluster starts one that has begun to learn, and its pod.
func newPodCluster(t *testing.T, seed uint64, failovers int) *podCluster {
	t.Helper()
	c := &podCluster{random: rand.New(rand.NewPCG(seed, 0)), done: make(map[string]int)}
	c.events = int((time.Duration(failovers+6) * perFailover).Seconds() * podRate)
	// A lease is only waited for by who follows a dead coordinator: a dead node is noticed by
	// gossip, or when it is back at its address.
	c.flagged = []string{"--standbys", "1", "--checkpoints", "file://" + t.TempDir(), "--checkpoint-every", "1s"}
	c.cluster = newCluster(t, 2*time.Second, podNodes, 1, c.flagged...)
	free := c.freeAddresses(podNodes + 2)
	c.apply([]byte(podSpec), c.writeTimedClicks())
	for i := range podNodes {
		s := &seat{name: fmt.Sprintf("n%d", i), args: func() []string {
			return c.role("ps", "--name", fmt.Sprintf("n%d", i), "--listen", free[i])
		}}
		c.nodes = append(c.nodes, s)
		c.sit(s)
	}
	c.worker = c.startWorker("w", "--rate", strconv.Itoa(podRate))
	c.dial()
	c.waitFor(podRate / 10)
	c.grpc, c.http = free[podNodes], free[podNodes+1]
	c.startPod()
	c.asked = c.startAsking()
	c.follow()
	return c
}

// sit starts a node, which ends with the test.
func (c *podCluster) sit(s *seat) { s.process = c.start(s.name, s.args()...) }

// writeTimedClicks writes the stream.
func (c *podCluster) writeTimedClicks() (path string) {
	c.t.Helper()
	var b bytes.Buffer
	b.WriteString("user,item,clicked,at\n")
	for i := range uint64(c.events) {
		item, clicked := ps.Mix(i)%30, 0
		if ps.Mix(i+1e9)%30 < item {
			clicked = 1
		}
		fmt.Fprintf(&b, "u%d,i%d,%d,%d\n", ps.Mix(i+2e9)%2000, item, clicked, podFirst+i)
	}
	return c.write("clicks.csv", b.Bytes())
}

// startPod starts the pod and waits until it is ready.
func (c *podCluster) startPod() {
	c.t.Helper()
	began := time.Now()
	c.pod = c.start("the pod", "serve", "--coordinator", c.address, "--secret-file", c.stream[3], "--listen", c.grpc, "--http", c.http)
	c.until("the pod is ready", 5*time.Millisecond, awaitMax, func() (bool, string) {
		r, err := http.Get("http://" + c.http + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		defer r.Body.Close()
		return r.StatusCode == http.StatusOK, r.Status
	})
	c.t.Logf("the pod is ready %.2f s after its start", time.Since(began).Seconds())
}

// podAsker asks the pod all the time, and notes what its answers say they were computed from.
type podAsker struct {
	mu sync.Mutex
	// Guarded by mu.
	conn       *grpc.ClientConn
	dead       bool // the pod is, so that requests may fail
	goBack     bool // the model was set back, so that what is applied may be less
	served     *predictv1.Served
	answeredAt time.Time
	report     podReport
}

// podReport is what an asker has found.
type podReport struct {
	answers, failed, failedWhileDead int
	wentBack                         int // answers that had less than the one before, though nothing was set back
	setBack                          int // the same after the model was set back
	gap                              time.Duration
	ageMax                           time.Duration
	problem                          string // the last one
}

// startAsking begins.
func (c *podCluster) startAsking() *podAsker {
	c.t.Helper()
	a := new(podAsker)
	a.connect(c.t, c.grpc)
	request := &predictv1.PredictRequest{Columns: []*predictv1.Column{
		{Name: "user", Values: []string{"u1", "u2", "nobody"}}, {Name: "item", Values: []string{"i1", "i29", "i3"}},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ticks := time.NewTicker(3 * time.Millisecond); ctx.Err() == nil; <-ticks.C {
			a.ask(request)
		}
	}()
	c.t.Cleanup(func() {
		cancel()
		<-ended
		a.conn.Close()
	})
	return a
}

// connect makes a connection, which does not wait out what the one before has seen.
func (a *podAsker) connect(t *testing.T, address string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		a.conn.Close()
	}
	a.conn, a.dead, a.served = conn, false, nil // another process may have less
}

func (a *podAsker) ask(request *predictv1.PredictRequest) {
	a.mu.Lock()
	conn := a.conn
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), podWait)
	r, err := predictv1.NewPredictionsClient(conn).Predict(ctx, request)
	cancel()
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case conn != a.conn: // of a pod that is dead
	case err != nil && a.dead:
		a.report.failedWhileDead++
	case err != nil:
		a.report.failed++
		a.report.problem = err.Error()
	default:
		a.answeredLocked(r, now)
	}
}

func (a *podAsker) answeredLocked(r *predictv1.PredictResponse, now time.Time) {
	a.report.answers++
	a.report.ageMax = max(a.report.ageMax, time.Duration(r.Served.AgeMs*float64(time.Millisecond)))
	for i, p := range r.Predictions {
		if p.Error != "" {
			a.report.failed++
			a.report.problem = fmt.Sprintf("event %d: %s", i, p.Error)
		}
	}
	if a.served != nil {
		a.report.gap = max(a.report.gap, now.Sub(a.answeredAt))
		for p, applied := range r.Served.Applied {
			if applied >= a.served.Applied[p] {
				continue
			}
			if a.goBack {
				a.report.setBack++
			} else {
				a.report.wentBack++
				a.report.problem = fmt.Sprintf("partition %d went from %d back to %d", p, a.served.Applied[p], applied)
			}
		}
	}
	a.served, a.answeredAt = r.Served, now
}

// look returns what was found so far, and what the last answer was computed from; nil if
// there was none yet.
func (a *podAsker) look() (podReport, *predictv1.Served) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.report, a.served
}

// allow says that the pod is dead, and that it may go back.
func (a *podAsker) allow(dead, goBack bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dead, a.goBack = dead, goBack
}

// shardWatch looks at where the shards of a replica stand, all the time.
type shardWatch struct {
	mu       sync.Mutex
	last     []replica.Standing // guarded by mu
	looks    int                // guarded by mu
	lineages int                // guarded by mu; shards that were seen to begin another
	problem  string             // guarded by mu
}

// follow starts a replica in this process and looks at it every millisecond.
func (c *podCluster) follow() {
	c.t.Helper()
	var err error
	if c.replica, err = replica.New(replica.Config{Source: c.client, Model: c.model, Shards: shards, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		c.t.Fatal(err)
	}
	c.watched = new(shardWatch)
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := c.replica.Follow(ctx); err != nil {
			c.t.Errorf("the replica follows no longer: %v", err)
		}
	})
	tasks.Go(func() {
		for ticks := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-ticks.C {
			c.watched.look(c.replica.Shards())
		}
	})
	c.t.Cleanup(func() { cancel(); tasks.Wait() })
	select {
	case <-c.replica.Ready():
	case <-time.After(awaitMax):
		c.t.Fatalf("the replica is not ready after %v", awaitMax)
	}
}

// look checks that no shard has gone back within its lineage, or to an older one.
func (w *shardWatch) look(now []replica.Standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s, at := range now {
		if w.last == nil || w.last[s].Applied == nil {
			continue
		}
		was := w.last[s]
		if at.Lineage > was.Lineage {
			w.lineages++
			continue
		}
		back := at.Lineage < was.Lineage || at.Behind(was.Boundary)
		for p := range at.Applied {
			back = back || at.Applied[p] < was.Applied[p]
		}
		if back {
			w.problem = fmt.Sprintf("shard %d went from %+v back to %+v", s, was, at)
		}
	}
	w.last = now
	w.looks++
}

// newest returns the newest lineage, if it is that of all shards.
func (w *shardWatch) lineage() (newest uint64, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all = true
	for _, at := range w.last {
		all = all && at.Lineage == w.last[0].Lineage
		newest = max(newest, at.Lineage)
	}
	return newest, all
}

// learnsAgain waits until all shards have more than any had when it was called, and than the
// pod had, and the pod has it too and is fresh; and for some half a second's events more, so
// that what goes wrong next finds deltas under way.
func (c *podCluster) learnsAgain() {
	c.t.Helper()
	var want []uint64 // by partition
	c.until("the shards and the pod can be asked", 5*time.Millisecond, learnMax, func() (bool, string) {
		_, spread := c.appliedNow()
		_, served := c.asked.look()
		if spread == nil || served == nil {
			return false, ""
		}
		want = nil
		for p := range spread {
			want = append(want, max(uint64(spread[p].To), served.Applied[p])+podRate/2/uint64(len(spread)))
		}
		return true, ""
	})
	c.until("all shards learn again, and the pod has it", 5*time.Millisecond, learnMax, func() (bool, string) {
		_, served := c.asked.look()
		for p := range want {
			if served.Applied[p] < want[p] {
				return false, fmt.Sprintf("the pod has %v, wanted are %v", served.Applied, want)
			}
		}
		return served.AgeMs < 1000, fmt.Sprintf("its age is %.0f ms", served.AgeMs)
	})
	if events, _ := c.appliedNow(); events > int64(c.events)*19/20 {
		c.t.Fatalf("%d of %d events are learned: the run is void", events, c.events)
	}
}

// killNodes kills the owner of a shard, and the node that has its copy if there is to be no
// copy left; puts others in their place, and waits until the pod serves what was learned
// since. The shards are promoted from their copies, or restored from an epoch.
func (c *podCluster) killNodes(copies bool) (n int) {
	c.t.Helper()
	var killed []*seat
	var ids []ps.NodeID
	c.until("a shard has an owner and a copy", 5*time.Millisecond, learnMax, func() (bool, string) {
		m, err := c.client.Map(c.t.Context(), 0)
		if err != nil {
			return false, err.Error()
		}
		s := m.Shards[c.random.IntN(shards)]
		ids = []ps.NodeID{s.Owner}
		if copies {
			ids = append(ids, s.Standbys...)
		}
		killed = slices.DeleteFunc(slices.Clone(c.nodes), func(s *seat) bool { return !slices.Contains(ids, ps.NodeID(s.id())) })
		return len(killed) == len(ids) && len(s.Standbys) == 1, fmt.Sprintf("shard %+v", s)
	})
	for _, s := range killed {
		s.kill()
	}
	for _, s := range killed {
		c.sit(s)
	}
	c.until("the dead nodes' shards are others'", 5*time.Millisecond, learnMax, func() (bool, string) {
		m, err := c.client.Map(c.t.Context(), 0)
		if err != nil {
			return false, err.Error()
		}
		owned := 0
		for _, id := range ids {
			owned += len(m.Owned(id))
		}
		return owned == 0, fmt.Sprintf("%d are not", owned)
	})
	for _, s := range killed {
		s.joined()
	}
	c.learnsAgain()
	c.done["node killed"] += len(killed)
	return len(killed)
}

// rollback sets the model back to the oldest epoch that is kept, and waits until the pod and
// the replica have followed.
func (c *podCluster) rollback() {
	c.t.Helper()
	was, _ := c.asked.look()
	swaps := c.swaps()
	c.asked.allow(false, true)
	var lineage uint64
	c.until("the model is set back", 50*time.Millisecond, awaitMax, func() (bool, string) {
		var list coordinator.EpochList
		c.must(&list, "epochs")
		if len(list.Epochs) < 2 {
			return false, "no epoch to go back to"
		}
		lineage = list.Epochs[0].Lineage + 1
		code, _, stderr := c.run("rollback", "--coordinator", c.address, "--epoch", fmt.Sprint(list.Epochs[len(list.Epochs)-1].Epoch))
		return code == 0, stderr // an epoch may be collected meanwhile
	})
	c.until("the replica and the pod have gone back, all shards of them", 5*time.Millisecond, awaitMax, func() (bool, string) {
		newest, all := c.watched.lineage()
		report, _ := c.asked.look()
		swapped := c.swaps() - swaps
		return all && newest >= lineage && report.setBack > was.setBack && swapped >= shards,
			fmt.Sprintf("the replica is of lineage %d, all shards: %v; %v shards of the pod were replaced", newest, all, swapped)
	})
	c.asked.allow(false, false)
	c.learnsAgain()
	c.done["model set back"]++
}

// swaps returns how many shards the pod has replaced.
func (c *podCluster) swaps() float64 {
	c.t.Helper()
	r, err := http.Get("http://" + c.http + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^freshet_replica_swaps_total\{.*\} (\d+)$`).FindSubmatch(text)
	if match == nil {
		c.t.Fatal("the pod has no metric of the shards that it has replaced")
	}
	n, err := strconv.ParseFloat(string(match[1]), 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

func (c *podCluster) killCoordinator() {
	c.t.Helper()
	c.processes[0].kill()
	c.startCoordinator(c.address, c.flagged...)
	c.learnsAgain()
	c.done["coordinator killed"]++
}

func (c *podCluster) killPod() {
	c.t.Helper()
	c.asked.allow(true, false)
	c.pod.kill()
	c.startPod()
	c.asked.connect(c.t, c.grpc)
	c.learnsAgain()
	c.done["pod killed"]++
}

// TestAPodAnswersAndNeverGoesBackWhateverDies kills nodes under a pod, and sets the model
// back, and kills the coordinator and the pod itself. See `make failovers` for more of it.
func TestAPodAnswersAndNeverGoesBackWhateverDies(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	start := time.Now()
	t.Logf("replay this schedule with: go test ./test -run %s -args -seed %d -failovers %d", t.Name(), seed, *failoversFlag)
	c := newPodCluster(t, seed, *failoversFlag)
	others := []func(){c.rollback, c.killCoordinator, c.killPod}
	if *failoversFlag >= 20 {
		others = append(others, c.rollback)
	}
	every := max(1, *failoversFlag/(len(others)+1))
	for k := 0; c.done["node killed"] < *failoversFlag; k++ {
		began := time.Now()
		n := c.killNodes(k%3 == 2)
		report, served := c.asked.look()
		t.Logf("%4.1fs %2d nodes killed, %d now: %.2f s; age %.0f ms, longest gap so far %v", time.Since(start).Seconds(), c.done["node killed"], n,
			time.Since(began).Seconds(), served.AgeMs, report.gap.Round(time.Millisecond))
		if len(others) > 0 && c.done["node killed"] >= every*(c.done["model set back"]+c.done["coordinator killed"]+c.done["pod killed"]+1) {
			others[0]()
			others = others[1:]
			t.Logf("%4.1fs %s", time.Since(start).Seconds(), summary(c.done))
		}
	}
	for _, other := range others {
		other()
	}
	c.worker.terminate()
	c.startWorker("x") // without a pace
	c.waitForEnd()
	c.audit(int64(c.events))
	c.judge()
}

// judge fails if the pod failed, or if faults left no trace where they must: then they were
// none.
func (c *podCluster) judge() {
	c.t.Helper()
	c.until("the pod has the newest event and knows so", 5*time.Millisecond, awaitMax, func() (bool, string) {
		_, served := c.asked.look()
		events := uint64(0)
		for _, applied := range served.Applied {
			events += applied
		}
		newest := int64(podFirst + c.events - 1)
		return events == uint64(c.events) && served.EventTime == newest && served.AgeMs < 1000, fmt.Sprintf("served %v, want %d events, the newest at %d", served, c.events, newest)
	})
	report, _ := c.asked.look()
	if report.failed > 0 || report.wentBack > 0 {
		c.t.Errorf("%d requests failed, %d went back; the last problem: %s", report.failed, report.wentBack, report.problem)
	}
	c.watched.mu.Lock()
	defer c.watched.mu.Unlock()
	if c.watched.problem != "" {
		c.t.Errorf("the replica: %s", c.watched.problem)
	}
	promoted, restored := 0, 0
	for _, p := range c.processes {
		for _, opened := range regexp.MustCompile(`"shards opened" .*promoted=(\d+) restored=(\d+) left=\d+ epoch=[1-9]`).FindAllStringSubmatch(p.log.String(), -1) {
			n, _ := strconv.Atoi(opened[1])
			m, _ := strconv.Atoi(opened[2])
			promoted, restored = promoted+n, restored+m
		}
	}
	restored -= shards * c.done["model set back"] // those are no failovers
	for what, n := range map[string]int{
		"shards promoted": promoted, "shards restored from epochs": restored, "answers": report.answers,
		"answers of the older epoch": report.setBack, "requests that failed while the pod was dead": report.failedWhileDead,
		"looks at the replica": c.watched.looks,
	} {
		if n == 0 {
			c.t.Errorf("no %s: the faults did not bite, so that the run is void", what)
		}
	}
	if want := shards * c.done["model set back"]; c.watched.lineages != want {
		c.t.Errorf("%d times a shard of the replica began another lineage, want %d", c.watched.lineages, want)
	}
	c.t.Logf("%d events, %s; %d shards promoted, %d restored; %d answers, 0 failed (%d while the pod was dead), longest gap %v, greatest age %v; %d looks at the replica",
		c.events, summary(c.done), promoted, restored, report.answers, report.failedWhileDead, report.gap.Round(time.Millisecond),
		report.ageMax.Round(time.Millisecond), c.watched.looks)
}
