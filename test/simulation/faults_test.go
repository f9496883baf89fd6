package simulation_test

import (
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// fault is a kind of what goes wrong. What counts is that it bites: each kind says what
// that is.
type fault int

const (
	duplicate      fault = iota // a push came twice, and was answered Duplicate
	reorder                     // a push overtook another, and was answered Gap
	late                        // a push was judged after its sender had given it up
	loseRequest                 // a request did not arrive
	loseAnswer                  // an answer did not arrive
	crashNode                   // a node died with pushes that no epoch had
	crashWorker                 // a worker died with batches in flight
	zombieNode                  // a node applied a push to a shard that was another's
	zombieWorker                // a worker that was replaced had its pushes judged
	pauseNode                   // a node stood still while requests waited for it
	crashBetween                // a coordinator died between a read and its transaction
	twoLeaders                  // a transaction of one of two leaders met a conflict
	etcdDown                    // etcd did not answer
	etcdAnswerLost              // a transaction was made, and who made it did not hear of it
	bucketDown                  // the bucket did not answer
	tornFile                    // a writer died and left the beginning of an object
	damage                      // a damaged object was read
	trimming                    // the stream's beginning was thrown away
	rollback                    // a model was set back
	crashOpening                // a node died while it opened a shard
	promotion                   // a copy took its owner's place
	moving                      // a shard moved away from an owner that lives
	nFaultsLast                 // not a fault: their number
	nFaults        = int(nFaultsLast)
)

var faultNames = [nFaults]string{
	"duplicate", "reorder", "late", "lose request", "lose answer", "crash node", "crash worker", "zombie node", "zombie worker",
	"pause node", "crash between read and commit", "two leaders", "etcd down", "etcd answer lost", "bucket down", "torn file",
	"damage", "trimming", "rollback", "crash opening", "promotion", "moving",
}

// String returns the fault's name.
func (f fault) String() string { return faultNames[f] }

// enoughBites is how often a kind of fault strikes: more would only lengthen the run.
const enoughBites = 4

// strikes reports, once in so many times, that a fault of a kind is to strike now.
func (w *world) strikes(f fault, onceIn int) bool {
	return w.planned[f] && !w.healing && w.bitten[f] < enoughBites && w.random.IntN(onceIn) == 0
}

// bite notes that a fault has had its effect.
func (w *world) bite(f fault) {
	if w.bitten[f] == 0 {
		w.tracef("! %v bites", f)
	}
	w.bitten[f]++
}

// strike lets one of the planned faults strike that come from outside.
func (w *world) strike() {
	var planned []fault
	for f := range fault(nFaults) {
		if w.strikes(f, 1) {
			planned = append(planned, f)
		}
	}
	if len(planned) == 0 {
		return
	}
	f := oneOf(w.random, planned)
	switch n := oneOf(w.random, w.places[:]); f {
	case late:
		if at := w.pushes(); len(at) > 0 {
			m := w.network[oneOf(w.random, at)]
			w.tracef("%s waits no longer for an answer to %s", m.from, m.what)
			w.abandon(m.call)
		}
	case crashNode:
		if n.alive && w.hasUnsaved(n) {
			w.bite(crashNode)
			w.crashNode(n)
		}
	case crashOpening, tornFile:
		if n.alive && f == crashOpening && w.random.IntN(4) == 0 {
			w.crashNode(n) // so that somebody has to open its shards
		}
	case crashWorker:
		if k := oneOf(w.random, w.workers); k.alive && k.inFlight > 0 {
			w.bite(crashWorker)
			w.tracef("worker %s is killed", k.name)
			w.kill(&k.host)
		}
	case zombieNode:
		if n.alive && !n.zombie {
			w.tracef("node %s loses its lease and does not know", n.id)
			n.zombie = true
			w.register.remove(nodesPrefix + n.name)
		}
	case zombieWorker:
		if k := oneOf(w.random, w.workers); k.alive && !k.zombie {
			w.tracef("worker %s loses its lease and does not know", k.name)
			k.zombie = true
			w.register.remove(workersPrefix + k.name)
		}
	case pauseNode:
		if waits := slices.ContainsFunc(w.network, func(m *message) bool { return m.to == n.name }); n.alive && waits {
			w.bite(pauseNode)
			n.pausedUntil = w.steps + 50 + w.random.IntN(250)
			if w.random.IntN(3) == 0 {
				n.pausedUntil += 1200 // several epochs
			}
			w.tracef("node %s stands still until %d", n.id, n.pausedUntil)
		}
	case twoLeaders:
		for _, c := range w.coordinators {
			c.leads = true // those that are not there do not matter
		}
	case promotion:
		if n.alive && slices.ContainsFunc(n.held[:], func(h *held) bool { return h != nil && h.feed != nil }) && w.random.IntN(3) == 0 {
			w.crashNode(n)
		}
	case damage:
		w.damage()
	}
}

// strikesTask reports whether a fault strikes a task just as it is about to go on.
func (w *world) strikesTask(t *task) bool {
	for _, at := range []struct {
		fault fault
		here  bool
	}{
		{crashBetween, t.between && t.host.name[0] == 'c'},
		{crashOpening, strings.HasSuffix(t.name, "opening")},
		{tornFile, strings.Contains(t.name, "write snapshots")},
	} {
		if !at.here || !w.strikes(at.fault, 4) {
			continue
		}
		w.tracef("%s is killed in the middle", t.name)
		if at.fault != tornFile { // which bites if something was left
			w.bite(at.fault)
		}
		if n := w.nodes[t.host.name]; n != nil {
			w.crashNode(n)
		} else {
			w.kill(t.host)
		}
		return true
	}
	return false
}

func (w *world) crashNode(n *node) {
	w.tracef("node %s is killed", n.id)
	w.kill(&n.host)
	for _, c := range w.openCalls() {
		if c.to == n.name {
			c.done, c.err = true, ps.ErrUnavailable
		}
	}
}

// hasUnsaved reports whether a node owns a shard with pushes that no epoch has.
func (w *world) hasUnsaved(n *node) bool {
	for s, h := range n.held {
		if h == nil || h.shard == nil {
			continue
		}
		saved := uint64(0)
		if m, ok := w.newest(); ok {
			saved = m.Shards[s].Seq
		}
		if h.shard.Progress().Seq > saved {
			return true
		}
	}
	return false
}

// newest returns the newest committed manifest.
func (w *world) newest() (checkpoint.Manifest, bool) {
	if len(w.epoch.Retained) == 0 {
		return checkpoint.Manifest{}, false
	}
	m, ok := w.manifests[w.epoch.Retained[0].Manifest.Name]
	return m, ok
}

// damage harms an object of the newest epoch and kills who has to read it.
func (w *world) damage() {
	m, ok := w.newest()
	if !ok {
		return
	}
	s := w.random.IntN(shards)
	name := w.epoch.Retained[0].Manifest.Name
	if files := m.Shards[s].Files; len(files) > 0 && w.random.IntN(3) > 0 {
		name = oneOf(w.random, files).Name
	}
	if w.disk.damaged[name] || !w.survives(name) {
		return
	}
	w.tracef("%s is damaged", name)
	w.disk.harm(name)
	if n := w.nodes[string(w.shardMap()[s].Owner)]; n != nil && n.alive {
		w.crashNode(n)
	}
}

// survives reports whether every shard can be restored from some epoch after an object is
// lost as well. Without trimming it can always begin anew.
func (w *world) survives(name string) bool {
	if !w.planned[trimming] {
		return true
	}
	if w.settingBack > 0 {
		return false // to an epoch that was whole when the operator looked
	}
	for s := range shards {
		whole := slices.ContainsFunc(w.epoch.Retained, func(r checkpoint.Retained) bool {
			lost := func(object string) bool { return object == name || w.disk.damaged[object] }
			return r.Lineage == w.epoch.Lineage && !lost(r.Manifest.Name) &&
				!slices.ContainsFunc(w.manifests[r.Manifest.Name].Shards[s].Files, func(f checkpoint.File) bool { return lost(f.Name) })
		})
		if !whole {
			return false
		}
	}
	return true
}

// whole reports whether nothing of an epoch is damaged.
func (w *world) whole(r checkpoint.Retained) bool {
	m := w.manifests[r.Manifest.Name]
	return !w.disk.damaged[r.Manifest.Name] && !slices.ContainsFunc(m.Names(), func(name string) bool { return w.disk.damaged[name] })
}
