package model_test

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/node"
)

// The decisions around shards, as pure functions of small values. Promotion and
// collection are the product's. What compares revisions is a transaction of
// coordinator/meta, and who contributes to an epoch and what an increment is asked over
// is decided in the middle of coordinator/epochs: those stay stated here, and the
// simulation drives the product's. Trimming and the swap of a replica have no product
// code yet.

// offsets are one offset per partition.
type offsets [2]uint8

// reaches reports whether a is at or beyond b in every partition.
func (a offsets) reaches(b offsets) bool { return a[0] >= b[0] && a[1] >= b[1] }

// mayPromote reports whether a complete copy may become the owner as it is: it must
// have followed the ownership that it succeeds, and have applied all that the last
// committed epoch has, in every partition. Otherwise the new owner loads the epoch.
//
// The product decides after the change of owner, under the fence that follows.
func mayPromote(followed, fence uint8, applied, epoch offsets) bool {
	progress := ps.ShardProgress{Fence: ps.Fence(followed), Partitions: make([]ps.Progress, len(applied))}
	committed := make([]ps.Offset, len(epoch))
	for p := range applied {
		progress.Partitions[p].Applied, committed[p] = ps.Offset(applied[p]), ps.Offset(epoch[p])
	}
	return node.MayPromote(progress, ps.Fence(fence)+1, committed) == nil
}

// mayCommit is the comparison in a transaction that changes an owner or commits an
// epoch: neither the map nor the epoch has changed since the coordinator read what
// it decided from.
func mayCommit(mapMoved, epochMoved bool) bool { return !mapMoved && !epochMoved }

// mayContribute reports whether a snapshot may enter an epoch: it was written under
// the fence that the map shows after the snapshot was in.
func mayContribute(written, fence uint8) bool { return written == fence }

// trimTo returns how far the stream may be trimmed when an epoch is committed.
func trimTo(epoch, _ offsets) offsets { return epoch }

// mayUse reports whether a copy that is fed base rows and deltas in one order is a
// copy at all: it has seen the end mark. (Rows that were there before say nothing.)
func mayUse(_ int, ended bool) bool { return ended }

// parentOf returns the file that an increment is written over: the one that the
// last manifest names, not the last one written.
func parentOf(committed, _ uint8) uint8 { return committed }

// mayCollect reports whether a file may be removed: no manifest reaches it, and it is
// older than the committed tip, so that it belongs to no attempt that still runs.
func mayCollect(file, tip uint8, reached bool) bool {
	r := 0
	if reached {
		r = 1
	}
	return collectable[file][tip][r]
}

// collectable is what checkpoint.Garbage says of a file, by its number, the committed
// tip's, and whether a manifest reaches it. Numbers are seqs here; tip 0 is no file.
var collectable = func() (c [chainFiles + 1][chainFiles + 1][2]bool) {
	for file := range c {
		for tip := range c[file] {
			for reached := range c[file][tip] {
				c[file][tip][reached] = garbage(uint64(file), uint64(tip), reached == 1)
			}
		}
	}
	return c
}()

func garbage(file, tip uint64, reached bool) bool {
	name := func(seq uint64) string {
		return checkpoint.Name(&checkpoint.Head{Model: "m", Fence: 1, Seq: seq}, seq)
	}
	entry := checkpoint.Shard{Fence: 1, Seq: tip}
	if tip > 0 {
		entry.Files = []checkpoint.File{{Ref: checkpoint.Ref{Name: name(tip)}, Fence: 1, Seq: tip}}
	}
	if reached {
		entry.Files = append(entry.Files, checkpoint.File{Ref: checkpoint.Ref{Name: name(file)}, Fence: 1, Seq: file})
	}
	manifest := checkpoint.Manifest{Model: "m", Epoch: 1, Shards: []checkpoint.Shard{entry}}
	switch listed := checkpoint.Garbage([]checkpoint.Manifest{manifest}, nil, []string{name(file)}); len(listed) {
	case 0:
		return false
	case 1:
		return true
	default:
		panic(fmt.Sprintf("one file was listed, %v are garbage", listed))
	}
}

// maySwap reports whether a replica may serve the shadow it has loaded instead of
// what it serves.
func maySwap(shadow, served uint8) bool { return shadow >= served }
