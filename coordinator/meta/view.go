package meta

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/freshet-ml/freshet/coordinator"
)

// View returns the whole cluster at one revision, reports included. The error wraps
// ps.ErrUnavailable while the cluster was not created yet.
func (s *Store) View(ctx context.Context) (coordinator.View, error) {
	v, created, err := s.readView(ctx)
	if err == nil && !created {
		return coordinator.View{}, s.notCreated()
	}
	return v, err
}

// WatchView gives the cluster as it is, and then whenever something in it has changed,
// until ctx ends; then the channel is closed. A new report alone is no change, and the
// reports it gives may be old. While the cluster was not created yet, it gives
// nothing. The channel holds one view, the latest.
func (s *Store) WatchView(ctx context.Context) <-chan coordinator.View {
	return watch(ctx, s, watching[coordinator.View]{
		what:     "the cluster",
		prefixes: []string{s.keys.routes(), s.keys.training()},
		read: func(ctx context.Context) (coordinator.View, int64, bool, error) {
			v, created, err := s.readView(ctx)
			return v, v.Revision, created, err
		},
		same: func(_, _ coordinator.View) bool { return false }, // to plan from it once more changes nothing
	})
}

// readView returns the cluster, and whether it was created. Its revision is set in
// either case.
func (s *Store) readView(ctx context.Context) (v coordinator.View, created bool, err error) {
	now, err := s.read(ctx, "read the cluster",
		get(s.keys.cluster()), below(s.keys.routes()), below(s.keys.training()), below(s.keys.reports()))
	if err != nil {
		return v, false, err
	}
	v.Revision = now.revision
	kv := now.key(s.keys.shardMap())
	if kv == nil {
		return v, false, nil
	}
	v.MapRevision = kv.ModRevision
	if v.Cluster, err = s.decodeCluster(now); err != nil {
		return v, false, err
	}
	if v.Shards, err = decodeShards(kv.Value); err != nil {
		return v, false, err
	}
	if v.Nodes, err = s.decodeNodes(now); err != nil {
		return v, false, err
	}
	if err := now.below(s.keys.drains(), func(id string, _ *mvccpb.KeyValue) error {
		for i := range v.Nodes {
			v.Nodes[i].Draining = v.Nodes[i].Draining || string(v.Nodes[i].ID) == id
		}
		return nil
	}); err != nil {
		return v, false, err
	}
	if v.Workers, err = s.decodeWorkers(now); err != nil {
		return v, false, err
	}
	if v.Models, err = s.decodeModels(now); err != nil {
		return v, false, err
	}
	if v.Assignments, err = s.decodeAssignments(now); err != nil {
		return v, false, err
	}
	v.Epochs, err = s.decodeEpochs(now)
	return v, true, err
}
