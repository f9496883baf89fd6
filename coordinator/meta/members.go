package meta

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// Nodes returns the nodes that are there, ordered by ID.
func (s *Store) Nodes(ctx context.Context) ([]coordinator.Node, error) {
	now, err := s.read(ctx, "read nodes", below(s.keys.nodes()))
	if err != nil {
		return nil, err
	}
	return s.decodeNodes(now)
}

// WatchNodes gives the nodes as they are, and then whenever that has changed, until
// ctx ends; then the channel is closed. The channel holds one value, the latest.
func (s *Store) WatchNodes(ctx context.Context) <-chan []coordinator.Node {
	return watch(ctx, s, watching[[]coordinator.Node]{
		what:     "the nodes",
		prefixes: []string{s.keys.nodes()},
		read: func(ctx context.Context) ([]coordinator.Node, int64, bool, error) {
			now, err := s.read(ctx, "read nodes", below(s.keys.nodes()))
			if err != nil {
				return nil, 0, false, err
			}
			nodes, err := s.decodeNodes(now)
			return nodes, now.revision, true, err
		},
		same: slices.Equal[[]coordinator.Node],
	})
}

// Workers returns the workers that are there, with what they have reported, ordered
// by ID.
func (s *Store) Workers(ctx context.Context) ([]coordinator.Worker, error) {
	now, err := s.read(ctx, "read workers", below(s.keys.workers()), below(s.keys.reports()))
	if err != nil {
		return nil, err
	}
	return s.decodeWorkers(now)
}

// WatchWorkers gives the workers as WatchNodes does the nodes. A new report alone is
// no change, and the reports it gives may be old.
func (s *Store) WatchWorkers(ctx context.Context) <-chan []coordinator.Worker {
	return watch(ctx, s, watching[[]coordinator.Worker]{
		what:     "the workers",
		prefixes: []string{s.keys.workers()},
		read: func(ctx context.Context) ([]coordinator.Worker, int64, bool, error) {
			now, err := s.read(ctx, "read workers", below(s.keys.workers()), below(s.keys.reports()))
			if err != nil {
				return nil, 0, false, err
			}
			workers, err := s.decodeWorkers(now)
			return workers, now.revision, true, err
		},
		same: func(a, b []coordinator.Worker) bool {
			return slices.EqualFunc(a, b, func(a, b coordinator.Worker) bool {
				return a.ID == b.ID && a.Joined == b.Joined && a.Model == b.Model
			})
		},
	})
}

// Coordinators returns the coordinators that are there, ordered by ID.
func (s *Store) Coordinators(ctx context.Context) ([]coordinator.Coordinator, error) {
	now, err := s.read(ctx, "read coordinators", below(s.keys.coordinators()))
	if err != nil {
		return nil, err
	}
	return s.decodeCoordinators(now)
}

// Members returns everybody who is there: nodes, workers and coordinators, each
// ordered by ID.
func (s *Store) Members(ctx context.Context) ([]coordinator.Member, error) {
	now, err := s.read(ctx, "read members", below(s.keys.nodes()), below(s.keys.workers()), below(s.keys.coordinators()))
	if err != nil {
		return nil, err
	}
	nodes, err := s.decodeNodes(now)
	if err != nil {
		return nil, err
	}
	workers, err := s.decodeWorkers(now)
	if err != nil {
		return nil, err
	}
	coordinators, err := s.decodeCoordinators(now)
	if err != nil {
		return nil, err
	}
	var all []coordinator.Member
	for _, n := range nodes {
		all = append(all, coordinator.Member{Role: coordinator.RoleNode, ID: string(n.ID), Address: n.Address, Gossip: n.Gossip})
	}
	for _, w := range workers {
		all = append(all, coordinator.Member{Role: coordinator.RoleWorker, ID: w.ID, Gossip: w.Gossip})
	}
	for _, c := range coordinators {
		all = append(all, coordinator.Member{Role: coordinator.RoleCoordinator, ID: c.ID, Address: c.Address, Gossip: c.Gossip})
	}
	return all, nil
}

