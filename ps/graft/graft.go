// Package graft makes a manifest of an epoch in which some rows of a table have weights
// that were learned elsewhere. It reads and writes the bucket and asks no node; what it
// wrote counts for nothing before a coordinator adopts it (see coordinator/epochs).
//
// The one idea to keep in mind: in a running cluster rows change by pushes alone, each with
// the offsets it comes from. Rows from outside come from no event, so they are no push:
// they make another epoch, from which a new lineage begins, and what the stream has brought
// since the epoch it was made of is learned again.
//
// Invariants:
//
//  1. Offsets, counts and fingerprints of every shard are those of the base.
//  2. Nothing of the base is changed; what was written is garbage unless it is adopted.
package graft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/chain"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/shard"
)

// Config says what becomes of which epoch.
type Config struct {
	Bucket *checkpoint.Bucket
	// Base is the manifest of a retained epoch of Model.
	Base  checkpoint.Manifest
	Model ps.Model
	// Rows are weights by key, each key once. They are not changed.
	Rows ps.Rows
	// Fresh gives rows that are there the optimizer state of a new row. Without it they
	// keep theirs.
	Fresh bool
	// DryRun counts and writes nothing.
	DryRun bool
	// Created goes into the manifest, for people.
	Created time.Time
	// Progress, if not nil, is told after each shard how many have their rows. It is
	// called by one goroutine at a time and must not block.
	Progress func(shards int)
}

// Result is what was made.
type Result struct {
	// Manifest is what a coordinator is to adopt; the zero Ref after a dry run.
	Manifest checkpoint.Ref
	// Born rows were not there before; Replaced ones were.
	Born, Replaced int64
	// Shards have at least one of them, and so a file of their own, of Bytes in all.
	Shards int
	Bytes  int64
}

// Run makes the files and the manifest. A shard is in memory while its file is made, and
// there are as many at a time as processors. It wraps ps.ErrInvalid if a row is none of the
// table's, ps.ErrCorrupt or ps.ErrUnavailable as chain.Load does, and what Create and Rows of
// package checkpoint do.
func Run(ctx context.Context, c Config) (Result, error) {
	r := runner{Config: c, next: c.Base}
	width, err := c.rowBytes()
	if err != nil {
		return r.result, err
	}
	r.next.Shards = append([]checkpoint.Shard(nil), c.Base.Shards...)
	r.next.Epoch, r.next.Parent, r.next.Lineage, r.next.Created = c.Base.Epoch+1, c.Base.Epoch, c.Base.Lineage+1, c.Created
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for id, positions := range byShard(c.Rows.Keys, len(c.Base.Shards)) {
		if len(positions) == 0 {
			continue
		}
		work.Go(func() error { return r.shard(ctx, ps.ShardID(id), positions, width) })
	}
	if err := work.Wait(); err != nil || c.DryRun {
		return r.result, err
	}
	r.result.Manifest, err = checkpoint.WriteManifest(ctx, c.Bucket, r.next)
	return r.result, err
}

// rowBytes returns the size of a row's weights, or that rows are not what they have to be.
func (c *Config) rowBytes() (int, error) {
	if int(c.Rows.Table) >= len(c.Model.Layout.Tables) {
		return 0, fmt.Errorf("rows of table %d of a layout of %d: %w", c.Rows.Table, len(c.Model.Layout.Tables), ps.ErrInvalid)
	}
	t := c.Model.Layout.Tables[c.Rows.Table]
	if len(c.Rows.Values) != len(c.Rows.Keys)*t.RowBytes() {
		return 0, fmt.Errorf("table %s: %d bytes of weights for %d rows of %d: %w", t.Name, len(c.Rows.Values), len(c.Rows.Keys), t.RowBytes(), ps.ErrInvalid)
	}
	return t.RowBytes(), nil
}

// byShard returns the positions of keys, by their shard.
func byShard(keys []ps.Key, shards int) [][]int {
	positions := make([][]int, shards)
	for i, key := range keys {
		of := ps.ShardOf(key, shards)
		positions[of] = append(positions[of], i)
	}
	return positions
}

// runner is a Run under way.
type runner struct {
	Config

	mu     sync.Mutex
	next   checkpoint.Manifest // its Shards are guarded by mu
	result Result              // guarded by mu
}

// shard makes one shard's file with the rows at the given positions.
func (r *runner) shard(ctx context.Context, id ps.ShardID, positions []int, rowBytes int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	base := &r.Base.Shards[id]
	s, err := chain.Load(ctx, r.Bucket, &r.Base, shard.Config{Model: r.Model, ID: id, Shards: len(r.Base.Shards), Fence: base.Fence})
	if err != nil {
		return fmt.Errorf("shard %d of epoch %d: %w", id, r.Base.Epoch, err)
	}
	keys := make([]ps.Key, len(positions))
	weights := make([]byte, 0, len(positions)*rowBytes)
	for i, at := range positions {
		keys[i] = r.Rows.Keys[at]
		weights = append(weights, r.Rows.Values[at*rowBytes:(at+1)*rowBytes]...)
	}
	born, err := s.Set(r.Rows.Table, keys, weights, r.Fresh)
	if err != nil {
		return err
	}
	entry := *base
	if !r.DryRun {
		file, err := write(ctx, r.Bucket, &r.Model, len(r.Base.Shards), s)
		if err != nil {
			return fmt.Errorf("shard %d: %w", id, err)
		}
		entry.Seq, entry.Files = file.Seq, []checkpoint.File{file}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next.Shards[id] = entry
	r.result.Born += int64(born)
	r.result.Replaced += int64(len(keys) - born)
	if !r.DryRun {
		r.result.Bytes += entry.Files[0].Bytes
	}
	if r.result.Shards++; r.Progress != nil {
		r.Progress(r.result.Shards)
	}
	return nil
}

// write writes a full snapshot of a shard.
func write(ctx context.Context, bucket *checkpoint.Bucket, model *ps.Model, shards int, s *shard.Shard) (checkpoint.File, error) {
	snapshot, err := s.Snapshot(0)
	if err != nil {
		return checkpoint.File{}, err
	}
	defer snapshot.Close()
	head := chain.Head(model, shards, snapshot.Head(), s.Strides(), checkpoint.File{})
	w, err := checkpoint.Create(ctx, bucket, checkpoint.Name(&head, rand.Uint64()), head)
	if err != nil {
		return checkpoint.File{}, err
	}
	defer w.Abort()
	buffer := make([]byte, shard.BlockBytes)
	for {
		block, err := snapshot.Read(buffer)
		if errors.Is(err, io.EOF) {
			return w.Close()
		}
		if err != nil {
			return checkpoint.File{}, err
		}
		if err := w.Rows(block.Table, block.Stride, block.Rows); err != nil {
			return checkpoint.File{}, err
		}
	}
}
