package model_test

import (
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// TestPushingIsExactlyOnce explores the product's offset rule and cursor. What they
// protect is the promise itself (invariants 1, 2, 3 and 5): whatever crashes, comes
// late or twice, and whoever else pushes, each event contributes once to each shard it
// touches; and nothing can happen after which the rest could not be learned.
func TestPushingIsExactlyOnce(t *testing.T) {
	for _, c := range []struct {
		name                     string
		contributions            contributions
		workers                  int
		crashes, changes, delays uint8
		large                    bool
	}{
		{"a node crashes and ownership moves", someShards, 1, 1, 1, 0, false},
		{"ownership moves and a push comes late or twice", everyShard, 1, 0, 1, 1, false},
		{"two workers take each other for dead", someShards, 2, 0, 0, 0, false},
		{"two workers, and a node crashes", everyShard, 2, 1, 0, 0, false},
		{"two workers, and a push comes late or twice", someShards, 2, 0, 0, 1, true},
		{"two workers, and ownership moves", everyShard, 2, 0, 1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.large && testing.Short() {
				t.Skip("a large one")
			}
			r := productRules()
			r.contributions, r.workers = c.contributions, c.workers
			r.crashes, r.changes, r.delays = c.crashes, c.changes, c.delays
			holds(t, r.pushing())
		})
	}
}

// anyNewer accepts whatever brings something new, as a shard that remembers only the
// last batch of each worker would.
func anyNewer(applied uint8, r ps.Range) (ps.Outcome, uint8) {
	if uint8(r.To) <= applied {
		return ps.Duplicate, applied
	}
	return ps.Applied, uint8(r.To)
}

// overlapIsDuplicate is the exact rule, but for an item of which the shard has some.
func overlapIsDuplicate(applied uint8, r ps.Range) (ps.Outcome, uint8) {
	outcome, after := exact(applied, r)
	if outcome == ps.Overlap {
		return ps.Duplicate, uint8(r.To)
	}
	return outcome, after
}

// gapIsNothing is the exact rule, but it accepts what begins too late.
func gapIsNothing(applied uint8, r ps.Range) (ps.Outcome, uint8) {
	outcome, after := exact(applied, r)
	if outcome == ps.Gap {
		return ps.Applied, uint8(r.To)
	}
	return outcome, after
}

// TestTheOffsetRuleIsNeededWhole breaks ps.Judge (invariant 2) in each of the ways
// that look harmless, with the product's worker.
func TestTheOffsetRuleIsNeededWhole(t *testing.T) {
	for _, c := range []struct {
		name  string
		judge offsetRule
	}{
		{"any newer batch is accepted", anyNewer},
		{"an overlap counts as a duplicate", overlapIsDuplicate},
		{"a gap is accepted", gapIsNothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := productRules()
			r.judge = c.judge
			breaks(t, r.pushing(), "invariant 1")
		})
	}
}

// uncut is a limit that never ends a batch.
func uncut(position) uint8 { return pushEvents }

// plannedUncut is planned without the cursor, whose Take does not let a batch straddle
// a position: a shard gets what it lacked at the batch's first event.
func plannedUncut(c contributions, at position, to uint8, everybody bool) (after position, items [pushShards]pushItem) {
	after = at
	after.Next = to
	for s, sent := range at.Sent {
		events := eventsOf(c, s, at.Next, to)
		if sent > at.Next || events == 0 && !everybody || sent >= to {
			continue
		}
		items[s] = pushItem{On: true, From: sent, To: to, Events: events}
		after.Sent[s] = to
	}
	return after, items
}

// plannedWhole sends every shard all of the batch and says so.
func plannedWhole(c contributions, at position, to uint8, _ bool) (after position, items [pushShards]pushItem) {
	for s := range items {
		items[s] = pushItem{On: true, From: at.Next, To: to, Events: eventsOf(c, s, at.Next, to)}
		after.Sent[s] = to
	}
	after.Next = to
	return after, items
}

// plannedFromSent sends a shard that lacks some of the batch all of it, with the from
// that the shard accepts.
func plannedFromSent(c contributions, at position, to uint8, everybody bool) (position, [pushShards]pushItem) {
	after, items := plannedWhole(c, at, to, everybody)
	for s, sent := range at.Sent {
		items[s].From = sent
		if sent >= to {
			after.Sent[s], items[s] = sent, pushItem{}
		}
	}
	return after, items
}

// TestABatchIsCutAtEveryAppliedOffset protects invariants 3 and 5. Where shards are at
// different offsets, a batch across one of them is partly known there, and its item
// holds too little (lost) or too much (doubled) for the from that the shard accepts.
// With the from that it holds, it is an overlap: nothing is lost, and what was computed
// for that shard is thrown away with the session. So cuts are what makes an item true
// and accepted at once.
func TestABatchIsCutAtEveryAppliedOffset(t *testing.T) {
	rules := func(plan planRule) pushRules {
		r := productRules()
		r.plan, r.cut, r.contributions = plan, uncut, everyShard
		r.workers, r.crashes, r.changes, r.delays = 1, 1, 0, 0
		return r
	}
	t.Run("an item with too little loses", func(t *testing.T) {
		breaks(t, rules(plannedUncut).pushing(), "invariant 1")
	})
	t.Run("an item with too much doubles", func(t *testing.T) {
		breaks(t, rules(plannedFromSent).pushing(), "invariant 1")
	})
	t.Run("an item that says what it holds is refused", func(t *testing.T) {
		holds(t, rules(plannedWhole).pushing())
	})
}

// TestAWorkerKeepsNoCursorOfItsOwn protects invariant 5: a worker begins at what the
// shards say and asks them again after any answer but Applied. One that trusts a
// cursor (the group's committed offset, or the lowest applied one for all shards)
// loses or doubles with a shard that lets it, and with the exact rule it learns
// nothing more: whoever is behind the cursor never gets what it lacks.
func TestAWorkerKeepsNoCursorOfItsOwn(t *testing.T) {
	for _, c := range []struct {
		name    string
		commits bool
		judge   offsetRule
		fault   string
	}{
		{"the committed offset, any newer batch is accepted", true, anyNewer, "invariant 1"},
		{"the committed offset, an overlap counts as a duplicate", true, overlapIsDuplicate, "invariant 1"},
		{"the committed offset, the exact rule", true, exact, "stuck"},
		{"the lowest applied offset, any newer batch is accepted", false, anyNewer, "invariant 1"},
		{"the lowest applied offset, an overlap counts as a duplicate", false, overlapIsDuplicate, "invariant 1"},
		{"the lowest applied offset, the exact rule", false, exact, "stuck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := productRules()
			r.commits, r.goesOn, r.judge = c.commits, true, c.judge
			r.plan, r.cut, r.contributions, r.delays = plannedWhole, uncut, everyShard, 0
			if c.fault == "stuck" {
				r.workers, r.changes = 1, 0
			}
			breaks(t, r.pushing(), c.fault)
		})
	}
}
