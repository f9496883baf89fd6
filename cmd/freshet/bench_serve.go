package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/retrieve"
)

const (
	// The columns of bench serve's events: numbers, then categories.
	serveNumbers    = 13
	serveCategories = 26
	// serveRequests are made ready before the clock starts, and sent in turn.
	serveRequests = 64
)

// benchServe are the flags of "bench serve".
type benchServe struct {
	rate       float64
	seconds    float64
	candidates int
	shared     int
	learning   float64
	rollback   time.Duration
	pinned     bool
	shards     int
	profiles   string
}

// serveReport is the document of "bench serve -o json". Keys may be added and do not change.
type serveReport struct {
	Predict  servePredict  `json:"predict"`
	Retrieve serveRetrieve `json:"retrieve"`
	// Candidates are the events of each request; Learned is how many events per second were
	// learned meanwhile.
	Candidates int     `json:"candidates"`
	Shared     int     `json:"shared_columns"` // of 39
	Learned    float64 `json:"learned_events_per_second"`
	Rollbacks  int     `json:"rollbacks"`
	// Resident is the pod's memory before requests were sent, and the most that it had then.
	Resident serveResident `json:"pod_resident_bytes"`
	Audit    audit.Report  `json:"audit"`
}

// serveRetrieve is how long the best of many items take by inner product, in this process
// and on one processor, without the network.
type serveRetrieve struct {
	Items int     `json:"items"`
	Width int     `json:"width"`
	Top   int     `json:"top"`
	Exact float64 `json:"exact_ms"`
}

type serveResident struct {
	Before int64 `json:"before"`
	Most   int64 `json:"most"`
}

type servePredict struct {
	Requests  int     `json:"requests"`
	Failed    int     `json:"failed"`
	PerSecond float64 `json:"requests_per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
}

func newBenchServe(t *terminal) *cobra.Command {
	var b benchServe
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Measure predictions of an inference pod while the model is learned",
		Long: `Starts a parameter-server node and an inference pod (freshet serve), each a
process of its own, learns a DeepFM of 39 columns, 16 factors and layers of 64
and 32 units at a steady rate, and asks the pod over gRPC to score candidates.
Requests are sent at their times, whether or not those before are answered, and
the time of each runs from when it was due. Some columns are the context, which
all candidates of a request share, and others the candidate's; with --shared 0
all differ, which is the most work there can be.

With --rollback-every the model goes back to its newest epoch again and again
meanwhile, so that the pod loads all shards anew beside those that it serves.

At the end the audit must be clean, and no request may have failed; exit code 1
otherwise.`,
		Example: `  freshet bench serve
  freshet bench serve --requests-per-second 100 --candidates 500 -o json
  freshet bench serve --rollback-every 3s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			if err := t.result(report, report.print); err != nil {
				return err
			}
			switch {
			case !report.Audit.Clean():
				return errNotClean
			case report.Predict.Failed > 0:
				return fmt.Errorf("%d of %d requests failed", report.Predict.Failed, report.Predict.Requests)
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&b.rate, "requests-per-second", 200, "requests that are sent each second")
	flags.Float64Var(&b.seconds, "seconds", 30, "time in which they are sent")
	flags.IntVar(&b.candidates, "candidates", 200, "events to score in each request")
	flags.IntVar(&b.shared, "shared", 20, "columns of 39 that the candidates of a request share")
	flags.Float64Var(&b.learning, "rate", 2000, "events per second that are learned meanwhile")
	flags.DurationVar(&b.rollback, "rollback-every", 0, "time between rollbacks to the newest epoch, at least 1s (0: none)")
	flags.BoolVar(&b.pinned, "pin-newest", false, "the pod serves the newest epoch, of which there is one every 5 s, and not what is learned live")
	flags.IntVar(&b.shards, "shards", 64, "shards, a power of two")
	flags.StringVar(&b.profiles, "cpuprofile", "", "directory to write processor profiles of the node and the pod to")
	return cmd
}

func (b *benchServe) validate() error {
	switch {
	case !validRate(b.rate) || b.rate == 0 || !validRate(b.learning) || b.learning == 0:
		return usageError{fmt.Errorf("--requests-per-second %v, --rate %v: want both above 0", b.rate, b.learning)}
	case !(b.seconds >= 1 && b.seconds <= 3600) || b.rate*b.seconds > 1e7:
		return usageError{fmt.Errorf("--seconds %v: want 1 to 3600, and at most ten million requests", b.seconds)}
	case b.candidates < 1 || b.candidates > 10_000:
		return usageError{fmt.Errorf("--candidates %d: want 1 to 10,000", b.candidates)}
	case b.rollback != 0 && b.rollback < time.Second:
		return usageError{fmt.Errorf("--rollback-every %v: want at least 1s, or 0 for none", b.rollback)}
	case b.shared < 0 || b.shared > serveNumbers+serveCategories:
		return usageError{fmt.Errorf("--shared %d: want 0 to %d", b.shared, serveNumbers+serveCategories)}
	}
	if err := ps.ValidShards(b.shards); err != nil {
		return usageError{fmt.Errorf("--shards: %w", err)}
	}
	return nil
}

