package replica_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/replica"
)

// feed is a source of one shard: a base of one row, and then what changed in it. Outside of
// tests a client.Client is the source.
type feed struct{}

func (feed) Read(ctx context.Context, _ string, _ ps.Reading, _ <-chan []ps.ShardID, take func(*ps.Delta) error, current func([]ps.ShardID)) error {
	row := func(key ps.Key, weights ...float32) []ps.Block {
		return []ps.Block{{Table: 0, Stride: 16, Rows: append(ps.Bytes([]ps.Key{key}), ps.Bytes(weights)...)}}
	}
	at := func(applied ps.Offset, seq uint64) ps.ShardProgress {
		return ps.ShardProgress{Fence: 1, Seq: seq, Rows: 1, Partitions: []ps.Progress{{Applied: applied}}}
	}
	for _, d := range []*ps.Delta{
		{ShardProgress: at(10, 1), Blocks: row(7, 0.5, -0.25), More: true},
		{ShardProgress: at(10, 1), Part: 1}, // the base is whole
		{ShardProgress: at(20, 2), Since: 1, Blocks: row(7, 0.75, -0.5)},
	} {
		if err := take(d); err != nil {
			return err
		}
	}
	current([]ps.ShardID{0})
	<-ctx.Done()
	return nil
}

// A pod scores from weights in its own memory, which follow what is learned.
func ExampleReplica() {
	layout := ps.Layout{Seed: 1, Tables: []ps.Table{{
		Name: "users", Kind: ps.Float32, Width: 2,
		Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 1}, Initializer: ps.Initializer{Name: ps.Zero},
	}}}
	r, err := replica.New(replica.Config{
		Source: feed{}, Model: ps.Model{Name: "shop", Version: 1, Layout: layout, Stream: "clicks", Partitions: 1}, Shards: 1,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var tasks errgroup.Group
	tasks.Go(func() error { return r.Follow(ctx) })
	<-r.Ready()

	var keys ps.Group
	keys.Fill([]ps.Key{7, 8}, 1)
	reads := []ps.Read{{Table: 0, RowBytes: layout.Tables[0].RowBytes(), Group: &keys}}
	for r.Fresh().Applied[0] < 20 { // a pod does not wait for anything
		time.Sleep(time.Millisecond)
	}
	if err := r.Pull(ctx, "shop", layout.Hash(), reads); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ps.View[float32](reads[0].Values))

	stop()
	if err := tasks.Wait(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// [0.75 -0.5 0 0]
}
