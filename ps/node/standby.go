package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/shard"
)

// Copies brings what changes in shards of other nodes; ps/client has it. See there for
// what take is given.
type Copies interface {
	Follow(ctx context.Context, model string, shards <-chan []ps.ShardID, take func(*ps.Delta) error) error
}

// standbys are the copies that a node keeps of shards of others, to take them over.
type standbys struct {
	node *Node
	wg   sync.WaitGroup

	mu     sync.Mutex
	models map[string]*modelCopies // guarded by mu; by name
}

// modelCopies are the copies of one model.
type modelCopies struct {
	model  ps.Model
	shards int
	cancel context.CancelFunc
	wanted chan []ps.ShardID // capacity 1: the latest

	mu     sync.Mutex
	copies map[ps.ShardID]*standby // guarded by mu; nil where nothing has come yet; not there if not wanted
}

// standby is a copy of one shard.
type standby struct {
	mu sync.Mutex
	// whole was whole once and is kept up to date; nil before.
	whole *shard.Loader
	// next is a base that is not whole yet, or nil. It takes whole's place when it is.
	next *shard.Loader
	// parts are those of a delta that is not whole yet.
	parts []*ps.Delta
}

// hold makes the node keep copies of exactly the shards that the map says, of all
// models.
func (b *standbys) hold(ctx context.Context, m route.Map, models []ps.Model) {
	if b.node.config.Copies == nil {
		return
	}
	shards := m.Copies(b.node.config.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	known := make(map[string]bool, len(models))
	for _, model := range models {
		known[model.Name] = true
		c := b.models[model.Name]
		if c != nil && !c.keeps(model) {
			c.cancel()
			c = nil
		}
		if c == nil {
			if len(shards) == 0 {
				continue
			}
			c = b.begin(ctx, model, len(m.Shards))
		}
		c.want(shards, m.Owned(b.node.config.ID))
	}
	for name, c := range b.models {
		if !known[name] {
			c.cancel()
			delete(b.models, name)
		}
	}
}

// begin starts to follow shards of a model. b.mu is held.
func (b *standbys) begin(ctx context.Context, model ps.Model, shards int) *modelCopies {
	ctx, cancel := context.WithCancel(ctx)
	c := &modelCopies{
		model: model, shards: shards, cancel: cancel,
		wanted: make(chan []ps.ShardID, 1), copies: make(map[ps.ShardID]*standby),
	}
	b.models[model.Name] = c
	b.wg.Go(func() {
		if err := b.node.config.Copies.Follow(ctx, model.Name, c.wanted, c.take(b.node.config.RowsMax)); err != nil {
			b.node.config.Logger.Error("copies are not kept any more", "model", model.Name, "error", err)
		}
	})
	return c
}

// want says which shards to keep copies of. The copy of a shard that is owned now is
// kept until it was promoted or is of no use.
func (c *modelCopies) want(shards []ps.ShardID, owned map[ps.ShardID]ps.Fence) {
	select {
	case <-c.wanted:
	default:
	}
	c.wanted <- shards
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[ps.ShardID]*standby, len(shards))
	for _, id := range shards {
		if next[id] = c.copies[id]; next[id] == nil {
			next[id] = &standby{}
		}
	}
	for id := range owned {
		if s := c.copies[id]; s != nil {
			next[id] = s
		}
	}
	c.copies = next
}

// keeps reports whether the copies are of the model as it is given.
func (c *modelCopies) keeps(m ps.Model) bool {
	return c.model.Version == m.Version && c.model.Stream == m.Stream && c.model.Layout.Hash() == m.Layout.Hash()
}

// of returns the copy of a shard, or nil if none is kept.
func (c *modelCopies) of(id ps.ShardID) *standby {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.copies[id]
}

// take returns what is given to Copies.Follow.
func (c *modelCopies) take(rowsMax int) func(*ps.Delta) error {
	return func(d *ps.Delta) error {
		s := c.of(d.Shard)
		if s == nil {
			return nil // not wanted any more
		}
		// A copy becomes the owner under the fence that follows the one it has followed.
		return s.take(d, shard.Config{Model: c.model, ID: d.Shard, Shards: c.shards, Fence: d.Fence + 1, RowsMax: rowsMax})
	}
}

