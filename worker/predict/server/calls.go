package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	predictv1 "github.com/freshet-ml/freshet/proto/freshet/predict/v1"
	"github.com/freshet-ml/freshet/worker/predict"
)

// keyName is the metadata, or the header, that has a request's routing key.
const keyName = "freshet-key"

// streamsMax bounds the requests that one connection has under way, whose messages are in
// memory before anybody has looked at them. Clients wait with those beyond.
const streamsMax = 1024

// Options returns the settings of a gRPC server for predictions: how large a request may
// be, and keep-alive rules under which clients notice a pod that died within seconds. gRPC
// itself refuses what is larger, with RESOURCE_EXHAUSTED and no reason.
func (s *Server) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.config.BytesMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// Register puts predictions, health and reflection on a gRPC server. Health says for the
// whole pod, or for freshet.predict.v1.Predictions, what GET /readyz says.
func (s *Server) Register(g *grpc.Server) {
	predictv1.RegisterPredictionsServer(g, &calls{server: s})
	healthpb.RegisterHealthServer(g, &health{server: s})
	reflection.Register(g)
}

// calls are the gRPC service.
type calls struct {
	predictv1.UnimplementedPredictionsServer
	server *Server
}

// Predict scores events.
func (c *calls) Predict(ctx context.Context, m *predictv1.PredictRequest) (*predictv1.PredictResponse, error) {
	return call(ctx, c.server, &predicting, m, predictWords, predictMessage)
}

// Rank scores candidates in one context and returns the best, best first.
func (c *calls) Rank(ctx context.Context, m *predictv1.RankRequest) (*predictv1.RankResponse, error) {
	return call(ctx, c.server, &ranking, m, rankWords, rankMessage)
}

// Retrieve returns the items with the largest inner product with a query.
func (c *calls) Retrieve(ctx context.Context, m *predictv1.RetrieveRequest) (*predictv1.RetrieveResponse, error) {
	return call(ctx, c.server, &retrieving, m, retrieveWords, retrieveMessage)
}

// Explain tells what each feature adds to the score of an event.
func (c *calls) Explain(ctx context.Context, m *predictv1.ExplainRequest) (*predictv1.ExplainResponse, error) {
	return call(ctx, c.server, &explaining, m, explainWords, explainMessage)
}

// call answers a message M with a message R.
func call[M interface{ GetModel() string }, Q, A, R any](
	ctx context.Context, s *Server, asked *method[Q, A], m M,
	words func(M) (Q, error), message func(A, predict.Served) R,
) (r R, err error) {
	if keys := metadata.ValueFromIncomingContext(ctx, keyName); len(keys) > 0 {
		ctx = predict.WithKey(ctx, keys[0])
	}
	err = ask(ctx, s, asked, func() (string, Q, error) {
		question, err := words(m)
		return m.GetModel(), question, err
	}, func(answer A, served predict.Served) error {
		r = message(answer, served)
		return nil
	})
	return r, err
}

// health says whether the pod is ready, to whoever asks. Watching is not offered: there is
// nobody here who looks all the time.
type health struct {
	healthpb.UnimplementedHealthServer
	server *Server
}

// Check says whether the pod is ready.
func (h *health) Check(_ context.Context, m *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if name := m.GetService(); name != "" && name != predictv1.Predictions_ServiceDesc.ServiceName {
		return nil, status.Errorf(codes.NotFound, "no service %.100q here", name)
	}
	state := healthpb.HealthCheckResponse_SERVING
	if h.server.ready() != nil {
		state = healthpb.HealthCheckResponse_NOT_SERVING
	}
	return &healthpb.HealthCheckResponse{Status: state}, nil
}
