package train

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/cache"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/stream"
)

// examples are the examples of some partitions, each from an offset on: extracted from the
// stream, or read from a cache. They have one owner.
type examples interface {
	// next goes to the next example and says where it belongs: its partition, offset,
	// pass and row are event's. It returns io.EOF after the last one, and errCached if the
	// rest can be read from a cache.
	next(ctx context.Context) (event *worker.Event, err error)
	// append adds that example to b. An error says why it is a skip there.
	append(b *worker.Batch) error
	// end returns the end of a partition once next has returned io.EOF.
	end(p ps.Partition) (ps.Offset, bool)
	// newest returns the end of what a partition of a stream that grows has, if it is known.
	newest(p ps.Partition) (ps.Offset, bool)
	close() error
}

// errCached: what is left of the stream is in a cache.
var errCached = errors.New("the rest is cached")

// openExamples returns the examples of partitions from their offsets on: from the cache, if
// there is one that has all of them, else from the stream.
func (s *session) openExamples(ctx context.Context, starts []stream.Start) (examples, error) {
	if s.t.config.Cache != "" {
		kept, err := s.openCached(starts)
		if kept != nil || err != nil {
			return kept, err
		}
	}
	extractor, err := feature.New(s.t.config.Spec, s.t.columns)
	if err != nil {
		return nil, err
	}
	reader, err := s.t.config.Source.Read(ctx, starts)
	if err != nil {
		return nil, &streamError{err}
	}
	x := &extracted{s: s, reader: reader, extractor: extractor}
	x.beginCache(starts)
	return x, nil
}

// extracted are examples extracted from the stream. If they are read from the beginning,
// those of the first pass are written to a cache beside.
type extracted struct {
	s         *session
	reader    stream.Reader
	extractor *feature.Extractor
	event     worker.Event
	writers   map[ps.Partition]*cache.Writer // nil: nothing is cached
}

func (x *extracted) beginCache(starts []stream.Start) {
	if x.s.t.config.Cache == "" {
		return
	}
	for _, start := range starts {
		if start.Offset != 0 {
			return // what is before it would be missing
		}
	}
	x.writers = make(map[ps.Partition]*cache.Writer)
	for _, start := range starts {
		w, err := cache.Create(x.s.t.config.Cache, x.s.t.cacheName(start.Partition))
		if err != nil {
			x.uncached(err)
			return
		}
		x.writers[start.Partition] = w
	}
}

// uncached gives the cache up, for a reason if there is one. To learn is more important.
func (x *extracted) uncached(reason error) {
	if reason != nil {
		x.s.t.config.Logger.Warn("extracted examples are not cached", "err", reason)
	}
	for _, w := range x.writers {
		if err := w.Abort(); err != nil {
			x.s.t.config.Logger.Warn("a part of a cache stays behind", "err", err)
		}
	}
	x.writers = nil
}

func (x *extracted) next(ctx context.Context) (*worker.Event, error) {
	err := x.reader.Next(ctx, &x.event)
	switch {
	case x.writers == nil:
	case errors.Is(err, io.EOF):
		x.commit()
	case err == nil && x.event.Pass > 0 && x.commit():
		return nil, errCached
	}
	return &x.event, err
}

// commit makes the cache visible and reports whether it is there.
func (x *extracted) commit() bool {
	for p, w := range x.writers {
		delete(x.writers, p)
		if err := w.Commit(); err != nil {
			x.uncached(err)
			return false
		}
	}
	x.writers = nil
	return true
}

func (x *extracted) append(b *worker.Batch) error {
	reason := x.extractor.Append(b, &x.event)
	if x.writers != nil {
		if err := x.writers[x.event.Partition].Add(b, x.event.Time); err != nil {
			x.uncached(err)
		}
	}
	return reason
}

func (x *extracted) end(p ps.Partition) (ps.Offset, bool) { return x.reader.End(p) }

func (x *extracted) newest(p ps.Partition) (ps.Offset, bool) {
	if growing, ok := x.reader.(stream.Growing); ok {
		return growing.Newest(p)
	}
	return 0, false
}

func (x *extracted) close() error {
	x.uncached(nil) // unless it was committed
	return x.reader.Close()
}

// cacheTurn is how many events of a partition come before those of another.
const cacheTurn = batchMax

