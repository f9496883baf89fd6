package node

import (
	"context"
	"log/slog"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/shard"
)

// Standby is a copy of one shard that follows its owner, to take its place: what a node
// keeps of each shard that it stands by for. The zero value has followed nothing.
type Standby struct{ kept standby }

// Take brings the copy up to date. It wraps ps.ErrCorrupt if the delta does not continue
// what was taken before; the copy then has to be followed anew.
func (s *Standby) Take(d *ps.Delta, c shard.Config) error { return s.kept.take(d, c) }

// Whole returns what a node would tell of the copy of a shard of a model, and whether there
// is anything: a copy that is not whole is none.
func (s *Standby) Whole(model string, id ps.ShardID) (ps.Holding, bool) {
	return s.kept.holding(model, id)
}

// Restore makes a shard of a model ready to be served, and is what a node does when it
// opens one. If a copy was kept (it may be nil) and may be promoted, that is the shard.
// Otherwise it is as the newest epoch of the lineage has it that can be read whole, with the
// file that its rows descend from, if there is one: a damaged file makes the shard fall
// back to an older epoch, and at last to nothing, of which the logger is told. What cannot
// be read just now is an error. The bucket is e's; it may be nil if no epoch was taken.
func Restore(ctx context.Context, m ps.Model, c shard.Config, e checkpoint.Epoch, bucket *checkpoint.Bucket, kept *Standby, logger *slog.Logger) (s *shard.Shard, files []checkpoint.File, promoted bool, err error) {
	n := &Node{config: Config{Logger: logger}}
	n.standbys = standbys{node: n, models: make(map[string]*modelCopies)}
	if kept != nil {
		n.standbys.models[m.Name] = &modelCopies{model: m, copies: map[ps.ShardID]*standby{c.ID: &kept.kept}}
	}
	opened, err := n.load(ctx, opening{model: m, config: c}, &epochSource{epoch: e, bucket: bucket})
	if err != nil {
		return nil, nil, false, err
	}
	return opened.Shard, opened.files, opened.promoted, nil
}
