package shard

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// Set replaces the weights of rows of a table by what was not learned here, as
// table.Set says, and returns how many rows were born. It counts as one mutation, so
// that increments and deltas have the rows; it is no event, so offsets, counts and
// fingerprints stay as they are. The caller keeps the slices.
//
// It is for shards at rest: a copy of a shard in a cluster that somebody sets rows of is
// another shard, and has to begin another lineage (see package graft).
//
// It is all or nothing: it wraps ps.ErrInvalid if there is no such table, a key belongs to
// another shard, or as table.Set does, and ps.ErrOutOfMemory if there is no room.
func (s *Shard) Set(id ps.TableID, keys []ps.Key, weights []byte, fresh bool) (born int, err error) {
	t, err := s.table(id)
	if err != nil {
		return 0, err
	}
	if err := s.own(id, keys); err != nil {
		return 0, err
	}
	if born, err = t.Set(keys, weights, s.seq+1, fresh); err != nil {
		return 0, fmt.Errorf("shard %d: %w", s.config.ID, err)
	}
	s.seq++
	return born, nil
}
