package replica

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
	"github.com/freshet-ml/freshet/ps/shard"
)

// slot is one shard of a replica.
type slot struct {
	replica *Replica
	id      ps.ShardID

	taking sync.Mutex // before mu
	// Guarded by taking.
	next  *shadow
	parts []*ps.Delta // of a delta that is not whole yet
	// torn: a delta did not fit the served copy, which waits for another base.
	torn bool

	mu sync.Mutex
	// Guarded by mu.
	served *shard.Loader // nil before the first
	at     standing      // of served
}

// standing is where a copy stands.
type standing struct {
	origin    *origin
	lineage   uint64
	boundary  ps.Boundary
	applied   []ps.Offset // not changed once it is here
	eventTime int64
	currentAt time.Time // when it was last known to have all that there is
}

// shadow is a copy that is not served yet: a base that has not come whole, or one that has
// less than what is served.
type shadow struct {
	loader  *shard.Loader
	origin  *origin
	lineage uint64
	fence   ps.Fence
}

// standingOf returns where a delta leads.
func standingOf(from *origin, d *ps.Delta) standing {
	at := standing{
		origin: from, lineage: d.Lineage, boundary: ps.Boundary{Fence: d.Fence, Seq: d.Seq},
		applied: make([]ps.Offset, len(d.Partitions)),
	}
	for p, progress := range d.Partitions {
		at.applied[p] = progress.Applied
		at.eventTime = max(at.eventTime, progress.EventTime)
	}
	return at
}

// behind reports whether at has less than what is served, so that serving it would go back.
func (at *standing) behind(served *standing) bool {
	if at.origin.number != served.origin.number || at.lineage != served.lineage {
		return false
	}
	for p, applied := range at.applied {
		if applied < served.applied[p] {
			return true
		}
	}
	return false
}

// reset forgets what has not been served, for another origin.
func (s *slot) reset() {
	s.taking.Lock()
	defer s.taking.Unlock()
	s.next, s.parts = nil, nil
	s.torn = true // only a base goes on from here
}

// take takes in a part of a base or of a delta.
func (s *slot) take(from *origin, d *ps.Delta) error {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.overtaken(from, d) {
		return nil
	}
	if d.Since == 0 {
		return s.takeBase(from, d)
	}
	return s.takeDelta(from, d)
}

// overtaken reports whether a delta is of an owner that was followed by another.
func (s *slot) overtaken(from *origin, d *ps.Delta) bool {
	if s.next != nil && s.next.origin == from && (d.Lineage < s.next.lineage || d.Fence < s.next.fence) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served != nil && s.at.origin.number == from.number && (d.Lineage < s.at.lineage || d.Fence < s.at.boundary.Fence)
}

// takeBase takes in a part of a base.
func (s *slot) takeBase(from *origin, d *ps.Delta) error {
	if d.Part == 0 {
		loader, err := shard.Load(shard.Config{Model: s.replica.stored, ID: s.id, Shards: len(s.replica.slots), Fence: d.Fence})
		if err != nil {
			return err
		}
		if s.next != nil {
			s.replica.dropped()
		}
		s.next, s.parts = &shadow{loader: loader, origin: from, lineage: d.Lineage, fence: d.Fence}, nil
	}
	if s.next == nil || s.next.fence != d.Fence {
		return fmt.Errorf("shard %d: part %d of a base without those before it: %w", s.id, d.Part, ps.ErrCorrupt)
	}
	whole, err := s.replica.whole(from, d)
	if err == nil {
		err = s.next.loader.Take(whole)
	}
	if err != nil {
		s.next = nil
		return err
	}
	if !d.More {
		s.swap(standingOf(from, d))
	}
	return nil
}

