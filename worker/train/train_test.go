package train_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
	"github.com/freshet-ml/freshet/worker/train"
)

var seed = flag.Uint64("seed", 0, "seed of the faults (0: draw one)")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shards = 8

const testSpec = `
model: test
stream: {format: csv, partitions: 3, partition_by: user}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
  - {name: user_x_item, cross: [user, item]}
evaluation: {holdout: 0.1, window: 100}
training: {in_flight: 64, audit_table: true}
`

// fixture is a model, its stream in a file, and shards to learn it.
type fixture struct {
	spec   *spec.Spec
	source stream.Source
	model  ps.Model
	params *memory
	events int
	bad    int // unusable rows
}

// newFixture writes a stream of n events of which every 97th cannot be used.
func newFixture(t *testing.T, doc string, n int) *fixture {
	t.Helper()
	s, err := spec.Parse("test.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{spec: s, events: n}
	var b strings.Builder
	b.WriteString("user,item,clicked\n")
	for i := range n {
		if i%97 == 96 {
			f.bad++
			b.WriteString("only-one-field\n")
			continue
		}
		fmt.Fprintf(&b, "u%d,i%d,%d\n", ps.Mix(uint64(i))%50, ps.Mix(uint64(i)+1e6)%20, ps.Mix(uint64(i)+2e6)%4/3)
	}
	path := filepath.Join(t.TempDir(), "events.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f.source, err = files.Open(t.Context(), files.Config{URL: "file://" + path, Stream: s.Stream, Columns: feature.Columns(s)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.source.Close() })
	f.model = ps.Model{
		Name: s.Model, Version: 1, Layout: s.Layout(eval.Tables()),
		Stream: f.source.Identity(), Partitions: f.source.Partitions(),
	}
	f.params = newMemory(t, f.model)
	return f
}

// memory is the parameter servers without a network: real shards behind a lock, and
// faults if a test wants them.
type memory struct {
	model ps.Model

	mu     sync.Mutex
	shards []*shard.Shard
	fence  ps.Fence
	// fault is asked before every push to a shard.
	fault func(s ps.ShardID) fault
	told  int // faults that bit

	number uint64                           // of the last pull
	pulled map[uint64]map[ps.TableID]pulled // by number
}

// pulled are the keys that were pulled of a table.
type pulled struct{ group ps.Group }

type fault uint8

const (
	none       fault = iota
	lost             // the push never arrives
	answerLost       // it is applied, and nobody hears of it
	restarted        // the shard loses its memory first
)

func newMemory(t *testing.T, model ps.Model) *memory {
	t.Helper()
	m := &memory{model: model, pulled: make(map[uint64]map[ps.TableID]pulled), shards: make([]*shard.Shard, shards), fault: func(ps.ShardID) fault { return none }}
	for s := range m.shards {
		m.restart(ps.ShardID(s))
	}
	return m
}

func (m *memory) restart(s ps.ShardID) {
	m.fence++
	opened, err := shard.New(shard.Config{Model: m.model, ID: s, Shards: shards, Fence: m.fence})
	if err != nil {
		panic(err)
	}
	m.shards[s] = opened
}

func (m *memory) Pull(_ context.Context, _ string, layout uint64, reads []ps.Read) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if layout != m.model.Layout.Hash() {
		return ps.ErrModelMismatch
	}
	for i := range reads {
		r := &reads[i]
		r.Values = make([]byte, len(r.Group.Keys)*r.RowBytes)
		for s, held := range m.shards {
			from, to := r.Group.Shard(ps.ShardID(s))
			if err := held.Gather(r.Table, r.Group.Keys[from:to], r.Values[from*r.RowBytes:to*r.RowBytes], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *memory) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, m, u, model, layout, reads)
}

// pushPull are parameter servers that do the one and then the other.
type pushPull interface {
	Push(ctx context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error)
	PullToPush(ctx context.Context, model string, layout uint64, reads []ps.Read) (uint64, error)
}

func exchange(ctx context.Context, m pushPull, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	if u != nil {
		if answers, err = m.Push(ctx, u); err != nil {
			return nil, nil, err
		}
	}
	if len(reads) > 0 {
		number, err := m.PullToPush(ctx, model, layout, reads)
		rows = func(context.Context) (uint64, error) { return number, err }
	}
	return answers, rows, nil
}

func (m *memory) PullToPush(ctx context.Context, model string, layout uint64, reads []ps.Read) (uint64, error) {
	if err := m.Pull(ctx, model, layout, reads); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	kept := make(map[ps.TableID]pulled)
	for _, r := range reads {
		kept[r.Table] = pulled{ps.Group{Keys: slices.Clone(r.Group.Keys), Ends: slices.Clone(r.Group.Ends)}}
	}
	m.pulled[m.number] = kept
	return m.number, nil
}

// refer reports rows whose Pulled does not say what their keys say.
func (m *memory) refer(u *ps.Update) error {
	for _, item := range u.Items {
		for _, rows := range item.Rows {
			if len(rows.Pulled) == 0 {
				continue
			}
			group := m.pulled[u.Pulled][rows.Table].group
			from, to := group.Shard(item.Shard)
			var keys []ps.Key
			for i, key := range group.Keys[from:to] {
				if rows.Pulled[i/8]>>(i%8)&1 == 1 {
					keys = append(keys, key)
				}
			}
			if !slices.Equal(keys, rows.Keys) || len(rows.Pulled) != (to-from+7)/8 {
				return fmt.Errorf("shard %d, table %d: keys %x, of pull %d are meant %x: %w", item.Shard, rows.Table, rows.Keys, u.Pulled, keys, ps.ErrInvalid)
			}
		}
	}
	return nil
}

func (m *memory) Push(_ context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refer(u); err != nil {
		return nil, err
	}
	answers := make([]ps.Answer, len(u.Items))
	for i := range u.Items {
		s := u.Items[i].Shard
		unavailable := ps.Answer{Shard: s, Err: ps.ErrUnavailable}
		kind := m.fault(s)
		if kind != none {
			m.told++
		}
		switch kind {
		case lost:
			answers[i] = unavailable
			continue
		case restarted:
			m.restart(s)
		}
		answers[i] = m.shards[s].Push(u, &u.Items[i])
		if kind == answerLost {
			answers[i] = unavailable
		}
	}
	return func(context.Context) ([]ps.Answer, error) { return answers, nil }, nil
}

func (m *memory) Applied(context.Context, string) ([]ps.ShardProgress, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	progress := make([]ps.ShardProgress, len(m.shards))
	for s, held := range m.shards {
		progress[s] = held.Progress()
	}
	return progress, nil
}

// assigned is an Ownership that a test changes.
type assigned chan train.Assignment

func (a assigned) WatchAssignment(context.Context) <-chan train.Assignment { return a }

func all(generation ps.Generation, workers int) train.Assignment {
	return train.Assignment{Generation: generation, Partitions: []ps.Partition{0, 1, 2}, Workers: workers}
}

// learn runs a trainer until it is done with everything that is assigned, and
// stops it.
func learn(t *testing.T, f *fixture, skipped func(*worker.Event, error)) error {
	t.Helper()
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: ownership,
		Skipped: skipped, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions })
}

