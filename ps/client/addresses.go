package client

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Addresses returns Routes that watch the shard map at any of the given nodes or
// coordinators (host:port), in turn. It is for those who have no etcd, such as
// inference pods.
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
// them all it pauses.
func (r *remoteRoutes) WatchMap(ctx context.Context) <-chan route.Map {
	maps := make(chan route.Map, 1)
	go func() {
		defer close(maps)
		var version int64
		for i := 0; ctx.Err() == nil; i++ {
			address := r.addresses[i%len(r.addresses)]
			if err := r.watch(ctx, address, &version, maps); ctx.Err() == nil {
				r.logger.Warn("watching the shard map", "at", address, "error", err)
			}
			if (i+1)%len(r.addresses) != 0 {
				continue
			}
			select {
			case <-time.After(pauseMax):
			case <-ctx.Done():
			}
		}
	}()
	return maps
}

// watch sends maps newer than version until the connection fails or ctx ends.
func (r *remoteRoutes) watch(ctx context.Context, address string, version *int64, maps chan<- route.Map) error {
	conn, err := grpc.NewClient(address, dialOptions(r.options)...)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := psv1.NewRoutesClient(conn).Watch(ctx, &psv1.WatchRequest{AfterVersion: *version})
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
		case maps <- m:
			*version = m.Version
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
