package node

import (
	"context"

	"github.com/freshet-ml/freshet/ps"
)

// Holdings returns what the node has of shards of all models, in no order: those that it
// owns and serves, and whole copies of others. It returns ps.ErrUnavailable.
func (n *Node) Holdings(ctx context.Context) ([]ps.Holding, error) {
	if err := n.serving(); err != nil {
		return nil, err
	}
	var holdings []ps.Holding
	for _, s := range n.stripes {
		if err := s.do(ctx, func(s *stripe) error {
			for model, shards := range s.shards {
				for id, held := range shards {
					if held != nil { // else it is being opened
						at := held.Progress()
						holdings = append(holdings, ps.Holding{
							Model: model, Shard: id, Fence: at.Fence, Seq: at.Seq, Rows: at.Rows, Bytes: uint64(held.Bytes()),
							KeysPulled: held.keysPulled, KeysPushed: held.keysPushed,
						})
					}
				}
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return n.standbys.holdings(holdings), nil
}

// holdings appends the whole copies.
func (b *standbys) holdings(to []ps.Holding) []ps.Holding {
	b.mu.Lock()
	defer b.mu.Unlock()
	for model, c := range b.models {
		c.mu.Lock()
		for id, s := range c.copies {
			if h, whole := s.holding(model, id); whole {
				to = append(to, h)
			}
		}
		c.mu.Unlock()
	}
	return to
}

// holding returns what there is of the copy, if it is whole.
func (s *standby) holding(model string, id ps.ShardID) (ps.Holding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole == nil {
		return ps.Holding{}, false
	}
	at := s.whole.Progress()
	return ps.Holding{Model: model, Shard: id, Fence: at.Fence, Seq: at.Seq, Copy: true, Rows: at.Rows, Bytes: uint64(s.whole.Bytes())}, true
}
