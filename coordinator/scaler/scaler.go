// Package scaler says how many workers a model's stream needs, to KEDA (its external
// scaler) and as Prometheus metrics.
//
// The one idea to keep in mind: what a worker can do is measured while it has something to
// do, so that the answer does not depend on how many there are: events that arrive, over
// events that one worker learns in a second that it is busy. Nothing here knows what a worker
// costs, and nothing is decided by it inside the cluster.
package scaler

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Targets say what is wanted.
type Targets struct {
	// CatchUp is the time in which a backlog is to be worked off.
	CatchUp time.Duration
	// Utilisation is the part of the time that workers are to be busy: the rest is for bursts.
	Utilisation float64
}

// Look is what is known of a model's stream at one moment.
type Look struct {
	At time.Time
	// Partitions bounds how many workers can do anything.
	Partitions int
	// Grown is how far the stream goes and Applied how much of it is in the model everywhere,
	// in events over all partitions. Known is whether Grown is.
	Grown, Applied uint64
	Known          bool
	// EventTime is the least, over partitions with a lag, of the times that are in, in
	// milliseconds since 1970; 0 if there is no lag or no time.
	EventTime int64
	// Workers are those that are there, by ID.
	Workers map[string]Work
}

// Work is what a worker has done in its life.
type Work struct {
	Events      uint64
	BusySeconds float64
}

// Figures are what is made of looks.
type Figures struct {
	// Wanted is how many workers are wanted, from 1 to the partitions.
	Wanted int
	// Arrival is how many events come each second, Backlog how many are not applied, Rate how
	// many one busy worker learns each second, and Lag how old the oldest event is that is
	// not applied. They are 0 where they are not known.
	Arrival, Rate float64
	Backlog       uint64
	Lag           time.Duration
	// Active: there is something to learn, or it is not known that there is not.
	Active bool
}

const (
	// window is what arrival and rate are measured over.
	window = 30 * time.Second
	// downFor is for how long fewer workers must have been enough before fewer are wanted. A
	// worker that goes and comes again costs two replays.
	downFor = time.Minute
	// upLooks is how many looks in a row more must be needed: one may be a burst, or a pause
	// of whoever looks.
	upLooks = 2
	// deadband is by what part of the present workers the need may differ without a reason
	// for others. A need near a whole number would otherwise go over it and back with the
	// noise of any stream.
	deadband = 0.1
	// busyMin is for how many seconds workers must have been busy for a rate.
	busyMin = 1
)

// Model decides for one model, look by look. It is not safe for concurrent use.
type Model struct {
	targets Targets
	looks   []Look // ascending; the first is window old, or the oldest
	needs   []need
	rate    float64 // the last that was known
	last    Figures
}

type need struct {
	at      time.Time
	workers float64
}

// NewModel returns one that has seen nothing.
func NewModel(t Targets) *Model { return &Model{targets: t} }

// Take takes in a look, which is later than those before, and returns what follows.
func (m *Model) Take(l Look) Figures {
	m.looks = append(m.looks, l)
	for len(m.looks) > 2 && l.At.Sub(m.looks[1].At) >= window {
		m.looks = m.looks[1:]
	}
	first := m.looks[0]
	f := Figures{Active: true}
	if seconds := l.At.Sub(first.At).Seconds(); seconds > 0 && l.Known && first.Known {
		f.Arrival = float64(l.Grown-min(first.Grown, l.Grown)) / seconds
	}
	if l.Known && l.Grown > l.Applied {
		f.Backlog = l.Grown - l.Applied
		if l.EventTime > 0 {
			f.Lag = max(0, l.At.Sub(time.UnixMilli(l.EventTime)))
		}
	}
	f.Active = !l.Known || f.Backlog > 0 || f.Arrival > 0
	if rate := m.measured(first, l); rate > 0 {
		m.rate = rate
	}
	f.Rate = m.rate
	f.Wanted = m.wanted(l, f)
	m.last = f
	return f
}

// measured returns how many events one worker learns in a busy second; 0 if it is not known.
func (m *Model) measured(first, last Look) float64 {
	events, busy := 0.0, 0.0
	for id, now := range last.Workers {
		was := first.Workers[id] // of a worker that has come since, all counts
		if was.Events > now.Events || was.BusySeconds > now.BusySeconds {
			was = Work{}
		}
		events, busy = events+float64(now.Events-was.Events), busy+now.BusySeconds-was.BusySeconds
	}
	if busy < busyMin {
		return 0
	}
	return events / busy
}

// wanted returns how many workers are wanted: more as soon as that is needed twice in a row,
// fewer when that was enough for downFor, and as many as before within the deadband.
func (m *Model) wanted(l Look, f Figures) int {
	most := max(l.Partitions, 1)
	before := m.last.Wanted
	if before == 0 {
		before = min(max(len(l.Workers), 1), most)
	}
	needed := f.Arrival + float64(f.Backlog)/m.targets.CatchUp.Seconds()
	if !l.Known || m.rate == 0 && needed > 0 {
		m.needs = m.needs[:0]
		return min(before, most) // nothing is known that would be a reason
	}
	if needed > 0 {
		needed /= m.rate * m.targets.Utilisation
	}
	m.needs = append(m.needs, need{l.At, needed})
	m.needs = slices.DeleteFunc(m.needs, func(n need) bool { return l.At.Sub(n.at) > downFor })
	lasting := 0.0 // what the last looks all needed
	if n := len(m.needs) - upLooks; n >= 0 {
		lasting = slices.MinFunc(m.needs[n:], byWorkers).workers
	}
	highest := slices.MaxFunc(m.needs, byWorkers).workers
	long := l.At.Sub(m.needs[0].at) >= downFor-window/2 // else they are too young to say that fewer were enough
	now := float64(before)
	switch {
	case lasting > now*(1+deadband):
		before = whole(lasting)
	case long && highest < now*(1-deadband):
		before = whole(highest)
	}
	return min(max(before, 1), most)
}

func byWorkers(a, b need) int { return cmp.Compare(a.workers, b.workers) }

// whole returns the workers that do what so many would, at least 1.
func whole(needed float64) int { return max(1, int(math.Ceil(needed))) }
