package ps

import "time"

// Boundary is a place in the history of a shard, between two pushes. Within a fence, a
// larger Seq has everything that a smaller one has. A larger fence comes after a smaller
// one, and may have less: its owner begins with an epoch or a copy.
type Boundary struct {
	Fence Fence
	Seq   uint64
}

// Freshness says how fresh rows of a shard are that were read.
type Freshness struct {
	Boundary
	// Applied is the first offset that is not applied, by partition.
	Applied []Offset
	// EventTime is the largest that is applied, in milliseconds since 1970; 0 if unknown.
	EventTime int64
	// Age is how long ago something was last applied, or the shard was opened if nothing was
	// since then; or, of a copy, how long ago the copy was last known to have all that there
	// is.
	Age time.Duration
}

// Lookup is a pull by a reader, who may want to be told how fresh rows are and to be sent
// them smaller.
type Lookup struct {
	Pull
	Encoding Encoding
	// Seen, if there is any, has for each of the pull's shards what the reader has seen of it
	// already: of a shard that has less it wants nothing.
	Seen []Boundary
	// AgeMax, if not 0, is the greatest Freshness.Age that the reader accepts.
	AgeMax time.Duration
}

// Behind reports whether a boundary comes before b, so that who has seen b would go back.
func (b Boundary) Behind(seen Boundary) bool {
	return b.Fence < seen.Fence || b.Fence == seen.Fence && b.Seq < seen.Seq
}
