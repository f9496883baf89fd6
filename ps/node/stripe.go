package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// queueDepth bounds the operations that wait for a stripe; a caller that finds it
// full waits with its request, which slows its stream down.
const queueDepth = 128 // two batches in flight from each of 64 workers

// stripe is one writer and the shards it alone touches.
type stripe struct {
	rowsMax int
	logger  *slog.Logger
	ops     chan func(*stripe) // never closed; run stops reading
	stopped chan struct{}      // closed when run returns

	// Owned by run.
	fences map[ps.ShardID]ps.Fence
	models map[string]ps.Model
	total  int                               // shards of the cluster
	shards map[string]map[ps.ShardID]*opened // by model; nil while a shard is being opened
	ticks  <-chan time.Time                  // when deltas are due; nil while nobody follows
}

func newStripe(rowsMax int, logger *slog.Logger) *stripe {
	return &stripe{
		rowsMax: rowsMax,
		logger:  logger,
		ops:     make(chan func(*stripe), queueDepth),
		stopped: make(chan struct{}),
		fences:  make(map[ps.ShardID]ps.Fence),
		shards:  make(map[string]map[ps.ShardID]*opened),
	}
}

// run executes operations until ctx ends.
func (s *stripe) run(ctx context.Context) error {
	defer close(s.stopped)
	for {
		select {
		case op := <-s.ops:
			op(s)
		case <-s.ticks:
			s.publishAll()
		case <-ctx.Done():
			return nil
		}
	}
}

// do queues an operation for run. It returns ps.ErrUnavailable if the stripe has
// stopped, and ctx's error if the queue stayed full too long.
func (s *stripe) do(ctx context.Context, op func(*stripe)) error {
	select {
	case s.ops <- op:
		return nil
	case <-s.stopped:
		return fmt.Errorf("node stopped: %w", ps.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hold makes the stripe own exactly the given shards, for all models. It returns what
// it does not hold yet and nobody is opening: a shard under a new fence is opened
// anew, because what an earlier ownership left in memory may have been overtaken.
func (s *stripe) hold(owned map[ps.ShardID]ps.Fence, models []ps.Model, shards int) []opening {
	for id, fence := range s.fences {
		if owned[id] == fence {
			continue
		}
		s.logger.Info("shard given up", "shard", id, "fence", fence)
		delete(s.fences, id)
		for _, held := range s.shards {
			if held[id] != nil && held[id].feed != nil {
				held[id].feed.Close()
			}
			delete(held, id)
		}
	}
	for id, fence := range owned {
		s.fences[id] = fence
	}
	s.total = shards
	s.models = make(map[string]ps.Model, len(models))
	var missing []opening
	for _, model := range models {
		s.models[model.Name] = model
		if s.shards[model.Name] == nil {
			s.shards[model.Name] = make(map[ps.ShardID]*opened)
		}
		held := s.shards[model.Name]
		for id, fence := range owned {
			if _, known := held[id]; known {
				continue
			}
			held[id] = nil // it is being opened
			missing = append(missing, opening{model: model, config: shard.Config{Model: model, ID: id, Shards: shards, Fence: fence, RowsMax: s.rowsMax}})
		}
	}
	return missing
}

// install takes in a shard that was opened, unless it is owned no more.
func (s *stripe) install(o opening, loaded *opened) {
	held, owned := s.shards[o.model.Name], s.fences[o.config.ID] == o.config.Fence
	if now, known := held[o.config.ID]; owned && known && now == nil {
		held[o.config.ID] = loaded
	}
}

// shard returns the state of a model at a shard.
func (s *stripe) shard(model string, id ps.ShardID) (*opened, error) {
	if _, owned := s.fences[id]; !owned {
		return nil, fmt.Errorf("shard %d: %w", id, ps.ErrNotOwner)
	}
	held, known := s.shards[model][id]
	switch {
	case !known:
		return nil, fmt.Errorf("model %q at shard %d: %w", model, id, ps.ErrUnknownModel)
	case held == nil:
		return nil, fmt.Errorf("shard %d is being opened: %w", id, ps.ErrNoOwner)
	}
	return held, nil
}

// pullRead is one shard's part of one table of a pull.
type pullRead struct {
	shard  ps.ShardID
	table  ps.TableID
	keys   []ps.Key
	values []byte
}

// pull serves the reads of the stripe's own shards.
func (s *stripe) pull(model string, reads []pullRead, mine func(ps.ShardID) bool) error {
	for _, r := range reads {
		if !mine(r.shard) {
			continue
		}
		held, err := s.shard(model, r.shard)
		if err != nil {
			return err
		}
		if err := held.Gather(r.table, r.keys, r.values); err != nil {
			return err
		}
	}
	return nil
}

// push applies one item.
func (s *stripe) push(u *ps.Update, item *ps.Item) ps.Answer {
	held, err := s.shard(u.Model, item.Shard)
	if err != nil {
		return ps.Answer{Shard: item.Shard, Outcome: ps.Refused, Err: err}
	}
	answer := held.Push(u, item)
	if held.feed != nil && held.ChangedBytes() >= deltaBytes {
		held.publish()
	}
	return answer
}
