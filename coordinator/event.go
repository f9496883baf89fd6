package coordinator

import "fmt"

// Event is a change of the cluster, as it is told to operators.
type Event struct {
	// At is when it was made, in milliseconds since 1970, by the clock of whoever made it.
	At int64 `json:"at"`
	// Kind is what has changed.
	Kind EventKind `json:"kind"`
	// What says in one sentence what has changed, and Why for what reason.
	What string `json:"what"`
	Why  string `json:"why,omitempty"`
	// By is the coordinator that made the change, or the operator who asked for it.
	By string `json:"by"`
}

// EventKind is what an event is about.
type EventKind string

// Kinds of events.
const (
	EventMember     EventKind = "member"     // a process came or went
	EventShards     EventKind = "shards"     // shards have other owners, standbys or targets
	EventPartitions EventKind = "partitions" // partitions are read by others
	EventModel      EventKind = "model"      // a model was applied
	EventEpoch      EventKind = "epoch"      // a model went back to an epoch
	EventDrain      EventKind = "drain"      // a node is to give up all it has, or not any more
)

// Limits of the log of events.
const (
	EventsMax     = 10_000  // older ones are forgotten
	EventBytesMax = 4 << 10 // of one, as it is stored
)

func (e Event) String() string {
	s := fmt.Sprintf("%s: %s", e.Kind, e.What)
	if e.Why != "" {
		s += " because " + e.Why
	}
	return s
}
