package node_test

import (
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

func TestANodeTellsWhatItHoldsAndHowMuchThatIsUsed(t *testing.T) {
	o := newOwnership(testModel())
	nodes := map[ps.NodeID]*running{"a": start(t, "a", o), "b": start(t, "b", o)}
	o.setWith(addresses(nodes), []ps.NodeID{"b"}, "a")
	c := dial(t, o)
	<-nodes["a"].node.Ready()
	push(t, c, everyShard(0, 1, 1))
	for range 2 {
		pull(t, c, keyOf(3, 1))
	}
	caughtUp(t, nodes["b"], 1)
	for id, wantCopy := range map[ps.NodeID]bool{"a": false, "b": true} {
		holdings, err := c.Holdings(t.Context(), nodes[id].address)
		if err != nil {
			t.Fatal(err)
		}
		if len(holdings) != shards {
			t.Errorf("%s holds %d shards, want %d", id, len(holdings), shards)
		}
		for _, h := range holdings {
			want := ps.Holding{Model: "m", Shard: h.Shard, Fence: 1, Seq: 1, Copy: wantCopy, Rows: h.Rows, Bytes: h.Bytes}
			if !wantCopy {
				want.KeysPushed = h.Rows // each was pushed once
			}
			if !wantCopy && h.Shard == 3 {
				want.KeysPulled = 2
			}
			if h != want || h.Rows == 0 || h.Bytes == 0 {
				t.Errorf("%s holds %+v, want %+v and some rows", id, h, want)
			}
		}
	}
}
