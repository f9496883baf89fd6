// Package train is the loop that learns: read a batch of events, pull their rows,
// score (before learning), compute gradients, push them with the range of offsets
// they come from.
//
// The one idea to keep in mind: a worker keeps no progress. It asks every shard
// how far it has applied each partition, starts at the lowest, and sends each
// shard only what that shard lacks (see Cursor). Whatever goes wrong (a shard
// answers anything but Applied, a connection breaks, partitions are reassigned),
// the loop drops what it has, asks again and goes on from there; the shards' offset
// rule makes what was under way harmless.
package train

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
)

// ErrTooManySkips says that so many rows of a partition cannot be used that the
// stream or the spec must be wrong; learning stops before it eats the stream.
var ErrTooManySkips = errors.New("too many unusable rows")

// ErrDiverged says that a score or a gradient is not a finite number.
var ErrDiverged = errors.New("the model diverged")

// Params is what the loop needs of the parameter servers.
type Params interface {
	// Exchange sends an update, if there is one, after everything pushed before, and asks
	// for the rows of reads, if there are any, behind it, as ps/client does. It returns
	// without waiting; the update's memory is then the caller's again. answers waits for one
	// answer per item. rows waits for the reads' values, which have of every shard what was
	// pushed before, answered or not: what is in flight is counted by that. It returns a
	// number for Update.Pulled.
	Exchange(ctx context.Context, u *ps.Update, model string, layout uint64, reads []ps.Read) (
		answers func(context.Context) ([]ps.Answer, error), rows func(context.Context) (pulled uint64, err error), err error)
	// Applied returns the progress of every shard, indexed by shard.
	Applied(ctx context.Context, model string) ([]ps.ShardProgress, error)
}

// Ownership tells a worker which partitions it reads.
type Ownership interface {
	// WatchAssignment gives the current assignment first and then newer ones, may
	// skip those that were overtaken, and closes the channel when ctx ends.
	WatchAssignment(ctx context.Context) <-chan Assignment
}

// Assignment is what one worker is to read.
type Assignment struct {
	Generation ps.Generation
	Partitions []ps.Partition
	// Workers is how many workers share the stream; they share what may be in
	// flight.
	Workers int
}

// Config is what a trainer needs.
type Config struct {
	Model     ps.Model
	Spec      *spec.Spec
	Source    stream.Source
	Params    Params
	Ownership Ownership
	// Rate is how many events per second all workers together learn at most, shared
	// as the events in flight are. Events that some shard has learned already are not
	// held back: to replay is to catch up. 0 is as fast as it goes.
	Rate float64
	// Slow makes the trainer learn no more than so many events in a second that it is busy, as
	// if its processor were slower; 0 does not. It is for trying out how many workers there
	// should be on machines that are too small for them.
	Slow float64
	// Cache, if not empty, is a directory where extracted examples are kept for other
	// passes, replays and restarts (see package cache). Several workers may share it.
	Cache string
	// Skipped is told of every row that cannot be used, with the reason; never its
	// text. It is called by the goroutine that reads, possibly again for the same
	// row after a restart, and should not block. May be nil.
	Skipped func(e *worker.Event, reason error)
	Logger  *slog.Logger
}

func (c *Config) validate() error {
	if c.Spec == nil || c.Source == nil || c.Params == nil || c.Ownership == nil || c.Logger == nil {
		return fmt.Errorf("a trainer needs a spec, a source, parameters, an ownership and a logger: %w", ps.ErrInvalid)
	}
	if !(c.Rate >= 0) { // or no number
		return fmt.Errorf("a rate of %v events per second: %w", c.Rate, ps.ErrInvalid)
	}
	if !(c.Slow >= 0) {
		return fmt.Errorf("as slow as %v events per second: %w", c.Slow, ps.ErrInvalid)
	}
	if c.Skipped == nil {
		c.Skipped = func(*worker.Event, error) {}
	}
	return nil
}

// Position is how far a worker has come with one partition.
type Position struct {
	// Acknowledged is the end of what every shard has acknowledged to this worker.
	Acknowledged ps.Offset
	// End is the stream's end, once EndKnown.
	End      ps.Offset
	EndKnown bool
	// Newest is the end of what is in the partition of a stream that grows, as far as the
	// worker has heard; 0 if it has not.
	Newest ps.Offset
	// Done: every shard has applied everything below End.
	Done bool
}

// Trainer learns one model from the partitions it is assigned.
type Trainer struct {
	config  Config
	columns []string
	digest  [sha256.Size]byte // of the features, for the cache

	acknowledged atomic.Int64 // batches, over all sessions
	events       atomic.Int64 // of those batches
	busy         atomic.Int64 // nanoseconds in which there was something to learn
	crashes      crashes
	pace         pace // owned by the running session

	mu        sync.Mutex
	positions map[ps.Partition]Position // guarded by mu; of the current assignment
}

