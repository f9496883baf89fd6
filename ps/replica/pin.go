package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/pace"
	"github.com/freshet-ml/freshet/ps/shard"
)

const (
	keyBytes = 8
	// pinLoads are the shards that are read at once while nothing is served: reading waits for
	// the bucket, and each is held twice while it is read. Then it is one, which rests so many
	// times as long as it works: whoever asks for scores is not to notice.
	pinLoads = 2
	pinRests = 7
	// pinPiece are the rows of a piece of work.
	pinPiece = 512
)

// Pin serves an epoch from its files, shard by shard, in the place of what is served. While
// it is under way, shards that have not been replaced are served as they were; if it fails,
// some are of the epoch and some are not, and it can be called again.
//
// It returns ps.ErrModelMismatch for an epoch of another model, layout or cluster, and
// ps.ErrCorrupt, ps.ErrUnavailable or the context's error if the files cannot be read.
func (r *Replica) Pin(ctx context.Context, bucket *checkpoint.Bucket, m checkpoint.Manifest) error {
	if m.Model != r.config.Model.Name || m.Layout != r.layout || len(m.Shards) != len(r.slots) || m.Partitions != r.config.Model.Partitions {
		return fmt.Errorf("epoch %d is of model %q with layout %016x, %d shards and %d partitions; the replica's are %q, %016x, %d and %d: %w",
			m.Epoch, m.Model, m.Layout, len(m.Shards), m.Partitions,
			r.config.Model.Name, r.layout, len(r.slots), r.config.Model.Partitions, ps.ErrModelMismatch)
	}
	end, err := r.begin(m.Epoch, m.Created)
	if err != nil {
		return err
	}
	defer end()
	releasing, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { r.releaseUntil(releasing); return nil })
	g.Go(func() error {
		defer stop()
		loads, ctx := errgroup.WithContext(ctx)
		loads.SetLimit(pinLoads)
		var rests pace.Pace
		select {
		case <-r.ready:
			loads.SetLimit(1)
			rests.Times = pinRests
		default:
		}
		for i := range m.Shards {
			loads.Go(func() error { return r.pinShard(ctx, bucket, m, &m.Shards[i], rests) })
		}
		return loads.Wait()
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("epoch %d: %w", m.Epoch, err)
	}
	return nil
}

// pinShard serves a shard as an epoch has it.
func (r *Replica) pinShard(ctx context.Context, bucket *checkpoint.Bucket, m checkpoint.Manifest, s *checkpoint.Shard, rests pace.Pace) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	rest := func() error {
		worked := time.Since(began)
		defer func() { began = time.Now() }()
		return rests.Rest(ctx, worked)
	}
	rows, read := &gathered{replica: r, open: make(map[ps.TableID]*ps.Block)}, 0
	if err := checkpoint.EachRow(ctx, bucket, r.config.Model.Layout, s, func(table ps.TableID, key ps.Key, weights []byte) error {
		if read++; read%pinPiece == 0 {
			if err := rest(); err != nil {
				return err
			}
		}
		return rows.add(table, key, weights)
	}); err != nil {
		return fmt.Errorf("shard %d: %w", s.Shard, err)
	}
	rows.finish()
	head := ps.Delta{
		ShardProgress: ps.ShardProgress{Shard: s.Shard, Fence: s.Fence, Seq: s.Seq, Rows: rows.count, Partitions: make([]ps.Progress, m.Partitions)},
		Lineage:       m.Lineage,
	}
	for p, applied := range s.Applied {
		head.Partitions[p].Applied = applied
	}
	for part := range len(rows.blocks) + 1 {
		d := head
		d.Part, d.More = part, part < len(rows.blocks)
		if d.More {
			d.Blocks = rows.blocks[part : part+1]
		}
		if err := r.take(&d); err != nil {
			return err
		}
		if err := rest(); err != nil {
			return err
		}
	}
	return nil
}

// gathered are the rows of a shard of an epoch, as a base has them.
type gathered struct {
	replica *Replica
	open    map[ps.TableID]*ps.Block
	blocks  []ps.Block
	count   uint64
}

// add adds a row.
func (g *gathered) add(table ps.TableID, key ps.Key, weights []byte) error {
	if !g.replica.reading.Tables.Has(table) {
		return nil
	}
	b := g.open[table]
	if b == nil {
		b = &ps.Block{Table: table, Stride: keyBytes + len(weights)}
		g.open[table] = b
	}
	b.Rows = append(binary.LittleEndian.AppendUint64(b.Rows, uint64(key)), weights...)
	if g.count++; len(b.Rows)+b.Stride > shard.BlockBytes {
		g.blocks = append(g.blocks, *b)
		delete(g.open, table)
	}
	return nil
}

// finish ends the blocks that are not full.
func (g *gathered) finish() {
	for id := range ps.TableID(len(g.replica.stored.Layout.Tables)) {
		if b := g.open[id]; b != nil {
			g.blocks = append(g.blocks, *b)
		}
	}
}
