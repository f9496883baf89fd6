// Package chain makes a shard of its chain of files, a full snapshot and what was added
// to it since, and describes what is written of a shard.
//
// The one idea to keep in mind: package shard knows no files, package checkpoint no rows'
// meaning. Here is what both say of a snapshot, and nothing else.
package chain

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/shard"
)

// Load returns the shard that c describes as an epoch has it: without rows and at the
// stream's beginning if the epoch has no files of it. It wraps ps.ErrCorrupt if manifest or
// files are damaged or of another model, ps.ErrUnavailable if the bucket cannot be read
// just now, and as shard.Load and Loader.Rows do.
func Load(ctx context.Context, bucket *checkpoint.Bucket, m *checkpoint.Manifest, c shard.Config) (*shard.Shard, error) {
	model := &c.Model
	if m.Model != model.Name || m.Layout != model.Layout.Hash() || m.Stream != model.Stream || len(m.Shards) != c.Shards {
		return nil, fmt.Errorf("epoch %d is of model %q with layout %016x, stream %s and %d shards: %w",
			m.Epoch, m.Model, m.Layout, m.Stream, len(m.Shards), ps.ErrCorrupt)
	}
	files := m.Shards[c.ID].Files
	if len(files) == 0 {
		return shard.New(c)
	}
	loader, err := shard.Load(c)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := loadFile(ctx, bucket, f, &c, loader); err != nil {
			return nil, err
		}
	}
	return loader.Shard()
}

// loadFile hands one file to the loader.
func loadFile(ctx context.Context, bucket *checkpoint.Bucket, f checkpoint.File, c *shard.Config, loader *shard.Loader) (err error) {
	r, err := checkpoint.Open(ctx, bucket, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	h, model := r.Head(), &c.Model
	if h.Model != model.Name || h.Layout != model.Layout.Hash() || h.Stream != model.Stream || h.Shards != c.Shards {
		return fmt.Errorf("file %s is of model %q with layout %016x, stream %s and %d shards: %w", f.Name, h.Model, h.Layout, h.Stream, h.Shards, ps.ErrCorrupt)
	}
	if err := loader.Begin(shard.Head{Since: h.Since, ShardProgress: ps.ShardProgress{
		Shard: h.Shard, Fence: h.Fence, Seq: h.Seq, Rows: h.Stored, Partitions: h.Partitions,
	}}); err != nil {
		return fmt.Errorf("file %s: %w", f.Name, err)
	}
	for {
		table, stride, rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if stride == checkpoint.TombstoneBytes {
			return fmt.Errorf("file %s has tombstones, which this version does not write: %w", f.Name, ps.ErrCorrupt)
		}
		if err := loader.Rows(ps.Block{Table: table, Stride: stride, Rows: rows}); err != nil {
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
	}
}

// Head describes the file of a snapshot, of a model's shard among as many as the cluster
// has. strides are those of its tables (see shard.Shard.Strides), and parent is the file
// that the snapshot adds to, or the zero File.
func Head(model *ps.Model, shards int, of shard.Head, strides []int, parent checkpoint.File) checkpoint.Head {
	head := checkpoint.Head{
		Model: model.Name, Version: model.Version, Layout: model.Layout.Hash(), Stream: model.Stream,
		Shard: of.Shard, Shards: shards, Fence: of.Fence, Seq: of.Seq, Stored: of.Rows,
		Parent: parent.Ref, Since: of.Since, Partitions: of.Partitions,
	}
	for i, stride := range strides {
		head.Tables = append(head.Tables, checkpoint.Table{Kind: model.Layout.Tables[i].Kind, Stride: stride})
	}
	return head
}
