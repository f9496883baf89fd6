package meta

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// valueBytesMax bounds a value that we write. etcd refuses requests over 1.5 MiB.
const valueBytesMax = 1400 << 10

// formatVersion is the version of the values of maps and assignments. Readers accept
// every older one.
const formatVersion = 1

// named is a list of names in which few occur often: each is written once.
//
// Invariant: every entry of At is 0, for no name, or the position of its name in
// Names plus 1.
type named struct {
	Names []string `json:"names"`
	At    []int    `json:"at"`
}

func newNamed[T ~string](list []T) named {
	n := named{Names: []string{}, At: make([]int, len(list))}
	position := map[T]int{"": 0}
	for i, name := range list {
		at, ok := position[name]
		if !ok {
			n.Names = append(n.Names, string(name))
			at = len(n.Names)
			position[name] = at
		}
		n.At[i] = at
	}
	return n
}

// list returns the names, one for each entry of At.
func (n named) list() ([]string, error) {
	list := make([]string, len(n.At))
	for i, at := range n.At {
		if at < 0 || at > len(n.Names) {
			return nil, fmt.Errorf("entry %d refers to name %d of %d: %w", i, at, len(n.Names), ps.ErrCorrupt)
		}
		if at > 0 {
			list[i] = n.Names[at-1]
		}
	}
	return list, nil
}

// storedMap is the value of the map key.
type storedMap struct {
	Format int        `json:"format"`
	Owners named      `json:"owners"`
	Fences []ps.Fence `json:"fences"`
	// Standbys has every shard's first standby, then every one's second, and so on.
	Standbys []named `json:"standbys,omitempty"`
	// Targets has the node that each shard moves to; nil if all stay.
	Targets *named `json:"targets,omitempty"`
}

func encodeShards(shards []route.Shard) ([]byte, error) {
	owners, fences, ranks := make([]ps.NodeID, len(shards)), make([]ps.Fence, len(shards)), 0
	for s, shard := range shards {
		owners[s], fences[s] = shard.Owner, shard.Fence
		ranks = max(ranks, len(shard.Standbys))
	}
	stored := storedMap{Format: formatVersion, Owners: newNamed(owners), Fences: fences}
	for rank := range ranks {
		standbys := make([]ps.NodeID, len(shards))
		for s, shard := range shards {
			if rank < len(shard.Standbys) {
				standbys[s] = shard.Standbys[rank]
			}
		}
		stored.Standbys = append(stored.Standbys, newNamed(standbys))
	}
	if slices.ContainsFunc(shards, func(s route.Shard) bool { return s.Target != "" }) {
		targets := make([]ps.NodeID, len(shards))
		for s, shard := range shards {
			targets[s] = shard.Target
		}
		list := newNamed(targets)
		stored.Targets = &list
	}
	return encode("shard map", stored)
}

func decodeShards(value []byte) ([]route.Shard, error) {
	var stored storedMap
	if err := decode("shard map", value, &stored); err != nil {
		return nil, err
	}
	if err := checkFormat("shard map", stored.Format); err != nil {
		return nil, err
	}
	owners, err := stored.Owners.list()
	if err != nil {
		return nil, fmt.Errorf("shard map: %w", err)
	}
	if err := ps.ValidShards(len(owners)); err != nil || len(stored.Fences) != len(owners) {
		return nil, fmt.Errorf("shard map of %d owners and %d fences: %w", len(owners), len(stored.Fences), ps.ErrCorrupt)
	}
	shards := make([]route.Shard, len(owners))
	for s := range shards {
		shards[s] = route.Shard{Owner: ps.NodeID(owners[s]), Fence: stored.Fences[s]}
	}
	for rank, names := range stored.Standbys {
		standbys, err := names.list()
		if err != nil || len(standbys) != len(shards) {
			return nil, fmt.Errorf("shard map with %d standbys of rank %d for %d shards: %w", len(standbys), rank, len(shards), errors.Join(ps.ErrCorrupt, err))
		}
		for s, n := range standbys {
			if n != "" {
				shards[s].Standbys = append(shards[s].Standbys, ps.NodeID(n))
			}
		}
	}
	if stored.Targets == nil {
		return shards, nil
	}
	targets, err := stored.Targets.list()
	if err != nil || len(targets) != len(shards) {
		return nil, fmt.Errorf("shard map with %d targets for %d shards: %w", len(targets), len(shards), errors.Join(ps.ErrCorrupt, err))
	}
	for s, n := range targets {
		shards[s].Target = ps.NodeID(n)
	}
	return shards, nil
}

// storedAssignment is the value of a model's assignment key.
type storedAssignment struct {
	Format     int           `json:"format"`
	Generation ps.Generation `json:"generation"`
	Workers    int           `json:"workers"`
	Owners     named         `json:"owners"`
}

func encodeAssignment(a coordinator.Assignment) ([]byte, error) {
	return encode("assignment of model "+a.Model, storedAssignment{
		Format: formatVersion, Generation: a.Generation, Workers: a.Workers, Owners: newNamed(a.Owners),
	})
}

func decodeAssignment(model string, value []byte) (coordinator.Assignment, error) {
	what := "assignment of model " + model
	var stored storedAssignment
	if err := decode(what, value, &stored); err != nil {
		return coordinator.Assignment{}, err
	}
	if err := checkFormat(what, stored.Format); err != nil {
		return coordinator.Assignment{}, err
	}
	owners, err := stored.Owners.list()
	if err != nil {
		return coordinator.Assignment{}, fmt.Errorf("%s: %w", what, err)
	}
	return coordinator.Assignment{
		Model: model, Generation: stored.Generation, Workers: stored.Workers, Owners: owners,
	}, nil
}

func checkFormat(what string, format int) error {
	if format != formatVersion {
		return fmt.Errorf("%s has format %d, this program reads %d; it was written by a newer one: %w",
			what, format, formatVersion, ps.ErrCorrupt)
	}
	return nil
}

// encode returns v as a value of etcd.
func encode(what string, v any) ([]byte, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", what, ps.ErrInvalid, err)
	}
	if len(value) > valueBytesMax {
		return nil, fmt.Errorf("%s takes %d bytes, etcd takes %d at most: %w", what, len(value), valueBytesMax, ps.ErrTooLarge)
	}
	return value, nil
}

// decode fills v from a value of etcd.
func decode(what string, value []byte, v any) error {
	if err := json.Unmarshal(value, v); err != nil {
		return fmt.Errorf("%s: %w: %w", what, ps.ErrCorrupt, err)
	}
	return nil
}

func decodeNode(name string, kv *mvccpb.KeyValue) (coordinator.Node, error) {
	var n coordinator.Node
	err := decode("node "+name, kv.Value, &n)
	n.ID, n.Joined = ps.NodeID(name), kv.CreateRevision
	return n, err
}

func decodeWorker(name string, kv *mvccpb.KeyValue) (coordinator.Worker, error) {
	var w coordinator.Worker
	err := decode("worker "+name, kv.Value, &w)
	w.ID, w.Joined = name, kv.CreateRevision
	return w, err
}

func decodeModel(name string, kv *mvccpb.KeyValue) (ps.Model, error) {
	var m ps.Model
	err := decode("model "+name, kv.Value, &m)
	m.Name = name
	return m, err
}
