package ps

// Holding is what a node has of one shard of one model: the shard, which it owns, or a
// whole copy of another node's.
type Holding struct {
	Model string
	Shard ShardID
	// Fence is that of the ownership, or of the ownership that the copy follows.
	Fence Fence
	// Seq counts the changes that are in it.
	Seq uint64
	// Copy: it is a copy. One that is not whole is no holding.
	Copy bool
	// Rows counts the stored rows of all tables, and Bytes their memory.
	Rows, Bytes uint64
	// KeysPulled and KeysPushed count the keys that were asked for and changed since the
	// node opened the shard; 0 of a copy.
	KeysPulled, KeysPushed uint64
}
