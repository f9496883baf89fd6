// Package checkpoint is what a checkpoint looks like at rest: the file of a
// shard's snapshot, the manifest of an epoch that lists such files, and the
// bucket that holds both (a directory, memory, S3, Google Cloud Storage or Azure).
// FORMAT.md draws the bytes.
//
// It decides nothing. When a snapshot is taken, which manifest is committed and
// what is collected are the node's and the coordinator's decisions; what a row
// means is the table's.
//
// The one idea to keep in mind: an object counts only if something that is
// already believed names it, with its length and its hash. etcd names manifests,
// manifests name files. An object that merely exists, whole or not, means nothing,
// so a process may die at any byte of writing one.
//
// Invariants:
//
//  1. An object is written once, under a name of its own, and never changed.
//  2. Rows are handed out only after the checksum of their block was right, and
//     io.EOF only after the counts, the length and the hash of the whole file were.
//  3. An incremental file holds the rows and tombstones of one shard with a seq
//     above its parent's, up to its own.
package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// Hash identifies the contents of an object: of a snapshot file the SHA-256 over
// its block checksums, of a manifest the SHA-256 of its document. It guards
// against accidents; it does not authenticate.
type Hash [sha256.Size]byte

// String returns h as 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns h as 64 hexadecimal digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != 2*len(h) {
		return fmt.Errorf("hash of %d digits: want %d: %w", len(text), 2*len(h), ps.ErrCorrupt)
	}
	if _, err := hex.Decode(h[:], text); err != nil {
		return fmt.Errorf("hash %q: %w: %w", text, ps.ErrCorrupt, err)
	}
	return nil
}

// Ref names an object so that it can be believed: where it is, how long it is and
// what is in it.
type Ref struct {
	Name  string `json:"name"`
	Hash  Hash   `json:"hash"`
	Bytes int64  `json:"bytes"`
}

// File is a snapshot file as a manifest lists it.
type File struct {
	Ref
	// Fence and Seq are the shard's when the snapshot was taken.
	Fence ps.Fence `json:"fence"`
	Seq   uint64   `json:"seq"`
	// Since is the parent's Seq: the file holds what changed after it. 0 for a full one.
	Since uint64 `json:"since"`
	// Parent is the hash of the file that this one adds to; zero for a full one.
	Parent Hash `json:"parent,omitzero"`
	// Rows and Tombstones count what the file holds, over all tables.
	Rows       uint64 `json:"rows"`
	Tombstones uint64 `json:"tombstones,omitzero"`
}

// Full reports whether f needs no other file.
func (f File) Full() bool { return f.Parent == Hash{} }

// Sizes of rows in a file. They reach disk.
const (
	// RowHeadBytes precede a row's elements: its key and the seq of its last change,
	// each a uint64.
	RowHeadBytes = 16
	// TombstoneBytes is a tombstone: the key of a deleted row and the seq of the
	// deletion. No row is as short, for a row has at least one element.
	TombstoneBytes = RowHeadBytes
	// StrideMax bounds a row: 1 MiB is 5 times the widest float64 row with three
	// accumulators of its width.
	StrideMax = 1 << 20
)

// Table describes the rows of one table of a file. A table's position among the
// head's tables is its ps.TableID.
type Table struct {
	Kind ps.Kind
	// Stride is the bytes of one row: RowHeadBytes, its weights and its state.
	Stride int
}

// Head says what a snapshot file is of.
type Head struct {
	Model   string
	Version uint64 // the spec's
	Layout  uint64 // ps.Layout.Hash
	Stream  ps.StreamID
	Shard   ps.ShardID
	// Shards is the number of shards of the cluster.
	Shards int
	// Fence and Seq are the shard's when the snapshot was taken.
	Fence ps.Fence
	Seq   uint64
	// Parent is the file that this one adds to; zero for a full one.
	Parent Ref
	// Since is the parent's Seq, or 0.
	Since uint64
	// Stored counts the rows of all tables that the shard had, in this file and in
	// those before it.
	Stored uint64
	// Partitions is how far the shard was, by partition of the stream.
	Partitions []ps.Progress
	// Tables are all of the layout's, with or without rows in this file.
	Tables []Table
}

// Full reports whether the file needs no other.
func (h *Head) Full() bool { return h.Parent == Ref{} }

// Valid reports what is wrong with the head, wrapping ps.ErrInvalid.
func (h *Head) Valid() error {
	if err := validModel(h.Model); err != nil {
		return err
	}
	if err := ps.ValidShards(h.Shards); err != nil {
		return err
	}
	if int64(h.Shard) >= int64(h.Shards) {
		return fmt.Errorf("shard %d of %d: %w", h.Shard, h.Shards, ps.ErrInvalid)
	}
	if err := h.validParent(); err != nil {
		return err
	}
	if len(h.Partitions) == 0 {
		return fmt.Errorf("no partitions: %w", ps.ErrInvalid)
	}
	for p, progress := range h.Partitions {
		if err := progress.Valid(); err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
	}
	if len(h.Tables) == 0 || len(h.Tables) > ps.TablesMax {
		return fmt.Errorf("%d tables: want 1 to %d: %w", len(h.Tables), ps.TablesMax, ps.ErrInvalid)
	}
	for i, t := range h.Tables {
		if t.Kind > ps.Uint64 {
			return fmt.Errorf("table %d has %v: %w", i, t.Kind, ps.ErrInvalid)
		}
		if t.Stride <= RowHeadBytes || t.Stride > StrideMax || (t.Stride-RowHeadBytes)%t.Kind.Size() != 0 {
			return fmt.Errorf("table %d has rows of %d bytes: want %d and a whole number of %v, at most %d: %w",
				i, t.Stride, RowHeadBytes, t.Kind, StrideMax, ps.ErrInvalid)
		}
	}
	return nil
}

// validParent reports whether the file's place in its chain is possible.
func (h *Head) validParent() error {
	if h.Since > h.Seq {
		return fmt.Errorf("rows since %d at seq %d: %w", h.Since, h.Seq, ps.ErrInvalid)
	}
	if h.Full() {
		if h.Since != 0 {
			return fmt.Errorf("rows since %d without a parent: %w", h.Since, ps.ErrInvalid)
		}
		return nil
	}
	parent, ok := parseSnapshot(h.Parent.Name)
	if !ok || parent.model != h.Model || parent.shard != h.Shard || parent.tip.seq != h.Since || h.fenceBelow(parent) {
		return fmt.Errorf("parent %q of a file of model %q, shard %d, fence %d, since %d: %w",
			h.Parent.Name, h.Model, h.Shard, h.Fence, h.Since, ps.ErrInvalid)
	}
	if h.Parent.Hash == (Hash{}) || h.Parent.Bytes <= 0 {
		return fmt.Errorf("parent %q without hash or length: %w", h.Parent.Name, ps.ErrInvalid)
	}
	return nil
}

func (h *Head) fenceBelow(parent snapshotName) bool { return h.Fence < parent.tip.fence }
