package train_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/train"
)

// growing is a stream of which only the first events are there yet.
type growing struct {
	stream.Source
	there atomic.Int64
	idle  atomic.Int64 // times that a reader waited in vain
}

func (g *growing) Read(ctx context.Context, starts []stream.Start) (stream.Reader, error) {
	r, err := g.Source.Read(ctx, starts)
	return &growingReader{Reader: r, of: g}, err
}

type growingReader struct {
	stream.Reader
	of   *growing
	read int64
	said bool // that nothing is there
}

func (r *growingReader) Next(ctx context.Context, e *worker.Event) error {
	if r.read >= r.of.there.Load() {
		if !r.said {
			r.said = true
			return stream.ErrIdle
		}
		r.of.idle.Add(1)
		select {
		case <-time.After(time.Millisecond):
			return stream.ErrIdle
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.said = false
	r.read++
	return r.Reader.Next(ctx, e)
}

func TestEventsOfAStreamThatGrowsAreLearnedBeforeTheirBatchIsFull(t *testing.T) {
	f := newFixture(t, testSpec, 500)
	g := &growing{Source: f.source}
	f.source = g
	g.there.Store(7)
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: g, Params: f.params, Ownership: ownership, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	learned := func() (n int64) {
		for _, position := range trainer.Positions() {
			n += int64(position.Acknowledged)
		}
		return n
	}
	steps := []int64{7, 8, 60, 501} // of 500 and the end; a batch has 32 events
	if err := until(t, trainer, func() bool {
		if len(steps) > 1 && learned() >= steps[0] {
			steps = steps[1:]
			g.there.Store(steps[0])
		}
		return finished(trainer) == f.model.Partitions
	}); err != nil {
		t.Fatal(err)
	}
	if g.idle.Load() == 0 {
		t.Error("the reader never had to wait: this has tested nothing")
	}
	if report := f.check(t); !report.Clean() || report.Events != 500 {
		t.Errorf("audit %+v, want 500 events, each once", report)
	}
}
