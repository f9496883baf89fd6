package train_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/train"
)

// TestACursorGivesEveryShardExactlyWhatItLacks drives a cursor from any state of
// the shards to the end of the stream, over batches of any size, and holds every
// item against the shards' own rule.
func TestACursorGivesEveryShardExactlyWhatItLacks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const end = 40
		applied := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ps.Offset {
			return ps.Offset(rapid.IntRange(0, end).Draw(t, "applied"))
		}), 1, 6).Draw(t, "shards")
		// contributes[s][o]: event o has a key in shard s.
		contributes := make([][]bool, len(applied))
		counts := make([][]int, len(applied))
		for s := range applied {
			contributes[s] = rapid.SliceOfN(rapid.Bool(), end, end).Draw(t, "contributes")
			counts[s] = make([]int, end)
			for o := range applied[s] {
				if contributes[s][o] {
					counts[s][o] = 1
				}
			}
		}
		at := append([]ps.Offset(nil), applied...) // what the shards have applied
		cursor := train.NewCursor(applied)
		cuts := cursor.Cuts()
		for cursor.Next() < end {
			from := cursor.Next()
			to := min(from+ps.Offset(rapid.IntRange(1, 12).Draw(t, "batch")), end)
			for _, cut := range cuts {
				if cut > from && cut < to {
					to = cut
				}
			}
			everybody := rapid.Bool().Draw(t, "everybody")
			for s := range applied {
				shard := ps.ShardID(s)
				if !cursor.Lacks(shard) {
					if at[s] < to {
						t.Fatalf("shard %d has applied %d, the batch is [%d,%d), and the cursor says it has it", s, at[s], from, to)
					}
					continue
				}
				some := everybody
				for o := from; o < to; o++ {
					some = some || contributes[s][o]
				}
				if !some {
					continue
				}
				item := ps.Range{From: cursor.Sent(shard), To: to}
				if outcome := ps.Judge(at[s], item); outcome != ps.Applied {
					t.Fatalf("shard %d at %d answers %v to %v", s, at[s], outcome, item)
				}
				for o := from; o < to; o++ {
					if contributes[s][o] {
						counts[s][o]++
					}
				}
				at[s] = to
				cursor.Send(shard, to)
			}
			cursor.Take(to)
		}
		for s := range applied {
			for o, contributed := range contributes[s] {
				want := 0
				if contributed {
					want = 1
				}
				if counts[s][o] != want {
					t.Fatalf("event %d counts %d times at shard %d, want %d (it began at %d)", o, counts[s][o], s, want, applied[s])
				}
			}
		}
	})
}

func TestACursorKnowsWhenItReplays(t *testing.T) {
	cursor := train.NewCursor([]ps.Offset{3, 10, 3})
	if !cursor.Replaying() || cursor.Lacks(1) || !cursor.Lacks(0) {
		t.Errorf("behind a shard at 10: replaying %v, shard 1 lacks %v, shard 0 lacks %v; want true, false, true", cursor.Replaying(), cursor.Lacks(1), cursor.Lacks(0))
	}
	if cuts := cursor.Cuts(); len(cuts) != 1 || cuts[0] != 10 {
		t.Errorf("cuts %v, want [10]", cuts)
	}
	cursor.Take(10)
	if cursor.Replaying() || !cursor.Lacks(1) {
		t.Errorf("at 10: replaying %v, shard 1 lacks %v; want false, true", cursor.Replaying(), cursor.Lacks(1))
	}
}
