//go:build linux

package test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/freshet-ml/freshet/coordinator"
	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
)

var (
	seedFlag = flag.Uint64("seed", 0, "crash suite: seed of the schedule of faults (0: a new one)")
	soakFlag = flag.Duration("soak", 0, "crash suite: go on with one schedule after another for so long (0: one short schedule)")
)

// What an arena is made of. Leases are as short as etcd has them (two seconds).
const (
	arenaMembers    = 3 // coordinators, each with a member of etcd
	arenaNodesMax   = 3
	arenaWorkersMax = 3
	arenaEvery      = 2 * time.Second // between epochs
	arenaEvents     = 400_000
)

// arenaSpec has two partitions, so that each of two workers pushes one of them: two
// pushes in a row can then be put out of order.
var arenaSpec = strings.Replace(clicksSpec, "partitions: 6", "partitions: 2", 1)

// arena is a cluster in which things go wrong: coordinators that are an etcd together,
// nodes behind proxies, and workers. It restarts what ended because its registration
// was lost, as whoever supervises processes would.
type arena struct {
	*cluster
	seed   uint64
	random *rand.Rand

	coordinators, nodes, workers []*seat
	inFlight                     int
	standbys                     int
	pace                         *pace
	seen                         *outcomes
	etcds                        *clientv3.Client
	reads                        *reads
	restarts                     int            // of processes that lost their registration
	done                         map[string]int // faults that have worked, by name
}

// seat is a place in the cluster that one process after another takes.
type seat struct {
	*process // nil while nobody sits
	name     string
	args     func() []string
	proxy    *proxy // a node's
	address  string // where it listens, or a coordinator's etcd
}

// alive reports whether somebody sits and has not ended.
func (s *seat) alive() bool {
	if s.process == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// id returns the name of the node's, worker's or coordinator's life, once it has one.
func (s *seat) id() string {
	match := regexp.MustCompile(`"(?:node|worker|coordinator) joined" (?:node|worker|coordinator)=(\S+)`).FindStringSubmatch(s.log.String())
	if match == nil {
		return ""
	}
	return match[1]
}

// newArena starts a cluster that has begun to learn.
func newArena(t *testing.T, seed uint64) *arena {
	t.Helper()
	a := &arena{
		cluster: &cluster{host: newHost(t), dir: t.TempDir()},
		seed:    seed, random: rand.New(rand.NewPCG(seed, 0)), inFlight: 64, standbys: int(seed % 2),
		pace: &pace{ends: make(map[uint32]uint64)}, seen: &outcomes{n: make(map[psv1.Outcome]int)},
		done: make(map[string]int),
	}
	free := a.freeAddresses(3*arenaMembers + arenaNodesMax)
	var members, endpoints []string
	for i := range arenaMembers {
		members = append(members, fmt.Sprintf("c%d=http://%s", i, free[i]))
		endpoints = append(endpoints, free[arenaMembers+i])
	}
	a.flags = []string{"--etcd", strings.Join(endpoints, ","), "--lease-ttl", "1s"}
	for i := range arenaMembers {
		name := fmt.Sprintf("c%d", i)
		a.coordinators = append(a.coordinators, &seat{name: name, address: endpoints[i], args: func() []string {
			return []string{
				"coordinator", "--name", name, "--listen", free[2*arenaMembers+i], "--lease-ttl", "1s",
				"--shards", fmt.Sprint(shards), "--nodes-min", "2", "--workers-min", "2", "--standbys", fmt.Sprint(a.standbys),
				"--embed-etcd", filepath.Join(a.dir, name), "--embed-etcd-url", "http://" + endpoints[i],
				"--embed-etcd-name", name, "--embed-etcd-cluster", strings.Join(members, ","),
				"--checkpoints", "file://" + a.epochsDir(), "--checkpoint-every", arenaEvery.String(),
			}
		}})
	}
	a.address = free[2*arenaMembers]
	for i := range arenaNodesMax {
		name, at := fmt.Sprintf("n%d", i), free[3*arenaMembers+i]
		proxy := newProxy(t, at, a.pace, a.seen)
		a.nodes = append(a.nodes, &seat{name: name, address: at, proxy: proxy, args: func() []string {
			return a.role("ps", "--name", name, "--listen", at, "--advertise", proxy.address)
		}})
	}
	for i := range arenaWorkersMax {
		name := fmt.Sprintf("w%d", i)
		a.workers = append(a.workers, &seat{name: name, args: func() []string {
			return a.role("worker", append([]string{
				"--name", name, "--in-flight", fmt.Sprint(a.inFlight), "--dead-letters", filepath.Join(a.dir, name+".jsonl"),
			}, a.stream...)...)
		}})
	}
	var err error
	if a.etcds, err = clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.etcds.Close() })

	t.Cleanup(a.end) // before the proxies, without which everybody would look dead
	for _, c := range a.coordinators {
		a.sit(c)
	}
	for _, c := range a.coordinators {
		c.await(`"coordinator joined"`)
	}
	a.apply([]byte(arenaSpec), a.writeClicks(arenaEvents))
	for _, s := range append(a.nodes[:2:2], a.workers[:2]...) {
		a.sit(s)
	}
	a.dial()
	a.reads = startReads(a.cluster)
	a.waitFor(arenaEvents / 100)
	return a
}

