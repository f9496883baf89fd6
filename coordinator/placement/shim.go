package placement

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// Node is a living node, as far as placement needs to know it.
type Node struct {
	ID       ps.NodeID
	Zone     string
	Capacity float64
	Draining bool
}

// Cluster is what shards are placed on.
type Cluster struct {
	Nodes    []Node
	Standbys int
	Loads    []float64
	Moves    int
}

// Move is a move.
type Move struct {
	Shard    ps.ShardID
	From, To ps.NodeID
	Why      string
}

func ids(c Cluster) (ids []ps.NodeID) {
	for _, n := range c.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// Shards places.
func Shards(current []route.Shard, c Cluster) (next []route.Shard, changed []ps.ShardID) {
	return place(current, ids(c), c.Standbys)
}

// Moves returns none.
func Moves(current []route.Shard, c Cluster) []Move { return nil }
