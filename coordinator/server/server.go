// Package server answers what operators and tools ask of a coordinator, and is their
// client too, so that nobody else sees the generated code of admin.v1. It checks what
// comes in and puts together what goes out; what is asked about lives in
// coordinator/meta and in the shards.
//
// The one idea to keep in mind: a status is most wanted when something is broken, so
// it is answered with what is known. Only what cannot be known without the shards is
// missing while they do not answer, and it says so.
package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/epochs"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Store is what the server needs of the cluster's store; coordinator/meta has it.
type Store interface {
	ApplyModel(ctx context.Context, m coordinator.Model) (version uint64, changed bool, err error)
	Model(ctx context.Context, name string) (coordinator.Model, error)
	View(ctx context.Context) (coordinator.View, error)
	Events(ctx context.Context, most int) ([]coordinator.Event, error)
}

// Nodes tells what nodes hold; ps/client does.
type Nodes interface {
	Holdings(ctx context.Context, address string) ([]ps.Holding, error)
}

// Operations changes where shards are; coordinator/control does. by is who asks.
type Operations interface {
	Move(ctx context.Context, shards []ps.ShardID, to ps.NodeID, by string) error
	Drain(ctx context.Context, node ps.NodeID, drain bool, by string) error
	Rebalance(ctx context.Context, dry bool, by string) ([]coordinator.Move, error)
}

// Progress tells how far the shards have applied a model's stream; ps/client has it.
type Progress interface {
	// Applied returns the progress of every shard of the cluster, or an error.
	Applied(ctx context.Context, model string) ([]ps.ShardProgress, error)
}

// Epochs takes, lists and restores checkpoint epochs; coordinator/epochs does.
type Epochs interface {
	Take(ctx context.Context, model string) (epochs.Result, error)
	SetBack(ctx context.Context, model string, number ps.Epoch) (lineage uint64, err error)
	Adopt(ctx context.Context, model string, ref checkpoint.Ref) (checkpoint.Retained, error)
}

// Config is what a Server needs.
type Config struct {
	Store      Store
	Progress   Progress
	Nodes      Nodes
	Operations Operations
	// Epochs is nil on a coordinator that has no bucket for them.
	Epochs Epochs
	// ProgressTimeout bounds what a status waits for the shards of one model.
	// Default: 2 s, which somebody who looks at a broken cluster bears.
	ProgressTimeout time.Duration
	// Logger is told of models that were applied. Default: discarded.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil || c.Progress == nil || c.Nodes == nil || c.Operations == nil {
		return fmt.Errorf("admin server without a store, progress, nodes or operations: %w", ps.ErrInvalid)
	}
	if c.ProgressTimeout < 0 {
		return fmt.Errorf("admin server with a progress timeout of %v: %w", c.ProgressTimeout, ps.ErrInvalid)
	}
	if c.ProgressTimeout == 0 {
		c.ProgressTimeout = 2 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// modelsAtOnce is how many models' shards a status asks at the same time, so that a
// node which does not answer costs about one timeout and not one for each model.
const modelsAtOnce = 8

// Server is the admin.v1 service. It is safe for concurrent use.
type Server struct {
	adminv1.UnimplementedAdminServer
	cfg Config
}

// New returns a Server that answers once it is registered.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg}, nil
}

// Register adds the service to a gRPC server that is not serving yet.
func (s *Server) Register(r grpc.ServiceRegistrar) { adminv1.RegisterAdminServer(r, s) }

// ApplyModel is called by gRPC.
func (s *Server) ApplyModel(ctx context.Context, request *adminv1.ApplyModelRequest) (*adminv1.ApplyModelResponse, error) {
	if err := coordinator.ValidModelName(request.GetModel().GetName()); err != nil {
		return nil, wire.ToStatus(err)
	}
	m, err := modelOf(request.GetModel())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	if err := m.Check(); err != nil {
		return nil, wire.ToStatus(err)
	}
	version, changed, err := s.cfg.Store.ApplyModel(ctx, m)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	if changed {
		s.cfg.Logger.Info("a model was applied", "model", m.Name, "version", version,
			"tables", len(m.Layout.Tables), "stream", m.Stream, "partitions", m.Partitions)
	}
	return &adminv1.ApplyModelResponse{Version: version, Changed: changed}, nil
}

