package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

const (
	// idleMax is how long Next waits for a record before it says that there is none.
	idleMax = 5 * time.Millisecond
	// pollRecords bounds the records that are taken from the client at once.
	pollRecords = 2048
	// lookEvery is the time between two looks at the topic: how far it has grown, and whether
	// it still is the one.
	lookEvery = 2 * time.Second
)

// reader reads some partitions. It implements stream.Growing.
type reader struct {
	source  *Source
	client  *kgo.Client
	masker  *mask.Masker
	masked  []bool // by column
	at      map[string]int
	timed   bool
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	bounded bool

	next map[ps.Partition]ps.Offset // what Next gives next
	open map[ps.Partition]bool      // those that have not ended
	ends map[ps.Partition]ps.Offset // of a bounded stream

	records []*kgo.Record // polled and not given yet
	// checked: the first records were polled, and the topic was the one after that. The client
	// keeps to the topic that it found first, so that it is the one from then on.
	checked bool

	values [][]byte // of the event that was given last
	text   []byte

	mu     sync.Mutex
	newest []ps.Offset // guarded by mu; nil before the first look
	lost   error       // guarded by mu; the topic is not the one any more
}

var _ stream.Growing = (*reader)(nil)

// Read begins to read the given partitions. It returns ps.ErrUnavailable if the log of one
// begins behind its offset: what was there is lost, and to go on behind it would lose it in
// silence.
func (s *Source) Read(ctx context.Context, starts []stream.Start) (stream.Reader, error) {
	r := &reader{
		source: s, at: make(map[string]int), bounded: s.config.Bounded, masked: make([]bool, len(s.config.Columns)),
		next: make(map[ps.Partition]ps.Offset), open: make(map[ps.Partition]bool), ends: make(map[ps.Partition]ps.Offset),
		values: make([][]byte, len(s.config.Columns)), timed: s.config.Stream.Time.Column != "",
	}
	for i, name := range s.config.Columns {
		r.at[name] = i
		r.masked[i] = slices.Contains(s.config.Stream.Identifiers, name)
	}
	if len(s.config.Stream.Identifiers) > 0 {
		var err error
		if r.masker, err = mask.New(s.config.Secret); err != nil {
			return nil, err
		}
	}
	offsets := make(map[int32]kgo.Offset)
	for _, start := range starts {
		if int(start.Partition) >= s.Partitions() {
			return nil, fmt.Errorf("partition %d of %d: %w", start.Partition, s.Partitions(), ps.ErrInvalid)
		}
		r.next[start.Partition], r.open[start.Partition] = start.Offset, true
		offsets[int32(start.Partition)] = kgo.NewOffset().At(s.log(start.Partition, start.Offset))
	}
	asking, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if err := r.checkStarts(asking, starts); err != nil {
		return nil, err
	}
	if r.bounded {
		if err := r.bound(asking); err != nil {
			return nil, err
		}
	}
	var err error
	r.client, err = kgo.NewClient(append(slices.Clone(s.options),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a log that has lost what is read next is no reason to go on behind it
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
	)...)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w: %w", s.config.URL, ps.ErrInvalid, err)
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	r.stop = stop
	r.tasks.Go(func() { r.watch(watching) })
	return r, nil
}

// log returns the offset in the log of an offset of the stream.
func (s *Source) log(p ps.Partition, o ps.Offset) int64 { return s.identity.bases[p] + int64(o) }

// checkStarts returns an error if the log has lost what is to be read first, or does not
// reach it.
func (r *reader) checkStarts(ctx context.Context, starts []stream.Start) error {
	s := r.source
	listed, err := s.admin.ListStartOffsets(ctx, s.topic)
	first, err := s.offsets(listed, err, s.Partitions())
	if err != nil {
		return err
	}
	newest, err := s.newest(ctx)
	if err != nil {
		return err
	}
	r.newest = newest
	for _, start := range starts {
		p := start.Partition
		if at := s.log(p, start.Offset); at < first[p] {
			return s.lost(p, at, first[p], newest[p])
		}
		if start.Offset > newest[p] {
			return fmt.Errorf("stream %s: partition %d ends at offset %d of its log, and was learned up to %d: the log was truncated, and what is written there now are other events; apply the model under another name: %w",
				s.config.URL, p, s.log(p, newest[p]), s.log(p, start.Offset), ps.ErrModelMismatch)
		}
	}
	return nil
}