func (a *arena) epochsDir() string { return filepath.Join(a.dir, "epochs") }

// sit starts a process in a seat.
func (a *arena) sit(s *seat) { s.process = a.launch(s.name, s.args()...) }

// seats returns those where a process ought to be.
func (a *arena) seats() (all []*seat) {
	for _, list := range [][]*seat{a.coordinators, a.nodes, a.workers} {
		for _, s := range list {
			if s.process != nil {
				all = append(all, s)
			}
		}
	}
	return all
}

// end ends every process, and insists that nodes and workers do so cleanly if the test
// has not failed. Coordinators that lose their quorum on the way out have to wait for
// what they cannot have.
func (a *arena) end() {
	for _, s := range slices.Backward(a.seats()) {
		if !s.alive() {
			continue
		}
		_ = s.command.Process.Signal(syscall.SIGCONT)
		if a.t.Failed() || slices.Contains(a.coordinators, s) {
			s.kill()
		} else {
			s.terminate()
		}
	}
}

// freeAddresses returns addresses where nobody listens, from below the range that
// outgoing connections take theirs from, because they are free for a while whenever
// their process is dead.
func (h *host) freeAddresses(n int) (free []string) {
	h.t.Helper()
	for len(free) < n {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		defer listener.Close()
		free = append(free, address)
	}
	return free
}

// supervise restarts processes that ended because their registration was lost, and
// fails if one ended for another reason.
func (a *arena) supervise() {
	a.t.Helper()
	for _, s := range a.seats() {
		if s.alive() {
			continue
		}
		if code := s.command.ProcessState.ExitCode(); code != 3 {
			a.t.Fatalf("%s ended with %v, want to be killed or to lose its registration (exit code 3)", s.name, s.command.ProcessState)
		}
		a.restarts++
		a.sit(s)
	}
}

// await waits until done, supervising meanwhile.
func (a *arena) await(what string, done func() bool) {
	a.t.Helper()
	a.until(what, 20*time.Millisecond, learnMax, func() (bool, string) {
		a.supervise()
		return done(), fmt.Sprintf("seed %d; faults so far %v", a.seed, a.done)
	})
}

// recovered waits until every shard has more than what any had when it was called:
// whatever went wrong, everybody learns again. Behind the last fault that may be the end
// of the stream.
func (a *arena) recovered() {
	a.t.Helper()
	_, spread := a.appliedNow()
	if spread == nil {
		a.await("the shards can be asked", func() bool {
			_, spread = a.appliedNow()
			return spread != nil
		})
	}
	a.await("all shards learn again", func() bool {
		events, now := a.appliedNow()
		if now == nil {
			return false
		}
		if events == arenaEvents {
			return true
		}
		for p := range now {
			if now[p].From <= spread[p].To {
				return false
			}
		}
		return true
	})
}

// status asks whichever coordinator answers.
func (a *arena) status() (s coordinator.Status) {
	a.t.Helper()
	a.ask()
	a.must(&s, "status")
	return s
}

// ask makes the operator's commands go to a coordinator that runs.
func (a *arena) ask() {
	a.t.Helper()
	for _, c := range a.coordinators {
		if c.alive() && strings.Contains(c.log.String(), `"coordinator joined"`) {
			a.address = c.listens()
			return
		}
	}
	a.t.Fatal("no coordinator runs")
}

// listens returns where a coordinator serves.
func (s *seat) listens() string { return s.await(`"coordinator joined" .*address=(\S+)`)[1] }

