package train_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
	"github.com/freshet-ml/freshet/worker/train"
)

// epoch is parameter servers of which all shards are saved after one push, and go back
// to what was saved after a later one.
type epoch struct {
	*memory
	t               *testing.T
	pushes          int
	saveAt, crashAt int
	saved           []*shard.Loader
}

func (e *epoch) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, e, u, model, layout, reads)
}

func (e *epoch) Push(ctx context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	wait, err := e.memory.Push(ctx, u)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch e.pushes++; e.pushes {
	case e.saveAt:
		for s := range e.shards {
			e.saved = append(e.saved, e.save(ps.ShardID(s)))
		}
	case e.crashAt:
		for s := range e.shards {
			if e.shards[s], err = e.saved[s].Shard(); err != nil {
				e.t.Error(err)
			}
		}
		return func(context.Context) ([]ps.Answer, error) { return nil, ps.ErrUnavailable }, nil
	}
	return wait, err
}

// save writes a snapshot of a shard and reads it again.
func (e *epoch) save(s ps.ShardID) *shard.Loader {
	e.fence++
	loader, err := shard.Load(shard.Config{Model: e.model, ID: s, Shards: shards, Fence: e.fence})
	if err != nil {
		e.t.Error(err)
		return nil
	}
	snapshot, err := e.shards[s].Snapshot(0)
	if err == nil {
		err = loader.Begin(snapshot.Head())
	}
	for err == nil {
		var block ps.Block
		if block, err = snapshot.Read(make([]byte, shard.BlockBytes)); err == nil {
			err = loader.Rows(block)
		}
	}
	if !errors.Is(err, io.EOF) {
		e.t.Errorf("save shard %d: %v", s, err)
	}
	return loader
}

// rowsOf returns every row of every table with its weights and state. When a row was
// last changed is left out: empty advances count as changes of the shard, and they go by
// the clock.
func rowsOf(t *testing.T, m *memory) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for id, table := range m.model.Layout.Tables {
		for _, held := range m.shards {
			if err := held.Range(ps.TableID(id), func(key ps.Key, _ uint64, row []byte) bool {
				all[fmt.Sprintf("%s %016x", table.Name, uint64(key))] = string(row)
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// learnFrom runs one worker over the whole stream.
func learnFrom(t *testing.T, f *fixture, params train.Params) {
	t.Helper()
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: f.source, Params: params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
		t.Fatal(err)
	}
}

// TestAnEpochAtABatchBoundaryIsReplayedBitForBit takes an epoch while the only worker, with
// one batch in flight, stands between two batches. Restored and replayed, every row is
// what it is without a crash, to the last bit of weights, state and figures.
func TestAnEpochAtABatchBoundaryIsReplayedBitForBit(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	one := strings.Replace(testSpec, "in_flight: 64", "in_flight: 1", 1)
	for name, doc := range map[string]string{
		"logistic with ftrl":           one,
		"deepfm with adam and dropout": strings.Replace(one, "evaluation:", deepNetwork+"evaluation:", 1),
		"fm with adagrad":              strings.Replace(one, "evaluation:", "network: {kind: fm, factors: 3}\nevaluation:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(*seed, 1))
			whole := newFixture(t, doc, 300)
			undisturbed := &epoch{memory: whole.params, t: t}
			learnFrom(t, whole, undisturbed)
			want := rowsOf(t, whole.params)
			for range 4 {
				f := newFixture(t, doc, 300)
				saveAt := 1 + random.IntN(undisturbed.pushes-2)
				crashed := &epoch{memory: f.params, t: t, saveAt: saveAt, crashAt: saveAt + 1 + random.IntN(undisturbed.pushes-saveAt-1)}
				learnFrom(t, f, crashed)
				if crashed.pushes <= undisturbed.pushes {
					t.Errorf("%d pushes with a crash and %d without: nothing was replayed", crashed.pushes, undisturbed.pushes)
				}
				got := rowsOf(t, f.params)
				if !maps.Equal(got, want) {
					t.Errorf("saved after push %d and set back after push %d: %s", crashed.saveAt, crashed.crashAt, differing(got, want))
				}
				f.check(t)
			}
		})
	}
}

// differing names a row that differs and counts the others.
func differing(got, want map[string]string) string {
	n, example := 0, ""
	for key, row := range want {
		if got[key] != row {
			n++
			example = fmt.Sprintf("%s is %x, want %x", key, got[key], row)
		}
	}
	return fmt.Sprintf("%d rows, want %d; %d differ: %s", len(got), len(want), n, example)
}

// leak is parameter servers that are told of replayed scores as if they were fresh.
type leak struct{ *memory }

func (l leak) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, l, u, model, layout, reads)
}

func (l leak) Push(ctx context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	for i := range u.Items {
		for _, rows := range u.Items[i].Rows {
			name := l.model.Layout.Tables[rows.Table].Name
			if name != eval.FiguresTable && name != eval.HistogramTable {
				continue
			}
			for k, key := range rows.Keys {
				if key>>10&0x3ff == ps.Key(eval.Replayed) {
					rows.Keys[k] = key ^ ps.Key(eval.Replayed^eval.Progressive)<<10
				}
			}
		}
	}
	return l.memory.Push(ctx, u)
}

