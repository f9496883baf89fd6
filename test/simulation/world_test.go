package simulation_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

const (
	nodesPrefix   = "/freshet/default/routes/nodes/"
	workersPrefix = "/freshet/default/training/workers/"
	mapKey        = "/freshet/default/routes/map"
	epochKey      = "/freshet/default/training/epochs/" + modelName
)

const (
	nPlaces  = 3    // nodes
	nWorkers = 2    // workers
	chaosMin = 250  // steps before faults may cease
	chaosMax = 4000 // steps after which they do
	healMax  = 30_000
	// A seed in which less happens says nothing.
	judgedMin, appliedMin = 60, 150
)

// world is everything that is simulated, and what it has come to.
type world struct {
	seed    uint64
	random  *rand.Rand
	variant *variant
	tracing *transcript // nil unless somebody reads it

	steps   int
	current *task // that runs, or nil
	tasks   []*task
	scratch []*task
	network []*message
	calls   []*call

	register *register
	store    *meta.Store
	disk     *objects
	bucket   *checkpoint.Bucket
	stream   *behaviour
	model    ps.Model
	layout   uint64 // model.Layout.Hash

	lives        int
	nodes        map[string]*node // all that ever lived
	places       [nPlaces]*node
	workers      []*trainer
	coordinators []*leader

	planned [nFaults]bool
	bitten  [nFaults]int
	healing bool
	// settingBack counts the rollbacks under way.
	settingBack int
	// takenHealed: an epoch was taken, or nothing had changed, since faults have ceased.
	takenHealed bool

	// What the oracle remembers.
	failure   string
	reached   map[string]bool // objects that a retained manifest reaches
	manifests map[string]checkpoint.Manifest
	epoch     checkpoint.Epoch
	owners    []route.Shard
	moved     [shards]ps.Fence // under which a shard was moved from a living owner last
	mapRead   route.Map        // as of the register's revision
	lineage   lineage

	judged, applied, conflicts, deleted, torn, outOfRange, epochs int
	outcomes                                                      [ps.Overlap + 1]int
}

func newWorld(seed uint64, v *variant, tracing *transcript) *world {
	w := &world{
		seed: seed, random: rand.New(rand.NewPCG(seed, 0x5eed)), variant: v, tracing: tracing,
		nodes: make(map[string]*node), reached: make(map[string]bool), manifests: make(map[string]checkpoint.Manifest),
	}
	w.stream = newBehaviour(w.random, 60+w.random.IntN(80))
	w.disk = &objects{world: w, content: make(map[string][]byte), damaged: make(map[string]bool)}
	w.bucket = checkpoint.NewBucket("sim://bucket", w.disk)
	w.register = &register{world: w}
	client := clientv3.NewCtxClient(context.Background())
	client.KV = w.register
	var err error
	if w.store, err = meta.New(meta.Config{Logger: slog.New(slog.DiscardHandler)}, client); err != nil {
		panic(err)
	}
	w.model = ps.Model{Name: modelName, Version: 1, Layout: layout(), Stream: "simulated", Partitions: partitions}
	w.layout = w.model.Layout.Hash()
	if _, err := w.store.CreateCluster(context.Background(), shards); err != nil {
		panic(err)
	}
	if _, _, err := w.store.ApplyModel(context.Background(), coordinator.Model{Model: w.model, Spec: []byte("simulated")}); err != nil {
		panic(err)
	}
	for _, f := range w.random.Perm(nFaults)[:3+w.random.IntN(3)] {
		w.planned[f] = true
	}
	for _, f := range v.needs {
		w.planned[f] = true
	}
	for place := range nPlaces {
		w.startNode(place)
	}
	for range nWorkers {
		w.startWorker()
	}
	w.startCoordinator(true)
	w.startCoordinator(false)
	if w.planned[trimming] {
		w.spawn(&host{name: "trimmer", alive: true}, "trimmer", w.trimmer)
	}
	return w
}

// run lets everything happen that happens, and then looks at what has become of it.
func (w *world) run() {
	defer w.end()
	for w.failure == "" && !w.enough() {
		w.step()
	}
	w.heal()
	for limit := w.steps + healMax; w.failure == "" && !w.finished(); w.step() {
		if w.steps >= limit {
			w.failf("stuck: %d steps after the last fault the stream is not applied: %s", healMax, w.whatIsMissing())
		}
	}
	if w.failure == "" {
		w.examineEnd()
	}
}

// end frees the coroutines.
func (w *world) end() {
	for _, t := range slices.Clone(w.tasks) {
		if !t.done {
			t.dead = true
			w.resume(t)
		}
	}
}

// enough reports whether faults may cease: each that was planned has bitten, and enough
// of the stream was applied for the rest to mean something.
func (w *world) enough() bool {
	if w.steps >= chaosMax {
		return true
	}
	if w.steps < chaosMin || w.applied < appliedMin {
		return false
	}
	for f, planned := range w.planned {
		if planned && w.bitten[f] == 0 {
			return false
		}
	}
	return true
}

