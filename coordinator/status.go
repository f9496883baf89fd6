package coordinator

import (
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// Status is the cluster as an operator is shown it. Its JSON is the answer of
// "status -o json": keys may be added and do not change.
type Status struct {
	Cluster string `json:"cluster"`
	Shards  int    `json:"shards"`
	// ShardsWithoutOwner counts the shards that no live node owns.
	ShardsWithoutOwner int `json:"shards_without_owner"`
	// MapVersion is the version of the shard map that the status was read from.
	MapVersion int64 `json:"map_version"`
	// Nodes, Workers and Models are ordered by ID and name. They are never null.
	Nodes   []NodeStatus   `json:"nodes"`
	Workers []WorkerStatus `json:"workers"`
	Models  []ModelStatus  `json:"models"`
}

// NodeStatus is one live parameter-server node.
type NodeStatus struct {
	ID      ps.NodeID `json:"id"`
	Address string    `json:"address"`
	// Shards counts the shards it owns.
	Shards int `json:"shards"`
	// Copies counts the shards of others that it is to keep a copy of.
	Copies int `json:"copies"`
	// Name, Zone, Capacity and Draining are the node's.
	Name     string  `json:"name"`
	Zone     string  `json:"zone"`
	Capacity float64 `json:"capacity"`
	Draining bool    `json:"draining"`
	// Arriving counts the shards that move to it.
	Arriving int `json:"arriving"`
}

// WorkerStatus is one live worker.
type WorkerStatus struct {
	ID    string `json:"id"`
	Model string `json:"model"`
	// Partitions are those assigned to it, ascending. Never null.
	Partitions []ps.Partition `json:"partitions"`
	// Events and BusySeconds are those of its report.
	Events      uint64  `json:"events"`
	BusySeconds float64 `json:"busy_seconds"`
}

// ShardList is what is known of a cluster's shards. Its JSON is the answer of
// "shards -o json".
type ShardList struct {
	// Shards is indexed by shard. Never null.
	Shards []ShardStatus `json:"shards"`
	// Silent are nodes that have not told what they hold; rows, bytes and keys of their
	// shards are unknown and 0. Never null.
	Silent []ps.NodeID `json:"silent"`
}

// ShardStatus is one shard.
type ShardStatus struct {
	Shard ps.ShardID `json:"shard"`
	// Owner is empty while no node owns the shard.
	Owner ps.NodeID `json:"owner"`
	Fence ps.Fence  `json:"fence"`
	// Standbys keep a copy. Never null.
	Standbys []ps.NodeID `json:"standbys"`
	// Target is the node that the shard is moving to; empty while it stays.
	Target ps.NodeID `json:"target"`
	// Rows counts the stored rows of all models, and Bytes their memory at the owner.
	Rows  uint64 `json:"rows"`
	Bytes uint64 `json:"bytes"`
	// KeysPulled and KeysPushed count keys since the owner opened the shard.
	KeysPulled uint64 `json:"keys_pulled"`
	KeysPushed uint64 `json:"keys_pushed"`
}

// Move is a shard that moves, or would. The JSON of a list of them is the answer of
// "rebalance -o json".
type Move struct {
	Shard ps.ShardID `json:"shard"`
	From  ps.NodeID  `json:"from"`
	To    ps.NodeID  `json:"to"`
	Why   string     `json:"why"`
}

// ModelStatus is one model and how far the cluster has learned its stream.
type ModelStatus struct {
	Name       string        `json:"name"`
	Version    uint64        `json:"version"`
	Stream     ps.StreamID   `json:"stream"`
	Generation ps.Generation `json:"generation"`
	// Rows counts the stored rows of all tables.
	Rows uint64 `json:"rows"`
	// ProgressError says why the shards could not all be asked; empty if they were.
	// If set, Rows and what the partitions say about applied events are unknown and
	// 0, not small.
	ProgressError string `json:"progress_error,omitempty"`
	// Partitions is indexed by partition. Never null.
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus is one partition of a model's stream.
type PartitionStatus struct {
	Partition ps.Partition `json:"partition"`
	// Worker reads the partition; empty if none does.
	Worker string `json:"worker"`
	// Applied is the lowest first offset not applied over all shards: every event
	// before it is in the model everywhere.
	Applied ps.Offset `json:"applied"`
	// End is the end of the partition, if EndKnown; the lag is End - Applied.
	End      ps.Offset `json:"end"`
	EndKnown bool      `json:"end_known"`
	// Newest is the end of what was in the partition of a stream that grows when its worker
	// reported last; 0 if it is not known. The lag is Newest - Applied.
	Newest ps.Offset `json:"newest"`
	// Skipped counts the unusable events that every shard skipped.
	Skipped uint64 `json:"skipped"`
	// EventTime is the largest event time applied by any shard, in milliseconds
	// since 1970; 0 if none is known.
	EventTime int64 `json:"event_time"`
}

// Lag returns how many events of the partition are not applied everywhere, and whether it
// is known how far the partition goes.
func (p PartitionStatus) Lag() (events uint64, known bool) {
	end := p.Newest
	if p.EndKnown {
		end = p.End
	}
	if end == 0 && !p.EndKnown {
		return 0, false
	}
	return uint64(max(end, p.Applied) - p.Applied), true
}

// EpochList is the epochs of a model that can be restored. Its JSON is the answer of
// "epochs -o json".
type EpochList struct {
	Model string `json:"model"`
	// Bucket is the URL of where they are; empty if none was taken.
	Bucket string `json:"bucket"`
	// Epochs are newest first. Never null.
	Epochs []EpochStatus `json:"epochs"`
}

// EpochStatus is one committed checkpoint epoch.
type EpochStatus struct {
	Epoch ps.Epoch `json:"epoch"`
	// Lineage is another after a restore.
	Lineage uint64 `json:"lineage"`
	// Created is when it was committed, in milliseconds since 1970.
	Created int64 `json:"created"`
	// Events is how many events every shard had applied.
	Events uint64 `json:"events"`
	// Manifest refers to the object that lists its files.
	Manifest checkpoint.Ref `json:"manifest"`
}

// EpochTaken is what became of an epoch that was asked for. Its JSON is the answer of
// "checkpoint -o json".
type EpochTaken struct {
	EpochStatus
	// Taken is false if nothing had changed since the newest epoch, which this then is.
	Taken bool `json:"taken"`
	// Bytes were written.
	Bytes uint64 `json:"bytes"`
	// ShardsKept have their entry of the epoch before.
	ShardsKept int `json:"shards_kept"`
}
