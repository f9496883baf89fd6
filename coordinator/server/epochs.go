package server

import (
	"context"
	"fmt"

	"github.com/freshet-ml/freshet/coordinator"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/wire"
)

// errNoBucket: nobody told the coordinator where epochs go.
var errNoBucket = fmt.Errorf("this coordinator has nowhere to write epochs: start it with --checkpoints URL: %w", ps.ErrConflict)

// TakeEpoch takes a checkpoint epoch.
func (s *Server) TakeEpoch(ctx context.Context, request *adminv1.TakeEpochRequest) (*adminv1.TakeEpochResponse, error) {
	if s.cfg.Epochs == nil {
		return nil, wire.ToStatus(errNoBucket)
	}
	m, err := s.cfg.Store.Model(ctx, request.GetModel())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	r, err := s.cfg.Epochs.Take(ctx, m.Name)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return &adminv1.TakeEpochResponse{
		Epoch: epochMessage(r.Epoch), Taken: r.Taken, Bytes: uint64(r.Bytes), ShardsKept: uint32(r.ShardsKept),
	}, nil
}

// ListEpochs lists the epochs that can be restored.
func (s *Server) ListEpochs(ctx context.Context, request *adminv1.ListEpochsRequest) (*adminv1.ListEpochsResponse, error) {
	m, err := s.cfg.Store.Model(ctx, request.GetModel())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	v, err := s.cfg.Store.View(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	e := v.Epochs[m.Name]
	response := &adminv1.ListEpochsResponse{Model: m.Name, Bucket: e.Bucket}
	for _, r := range e.Retained {
		response.Epochs = append(response.Epochs, epochMessage(r))
	}
	return response, nil
}

// RestoreEpoch sets a model back to an older epoch.
func (s *Server) RestoreEpoch(ctx context.Context, request *adminv1.RestoreEpochRequest) (*adminv1.RestoreEpochResponse, error) {
	if s.cfg.Epochs == nil {
		return nil, wire.ToStatus(errNoBucket)
	}
	m, err := s.cfg.Store.Model(ctx, request.GetModel())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	lineage, err := s.cfg.Epochs.SetBack(ctx, m.Name, ps.Epoch(request.GetEpoch()))
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return &adminv1.RestoreEpochResponse{Lineage: lineage}, nil
}

// AdoptEpoch makes an epoch of a manifest that was made outside of the cluster.
func (s *Server) AdoptEpoch(ctx context.Context, request *adminv1.AdoptEpochRequest) (*adminv1.AdoptEpochResponse, error) {
	if s.cfg.Epochs == nil {
		return nil, wire.ToStatus(errNoBucket)
	}
	ref := checkpoint.Ref{Name: request.GetManifest(), Bytes: request.GetBytes()}
	if err := ref.Hash.UnmarshalText([]byte(request.GetHash())); err != nil {
		return nil, wire.ToStatus(fmt.Errorf("manifest %q: %w", ref.Name, err))
	}
	m, err := s.cfg.Store.Model(ctx, request.GetModel())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	adopted, err := s.cfg.Epochs.Adopt(ctx, m.Name, ref)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	return &adminv1.AdoptEpochResponse{Epoch: epochMessage(adopted)}, nil
}

func epochMessage(r checkpoint.Retained) *adminv1.Epoch {
	return &adminv1.Epoch{
		Number: uint64(r.Number), Lineage: r.Lineage, Created: r.Created, Events: r.Events,
		Manifest: r.Manifest.Name, Hash: r.Manifest.Hash.String(), Bytes: r.Manifest.Bytes,
	}
}

func epochStatus(m *adminv1.Epoch) (coordinator.EpochStatus, error) {
	s := coordinator.EpochStatus{
		Epoch: ps.Epoch(m.GetNumber()), Lineage: m.GetLineage(), Created: m.GetCreated(), Events: m.GetEvents(),
		Manifest: checkpoint.Ref{Name: m.GetManifest(), Bytes: m.GetBytes()},
	}
	if err := s.Manifest.Hash.UnmarshalText([]byte(m.GetHash())); err != nil {
		return s, fmt.Errorf("epoch %d: the coordinator's answer: %w", s.Epoch, err)
	}
	return s, nil
}

// TakeEpoch takes a checkpoint epoch of a model now; an empty name means the only
// model there is. It wraps ps.ErrConflict if something came in between: try again.
func (c *Client) TakeEpoch(ctx context.Context, model string) (coordinator.EpochTaken, error) {
	answer, err := c.admin.TakeEpoch(ctx, &adminv1.TakeEpochRequest{Model: model})
	if err != nil {
		return coordinator.EpochTaken{}, wire.FromStatus(err)
	}
	taken := coordinator.EpochTaken{Taken: answer.GetTaken(), Bytes: answer.GetBytes(), ShardsKept: int(answer.GetShardsKept())}
	if answer.GetEpoch().GetNumber() > 0 {
		taken.EpochStatus, err = epochStatus(answer.GetEpoch())
	}
	return taken, err
}

// Epochs returns the epochs of a model that can be restored, newest first.
func (c *Client) Epochs(ctx context.Context, model string) (coordinator.EpochList, error) {
	answer, err := c.admin.ListEpochs(ctx, &adminv1.ListEpochsRequest{Model: model})
	if err != nil {
		return coordinator.EpochList{}, fmt.Errorf("list epochs: %w", wire.FromStatus(err))
	}
	list := coordinator.EpochList{Model: answer.GetModel(), Bucket: answer.GetBucket(), Epochs: []coordinator.EpochStatus{}}
	for _, m := range answer.GetEpochs() {
		status, err := epochStatus(m)
		if err != nil {
			return coordinator.EpochList{}, err
		}
		list.Epochs = append(list.Epochs, status)
	}
	return list, nil
}

// Restore sets a model back to an older epoch and returns the lineage that begins
// with it. An epoch that is not kept is ps.ErrInvalid.
func (c *Client) Restore(ctx context.Context, model string, epoch ps.Epoch) (lineage uint64, err error) {
	answer, err := c.admin.RestoreEpoch(ctx, &adminv1.RestoreEpochRequest{Model: model, Epoch: uint64(epoch)})
	if err != nil {
		return 0, wire.FromStatus(err)
	}
	return answer.GetLineage(), nil
}

// Adopt makes a manifest in the bucket that was made of a retained epoch the newest epoch of
// a new lineage, and returns it. It wraps ps.ErrConflict if that epoch is not kept any more
// or something came in between: begin again from the newest.
func (c *Client) Adopt(ctx context.Context, model string, ref checkpoint.Ref) (coordinator.EpochStatus, error) {
	answer, err := c.admin.AdoptEpoch(ctx, &adminv1.AdoptEpochRequest{Model: model, Manifest: ref.Name, Hash: ref.Hash.String(), Bytes: ref.Bytes})
	if err != nil {
		return coordinator.EpochStatus{}, wire.FromStatus(err)
	}
	return epochStatus(answer.GetEpoch())
}
