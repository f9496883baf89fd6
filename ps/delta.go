package ps

// Block is some rows of one table, encoded as they are in snapshots and deltas.
type Block struct {
	Table TableID
	// Stride is the bytes of each row: 16 and those of its elements.
	Stride int
	// Rows are whole rows in no particular order, each key and seq as 8 bytes, then
	// weights and the optimizer's state, little endian and without padding.
	Rows []byte
}

// Delta is the rows of a shard that have changed between two boundaries, as they are
// at the later one, and how far the shard is there. It is state, never an increment:
// what is stored replaces what was there.
//
// A large one comes in parts, in order, which say the same but for Part, More and
// Blocks. Together the blocks have every such row once. What has taken a part and not
// the last one is no copy of anything.
//
// A Delta that was handed to somebody is not changed any more, by anybody.
type Delta struct {
	// Since is the seq of the earlier boundary: rows with a seq above it are in the
	// delta, no others. It is 0 for a base, which has all rows and stands for itself.
	Since uint64
	// ShardProgress is the shard's at the later boundary. Rows counts all stored rows
	// then, also those that have not changed.
	ShardProgress
	// Part numbers the parts from 0, and More says that it is not the last.
	Part   int
	More   bool
	Blocks []Block
}

// Bytes returns the size of the delta's rows.
func (d *Delta) Bytes() int {
	n := 0
	for _, b := range d.Blocks {
		n += len(b.Rows)
	}
	return n
}

// News is what somebody who follows shards is told, in order.
type News struct {
	Deltas []*Delta
	// Lost are shards that are not followed any more.
	Lost []Lost
}

// Lost is a shard that cannot be followed, at least not from where its follower is.
type Lost struct {
	Shard ShardID
	// Err says why, wrapping a sentinel of this package. The follower may begin anew.
	Err error
}

// FollowChange says which shards to follow from now on, each from its base, and which
// no more.
type FollowChange struct {
	Begin, End []ShardID
}
