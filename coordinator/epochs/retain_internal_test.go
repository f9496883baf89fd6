package epochs

// White-box, because what is kept is decided in one place and seen only after several
// epochs.

import (
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

func TestAnEpochThatLacksAShardPushesOutNoOlderOne(t *testing.T) {
	for _, c := range []struct {
		name      string
		kept      []checkpoint.Retained
		everybody bool
		want      []ps.Epoch
	}{
		{"there is room", []checkpoint.Retained{{Number: 2}, {Number: 1}}, false, []ps.Epoch{2, 1}},
		{"every shard contributed", []checkpoint.Retained{{Number: 5}, {Number: 4}, {Number: 3}}, true, []ps.Epoch{5, 4}},
		{"a shard did not", []checkpoint.Retained{{Number: 5}, {Number: 4}, {Number: 3}}, false, []ps.Epoch{4, 3}},
		{
			"a shard did not, and the oldest is of a lineage that was set back from",
			[]checkpoint.Retained{{Number: 5, Lineage: 1}, {Number: 4}, {Number: 3}},
			false,
			[]ps.Epoch{5, 4},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []ps.Epoch
			for _, r := range retain(checkpoint.Epoch{Lineage: c.kept[0].Lineage, Retained: c.kept}, 3, c.everybody) {
				got = append(got, r.Number)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("of %v epochs %v are kept, want %v", c.kept, got, c.want)
			}
		})
	}
}
