package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
)

const (
	// liveIdle is how long a reader of a live stream waits before it says that it waits.
	liveIdle = 2 * time.Millisecond
	// liveTurn is how long it waits at least: for a thousandth of a second events are one
	// wake-up, not each one of its own.
	liveTurn = 500 * time.Microsecond
)

// liveStream is a behaviour stream that grows by the clock, for measurements: event n comes
// at a time that follows from the rates that were set, and then is what it is for good, a
// function of n. So it can be read again. It is safe for concurrent use.
type liveStream struct {
	partitions int
	columns    int
	// fill appends the texts of event n's columns to b, and each one's end to ends.
	fill func(n uint64, b []byte, ends []int) ([]byte, []int)

	mu sync.Mutex
	// Guarded by mu.
	segments []liveSegment // at least one
	read     uint64        // behind the furthest event that was read
	end      uint64        // 0 until it is known
}

// liveSegment is a run of events that come at one rate.
type liveSegment struct {
	first uint64
	at    time.Time // when the first one comes
	rate  float64   // events per second; 0: they are all there
}

// newLiveStream returns a stream whose events are all there, until pace is called.
func newLiveStream(partitions, columns int, fill func(n uint64, b []byte, ends []int) ([]byte, []int)) *liveStream {
	return &liveStream{partitions: partitions, columns: columns, fill: fill, segments: []liveSegment{{at: time.Now()}}}
}

// pace makes the events that nobody has read yet come at a rate from now on. Before anybody
// reads one it calls then with the first of them, which may change what fill makes of it and
// those behind it.
func (l *liveStream) pace(rate float64, then func(first uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, liveSegment{first: l.read, at: time.Now(), rate: rate})
	then(l.read)
}

// time returns when event n comes.
func (l *liveStream) time(n uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timeLocked(n)
}

func (l *liveStream) timeLocked(n uint64) time.Time {
	i := len(l.segments) - 1
	for i > 0 && n < l.segments[i].first {
		i--
	}
	s := l.segments[i]
	if s.rate == 0 {
		return s.at
	}
	return s.at.Add(time.Duration(float64(n-s.first) / s.rate * float64(time.Second)))
}

// finish ends the stream behind the events that have come by now.
func (l *liveStream) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.segments[len(l.segments)-1]
	come := max(l.read, s.first+uint64(time.Since(s.at).Seconds()*s.rate))
	each := uint64(l.partitions)
	l.end = (come + each) / each * each
}

// take returns when event n comes, and notes that it is read if that is by now.
func (l *liveStream) take(n uint64, now time.Time) (at time.Time, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end > 0 && n >= l.end {
		return at, true
	}
	if at = l.timeLocked(n); !at.After(now) {
		l.read = max(l.read, n+1)
	}
	return at, false
}

// Identity implements stream.Source.
func (l *liveStream) Identity() ps.StreamID { return "live:bench" }

// Partitions implements stream.Source.
func (l *liveStream) Partitions() int { return l.partitions }

// Size implements stream.Source.
func (l *liveStream) Size() int64 { return 0 }

// Close implements stream.Source.
func (l *liveStream) Close() error { return nil }

// Read implements stream.Source.
func (l *liveStream) Read(_ context.Context, starts []stream.Start) (stream.Reader, error) {
	r := &liveReader{stream: l}
	for _, start := range starts {
		r.next = append(r.next, uint64(start.Offset)*uint64(l.partitions)+uint64(start.Partition))
	}
	return r, nil
}

// liveReader reads some partitions: event n is offset n / partitions of partition
// n modulo partitions.
type liveReader struct {
	stream *liveStream
	next   []uint64 // by partition: the next event
	text   []byte
	ends   []int
	known  time.Time // up to when events are known to have come
	idle   bool      // the last answer was that nothing is there
}

// Next implements stream.Reader.
func (r *liveReader) Next(ctx context.Context, e *worker.Event) error {
	first := 0
	for i, n := range r.next {
		if n < r.next[first] {
			first = i
		}
	}
	n := r.next[first]
	at, ended := r.stream.take(n, r.known)
	if !ended && at.After(r.known) {
		if r.idle {
			if err := rest(ctx, max(min(time.Until(at), liveIdle), liveTurn)); err != nil {
				return err
			}
		}
		r.known = time.Now()
		if at, ended = r.stream.take(n, r.known); !ended && at.After(r.known) {
			r.idle = true
			return stream.ErrIdle
		}
	}
	r.idle = false
	if ended {
		return io.EOF
	}
	r.next[first] += uint64(r.stream.partitions)
	offset := ps.Offset(n / uint64(r.stream.partitions))
	*e = worker.Event{
		Partition: ps.Partition(n % uint64(r.stream.partitions)), Offset: offset, Row: offset,
		Time: at.UnixMilli(), Columns: e.Columns[:0],
	}
	r.text, r.ends = r.stream.fill(n, r.text[:0], r.ends[:0])
	from := 0
	for _, to := range r.ends {
		e.Columns = append(e.Columns, r.text[from:to:to])
		from = to
	}
	if len(e.Columns) != r.stream.columns {
		panic(fmt.Sprintf("live stream: %d columns, want %d", len(e.Columns), r.stream.columns))
	}
	return nil
}

// End implements stream.Reader.
func (r *liveReader) End(ps.Partition) (ps.Offset, bool) {
	r.stream.mu.Lock()
	defer r.stream.mu.Unlock()
	return ps.Offset(r.stream.end / uint64(r.stream.partitions)), r.stream.end > 0
}

