package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/stream"
)

// Bounds of what a session does.
const (
	// batchMax: larger batches gain little. (With 1,024 in flight, two batches of 512 cost a
	// tenth less than four of 256, and learned no worse: a log loss of .5348 against .5350.)
	batchMax = 512
	// advanceBatches and advanceTime bound how far a shard that nothing in the
	// stream touches falls behind, and so how much a restart reads again.
	advanceBatches = 64
	advanceTime    = time.Second
	// lingerMax is how long the first event of a batch may wait for others where a stream is
	// read as fast as it grows. It is part of what makes a reader's rows old; shorter ones
	// make more messages of the same events.
	lingerMax = 10 * time.Millisecond
	// plannedMax is how many batches may be ready to be asked for: whoever pushes is not to
	// wait for the next one.
	plannedMax = 4
	// pushedMax bounds the batches that are pushed and not acknowledged, and so what a
	// session that ends waits for.
	pushedMax = 8
	// Beyond skipsMax unusable rows among skipWindow offsets, learning stops: one
	// percent is a broken stream or a wrong spec, not noise.
	skipsMax   = 100
	skipWindow = 10_000
)

// Sizes returns how many events a batch holds and how many batches may be between
// pull and push, so that all workers together keep to inFlight events.
// Two batches overlap the network with computing; more would be smaller ones.
func Sizes(inFlight, workers int) (batch, window int) {
	mine := max(1, inFlight/max(1, workers))
	batch = min(max(1, mine/2), batchMax)
	return batch, max(1, mine/batch)
}

// session is one run of the loop under one assignment, from asking the shards to
// the end of the stream or to the first thing that goes wrong. Four stages work
// side by side, each owning what its comment says, and hand flights on in order:
//
//	read → plan → compute (ask for rows, learn, push) → acknowledge
type session struct {
	t          *Trainer
	assignment Assignment
	layout     uint64
	shards     int
	batch      int
	window     int
	dense      *model.Dense
	rate       float64 // this worker's share of the rate; 0 is as fast as it goes

	cursors map[ps.Partition]*Cursor     // owned by plan
	cuts    map[ps.Partition][]ps.Offset // owned by read
	next    map[ps.Partition]ps.Offset   // owned by read; the offset to be read next

	batches  chan *flight  // unbuffered: read may be one batch ahead
	planned  chan *flight  // capacity plannedMax
	pushed   chan *flight  // capacity pushedMax
	answered chan struct{} // capacity 1; if sequential, one per batch that was answered
	free     chan *flight  // flights to use again
}

// session returns nil at the end of the stream.
func (t *Trainer) session(ctx context.Context, a Assignment) (err error) {
	progress, err := t.config.Params.Applied(ctx, t.config.Model.Name)
	if err != nil {
		return err
	}
	dense, err := model.NewDense(t.config.Spec, len(progress))
	if err != nil {
		return err
	}
	batch, window := Sizes(t.config.Spec.Training.InFlight, a.Workers)
	rate := t.config.Rate / float64(max(1, a.Workers))
	if rate > 0 {
		batch = pacedBatch(batch, rate)
	}
	s := &session{
		t: t, assignment: a, layout: t.config.Model.Layout.Hash(), shards: len(progress),
		batch: batch, window: window, dense: dense, rate: rate,
		cursors: make(map[ps.Partition]*Cursor), cuts: make(map[ps.Partition][]ps.Offset), next: make(map[ps.Partition]ps.Offset),
		batches: make(chan *flight), planned: make(chan *flight, plannedMax), pushed: make(chan *flight, pushedMax),
		answered: make(chan struct{}, 1), free: make(chan *flight, plannedMax+window+pushedMax+len(a.Partitions)+4),
	}
	starts := make([]stream.Start, 0, len(a.Partitions))
	known, finished := t.Positions(), 0
	for _, p := range a.Partitions {
		applied := make([]ps.Offset, len(progress))
		for i, shard := range progress {
			if int(p) >= len(shard.Partitions) {
				return fmt.Errorf("shard %d knows %d partitions, partition %d is assigned: %w", i, len(shard.Partitions), p, ps.ErrModelMismatch)
			}
			applied[i] = shard.Partitions[p].Applied
		}
		cursor := NewCursor(applied)
		s.cursors[p], s.cuts[p], s.next[p] = &cursor, cursor.Cuts(), cursor.Next()
		starts = append(starts, stream.Start{Partition: p, Offset: cursor.Next()})
		if at := known[p]; at.Done && cursor.Next() >= at.End {
			finished++
			continue
		}
		t.update(p, func(position *Position) { position.Acknowledged, position.Done = cursor.Next(), false })
	}
	if finished == len(a.Partitions) {
		return nil
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	draining, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(drainMax, giveUp)
		context.AfterFunc(draining, func() { timer.Stop() })
	})()
	g.Go(func() error { return s.read(ctx, starts) })
	g.Go(func() error { return s.plan(ctx) })
	g.Go(func() error { return s.compute(ctx, draining) })
	var failed error
	g.Go(func() error {
		failed = s.acknowledge(ctx, draining, stop)
		return nil
	})
	err = g.Wait()
	return cmp.Or(failed, err) // the others were only stopped by it
}

