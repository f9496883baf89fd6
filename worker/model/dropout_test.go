package model_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestDropout(t *testing.T) {
	const n, share = 400, 0.3
	rng := rand.New(rand.NewPCG(9, 0))
	events := make([]event, n)
	for i := range events {
		events[i].features = []feature{{1, 1}, {2, -0.5}, {3, 0.25}} // all alike
	}
	of := spec.Network{Kind: spec.MLP, Factors: 4, Hidden: []int{40}, Dropout: share}
	network := newNetwork(t, of)
	b, g := batchOf(events)
	rows := newRows(network, len(g.Keys), rng)
	clear(rows[0])                                                // the tower alone
	for _, layer := range rows[network.spec.FeatureTables()+1:] { // so that the score counts units
		for i := range layer {
			layer[i] = 1
		}
	}
	clear(rows[network.spec.FeatureTables()])
	scores := make([]float32, n)
	t.Run("scores that are measured or served are made with all units", func(t *testing.T) {
		network.Scores(b, g.Index, rows, scores)
		for i, score := range scores {
			if math.Abs(float64(score)-40) > 1e-3 {
				t.Fatalf("event %d has score %v, want 40 units of 1", i, score)
			}
		}
	})
	if !network.Thinned(b, g.Index, rows, scores) {
		t.Fatal("a network with dropout leaves out nothing")
	}
	t.Run("as many units are left out as the spec says, and the others make up for them", func(t *testing.T) {
		mean, distinct := 0.0, make(map[float32]bool)
		for _, score := range scores {
			mean += float64(score) / n
			distinct[score] = true
			if kept := float64(score) * (1 - share); math.Abs(kept-math.Round(kept)) > 1e-3 {
				t.Fatalf("score %v is not a number of units of 1/%v", score, 1-share)
			}
		}
		// Of 16,000 units, each 0 or 1/0.7, the sum of 40 has a standard deviation of 4.1, and the mean of 400 of 0.21.
		if math.Abs(mean-40) > 1 || len(distinct) < 10 {
			t.Errorf("the mean of the scores is %v with %d different ones, want about 40 and many", mean, len(distinct))
		}
	})
	t.Run("which ones is the offset's, however batches are cut and in whatever process", func(t *testing.T) {
		again := newNetwork(t, of)
		var got []float32
		for from := 0; from < n; {
			to := min(n, from+1+rng.IntN(60))
			part, group := batchOf(events[from:to])
			part.From, part.To = ps.Offset(from), ps.Offset(to)
			some := make([]float32, to-from)
			again.Thinned(part, group.Index, rows, some)
			got, from = append(got, some...), to
		}
		if diff := cmp.Diff(scores, got); diff != "" {
			t.Errorf("(-at once +in parts):\n%s", diff)
		}
	})
	for name, change := range map[string]func(){
		"another partition": func() { b.Partition = 1 },
		"another pass":      func() { b.From, b.To = n, 2*n },
	} {
		t.Run(name+" leaves out others", func(t *testing.T) {
			before := *b
			defer func() { *b = before }()
			change()
			others := make([]float32, n)
			network.Thinned(b, g.Index, rows, others)
			same := 0
			for i := range others {
				if others[i] == scores[i] {
					same++
				}
			}
			if same > n/3 { // two sums of 40 units agree in one case of eight
				t.Errorf("%d of %d scores are the same", same, n)
			}
		})
	}
}
