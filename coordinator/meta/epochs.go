package meta

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// Epoch returns what is committed of a model; its Number is 0 if nothing is.
func (s *Store) Epoch(ctx context.Context, model string) (checkpoint.Epoch, error) {
	now, err := s.read(ctx, "read the epoch of model "+model, get(s.keys.epoch(model)))
	if err != nil {
		return checkpoint.Epoch{}, err
	}
	e, err := s.decodeEpoch(model, now.key(s.keys.epoch(model)))
	return e.Epoch, err
}

// CommitEpoch makes next the committed epoch of a model, if the shard map is still
// the one of revision mapRevision and the epoch still the one of revision expected
// (coordinator.Epoch.Revision; 0: there was none). Otherwise the error wraps
// ps.ErrConflict and nothing is changed.
//
// The first condition makes sure that every snapshot in it was made by who owned its
// shard at this instant; the second, that epochs follow one another.
func (s *Store) CommitEpoch(ctx context.Context, model string, next checkpoint.Epoch, expected, mapRevision int64) (coordinator.Epoch, error) {
	key := s.keys.epoch(model)
	value, err := encode("epoch of model "+model, next)
	if err != nil {
		return coordinator.Epoch{}, err
	}
	committed, after, err := s.commit(ctx, "commit an epoch of model "+model,
		[]clientv3.Cmp{unchanged(key, expected), unchanged(s.keys.shardMap(), mapRevision)},
		[]clientv3.Op{clientv3.OpPut(key, string(value))})
	if err != nil {
		return coordinator.Epoch{}, err
	}
	if !committed {
		return coordinator.Epoch{}, fmt.Errorf("commit epoch %d of model %s: the shard map or the epoch has changed since: %w", next.Number, model, ps.ErrConflict)
	}
	return coordinator.Epoch{Epoch: next, Revision: after.revision}, nil
}

// BeginLineage makes next, an epoch under a raised lineage, the committed epoch of a
// model, and shards the shard map, as one step: the shards of every model are opened
// anew, and those of this one from next. The conditions are CommitEpoch's.
func (s *Store) BeginLineage(ctx context.Context, model string, next checkpoint.Epoch, shards []route.Shard, expected, mapRevision int64) error {
	key := s.keys.epoch(model)
	epoch, err := encode("epoch of model "+model, next)
	if err != nil {
		return err
	}
	value, err := encodeShards(shards)
	if err != nil {
		return err
	}
	committed, _, err := s.commit(ctx, "begin a lineage of model "+model,
		[]clientv3.Cmp{unchanged(key, expected), unchanged(s.keys.shardMap(), mapRevision)},
		[]clientv3.Op{clientv3.OpPut(key, string(epoch)), clientv3.OpPut(s.keys.shardMap(), string(value))})
	if err == nil && !committed {
		err = fmt.Errorf("begin lineage %d of model %s: the shard map or the epoch has changed since: %w", next.Lineage, model, ps.ErrConflict)
	}
	return err
}

// epochConditions are the conditions that no model's epoch has changed.
func (s *Store) epochConditions(epochs map[string]int64) []clientv3.Cmp {
	conditions := make([]clientv3.Cmp, 0, len(epochs))
	for model, revision := range epochs {
		conditions = append(conditions, unchanged(s.keys.epoch(model), revision))
	}
	return conditions
}

func (s *Store) decodeEpoch(model string, kv *mvccpb.KeyValue) (coordinator.Epoch, error) {
	if kv == nil {
		return coordinator.Epoch{}, nil
	}
	e := coordinator.Epoch{Revision: kv.ModRevision}
	err := decode("epoch of model "+model, kv.Value, &e.Epoch)
	return e, err
}

func (s *Store) decodeEpochs(now *reading) (map[string]coordinator.Epoch, error) {
	epochs := make(map[string]coordinator.Epoch)
	err := now.below(s.keys.epochs(), func(model string, kv *mvccpb.KeyValue) error {
		e, err := s.decodeEpoch(model, kv)
		epochs[model] = e
		return err
	})
	return epochs, err
}
