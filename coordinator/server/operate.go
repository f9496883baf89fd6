package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/freshet-ml/freshet/coordinator"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Bounds of asking nodes what they hold.
const (
	holdingsTimeout = 2 * time.Second
	nodesAtOnce     = 32
)

// eventsDefault is how many events are told if nobody says.
const eventsDefault = 100

// operator says who asks.
func operator(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return "operator at " + p.Addr.String()
	}
	return "operator"
}

// find returns the identifier of the node that has an identifier or name.
func (s *Server) find(ctx context.Context, node string) (ps.NodeID, error) {
	v, err := s.cfg.Store.View(ctx)
	if err != nil {
		return "", err
	}
	var found, all []ps.NodeID
	for _, n := range v.Nodes {
		if string(n.ID) == node {
			return n.ID, nil
		}
		if n.Name == node {
			found = append(found, n.ID)
		}
		all = append(all, n.ID)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("node %q is not there; there are %v: %w", node, all, ps.ErrInvalid)
	}
	return "", fmt.Errorf("there are %d nodes named %q: give the identifier of one of %v: %w", len(found), node, found, ps.ErrInvalid)
}

// MoveShards is called by gRPC.
func (s *Server) MoveShards(ctx context.Context, request *adminv1.MoveShardsRequest) (*adminv1.MoveShardsResponse, error) {
	if len(request.GetShards()) == 0 || len(request.GetShards()) > ps.ShardsMax {
		return nil, wire.ToStatus(fmt.Errorf("%d shards are to move: want 1 to %d: %w", len(request.GetShards()), ps.ShardsMax, ps.ErrInvalid))
	}
	var to ps.NodeID
	if name := request.GetNode(); name != "" {
		var err error
		if to, err = s.find(ctx, name); err != nil {
			return nil, wire.ToStatus(err)
		}
	}
	shards := make([]ps.ShardID, len(request.GetShards()))
	for i, id := range request.GetShards() {
		shards[i] = ps.ShardID(id)
	}
	if err := s.cfg.Operations.Move(ctx, shards, to, operator(ctx)); err != nil {
		return nil, wire.ToStatus(err)
	}
	return &adminv1.MoveShardsResponse{Node: string(to)}, nil
}

// DrainNode is called by gRPC.
func (s *Server) DrainNode(ctx context.Context, request *adminv1.DrainNodeRequest) (*adminv1.DrainNodeResponse, error) {
	id, err := s.find(ctx, request.GetNode())
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	if err := s.cfg.Operations.Drain(ctx, id, !request.GetUndo(), operator(ctx)); err != nil {
		return nil, wire.ToStatus(err)
	}
	return &adminv1.DrainNodeResponse{Node: string(id)}, nil
}

// Rebalance is called by gRPC.
func (s *Server) Rebalance(ctx context.Context, request *adminv1.RebalanceRequest) (*adminv1.RebalanceResponse, error) {
	moves, err := s.cfg.Operations.Rebalance(ctx, request.GetDryRun(), operator(ctx))
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	response := &adminv1.RebalanceResponse{}
	for _, m := range moves {
		response.Moves = append(response.Moves, &adminv1.Move{Shard: uint32(m.Shard), From: string(m.From), To: string(m.To), Why: m.Why})
	}
	return response, nil
}

// ListEvents is called by gRPC.
func (s *Server) ListEvents(ctx context.Context, request *adminv1.ListEventsRequest) (*adminv1.ListEventsResponse, error) {
	events, err := s.cfg.Store.Events(ctx, int(cmp.Or(request.GetMost(), eventsDefault)))
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	response := &adminv1.ListEventsResponse{}
	for _, e := range events {
		response.Events = append(response.Events, &adminv1.Event{At: e.At, Kind: string(e.Kind), What: e.What, Why: e.Why, By: e.By})
	}
	return response, nil
}

// ListShards is called by gRPC.
func (s *Server) ListShards(ctx context.Context, _ *adminv1.ListShardsRequest) (*adminv1.ListShardsResponse, error) {
	v, err := s.cfg.Store.View(ctx)
	if err != nil {
		return nil, wire.ToStatus(err)
	}
	response := &adminv1.ListShardsResponse{Shards: make([]*adminv1.ShardStatus, len(v.Shards))}
	for i, shard := range v.Shards {
		m := &adminv1.ShardStatus{Owner: string(shard.Owner), Fence: uint64(shard.Fence), Target: string(shard.Target)}
		for _, n := range shard.Standbys {
			m.Standbys = append(m.Standbys, string(n))
		}
		response.Shards[i] = m
	}
	var mu sync.Mutex // guards response
	var asking errgroup.Group
	asking.SetLimit(nodesAtOnce)
	for _, n := range v.Nodes {
		asking.Go(func() error {
			bounded, cancel := context.WithTimeout(ctx, holdingsTimeout)
			defer cancel()
			holdings, err := s.cfg.Nodes.Holdings(bounded, n.Address)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				response.Silent = append(response.Silent, string(n.ID))
				return nil
			}
			for _, h := range holdings {
				if int(h.Shard) < len(v.Shards) && !h.Copy && v.Shards[h.Shard].Owner == n.ID {
					m := response.Shards[h.Shard]
					m.Rows, m.Bytes = m.GetRows()+h.Rows, m.GetBytes()+h.Bytes
					m.KeysPulled, m.KeysPushed = m.GetKeysPulled()+h.KeysPulled, m.GetKeysPushed()+h.KeysPushed
				}
			}
			return nil
		})
	}
	_ = asking.Wait() // they return no errors
	slices.Sort(response.Silent)
	return response, nil
}

