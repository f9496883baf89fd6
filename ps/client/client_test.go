package client_test

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/route"
)

// late is a node that hears of its newest ownership only after it was asked twice.
type late struct {
	psv1.UnimplementedParametersServer
	asked atomic.Int64
}

func (l *late) Applied(context.Context, *psv1.AppliedRequest) (*psv1.AppliedResponse, error) {
	answer := &psv1.ShardProgress{Fence: 1, Partitions: []*psv1.Progress{{Applied: 3}}}
	if l.asked.Add(1) > 2 {
		answer = &psv1.ShardProgress{Fence: 3, Partitions: []*psv1.Progress{{Applied: 1}}}
	}
	return &psv1.AppliedResponse{Shards: []*psv1.ShardProgress{answer}}, nil
}

// always is a shard map that never changes.
type always route.Map

func (m always) WatchMap(ctx context.Context) <-chan route.Map {
	maps := make(chan route.Map, 1)
	maps <- route.Map(m)
	context.AfterFunc(ctx, func() { close(maps) })
	return maps
}

func TestWhatANodeHadBeforeItLostAShardIsNotWhatTheShardHas(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node, s := new(late), grpc.NewServer()
	psv1.RegisterParametersServer(s, node)
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	defer func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c, err := client.Dial(t.Context(), client.Config{Logger: slog.New(slog.DiscardHandler), Routes: always{
		Version: 1, Shards: []route.Shard{{Owner: "a", Fence: 3}}, Addresses: map[ps.NodeID]string{"a": listener.Addr().String()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	if got := progress[0]; got.Fence != 3 || got.Partitions[0].Applied != 1 {
		t.Errorf("after %d replies the shard has applied %d under fence %d, want 1 under 3", node.asked.Load(), got.Partitions[0].Applied, got.Fence)
	}
}
