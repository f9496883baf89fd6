package meta

import (
	"context"
	"fmt"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// CreateCluster creates the cluster with a number of shards, a power of two, none of
// which has an owner yet. Where it exists already with that number it is returned as
// it is, so every coordinator may create it; with another number, the error wraps
// ps.ErrConflict.
func (s *Store) CreateCluster(ctx context.Context, shards int) (coordinator.Cluster, error) {
	if err := ps.ValidShards(shards); err != nil {
		return coordinator.Cluster{}, err
	}
	want := coordinator.Cluster{Name: s.cfg.Cluster, Shards: shards}
	cluster, err := encode("cluster", want)
	if err != nil {
		return coordinator.Cluster{}, err
	}
	shardMap, err := encodeShards(make([]route.Shard, shards))
	if err != nil {
		return coordinator.Cluster{}, err
	}
	created, now, err := s.commit(ctx, "create cluster "+s.cfg.Cluster,
		[]clientv3.Cmp{absent(s.keys.cluster())},
		[]clientv3.Op{clientv3.OpPut(s.keys.cluster(), string(cluster)), clientv3.OpPut(s.keys.shardMap(), string(shardMap))},
		get(s.keys.cluster()))
	if err != nil || created {
		return want, err
	}
	have, err := s.decodeCluster(now)
	if err == nil && have.Shards != shards {
		err = fmt.Errorf("cluster %s exists with %d shards and cannot have %d: their number is fixed when a cluster is created; ask for %d, or give the new cluster another name: %w",
			have.Name, have.Shards, shards, have.Shards, ps.ErrConflict)
	}
	return have, err
}

// Cluster returns what the cluster was created with. The error wraps
// ps.ErrUnavailable while it was not created yet.
func (s *Store) Cluster(ctx context.Context) (coordinator.Cluster, error) {
	now, err := s.read(ctx, "read cluster", get(s.keys.cluster()))
	if err != nil {
		return coordinator.Cluster{}, err
	}
	return s.decodeCluster(now)
}

func (s *Store) decodeCluster(now *reading) (coordinator.Cluster, error) {
	kv := now.key(s.keys.cluster())
	if kv == nil {
		return coordinator.Cluster{}, s.notCreated()
	}
	var c coordinator.Cluster
	err := decode("cluster "+s.cfg.Cluster, kv.Value, &c)
	return c, err
}

func (s *Store) notCreated() error {
	return fmt.Errorf("cluster %s was not created yet; a coordinator does that when it starts: %w", s.cfg.Cluster, ps.ErrUnavailable)
}

// SetMap replaces the shard map if neither it nor any of the epochs has changed since
// read, and returns its new revision. Otherwise the error wraps ps.ErrConflict and
// nothing is changed.
//
// A map with another number of shards, with a fence below what it was, or with a new
// owner under an old fence is a mistake of the caller's: ps.ErrInvalid.
// The events are recorded with the change.
func (s *Store) SetMap(ctx context.Context, read coordinator.Read, shards []route.Shard, events ...coordinator.Event) (revision int64, err error) {
	value, err := encodeShards(shards)
	if err != nil {
		return 0, err
	}
	key := s.keys.shardMap()
	now, err := s.read(ctx, "read shard map", get(key))
	if err != nil {
		return 0, err
	}
	kv := now.key(key)
	if kv == nil || kv.ModRevision != read.Map {
		return 0, fmt.Errorf("change shard map of revision %d: %w", read.Map, ps.ErrConflict)
	}
	current, err := decodeShards(kv.Value)
	if err != nil {
		return 0, err
	}
	if err := checkFences(current, shards); err != nil {
		return 0, err
	}
	record, err := s.recordOps(events)
	if err != nil {
		return 0, err
	}
	changed, after, err := s.commit(ctx, "change shard map",
		append(s.epochConditions(read.Epochs), unchanged(key, read.Map)), append(record, clientv3.OpPut(key, string(value))))
	if err != nil {
		return 0, err
	}
	if !changed {
		return 0, fmt.Errorf("change shard map of revision %d: it or an epoch has changed: %w", read.Map, ps.ErrConflict)
	}
	s.forgetEvents(ctx, len(events))
	return after.revision, nil
}

// checkFences reports the first shard that may not become what next says.
func checkFences(current, next []route.Shard) error {
	if len(next) != len(current) {
		return fmt.Errorf("map of %d shards for a cluster of %d: %w", len(next), len(current), ps.ErrInvalid)
	}
	for id, now := range current {
		then := next[id]
		if then.Fence < now.Fence || then.Owner != now.Owner && then.Fence == now.Fence {
			return fmt.Errorf("shard %d may not go from owner %q with fence %d to owner %q with fence %d, a new owner needs a higher one: %w",
				id, now.Owner, now.Fence, then.Owner, then.Fence, ps.ErrInvalid)
		}
	}
	return nil
}

// Map returns the shard map with the addresses of the living nodes. Its version is
// the revision it was read at: of two maps, the one with the higher version is newer
// or says the same. The error wraps ps.ErrUnavailable while the cluster was not
// created yet.
func (s *Store) Map(ctx context.Context) (route.Map, error) {
	m, created, err := s.readMap(ctx)
	if err == nil && !created {
		return route.Map{}, s.notCreated()
	}
	return m, err
}

// WatchMap gives the shard map as it is, and then every newer one, until ctx ends;
// then the channel is closed. While the cluster was not created yet, it gives
// nothing. The channel holds one map: who is slow gets the latest.
func (s *Store) WatchMap(ctx context.Context) <-chan route.Map {
	return watch(ctx, s, watching[route.Map]{
		what:     "the shard map",
		prefixes: []string{s.keys.routes()},
		read: func(ctx context.Context) (route.Map, int64, bool, error) {
			m, created, err := s.readMap(ctx)
			return m, m.Version, created, err
		},
		same: func(a, b route.Map) bool {
			return slices.EqualFunc(a.Shards, b.Shards, route.Shard.Equal) && maps.Equal(a.Addresses, b.Addresses)
		},
	})
}

// readMap returns the shard map, and whether there is one. Its version is set in
// either case.
func (s *Store) readMap(ctx context.Context) (route.Map, bool, error) {
	now, err := s.read(ctx, "read shard map", below(s.keys.routes()))
	if err != nil {
		return route.Map{}, false, err
	}
	m := route.Map{Version: now.revision, Addresses: make(map[ps.NodeID]string)}
	kv := now.key(s.keys.shardMap())
	if kv == nil {
		return m, false, nil
	}
	if m.Shards, err = decodeShards(kv.Value); err != nil {
		return route.Map{}, false, err
	}
	nodes, err := s.decodeNodes(now)
	for _, n := range nodes {
		m.Addresses[n.ID] = n.Address
	}
	return m, true, err
}
