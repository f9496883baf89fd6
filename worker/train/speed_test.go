package train_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
	"github.com/freshet-ml/freshet/worker/train"
)

var speedText = flag.String("vw", "", "Vowpal Wabbit text that BenchmarkLearning learns, in its namespace f (none: it makes some)")

const speedSpec = `
model: speed
stream: {format: vw, partitions: 1}
loss: log
features:
  - {name: f, column: f, split: " "}
network:
  kind: logistic
  constant: true
  optimizer: {name: ftrl, learning_rate: 0.1, beta: 1, l1: 0, l2: 0}
training: {in_flight: 512}
`

// clicks returns n lines of 39 tokens, of which a batch of 256 has some 12 different ones
// per line, as in logs of clicks on advertisements.
func clicks(n int) string {
	rng := rand.New(rand.NewPCG(1, 2))
	columns := make([]*rand.Zipf, 39)
	for j := range columns {
		columns[j] = rand.NewZipf(rng, 1.1, 4, []uint64{50, 1000, 100_000}[j%3])
	}
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%d |f", 2*rng.IntN(2)-1)
		for j, values := range columns {
			fmt.Fprintf(&b, " %d_%x", j, values.Uint64())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// local are the parameter servers without a network and without faults.
type local struct {
	mu     sync.Mutex
	shards []*shard.Shard // guarded by mu
}

func (l *local) Pull(_ context.Context, _ string, _ uint64, reads []ps.Read) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range reads {
		r := &reads[i]
		if n := len(r.Group.Keys) * r.RowBytes; cap(r.Values) < n {
			r.Values = make([]byte, n)
		} else {
			r.Values = r.Values[:n]
		}
		for s, held := range l.shards {
			from, to := r.Group.Shard(ps.ShardID(s))
			if err := held.Gather(r.Table, r.Group.Keys[from:to], r.Values[from*r.RowBytes:to*r.RowBytes], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *local) Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
	answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (uint64, error), err error,
) {
	return exchange(ctx, l, u, model, layout, reads)
}

func (l *local) PullToPush(ctx context.Context, model string, layout uint64, reads []ps.Read) (uint64, error) {
	return 0, l.Pull(ctx, model, layout, reads)
}

func (l *local) Push(_ context.Context, u *ps.Update) (func(context.Context) ([]ps.Answer, error), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := make([]ps.Answer, len(u.Items))
	for i := range u.Items {
		answers[i] = l.shards[u.Items[i].Shard].Push(u, &u.Items[i])
	}
	return func(context.Context) ([]ps.Answer, error) { return answers, nil }, nil
}

func (l *local) Applied(context.Context, string) ([]ps.ShardProgress, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	progress := make([]ps.ShardProgress, len(l.shards))
	for s, held := range l.shards {
		progress[s] = held.Progress()
	}
	return progress, nil
}

// losses returns the progressive log loss and how many events it is of.
func (l *local) losses(b *testing.B, figures ps.TableID) (mean, events float64) {
	for _, held := range l.shards {
		if err := held.Range(figures, func(key ps.Key, _ uint64, row []byte) bool {
			if key>>10&0x3ff == ps.Key(eval.Progressive) {
				sums := ps.View[float64](row)
				events += sums[0]
				mean += sums[5]
			}
			return true
		}); err != nil {
			b.Fatal(err)
		}
	}
	return mean / events, events
}

// BenchmarkLearning is the whole worker and the shards of a cluster in one process,
// without the network between them: run it with -cpuprofile to see what an event costs
// where. It reports the log loss beside the speed.
func BenchmarkLearning(b *testing.B) {
	b.Run("text", func(b *testing.B) { benchmarkLearning(b, "") })
	b.Run("cache", func(b *testing.B) { benchmarkLearning(b, b.TempDir()) })
}

// benchmarkLearning learns from the text, or from a cache that it writes beforehand.
func benchmarkLearning(b *testing.B, cache string) {
	const shards = 64
	path := *speedText
	if path == "" {
		path = filepath.Join(b.TempDir(), "clicks.vw")
		if err := os.WriteFile(path, []byte(clicks(100_000)), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s, err := spec.Parse("speed.yaml", []byte(speedSpec))
	if err != nil {
		b.Fatal(err)
	}
	source, err := files.Open(b.Context(), files.Config{URL: "file://" + path, Stream: s.Stream, Columns: feature.Columns(s)})
	if err != nil {
		b.Fatal(err)
	}
	defer source.Close()
	model := ps.Model{
		Name: s.Model, Version: 1, Layout: s.Layout(eval.Tables()), Stream: source.Identity(), Partitions: source.Partitions(),
	}
	figures, _, _ := model.Layout.Table(eval.FiguresTable)
	learn := func() (loss, events float64) {
		l := &local{}
		for i := range shards {
			opened, err := shard.New(shard.Config{Model: model, ID: ps.ShardID(i), Shards: shards, Fence: 1})
			if err != nil {
				b.Fatal(err)
			}
			l.shards = append(l.shards, opened)
		}
		ownership := make(assigned, 1)
		ownership <- train.Assignment{Generation: 1, Partitions: []ps.Partition{0}, Workers: 1}
		trainer, err := train.New(train.Config{
			Model: model, Spec: s, Source: source, Params: l, Ownership: ownership, Cache: cache, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- trainer.Run(ctx) }()
		for finished(trainer) < model.Partitions {
			select {
			case err := <-ended:
				b.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
		return l.losses(b, figures)
	}
	if cache != "" {
		learn()
	}
	var loss, events float64
	for b.Loop() {
		loss, events = learn()
	}
	b.ReportMetric(float64(b.N)*events/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(loss, "logloss")
}