// GetModel is called by gRPC.
func (s *Server) GetModel(ctx context.Context, request *adminv1.GetModelRequest) (*adminv1.Model, error) {
	if name := request.GetName(); name != "" {
		if err := coordinator.ValidModelName(name); err != nil {
			return nil, wire.ToStatus(err)
		}
	}
	m, err := s.cfg.Store.Model(ctx, request.GetName())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	message, err := messageOf(m)
	return message, wire.ToStatus(err)
}

// GetStatus is called by gRPC.
func (s *Server) GetStatus(ctx context.Context, _ *adminv1.GetStatusRequest) (*adminv1.Status, error) {
	st, err := s.Status(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return statusMessage(st), nil
}

// Status returns the cluster as it is. What cannot be known without the shards is missing
// while they do not answer, and it says so.
func (s *Server) Status(ctx context.Context) (coordinator.Status, error) {
	v, err := s.cfg.Store.View(ctx)
	if err != nil {
		return coordinator.Status{}, err
	}
	known := make([]progress, len(v.Models))
	var asking errgroup.Group
	asking.SetLimit(modelsAtOnce)
	for i, m := range v.Models {
		asking.Go(func() error {
			known[i] = s.progress(ctx, v, m.Name)
			return nil
		})
	}
	_ = asking.Wait() // they return no errors
	if err := ctx.Err(); err != nil {
		return coordinator.Status{}, err
	}
	return statusOf(v, known), nil
}

// progress asks the shards about a model. While one has no owner, asking would only
// wait for it to get one.
func (s *Server) progress(ctx context.Context, v coordinator.View, model string) progress {
	if n := withoutOwner(v); n > 0 {
		return progress{err: fmt.Sprintf("%d of %d shards have no owner", n, len(v.Shards))}
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.ProgressTimeout)
	defer cancel()
	shards, err := s.cfg.Progress.Applied(asking, model)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return progress{err: fmt.Sprintf("not all shards answered within %v", s.cfg.ProgressTimeout)}
	case err != nil:
		return progress{err: err.Error()}
	case len(shards) != len(v.Shards):
		return progress{err: fmt.Sprintf("%d of %d shards answered", len(shards), len(v.Shards))}
	}
	return progress{shards: shards}
}

// modelOf returns the words of a message. The layout must be JSON of ps.Layout to the
// last byte: what is not understood here would be dropped, and the model another.
func modelOf(message *adminv1.Model) (coordinator.Model, error) {
	m := coordinator.Model{
		Model: ps.Model{
			Name:       message.GetName(),
			Version:    message.GetVersion(),
			Stream:     ps.StreamID(message.GetStream()),
			Partitions: int(message.GetPartitions()),
		},
		Spec: message.GetSpec(),
	}
	if n := len(message.GetLayout()); n > coordinator.LayoutBytesMax {
		return m, fmt.Errorf("model %s: layout of %d bytes of JSON: want at most %d: %w", m.Name, n, coordinator.LayoutBytesMax, ps.ErrTooLarge)
	}
	decoder := json.NewDecoder(bytes.NewReader(message.GetLayout()))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m.Layout); err != nil {
		return m, fmt.Errorf("model %s: layout is not JSON of a layout: %w: %w", m.Name, ps.ErrInvalid, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return m, fmt.Errorf("model %s: layout goes on after its JSON, at byte %d: %w", m.Name, decoder.InputOffset(), ps.ErrInvalid)
	}
	return m, nil
}

// messageOf is the inverse of modelOf.
func messageOf(m coordinator.Model) (*adminv1.Model, error) {
	layout, err := json.Marshal(m.Layout)
	if err != nil {
		return nil, fmt.Errorf("model %s: layout: %w: %w", m.Name, ps.ErrInvalid, err)
	}
	if m.Partitions < 0 || m.Partitions > coordinator.PartitionsMax {
		return nil, fmt.Errorf("model %s with a stream of %d partitions: want 1 to %d: %w",
			m.Name, m.Partitions, coordinator.PartitionsMax, ps.ErrInvalid)
	}
	return &adminv1.Model{
		Name:       m.Name,
		Version:    m.Version,
		Spec:       m.Spec,
		Layout:     layout,
		Stream:     string(m.Stream),
		Partitions: uint32(m.Partitions),
	}, nil
}
