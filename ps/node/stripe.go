package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// stripe is some of the node's shards and the lock that makes whoever works on them their
// one writer.
type stripe struct {
	rowsMax  int
	logger   *slog.Logger
	followed chan struct{} // capacity 1: tells run that deltas will be due

	mu sync.Mutex
	// Guarded by mu.
	fences map[ps.ShardID]ps.Fence
	models map[string]ps.Model
	total  int                               // shards of the cluster
	shards map[string]map[ps.ShardID]*opened // by model; nil while a shard is being opened
	ended  bool
}

func newStripe(rowsMax int, logger *slog.Logger) *stripe {
	return &stripe{
		rowsMax:  rowsMax,
		logger:   logger,
		followed: make(chan struct{}, 1),
		fences:   make(map[ps.ShardID]ps.Fence),
		shards:   make(map[string]map[ps.ShardID]*opened),
	}
}

// run publishes deltas when they are due, until ctx ends and with it the stripe.
func (s *stripe) run(ctx context.Context) error {
	var ticks <-chan time.Time // nil while nobody follows
	for {
		select {
		case <-s.followed:
			if ticks == nil {
				ticks = time.Tick(deltaEvery)
			}
		case <-ticks:
			s.mu.Lock()
			if !s.publishAllLocked() {
				ticks = nil
			}
			s.mu.Unlock()
		case <-ctx.Done():
			s.mu.Lock()
			s.ended = true
			s.mu.Unlock()
			return nil
		}
	}
}

// do runs op as the stripe's writer and returns its error. op must not wait for anything.
// It returns ps.ErrUnavailable, without running op, if the node has stopped, and ctx's
// error if it has ended.
func (s *stripe) do(ctx context.Context, op func(*stripe) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doLocked(op)
}

func (s *stripe) doLocked(op func(*stripe) error) error {
	if s.ended {
		return fmt.Errorf("node stopped: %w", ps.ErrUnavailable)
	}
	return op(s)
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

// pull reads the rows of the shards that are mine.
func (s *stripe) pull(p *ps.Pull, values [][]byte, mine func(ps.ShardID) bool) error {
	for t := range p.Tables {
		table := &p.Tables[t]
		if len(table.Keys) == 0 {
			continue
		}
		rowBytes := len(values[t]) / len(table.Keys)
		end := 0
		for i, id := range p.Shards {
			at := end
			end += int(table.Counts[i])
			if end == at || !mine(id) {
				continue
			}
			held, err := s.shard(p.Model, id)
			if err != nil {
				return err
			}
			var hints []ps.Hint
			if len(table.Hints) == len(table.Keys) {
				hints = table.Hints[at:end]
			}
			held.keysPulled += uint64(end - at)
			if err := held.Gather(table.Table, table.Keys[at:end], values[t][at*rowBytes:end*rowBytes], hints); err != nil {
				return err
			}
		}
	}
	return nil
}

// push applies one item.
func (s *stripe) push(u *ps.Update, item *ps.Item, now time.Time) ps.Answer {
	held, err := s.shard(u.Model, item.Shard)
	if err != nil {
		return ps.Answer{Shard: item.Shard, Outcome: ps.Refused, Err: err}
	}
	answer := held.Push(u, item)
	if answer.Outcome == ps.Applied {
		held.appliedAt = now
		for _, rows := range item.Rows {
			held.keysPushed += uint64(len(rows.Keys))
		}
	}
	if held.feed != nil && held.ChangedBytes() >= deltaBytes {
		held.publish()
	}
	return answer
}
