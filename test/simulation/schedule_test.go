package simulation_test

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
)

// errCrashed is what a process that was killed sees of the world.
var errCrashed = errors.New("the process is dead")

// task is a part of a process that can stop anywhere it meets the world.
type task struct {
	world *world
	name  string
	// host is where it runs; a pause of the host is one of the task.
	host *host

	next  func() (func() bool, bool)
	yield func(func() bool) bool
	ready func() bool // nil is always
	// between says that something was read from etcd and the transaction that depends on
	// it is about to be made.
	between    bool
	dead, done bool
}

// host is a process: what a crash or a pause strikes.
type host struct {
	name        string
	alive       bool
	pausedUntil int // step
}

// spawn begins a task. It runs when it is scheduled.
func (w *world) spawn(h *host, name string, run func(t *task)) *task {
	t := &task{world: w, name: name, host: h}
	t.next, _ = iter.Pull(func(yield func(func() bool) bool) {
		t.yield = yield
		run(t)
	})
	w.tasks = append(w.tasks, t)
	return t
}

// resume lets a task run up to its next stop.
func (w *world) resume(t *task) {
	before := w.current
	w.current = t
	ready, more := t.next()
	w.current = before
	t.ready, t.done = ready, !more
}

// wait stops the task until it is scheduled again, which is when ready says so; nil is
// at any time.
func (t *task) wait(ready func() bool) error {
	if t.dead || !t.yield(ready) || t.dead {
		return errCrashed
	}
	return nil
}

// kill ends the tasks of a host: whatever they meet from now on is an error.
func (w *world) kill(h *host) {
	h.alive = false
	for _, t := range slices.Clone(w.tasks) {
		if t.host == h && !t.done {
			t.dead = true
			w.resume(t)
			if !t.done {
				panic(fmt.Sprintf("task %s goes on after its death", t.name))
			}
		}
	}
}

// pause stops the task that runs, if one does: outside of tasks, which is where the
// oracle looks at things, nothing is interrupted.
func (w *world) pause() error {
	if w.current == nil {
		return nil
	}
	return w.current.wait(nil)
}

// quietly runs f so that nothing interrupts it.
func (w *world) quietly(f func()) {
	before := w.current
	w.current = nil
	defer func() { w.current = before }()
	f()
}

// runnable returns the tasks that can go on.
func (w *world) runnable() []*task {
	w.tasks = slices.DeleteFunc(w.tasks, func(t *task) bool { return t.done })
	ready := w.scratch[:0]
	for _, t := range w.tasks {
		if t.host.pausedUntil <= w.steps && (t.ready == nil || t.ready()) {
			ready = append(ready, t)
		}
	}
	w.scratch = ready
	return ready
}

// oneOf returns one of a list by chance.
func oneOf[T any](random *rand.Rand, list []T) T { return list[random.IntN(len(list))] }
