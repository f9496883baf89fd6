package ps

import "fmt"

// Rows are rows of one table: their keys and, row by row, their values.
type Rows struct {
	Table TableID
	Keys  []Key
	// Values holds (len(Keys), width) elements of the table's kind, little
	// endian, row-major. In an update they are gradients, or increments where the
	// table's optimizer is additive; in an answer they are weights.
	Values []byte
	// Pulled says in an update which of the keys that Update.Pulled asked for in this
	// table and shard Keys are: bit i%8 of byte i/8 for the i-th. Empty, it says nothing.
	Pulled []byte
	// Hints, if there are as many as keys, save a node looking these up. They do not
	// travel.
	Hints []Hint
}

// Hint is where a node found a row, for the same node to find it again: the row's number in
// its table plus one, or 0 if it had none. It may have become wrong, which costs time and
// nothing else.
type Hint = uint32

// Item is one shard's part of an update: everything the events of a range
// contribute to that shard.
//
// Invariant: an item holds the contributions of all events of [From, Update.To)
// to the shard, and no other.
type Item struct {
	Shard ShardID
	// From is the end of what the worker sent this shard before, or what the
	// shard said it had applied. Events between From and the update's own first
	// event have no contribution to the shard.
	From Offset
	// Trained, Held and Skipped count the range's events with a contribution to
	// the shard: learned from, held out (they contribute figures only), and
	// unusable (they contribute a skip to every shard).
	Trained, Held, Skipped uint64
	// Fingerprint is over all three kinds of events.
	Fingerprint Fingerprint
	// EventTime is the largest event time in the range, in milliseconds since
	// 1970, or 0 if none is known.
	EventTime int64
	Rows      []Rows
}

// Update is what a worker pushes: the contributions of a range of one
// partition, cut by shard.
type Update struct {
	Model   string
	Stream  StreamID
	Layout  uint64 // Layout.Hash
	Version uint64 // the spec's
	Partition
	Generation Generation
	// To is the end of the range of every item.
	To    Offset
	Items []Item
	// Pulled is the number of the pull that Rows.Pulled refers to (see ps/client), or 0.
	Pulled uint64
}

// Outcome says what a shard did with an item. Its numbers reach the wire:
// append only.
type Outcome uint8

// The outcomes of an item. Only Applied changes the shard.
const (
	Refused   Outcome = iota // see the answer's Err
	Applied                  // all rows applied, applied = to
	Duplicate                // to <= applied: it has all of it
	Gap                      // from > applied: something before it is missing
	Overlap                  // from < applied < to: it has some of it
)

// String returns the outcome's name.
func (o Outcome) String() string {
	switch o {
	case Refused:
		return "refused"
	case Applied:
		return "applied"
	case Duplicate:
		return "duplicate"
	case Gap:
		return "gap"
	case Overlap:
		return "overlap"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// Judge is the offset rule, the heart of exactly-once: it decides what becomes
// of an item of r at a shard that has applied everything below applied. An
// empty or reversed range is the caller's to refuse.
func Judge(applied Offset, r Range) Outcome {
	switch {
	case r.To <= applied:
		return Duplicate
	case r.From > applied:
		return Gap
	case r.From < applied:
		return Overlap
	}
	return Applied
}

// Answer is a shard's reply to an item.
type Answer struct {
	Shard   ShardID
	Outcome Outcome
	// Applied is the shard's first offset not yet applied, after the item. It is
	// meaningless if the node does not own the shard.
	Applied Offset
	// Err says why an item was refused, wrapping a sentinel of this package; nil
	// for every other outcome.
	Err error
}

// Progress is what a shard knows of one partition, stored with its rows.
//
// Invariant: Trained + Held + Skipped = Fingerprint.Count = the events below
// Applied with a contribution to the shard.
type Progress struct {
	// Applied is the first offset not yet applied.
	Applied                Offset
	Trained, Held, Skipped uint64
	Fingerprint            Fingerprint
	EventTime              int64
}

// Valid reports a broken invariant of p.
func (p Progress) Valid() error {
	count := p.Fingerprint.Count // each one alone first: their sum could wrap around
	if p.Trained > count || p.Held > count-p.Trained || p.Skipped != count-p.Trained-p.Held || count > uint64(p.Applied) {
		return fmt.Errorf("%d trained + %d held + %d skipped events, %d in the fingerprint, %d applied: %w",
			p.Trained, p.Held, p.Skipped, p.Fingerprint.Count, p.Applied, ErrInvalid)
	}
	return nil
}

// ShardProgress is the progress of a model's stream at one shard.
type ShardProgress struct {
	Shard ShardID
	Fence Fence
	// Seq counts the shard's mutations of this model. It never falls while the shard
	// is handed on: whoever restores it goes on from the file's.
	Seq uint64
	// Rows counts the stored rows of all tables.
	Rows uint64
	// Partitions is indexed by partition.
	Partitions []Progress
}