// lost says that a log begins behind what is to be read.
func (s *Source) lost(p ps.Partition, at, first int64, newest ps.Offset) error {
	return fmt.Errorf("stream %s: partition %d is to be read from offset %d of its log, which begins at %d and ends at %d: retention has removed %d events before they were learned; raise the topic's retention and run more workers, or apply the model under another name to begin anew: %w",
		s.config.URL, p, at, first, s.log(p, newest), first-at, ps.ErrModelMismatch)
}

// bound takes in where a bounded stream ends.
func (r *reader) bound(ctx context.Context) error {
	s := r.source
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		ends, err := s.newest(ctx)
		if err != nil {
			return err
		}
		s.ends = ends
	}
	for p := range r.open {
		r.ends[p] = s.ends[p]
		r.open[p] = r.next[p] < s.ends[p]
	}
	return nil
}

// watch looks at the topic now and then, until ctx ends.
func (r *reader) watch(ctx context.Context) {
	s := r.source
	for warned := 0; ; {
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return
		}
		asking, cancel := context.WithTimeout(ctx, askMax)
		found, err := s.describe(asking)
		newest, newestErr := s.newest(asking)
		cancel()
		if err != nil || newestErr != nil {
			if ctx.Err() == nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
				s.config.Logger.Debug("the topic cannot be looked at", "err", errors.Join(err, newestErr))
			}
			continue
		}
		if n := found.partitions; n > warned {
			warned = n
			s.warnGrown(n)
		}
		r.mu.Lock()
		r.newest = newest
		if found.id != s.identity.id {
			r.lost = s.anew()
		}
		r.mu.Unlock()
	}
}

// Newest implements stream.Growing.
func (r *reader) Newest(p ps.Partition) (ps.Offset, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(p) >= len(r.newest) {
		return 0, false
	}
	return r.newest[p], true
}

// End implements stream.Reader: only a bounded stream has ends.
func (r *reader) End(p ps.Partition) (ps.Offset, bool) {
	end, known := r.ends[p]
	return end, known
}

// Close implements stream.Reader.
func (r *reader) Close() error {
	r.stop()
	r.client.Close()
	r.tasks.Wait()
	return nil
}

// Next implements stream.Reader.
func (r *reader) Next(ctx context.Context, e *worker.Event) error {
	for {
		if len(r.records) > 0 && !r.checked {
			if err := r.check(ctx); err != nil {
				return err
			}
		}
		for len(r.records) > 0 {
			record := r.records[0]
			p := ps.Partition(record.Partition)
			offset := ps.Offset(record.Offset - r.source.identity.bases[p])
			switch {
			case !r.open[p] || offset < r.next[p]: // behind the end, or a batch that began before where reading did
				r.records = r.records[1:]
			case offset > r.next[p]:
				r.begin(e, p, r.next[p])
				e.Err = worker.ErrAbsent
				r.advance(p)
				return nil
			default:
				r.records = r.records[1:]
				r.give(e, record, p, offset)
				return nil
			}
		}
		if r.ended() {
			return io.EOF
		}
		if err := r.poll(ctx); err != nil {
			return err
		}
	}
}

// check looks whether the topic is the one still. It returns ErrIdle if no broker says so.
func (r *reader) check(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	found, err := r.source.describe(asking)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return stream.ErrIdle
	case found.id != r.source.identity.id:
		return r.source.anew()
	}
	r.checked = true
	return nil
}

// anew says that the topic is another one of the same name.
func (s *Source) anew() error {
	return fmt.Errorf("stream %s: the topic was deleted and made anew: its offsets mean other events now; apply the model under another name: %w", s.config.URL, ps.ErrModelMismatch)
}

// ended reports whether all of a bounded stream was given.
func (r *reader) ended() bool {
	for _, open := range r.open {
		if open {
			return false
		}
	}
	return true
}

