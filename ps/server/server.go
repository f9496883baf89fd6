// Package server puts a node's shards and the shard map on gRPC. It turns
// messages into words and errors into statuses, and decides nothing.
package server

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Shards is what is served: a node.
type Shards interface {
	Sizes(p *ps.Pull, to []int) ([]int, error)
	Pull(ctx context.Context, p *ps.Pull, values [][]byte) error
	Push(ctx context.Context, u *ps.Update) ([]ps.Answer, error)
	Applied(ctx context.Context, model string, shards []ps.ShardID) ([]ps.ShardProgress, error)
	Holdings(ctx context.Context) ([]ps.Holding, error)
	TakeSnapshots(ctx context.Context, model, bucket string, wants []checkpoint.Want, done func(checkpoint.Taken) error) error
	Follow(ctx context.Context, model string, reading ps.Reading, changes <-chan ps.FollowChange, send func(*ps.News) error) error
}

// Routes gives the shard map: the current one first, then newer ones. Its channel
// is closed when ctx ends.
type Routes interface {
	WatchMap(ctx context.Context) <-chan route.Map
}

// Options returns the settings of a gRPC server that serves parameters: message
// limits, windows and buffers for messages of hundreds of kilobytes, and
// keep-alive rules that let clients notice a dead node within seconds, and a node a
// client that has stopped: what is sent to one would wait for it without end, and a
// snapshot that is sent keeps others waiting.
func Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(wire.MessageBytesMax),
		grpc.MaxSendMsgSize(wire.MessageBytesMax),
		grpc.ForceServerCodecV2(wire.NewCodec()),
		grpc.ReadBufferSize(256 << 10),
		grpc.WriteBufferSize(256 << 10),
		grpc.InitialWindowSize(8 << 20),
		grpc.InitialConnWindowSize(32 << 20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// Register puts the shards (nil where there are none, as on a coordinator), the
// routes, health and reflection on a gRPC server. The returned health server
// says "serving" for all services from the start; its owner says otherwise when
// it shuts down.
func Register(s *grpc.Server, shards Shards, routes Routes) *health.Server {
	if shards != nil {
		psv1.RegisterParametersServer(s, &parameters{shards: shards})
		psv1.RegisterSnapshotsServer(s, &snapshots{shards: shards})
		psv1.RegisterCopiesServer(s, &copies{shards: shards})
	}
	psv1.RegisterRoutesServer(s, &routesServer{routes: routes})
	state := health.NewServer()
	healthpb.RegisterHealthServer(s, state)
	reflection.Register(s)
	return state
}

type parameters struct {
	psv1.UnimplementedParametersServer
	shards Shards
}

func (p *parameters) Pull(ctx context.Context, req *psv1.PullRequest) (*psv1.PullResponse, error) {
	pull, err := wire.Pull(req)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	sizes, err := p.shards.Sizes(pull, nil)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	values := make([][]byte, len(sizes))
	for i, size := range sizes {
		values[i] = make([]byte, size)
	}
	if err := p.shards.Pull(ctx, pull, values); err != nil {
		return nil, wire.ToStatus(err)
	}
	return &psv1.PullResponse{Values: values}, nil
}

// Push answers requests one after the other; those that wait meanwhile stay in
// the stream's flow-control window.
func (p *parameters) Push(stream grpc.BidiStreamingServer[psv1.PushRequest, psv1.PushResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		update, err := wire.Update(req)
		if err == nil {
			err = new(pulls).fill(update) // there are none here
		}
		if err != nil {
			return wire.ToStatus(err)
		}
		answers, err := p.shards.Push(stream.Context(), update)
		if err != nil {
			return wire.ToStatus(err)
		}
		if err := stream.Send(wire.PushResponse(answers)); err != nil {
			return err
		}
	}
}

func (p *parameters) Applied(ctx context.Context, req *psv1.AppliedRequest) (*psv1.AppliedResponse, error) {
	shards := make([]ps.ShardID, len(req.GetShards()))
	for i, s := range req.GetShards() {
		shards[i] = ps.ShardID(s)
	}
	progress, err := p.shards.Applied(ctx, req.GetModel(), shards)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return wire.AppliedResponse(progress), nil
}

func (p *parameters) Holdings(ctx context.Context, _ *psv1.HoldingsRequest) (*psv1.HoldingsResponse, error) {
	holdings, err := p.shards.Holdings(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return wire.HoldingsResponse(holdings), nil
}

type snapshots struct {
	psv1.UnimplementedSnapshotsServer
	shards Shards
}

func (s *snapshots) Take(req *psv1.TakeRequest, stream grpc.ServerStreamingServer[psv1.TakeResponse]) error {
	wants, err := wire.Wants(req)
	if err != nil {
		return wire.ToStatus(err)
	}
	return wire.ToStatus(s.shards.TakeSnapshots(stream.Context(), req.GetModel(), req.GetBucket(), wants, func(t checkpoint.Taken) error {
		m, err := wire.TakeResponse(t)
		if err != nil {
			return err
		}
		return stream.Send(m)
	}))
}

type copies struct {
	psv1.UnimplementedCopiesServer
	shards Shards
}

// Follow sends while it receives.
func (c *copies) Follow(stream grpc.BidiStreamingServer[psv1.FollowRequest, psv1.FollowResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	reading, err := wire.Reading(first)
	if err != nil {
		return wire.ToStatus(err)
	}
	changes := make(chan ps.FollowChange, 1)
	changes <- wire.FollowChange(first)
	go func() { // until the follower hangs up, or this call has returned
		defer close(changes)
		for {
			req, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case changes <- wire.FollowChange(req):
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return wire.ToStatus(c.shards.Follow(stream.Context(), first.GetModel(), reading, changes, func(n *ps.News) error {
		return stream.Send(wire.FollowResponse(n))
	}))
}

type routesServer struct {
	psv1.UnimplementedRoutesServer
	routes Routes
}

func (r *routesServer) Watch(req *psv1.WatchRequest, stream grpc.ServerStreamingServer[psv1.ShardMap]) error {
	after := req.GetAfterVersion()
	for m := range r.routes.WatchMap(stream.Context()) {
		if m.Version <= after {
			continue
		}
		if err := stream.Send(wire.ShardMap(m)); err != nil {
			return err
		}
		after = m.Version
	}
	return wire.ToStatus(stream.Context().Err())
}