// Shards returns who owns each shard, where it moves and what it holds.
func (c *Client) Shards(ctx context.Context) (coordinator.ShardList, error) {
	message, err := c.admin.ListShards(ctx, &adminv1.ListShardsRequest{})
	if err != nil {
		return coordinator.ShardList{}, fmt.Errorf("list shards: %w", wire.FromStatus(err))
	}
	list := coordinator.ShardList{Shards: make([]coordinator.ShardStatus, len(message.GetShards())), Silent: nodeIDs(message.GetSilent())}
	for i, s := range message.GetShards() {
		list.Shards[i] = coordinator.ShardStatus{
			Shard: ps.ShardID(i), Owner: ps.NodeID(s.GetOwner()), Fence: ps.Fence(s.GetFence()), Standbys: nodeIDs(s.GetStandbys()),
			Target: ps.NodeID(s.GetTarget()), Rows: s.GetRows(), Bytes: s.GetBytes(), KeysPulled: s.GetKeysPulled(), KeysPushed: s.GetKeysPushed(),
		}
	}
	return list, nil
}

func nodeIDs(names []string) []ps.NodeID {
	ids := make([]ps.NodeID, len(names))
	for i, n := range names {
		ids[i] = ps.NodeID(n)
	}
	return ids
}

// Move makes shards move to the node of an identifier or name, which it returns; "" lets
// shards on the move stay. It returns when that is agreed on, not when they have arrived.
// Errors wrap ps.ErrInvalid for a node or a shard that is not there, ps.ErrConflict for a
// node that is being drained, and ps.ErrNoOwner for a shard that has no owner.
func (c *Client) Move(ctx context.Context, shards []ps.ShardID, node string) (ps.NodeID, error) {
	request := &adminv1.MoveShardsRequest{Node: node}
	for _, s := range shards {
		request.Shards = append(request.Shards, uint32(s))
	}
	response, err := c.admin.MoveShards(ctx, request)
	if err != nil {
		return "", fmt.Errorf("move shards: %w", wire.FromStatus(err))
	}
	return ps.NodeID(response.GetNode()), nil
}

// Drain makes the node of an identifier or name, which it returns, give up all it has, or
// takes that back. It returns when that is agreed on. The error wraps ps.ErrInvalid if the
// node is not there, and ps.ErrConflict if no other could take what it has.
func (c *Client) Drain(ctx context.Context, node string, drain bool) (ps.NodeID, error) {
	response, err := c.admin.DrainNode(ctx, &adminv1.DrainNodeRequest{Node: node, Undo: !drain})
	if err != nil {
		return "", fmt.Errorf("drain node: %w", wire.FromStatus(err))
	}
	return ps.NodeID(response.GetNode()), nil
}

// Rebalance returns the moves that would load the nodes evenly, and makes them begin
// unless it is a dry run.
func (c *Client) Rebalance(ctx context.Context, dry bool) ([]coordinator.Move, error) {
	response, err := c.admin.Rebalance(ctx, &adminv1.RebalanceRequest{DryRun: dry})
	if err != nil {
		return nil, fmt.Errorf("rebalance: %w", wire.FromStatus(err))
	}
	moves := make([]coordinator.Move, len(response.GetMoves()))
	for i, m := range response.GetMoves() {
		moves[i] = coordinator.Move{Shard: ps.ShardID(m.GetShard()), From: ps.NodeID(m.GetFrom()), To: ps.NodeID(m.GetTo()), Why: m.GetWhy()}
	}
	return moves, nil
}

// Events returns the newest events of the cluster, at most so many, oldest first.
func (c *Client) Events(ctx context.Context, most int) ([]coordinator.Event, error) {
	response, err := c.admin.ListEvents(ctx, &adminv1.ListEventsRequest{Most: uint32(max(most, 0))}, grpc.MaxCallRecvMsgSize(receiveBytesMax))
	if err != nil {
		return nil, fmt.Errorf("list events: %w", wire.FromStatus(err))
	}
	events := make([]coordinator.Event, len(response.GetEvents()))
	for i, e := range response.GetEvents() {
		events[i] = coordinator.Event{At: e.GetAt(), Kind: coordinator.EventKind(e.GetKind()), What: e.GetWhat(), Why: e.GetWhy(), By: e.GetBy()}
	}
	return events, nil
}