// poll takes records from the client. It returns ErrIdle if there are none for a while.
func (r *reader) poll(ctx context.Context) error {
	r.mu.Lock()
	lost := r.lost
	r.mu.Unlock()
	if lost != nil {
		return lost
	}
	waiting, cancel := context.WithTimeout(ctx, idleMax)
	fetches := r.client.PollRecords(waiting, pollRecords)
	cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, failed := range fetches.Errors() {
		switch {
		case errors.Is(failed.Err, context.DeadlineExceeded), errors.Is(failed.Err, context.Canceled):
		default:
			return r.explain(ctx, failed)
		}
	}
	r.records = fetches.Records()
	if len(r.records) > 0 || r.bounded {
		return nil
	}
	return stream.ErrIdle
}

// explain says why a partition cannot be read on.
func (r *reader) explain(ctx context.Context, failed kgo.FetchError) error {
	s, p := r.source, ps.Partition(failed.Partition)
	if !errors.Is(failed.Err, kerr.OffsetOutOfRange) || failed.Partition < 0 {
		return fmt.Errorf("stream %s: partition %d, offset %d of its log: %w: %w", s.config.URL, p, s.log(p, r.next[p]), ps.ErrUnavailable, failed.Err)
	}
	asking, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	return errors.Join(r.checkStarts(asking, []stream.Start{{Partition: p, Offset: r.next[p]}}),
		fmt.Errorf("stream %s: partition %d: %w: %w", s.config.URL, p, ps.ErrModelMismatch, failed.Err))
}

// begin fills in where an event is.
func (r *reader) begin(e *worker.Event, p ps.Partition, o ps.Offset) {
	*e = worker.Event{Partition: p, Offset: o, Row: o, File: r.source.topic, Columns: e.Columns[:0]}
}

// advance goes behind what was given.
func (r *reader) advance(p ps.Partition) {
	r.next[p]++
	if r.bounded && r.next[p] >= r.ends[p] {
		r.open[p] = false
	}
}

// give fills in an event.
func (r *reader) give(e *worker.Event, record *kgo.Record, p ps.Partition, o ps.Offset) {
	r.begin(e, p, o)
	r.advance(p)
	if record.Attrs.IsControl() {
		e.Err = worker.ErrAbsent
		return
	}
	e.Time = record.Timestamp.UnixMilli()
	if e.Err = r.columns(record.Value, e); e.Err != nil {
		e.Err = fmt.Errorf("%w: %w", worker.ErrUnreadable, e.Err)
	}
}

// columns takes the columns from a value.
func (r *reader) columns(value []byte, e *worker.Event) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(value, &object); err != nil || object == nil {
		return errNoObject // what err says would quote the value
	}
	r.text = r.text[:0]
	clear(r.values)
	if r.timed {
		raw, known := object[r.source.config.Stream.Time.Column]
		if !known {
			return errNoTime
		}
		text, err := r.append(raw, false)
		if err != nil {
			return fmt.Errorf("event time: %w", err)
		}
		if e.Time, err = r.source.config.Stream.Time.Milliseconds(text); err != nil {
			return fmt.Errorf("event time: %w", err)
		}
	}
	for name, i := range r.at {
		raw, known := object[name]
		if !known || string(raw) == "null" {
			continue
		}
		text, err := r.append(raw, r.masked[i])
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		r.values[i] = text
	}
	e.Columns = append(e.Columns, r.values...)
	return nil
}

var (
	errNoObject = errors.New("the value is no JSON object")
	errNoTime   = errors.New("there is no event time")
	errNested   = errors.New("it is an object or an array: want a text, a number or true or false")
)

// append appends what a member is as text, masked or not, and returns it. Numbers are as they
// were written, true is 1 and false 0.
func (r *reader) append(raw json.RawMessage, masked bool) (text []byte, err error) {
	var plain []byte
	switch raw[0] {
	case '"':
		if body := raw[1 : len(raw)-1]; bytes.IndexByte(body, '\\') < 0 {
			plain = body
			break
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, errNoObject
		}
		plain = []byte(s)
	case 't':
		plain = []byte("1")
	case 'f':
		plain = []byte("0")
	case '{', '[':
		return nil, errNested
	default:
		plain = raw
	}
	from := len(r.text)
	if masked {
		r.text = r.masker.Append(r.text, plain)
	} else {
		r.text = append(r.text, plain...)
	}
	return r.text[from:len(r.text):len(r.text)], nil
}