// unlearnable is a stream in which nothing says anything of the label, and every event can
// be recognised.
func unlearnable(t *testing.T, n int) *fixture {
	t.Helper()
	doc := strings.Replace(testSpec, "holdout: 0.1, window: 100", "holdout: 0, window: 20", 1)
	f := newFixture(t, doc, 0)
	var b strings.Builder
	b.WriteString("user,item,clicked\n")
	for i := range n {
		fmt.Fprintf(&b, "u%d,i%d,%d\n", i, i, ps.Mix(uint64(i)+5e6)%2)
	}
	path := filepath.Join(t.TempDir(), "events.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.spec, err = spec.Parse("test.yaml", []byte(doc)); err != nil {
		t.Fatal(err)
	}
	if f.source, err = files.Open(t.Context(), files.Config{URL: "file://" + path, Stream: f.spec.Stream, Columns: feature.Columns(f.spec)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.source.Close() })
	f.events, f.bad = n, 0
	f.model.Stream = f.source.Identity()
	f.params = newMemory(t, f.model)
	return f
}

// series returns the figures of a series.
func (f *fixture) series(t *testing.T, s eval.Series) eval.Report {
	t.Helper()
	summary, err := eval.NewSummary(eval.SummaryConfig{
		Layout: f.model.Layout, Binary: true, Window: f.spec.Evaluation.Window,
		Pull: func(ctx context.Context, table ps.TableID, keys []ps.Key) ([]byte, error) {
			var group ps.Group
			group.Fill(keys, shards)
			width := f.model.Layout.Tables[table].RowBytes()
			reads := []ps.Read{{Table: table, RowBytes: width, Group: &group}}
			if err := f.params.Pull(ctx, f.model.Name, f.model.Layout.Hash(), reads); err != nil {
				return nil, err
			}
			values := make([]byte, 0, len(keys)*width)
			for _, at := range group.Index {
				values = append(values, reads[0].Values[int(at)*width:(int(at)+1)*width]...)
			}
			return values, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	applied := make([]ps.Range, f.model.Partitions)
	for p := range applied {
		applied[p] = ps.Range{From: 1 << 40}
		for _, held := range f.params.shards {
			o := held.Progress().Partitions[p].Applied
			applied[p] = ps.Range{From: min(applied[p].From, o), To: max(applied[p].To, o)}
		}
	}
	if err := summary.Update(t.Context(), applied); err != nil {
		t.Fatal(err)
	}
	figures := summary.Figures(s)
	return figures.Report(true)
}

// TestALabelThatLeaksThroughAReplayIsSeen loses half the shards after a stream from which
// nothing can be learned but by heart. Replayed, the events' scores know the answers. Where
// they count as progressive, the model looks good, and no audit says otherwise; the
// product's figures stay those of a coin.
func TestALabelThatLeaksThroughAReplayIsSeen(t *testing.T) {
	const events = 3000
	run := func(params func(*memory) train.Params) (progressive, replayed eval.Report) {
		f := unlearnable(t, events)
		learnFrom(t, f, params(f.params))
		for s := range shards / 2 {
			f.params.restart(ps.ShardID(s))
		}
		learnFrom(t, f, params(f.params))
		f.check(t)
		return f.series(t, eval.Progressive), f.series(t, eval.Replayed)
	}
	fresh, replayed := run(func(m *memory) train.Params { return m })
	leaked, none := run(func(m *memory) train.Params { return leak{m} })
	t.Logf("progressive %d events, AUC %.3f, loss %.3f; replayed %d, AUC %.3f, loss %.3f; with the leak %d, AUC %.3f, loss %.3f",
		fresh.Events, *fresh.AUC, *fresh.LogLoss, replayed.Events, *replayed.AUC, *replayed.LogLoss, leaked.Events, *leaked.AUC, *leaked.LogLoss)
	if fresh.Events+replayed.Events != events || replayed.Events < events/5 || none.Events != 0 || leaked.Events != events {
		t.Fatalf("%d progressive and %d replayed events of %d, with the leak %d and %d: the test does not test",
			fresh.Events, replayed.Events, events, leaked.Events, none.Events)
	}
	// A coin's AUC over 1,500 events is 0.5 within 0.05 (3.3 standard deviations).
	if a := *fresh.AUC; a < 0.45 || a > 0.55 {
		t.Errorf("progressive AUC %.3f of labels that nothing tells, want 0.5: scores that know the answer are among them", a)
	}
	if *leaked.AUC < 0.6 || *leaked.LogLoss >= *fresh.LogLoss {
		t.Errorf("with the leak AUC %.3f and loss %.3f, without %.3f and %.3f: the figures do not show it", *leaked.AUC, *leaked.LogLoss, *fresh.AUC, *fresh.LogLoss)
	}
}
