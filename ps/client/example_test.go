package client_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/server"
)

// alone is a cluster of one node and one model.
type alone struct {
	always
	model ps.Model
}

func (a alone) WatchModels(ctx context.Context) <-chan []ps.Model {
	models := make(chan []ps.Model, 1)
	models <- []ps.Model{a.model}
	context.AfterFunc(ctx, func() { close(models) })
	return models
}

func (a alone) Epoch(context.Context, string) (checkpoint.Epoch, error) {
	return checkpoint.Epoch{}, nil
}

// serveAlone serves a model at a node of this process until ctx ends.
func serveAlone(ctx context.Context, tasks *errgroup.Group, model ps.Model) (alone, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return alone{}, err
	}
	cluster := alone{model: model, always: always{
		Version: 1, Shards: []route.Shard{{Owner: "a", Fence: 1}, {Owner: "a", Fence: 1}},
		Addresses: map[ps.NodeID]string{"a": listener.Addr().String()},
	}}
	n, err := node.New(node.Config{ID: "a", Ownership: cluster, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return alone{}, err
	}
	s := grpc.NewServer(server.Options()...)
	server.Register(s, n, cluster)
	if err := server.RegisterLookups(s, n, server.LookupLimits{}); err != nil {
		return alone{}, err
	}
	tasks.Go(func() error { return n.Run(ctx) })
	tasks.Go(func() error { return s.Serve(listener) })
	context.AfterFunc(ctx, s.Stop)
	<-n.Ready()
	return cluster, nil
}

// A recommender that keeps nothing looks up what a model has learnt about users.
func ExampleReader_Weights() {
	ctx, stop := context.WithCancel(context.Background())
	var tasks errgroup.Group
	layout := ps.Layout{Seed: 1, Tables: []ps.Table{{
		Name: "users", Kind: ps.Float32, Width: 2,
		Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 1}, Initializer: ps.Initializer{Name: ps.Zero},
	}}}
	cluster, err := serveAlone(ctx, &tasks, ps.Model{Name: "shop", Version: 1, Layout: layout, Stream: "clicks", Partitions: 1})
	if err != nil {
		log.Fatal(err)
	}
	// Outside of tests, client.Addresses gives the routes by the address of any node.
	c, err := client.Dial(ctx, client.Config{Routes: cluster, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}

	// A worker has pushed a gradient for user 7.
	var event ps.Fingerprint
	event.Add(ps.EventHash(0, 0))
	wait, err := c.Push(ctx, &ps.Update{
		Model: "shop", Stream: "clicks", Layout: layout.Hash(), Version: 1, To: 1,
		Items: []ps.Item{{Shard: 0, Trained: 1, Fingerprint: event, Rows: []ps.Rows{{Keys: []ps.Key{7}, Values: ps.Bytes([]float32{-0.5, 0.25})}}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := wait(ctx); err != nil {
		log.Fatal(err)
	}

	// Users who were never seen have their initial weights; keys may repeat.
	users := client.NewReader(c, "shop", layout, client.LookupOptions{Seen: new(client.Seen)})
	weights, fresh, err := users.Weights(ctx, "users", []ps.Key{7, 8, 7}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("weights", weights)
	for _, f := range fresh {
		fmt.Printf("shard %d has all events below offset %d\n", f.Shard, f.Applied[0])
	}

	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	stop()
	if err := tasks.Wait(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// weights [0.5 -0.25 0 0 0.5 -0.25]
	// shard 0 has all events below offset 1
}