// takeDelta takes in a part of a delta; it has an effect when it is whole.
func (s *slot) takeDelta(from *origin, d *ps.Delta) error {
	if s.next == nil && s.torn || s.next != nil && !s.next.loader.Whole() {
		return fmt.Errorf("shard %d: a delta without its base: %w", s.id, ps.ErrCorrupt)
	}
	whole, err := s.replica.whole(from, d)
	if err != nil {
		return s.tear(err)
	}
	if s.parts = append(s.parts, whole); d.More {
		return nil
	}
	parts := s.parts
	s.parts = nil
	at := standingOf(from, d)
	newest := s.at.eventTime // nobody changes it meanwhile: taking is held
	if s.next != nil {
		for _, part := range parts {
			if err := s.next.loader.Take(part); err != nil {
				s.next = nil
				return err
			}
		}
		s.swap(at)
		return nil
	}
	if err := s.serve(parts, at); err != nil {
		return s.tear(err)
	}
	s.replica.metrics.observe(d, at.eventTime > newest, time.Now())
	s.tell(parts)
	return nil
}

// tear gives up following on from what is served.
func (s *slot) tear(err error) error {
	s.parts, s.torn = nil, true
	return err
}

// serve brings the served copy to the boundary of a delta.
func (s *slot) serve(parts []*ps.Delta, at standing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range parts {
		if err := s.served.Take(part); err != nil {
			return err
		}
	}
	at.currentAt = s.at.currentAt
	s.at = at
	return nil
}

// swap serves the shadow, which is at a boundary, unless that would be to go back.
func (s *slot) swap(at standing) {
	s.mu.Lock()
	if s.served != nil && at.behind(&s.at) {
		s.mu.Unlock()
		return
	}
	first := s.served == nil
	at.currentAt = time.Now()
	if at.origin.epoch != 0 {
		at.currentAt = at.origin.created
	}
	s.served, s.at = s.next.loader, at
	s.mu.Unlock()
	s.next, s.torn = nil, false
	if first {
		s.replica.first()
	} else {
		s.replica.dropped()
	}
	s.replica.metrics.swaps.Inc()
	s.replica.config.Swapped(s.id)
}

// tell says which keys have changed.
func (s *slot) tell(parts []*ps.Delta) {
	for _, part := range parts {
		for _, b := range part.Blocks {
			keys := make([]ps.Key, 0, len(b.Rows)/b.Stride)
			for at := 0; at < len(b.Rows); at += b.Stride {
				keys = append(keys, ps.Key(binary.LittleEndian.Uint64(b.Rows[at:])))
			}
			s.replica.config.Changed(b.Table, keys)
		}
	}
}

// isCurrent notes that the served copy has all that there is, unless it waits for its shadow.
func (s *slot) isCurrent(now time.Time) {
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.next != nil || s.torn {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.currentAt = now
}

// standing returns where what is served stands; false if nothing is.
func (s *slot) standing() (standing, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, s.served != nil
}

// gather fills in the shard's rows of the reads.
func (s *slot) gather(reads []ps.Read) error {
	if !wanted(s.id, reads) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range reads {
		read := &reads[i]
		from, to := read.Group.Shard(s.id)
		if from == to {
			continue
		}
		if err := s.served.Gather(read.Table, read.Group.Keys[from:to], read.Values[from*read.RowBytes:to*read.RowBytes]); err != nil {
			return err
		}
	}
	return nil
}

// wanted reports whether a read has keys of a shard.
func wanted(id ps.ShardID, reads []ps.Read) bool {
	for i := range reads {
		if from, to := reads[i].Group.Shard(id); from < to {
			return true
		}
	}
	return false
}

// whole returns what a reader was sent, or has read of an epoch, as rows that its tables can
// store.
func (r *Replica) whole(from *origin, d *ps.Delta) (*ps.Delta, error) {
	encoding := r.config.Encoding
	if from.epoch != 0 {
		encoding = ps.Plain
	}
	whole := *d
	whole.Blocks = make([]ps.Block, 0, len(d.Blocks))
	for _, b := range d.Blocks {
		if !r.reading.Tables.Has(b.Table) {
			return nil, fmt.Errorf("shard %d: rows of table %d, which was not asked for: %w", d.Shard, b.Table, ps.ErrCorrupt)
		}
		stored, err := delta.Whole(r.stored.Layout.Tables[b.Table], encoding, b, d.Seq)
		if err != nil {
			return nil, fmt.Errorf("shard %d: %w", d.Shard, err)
		}
		whole.Blocks = append(whole.Blocks, stored)
	}
	return &whole, nil
}