// void says why the seed says nothing, or nothing.
func (w *world) void() string {
	if w.judged < judgedMin || w.applied < appliedMin {
		return fmt.Sprintf("%d pushes judged, %d offsets applied", w.judged, w.applied)
	}
	for f, planned := range w.planned {
		if planned && w.bitten[f] == 0 {
			return fmt.Sprintf("%v did not bite", fault(f))
		}
	}
	return ""
}

// step lets one thing happen.
func (w *world) step() {
	w.steps++
	if w.random.IntN(6) == 0 {
		w.happen()
		return
	}
	if w.random.IntN(2) == 0 && w.deliverOne() {
		return
	}
	if ready := w.runnable(); len(ready) > 0 {
		t := oneOf(w.random, ready)
		if !w.strikesTask(t) {
			w.resume(t)
		}
	}
}

// happen is what comes from outside: watches, leases, restarts and faults.
func (w *world) happen() {
	switch w.random.IntN(9) {
	case 8:
		if n := oneOf(w.random, w.places[:]); n.alive {
			n.publish()
		}
	case 0, 1:
		if n := oneOf(w.random, w.places[:]); n.alive {
			n.learn(w.routes())
		}
	case 2, 3:
		if k := oneOf(w.random, w.workers); k.alive && !k.zombie {
			w.quietly(func() { k.assigned, _ = w.store.Assignment(context.Background(), modelName) })
		}
	case 4:
		if k := oneOf(w.random, w.workers); k.alive && !k.zombie {
			k.routes = w.routes()
		}
	case 5:
		w.expire()
	case 6:
		w.restart()
	default:
		if !w.healing {
			w.strike()
		}
	}
}

// expire removes what a dead process has left in etcd.
func (w *world) expire() {
	for _, kv := range w.register.within(nodesPrefix, nodesPrefix+"~") {
		if id := strings.TrimPrefix(string(kv.Key), nodesPrefix); !w.nodes[id].alive {
			w.tracef("the lease of node %s ends", id)
			w.register.remove(string(kv.Key))
			return
		}
	}
	for _, k := range w.workers {
		if !k.alive {
			w.register.remove(workersPrefix + k.name)
		}
	}
}

// restart brings back one process that is missing.
func (w *world) restart() {
	for place, n := range w.places {
		if !n.alive || n.zombie && w.random.IntN(4) == 0 {
			w.startNode(place)
			return
		}
	}
	living := 0
	for _, k := range w.workers {
		if k.alive && !k.zombie {
			living++
		}
	}
	if living < nWorkers {
		w.startWorker()
		return
	}
	var there []*leader
	for _, c := range w.coordinators {
		if c.alive {
			there = append(there, c)
		}
	}
	if len(there) < 2 {
		w.startCoordinator(false)
	} else if w.leaders() == 0 {
		oneOf(w.random, there).leads = true
	}
}

// leaders counts the coordinators that think they lead.
func (w *world) leaders() (n int) {
	for _, c := range w.coordinators {
		if c.alive && c.leads {
			n++
		}
	}
	return n
}

// heal ends all faults: what is half dead dies, and what is missing comes back.
func (w *world) heal() {
	w.healing = true
	w.tracef("no more faults")
	for place, n := range w.places {
		if n.zombie {
			w.crashNode(n)
		}
		if !n.alive {
			w.startNode(place)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[id]
		n.pausedUntil = 0
		if n.alive && n.zombie {
			w.crashNode(n)
		}
	}
	for _, k := range w.workers {
		k.pausedUntil = 0
		if k.alive && k.zombie {
			w.kill(&k.host)
		}
	}
}

// finished reports whether the owners have applied the whole stream, and an epoch was taken since faults have ceased.
func (w *world) finished() bool { return w.whatIsMissing() == "" }

func (w *world) whatIsMissing() string {
	for s, owner := range w.shardMap() {
		n := w.nodes[string(owner.Owner)]
		switch {
		case n == nil || !n.alive:
			return fmt.Sprintf("the owner %q of shard %d is not there", owner.Owner, s)
		case n.held[s] == nil || n.held[s].fence != owner.Fence || n.held[s].shard == nil:
			return fmt.Sprintf("node %s has not opened shard %d, fence %d", n.id, s, owner.Fence)
		}
		for p, progress := range n.held[s].shard.Progress().Partitions {
			if progress.Applied < w.stream.end(ps.Partition(p)) {
				return fmt.Sprintf("shard %d at node %s has applied partition %d up to %d of %d", s, n.id, p, progress.Applied, w.stream.end(ps.Partition(p)))
			}
		}
	}
	if !w.takenHealed {
		return "no epoch was taken"
	}
	return ""
}

// running names the task that runs.
func (w *world) running() string {
	if w.current == nil {
		return "the world"
	}
	return w.current.name
}

func (w *world) failf(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.tracef("FAILURE %s", w.failure)
	}
}

// transcript is the readable course of a seed.
type transcript struct{ to io.Writer }

// Write takes a line of a product's logger.
func (t *transcript) Write(p []byte) (int, error) {
	return fmt.Fprintf(t.to, "        log %s", p)
}

func (w *world) tracef(format string, args ...any) {
	if w.tracing != nil {
		fmt.Fprintf(w.tracing.to, "%6d  %s\n", w.steps, fmt.Sprintf(format, args...))
	}
}
