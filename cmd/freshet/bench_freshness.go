package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/audit"
)

// freshnessSpec is a model of clicks. An event is marked by a value of "mark" that no other
// has: from the moment on that it was learned, a score with that mark is another.
const freshnessSpec = `model: freshness
stream: {format: csv, time: {column: ts, unit: ms}, partitions: 8, partition_by: user}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
  - {name: category, column: category}
  - {name: device, column: device}
  - {name: position, column: position}
  - {name: user_x_category, cross: [user, category]}
  - {name: mark, column: mark}
network: {kind: logistic, optimizer: {name: ftrl, learning_rate: 0.05, beta: 1, l1: 0, l2: 0}}
evaluation: {holdout: 0}
training: {in_flight: 512}
`

// benchFreshness are the flags of "bench freshness".
type benchFreshness struct {
	marks    int
	seconds  float64
	rate     float64
	shards   int
	profiles string
}

// freshnessReport is the document of "bench freshness -o json". Keys may be added and do not
// change.
type freshnessReport struct {
	// Events were learned in all; Marks of them were marked, and are in the times.
	Events  int64   `json:"events"`
	Marks   int     `json:"marks"`
	Seconds float64 `json:"seconds"`
	// RateMax is what the machine learned when it was given all events at once, and Offered
	// what it was given while it was measured.
	RateMax float64 `json:"events_per_second_max"`
	Offered float64 `json:"offered_events_per_second"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	// Polls is how often the pod was asked, and PollP50 how long that took: a time is at
	// most one of these too long.
	Polls   int          `json:"polls"`
	PollP50 float64      `json:"poll_p50_ms"`
	Audit   audit.Report `json:"audit"`
}

func newBenchFreshness(t *terminal) *cobra.Command {
	var b benchFreshness
	cmd := &cobra.Command{
		Use:   "freshness",
		Short: "Measure the time from an event to a score that includes it",
		Long: `Starts a parameter-server node and an inference pod (freshet serve), each a
process of its own, learns a stream that grows by the clock, and asks the pod
over gRPC for scores of marked events until each has changed because the event
was learned. The time runs from the event's time, when it could first be read,
to the answer. The stream first comes all at once, to see how many events a
second the machine can learn, and then at half of that, or at --rate.

At the end the audit must be clean; exit code 1 if it is not.`,
		Example: `  freshet bench freshness
  freshet bench freshness --marks 1000 --seconds 5 --rate 20000 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			if err := t.result(report, report.print); err != nil {
				return err
			}
			if !report.Audit.Clean() {
				return errNotClean
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&b.marks, "marks", 20_000, "events to measure")
	flags.Float64Var(&b.seconds, "seconds", 30, "time in which they come")
	flags.Float64Var(&b.rate, "rate", 0, "events per second meanwhile (default: half of what the machine can learn)")
	flags.IntVar(&b.shards, "shards", 64, "shards, a power of two")
	flags.StringVar(&b.profiles, "cpuprofile", "", "directory to write processor profiles of the node and the pod to")
	return cmd
}

func (b *benchFreshness) validate() error {
	switch {
	case b.marks < 1:
		return usageError{fmt.Errorf("--marks %d: want at least 1", b.marks)}
	case !(b.seconds >= 1 && b.seconds <= 3600):
		return usageError{fmt.Errorf("--seconds %v: want 1 to 3600", b.seconds)}
	case !validRate(b.rate):
		return usageError{badRate(b.rate)}
	case b.rate > 0 && b.rate*b.seconds < float64(b.marks):
		return usageError{fmt.Errorf("--rate %v for --seconds %v are fewer events than --marks %d", b.rate, b.seconds, b.marks)}
	}
	if err := ps.ValidShards(b.shards); err != nil {
		return usageError{fmt.Errorf("--shards: %w", err)}
	}
	return nil
}

// freshnessEvents makes the events: marks are multiples of every, from first on.
type freshnessEvents struct{ first, every uint64 }

func (f *freshnessEvents) fill(n uint64, b []byte, ends []int) ([]byte, []int) {
	random := ps.Mix(n)
	user, item := random%100_000, random>>17%20_000
	put := func(prefix byte, v uint64) {
		b = strconv.AppendUint(append(b, prefix), v, 10)
		ends = append(ends, len(b))
	}
	put('u', user)
	put('i', item)
	put('c', item%50)
	put('d', random>>40%4)
	put('p', random>>42%20)
	if f.every > 0 && n >= f.first && (n-f.first)%f.every == 0 {
		put('m', n)
	} else {
		ends = append(ends, len(b))
	}
	clicked := byte('0')
	if ps.Mix(random)%100 < 5+item%10+user%7 {
		clicked = '1'
	}
	b = append(b, clicked)
	return b, append(ends, len(b))
}

