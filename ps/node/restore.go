package node

import (
	"context"
	"log/slog"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/shard"
)

// Restore returns a shard of a model as the newest epoch of the lineage has it that
// can be read whole, and the file that its rows descend from, if there is one. It is
// what a node does when it opens a shard: a damaged file makes the shard fall back to
// an older epoch, and at last to nothing, of which the logger is told; what cannot be
// read just now is an error. The bucket is e's; it may be nil if no epoch was taken.
func Restore(ctx context.Context, m ps.Model, c shard.Config, e checkpoint.Epoch, bucket *checkpoint.Bucket, logger *slog.Logger) (*shard.Shard, []checkpoint.File, error) {
	n := &Node{config: Config{Logger: logger}}
	loaded, err := n.load(ctx, opening{model: m, config: c}, &epochSource{epoch: e, bucket: bucket})
	if err != nil {
		return nil, nil, err
	}
	return loaded.Shard, loaded.files, nil
}
