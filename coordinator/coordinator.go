// Package coordinator holds the words of coordination: who takes part in a
// cluster, which models it holds, who reads which partition of a model's stream,
// and what an operator is told about all of it. It does no I/O, starts no
// goroutine and reads no clock.
//
// The one idea to keep in mind: nothing here makes learning correct. Ownership of
// shards and of partitions only says who should do the work; what is applied
// exactly once is decided by the shards alone, so that an assignment which is late,
// doubled or stale costs time and never an event.
package coordinator

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// Limits of what a cluster stores. They keep every value and every request to etcd
// below its 1.5 MiB.
const (
	SpecBytesMax   = 1 << 20   // a model's spec as its author wrote it
	LayoutBytesMax = 128 << 10 // a model's layout as JSON: 256 tables with names of 250 bytes
	StreamBytesMax = 4 << 10   // a stream's identity
	PartitionsMax  = 1 << 16   // of one stream: an assignment names an owner for each
	NameBytesMax   = 128       // names and identifiers that become part of a key
)

// Cluster is what a cluster was created with. It never changes.
type Cluster struct {
	Name string `json:"name"`
	// Shards is the number of shards, a power of two.
	Shards int `json:"shards"`
}

// Node is one life of a parameter-server process.
type Node struct {
	ID ps.NodeID `json:"id"`
	// Address is the host:port where it serves its shards. Two processes cannot
	// listen at one address, so of two nodes with the same address the one that
	// joined first is dead already.
	Address string `json:"address"`
	// Name is what people call the process, such as its pod's name. It may be empty
	// and is stable over restarts.
	Name string `json:"name,omitempty"`
	// Gossip is the host:port where the process gossips; empty if it does not.
	Gossip string `json:"gossip,omitempty"`
	// Zone is what fails together, such as a rack or a cloud's zone. A shard's copies are
	// kept in different ones, if there are any. It may be empty, which is a zone, too.
	Zone string `json:"zone,omitempty"`
	// Capacity says how much the node takes of what there is, next to others: one of
	// capacity 2 gets twice as many shards as one of 1. 0 is 1.
	Capacity float64 `json:"capacity,omitempty"`
	// Draining: somebody wants the node to give up all it has; see meta.Store.Drain.
	Draining bool `json:"-"`
	// Joined is the store's revision at which the node joined: a later one is larger.
	Joined int64 `json:"-"`
}

// Worker is one life of a trainer process.
type Worker struct {
	// ID names this life of the process; a restarted worker has another one.
	ID string `json:"id"`
	// Model names the model whose stream it learns from.
	Model string `json:"model"`
	// Gossip is the host:port where the process gossips; empty if it does not.
	Gossip string `json:"gossip,omitempty"`
	// Joined is the store's revision at which the worker joined.
	Joined int64 `json:"-"`
	// Report is the newest it has reported; empty before the first.
	Report WorkerReport `json:"-"`
}

// WorkerReport is what a worker tells about its partitions from time to time. It is
// for people and for scaling; nothing is decided by it.
type WorkerReport struct {
	// Partitions has one entry for each partition the worker reads, ascending.
	Partitions []PartitionReport `json:"partitions"`
	// Events counts the events it has learned in this life, and BusySeconds the time in
	// which it had events to learn: what it waits for the stream or for its pace is not in
	// it. Their ratio is what the worker can do.
	Events      uint64  `json:"events,omitempty"`
	BusySeconds float64 `json:"busy_seconds,omitempty"`
}

// PartitionReport is how far a worker is in one partition.
type PartitionReport struct {
	Partition ps.Partition `json:"partition"`
	// Position is the offset of the next event that the worker will read.
	Position ps.Offset `json:"position"`
	// End is the end of the partition, if EndKnown.
	End      ps.Offset `json:"end"`
	EndKnown bool      `json:"end_known"`
	// Newest is the end of what is in the partition of a stream that grows; 0 if it is not
	// known.
	Newest ps.Offset `json:"newest,omitempty"`
}

// Coordinator is one life of a coordinator process.
type Coordinator struct {
	ID string `json:"id"`
	// Address is the host:port where it serves admin calls and routes.
	Address string `json:"address"`
	// Gossip is the host:port where the process gossips; empty if it does not.
	Gossip string `json:"gossip,omitempty"`
	// Joined is the store's revision at which the coordinator joined.
	Joined int64 `json:"-"`
}

// Role is what a process does. Roles are part of what is gossiped and logged.
type Role string

// Roles of registered processes.
const (
	RoleNode        Role = "node"
	RoleWorker      Role = "worker"
	RoleCoordinator Role = "coordinator"
)

// Member is a registered process of any role.
type Member struct {
	Role Role
	// ID names this life of the process.
	ID string
	// Address is where it serves; a worker serves nowhere.
	Address string
	// Gossip is the host:port where it gossips; empty if it does not.
	Gossip string
}

// Model is a model with the spec it was made from.
type Model struct {
	ps.Model
	// Spec is the spec as its author wrote it; the coordinator does not read it.
	Spec []byte `json:"spec,omitempty"`
}