// Close implements stream.Reader.
func (r *liveReader) Close() error { return nil }

// liveCluster is a node and a pod, each a process, and a worker in this process that learns
// a live stream.
type liveCluster struct {
	t        *terminal
	shards   int
	doc      string
	profiles string
	stream   *liveStream

	cluster *recoveryCluster
	group   *errgroup.Group
	pod     *child   // nil before startPod
	podArgs []string // more of its arguments
}

// epoch waits until there is one.
func (l *liveCluster) epoch(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	for {
		e, err := l.cluster.store.Epoch(bounded, l.cluster.job.model.Name)
		if err != nil || e.Number > 0 {
			return err
		}
		if err := rest(bounded, lookEvery); err != nil {
			return err
		}
	}
}

// watchPod notes how much memory the pod takes, until ctx ends.
func (l *liveCluster) watchPod(ctx context.Context, r *serveResident) error {
	for {
		l.pod.mu.Lock()
		process := l.pod.process
		l.pod.mu.Unlock()
		if process != nil {
			if now := residentBytes(process.Pid); r.Before == 0 {
				r.Before, r.Most = now, now
			} else {
				r.Most = max(r.Most, now)
			}
		}
		if rest(ctx, showEvery/10) != nil {
			return nil
		}
	}
}

// run starts the cluster without a pod, calls body while it learns, ends the stream and
// audits what was learned.
func (l *liveCluster) run(ctx context.Context, body func(context.Context) error) (report audit.Report, err error) {
	j := &job{doc: []byte(l.doc), source: l.stream}
	if j.spec, err = spec.Parse("bench", j.doc); err != nil {
		return report, err
	}
	j.model = ps.Model{
		Name: j.spec.Model, Version: 1, Layout: j.spec.Layout(eval.Tables()), Stream: l.stream.Identity(), Partitions: l.stream.Partitions(),
	}
	dir, err := openDirectory("")
	if err != nil {
		return report, err
	}
	defer func() {
		var keep []string
		if err != nil {
			keep = []string{"cluster"}
			l.t.note("what is left, the members' logs among it, is in %s", dir.path)
		}
		err = errors.Join(err, dir.end(keep...))
	}()
	l.cluster = &recoveryCluster{terminal: l.t, dir: dir.file("cluster"), nodes: 1, workers: 1, shards: l.shards, every: 5 * time.Second, job: j, profiles: l.profiles}
	err = l.cluster.live(ctx, func(ctx context.Context, g *errgroup.Group, _ childHome) error {
		l.group = g
		if _, err := l.cluster.sample(ctx); err != nil { // until all shards are served
			return err
		}
		g.Go(func() error {
			return runWorker(ctx, workerSettings{store: l.cluster.store, name: workerName(0), model: j.spec.Model, source: l.stream, logger: l.t.logger})
		})
		if err := body(ctx); err != nil {
			return err
		}
		l.stream.finish()
		if err := l.learned(ctx); err != nil {
			return err
		}
		return l.cluster.audit(ctx, &report)
	})
	return report, err
}

// learned waits until all of the stream is.
func (l *liveCluster) learned(ctx context.Context) error {
	l.stream.mu.Lock()
	end := ps.Offset(l.stream.end / uint64(l.stream.partitions))
	l.stream.mu.Unlock()
	return l.cluster.until(ctx, func(progress []ps.ShardProgress) bool {
		return !slices.ContainsFunc(progress, func(s ps.ShardProgress) bool {
			return slices.ContainsFunc(s.Partitions, func(p ps.Progress) bool { return p.Applied < end })
		})
	})
}

const (
	// calibrateFor is how long the machine learns as fast as it can, after calibrateWarm.
	calibrateFor  = 5 * time.Second
	calibrateWarm = time.Second
)

// calibrate returns how many events a second are learned of a stream that is all there.
func (l *liveCluster) calibrate(ctx context.Context) (rate float64, err error) {
	l.t.progress("how much can the machine learn?")
	var before int64
	var began time.Time
	for _, wait := range []time.Duration{calibrateWarm, calibrateFor} {
		if err := rest(ctx, wait); err != nil {
			return 0, err
		}
		progress, err := l.cluster.sample(ctx)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		rate = float64(applied(progress)-before) / now.Sub(began).Seconds()
		before, began = applied(progress), now
	}
	return rate, nil
}

// startPod starts an inference pod and returns a connection to it once it answers.
func (l *liveCluster) startPod(ctx context.Context) (*grpc.ClientConn, error) {
	free, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return nil, err
	}
	pod := &child{
		name: "pod", log: l.cluster.file("pod.log"),
		args: []string{"serve", "--coordinator", l.cluster.coordinator, "--listen", address, "--http", ""},
	}
	pod.args = append(pod.args, l.podArgs...)
	if l.profiles != "" {
		pod.args = append(pod.args, "--cpuprofile", filepath.Join(l.profiles, "pod.pprof"))
	}
	l.pod = pod
	l.group.Go(func() error { return pod.run(ctx) })
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	columns := []*predictv1.Column{{Name: l.cluster.job.spec.Columns()[0], Values: []string{""}}}
	for {
		_, err := predictv1.NewPredictionsClient(conn).Predict(bounded, &predictv1.PredictRequest{Columns: columns}, grpc.WaitForReady(true))
		if err == nil {
			return conn, nil
		}
		if rest(bounded, lookEvery) != nil {
			return nil, errors.Join(fmt.Errorf("the pod does not serve: %w; its log is %s", err, pod.log), conn.Close())
		}
	}
}
