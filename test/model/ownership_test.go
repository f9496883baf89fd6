package model_test

import "testing"

// TestOwnershipEpochsAndTrimmingAreSafe explores the rules of change of owner, of
// promotion, of the commit and of trimming (invariants 1, 2, 6, 7 and 8). They protect
// what the offset rule cannot: that the events a shard lacks can still be read. No
// lease and no clock occurs in them (invariant 16): any node may be taken for dead at
// any time, and any coordinator may act on what it read long ago.
func TestOwnershipEpochsAndTrimmingAreSafe(t *testing.T) {
	for _, c := range []struct {
		name  string
		large bool
		set   func(*ownRules)
	}{
		{"one coordinator, a standby, two partitions", false, func(*ownRules) {}},
		{"no standby", false, func(r *ownRules) { r.follow = false }},
		{"two coordinators change owners", false, func(r *ownRules) { r.events, r.plans = offsets{2, 0}, 2 }},
		{"three copies, one of which may follow a former owner", false, func(r *ownRules) { r.events, r.copies = offsets{2, 0}, 3 }},
		{"two coordinators commit epochs and change owners", true, func(r *ownRules) {
			r.events, r.attempts, r.plans, r.crashes = offsets{2, 0}, 2, 2, 0
		}},
		{"two coordinators commit epochs, and a node crashes", true, func(r *ownRules) { r.events, r.attempts = offsets{2, 0}, 2 }},
		{"more events", true, func(r *ownRules) { r.events = offsets{2, 2} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.large && testing.Short() {
				t.Skip("a large one")
			}
			r := safeRules()
			c.set(&r)
			holds(t, r.owning())
		})
	}
}

// TestAChangeOfOwnerComparesWhatItWasPlannedFrom protects invariants 6 and 7.
func TestAChangeOfOwnerComparesWhatItWasPlannedFrom(t *testing.T) {
	// An epoch that commits between a coordinator's read and its change of owner is
	// followed by trimming; the new owner then needs events that are gone. The
	// transaction therefore compares the epoch key's revision.
	noEpoch := func(mapMoved, _ bool) bool { return !mapMoved }
	t.Run("an epoch commits in between, and the new owner has loaded the one before", func(t *testing.T) {
		r := safeRules()
		r.mayMove, r.follow = noEpoch, false
		breaks(t, r.owning(), "invariant 7")
	})
	t.Run("an epoch commits in between, and the promoted copy was judged by the one before", func(t *testing.T) {
		r := safeRules()
		r.mayMove = noEpoch
		m := r.owning()
		loads := m.steps // only promotions, so that the fault is theirs
		m.steps = func(s ownState, emit emit[ownState]) {
			loads(s, func(to ownState, what string, args ...any) {
				if !to.Plans[0].On || to.Plans[0].Promote {
					emit(to, what, args...)
				}
			})
		}
		m.done = nil
		breaks(t, m, "invariant 7")
	})
	// Two coordinators that read the same map would give two nodes the same fence, and
	// the fence is all that tells their snapshots apart.
	t.Run("the map changes in between", func(t *testing.T) {
		r := safeRules()
		r.plans, r.mayMove = 2, func(_, epochMoved bool) bool { return !epochMoved }
		breaks(t, r.owning(), "invariant 6")
	})
}

