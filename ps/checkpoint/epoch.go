package checkpoint

import "github.com/freshet-ml/freshet/ps"

// Epoch is what the cluster's store says of a model's newest committed epoch, and of
// the older ones that are kept. It is changed by one fenced transaction; a manifest
// counts only if it is named here.
type Epoch struct {
	// Number is the newest committed epoch, from 1.
	Number ps.Epoch `json:"number"`
	// Lineage is raised whenever the model is set back to an older epoch. Offsets of
	// different lineages are not compared.
	Lineage uint64 `json:"lineage"`
	// Bucket is the URL of where manifests and files are.
	Bucket string `json:"bucket"`
	// Retained are the epochs that can be restored, newest first; the first is Number's.
	//
	// Invariant: every file that a retained manifest reaches exists.
	Retained []Retained `json:"retained"`
}

// Retained names the manifest of an epoch that is kept.
type Retained struct {
	Number   ps.Epoch `json:"number"`
	Lineage  uint64   `json:"lineage"`
	Manifest Ref      `json:"manifest"`
	// Created is when it was committed, in milliseconds since 1970, for people.
	Created int64 `json:"created"`
	// Events is the sum over partitions of the offsets that all shards had applied.
	Events uint64 `json:"events"`
}

// Want is a shard whose snapshot is wanted.
type Want struct {
	Shard ps.ShardID
	// Parent is the hash of the committed file that an increment is wanted of; zero
	// asks for a full snapshot.
	Parent Hash
}

// Taken is what became of a Want.
type Taken struct {
	Shard ps.ShardID
	// Fence is the shard's when the snapshot was taken, and Seq what it had come to.
	Fence ps.Fence
	Seq   uint64
	// Applied is the first offset not yet applied, by partition, as of the snapshot.
	Applied []ps.Offset
	// File was written. It is the zero File if the shard has not changed since Parent,
	// and full if the shard does not descend from Parent.
	File File
	// Err says why there is no snapshot.
	Err error
}