// sequential reports whether a batch waits for the answers to the one before. It then
// never learns from shards that have lost that one, and a replay is the same to the bit.
func (s *session) sequential() bool { return s.window == 1 }

// flight is one batch on its way, with the memory that its stages need. It is
// owned by one stage at a time.
type flight struct {
	batch  worker.Batch
	opened time.Time // when its first event was read; known of a live stream only
	group  ps.Group  // of batch.Keys
	// end marks the end of its partition; the batch is then empty.
	end bool

	// Made by plan.
	items     []ps.Item // without rows
	replaying bool
	score     bool // some item needs the events' scores
	reads     []ps.Read

	// Made by compute.
	rows         func(context.Context) (pulled uint64, err error) // waits for the reads' values
	number       uint64                                           // of the pull
	contribution rows
	answers      func(context.Context) ([]ps.Answer, error)
}

// late reports whether the first event of a live stream's batch has waited long enough.
func (f *flight) late() bool { return time.Since(f.opened) >= lingerMax }

func (s *session) newFlight() *flight {
	select {
	case f := <-s.free:
		return f
	default:
		return new(flight)
	}
}

// recycle gives a flight's memory back.
func (s *session) recycle(f *flight) {
	f.end, f.rows, f.answers = false, nil, nil
	select {
	case s.free <- f:
	default:
	}
}

