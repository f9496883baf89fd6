package meta

import (
	"context"
	"fmt"
	"reflect"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// SetAssignment replaces the assignment of a.Model if its generation is still the one
// expected, 0 for none, and returns it as stored: one generation later. a.Generation is
// not read. Otherwise the error wraps ps.ErrConflict and nothing is changed; for a
// model that does not exist it wraps ps.ErrUnknownModel.
// The events are recorded with the change.
func (s *Store) SetAssignment(ctx context.Context, expected ps.Generation, a coordinator.Assignment, events ...coordinator.Event) (coordinator.Assignment, error) {
	key := s.keys.assignment(a.Model)
	now, err := s.read(ctx, "read assignment of model "+a.Model, get(key), get(s.keys.model(a.Model)))
	if err != nil {
		return coordinator.Assignment{}, err
	}
	if now.key(s.keys.model(a.Model)) == nil {
		return coordinator.Assignment{}, fmt.Errorf("assign partitions of model %s: %w", a.Model, ps.ErrUnknownModel)
	}
	condition, generation := absent(key), ps.Generation(0)
	if kv := now.key(key); kv != nil {
		current, err := decodeAssignment(a.Model, kv.Value)
		if err != nil {
			return coordinator.Assignment{}, err
		}
		condition, generation = unchanged(key, kv.ModRevision), current.Generation
	}
	conflict := fmt.Errorf("change generation %d of the assignment of model %s: %w", expected, a.Model, ps.ErrConflict)
	if generation != expected {
		return coordinator.Assignment{}, conflict
	}
	a.Generation = expected + 1
	value, err := encodeAssignment(a)
	if err != nil {
		return coordinator.Assignment{}, err
	}
	record, err := s.recordOps(events)
	if err != nil {
		return coordinator.Assignment{}, err
	}
	changed, _, err := s.commit(ctx, "change assignment of model "+a.Model,
		[]clientv3.Cmp{condition}, append(record, clientv3.OpPut(key, string(value))))
	if err == nil && !changed {
		err = conflict
	}
	if err != nil {
		return coordinator.Assignment{}, err
	}
	s.forgetEvents(ctx, len(events))
	return a, nil
}

// Assignment returns the assignment of a model. Before the first its generation is 0
// and nobody owns anything.
func (s *Store) Assignment(ctx context.Context, model string) (coordinator.Assignment, error) {
	a, _, _, err := s.readAssignment(ctx, model)
	return a, err
}

// WatchAssignment gives the assignment of a model as it is, and then every newer one,
// until ctx ends; then the channel is closed. Before the first assignment it gives
// nothing. The channel holds one assignment, the latest.
func (s *Store) WatchAssignment(ctx context.Context, model string) <-chan coordinator.Assignment {
	return watch(ctx, s, watching[coordinator.Assignment]{
		what:     "the assignment of model " + model,
		prefixes: []string{s.keys.assignment(model)},
		read: func(ctx context.Context) (coordinator.Assignment, int64, bool, error) {
			return s.readAssignment(ctx, model)
		},
		same: func(a, b coordinator.Assignment) bool { return reflect.DeepEqual(a, b) },
	})
}

// readAssignment returns a model's assignment, the revision it was read at, and
// whether there is one.
func (s *Store) readAssignment(ctx context.Context, model string) (coordinator.Assignment, int64, bool, error) {
	key := s.keys.assignment(model)
	now, err := s.read(ctx, "read assignment of model "+model, get(key))
	if err != nil {
		return coordinator.Assignment{}, 0, false, err
	}
	kv := now.key(key)
	if kv == nil {
		return coordinator.Assignment{Model: model}, now.revision, false, nil
	}
	a, err := decodeAssignment(model, kv.Value)
	return a, now.revision, true, err
}

func (s *Store) decodeAssignments(now *reading) (map[string]coordinator.Assignment, error) {
	all := make(map[string]coordinator.Assignment)
	err := now.below(s.keys.assignments(), func(model string, kv *mvccpb.KeyValue) error {
		a, err := decodeAssignment(model, kv.Value)
		all[model] = a
		return err
	})
	return all, err
}