// leader returns the coordinator that leads, or nil.
func (a *arena) leader() *seat {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	got, err := a.etcds.Get(ctx, "/freshet/default/leader")
	if err != nil || len(got.Kvs) == 0 {
		return nil
	}
	for _, c := range a.coordinators {
		if c.process != nil && c.id() == string(got.Kvs[0].Value) {
			return c
		}
	}
	return nil
}

// etcdLeader returns the coordinator whose etcd leads the others, or nil.
func (a *arena) etcdLeader() *seat {
	for _, c := range a.coordinators {
		if !c.alive() {
			continue // its seat may be empty
		}
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
		got, err := a.etcds.Status(ctx, c.address)
		cancel()
		if err == nil && got.Leader != 0 && got.Leader == got.Header.MemberId {
			return c
		}
	}
	return nil
}

// registered reports whether etcd knows everybody who is there, and nobody is about to
// find out that it does not.
func (a *arena) registered() bool {
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	got, err := a.etcds.Get(ctx, "/freshet/default/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	return err == nil && !slices.ContainsFunc(a.seats(), func(s *seat) bool {
		return !slices.ContainsFunc(got.Kvs, func(kv *mvccpb.KeyValue) bool { return s.id() != "" && strings.HasSuffix(string(kv.Key), "/"+s.id()) })
	})
}

// commits counts the epochs that were committed.
func (a *arena) commits() (n int) { return a.said(`"epoch committed"`) }

// said counts what all processes, the dead ones too, have logged.
func (a *arena) said(what string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.processes {
		n += strings.Count(p.log.String(), strings.Trim(what, "`"))
	}
	return n
}

// owner returns a random node that owns shards: one that came back late owns none, and
// nothing that happens to it is a fault.
func (a *arena) owner() *seat {
	a.t.Helper()
	return a.busy(a.nodes, func() func(id string) bool {
		m, err := a.client.Map(a.t.Context(), 0)
		return func(id string) bool { return err == nil && len(m.Owned(ps.NodeID(id))) > 0 }
	})
}

// reader returns a random worker that reads partitions.
func (a *arena) reader() *seat {
	a.t.Helper()
	return a.busy(a.workers, func() func(id string) bool {
		var owners []string
		ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
		defer cancel()
		got, err := a.etcds.Get(ctx, "/freshet/default/training/assignments/"+a.model.Name)
		if err == nil && len(got.Kvs) == 1 {
			owners = strings.Split(string(got.Kvs[0].Value), `"`)
		}
		return func(id string) bool { return slices.Contains(owners, id) }
	})
}

// busy returns a random one of those in seats that have something to do, as what look
// returns says of the names of their lives.
func (a *arena) busy(seats []*seat, look func() func(id string) bool) *seat {
	a.t.Helper()
	var found []*seat
	a.await("somebody has something to do", func() bool {
		works := look()
		found = found[:0]
		for _, s := range seats {
			if s.alive() && s.id() != "" && works(s.id()) {
				found = append(found, s)
			}
		}
		return len(found) > 0
	})
	return found[a.random.IntN(len(found))]
}

// reads pull rows all the time, as inference pods do, and count what fails.
type reads struct {
	mu     sync.Mutex
	counts readCounts // guarded by mu
}

type readCounts struct {
	ok, failed int
	last       error         // the last failure
	slowest    time.Duration // since the last look
}

// readMax is how long a read may take. A dead node's shards are back within a few
// seconds.
const readMax = 20 * time.Second

func startReads(c *cluster) *reads {
	r := new(reads)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		random := rand.New(rand.NewPCG(1, 1))
		for ctx.Err() == nil {
			keys := make([]ps.Key, 32)
			for i := range keys {
				keys[i] = ps.Key(random.Uint64())
			}
			slices.Sort(keys)
			start := time.Now()
			bounded, stop := context.WithTimeout(ctx, readMax)
			_, err := c.pull(bounded, 0, keys)
			stop()
			if ctx.Err() != nil {
				return
			}
			r.mu.Lock()
			r.counts.slowest = max(r.counts.slowest, time.Since(start))
			if err != nil {
				r.counts.failed, r.counts.last = r.counts.failed+1, err
			} else {
				r.counts.ok++
			}
			r.mu.Unlock()
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	c.t.Cleanup(func() {
		cancel()
		<-ended
	})
	return r
}

// look returns what there was so far.
func (r *reads) look() readCounts {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.counts
	r.counts.slowest = 0
	return now
}