// take brings the copy up to date.
func (s *standby) take(d *ps.Delta, config shard.Config) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole != nil && d.Fence < s.whole.Progress().Fence || s.next != nil && d.Fence < s.next.Progress().Fence {
		return nil // of an owner that was followed by another
	}
	if d.Since == 0 {
		return s.takeBase(d, config)
	}
	if s.whole == nil || s.next != nil {
		return fmt.Errorf("shard %d: a delta without its base: %w", d.Shard, ps.ErrCorrupt)
	}
	// Half a delta would make the copy useless, so it is taken as a whole.
	if s.parts = append(s.parts, d); d.More {
		return nil
	}
	parts := s.parts
	s.parts = nil
	for _, d := range parts {
		if err := s.whole.Take(d); err != nil {
			s.whole = nil
			return err
		}
	}
	return nil
}

// takeBase takes a part of a base. Until it is whole, an older copy stays.
func (s *standby) takeBase(d *ps.Delta, config shard.Config) (err error) {
	if d.Part == 0 {
		s.parts = nil
		if s.next, err = shard.Load(config); err != nil {
			return err
		}
	}
	if s.next == nil {
		return fmt.Errorf("shard %d: part %d of a base without those before it: %w", d.Shard, d.Part, ps.ErrCorrupt)
	}
	if err := s.next.Take(d); err != nil {
		s.next = nil
		return err
	}
	if s.next.Whole() {
		s.whole, s.next = s.next, nil
	}
	return nil
}

// MayPromote returns nil if a whole copy may become the owner of its shard under a
// fence: it has followed the ownership before, and has applied all that the newest
// committed epoch has (none if there is no epoch), in every partition, so that nothing
// it lacks can have been trimmed from the stream. Otherwise it says why not.
//
// It has to be asked after the change of owner: from then on no epoch can commit more
// of the shard under an older fence.
func MayPromote(c ps.ShardProgress, fence ps.Fence, epoch []ps.Offset) error {
	if c.Fence+1 != fence {
		return fmt.Errorf("the copy of shard %d has followed fence %d, not %d: %w", c.Shard, c.Fence, fence-1, ps.ErrConflict)
	}
	for p, applied := range epoch {
		if c.Partitions[p].Applied < applied {
			return fmt.Errorf("the copy of shard %d has applied %d of partition %d, the newest epoch %d: %w",
				c.Shard, c.Partitions[p].Applied, p, applied, ps.ErrConflict)
		}
	}
	return nil
}

// promote returns the copy that was kept of a shard as the shard itself, or nil if
// there is none that may become it. A copy serves once.
func (n *Node) promote(ctx context.Context, o opening, source *epochSource) (*opened, error) {
	s := n.standbys.of(o.model, o.config.ID)
	if s == nil {
		return nil, nil
	}
	epoch, err := source.applied(ctx, o)
	if err != nil {
		return nil, err // whether it may be promoted is not known yet
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	whole := s.whole
	s.whole, s.next, s.parts = nil, nil, nil
	if whole == nil || !whole.Whole() {
		return nil, nil
	}
	if err := MayPromote(whole.Progress(), o.config.Fence, epoch); err != nil {
		n.config.Logger.Info("a copy is not promoted; the shard is restored", "model", o.model.Name, "shard", o.config.ID, "because", err)
		return nil, nil
	}
	promoted, err := whole.Shard()
	if err != nil {
		return nil, nil //nolint:nilerr // it was whole, and where it was not, the epoch is as good
	}
	result := newOpened(promoted)
	result.promoted = true
	return result, nil
}

// of returns the copy that is kept of a shard of a model, or nil.
func (b *standbys) of(model ps.Model, id ps.ShardID) *standby {
	b.mu.Lock()
	c := b.models[model.Name]
	b.mu.Unlock()
	if c == nil || !c.keeps(model) {
		return nil
	}
	return c.of(id)
}

// applied returns what the newest epoch of the lineage whose manifest can be read has
// applied of a shard; nil if there is none.
func (s *epochSource) applied(ctx context.Context, o opening) ([]ps.Offset, error) {
	for _, retained := range s.epoch.Retained {
		if retained.Lineage != s.epoch.Lineage {
			continue
		}
		m, err := s.manifest(ctx, retained)
		if errors.Is(err, ps.ErrCorrupt) {
			continue // nobody can be restored from it either
		}
		if err != nil {
			return nil, err
		}
		if int(o.config.ID) < len(m.Shards) && m.Partitions == o.model.Partitions {
			return m.Shards[o.config.ID].Applied, nil
		}
	}
	return nil, nil
}