// Check reports the first thing that keeps a cluster from storing the model, wrapping
// ps.ErrInvalid or, over a limit of this package, ps.ErrTooLarge. Version is not read.
func (m Model) Check() error {
	if err := ValidModelName(m.Name); err != nil {
		return err
	}
	switch {
	case m.Stream == "" || len(m.Stream) > StreamBytesMax:
		return fmt.Errorf("model %s with a stream identity of %d bytes: want 1 to %d: %w",
			m.Name, len(m.Stream), StreamBytesMax, ps.ErrInvalid)
	case m.Partitions < 1 || m.Partitions > PartitionsMax:
		return fmt.Errorf("model %s with a stream of %d partitions: want 1 to %d: %w",
			m.Name, m.Partitions, PartitionsMax, ps.ErrInvalid)
	case len(m.Spec) == 0:
		return fmt.Errorf("model %s without a spec: %w", m.Name, ps.ErrInvalid)
	case len(m.Spec) > SpecBytesMax:
		return fmt.Errorf("model %s with a spec of %d bytes: want at most %d: %w",
			m.Name, len(m.Spec), SpecBytesMax, ps.ErrTooLarge)
	}
	if err := m.Layout.Validate(); err != nil {
		return fmt.Errorf("model %s: %w", m.Name, err)
	}
	layout, err := json.Marshal(m.Layout)
	if err != nil {
		return fmt.Errorf("model %s: layout: %w: %w", m.Name, ps.ErrInvalid, err)
	}
	if len(layout) > LayoutBytesMax {
		return fmt.Errorf("model %s with a layout of %d bytes of JSON: want at most %d: %w",
			m.Name, len(layout), LayoutBytesMax, ps.ErrTooLarge)
	}
	return nil
}

// Assignment says which worker reads which partition of a model's stream.
type Assignment struct {
	Model string `json:"model"`
	// Generation numbers the model's assignments from 1; 0 is that there was none.
	Generation ps.Generation `json:"generation"`
	// Workers is the number of distinct owners. The cluster's events in flight are
	// divided among them.
	Workers int `json:"workers"`
	// Owners has the worker's ID of each partition, indexed by partition; empty
	// where there is none.
	Owners []string `json:"owners"`
}

// Partitions returns the partitions of a worker, ascending.
func (a Assignment) Partitions(worker string) []ps.Partition {
	var owned []ps.Partition
	for p, owner := range a.Owners {
		if owner == worker {
			owned = append(owned, ps.Partition(p))
		}
	}
	return owned
}

// View is a whole cluster at one revision of the store: what a leader plans from.
type View struct {
	Cluster Cluster
	// Revision orders views of the same cluster.
	Revision int64
	// MapRevision is the revision of the last change to Shards. A change is made
	// against it.
	MapRevision int64
	// Shards is indexed by ps.ShardID.
	Shards []route.Shard
	// Nodes, Workers and Models are ordered by ID and name.
	Nodes   []Node
	Workers []Worker
	Models  []ps.Model
	// Assignments is indexed by model; a model without one is missing.
	Assignments map[string]Assignment
	// Epochs is indexed by model; a model without a committed one is missing.
	Epochs map[string]Epoch
}

// Read is what a change of the shard map is based on: the revisions, as they were
// read, of everything that must not have changed before it. The epochs are among
// them because a new owner is chosen by what is committed: an epoch that commits in
// between would let the stream be trimmed past it.
type Read struct {
	Map int64
	// Epochs is indexed by model: the revision of its epoch, 0 if there is none.
	Epochs map[string]int64
}

// Read returns the revisions that the view was read at.
func (v View) Read() Read {
	r := Read{Map: v.MapRevision, Epochs: make(map[string]int64, len(v.Models))}
	for _, m := range v.Models {
		r.Epochs[m.Name] = v.Epochs[m.Name].Revision
	}
	return r
}

// Epoch is what is committed of a model, as it is stored.
type Epoch struct {
	checkpoint.Epoch
	// Revision is the store's at which it was committed; 0 if nothing was.
	Revision int64 `json:"-"`
}

// Map returns the view's shard map, as it is handed to clients.
func (v View) Map() route.Map {
	addresses := make(map[ps.NodeID]string, len(v.Nodes))
	for _, n := range v.Nodes {
		addresses[n.ID] = n.Address
	}
	return route.Map{Version: v.Revision, Shards: v.Shards, Addresses: addresses}
}

// ValidID reports whether an identifier of the given kind ("node", "worker",
// "cluster") can be part of a key: 1 to NameBytesMax letters, digits, ".", "_", ":"
// and "-". The error wraps ps.ErrInvalid.
func ValidID(kind, id string) error {
	return valid(kind, id, ".:")
}

// ValidModelName reports whether a model may have the name: 1 to NameBytesMax
// letters, digits, "_" and "-". The error wraps ps.ErrInvalid.
func ValidModelName(name string) error {
	return valid("model", name, "")
}

func valid(kind, name, others string) error {
	if name == "" {
		return fmt.Errorf("%s without a name: %w", kind, ps.ErrInvalid)
	}
	if len(name) > NameBytesMax {
		return fmt.Errorf("%s name of %d bytes: want at most %d: %w", kind, len(name), NameBytesMax, ps.ErrInvalid)
	}
	for _, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-'
		if !letter && !strings.ContainsRune(others, r) {
			return fmt.Errorf("%s name %q holds %q: want letters, digits and any of %q: %w",
				kind, name, r, "-_"+others, ps.ErrInvalid)
		}
	}
	return nil
}
