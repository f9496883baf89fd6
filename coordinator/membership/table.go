package membership

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// table is what a pool knows of its members, and who is to be told.
type table struct {
	done chan struct{} // closed by end

	mu       sync.Mutex
	ended    bool
	members  map[string]entry // by ID
	watches  map[*watch]struct{}
	watching sync.WaitGroup // of watches' goroutines; added to under mu while not ended
}

type entry struct {
	Member
	since time.Time // when its state became what it is
}

// watch is what one watcher has not been given yet. It is guarded by table.mu.
type watch struct {
	unseen map[string]Member // by ID
	order  []string          // IDs in unseen, by their first change that was not seen
	wake   chan struct{}     // capacity 1: something has changed
}

func newTable() *table {
	return &table{done: make(chan struct{}), members: map[string]entry{}, watches: map[*watch]struct{}{}}
}

// set records what is known of a member now. A member that has left stays so.
func (t *table) set(m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(m)
}

// left records that a member which is known has left.
func (t *table) left(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, ok := t.members[id]; ok {
		known.State = Left
		t.setLocked(known.Member)
	}
}

func (t *table) setLocked(m Member) {
	known, ok := t.members[m.ID]
	if t.ended || ok && (known.Member == m || known.State == Left) {
		return
	}
	t.members[m.ID] = entry{Member: m, since: time.Now()}
	for w := range t.watches {
		w.tell(m)
	}
}

// all returns the members ordered by ID.
func (t *table) all() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.allLocked()
}

func (t *table) allLocked() []Member {
	all := make([]Member, 0, len(t.members))
	for e := range maps.Values(t.members) {
		all = append(all, e.Member)
	}
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// alone reports whether nobody but id is alive.
func (t *table) alone(id string) bool {
	return !slices.ContainsFunc(t.all(), func(m Member) bool { return m.State == Alive && m.ID != id })
}

// forget drops the members that have been gone since before a time.
func (t *table) forget(before time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.members, func(_ string, e entry) bool { return e.State != Alive && e.since.Before(before) })
}

// watch is Pool.Watch.
func (t *table) watch(ctx context.Context) <-chan Member {
	changes := make(chan Member) // no capacity: what is sent is the latest
	w := &watch{unseen: map[string]Member{}, wake: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		close(changes)
		return changes
	}
	for _, m := range t.allLocked() {
		w.tell(m)
	}
	t.watches[w] = struct{}{}
	t.watching.Add(1)
	go func() {
		defer t.watching.Done()
		defer close(changes)
		t.feed(ctx, w, changes)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watches, w)
	}()
	return changes
}

// feed gives a watcher what it has not seen until ctx or the pool ends.
func (t *table) feed(ctx context.Context, w *watch, changes chan<- Member) {
	for {
		next, ok := t.next(w)
		give := changes
		if !ok {
			give = nil // which blocks
		}
		select {
		case give <- next:
			t.given(w, next)
		case <-w.wake: // perhaps next has changed again
		case <-ctx.Done():
			return
		case <-t.done:
			return
		}
	}
}

// next returns the member that has waited longest to be given.
func (t *table) next(w *watch) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(w.order) == 0 {
		return Member{}, false
	}
	return w.unseen[w.order[0]], true
}

// given takes back what was given, unless it has changed meanwhile.
func (t *table) given(w *watch, m Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w.order = w.order[1:]
	if w.unseen[m.ID] == m {
		delete(w.unseen, m.ID)
		return
	}
	w.order = append(w.order, m.ID)
}

// tell records a change. table.mu is held.
func (w *watch) tell(m Member) {
	if _, waits := w.unseen[m.ID]; !waits {
		w.order = append(w.order, m.ID)
	}
	w.unseen[m.ID] = m
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// enter adds one to a group unless the table has ended: after that, somebody may be
// waiting for the group.
func (t *table) enter(group *sync.WaitGroup) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	group.Add(1)
	return true
}

// stop makes the table final: nothing changes it, watches it or enters any more.
func (t *table) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ended = true
		close(t.done)
	}
}
