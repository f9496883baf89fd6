// Package delta hands the deltas of a shard on to those who follow it. Publishing
// never waits: every follower reads at its own pace, and one that falls too far
// behind is cut off and has to begin anew with a base. Deltas are shared by all
// followers and never copied; what readers are sent of one (see ps.Reading) is made once,
// by the first who comes to it, for all that read alike.
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
	layout   ps.Layout
	bytesMax int

	mu        sync.Mutex
	end       *entry // guarded by mu: the place of the delta to come
	followers map[*Follower]bool
}

// entry is a place in the list. It has a delta as soon as next is there.
type entry struct {
	delta *ps.Delta
	next  *entry

	mu   sync.Mutex
	read map[ps.Reading]*ps.Delta // guarded by mu: what readers are sent of the delta
}

// NewFeed returns a feed of a shard of that layout, whose followers may be behind by deltas
// of bytesMax bytes.
func NewFeed(layout ps.Layout, bytesMax int) *Feed {
	return &Feed{layout: layout, bytesMax: bytesMax, end: &entry{}, followers: make(map[*Follower]bool)}
}

// Follower is a place in a feed. Next belongs to one goroutine; Close may be called by
// any.
type Follower struct {
	feed    *Feed
	reading ps.Reading
	wake    chan<- struct{}
	// Guarded by feed.mu.
	at     *entry // nil once it was cut off or closed
	behind int    // bytes
}

// Follow returns a follower of everything that is published from now on, or of what
// reading wants of it. Whenever there is something to read, a value is put into wake,
// unless it is full: it needs room for one, and may be shared by many followers.
func (f *Feed) Follow(reading ps.Reading, wake chan<- struct{}) *Follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &Follower{feed: f, reading: reading, wake: wake, at: f.end}
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
	e, err := l.next()
	if e == nil || err != nil {
		return nil, err
	}
	return e.as(l.feed.layout, l.reading), nil
}

// next returns the place of the next delta, and goes on behind it; nil if there is none yet.
func (l *Follower) next() (*entry, error) {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	e := l.at
	switch {
	case e == nil:
		return nil, ErrCutOff
	case e.next == nil:
		return nil, nil
	}
	l.behind -= e.delta.Bytes()
	l.at = e.next
	return e, nil
}

// as returns what a reader is sent of the entry's delta.
func (e *entry) as(layout ps.Layout, r ps.Reading) *ps.Delta {
	if r == (ps.Reading{}) {
		return e.delta
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.read[r]; d != nil {
		return d
	}
	if e.read == nil {
		e.read = make(map[ps.Reading]*ps.Delta)
	}
	d := Read(layout, r, e.delta)
	e.read[r] = d
	return d
}

// Close ends the follower.
func (l *Follower) Close() {
	l.feed.mu.Lock()
	defer l.feed.mu.Unlock()
	l.feed.drop(l)
}