// TestPromotionWantsACopyThatReachesTheEpoch protects invariant 7: what lies below the
// last epoch may be trimmed at any time.
func TestPromotionWantsACopyThatReachesTheEpoch(t *testing.T) {
	t.Run("a copy behind the epoch is promoted", func(t *testing.T) {
		r := safeRules()
		r.promote = func(followed, fence uint8, _, _ offsets) bool { return followed == fence }
		breaks(t, r.owning(), "invariant 7")
	})
	sum := func(o offsets) uint8 { return o[0] + o[1] }
	t.Run("a copy of a former owner is judged by the sum over partitions", func(t *testing.T) {
		r := safeRules()
		r.copies, r.promote = 3, func(_, _ uint8, applied, epoch offsets) bool { return sum(applied) >= sum(epoch) }
		breaks(t, r.owning(), "invariant 7")
	})
	// Two results that say what a clause does not protect. Copies of one owner have
	// applied one after the other, so among them a sum would do; and a former owner's
	// copy that reaches the epoch everywhere loses nothing: the fence is there for
	// readers, whose deltas are ordered by it.
	t.Run("among copies of the current owner the sum says the same", func(t *testing.T) {
		r := safeRules()
		r.promote = func(followed, fence uint8, applied, epoch offsets) bool {
			return followed == fence && sum(applied) >= sum(epoch)
		}
		holds(t, r.owning())
	})
	t.Run("a copy of a former owner that reaches the epoch loses nothing", func(t *testing.T) {
		if testing.Short() {
			t.Skip("a large one")
		}
		r := safeRules()
		r.events, r.copies = offsets{2, 0}, 3
		r.promote = func(_, _ uint8, applied, epoch offsets) bool { return applied.reaches(epoch) }
		holds(t, r.owning())
	})
}

// TestOnlyTheOwnerAtTheCommitContributes protects invariant 6. A former owner's
// snapshot in an epoch lets the stream be trimmed past what the owner has applied; so
// the map is read after the snapshots are in, and compared.
func TestOnlyTheOwnerAtTheCommitContributes(t *testing.T) {
	t.Run("the snapshot's fence does not matter", func(t *testing.T) {
		r := safeRules()
		r.contribute = func(_, _ uint8) bool { return true }
		breaks(t, r.owning(), "invariant 7")
	})
	t.Run("the map changes between the fences' check and the commit", func(t *testing.T) {
		r := safeRules()
		r.commit = func(_, epochMoved bool) bool { return !epochMoved }
		breaks(t, r.owning(), "invariant 7")
	})
}

// TestAnEpochNeverGoesBack protects invariants 6 and 8 where a new leader commits
// while an old one still tries: the old one's snapshot is sound, and older. Comparing
// the previous epoch prevents it only if that was read before the snapshots were asked
// for.
func TestAnEpochNeverGoesBack(t *testing.T) {
	rules := safeRules()
	rules.events, rules.attempts, rules.crashes = offsets{2, 0}, 2, 0
	t.Run("the previous epoch is not compared", func(t *testing.T) {
		r := rules
		r.commit = func(mapMoved, _ bool) bool { return !mapMoved }
		breaks(t, r.owning(), "the epoch goes back")
	})
	t.Run("the previous epoch is read when the snapshots are in", func(t *testing.T) {
		r := rules
		r.lateEpoch = true
		breaks(t, r.owning(), "the epoch goes back")
	})
	t.Run("the previous epoch is read before", func(t *testing.T) {
		holds(t, rules.owning())
	})
}

// TestTheStreamIsTrimmedBehindEpochsOnly protects invariant 8: what a shard has applied
// is lost with its process.
func TestTheStreamIsTrimmedBehindEpochsOnly(t *testing.T) {
	r := safeRules()
	r.trim = func(_, current offsets) offsets { return current }
	t.Run("to what the owner has applied", func(t *testing.T) {
		breaks(t, r.owning(), "invariant 8")
	})
	t.Run("and then a crash leaves no way to go on", func(t *testing.T) {
		r.events = offsets{2, 0}
		m := r.owning()
		m.wrong = func(_, _ ownState) string { return "" }
		breaks(t, m, "stuck")
	})
}

// TestRowsAndAppliedAreWrittenTogether protects invariants 1 and 2 in a snapshot that
// does not stop pushes.
func TestRowsAndAppliedAreWrittenTogether(t *testing.T) {
	for _, c := range []struct {
		name     string
		snapshot snapshotRule
	}{
		{"applied is noted before the rows are copied: events are learned from again", appliedFirst},
		{"applied is noted after the rows are copied: events are lost", rowsFirst},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := safeRules()
			r.snapshot = c.snapshot
			breaks(t, r.owning(), "invariant 1: the epoch")
		})
	}
}