func (b *benchFreshness) run(ctx context.Context, t *terminal) (report freshnessReport, err error) {
	if err := b.validate(); err != nil {
		return report, err
	}
	events := &freshnessEvents{}
	l := &liveCluster{t: t, shards: b.shards, doc: freshnessSpec, profiles: b.profiles}
	l.stream = newLiveStream(8, 7, events.fill)
	report.Audit, err = l.run(ctx, func(ctx context.Context) error {
		if report.RateMax, err = l.calibrate(ctx); err != nil {
			return err
		}
		if report.Offered = b.rate; b.rate == 0 {
			report.Offered = report.RateMax / 2
		}
		l.stream.pace(report.Offered, func(uint64) {})
		pod, err := l.startPod(ctx)
		if err != nil {
			return err
		}
		defer pod.Close()
		l.stream.pace(report.Offered, func(first uint64) {
			events.first, events.every = first, max(1, uint64(report.Offered*b.seconds/float64(b.marks)))
		})
		w := &markWatch{benchFreshness: b, live: l.stream, events: events, pod: predictv1.NewPredictionsClient(pod), t: t}
		if err := w.run(ctx); err != nil {
			return err
		}
		report.fill(w)
		return nil
	})
	report.Events = report.Audit.Events
	return report, err
}

// markWatch asks the pod for the scores of marks until they have changed.
type markWatch struct {
	*benchFreshness
	live   *liveStream
	events *freshnessEvents
	pod    predictv1.PredictionsClient
	t      *terminal

	took, polls []time.Duration
	seconds     float64
}

const (
	// marksAtOnce are asked for in one request at most, the oldest first.
	marksAtOnce = 4096
	// markLate is when a mark is given up, and the measurement with it.
	markLate = 30 * time.Second
	// pollEvery rests between two requests.
	pollEvery = time.Millisecond
)

// run returns when all marks were seen.
func (w *markWatch) run(ctx context.Context) error {
	start := time.Now()
	next := w.events.first // the next mark that has not come
	var waiting []uint64
	var shown time.Time
	for len(w.took) < w.marks {
		for now := time.Now(); len(w.took)+len(waiting) < w.marks && !w.live.time(next).After(now); next += w.events.every {
			waiting = append(waiting, next)
		}
		if len(waiting) > 0 {
			if late := time.Since(w.live.time(waiting[0])); late > markLate {
				return fmt.Errorf("event %d has not changed a score after %v: %w", waiting[0], late.Round(time.Second), ps.ErrUnavailable)
			}
			asked := waiting[:min(len(waiting), marksAtOnce)]
			seen, err := w.poll(ctx, asked)
			if err != nil {
				return err
			}
			now, left := time.Now(), waiting[:0]
			for i, mark := range waiting {
				if i < len(seen) && seen[i] {
					w.took = append(w.took, now.Sub(w.live.time(mark)))
				} else {
					left = append(left, mark)
				}
			}
			waiting = left
		}
		if time.Since(shown) > showEvery {
			shown = time.Now()
			w.t.progress("freshness: %s of %s marks seen", thousands(int64(len(w.took))), thousands(int64(w.marks)))
		}
		if err := rest(ctx, pollEvery); err != nil {
			return err
		}
	}
	w.seconds = time.Since(start).Seconds()
	return nil
}

// poll reports of each mark whether its score is another than that of a mark which no event
// has.
func (w *markWatch) poll(ctx context.Context, marks []uint64) ([]bool, error) {
	values := make([]string, 1, len(marks)+1)
	values[0] = "none"
	for _, mark := range marks {
		values = append(values, "m"+strconv.FormatUint(mark, 10))
	}
	start := time.Now()
	bounded, cancel := context.WithTimeout(ctx, adminMax)
	defer cancel()
	answer, err := w.pod.Predict(bounded, &predictv1.PredictRequest{Columns: []*predictv1.Column{
		{Name: "mark", Values: values},
	}})
	if err != nil {
		return nil, fmt.Errorf("ask the pod: %w", err)
	}
	w.polls = append(w.polls, time.Since(start))
	p := answer.GetPredictions()
	if len(p) != len(values) {
		return nil, fmt.Errorf("%d predictions of %d events: %w", len(p), len(values), ps.ErrCorrupt)
	}
	seen := make([]bool, len(marks))
	for i := range seen {
		seen[i] = p[i+1].GetScore() != p[0].GetScore()
	}
	return seen, nil
}

// fill fills in what was measured.
func (r *freshnessReport) fill(w *markWatch) {
	r.Marks, r.Seconds, r.Polls = len(w.took), w.seconds, len(w.polls)
	r.P50, r.P99, r.Max = quantile(w.took, 0.5)*1e3, quantile(w.took, 0.99)*1e3, quantile(w.took, 1)*1e3
	r.PollP50 = quantile(w.polls, 0.5) * 1e3
}

// print writes the report for people.
func (r freshnessReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s of %s events marked, at %s events/s (the machine learns %s/s)\n",
		thousands(int64(r.Marks)), thousands(r.Events), thousands(int64(r.Offered)), thousands(int64(r.RateMax)))
	fmt.Fprintf(w, "  event to a score with it: p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", r.P50, r.P99, r.Max)
	fmt.Fprintf(w, "  asked %s times, p50 %.1f ms each\n", thousands(int64(r.Polls)), r.PollP50)
	printAudit(w, r.Audit)
}