// serveSpec returns the model's spec.
func serveSpec() string {
	var features strings.Builder
	for i := range serveNumbers {
		fmt.Fprintf(&features, "  - {name: n%d, column: n%d, log: 2}\n", i, i)
	}
	for i := range serveCategories {
		fmt.Fprintf(&features, "  - {name: c%d, column: c%d}\n", i, i)
	}
	return `model: serving
stream: {format: csv, partitions: 8}
label: {column: clicked}
features:
` + features.String() + `network:
  kind: deepfm
  optimizer: {name: ftrl, learning_rate: 0.05, beta: 1, l1: 0, l2: 0}
  factors: 16
  factor_optimizer: {name: adagrad, learning_rate: 0.005, initial_accumulator: 1}
  factor_init: 0.01
  hidden: [64, 32]
  hidden_optimizer: {name: adam, learning_rate: 0.001}
evaluation: {holdout: 0}
training: {in_flight: 512}
`
}

// serveEvent appends the texts of an event's columns to b, and each one's end to ends.
func serveEvent(n uint64, b []byte, ends []int) ([]byte, []int) {
	random := ps.Mix(n)
	for i := range serveNumbers {
		b = strconv.AppendUint(b, ps.Mix(random+uint64(i))%10_000, 10)
		ends = append(ends, len(b))
	}
	for i := range serveCategories {
		// The product of two uniform shares: few values are frequent, and many seldom.
		draw := ps.Mix(random + 100 + uint64(i))
		values := uint64(10) << (i % 14)
		b = strconv.AppendUint(b, (draw>>32%values)*(draw&0xffffffff%values)/values, 36)
		ends = append(ends, len(b))
	}
	clicked := byte('0')
	if random%100 < 20 {
		clicked = '1'
	}
	b = append(b, clicked)
	return b, append(ends, len(b))
}

func (b *benchServe) run(ctx context.Context, t *terminal) (report serveReport, err error) {
	if err := b.validate(); err != nil {
		return report, err
	}
	report.Candidates, report.Shared = b.candidates, b.shared
	l := &liveCluster{t: t, shards: b.shards, doc: serveSpec(), profiles: b.profiles}
	l.stream = newLiveStream(8, serveNumbers+serveCategories+1, serveEvent)
	report.Audit, err = l.run(ctx, func(ctx context.Context) error {
		if _, err := l.calibrate(ctx); err != nil { // so that the model has a size
			return err
		}
		l.stream.pace(b.learning, func(uint64) {})
		if b.pinned {
			if err := l.epoch(ctx); err != nil {
				return err
			}
			l.podArgs = []string{"--pin", "newest"}
		}
		pod, err := l.startPod(ctx)
		if err != nil {
			return err
		}
		defer pod.Close()
		before, err := l.cluster.sample(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		beside, stop := context.WithCancel(ctx)
		var besides errgroup.Group
		besides.Go(func() error { return b.goBack(beside, l.cluster.coordinator, &report.Rollbacks) })
		besides.Go(func() error { return l.watchPod(beside, &report.Resident) })
		err = b.ask(ctx, t, predictv1.NewPredictionsClient(pod), &report.Predict)
		stop()
		if err = errors.Join(err, besides.Wait()); err != nil {
			return err
		}
		after, err := l.cluster.sample(ctx)
		report.Learned = float64(applied(after)-applied(before)) / time.Since(start).Seconds()
		return err
	})
	if err == nil {
		t.progress("retrieving")
		report.Retrieve, err = retrieveBest()
	}
	return report, err
}

// retrieveBest measures exact retrieval over a million items.
func retrieveBest() (r serveRetrieve, err error) {
	r = serveRetrieve{Items: 1_000_000, Width: 32, Top: 100}
	items, err := retrieve.New(r.Width)
	if err != nil {
		return r, err
	}
	vector := func(n int) []float32 {
		v := make([]float32, r.Width)
		for i := range v {
			v[i] = float32(int32(ps.Mix(uint64(n*r.Width+i)))) / (1 << 31)
		}
		return v
	}
	for i := range r.Items {
		if err := items.Update(i, vector(i)); err != nil {
			return r, err
		}
	}
	const queries = 31
	var took []time.Duration
	for i := range queries {
		query, start := vector(r.Items+i), time.Now()
		best, err := items.Top(query, r.Top, nil, nil)
		if err != nil || len(best) != r.Top {
			return r, fmt.Errorf("%d of the best %d items: %w", len(best), r.Top, errors.Join(ps.ErrCorrupt, err))
		}
		took = append(took, time.Since(start))
	}
	r.Exact = quantile(took, 0.5) * 1e3
	return r, nil
}

// goBack sets the model back to its newest epoch, time and again, until ctx ends.
func (b *benchServe) goBack(ctx context.Context, coordinator string, times *int) error {
	if b.rollback == 0 {
		return nil
	}
	a, err := dialAdmin(coordinator)
	if err != nil {
		return err
	}
	defer a.Close()
	for rest(ctx, b.rollback) == nil {
		list, err := a.Epochs(ctx, "")
		if err == nil && len(list.Epochs) == 0 {
			continue // there will be one
		}
		if err == nil {
			_, err = a.Restore(ctx, list.Model, list.Epochs[0].Epoch)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ps.ErrConflict): // with an epoch that is taken just now
		case err != nil:
			return err
		default:
			*times++
		}
	}
	return nil
}

