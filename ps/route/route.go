// Package route holds the shard map: which node owns which shard, under which
// fence, and where it listens. It is data; watching it is the business of the
// coordinator's store and of the client.
package route

import (
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// Shard is the ownership of one shard.
type Shard struct {
	// Owner is empty while no node owns the shard.
	Owner ps.NodeID `json:"owner,omitempty"`
	// Fence numbers the ownership. It rises with every change of Owner.
	Fence ps.Fence `json:"fence"`
	// Standbys are nodes that keep a copy, of which one becomes the owner if the owner
	// is gone. Who they are says nothing of what they have.
	Standbys []ps.NodeID `json:"standbys,omitempty"`
	// Target is the node that the shard is moving to; empty while it stays. It keeps a copy,
	// as a standby does, and becomes the owner once the copy is whole.
	Target ps.NodeID `json:"target,omitempty"`
}

// Equal reports whether s and o say the same.
func (s Shard) Equal(o Shard) bool {
	return s.Owner == o.Owner && s.Fence == o.Fence && slices.Equal(s.Standbys, o.Standbys) && s.Target == o.Target
}

// Destination returns who owns the shard when it has moved: its target, or its owner.
func (s Shard) Destination() ps.NodeID {
	if s.Target != "" {
		return s.Target
	}
	return s.Owner
}

// Copied reports whether a node keeps a copy of the shard: as a standby, or because the
// shard moves to it.
func (s Shard) Copied(by ps.NodeID) bool {
	return by != "" && (slices.Contains(s.Standbys, by) || s.Target == by)
}

// Map is the shard map at one version.
//
// Invariant: len(Shards) is a power of two and the same in every version.
type Map struct {
	// Version orders maps: the etcd revision the map was read at. Of two maps the
	// one with the higher version is newer or says the same. 0 is the empty map.
	Version int64 `json:"version"`
	// Shards is indexed by ps.ShardID.
	Shards []Shard `json:"shards"`
	// Addresses has the host:port of every live node.
	Addresses map[ps.NodeID]string `json:"addresses"`
}

// Address returns where shard s is served. It returns ps.ErrNoOwner if no live
// node owns it.
func (m Map) Address(s ps.ShardID) (string, error) {
	if int(s) >= len(m.Shards) {
		return "", fmt.Errorf("shard %d of %d: %w", s, len(m.Shards), ps.ErrInvalid)
	}
	owner := m.Shards[s].Owner
	if owner == "" {
		return "", fmt.Errorf("shard %d: %w", s, ps.ErrNoOwner)
	}
	address, ok := m.Addresses[owner]
	if !ok {
		return "", fmt.Errorf("shard %d: its owner %s is gone: %w", s, owner, ps.ErrNoOwner)
	}
	return address, nil
}

// Complete reports whether every shard has a live owner.
func (m Map) Complete() bool {
	for s := range m.Shards {
		if _, err := m.Address(ps.ShardID(s)); err != nil {
			return false
		}
	}
	return len(m.Shards) > 0
}

// Owned returns the shards of a node with their fences.
func (m Map) Owned(node ps.NodeID) map[ps.ShardID]ps.Fence {
	owned := make(map[ps.ShardID]ps.Fence)
	for s, shard := range m.Shards {
		if shard.Owner == node {
			owned[ps.ShardID(s)] = shard.Fence
		}
	}
	return owned
}

// Copies returns the shards that a node keeps a copy of, ascending.
func (m Map) Copies(node ps.NodeID) []ps.ShardID {
	var shards []ps.ShardID
	for s, shard := range m.Shards {
		if shard.Copied(node) {
			shards = append(shards, ps.ShardID(s))
		}
	}
	return shards
}
