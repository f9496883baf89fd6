package control

// White box: loads are worked out for control alone.

import (
	"math"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

func TestLoadsAreRatesThatAMoveDoesNotDisturb(t *testing.T) {
	var l loads
	at := time.Unix(1000, 0)
	counts := [2]uint64{}
	look := func(owner ps.NodeID, fence ps.Fence) {
		at = at.Add(loadEvery)
		l.take(map[ps.NodeID][]ps.Holding{
			owner: {{Model: "m", Shard: 0, Fence: fence, KeysPulled: counts[0]}},
			"z":   {{Model: "m", Shard: 1, Fence: 1, KeysPulled: counts[1] / 2, KeysPushed: counts[1] / 2}, {Model: "m", Shard: 0, Fence: fence, Copy: true, KeysPulled: 9999}},
		}, 2, at)
	}
	look("a", 1)
	if l.perShard != nil {
		t.Fatalf("one look gives loads: %v", l.perShard)
	}
	for range 60 {
		counts[0] += uint64(100 * loadEvery / time.Second)
		counts[1] += uint64(300 * loadEvery / time.Second)
		look("a", 1)
	}
	near := func(want ...float64) {
		t.Helper()
		for s, w := range want {
			if math.Abs(l.perShard[s]-w) > 2 {
				t.Errorf("loads are %v, want about %v", l.perShard, want)
			}
		}
	}
	near(100, 300)
	counts[0] = 50 // shard 0 has moved to b, and counts from there
	counts[1] += uint64(300 * loadEvery / time.Second)
	look("b", 2)
	near(100, 300)
	for range 60 { // it becomes as hot as the other
		counts[0] += uint64(300 * loadEvery / time.Second)
		counts[1] += uint64(300 * loadEvery / time.Second)
		look("b", 2)
	}
	near(300, 300)
}
