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
	// TableRows counts the stored rows by table. They do not travel.
	TableRows []int
	// Lineage is the one that the shard belongs to (see checkpoint.Epoch): what is applied
	// in one is not compared with another.
	Lineage uint64
	// AppliedAt is when the owner last applied something of it, and SentAt when it was handed
	// to followers, by the owner's clock, in microseconds since 1970; 0 if unknown. They are
	// for measuring alone.
	AppliedAt, SentAt int64
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

// TableSet is a set of tables of a layout. The zero value is empty.
type TableSet [TablesMax / 64]uint64

// Add puts a table, which is below TablesMax, into the set.
func (s *TableSet) Add(id TableID) { s[id/64] |= 1 << (id % 64) }

// Has reports whether a table is in the set.
func (s *TableSet) Has(id TableID) bool { return id < TablesMax && s[id/64]&(1<<(id%64)) != 0 }

// Reading is what a reader wants of the shards that it follows: weights, of some tables,
// without the optimizer's state. Its blocks have a key and the weights in Encoding as each
// row, and Rows counts the rows of its tables alone. The zero value stands for everything,
// which is what a copy needs that may become the shard.
type Reading struct {
	// Layout is the hash of the layout that it reads rows by; 0 for the zero value alone.
	Layout uint64
	// Tables are those it wants, or all if there are none.
	Tables   TableSet
	Encoding Encoding
}

// Wants reports whether the table is to be sent.
func (r *Reading) Wants(id TableID) bool { return r.Tables == TableSet{} || r.Tables.Has(id) }

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