// Expel ends the registration of a life of a process before its lease does, for others
// to go on without it. Should the process live, its Registration.Run tells it within a
// third of the lease's time. It does nothing if that life is not registered. The
// member's ID and role are read.
func (s *Store) Expel(ctx context.Context, m coordinator.Member) error {
	what := string(m.Role) + " " + m.ID
	var key string
	switch m.Role {
	case coordinator.RoleNode:
		key = s.keys.node(ps.NodeID(m.ID))
	case coordinator.RoleWorker:
		key = s.keys.worker(m.ID)
	case coordinator.RoleCoordinator:
		key = s.keys.coordinator(m.ID)
	default:
		return fmt.Errorf("expel %s: no such role: %w", what, ps.ErrInvalid)
	}
	now, err := s.read(ctx, "expel "+what, get(key))
	if err != nil {
		return err
	}
	kv := now.key(key)
	if kv == nil || kv.Lease == 0 {
		return nil
	}
	// A lease belongs to one Join: whatever has happened to the key meanwhile, nobody
	// else's registration ends with it.
	request, cancel := s.request(ctx)
	defer cancel()
	_, err = s.client.Revoke(request, clientv3.LeaseID(kv.Lease))
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return s.explain(ctx, "expel "+what, err)
	}
	return nil
}

// Drain marks a life of a node as one that is to give up all it has, or takes the mark
// back. The mark ends with the node. The error wraps ps.ErrUnavailable if the node is not
// there.
func (s *Store) Drain(ctx context.Context, node ps.NodeID, drain bool) error {
	what := "drain node " + string(node)
	if err := coordinator.ValidID("node", string(node)); err != nil {
		return err
	}
	key := s.keys.node(node)
	now, err := s.read(ctx, what, get(key))
	if err != nil {
		return err
	}
	kv := now.key(key)
	if kv == nil {
		return fmt.Errorf("%s: no such node is there: %w", what, ps.ErrUnavailable)
	}
	change := clientv3.OpDelete(s.keys.drain(node))
	if drain {
		change = clientv3.OpPut(s.keys.drain(node), "{}", clientv3.WithLease(clientv3.LeaseID(kv.Lease)))
	}
	changed, _, err := s.commit(ctx, what, []clientv3.Cmp{unchanged(key, kv.ModRevision)}, []clientv3.Op{change})
	if err == nil && !changed {
		err = fmt.Errorf("%s: it has just left: %w", what, ps.ErrUnavailable)
	}
	return err
}

func (s *Store) decodeCoordinators(now *reading) ([]coordinator.Coordinator, error) {
	var all []coordinator.Coordinator
	err := now.below(s.keys.coordinators(), func(id string, kv *mvccpb.KeyValue) error {
		var c coordinator.Coordinator
		err := decode("coordinator "+id, kv.Value, &c)
		c.ID, c.Joined = id, kv.CreateRevision
		all = append(all, c)
		return err
	})
	return all, err
}

func (s *Store) decodeNodes(now *reading) ([]coordinator.Node, error) {
	var nodes []coordinator.Node
	err := now.below(s.keys.nodes(), func(id string, kv *mvccpb.KeyValue) error {
		n, err := decodeNode(id, kv)
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}

// decodeWorkers joins workers with their reports. A report whose worker is gone is
// passed over: both end with the same lease, but not in the same breath.
func (s *Store) decodeWorkers(now *reading) ([]coordinator.Worker, error) {
	var workers []coordinator.Worker
	err := now.below(s.keys.workers(), func(id string, kv *mvccpb.KeyValue) error {
		w, err := decodeWorker(id, kv)
		workers = append(workers, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = now.below(s.keys.reports(), func(id string, kv *mvccpb.KeyValue) error {
		i, found := slices.BinarySearchFunc(workers, id, func(w coordinator.Worker, id string) int {
			return strings.Compare(w.ID, id)
		})
		if !found {
			return nil
		}
		return decode("report of worker "+id, kv.Value, &workers[i].Report)
	})
	return workers, err
}
