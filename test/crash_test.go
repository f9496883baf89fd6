//go:build linux

package test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/freshet-ml/freshet/coordinator"
	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// faults is everything that goes wrong in a schedule. Each one returns when it has
// bitten, which it checks, and when everybody learns again.
var faults = []struct {
	name   string
	times  int // in a schedule
	inject func(a *arena)
}{
	{"node killed", 3, func(a *arena) { a.kill(a.owner()) }},
	{"worker killed", 3, func(a *arena) { a.kill(a.reader()) }},
	{"leading coordinator killed", 1, (*arena).killLeader},
	{"etcd leader killed", 2, (*arena).killEtcdLeader},
	{"node asleep", 1, (*arena).stopNode},
	{"worker asleep", 1, (*arena).stopWorker},
	{"leading coordinator asleep", 1, (*arena).stopLeader},
	{"connections cut", 3, (*arena).cut},
	{"connections slow", 2, (*arena).slow},
	{"requests stalled", 1, func(a *arena) { a.stall(true) }},
	{"answers stalled", 1, func(a *arena) { a.stall(false) }},
	{"push doubled", 3, func(a *arena) { a.play(duplicate) }},
	{"push replayed late", 3, func(a *arena) { a.play(replayLate) }},
	{"pushes out of order", 3, func(a *arena) { a.play(reorder) }},
	{"push late", 2, func(a *arena) { a.play(delay) }},
	{"push dropped", 2, func(a *arena) { a.play(drop) }},
	{"push truncated", 2, func(a *arena) { a.play(truncate) }},
	{"answer lost", 2, func(a *arena) { a.play(loseAnswer) }},
	{"answer truncated", 2, func(a *arena) { a.play(truncateAnswer) }},
	{"disk full", 1, (*arena).fillDisk},
	{"checkpoint torn", 1, func(a *arena) { a.damage(tear) }},
	{"checkpoint bits flipped", 1, func(a *arena) { a.damage(flip) }},
	{"quorum killed", 1, func(a *arena) { a.loseQuorum(true) }},
	{"quorum asleep", 1, func(a *arena) { a.loseQuorum(false) }},
	{"all killed and restarted with other counts", 1, (*arena).restartOtherwise},
	{"stream recreated", 1, (*arena).recreateStream},
}

// In the short form etcd is without a quorum for longer than any lease; in a soak for
// as long as Freshet promises to bear it.
const (
	quorumLostShort = 6 * time.Second
	quorumLostSoak  = 30 * time.Second
)

func quorumLost() time.Duration {
	if *soakFlag > 0 {
		return quorumLostSoak
	}
	return quorumLostShort
}

// TestNothingIsLostOrDoubledWhateverGoesWrong runs schedules of faults over clusters
// that learn meanwhile; the audit at the end is the proof. See `make soak` for a longer
// one. The same seed gives the same schedule, though not the same timing.
func TestNothingIsLostOrDoubledWhateverGoesWrong(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this kills processes for minutes")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	total, runs, events := make(map[string]int), 0, int64(0)
	for start := time.Now(); runs == 0 || time.Since(start) < *soakFlag; runs++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { runSchedule(t, seed, total) })
		if t.Failed() {
			return
		}
		seed++
		events += arenaEvents
		t.Logf("after %v: %d clusters, %d events, 0 lost, 0 doubled, %s", time.Since(start).Round(time.Second), runs+1, events, summary(total))
	}
}