// New returns a trainer that does nothing until Run.
func New(c Config) (*Trainer, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if _, err := feature.New(c.Spec, feature.Columns(c.Spec)); err != nil {
		return nil, err
	}
	digest, err := feature.Digest(c.Spec)
	if err != nil {
		return nil, err
	}
	return &Trainer{
		config: c, digest: digest, columns: feature.Columns(c.Spec), positions: make(map[ps.Partition]Position),
		crashes: crashes{alone: make(map[ps.Partition]ps.Range), counts: make(map[place]int)},
	}, nil
}

// Positions returns how far the assigned partitions have come. It is safe for
// concurrent use.
func (t *Trainer) Positions() map[ps.Partition]Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	copied := make(map[ps.Partition]Position, len(t.positions))
	for p, position := range t.positions {
		copied[p] = position
	}
	return copied
}

// Work returns how many events were learned, and for how long there were any: what the
// trainer waited for the stream or for its pace is not in it. It is safe for concurrent use.
func (t *Trainer) Work() (events uint64, busy time.Duration) {
	return uint64(t.events.Load()), time.Duration(t.busy.Load())
}

func (t *Trainer) update(p ps.Partition, change func(*Position)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	position := t.positions[p]
	change(&position)
	t.positions[p] = position
}

// Pauses after a session that ended early without progress, doubling.
const (
	pauseMin = 50 * time.Millisecond
	pauseMax = 2 * time.Second
)

// lookEvery is how often a trainer that has come to the end of the stream looks
// whether a shard has lost what it had applied.
const lookEvery = time.Second

// Run learns until ctx ends (it returns nil then) or something happens that
// asking again cannot mend: the spec or the stream is not the model's, too many
// rows are unusable (ErrTooManySkips), the stream cannot be read, the model
// diverged (ErrDiverged). At the end of the stream it goes on looking after its
// partitions: a shard that begins anew elsewhere is taught again what it lacks.
//
// Where the work on a batch panics, its events are tried one by one, and one that
// panics three times is skipped at the shards that it would have changed.
func (t *Trainer) Run(ctx context.Context) error {
	assignments := t.config.Ownership.WatchAssignment(ctx)
	var current Assignment
	ended := make(chan error, 1)
	running := false
	var before int64 // batches acknowledged before the running session
	stop := func() {}
	pause := pauseMin
	start := func() {
		var sessionCtx context.Context
		sessionCtx, stop = context.WithCancel(ctx)
		running, before = true, t.acknowledged.Load()
		assignment := current
		go func() { ended <- t.session(sessionCtx, assignment) }()
	}
	finish := func() {
		stop()
		if !running {
			return
		}
		running = false
		if err := <-ended; err != nil {
			t.config.Logger.Debug("session stopped", "error", err)
		}
	}
	defer finish()
	var again <-chan time.Time
	for {
		select {
		case a, ok := <-assignments:
			if !ok {
				return nil
			}
			if a.Generation == current.Generation {
				continue
			}
			finish()
			current, again, pause = a, nil, pauseMin
			t.mu.Lock()
			clear(t.positions)
			t.mu.Unlock()
			if len(a.Partitions) == 0 {
				t.config.Logger.Warn("there are more workers than partitions: this one has nothing to do until another leaves",
					"partitions", t.config.Model.Partitions, "generation", a.Generation)
				continue
			}
			t.config.Logger.Info("partitions assigned", "generation", a.Generation, "partitions", a.Partitions)
			start()
		case err := <-ended:
			stop()
			running = false
			progressed := t.acknowledged.Load() > before
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil: // the end of the stream
				again, pause = time.After(lookEvery), pauseMin
				continue
			case !restartable(err):
				return err
			}
			if progressed {
				pause = pauseMin
			}
			t.config.Logger.Info("asking the shards how far they are", "because", err, "in", pause)
			again = time.After(pause)
			pause = min(2*pause, pauseMax)
		case <-again:
			again = nil
			start()
		case <-ctx.Done():
			return nil
		}
	}
}

// restartable reports whether asking the shards again can help.
func restartable(err error) bool {
	for _, fatal := range []error{ErrTooManySkips, ErrDiverged, ps.ErrInvalid, ps.ErrTooLarge, ps.ErrCorrupt, ps.ErrModelMismatch} {
		if errors.Is(err, fatal) {
			return false
		}
	}
	var stream *streamError
	return !errors.As(err, &stream)
}

// streamError is a failure of the stream itself.
type streamError struct{ err error }

func (e *streamError) Error() string { return fmt.Sprintf("reading the stream: %v", e.err) }
func (e *streamError) Unwrap() error { return e.err }
