package model_test

// The decisions of control, as pure functions of small values. They have no product
// code yet; when it comes, each of these gives way to the product's own, and the
// models go on proving it. (The offset rule is ps.Judge and the worker's is
// train.Cursor already.)

// offsets are one offset per partition.
type offsets [2]uint8

// reaches reports whether a is at or beyond b in every partition.
func (a offsets) reaches(b offsets) bool { return a[0] >= b[0] && a[1] >= b[1] }

// mayPromote reports whether a complete copy may become the owner as it is: it must
// have followed the ownership that it succeeds, and have applied all that the last
// committed epoch has, in every partition. Otherwise the new owner loads the epoch.
func mayPromote(followed, fence uint8, applied, epoch offsets) bool {
	return followed == fence && applied.reaches(epoch)
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
func mayCollect(file, tip uint8, reached bool) bool { return !reached && file < tip }

// maySwap reports whether a replica may serve the shadow it has loaded instead of
// what it serves.
func maySwap(shadow, served uint8) bool { return shadow >= served }
