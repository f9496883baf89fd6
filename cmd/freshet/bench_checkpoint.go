package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/route"
)

// benchCheckpoint is the work of "bench checkpoint".
type benchCheckpoint struct {
	benchStore
	// Touched is the share of the rows that change before the incremental epoch.
	Touched float64 `json:"touched"`
	Rounds  int     `json:"rounds"`
	bucket  string
}

// epochCost is what an epoch took of an otherwise idle node.
type epochCost struct {
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

// incrementCost is what an epoch took after some rows had changed.
type incrementCost struct {
	epochCost
	TouchedShare float64 `json:"touched_share"`
	BytesShare   float64 `json:"bytes_share"` // of the full epoch's
}

// checkpointReport is the document of "bench checkpoint -o json". Keys may be added
// and do not change.
type checkpointReport struct {
	benchCheckpoint
	Full        epochCost     `json:"full"`
	Incremental incrementCost `json:"incremental"`
	// TrainingRateRatio and PushP99Ratio are the medians over all rounds of what was
	// measured while a full epoch was taken, by the mean of before and after.
	TrainingRateRatio   float64 `json:"training_rate_ratio"`
	TrainingCoresBefore float64 `json:"training_cores_before"`
	PushP99Ratio        float64 `json:"push_p99_ratio"`
	// RowsPerSecondBefore and PushP99Before are medians, of training without an epoch.
	RowsPerSecondBefore float64 `json:"rows_per_second_before"`
	PushP99Before       float64 `json:"push_p99_us_before"`
	// EpochSecondsTraining is the median time of a full epoch while training went on.
	EpochSecondsTraining float64 `json:"epoch_seconds_training"`
}

func newBenchCheckpoint(t *terminal) *cobra.Command {
	var b benchCheckpoint
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Measure what checkpoint epochs cost, and cost training",
		Long: `Starts a parameter-server node in a process of its own, fills a table, and takes
epochs of it: a full one, then an incremental one after some of the rows have
changed, both with the node otherwise idle; cpu_seconds are the node's.

Then it trains, in rounds: without an epoch, while a full epoch is taken, and
without again. Training pulls the rows of random examples, computes the
gradients of a factorization machine, and pushes them, with as many calls under
way as --in-flight says. The ratios are medians over the rounds.

Epochs are written to a temporary directory that is removed at the end, or to
--checkpoints.`,
		Example: `  freshet bench checkpoint
  freshet bench checkpoint --rows 1000000 --checkpoints file:///data -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			return t.result(report, report.print)
		},
	}
	flags := cmd.Flags()
	b.addFlags(flags, 7_500_000, 4096, 8) // more than 1 GB, and calls enough to keep all processors busy
	flags.Float64Var(&b.Seconds, "seconds", 5, "how long to train without an epoch, each time")
	flags.Float64Var(&b.Touched, "touched", 0.01, "share of the rows that change before the incremental epoch")
	flags.IntVar(&b.Rounds, "rounds", 3, "full epochs to take while training")
	flags.StringVar(&b.bucket, "checkpoints", "", "URL of where to write epochs, such as file:///dir (default: a temporary directory)")
	return cmd
}

func (b *benchCheckpoint) validate() error {
	switch {
	case !(b.Touched > 0 && b.Touched <= 1):
		return usageError{fmt.Errorf("--touched %v: want a share above 0, at most 1", b.Touched)}
	case b.Rounds < 1:
		return usageError{fmt.Errorf("--rounds %d: want at least 1", b.Rounds)}
	}
	return nil
}

// print writes the report for people.
func (r checkpointReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s rows × %d floats, %s, %d shards\n", thousands(int64(r.Rows)), r.Width, r.Optimizer, r.Shards)
	fmt.Fprintf(w, "  full         %7.3f GB in %6.2f s, %6.3f CPU-s: %.2f GB per CPU-second\n",
		float64(r.Full.Bytes)/1e9, r.Full.Seconds, r.Full.CPUSeconds, float64(r.Full.Bytes)/1e9/r.Full.CPUSeconds)
	fmt.Fprintf(w, "  incremental  %7.3f GB in %6.2f s, %6.3f CPU-s: %.2f %% of the bytes for %.2f %% of the rows\n",
		float64(r.Incremental.Bytes)/1e9, r.Incremental.Seconds, r.Incremental.CPUSeconds, 100*r.Incremental.BytesShare, 100*r.Incremental.TouchedShare)
	fmt.Fprintf(w, "  training     %.2f M rows/s on %.2f cores, push p99 %.1f ms\n", r.RowsPerSecondBefore/1e6, r.TrainingCoresBefore, r.PushP99Before/1e3)
	fmt.Fprintf(w, "  with a full epoch of %.1f s: %.1f %% of the rate, push p99 × %.2f (medians of %d)\n",
		r.EpochSecondsTraining, 100*r.TrainingRateRatio, r.PushP99Ratio, r.Rounds)
}

func (b benchCheckpoint) run(ctx context.Context, t *terminal) (report checkpointReport, err error) {
	model, err := b.model()
	if err == nil {
		err = b.validate()
	}
	if err != nil {
		return report, err
	}
	report.benchCheckpoint = b
	if b.bucket == "" {
		dir, err := os.MkdirTemp("", "freshet-bench-")
		if err != nil {
			return report, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // a temporary one: what is left does no harm
		if b.bucket, err = fileURL(dir); err != nil {
			return report, err
		}
	}
	// The bucket first: it is the cheapest thing to be wrong.
	bucket, err := checkpoint.OpenBucket(ctx, b.bucket)
	if err == nil {
		err = bucket.Close()
	}
	if err != nil {
		return report, fmt.Errorf("--checkpoints: %w", err)
	}
	server, err := startBenchNode(ctx, b.benchStore, 0)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	routes := staticRoutes(b.Shards, server.address)
	c, err := client.Dial(ctx, client.Config{Routes: routes, Logger: t.logger})
	if err != nil {
		return report, err
	}
	defer c.Close()
	store := &benchStoreOfEpochs{model: model, routes: routes.routes}
	keeper, err := epochs.Open(ctx, epochs.Config{Store: store, Nodes: c, Bucket: b.bucket, Logger: t.logger})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, keeper.Close()) }()
	m := &checkpointMeasurement{
		benchCheckpoint: b, t: t, server: server, keeper: keeper, store: store,
		pusher: &benchPusher{b: b.benchStore, c: c, model: model, sent: make([]ps.Offset, b.Shards)},
	}
	if err := m.costs(ctx, &report); err != nil {
		return report, err
	}
	return report, m.train(ctx, &report)
}

// checkpointMeasurement is a bench checkpoint under way.
type checkpointMeasurement struct {
	benchCheckpoint
	t      *terminal
	server *benchServer
	keeper *epochs.Keeper
	store  *benchStoreOfEpochs

	mu     sync.Mutex   // pushes go out one after the other
	pusher *benchPusher // guarded by mu
}

// costs measures a full and an incremental epoch of an idle node.
func (m *checkpointMeasurement) costs(ctx context.Context, report *checkpointReport) (err error) {
	if err := m.pusher.fill(ctx, m.t); err != nil {
		return err
	}
	m.t.progress("taking a full epoch")
	if report.Full, err = m.epoch(ctx); err != nil {
		return err
	}
	touched := max(1, int(m.Touched*float64(m.Rows)))
	if err := m.pusher.pushRows(ctx, touched, func(int) {}); err != nil {
		return err
	}
	m.t.progress("taking an incremental epoch")
	report.Incremental.TouchedShare = float64(touched) / float64(m.Rows)
	if report.Incremental.epochCost, err = m.epoch(ctx); err != nil {
		return err
	}
	report.Incremental.BytesShare = float64(report.Incremental.Bytes) / float64(report.Full.Bytes)
	return nil
}

// epoch takes an epoch.
func (m *checkpointMeasurement) epoch(ctx context.Context) (cost epochCost, err error) {
	before, err := m.server.usage()
	if err != nil {
		return cost, err
	}
	start := time.Now()
	result, err := m.keeper.Take(ctx, m.store.model.Name)
	if err != nil {
		return cost, err
	}
	if result.ShardsKept > 0 {
		return cost, fmt.Errorf("%d shards are not in the epoch: run it again with --log-level warn", result.ShardsKept)
	}
	cost = epochCost{Bytes: result.Bytes, Seconds: time.Since(start).Seconds()}
	after, err := m.server.usage()
	cost.CPUSeconds = after.CPU - before.CPU
	return cost, err
}

// train measures what full epochs cost training.
func (m *checkpointMeasurement) train(ctx context.Context, report *checkpointReport) error {
	forSeconds := func(ctx context.Context) error {
		select {
		case <-time.After(time.Duration(m.Seconds * float64(time.Second))):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var quiet, taking []trainingRate
	var took []float64
	for round := range m.Rounds + 1 {
		m.t.progress("training for %.0f s without an epoch", m.Seconds)
		rate, err := m.trainWhile(ctx, forSeconds)
		if err != nil {
			return err
		}
		quiet = append(quiet, rate)
		if round == m.Rounds {
			break
		}
		m.t.progress("training while a full epoch is taken: %d of %d", round+1, m.Rounds)
		m.store.forget()
		rate, err = m.trainWhile(ctx, func(ctx context.Context) error {
			cost, err := m.epoch(ctx)
			took = append(took, cost.Seconds)
			return err
		})
		if err != nil {
			return err
		}
		taking = append(taking, rate)
	}
	var rates, slowness []float64
	for i, during := range taking {
		rates = append(rates, 2*during.rows/(quiet[i].rows+quiet[i+1].rows))
		slowness = append(slowness, 2*during.p99/(quiet[i].p99+quiet[i+1].p99))
	}
	report.TrainingRateRatio, report.PushP99Ratio = median(rates), median(slowness)
	report.EpochSecondsTraining = median(took)
	report.TrainingCoresBefore = median(each(quiet, func(r trainingRate) float64 { return r.cores }))
	report.RowsPerSecondBefore = median(each(quiet, func(r trainingRate) float64 { return r.rows }))
	report.PushP99Before = median(each(quiet, func(r trainingRate) float64 { return r.p99 }))
	return nil
}

// each returns a figure of each rate.
func each(rates []trainingRate, figure func(trainingRate) float64) []float64 {
	var figures []float64
	for _, r := range rates {
		figures = append(figures, figure(r))
	}
	return figures
}

// median returns the middle of a list, or the mean of the two in the middle.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// trainingRate is what training came to in some time.
type trainingRate struct {
	rows  float64 // pulled, learned and pushed per second
	cores float64 // busy, of both processes
	p99   float64 // of a push and its answer, in microseconds
}

// trainWhile trains until op has returned.
func (m *checkpointMeasurement) trainWhile(ctx context.Context, op func(context.Context) error) (rate trainingRate, err error) {
	nodeBefore, err := m.server.usage()
	if err != nil {
		return rate, err
	}
	ownBefore, err := ownUsage()
	if err != nil {
		return rate, err
	}
	start := time.Now()
	times := make([][]time.Duration, m.InFlight)
	g, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	for i := range m.InFlight {
		g.Go(func() (err error) {
			times[i], err = m.trainer(i).run(ctx, done)
			return err
		})
	}
	g.Go(func() error {
		defer close(done)
		return op(ctx)
	})
	if err := g.Wait(); err != nil {
		return rate, err
	}
	took := time.Since(start).Seconds()
	nodeAfter, err := m.server.usage()
	if err != nil {
		return rate, err
	}
	ownAfter, err := ownUsage()
	if err != nil {
		return rate, err
	}
	pushes := slices.Concat(times...)
	if len(pushes) == 0 {
		return rate, errors.New("nothing was learned in the time: give more --seconds")
	}
	slices.Sort(pushes)
	return trainingRate{
		rows:  float64(len(pushes)*m.Keys) / took,
		cores: (nodeAfter.CPU - nodeBefore.CPU + ownAfter.CPU - ownBefore.CPU) / took,
		p99:   float64(pushes[int(0.99*float64(len(pushes)-1))].Nanoseconds()) / 1e3,
	}, nil
}

// featuresPerExample is how many rows an example of the training has.
const featuresPerExample = 16

// benchTrainer learns a factorization machine from random examples: a call's keys are
// its examples' features, one after the other.
type benchTrainer struct {
	m         *checkpointMeasurement
	random    *rand.Rand
	keys      []ps.Key
	group     ps.Group
	read      []ps.Read
	gradients []float32 // (len(group.Keys), width)
	sum       []float32 // (width)
}

func (m *checkpointMeasurement) trainer(seed int) *benchTrainer {
	l := &benchTrainer{
		m: m, random: rand.New(rand.NewPCG(3, uint64(seed))),
		keys: make([]ps.Key, m.Keys), gradients: make([]float32, m.Keys*m.Width), sum: make([]float32, m.Width),
	}
	l.read = []ps.Read{{RowBytes: 4 * m.Width, Group: &l.group}}
	return l
}

// run learns until done is closed and returns the time of each push.
func (l *benchTrainer) run(ctx context.Context, done <-chan struct{}) (times []time.Duration, err error) {
	p := l.m.pusher
	for {
		select {
		case <-done:
			return times, nil
		case <-ctx.Done():
			return times, ctx.Err()
		default:
		}
		for k := range l.keys {
			l.keys[k] = rowKey(l.random.IntN(l.m.Rows))
		}
		l.group.Fill(l.keys, l.m.Shards)
		if err := p.c.Pull(ctx, p.model.Name, p.model.Layout.Hash(), l.read); err != nil {
			return times, err
		}
		l.learn()
		l.m.mu.Lock()
		start := time.Now()
		wait, err := p.send(ctx, &l.group, l.gradients)
		l.m.mu.Unlock()
		if err == nil {
			err = wait(ctx)
		}
		if err != nil {
			return times, err
		}
		times = append(times, time.Since(start))
	}
}

// learn sets the gradients of the pulled rows: of the log loss of examples scored by
// the sum of their rows' pairwise products (Rendle 2010, Factorization Machines, lemma
// 3.1), with labels that are drawn.
func (l *benchTrainer) learn() {
	width := l.m.Width
	values := ps.View[float32](l.read[0].Values)
	row := func(of []float32, k int) []float32 {
		at := int(l.group.Index[k]) * width
		return of[at : at+width]
	}
	clear(l.gradients)
	for from := 0; from < len(l.keys); from += featuresPerExample {
		to := min(from+featuresPerExample, len(l.keys))
		clear(l.sum)
		var squares float32
		for k := from; k < to; k++ {
			for i, v := range row(values, k) {
				l.sum[i] += v
				squares += v * v
			}
		}
		score := -squares
		for _, s := range l.sum {
			score += s * s
		}
		slope := float32(1/(1+math.Exp(-float64(score/2)))) - float32(l.random.IntN(2))
		for k := from; k < to; k++ {
			gradient := row(l.gradients, k)
			for i, v := range row(values, k) {
				gradient[i] += slope * (l.sum[i] - v)
			}
		}
	}
}

// benchStoreOfEpochs is a cluster's store with one model, whose shards stay where they
// are.
type benchStoreOfEpochs struct {
	model  ps.Model
	routes route.Map

	mu    sync.Mutex
	epoch coordinator.Epoch // guarded by mu
}

// forget makes the next epoch a full one, which needs nothing written before.
func (s *benchStoreOfEpochs) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = coordinator.Epoch{Revision: s.epoch.Revision + 1}
}

func (s *benchStoreOfEpochs) View(context.Context) (coordinator.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return coordinator.View{
		Shards: s.routes.Shards, Models: []ps.Model{s.model}, Epochs: map[string]coordinator.Epoch{s.model.Name: s.epoch},
	}, nil
}

func (s *benchStoreOfEpochs) CommitEpoch(_ context.Context, _ string, next checkpoint.Epoch, expected, _ int64) (coordinator.Epoch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch.Revision != expected {
		return coordinator.Epoch{}, fmt.Errorf("another epoch came in between: %w", ps.ErrConflict)
	}
	s.epoch = coordinator.Epoch{Epoch: next, Revision: expected + 1}
	return s.epoch, nil
}

// BeginLineage is refused: nothing asks for it.
func (s *benchStoreOfEpochs) BeginLineage(context.Context, string, checkpoint.Epoch, []route.Shard, int64, int64) error {
	return fmt.Errorf("the model of bench checkpoint has one lineage: %w", ps.ErrInvalid)
}
