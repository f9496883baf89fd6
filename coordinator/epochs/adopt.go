package epochs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// Adopt makes a manifest that somebody made of a retained epoch, its parent, the newest of a
// new lineage: every shard is opened anew from it, and the stream is learned again from its
// offsets, which are the parent's. It may differ from the parent in rows alone, and a shard
// with other rows has one full file.
//
// It believes nothing: it reads manifest and files whole before it commits. A manifest that
// is no such one is refused and changes nothing, with ps.ErrInvalid, or ps.ErrCorrupt if
// something of it is damaged or not there. It wraps ps.ErrConflict if the parent is not
// retained in the model's lineage any more, or something came in between.
func (k *Keeper) Adopt(ctx context.Context, name string, ref checkpoint.Ref) (checkpoint.Retained, error) {
	k.taking.Lock()
	defer k.taking.Unlock()
	adopted, err := k.adopt(ctx, name, ref)
	if err != nil {
		return adopted, fmt.Errorf("adopt an epoch of model %s: %w", name, err)
	}
	k.config.Logger.Info("epoch adopted", "model", name, "epoch", adopted.Number, "lineage", adopted.Lineage, "events", adopted.Events)
	return adopted, nil
}

func (k *Keeper) adopt(ctx context.Context, name string, ref checkpoint.Ref) (checkpoint.Retained, error) {
	before, err := k.config.Store.View(ctx)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	model, err := modelOf(before, name)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	if err := k.sameBucket(before.Epochs[name].Epoch); err != nil {
		return checkpoint.Retained{}, err
	}
	m, err := checkpoint.ReadManifest(ctx, k.bucket, ref)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	parent, err := parentOf(before.Epochs[name].Epoch, m)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	base, err := checkpoint.ReadManifest(ctx, k.bucket, parent.Manifest)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	if err := k.grafted(ctx, model, base, m); err != nil {
		return checkpoint.Retained{}, err
	}
	if err := k.verify(ctx, m); err != nil {
		return checkpoint.Retained{}, err
	}
	// Reading took its time, in which others may have taken epochs of the same lineage.
	// As long as the parent is retained its files are, and what was learned since is
	// learned again.
	after, err := k.config.Store.View(ctx)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	if _, err := parentOf(after.Epochs[name].Epoch, m); err != nil {
		return checkpoint.Retained{}, err
	}
	next, err := k.beginLineage(ctx, after, m)
	if err != nil {
		return checkpoint.Retained{}, err
	}
	return next.Retained[0], nil
}

// parentOf returns the retained epoch that a manifest was made of. One of another lineage
// is none: to go on from there would take back a restore, or another import.
func parentOf(e checkpoint.Epoch, m checkpoint.Manifest) (checkpoint.Retained, error) {
	for _, r := range e.Retained {
		if r.Number == m.Parent && r.Lineage == e.Lineage {
			return r, nil
		}
	}
	return checkpoint.Retained{}, fmt.Errorf("it was made of epoch %d, which is not kept in lineage %d any more: begin again from the newest: %w",
		m.Parent, e.Lineage, ps.ErrConflict)
}

// grafted reports what else than rows a manifest and its parent differ in.
func (k *Keeper) grafted(ctx context.Context, model ps.Model, base, m checkpoint.Manifest) error {
	if m.Model != model.Name || m.Version != model.Version || m.Layout != model.Layout.Hash() || m.Stream != model.Stream ||
		m.Partitions != model.Partitions || len(m.Shards) != len(base.Shards) {
		return fmt.Errorf("it is of model %q, version %d, with layout %016x, stream %s of %d partitions and %d shards, which is not the cluster's: %w",
			m.Model, m.Version, m.Layout, m.Stream, m.Partitions, len(m.Shards), ps.ErrInvalid)
	}
	for i := range m.Shards {
		was, is := &base.Shards[i], &m.Shards[i]
		if is.Fence != was.Fence || !slices.Equal(is.Applied, was.Applied) {
			return fmt.Errorf("shard %d has fence %d and has applied %v, its parent has %d and %v: %w", i, is.Fence, is.Applied, was.Fence, was.Applied, ps.ErrInvalid)
		}
		if is.Seq == was.Seq && slices.Equal(is.Files, was.Files) {
			continue
		}
		if is.Seq <= was.Seq || len(is.Files) != 1 {
			return fmt.Errorf("shard %d has seq %d in %d files, its parent %d: want a higher one in a full file: %w", i, is.Seq, len(is.Files), was.Seq, ps.ErrInvalid)
		}
		if err := k.sameProgress(ctx, base, m, i); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

// sameProgress reports that the new file of a shard is not of the manifest's model, or has
// another account of events than its parent: counts and fingerprints are only there.
func (k *Keeper) sameProgress(ctx context.Context, base, m checkpoint.Manifest, shard int) error {
	is, err := k.head(ctx, m.Shards[shard].Files[0])
	if err != nil {
		return err
	}
	if is.Model != m.Model || is.Version != m.Version || is.Layout != m.Layout || is.Stream != m.Stream || is.Shards != len(m.Shards) {
		return fmt.Errorf("its file is of model %q, version %d, layout %016x, stream %s and %d shards: %w", is.Model, is.Version, is.Layout, is.Stream, is.Shards, ps.ErrInvalid)
	}
	was := checkpoint.Head{Partitions: make([]ps.Progress, m.Partitions), Tables: is.Tables}
	if files := base.Shards[shard].Files; len(files) > 0 {
		if was, err = k.head(ctx, files[len(files)-1]); err != nil {
			return err
		}
	}
	if !slices.Equal(is.Partitions, was.Partitions) || !slices.Equal(is.Tables, was.Tables) || is.Stored < was.Stored {
		return fmt.Errorf("its file has progress %+v, tables %v and %d rows, its parent %+v, %v and %d: %w",
			is.Partitions, is.Tables, is.Stored, was.Partitions, was.Tables, was.Stored, ps.ErrInvalid)
	}
	return nil
}

// head returns what a file is of.
func (k *Keeper) head(ctx context.Context, f checkpoint.File) (checkpoint.Head, error) {
	r, err := checkpoint.Open(ctx, k.bucket, f)
	if err != nil {
		return checkpoint.Head{}, err
	}
	return r.Head(), errors.Join(err, r.Close())
}
