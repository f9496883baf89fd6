package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/chain"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/pace"
	"github.com/freshet-ml/freshet/ps/shard"
)

// restTimes is how long a snapshot rests for the time that it works: after each millisecond
// of reading and writing it leaves processor and disk to training for so many. That is about
// as much as training may lose to it, and a shard's memory of what pushes change meanwhile
// stays small even so, since shards are read one after the other.
const restTimes = 15

// TakeSnapshots writes a snapshot of each wanted shard to the bucket, one after the
// other in each stripe, while pushes go on, and tells done of each; done is called by
// one goroutine at a time. It returns done's error, or ctx's; what is wrong with one
// shard is in its Taken.
func (n *Node) TakeSnapshots(ctx context.Context, model, bucketURL string, wants []checkpoint.Want, done func(checkpoint.Taken) error) error {
	if err := n.serving(); err != nil {
		return err
	}
	bucket, err := checkpoint.OpenBucket(ctx, bucketURL)
	if err != nil {
		return err
	}
	defer bucket.Close()
	turn := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	for i, s := range n.stripes {
		g.Go(func() error {
			for _, w := range wants {
				if n.stripeOf(w.Shard) != i {
					continue
				}
				taken := s.takeSnapshot(ctx, bucket, model, w, n.stopped)
				select {
				case turn <- struct{}{}:
				case <-ctx.Done():
					return ctx.Err()
				}
				err := done(taken)
				<-turn
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// takeSnapshot writes a snapshot of one shard. The shard's owner reads a block at a
// time between pushes; writing happens here, beside it.
func (s *stripe) takeSnapshot(ctx context.Context, bucket *checkpoint.Bucket, model string, w checkpoint.Want, stopped <-chan struct{}) checkpoint.Taken {
	taken := checkpoint.Taken{Shard: w.Shard}
	fail := func(err error) checkpoint.Taken {
		taken.Err = fmt.Errorf("snapshot of shard %d: %w", w.Shard, err)
		return taken
	}
	held, err := s.takeTurn(ctx, model, w.Shard, stopped)
	if err != nil {
		return fail(err)
	}
	defer func() { <-held.turn }()
	var snapshot *shard.Snapshot
	var head checkpoint.Head
	err = s.do(ctx, func(s *stripe) (err error) {
		if now, err := s.shard(model, w.Shard); err != nil || now != held {
			return errors.Join(err, fmt.Errorf("it was opened anew meanwhile: %w", ps.ErrNoOwner))
		}
		progress := held.Progress()
		parent, descends := held.file(w.Parent)
		taken.Fence, taken.Seq = progress.Fence, progress.Seq
		for _, p := range progress.Partitions {
			taken.Applied = append(taken.Applied, p.Applied)
		}
		if (descends && parent.Seq == progress.Seq) || progress.Seq == 0 {
			return nil // nothing has changed
		}
		if snapshot, err = held.Snapshot(parent.Seq); err != nil {
			return err
		}
		of := s.models[model]
		head = chain.Head(&of, s.total, snapshot.Head(), held.Strides(), parent)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if snapshot == nil {
		return taken
	}
	// The snapshot is given up at the end even if ctx has ended: while it is under
	// way, pushes copy rows for it.
	defer func() {
		_ = s.do(context.WithoutCancel(ctx), func(*stripe) error {
			snapshot.Close()
			return nil
		})
	}()
	file, err := s.write(ctx, bucket, snapshot, head)
	if err != nil {
		return fail(err)
	}
	if err := s.do(ctx, func(*stripe) error {
		held.wrote(file)
		return nil
	}); err != nil {
		return fail(err)
	}
	taken.File = file
	return taken
}

// takeTurn waits until no snapshot of a shard is under way and keeps others from
// beginning one. Whoever has the turn gives it back by reading from it.
func (s *stripe) takeTurn(ctx context.Context, model string, id ps.ShardID, stopped <-chan struct{}) (held *opened, err error) {
	if err := s.do(ctx, func(s *stripe) (err error) {
		held, err = s.shard(model, id)
		return err
	}); err != nil {
		return nil, err
	}
	select {
	case held.turn <- struct{}{}:
		return held, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-stopped:
		return nil, fmt.Errorf("node stopped: %w", ps.ErrUnavailable)
	}
}

// write reads a snapshot to its end and writes its file, resting in between.
func (s *stripe) write(ctx context.Context, bucket *checkpoint.Bucket, snapshot *shard.Snapshot, head checkpoint.Head) (checkpoint.File, error) {
	w, err := checkpoint.Create(ctx, bucket, checkpoint.Name(&head, rand.Uint64()), head)
	if err != nil {
		return checkpoint.File{}, err
	}
	defer w.Abort()
	pace := pace.Pace{Times: restTimes}
	buffer := make([]byte, shard.BlockBytes)
	for {
		var block ps.Block
		var reading time.Duration // without the wait for the stripe, which others use
		err := s.do(ctx, func(*stripe) (err error) {
			start := time.Now()
			block, err = snapshot.Read(buffer)
			reading = time.Since(start)
			return err
		})
		if errors.Is(err, io.EOF) {
			return w.Close()
		}
		start := time.Now()
		if err == nil && len(block.Rows) > 0 {
			err = w.Rows(block.Table, block.Stride, block.Rows)
		}
		if err == nil {
			err = pace.Rest(ctx, reading+time.Since(start))
		}
		if err != nil {
			return checkpoint.File{}, err
		}
	}
}
