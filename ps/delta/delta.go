// Package delta hands the deltas of a shard on to those who follow it. Publishing
// never waits: every follower reads at its own pace, and one that falls too far
// behind is cut off and has to begin anew with a base. Deltas are shared by all
// followers and never copied.
//
// The one idea to keep in mind: the deltas are one list that grows at its end, and a
// follower is a place in it. What everybody has read is garbage by itself.
//
// Invariant: from its place on, a follower reads every delta that is published, in
// order, or learns that it was cut off.
package delta

import (
	"errors"
	"sync"

	"github.com/freshet-ml/freshet/ps"
)

// ErrCutOff says that a follower was too slow, and what it has not read is gone.
var ErrCutOff = errors.New("too far behind: begin anew")

// Feed is what is published of one shard. It is safe for concurrent use.
type Feed struct {
	bytesMax int

	mu        sync.Mutex
	end       *entry // guarded by mu: the place of the delta to come
	followers map[*Follower]bool
}

// entry is a place in the list. It has a delta as soon as next is there.
type entry struct {
	delta *ps.Delta
	next  *entry
}

// NewFeed returns a feed whose followers may be behind by deltas of bytesMax bytes.
func NewFeed(bytesMax int) *Feed {
	return &Feed{bytesMax: bytesMax, end: &entry{}, followers: make(map[*Follower]bool)}
}

// Follower is a place in a feed. Next belongs to one goroutine; Close may be called by
// any.
type Follower struct {
	feed *Feed
	wake chan<- struct{}
	// Guarded by feed.mu.
	at     *entry // nil once it was cut off or closed
	behind int    // bytes
}

// Follow returns a follower of everything that is published from now on. Whenever
// there is something to read, a value is put into wake, unless it is full: it needs
// room for one, and may be shared by many followers.
func (f *Feed) Follow(wake chan<- struct{}) *Follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &Follower{feed: f, wake: wake, at: f.end}
	f.followers[l] = true
	return l
}

// Followed reports whether anybody follows.
func (f *Feed) Followed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.followers) > 0
}

// Publish puts a delta at the end. It is not changed any more, by anybody.
func (f *Feed) Publish(d *ps.Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	size := d.Bytes()
	f.end.delta, f.end.next = d, &entry{}
	f.end = f.end.next
	for l := range f.followers {
		if l.behind += size; l.behind > f.bytesMax {
			f.drop(l)
		}
		l.tell()
	}
}

// Close cuts everybody off: nothing more is published.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.followers {
		f.drop(l)
		l.tell()
	}
}

// drop lets go of a follower and of what it has not read. f.mu is held.
func (f *Feed) drop(l *Follower) {
	l.at = nil
	delete(f.followers, l)
}

// tell says that there is something to read.
func (l *Follower) tell() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Next returns the next delta, nil if there is none yet, or ErrCutOff, also after Close.
func (l *Follower) Next() (*ps.Delta, error) {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	switch {
	case l.at == nil:
		return nil, ErrCutOff
	case l.at.next == nil:
		return nil, nil
	}
	d := l.at.delta
	l.behind -= d.Bytes()
	l.at = l.at.next
	return d, nil
}

// Close ends the follower.
func (l *Follower) Close() {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	l.feed.drop(l)
}
