package ps

// Pull asks one node for rows of some of its shards.
type Pull struct {
	Model  string
	Layout uint64 // Layout.Hash
	// Shards are the shards that keys are grouped by, ascending.
	Shards []ShardID
	Tables []TableKeys
	// Number, if not 0, is the name by which a push that follows may refer to the keys.
	Number uint64
}

// TableKeys are the keys wanted of one table.
//
// Invariant: Counts has one entry per shard of the pull and adds up to len(Keys).
type TableKeys struct {
	Table TableID
	// Counts says how many of the keys belong to each of the pull's shards.
	Counts []uint32
	// Keys are grouped by shard, in the order of the pull's shards.
	Keys []Key
	// Hints, if there are as many as keys, receive where the rows are.
	Hints []Hint
}

// Read asks a cluster for one table's rows of a group of keys.
type Read struct {
	Table TableID
	// RowBytes is Table.RowBytes of the table.
	RowBytes int
	// Kind is of the table's elements. Only a look-up whose rows are to travel smaller
	// reads it.
	Kind  Kind
	Group *Group
	// Values receives (len(Group.Keys), width) elements of the table's kind. Its
	// memory is used if it is large enough.
	Values []byte
}