// summary is a list of faults by kind.
func summary(counts map[string]int) string {
	sum, list := 0, make([]string, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		sum += counts[name]
		list = append(list, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return fmt.Sprintf("%d faults: %s", sum, strings.Join(list, ", "))
}

// runSchedule runs one cluster through one schedule and adds its faults to total.
func runSchedule(t *testing.T, seed uint64, total map[string]int) {
	start := time.Now()
	t.Logf("replay this schedule with: go test ./test -run %s -args -seed %d", strings.Split(t.Name(), "/")[0], seed)
	a := newArena(t, seed)
	var schedule []int
	for i, f := range faults {
		for range f.times {
			schedule = append(schedule, i)
		}
	}
	a.random.Shuffle(len(schedule), func(i, j int) { schedule[i], schedule[j] = schedule[j], schedule[i] })
	for k, i := range schedule {
		a.leaveWorkFor(schedule[k:])
		began := time.Now()
		faults[i].inject(a)
		if a.random.IntN(3) > 0 { // else the next one comes on top
			a.recovered()
		}
		a.done[faults[i].name]++
		total[faults[i].name]++
		t.Logf("%4.0fs %2d/%d %s: %.1f s, longest read %.1f s", time.Since(start).Seconds(), k+1, len(schedule), faults[i].name,
			time.Since(began).Seconds(), a.reads.look().slowest.Seconds())
	}
	a.pace.set(0)
	a.await("the end of the stream", func() bool {
		events, _ := a.appliedNow()
		return events == arenaEvents
	})
	a.ask()
	a.waitForEnd()
	a.audit(arenaEvents)
	_, replayed := a.figures(arenaEvents)
	a.judge(int(replayed.Events))
	t.Logf("%d events in %v, standbys %d, %.0f replayed, %d epochs, %d registrations lost; answers: %d applied, %d duplicate, %d gap, %d overlap, %d refused; %s",
		arenaEvents, time.Since(start).Round(time.Second), a.standbys, replayed.Events, a.commits(), a.restarts,
		a.seen.count(psv1.Outcome_OUTCOME_APPLIED), a.seen.count(psv1.Outcome_OUTCOME_DUPLICATE), a.seen.count(psv1.Outcome_OUTCOME_GAP),
		a.seen.count(psv1.Outcome_OUTCOME_OVERLAP), a.seen.count(psv1.Outcome_OUTCOME_REFUSED), summary(a.done))
}

// judge fails if faults left no trace where they must: then they were none.
func (a *arena) judge(replayed int) {
	a.t.Helper()
	for what, n := range map[string]int{
		"events replayed": replayed, "epochs committed": a.commits(),
		"duplicates": a.seen.count(psv1.Outcome_OUTCOME_DUPLICATE), "gaps": a.seen.count(psv1.Outcome_OUTCOME_GAP),
		"workers that asked the shards again": a.said(`asking the shards how far they are`),
	} {
		if n == 0 {
			a.t.Errorf("no %s: the faults did not bite, so that the run is void", what)
		}
	}
	for _, f := range faults {
		if a.done[f.name] < f.times {
			a.t.Errorf("%s: %d times, want %d: the run is void", f.name, a.done[f.name], f.times)
		}
	}
	if reads := a.reads.look(); reads.failed > 0 {
		a.t.Errorf("%d reads failed although they may take %v, the last one: %v", reads.failed, readMax, reads.last)
	}
}

// perFault is how long a fault and what follows takes, rather too much.
const perFault = 6 * time.Second

// leaveWorkFor paces the stream so that there is some left for the faults to come, and
// fails if there is not: what is idle cannot go wrong.
func (a *arena) leaveWorkFor(schedule []int) {
	a.t.Helper()
	var events int64
	a.await("the shards can be asked", func() bool {
		var spread []ps.Range
		events, spread = a.appliedNow()
		return spread != nil
	})
	left := arenaEvents - events
	if left < arenaEvents/100 {
		a.t.Fatalf("%d of %d events are learned and %d faults are to come: the run is void", events, arenaEvents, len(schedule))
	}
	takes := time.Duration(len(schedule)) * perFault
	for _, i := range schedule {
		if strings.HasPrefix(faults[i].name, "quorum") {
			takes += quorumLost()
		}
	}
	a.pace.set(float64(left) / takes.Seconds())
}

// kill kills whoever sits there and puts another in the place.
func (a *arena) kill(s *seat) {
	a.t.Helper()
	s.kill()
	a.sit(s)
}

// killLeader kills the leading coordinator and waits for another one.
func (a *arena) killLeader() {
	a.t.Helper()
	old := a.leading()
	id := old.id()
	old.kill()
	a.sit(old)
	a.await("another coordinator leads", func() bool { l := a.leader(); return l != nil && l.id() != id })
}

// leading waits for a leader.
func (a *arena) leading() (l *seat) {
	a.t.Helper()
	a.await("a coordinator leads", func() bool { l = a.leader(); return l != nil && l.alive() })
	return l
}

// killEtcdLeader kills the coordinator whose etcd leads, and waits for another one's
// before it is back.
func (a *arena) killEtcdLeader() {
	a.t.Helper()
	var old *seat
	a.await("etcd has a leader", func() bool { old = a.etcdLeader(); return old != nil })
	old.kill()
	old.process = nil
	a.await("etcd has another leader", func() bool { return a.etcdLeader() != nil })
	a.sit(old)
}

// stopNode has a node sleep until its shards are others', and wake up.
func (a *arena) stopNode() {
	a.t.Helper()
	s := a.owner()
	id := ps.NodeID(s.joined())
	s.signal(syscall.SIGSTOP)
	a.await("a sleeping node's shards are others'", func() bool {
		m, err := a.client.Map(a.t.Context(), 0)
		return err == nil && len(m.Owned(id)) == 0
	})
	a.wake(s)
}

// stopWorker has a worker sleep until it counts as dead, and wake up.
func (a *arena) stopWorker() {
	a.t.Helper()
	s := a.reader()
	id := s.joined()
	s.signal(syscall.SIGSTOP)
	a.await("a sleeping worker is gone", func() bool {
		return !slices.ContainsFunc(a.status().Workers, func(w coordinator.WorkerStatus) bool { return w.ID == id })
	})
	a.wake(s)
}

// joined returns the name of the life in a seat, waiting until it has one.
func (s *seat) joined() string {
	s.await(`"(?:node|worker|coordinator) joined"`)
	return s.id()
}

// wake wakes a process whose registration is lost: it has to notice and end, and gets
// a successor.
func (a *arena) wake(s *seat) {
	a.t.Helper()
	s.signal(syscall.SIGCONT)
	if code := s.exitCode(awaitMax); code != 3 {
		a.t.Errorf("%s woke up and ended with %v, want exit code 3", s.name, s.command.ProcessState)
	}
	a.restarts++
	a.sit(s)
}

// stopLeader has the leading coordinator, and its member of etcd, sleep until another
// leads. It goes on when it wakes up: nobody took over anything but the lead.
func (a *arena) stopLeader() {
	a.t.Helper()
	old := a.leading()
	slept, id := old.process, old.id()
	old.signal(syscall.SIGSTOP)
	a.await("another coordinator leads", func() bool { l := a.leader(); return l != nil && l.id() != id })
	old.signal(syscall.SIGCONT)
	a.await("who slept is registered anew", a.registered)
	if old.process != slept {
		a.t.Errorf("%s ended when it woke up, want it to go on", old.name)
	}
}

// cut cuts the connections of a node.
func (a *arena) cut() {
	a.t.Helper()
	p := a.owner().proxy
	a.await("connections to cut", func() bool { return p.link.cut() > 0 })
}

// slow delays everything to and from a node until some of it has been.
func (a *arena) slow() {
	a.t.Helper()
	p := a.owner().proxy
	before := p.link.heldUp()
	p.link.slow(time.Duration(5+a.random.IntN(50)) * time.Millisecond)
	defer p.link.slow(0)
	a.await("messages are late", func() bool { return p.link.heldUp() > before+100 })
}

// stall holds up what goes to a node, or what comes from it, for a while, which is at
// times longer than an attempt to pull lasts.
func (a *arena) stall(in bool) {
	a.t.Helper()
	p := a.owner().proxy
	before := p.link.heldUp()
	resume := p.link.stall(in)
	defer resume()
	a.await("something waits", func() bool { return p.link.heldUp() > before })
	time.Sleep(time.Duration(500+a.random.IntN(6000)) * time.Millisecond)
}

// play has a node's proxy play a trick on the next message of a push stream, and waits
// until it has worked.
func (a *arena) play(trick trick) {
	a.t.Helper()
	p := a.owner().proxy
	worked := p.arm(trick)
	a.await(fmt.Sprintf("trick %d works on a push", trick), func() bool {
		select {
		case <-worked:
			return true
		default:
			return false
		}
	})
}

// fillDisk keeps nodes from writing files until an epoch has failed for it. To limit the
// size of files needs no privileges, which a full file system does.
func (a *arena) fillDisk() {
	a.t.Helper()
	const failure = "file too large"
	before := a.said(failure)
	limit := func(bytes uint64) {
		for _, n := range a.nodes {
			if n.alive() {
				if err := unix.Prlimit(n.command.Process.Pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
					a.t.Fatalf("limit the size of files: %v", err)
				}
			}
		}
	}
	a.await("nodes are told that they cannot write", func() bool {
		limit(0)
		return a.said(failure) > before
	})
	limit(unix.RLIM_INFINITY)
	a.commitsAgain()
}

// commitsAgain waits for another epoch.
func (a *arena) commitsAgain() {
	a.t.Helper()
	before := a.commits()
	a.await("an epoch commits", func() bool { return a.commits() > before })
}

// tear and flip damage the content of a file.
func tear(content []byte, random *rand.Rand) []byte { return content[:random.IntN(len(content))] }

func flip(content []byte, random *rand.Rand) []byte {
	content[random.IntN(len(content))] ^= 1 << random.IntN(8)
	return content
}

// damage kills all nodes, so that there are no copies, and damages the newest file of
// some shards before they are restored: their owners have to notice, and to make do with
// an older epoch.
func (a *arena) damage(how func([]byte, *rand.Rand) []byte) {
	a.t.Helper()
	const noticed = "a shard cannot be restored from an epoch"
	for before := a.said(noticed); a.said(noticed) == before; {
		a.commitsAgain()
		for _, s := range a.nodes {
			if s.alive() {
				s.kill()
			}
		}
		newest := a.newestManifest()
		for shard := range ps.ShardID(shards) {
			if a.random.IntN(3) == 0 {
				a.damageShard(newest, shard, how)
			}
		}
		for _, s := range a.nodes {
			if s.process != nil {
				a.sit(s)
			}
		}
		a.recovered()
	}
}

// damageShard damages the newest file of a shard.
func (a *arena) damageShard(newest checkpoint.Manifest, shard ps.ShardID, how func([]byte, *rand.Rand) []byte) {
	a.t.Helper()
	files := newest.Shards[shard].Files
	if len(files) == 0 {
		return
	}
	path := filepath.Join(a.epochsDir(), filepath.FromSlash(files[len(files)-1].Name))
	content, err := os.ReadFile(path)
	if err != nil {
		return // another epoch has taken its place and collected it meanwhile
	}
	if err := os.WriteFile(path, how(content, a.random), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// newestManifest returns what the newest committed epoch consists of.
func (a *arena) newestManifest() checkpoint.Manifest {
	a.t.Helper()
	a.ask()
	var list coordinator.EpochList
	a.must(&list, "epochs")
	if len(list.Epochs) == 0 {
		a.t.Fatal("there is no epoch")
	}
	bucket, err := checkpoint.OpenBucket(a.t.Context(), list.Bucket)
	if err != nil {
		a.t.Fatal(err)
	}
	defer bucket.Close()
	m, err := checkpoint.ReadManifest(a.t.Context(), bucket, list.Epochs[0].Manifest)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// loseQuorum takes two of three members of etcd away for a while. Training and reading
// go on, nobody ends for it, no epoch commits; then all is as before.
func (a *arena) loseQuorum(kill bool) {
	a.t.Helper()
	lost := quorumLost()
	a.await("everybody is registered", a.registered)
	a.recovered()
	order := a.random.Perm(arenaMembers)
	away := []*seat{a.coordinators[order[0]], a.coordinators[order[1]]}
	for _, c := range away {
		if kill {
			c.kill()
		} else {
			c.signal(syscall.SIGSTOP)
		}
	}
	time.Sleep(500 * time.Millisecond) // for what was committed before to be logged
	commits, restarts := a.commits(), a.restarts
	readsBefore := a.reads.look()
	before, _ := a.applied()
	for _, c := range away {
		if !kill {
			continue
		}
		c.process = nil // nobody ought to be there
	}
	time.Sleep(lost)
	a.supervise()
	after, _ := a.applied()
	reads := a.reads.look()
	if a.restarts != restarts {
		a.t.Errorf("without a quorum for %v, %d processes ended, want none", lost, a.restarts-restarts)
	}
	if after <= before {
		a.t.Errorf("without a quorum for %v, %d events were learned, want training to go on", lost, after-before)
	}
	ok, failed := reads.ok-readsBefore.ok, reads.failed-readsBefore.failed
	if ok == 0 || failed > 0 {
		a.t.Errorf("without a quorum for %v, %d reads succeeded and %d failed (%v), want none to fail", lost, ok, failed, reads.last)
	}
	if n := a.commits(); n != commits {
		a.t.Errorf("without a quorum for %v, %d epochs were committed, want none", lost, n-commits)
	}
	a.t.Logf("no quorum for %v: %d events learned, %d reads, none failed, the longest took %v", lost, after-before, ok, reads.slowest.Round(time.Millisecond))
	for _, c := range away {
		if kill {
			a.sit(c)
		} else {
			c.signal(syscall.SIGCONT)
		}
	}
	a.commitsAgain()
}

// restartOtherwise kills everybody at once and starts another number of nodes and
// workers with other batches.
func (a *arena) restartOtherwise() {
	a.t.Helper()
	for _, s := range a.seats() {
		_ = s.command.Process.Kill()
	}
	for _, s := range a.seats() {
		<-s.ended
	}
	nodes, workers := 0, 0
	for i := range arenaNodesMax {
		if a.nodes[i].process != nil {
			nodes++
		}
		if a.workers[i].process != nil {
			workers++
		}
		a.nodes[i].process, a.workers[i].process = nil, nil
	}
	nodes, workers = 5-nodes, 5-workers // two become three, and three two
	a.inFlight = 16 + a.random.IntN(240)
	for _, s := range slices.Concat(a.coordinators, a.nodes[:nodes], a.workers[:workers]) {
		a.sit(s)
	}
	a.await("all are back", func() bool {
		return !slices.ContainsFunc(a.seats(), func(s *seat) bool { return s.id() == "" })
	})
	a.commitsAgain()
}

// recreateStream puts another file in the stream's place: a worker that starts has to
// refuse it. The others are away meanwhile, since whoever reads would refuse it as well.
func (a *arena) recreateStream() {
	a.t.Helper()
	var workers []*seat
	for _, s := range a.workers {
		if s.process == nil {
			continue
		}
		if s.alive() {
			s.kill()
		}
		workers = append(workers, s)
	}
	path := strings.TrimPrefix(a.stream[1], "file://")
	if err := os.Rename(path, path+".kept"); err != nil {
		a.t.Fatal(err)
	}
	a.write(filepath.Base(path), []byte("user,item,clicked\nu1,i1,1\nu2,i2,0\n"))
	p := a.launch("a worker with another stream", workers[0].args()...)
	code := p.exitCode(awaitMax)
	if text := p.log.String(); code != 4 || !strings.Contains(text, "the file, or how the spec cuts it, is another") || strings.Contains(text, "joined") {
		a.t.Errorf("a worker that was given another file than the model's ended with exit code %d, want 4 before it joined; it said:\n%s", code, text)
	}
	if err := os.Rename(path+".kept", path); err != nil {
		a.t.Fatal(err)
	}
	for _, s := range workers {
		a.sit(s)
	}
}