// send hands f on, unless ctx ends first.
func send(ctx context.Context, to chan<- *flight, f *flight) error {
	select {
	case to <- f:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read assembles batches: events of one partition and one pass, ending at every
// cut. It owns the examples and the batches it has not handed on.
func (s *session) read(ctx context.Context, starts []stream.Start) (err error) {
	defer close(s.batches)
	from, err := s.openExamples(ctx, starts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	open := make(map[ps.Partition]*flight)
	live, read := false, 0 // all that there is was read once; events
	skips := make(map[ps.Partition]*skipCount)
	hand := func(f *flight) error {
		delete(open, f.batch.Partition)
		return send(ctx, s.batches, f)
	}
	for {
		event, err := from.next(ctx)
		switch {
		case errors.Is(err, stream.ErrIdle):
			live = true
			s.noteNewest(from)
			for _, f := range open {
				if !f.late() {
					continue
				}
				if err := hand(f); err != nil {
					return err
				}
			}
			continue
		case errors.Is(err, io.EOF):
			return s.readEnd(from, open, hand)
		case errors.Is(err, errCached):
			if from, err = s.reopenExamples(ctx, from); err != nil {
				return err
			}
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return &streamError{err}
		}
		// An offset that is left out would count as one without a contribution.
		if want := s.next[event.Partition]; event.Offset != want {
			return &streamError{fmt.Errorf("partition %d: offset %d in the place of %d: %w", event.Partition, event.Offset, want, ps.ErrCorrupt)}
		}
		s.next[event.Partition]++
		if read++; read%newestEvery == 0 {
			s.noteNewest(from)
		}
		f := open[event.Partition]
		alone := s.t.crashes.isAlone(event.Partition, event.Offset)
		if f != nil && (f.batch.Pass != event.Pass || alone) {
			if err := hand(f); err != nil {
				return err
			}
			f = nil
		}
		if f == nil {
			f = s.newFlight()
			f.batch.Reset(event.Partition, event.Offset, event.Pass)
			open[event.Partition] = f
			if live {
				f.opened = time.Now()
			}
		}
		before := f.batch.Len()
		err = from.append(&f.batch)
		if f.batch.Len() == before {
			return err
		}
		if alone && err == nil && s.t.crashes.isDropped(event.Partition, event.Offset) {
			f.batch.Roles[f.batch.Len()-1] = worker.Drop
			err = fmt.Errorf("partition %d, offset %d: given up after %d times: %w", event.Partition, event.Offset, crashesMax, errCrashed)
		}
		if err != nil && !errors.Is(err, worker.ErrAbsent) {
			s.t.config.Skipped(event, err)
			if skips[event.Partition] == nil {
				skips[event.Partition] = new(skipCount)
			}
			if err := skips[event.Partition].add(event.Offset, err); err != nil {
				return err
			}
		}
		if f.batch.Len() >= s.batch || alone || live && f.late() || s.isCut(event.Partition, f.batch.To) {
			if err := hand(f); err != nil {
				return err
			}
		}
	}
}

// newestEvery is how many events are read between two looks how far the stream goes.
const newestEvery = 1024

// noteNewest notes how far a stream that grows has grown.
func (s *session) noteNewest(from examples) {
	for _, p := range s.assignment.Partitions {
		if newest, known := from.newest(p); known {
			s.t.update(p, func(position *Position) { position.Newest = newest })
		}
	}
}

// reopenExamples opens the examples anew that are not read yet.
func (s *session) reopenExamples(ctx context.Context, from examples) (examples, error) {
	starts := make([]stream.Start, 0, len(s.next))
	for _, p := range s.assignment.Partitions {
		starts = append(starts, stream.Start{Partition: p, Offset: s.next[p]})
	}
	again, err := s.openExamples(ctx, starts)
	if err != nil {
		return from, err // the caller closes it
	}
	return again, from.close()
}

// isCut reports whether a batch must end at to, and forgets the cuts behind it.
func (s *session) isCut(p ps.Partition, to ps.Offset) bool {
	cuts := s.cuts[p]
	for len(cuts) > 0 && cuts[0] < to {
		cuts = cuts[1:]
	}
	s.cuts[p] = cuts
	return len(cuts) > 0 && cuts[0] == to
}

// readEnd hands on what is left and, for every partition, its end.
func (s *session) readEnd(from examples, open map[ps.Partition]*flight, hand func(*flight) error) error {
	for _, p := range s.assignment.Partitions {
		if f := open[p]; f != nil {
			if err := hand(f); err != nil {
				return err
			}
		}
		end, known := from.end(p)
		if !known {
			return &streamError{fmt.Errorf("partition %d ended at an unknown offset: %w", p, ps.ErrCorrupt)}
		}
		applied := s.next[p] // or further, by the last cut
		if n := len(s.cuts[p]); n > 0 {
			applied = max(applied, s.cuts[p][n-1])
		}
		switch {
		case applied > end:
			return &streamError{fmt.Errorf("partition %d ends at offset %d, but a shard has applied %d: this is not the stream the model was learned from: %w",
				p, end, applied, ps.ErrModelMismatch)}
		case s.next[p] < end:
			return &streamError{fmt.Errorf("partition %d ends at offset %d, but was read up to %d only: %w", p, end, s.next[p], ps.ErrCorrupt)}
		}
		s.t.update(p, func(position *Position) { position.End, position.EndKnown = end, true })
		f := s.newFlight()
		f.batch.Reset(p, end, 0)
		f.end = true
		if err := hand(f); err != nil {
			return err
		}
	}
	return nil
}

// skipCount counts the unusable rows of a partition's current window.
type skipCount struct {
	window uint64
	count  int
}

// add counts a skip and returns ErrTooManySkips if there are too many.
func (c *skipCount) add(o ps.Offset, reason error) error {
	if window := uint64(o) / skipWindow; window != c.window {
		*c = skipCount{window: window}
	}
	c.count++
	if c.count > skipsMax {
		return fmt.Errorf("%w: %d of the last %d of a partition; check the spec against the stream; the last one: %w",
			ErrTooManySkips, c.count, uint64(o)%skipWindow+1, reason)
	}
	return nil
}

// plan decides what each shard will be sent. It owns the cursors.
func (s *session) plan(ctx context.Context) error {
	defer close(s.planned)
	counter := contribution.New(s.shards, s.t.config.Spec.Evaluation.Window, s.t.config.Spec.DenseKeys()...)
	type advance struct {
		batches int
		at      time.Time
	}
	advances := make(map[ps.Partition]*advance)
	for p := range s.cursors {
		advances[p] = &advance{at: time.Now()}
	}
	for f := range s.batches {
		f.group.Fill(f.batch.Keys, s.shards)
		if n := f.batch.Len(); n > 0 && s.rate > 0 && !s.cursors[f.batch.Partition].Replaying() {
			if err := s.t.pace.wait(ctx, n, s.rate); err != nil {
				return err
			}
		}
		a := advances[f.batch.Partition]
		a.batches++
		everybody := f.end || a.batches >= advanceBatches || time.Since(a.at) >= advanceTime
		if everybody {
			*a = advance{at: time.Now()}
		}
		plan := s.cursors[f.batch.Partition].Plan(&f.batch, counter, everybody, f.items)
		f.items, f.replaying, f.score = plan.Items, plan.Replaying, plan.Score
		if f.score {
			s.planReads(f)
		}
		if err := send(ctx, s.planned, f); err != nil {
			return err
		}
	}
	return nil
}

// planReads fills f's reads: the rows of the network's tables for all its keys, and those
// of its layers.
func (s *session) planReads(f *flight) {
	if len(f.reads) > 0 {
		return // as the flight before had them, with their memory
	}
	tables := s.t.config.Model.Layout.Tables[:s.t.config.Spec.FeatureTables()]
	for i, table := range tables {
		f.reads = append(f.reads, ps.Read{Table: ps.TableID(i), RowBytes: table.RowBytes(), Group: &f.group})
	}
	f.reads = s.dense.AppendReads(f.reads, ps.TableID(len(tables)))
}

// compute scores, learns and pushes. It owns the network and the tally. A push is not
// cut short when the session ends: those before it on its stream would not be answered.
func (s *session) compute(ctx, draining context.Context) error {
	defer close(s.pushed)
	c, err := newComputer(s)
	if err != nil {
		return err
	}
	var asked []*flight  // whose rows are on their way, or here
	var computed *flight // and not pushed
	since := time.Now()  // up to which it is counted whether there was work
	worked := func() {
		now := time.Now()
		s.t.busy.Add(int64(now.Sub(since)))
		since = now
	}
	defer worked()
	for open := true; open || computed != nil || len(asked) > 0; {
		var next *flight
		if len(asked) < s.window && (computed == nil || !s.sequential()) {
			idle := computed == nil && len(asked) == 0
			worked()
			next, open = s.take(idle)
			if idle {
				since = time.Now()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.exchange(ctx, draining, computed, next); err != nil {
			return err
		}
		computed = nil
		if next != nil {
			asked = append(asked, next)
			continue
		}
		if len(asked) > 0 {
			computed = asked[0]
			asked = append(asked[:0], asked[1:]...)
			if err := s.learn(ctx, c, computed); err != nil {
				return err
			}
		}
	}
	return nil
}

// take returns a flight that is planned, if there is one, or waits for it. There are no more
// once it is not open.
func (s *session) take(wait bool) (f *flight, open bool) {
	if wait {
		f, open = <-s.planned
		return f, open
	}
	select {
	case f, open = <-s.planned:
		return f, open
	default:
		return nil, true
	}
}

// learn waits for f's rows and computes what it contributes.
func (s *session) learn(ctx context.Context, c *computer, f *flight) (err error) {
	f.number = 0
	if !f.score {
		return nil
	}
	began := time.Now()
	if f.number, err = f.rows(ctx); err != nil {
		return fmt.Errorf("pull for partition %d, offsets %v: %w", f.batch.Partition, f.batch.Range, err)
	}
	if slow := s.t.config.Slow; slow > 0 && !f.replaying {
		timer := time.NewTimer(time.Duration(float64(f.batch.Len())/slow*float64(time.Second)) - time.Since(began))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err = guarded(func() error { return c.contribute(f) })
	if errors.Is(err, errCrashed) {
		s.t.crashes.note(&f.batch)
		err = fmt.Errorf("partition %d, offsets %v: %w", f.batch.Partition, f.batch.Range, err)
	}
	return err
}

// exchange pushes what a flight contributes and asks for the rows that the next one needs,
// in one message to each node. Either may be nil, or have nothing to send.
func (s *session) exchange(ctx, draining context.Context, computed, next *flight) error {
	var update *ps.Update
	if computed != nil && len(computed.items) > 0 {
		update = &ps.Update{
			Model: s.t.config.Model.Name, Stream: s.t.config.Model.Stream, Layout: s.layout, Version: s.t.config.Model.Version,
			Partition: computed.batch.Partition, Generation: s.assignment.Generation, To: computed.batch.To, Items: computed.items, Pulled: computed.number,
		}
	}
	var reads []ps.Read
	if next != nil && next.score {
		reads = next.reads
	}
	if update != nil || reads != nil {
		answers, rows, err := s.t.config.Params.Exchange(draining, update, s.t.config.Model.Name, s.layout, reads)
		if err != nil {
			return fmt.Errorf("exchange with the parameter servers: %w", err)
		}
		if update != nil {
			computed.answers = answers
		}
		if reads != nil {
			next.rows = rows
		}
	}
	if computed == nil {
		return nil
	}
	s.pushed <- computed // the answers to those before are waited for, whatever happens
	if !s.sequential() {
		return nil // what is pulled from now on sees what was pushed (see Params.Exchange)
	}
	select {
	case <-s.answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drainMax bounds the wait for the answers to what was pushed when a session ends: a
// node that is gone may never give them.
const drainMax = time.Second

// acknowledge waits for answers, in order. Anything but Applied stops the session and is
// returned. What was pushed is waited for whyever the session ends, until draining ends:
// shards that are asked before they have judged it would say less than they are about to
// have, and the next session would stumble over that.
func (s *session) acknowledge(ctx, draining context.Context, stop func()) (failed error) {
	stumbled := false
	for f := range s.pushed {
		p := f.batch.Partition
		if f.answers != nil {
			answers, err := f.answers(draining)
			if err == nil {
				err = judge(answers, p, f.batch.To)
			}
			if err != nil && !stumbled {
				stumbled = true
				if ctx.Err() == nil { // else it is not the reason
					failed = err
					stop()
				}
			}
		}
		if stumbled {
			continue
		}
		if s.sequential() {
			s.answered <- struct{}{}
		}
		s.t.acknowledged.Add(1)
		s.t.events.Add(int64(f.batch.Len()))
		s.t.update(p, func(position *Position) {
			position.Acknowledged = f.batch.To
			position.Done = f.end
		})
		s.recycle(f)
	}
	return failed
}

// judge returns nil if all answers are Applied. A refusal that asking again cannot
// mend comes before one that it can.
func judge(answers []ps.Answer, p ps.Partition, to ps.Offset) error {
	var worst error
	for _, a := range answers {
		if a.Outcome == ps.Applied {
			continue
		}
		err := a.Err
		if err == nil {
			err = errOutrun
		}
		err = fmt.Errorf("shard %d answered %v to partition %d up to offset %d, applied %d: %w", a.Shard, a.Outcome, p, to, a.Applied, err)
		if worst == nil || (restartable(worst) && !restartable(err)) {
			worst = err
		}
	}
	return worst
}

// errOutrun: what a shard has applied is not what this worker thought, because
// somebody else pushed or the shard was restored.
var errOutrun = errors.New("the shard is elsewhere")