// finished counts the partitions that a trainer is done with.
func finished(trainer *train.Trainer) int {
	n := 0
	for _, position := range trainer.Positions() {
		if position.Done {
			n++
		}
	}
	return n
}

// until runs a trainer until done says so or it returns by itself.
func until(t *testing.T, trainer *train.Trainer, done func() bool) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- trainer.Run(ctx) }()
	for ticks := time.NewTicker(time.Millisecond); ; {
		select {
		case err := <-ended:
			return err
		case <-ticks.C:
			if done() {
				cancel()
				return <-ended
			}
		}
	}
}

// check audits the shards and counts every event per key in the audit table.
func (f *fixture) check(t *testing.T) audit.Report {
	t.Helper()
	progress, err := f.params.Applied(t.Context(), f.model.Name)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Run(t.Context(), audit.Config{Spec: f.spec, Source: f.source, Progress: progress})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Clean() || report.Events != int64(f.events) || report.Skipped != int64(f.bad) {
		t.Errorf("audit %+v, want %d events, %d skipped, nothing lost or doubled", report, f.events, f.bad)
	}
	want := f.countKeys(t)
	table, _, _ := f.model.Layout.Table(spec.AuditTable)
	got := make(map[ps.Key]uint64)
	for s, held := range f.params.shards {
		if err := held.Valid(); err != nil {
			t.Errorf("shard %d: %v", s, err)
		}
		if err := held.Range(table, func(key ps.Key, _ uint64, row []byte) bool {
			got[key] = ps.View[uint64](row)[0]
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	for key, n := range want {
		if got[key] != n {
			t.Errorf("key %016x was counted by %d events, want %d", uint64(key), got[key], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d keys were counted, want %d", len(got), len(want))
	}
	return report
}

// countKeys returns how many trained events have each key, from the stream itself.
func (f *fixture) countKeys(t *testing.T) map[ps.Key]uint64 {
	t.Helper()
	extractor, err := feature.New(f.spec, feature.Columns(f.spec))
	if err != nil {
		t.Fatal(err)
	}
	starts := make([]stream.Start, f.model.Partitions)
	for p := range starts {
		starts[p].Partition = ps.Partition(p)
	}
	reader, err := f.source.Read(t.Context(), starts)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	counts := make(map[ps.Key]uint64)
	var event worker.Event
	for reader.Next(t.Context(), &event) == nil {
		var b worker.Batch
		b.Reset(event.Partition, event.Offset, event.Pass)
		if extractor.Append(&b, &event) != nil || b.Roles[0] != worker.Train {
			continue
		}
		distinct := make(map[ps.Key]bool)
		for _, key := range b.Keys {
			distinct[key] = true
		}
		for key := range distinct {
			counts[key]++
		}
	}
	return counts
}

// deepNetwork has layers, whose rows lie on every shard and are touched by every event.
const deepNetwork = "network: {kind: deepfm, factors: 3, hidden: [6, 4], dropout: 0.25}\n"

func TestTheLayersOfANetworkAreLearnedExactlyOnce(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	doc := strings.Replace(testSpec, "evaluation:", deepNetwork+"evaluation:", 1)
	for _, kind := range []fault{none, lost, answerLost, restarted} {
		t.Run([]string{"undisturbed", "a push is lost", "an answer is lost", "a shard loses its memory"}[kind], func(t *testing.T) {
			f := newFixture(t, doc, 1000)
			random := rand.New(rand.NewPCG(*seed, uint64(kind)))
			left := 8
			f.params.fault = func(ps.ShardID) fault {
				if left > 0 && random.IntN(40) == 0 {
					left--
					return kind
				}
				return none
			}
			if err := learn(t, f, nil); err != nil {
				t.Fatal(err)
			}
			f.check(t)
			for i, d := range f.spec.Dense() {
				stored := 0
				for _, held := range f.params.shards {
					if err := held.Range(ps.TableID(f.spec.FeatureTables()+i), func(ps.Key, uint64, []byte) bool {
						stored++
						return true
					}); err != nil {
						t.Fatal(err)
					}
				}
				if stored != d.Rows {
					t.Errorf("table %s has %d rows, want %d", d.Table.Name, stored, d.Rows)
				}
			}
		})
	}
}

func TestAStreamIsLearnedExactlyOnce(t *testing.T) {
	f := newFixture(t, testSpec, 2000)
	var skipped int
	if err := learn(t, f, func(e *worker.Event, reason error) {
		skipped++
		if !errors.Is(reason, worker.ErrUnreadable) || strings.Contains(reason.Error(), "only-one-field") {
			t.Errorf("the reason is %q: want an ErrUnreadable without the row's text", reason)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if skipped != f.bad {
		t.Errorf("told of %d unusable rows, want %d", skipped, f.bad)
	}
	f.check(t)
}

func TestFaultsOfEveryKindLoseAndDoubleNothing(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	for _, kind := range []fault{lost, answerLost, restarted} {
		t.Run([]string{"", "a push is lost", "an answer is lost", "a shard loses its memory"}[kind], func(t *testing.T) {
			f := newFixture(t, testSpec, 2000)
			random := rand.New(rand.NewPCG(*seed, uint64(kind)))
			left := 12
			f.params.fault = func(ps.ShardID) fault {
				if left > 0 && random.IntN(40) == 0 {
					left--
					return kind
				}
				return none
			}
			if err := learn(t, f, nil); err != nil {
				t.Fatal(err)
			}
			if f.params.told < 5 {
				t.Fatalf("only %d faults: the run says nothing", f.params.told)
			}
			f.check(t)
		})
	}
}

func TestTwoWorkersOnTheSamePartitionsDoubleNothing(t *testing.T) {
	f := newFixture(t, testSpec, 2000)
	var trainers []*train.Trainer
	for range 2 {
		ownership := make(assigned, 1)
		ownership <- all(1, 2)
		trainer, err := train.New(train.Config{
			Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		trainers = append(trainers, trainer)
	}
	var running sync.WaitGroup
	for _, trainer := range trainers {
		running.Go(func() {
			if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
				t.Errorf("a worker ended with %v", err)
			}
		})
	}
	running.Wait()
	f.check(t)
}

func TestANewAssignmentIsTakenUpUnderWay(t *testing.T) {
	f := newFixture(t, testSpec, 2000)
	ownership := make(assigned, 1)
	ownership <- train.Assignment{Generation: 1, Partitions: []ps.Partition{1}, Workers: 2}
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	given := ps.Generation(1)
	if err := until(t, trainer, func() bool {
		if given < 4 && finished(trainer) > 0 {
			given++
			ownership <- all(given, int(given))
		}
		return given == 4 && finished(trainer) == f.model.Partitions
	}); err != nil {
		t.Fatal(err)
	}
	f.check(t)
}

// late are parameters that judge what is pushed only a while after it was, as those
// behind a network do.
type late struct {
	*memory
	queue chan func()

	mu       sync.Mutex
	stumbled int // guarded by mu; answers other than Applied
}

func (l *late) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, l, u, model, layout, reads)
}

func (l *late) Push(_ context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	u = copied(u) // its memory is the caller's again
	done := make(chan []ps.Answer, 1)
	l.queue <- func() {
		time.Sleep(200 * time.Microsecond) // the network's part
		answers, err := l.memory.Push(context.Background(), u)
		if err != nil {
			panic(err)
		}
		got, _ := answers(context.Background())
		for _, a := range got {
			if a.Outcome != ps.Applied {
				l.mu.Lock()
				l.stumbled++
				l.mu.Unlock()
			}
		}
		done <- got
	}
	return func(ctx context.Context) ([]ps.Answer, error) {
		select {
		case got := <-done:
			return got, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, nil
}

func copied(u *ps.Update) *ps.Update {
	c := *u
	c.Items = slices.Clone(u.Items)
	for i := range c.Items {
		c.Items[i].Rows = slices.Clone(c.Items[i].Rows)
		for k := range c.Items[i].Rows {
			r := &c.Items[i].Rows[k]
			r.Keys, r.Values, r.Pulled = slices.Clone(r.Keys), slices.Clone(r.Values), slices.Clone(r.Pulled)
		}
	}
	return &c
}

// TestAWorkerThatIsAssignedAnewWaitsForWhatItHasPushed changes the assignment time and
// again: a worker that asked the shards too early would push to them what they have.
func TestAWorkerThatIsAssignedAnewWaitsForWhatItHasPushed(t *testing.T) {
	f := newFixture(t, testSpec, 3000)
	params := &late{memory: f.params, queue: make(chan func(), 100)}
	var judge sync.WaitGroup
	judge.Go(func() {
		for apply := range params.queue {
			apply()
		}
	})
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	generation, next := ps.Generation(1), ps.Offset(100)
	if err := until(t, trainer, func() bool {
		sofar := ps.Offset(0)
		for _, position := range trainer.Positions() {
			sofar += position.Acknowledged
		}
		if sofar >= next && generation < 15 {
			generation, next = generation+1, sofar+100
			ownership <- all(generation, 1)
		}
		return finished(trainer) == f.model.Partitions
	}); err != nil {
		t.Fatal(err)
	}
	close(params.queue)
	judge.Wait()
	f.check(t)
	if generation < 5 {
		t.Errorf("%d assignments: the test does not test", generation)
	}
	if params.stumbled > 0 {
		t.Errorf("%d pushes were of what a shard had, or too early", params.stumbled)
	}
}

func TestAShardThatBeginsAnewAfterTheEndIsTaughtAgain(t *testing.T) {
	f := newFixture(t, testSpec, 500)
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	restarted := false
	if err := until(t, trainer, func() bool {
		if finished(trainer) < f.model.Partitions {
			return false
		}
		f.params.mu.Lock()
		defer f.params.mu.Unlock()
		if !restarted {
			f.params.restart(3)
			restarted = true
		}
		return f.params.shards[3].Progress().Partitions[0].Applied > 0
	}); err != nil {
		t.Fatal(err)
	}
	if err := learn(t, f, nil); err != nil {
		t.Fatal(err)
	}
	f.check(t)
}

func TestSeveralPassesCountFiguresOnce(t *testing.T) {
	f := newFixture(t, strings.Replace(testSpec, "partitions: 3", "partitions: 3, passes: 3", 1), 500)
	f.events, f.bad = 3*f.events, 3*f.bad
	if err := learn(t, f, nil); err != nil {
		t.Fatal(err)
	}
	f.check(t)
	figures, _, _ := f.model.Layout.Table(eval.FiguresTable)
	events := 0.0
	for _, held := range f.params.shards {
		if err := held.Range(figures, func(key ps.Key, _ uint64, row []byte) bool {
			if key>>10&0x3ff == ps.Key(eval.Progressive) {
				events += ps.View[float64](row)[0]
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	if want := float64((f.events - f.bad) / 3); events != want {
		t.Errorf("the figures of three passes are of %v events, want those of the first, %v", events, want)
	}
}

func TestWhatCannotBeMendedEndsTheTrainer(t *testing.T) {
	t.Run("too many unusable rows", func(t *testing.T) {
		f := newFixture(t, strings.Replace(testSpec, "column: item}", "column: item, log: 2}", 1), 2000)
		if err := learn(t, f, nil); !errors.Is(err, train.ErrTooManySkips) {
			t.Errorf("learning words as numbers ended with %v, want ErrTooManySkips", err)
		}
	})
	t.Run("a learning rate that makes the model diverge", func(t *testing.T) {
		doc := strings.Replace(testSpec, "evaluation:", "loss: squared\nnetwork: {kind: logistic, optimizer: {name: sgd, learning_rate: 1000000}}\nevaluation:", 1)
		if err := learn(t, newFixture(t, doc, 2000), nil); !errors.Is(err, train.ErrDiverged) && !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("ended with %v, want ErrDiverged", err)
		}
	})
	t.Run("shards of another layout", func(t *testing.T) {
		f := newFixture(t, testSpec, 100)
		f.params.model.Layout.Seed++
		if err := learn(t, f, nil); !errors.Is(err, ps.ErrModelMismatch) {
			t.Errorf("ended with %v, want ErrModelMismatch", err)
		}
	})
}

// poisoned are parameters whose answer to a pull of a certain key makes the work on its
// events panic.
type poisoned struct {
	*memory
	key     ps.Key
	crashed int
}

func (p *poisoned) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, p, u, model, layout, reads)
}

func (p *poisoned) PullToPush(ctx context.Context, model string, layout uint64, reads []ps.Read) (uint64, error) {
	number, err := p.memory.PullToPush(ctx, model, layout, reads)
	if err == nil && slices.Contains(reads[0].Group.Keys, p.key) {
		p.crashed++
		reads[0].Values = reads[0].Values[:0]
	}
	return number, err
}

func TestAnEventThatCrashesTheWorkIsSkippedAlone(t *testing.T) {
	f := newFixture(t, testSpec, 1000)
	counts := f.countKeys(t)
	params := &poisoned{memory: f.params}
	for key, n := range counts {
		if n == 2 && (params.key == 0 || key < params.key) {
			params.key = key
		}
	}
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	var letters []string
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: params, Ownership: ownership,
		Skipped: func(_ *worker.Event, reason error) {
			if !errors.Is(reason, worker.ErrUnreadable) {
				letters = append(letters, reason.Error())
			}
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(letters)
	if letters = slices.Compact(letters); len(letters) != 2 || !strings.Contains(letters[0], "given up after 3 times") {
		t.Errorf("given up: %q, want the two events of key %016x", letters, uint64(params.key))
	}
	progress, err := f.params.Applied(t.Context(), f.model.Name)
	if err != nil {
		t.Fatal(err)
	}
	report, err := audit.Run(t.Context(), audit.Config{Spec: f.spec, Source: f.source, Progress: progress})
	if err != nil || !report.Clean() || report.Events != int64(f.events) {
		t.Errorf("audit %+v, %v: want all %d events and nothing lost or doubled", report, err, f.events)
	}
	table, _, _ := f.model.Layout.Table(spec.AuditTable)
	learned := make(map[ps.Key]uint64)
	for _, held := range f.params.shards {
		if err := held.Range(table, func(key ps.Key, _ uint64, row []byte) bool {
			learned[key] = ps.View[uint64](row)[0]
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	missing := uint64(0)
	for key, n := range counts {
		if learned[key] > n {
			t.Errorf("key %016x was learned %d times, it has %d events", uint64(key), learned[key], n)
		}
		missing += n - learned[key]
	}
	if learned[params.key] != 0 || missing != 2*4 { // two events of three features and the constant
		t.Errorf("the poisoned key was learned %d times, and %d features of events were not learned: want 0 and 8", learned[params.key], missing)
	}
	if params.crashed > 2*(3+2) { // three times alone, and in batches
		t.Errorf("the poisoned key was pulled %d times", params.crashed)
	}
}

// leaky is a stream that leaves out one event.
type leaky struct {
	stream.Source
	partition ps.Partition
	offset    ps.Offset
}

func (l leaky) Read(ctx context.Context, starts []stream.Start) (stream.Reader, error) {
	reader, err := l.Source.Read(ctx, starts)
	return leakyReader{reader, l}, err
}

type leakyReader struct {
	stream.Reader
	leaky leaky
}

func (r leakyReader) Next(ctx context.Context, e *worker.Event) error {
	err := r.Reader.Next(ctx, e)
	if err == nil && e.Partition == r.leaky.partition && e.Offset == r.leaky.offset {
		return r.Reader.Next(ctx, e)
	}
	return err
}

func TestAStreamThatLeavesOutAnEventIsNotLearnedOn(t *testing.T) {
	batch, _ := train.Sizes(64, 1)
	whole := newFixture(t, testSpec, 500)
	reader, err := whole.source.Read(t.Context(), []stream.Start{{Partition: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for event := new(worker.Event); reader.Next(t.Context(), event) == nil; {
	}
	end, _ := reader.End(1)
	for name, offset := range map[string]ps.Offset{
		"the first":                  0,
		"one within a batch":         7,
		"the first of another batch": ps.Offset(batch),
		"the last":                   end - 1,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testSpec, 500)
			f.source = leaky{f.source, 1, offset}
			if err := learn(t, f, nil); !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("without offset %d of %d the trainer ended with %v, want ErrCorrupt", offset, end, err)
			}
		})
	}
}

func TestWhatIsInFlightIsSharedByWorkers(t *testing.T) {
	for _, c := range []struct {
		inFlight, workers int
		batch, events     int // of a batch, and together
	}{
		{256, 2, 64, 128},
		{1, 1, 1, 1},
		{512, 1, 256, 512},
		{10, 20, 1, 1},
		{4096, 1, 512, 4096},
		{1024, 1, 512, 1024},
	} {
		batch, window := train.Sizes(c.inFlight, c.workers)
		if batch != c.batch || batch*window != c.events {
			t.Errorf("%d in flight over %d workers: %d batches of %d, want %d events in batches of %d", c.inFlight, c.workers, window, batch, c.events, c.batch)
		}
	}
}

// paced returns a trainer that learns at a rate, one of several workers.
func paced(t *testing.T, f *fixture, rate float64, workers int) *train.Trainer {
	t.Helper()
	ownership := make(assigned, 1)
	ownership <- all(1, workers)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: ownership, Rate: rate,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return trainer
}

func TestTheRateIsSharedByWorkers(t *testing.T) {
	f := newFixture(t, testSpec, 500)
	trainer := paced(t, f, 2000, 2)
	start := time.Now()
	if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
		t.Fatal(err)
	}
	if took, least := time.Since(start), 400*time.Millisecond; took < least {
		t.Errorf("500 events at half of 2,000 per second took %v, want at least %v", took, least)
	}
	f.check(t)
}

func TestWhatAShardKnowsAlreadyIsReplayedWithoutPacing(t *testing.T) {
	f := newFixture(t, testSpec, 2000)
	if err := learn(t, f, nil); err != nil {
		t.Fatal(err)
	}
	f.params.restart(3)
	trainer := paced(t, f, 0.01, 1) // 55 hours
	if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
		t.Fatal(err)
	}
	f.check(t)
}

func TestARateBelowNothingIsRefused(t *testing.T) {
	f := newFixture(t, testSpec, 1)
	for _, rate := range []float64{-1, math.NaN()} {
		_, err := train.New(train.Config{
			Model: f.model, Spec: f.spec, Source: f.source, Params: f.params, Ownership: make(assigned), Rate: rate,
			Logger: slog.New(slog.DiscardHandler),
		})
		if !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("a rate of %v gave %v, want ErrInvalid", rate, err)
		}
	}
}
