package meta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// ApplyModel stores a model under its name, whose version it returns and whether it
// was stored by this call. Its Version is not read. To apply the same model again
// changes nothing.
//
// Another spec, layout or stream under a known name is refused with ps.ErrConflict:
// the shards hold rows of the old layout and offsets of the old stream, and switching
// them over while they learn is not built.
func (s *Store) ApplyModel(ctx context.Context, m coordinator.Model) (version uint64, changed bool, err error) {
	m.Version = 1
	if err := m.Check(); err != nil {
		return 0, false, err
	}
	model, err := encode("model "+m.Name, m.Model)
	if err != nil {
		return 0, false, err
	}
	key, spec := s.keys.model(m.Name), s.keys.spec(m.Name)
	created, now, err := s.commit(ctx, "apply model "+m.Name,
		[]clientv3.Cmp{absent(key)},
		[]clientv3.Op{clientv3.OpPut(key, string(model)), clientv3.OpPut(spec, string(m.Spec))},
		get(key), get(spec))
	if err != nil {
		return 0, false, err
	}
	if created {
		return m.Version, true, nil
	}
	have, err := s.decodeModelSpec(m.Name, now)
	if err != nil {
		return 0, false, err
	}
	if differs := difference(have, m); differs != "" {
		return 0, false, fmt.Errorf("model %s exists and its %s; a stored model cannot be changed: give this one another name: %w",
			m.Name, differs, ps.ErrConflict)
	}
	return have.Version, false, nil
}

// difference says how a model that is applied differs from the one of that name, or
// nothing.
func difference(have, applied coordinator.Model) string {
	switch {
	case have.Stream != applied.Stream:
		return fmt.Sprintf("stream is %s, not %s", have.Stream, applied.Stream)
	case have.Partitions != applied.Partitions:
		return fmt.Sprintf("stream has %d partitions, not %d", have.Partitions, applied.Partitions)
	case have.Layout.Hash() != applied.Layout.Hash():
		return "tables are laid out differently"
	case !bytes.Equal(have.Spec, applied.Spec):
		return "spec is another"
	}
	return ""
}

// Model returns a model with its spec. An empty name means the only model there is.
// The error wraps ps.ErrUnknownModel if there is none of that name, and ps.ErrInvalid
// if there are several and none was named; it says which there are.
func (s *Store) Model(ctx context.Context, name string) (coordinator.Model, error) {
	if name == "" {
		only, err := s.onlyModel(ctx)
		if err != nil {
			return coordinator.Model{}, err
		}
		name = only
	}
	now, err := s.read(ctx, "read model "+name, get(s.keys.model(name)), get(s.keys.spec(name)))
	if err != nil {
		return coordinator.Model{}, err
	}
	m, err := s.decodeModelSpec(name, now)
	if errors.Is(err, ps.ErrUnknownModel) {
		models, err := s.Models(ctx)
		if err != nil {
			return coordinator.Model{}, err
		}
		return coordinator.Model{}, fmt.Errorf("model %s; there is %s: %w", name, list(models), ps.ErrUnknownModel)
	}
	return m, err
}

func (s *Store) decodeModelSpec(name string, now *reading) (coordinator.Model, error) {
	kv := now.key(s.keys.model(name))
	if kv == nil {
		return coordinator.Model{}, fmt.Errorf("model %s: %w", name, ps.ErrUnknownModel)
	}
	m, err := decodeModel(name, kv)
	if err != nil {
		return coordinator.Model{}, err
	}
	spec := now.key(s.keys.spec(name))
	if spec == nil {
		return coordinator.Model{}, fmt.Errorf("model %s is stored without its spec: %w", name, ps.ErrCorrupt)
	}
	return coordinator.Model{Model: m, Spec: spec.Value}, nil
}

// onlyModel returns the name of the only model.
func (s *Store) onlyModel(ctx context.Context) (string, error) {
	models, err := s.Models(ctx)
	switch {
	case err != nil:
		return "", err
	case len(models) == 0:
		return "", fmt.Errorf("there is no model yet; apply one: %w", ps.ErrUnknownModel)
	case len(models) > 1:
		return "", fmt.Errorf("there are several models, %s; name one: %w", list(models), ps.ErrInvalid)
	}
	return models[0].Name, nil
}

// list names models to people.
func list(models []ps.Model) string {
	if len(models) == 0 {
		return "no model yet"
	}
	names := make([]string, len(models))
	for i, m := range models {
		names[i] = m.Name
	}
	return strings.Join(names, ", ")
}

// Models returns all models, ordered by name.
func (s *Store) Models(ctx context.Context) ([]ps.Model, error) {
	models, _, err := s.readModels(ctx)
	return models, err
}

// WatchModels gives all models as they are, ordered by name, and then whenever that
// has changed, until ctx ends; then the channel is closed. That there is none is a
// value too. The channel holds one value, the latest.
func (s *Store) WatchModels(ctx context.Context) <-chan []ps.Model {
	return watch(ctx, s, watching[[]ps.Model]{
		what:     "the models",
		prefixes: []string{s.keys.models()},
		read: func(ctx context.Context) ([]ps.Model, int64, bool, error) {
			models, revision, err := s.readModels(ctx)
			return models, revision, true, err
		},
		same: func(a, b []ps.Model) bool { return reflect.DeepEqual(a, b) },
	})
}

func (s *Store) readModels(ctx context.Context) ([]ps.Model, int64, error) {
	now, err := s.read(ctx, "read models", below(s.keys.models()))
	if err != nil {
		return nil, 0, err
	}
	models, err := s.decodeModels(now)
	return models, now.revision, err
}

func (s *Store) decodeModels(now *reading) ([]ps.Model, error) {
	var models []ps.Model
	err := now.below(s.keys.models(), func(name string, kv *mvccpb.KeyValue) error {
		m, err := decodeModel(name, kv)
		models = append(models, m)
		return err
	})
	return models, err
}
