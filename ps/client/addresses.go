package client

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Addresses returns Routes that watch the shard map at any of the given nodes or
// coordinators (host:port), in turn, and where none of them answers, at the nodes of the
// last map that was seen. It is for those who have no etcd, such as inference pods.
func Addresses(logger *slog.Logger, options []grpc.DialOption, addresses ...string) (Routes, error) {
	if len(addresses) == 0 {
		return nil, fmt.Errorf("no address of a node or coordinator: %w", ps.ErrInvalid)
	}
	return &remoteRoutes{logger: logger, options: options, addresses: addresses}, nil
}

type remoteRoutes struct {
	logger    *slog.Logger
	options   []grpc.DialOption
	addresses []string
}

// WatchMap watches at one address until that fails, then at the next. Having tried
// them all, and one node of the last map, it pauses.
func (r *remoteRoutes) WatchMap(ctx context.Context) <-chan route.Map {
	newer := make(chan route.Map, 1)
	go func() {
		defer close(newer)
		var last route.Map
		for i := 0; ctx.Err() == nil; i++ {
			address := r.addresses[i%len(r.addresses)]
			r.watchAt(ctx, address, &last, newer)
			if (i+1)%len(r.addresses) != 0 {
				continue
			}
			if nodes := slices.Sorted(maps.Values(last.Addresses)); len(nodes) > 0 && ctx.Err() == nil {
				r.watchAt(ctx, nodes[i/len(r.addresses)%len(nodes)], &last, newer)
			}
			select {
			case <-time.After(pauseMax):
			case <-ctx.Done():
			}
		}
	}()
	return newer
}

// watchAt watches at an address until that fails, or ctx ends.
func (r *remoteRoutes) watchAt(ctx context.Context, address string, last *route.Map, newer chan<- route.Map) {
	if err := r.watch(ctx, address, last, newer); ctx.Err() == nil {
		r.logger.Warn("watching the shard map", "at", address, "error", err)
	}
}

// watch sends maps newer than the last until the connection fails or ctx ends.
func (r *remoteRoutes) watch(ctx context.Context, address string, last *route.Map, newer chan<- route.Map) error {
	conn, err := grpc.NewClient(address, dialOptions(r.options)...)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := psv1.NewRoutesClient(conn).Watch(ctx, &psv1.WatchRequest{AfterVersion: last.Version})
	if err != nil {
		return wire.FromStatus(err)
	}
	for {
		msg, err := stream.Recv()
		if err != nil {
			return wire.FromStatus(err)
		}
		m, err := wire.RouteMap(msg)
		if err != nil {
			return err
		}
		select {
		case newer <- m:
			*last = m
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