// cached are examples read from a cache.
type cached struct {
	s          *session
	partitions []*cachedPartition // with events left, in turn
	ends       map[ps.Partition]ps.Offset
	at, turn   int
	event      worker.Event
	all        []*cachedPartition
}

type cachedPartition struct {
	partition ps.Partition
	reader    *cache.Reader
	next      ps.Offset // the offset of the event that reader gives next
}

// openCached returns nil if there is no cache of all the partitions that can be believed.
func (s *session) openCached(starts []stream.Start) (_ examples, err error) {
	c := &cached{s: s, ends: make(map[ps.Partition]ps.Offset), turn: -1}
	for _, start := range starts {
		if !cache.Exists(s.t.config.Cache, s.t.cacheName(start.Partition)) {
			return nil, c.close()
		}
		reader, err := cache.Open(s.t.config.Cache, s.t.cacheName(start.Partition))
		if err != nil {
			return nil, errors.Join(s.distrust(start.Partition, err), c.close())
		}
		p := &cachedPartition{start.Partition, reader, start.Offset}
		c.all = append(c.all, p)
		end := reader.Events() * ps.Offset(max(1, s.t.config.Spec.Stream.Passes))
		c.ends[start.Partition] = end
		if start.Offset >= end {
			continue
		}
		if err := reader.Seek(start.Offset % reader.Events()); err != nil {
			return nil, errors.Join(s.distrust(start.Partition, err), c.close())
		}
		c.partitions = append(c.partitions, p)
	}
	s.t.config.Logger.Info("reading extracted examples from the cache", "dir", s.t.config.Cache)
	return c, nil
}

// distrust removes a damaged cache, so that the text is read again, and says so. Any other
// error is returned.
func (s *session) distrust(p ps.Partition, err error) error {
	if !errors.Is(err, ps.ErrCorrupt) {
		return &streamError{err}
	}
	s.t.config.Logger.Warn("a cache of extracted examples is damaged: it is removed, and the stream itself is read", "partition", p, "err", err)
	if err := cache.Remove(s.t.config.Cache, s.t.cacheName(p)); err != nil {
		return &streamError{err}
	}
	return nil
}

// errDistrusted ends a session whose cache turned out to be damaged; the next one reads
// the stream.
var errDistrusted = errors.New("the cache of extracted examples was damaged")

// errUnusable stands for what was wrong with a row when it was cached.
var errUnusable = fmt.Errorf("it could not be used when the cache was written: %w", worker.ErrUnreadable)

func (c *cached) next(ctx context.Context) (*worker.Event, error) {
	if c.turn++; c.turn == cacheTurn {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.turn = 0
		c.at++
	}
	if len(c.partitions) == 0 {
		return nil, io.EOF
	}
	c.at %= len(c.partitions)
	p := c.partitions[c.at]
	events := p.reader.Events()
	c.event = worker.Event{Partition: p.partition, Offset: p.next, Pass: uint32(p.next / events), Row: p.next % events}
	return &c.event, nil
}

func (c *cached) append(b *worker.Batch) error {
	p := c.partitions[c.at]
	if p.next > 0 && c.event.Row == 0 {
		if err := p.reader.Seek(0); err != nil {
			return c.damaged(p, err)
		}
	}
	if err := p.reader.Append(b); err != nil {
		return c.damaged(p, err)
	}
	p.next++
	if p.next == c.ends[p.partition] {
		c.partitions = append(c.partitions[:c.at:c.at], c.partitions[c.at+1:]...)
		c.turn = -1
	}
	if b.Roles[b.Len()-1] == worker.Skip {
		return errUnusable
	}
	return nil
}

func (c *cached) damaged(p *cachedPartition, err error) error {
	if err := c.s.distrust(p.partition, err); err != nil {
		return err
	}
	return errDistrusted
}

func (c *cached) end(p ps.Partition) (ps.Offset, bool) {
	end, ok := c.ends[p]
	return end, ok
}

// newest is not known: what is cached does not grow.
func (c *cached) newest(ps.Partition) (ps.Offset, bool) { return 0, false }

func (c *cached) close() (err error) {
	for _, p := range c.all {
		err = errors.Join(err, p.reader.Close())
	}
	return err
}

// cacheName names the cache of a partition's examples.
func (t *Trainer) cacheName(p ps.Partition) cache.Name {
	return cache.Name{Stream: t.config.Source.Identity(), Features: t.digest, Partition: p}
}