// request returns a request for scores of candidates that nobody has seen.
func (b *benchServe) request(number int) *predictv1.PredictRequest {
	r := &predictv1.PredictRequest{}
	for i := range serveNumbers {
		r.Columns = append(r.Columns, &predictv1.Column{Name: fmt.Sprintf("n%d", i)})
	}
	for i := range serveCategories {
		r.Columns = append(r.Columns, &predictv1.Column{Name: fmt.Sprintf("c%d", i)})
	}
	for k := range b.candidates {
		text, ends := serveEvent(uint64(1)<<40+uint64(number*b.candidates+k), nil, nil)
		from := 0
		for i, column := range r.Columns {
			// Of the columns that are shared, spread over all, the first candidate's value.
			if k == 0 || (i+1)*b.shared/len(r.Columns) == i*b.shared/len(r.Columns) {
				column.Values = append(column.Values, string(text[from:ends[i]]))
			}
			from = ends[i]
		}
	}
	return r
}

// ask sends the requests, each at its time, and fills in how long they took.
func (b *benchServe) ask(ctx context.Context, t *terminal, pod predictv1.PredictionsClient, p *servePredict) error {
	requests := make([]*predictv1.PredictRequest, serveRequests)
	for i := range requests {
		requests[i] = b.request(i)
	}
	p.Requests = int(b.rate * b.seconds)
	took, failed := make([]time.Duration, p.Requests), make([]error, p.Requests)
	var sent sync.WaitGroup
	start := time.Now()
	for i := range p.Requests {
		due := start.Add(time.Duration(float64(i) / b.rate * float64(time.Second)))
		if err := rest(ctx, time.Until(due)); err != nil {
			return err
		}
		sent.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, adminMax)
			defer cancel()
			answer, err := pod.Predict(bounded, requests[i%len(requests)])
			if err == nil && len(answer.GetPredictions()) != b.candidates {
				err = fmt.Errorf("%d predictions of %d events: %w", len(answer.GetPredictions()), b.candidates, ps.ErrCorrupt)
			}
			took[i], failed[i] = time.Since(due), err
		})
		if i%int(max(1, b.rate)) == 0 {
			t.progress("serving: %s of %s requests", thousands(int64(i)), thousands(int64(p.Requests)))
		}
	}
	sent.Wait()
	p.PerSecond = float64(p.Requests) / time.Since(start).Seconds()
	for _, err := range failed {
		if err != nil {
			if p.Failed++; p.Failed == 1 {
				t.note("the first request that failed: %v", err)
			}
		}
	}
	p.P50, p.P99, p.Max = quantile(took, 0.5)*1e3, quantile(took, 0.99)*1e3, quantile(took, 1)*1e3
	return ctx.Err()
}

// print writes the report for people.
func (r serveReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s requests of %s with %d of 39 columns shared, %.0f a second, while %s events/s were learned\n",
		thousands(int64(r.Predict.Requests)), count(r.Candidates, "candidate"), r.Shared, r.Predict.PerSecond, thousands(int64(r.Learned)))
	fmt.Fprintf(w, "  predict: p50 %.2f ms, p99 %.2f ms, longest %.2f ms; %d failed\n", r.Predict.P50, r.Predict.P99, r.Predict.Max, r.Predict.Failed)
	if r.Rollbacks > 0 {
		fmt.Fprintf(w, "  the model went back %d times\n", r.Rollbacks)
	}
	fmt.Fprintf(w, "  retrieve: the best %d of %s items of %d numbers in %.2f ms, exactly\n",
		r.Retrieve.Top, thousands(int64(r.Retrieve.Items)), r.Retrieve.Width, r.Retrieve.Exact)
	fmt.Fprintf(w, "  memory of the pod: %.0f MB before, %.0f MB at most\n", float64(r.Resident.Before)/1e6, float64(r.Resident.Most)/1e6)
	printAudit(w, r.Audit)
}
