package server

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/coordinator"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// receiveBytesMax bounds an answer: the status of PartitionsMax partitions with long
// worker names takes some 13 MB, which is over gRPC's default of 4.
const receiveBytesMax = 32 << 20

// Client asks a coordinator. It is safe for concurrent use. Errors of its methods wrap
// the sentinels of package ps that the coordinator's did; ps.ErrUnavailable if it
// cannot be reached.
type Client struct {
	admin adminv1.AdminClient
}

// NewClient returns a Client on a connection to a coordinator, which stays the
// caller's.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{admin: adminv1.NewAdminClient(conn)}
}

// ApplyModel stores a model, whose version it returns and whether this call stored it.
// m.Version is not read. Another model under a known name is ps.ErrConflict, one that
// cannot be stored ps.ErrInvalid or ps.ErrTooLarge.
func (c *Client) ApplyModel(ctx context.Context, m coordinator.Model) (version uint64, changed bool, err error) {
	message, err := messageOf(m)
	if err != nil {
		return 0, false, err
	}
	answer, err := c.admin.ApplyModel(ctx, &adminv1.ApplyModelRequest{Model: message})
	if err != nil {
		return 0, false, fmt.Errorf("apply model %s: %w", m.Name, wire.FromStatus(err))
	}
	return answer.GetVersion(), answer.GetChanged(), nil
}

// Model returns a stored model. An empty name means the only model there is; if there
// are several it is ps.ErrInvalid. A model that is not there is ps.ErrUnknownModel.
func (c *Client) Model(ctx context.Context, name string) (coordinator.Model, error) {
	message, err := c.admin.GetModel(ctx, &adminv1.GetModelRequest{Name: name})
	if err != nil {
		return coordinator.Model{}, fmt.Errorf("get model: %w", wire.FromStatus(err))
	}
	m, err := modelOf(message)
	if err != nil {
		return coordinator.Model{}, fmt.Errorf("get model: the coordinator's answer: %w: %v", ps.ErrCorrupt, err) //nolint:errorlint // what is invalid is the answer, not the caller's request
	}
	return m, nil
}

// Status returns the cluster as the coordinator sees it.
func (c *Client) Status(ctx context.Context) (coordinator.Status, error) {
	message, err := c.admin.GetStatus(ctx, &adminv1.GetStatusRequest{}, grpc.MaxCallRecvMsgSize(receiveBytesMax))
	if err != nil {
		return coordinator.Status{}, fmt.Errorf("get status: %w", wire.FromStatus(err))
	}
	return statusWords(message), nil
}
