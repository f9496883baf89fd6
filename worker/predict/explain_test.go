package predict_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/predict"
)

// The batch that a contribution is computed from is made by hand here: the features of the
// event but for one, each with its field.
func TestAContributionIsTheScoreLessThatWithoutTheFeature(t *testing.T) {
	const seed = 6
	t.Logf("seed %d", seed)
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			sp := parsed(t, shopDoc+network)
			s, rows := shopScorer(t, network, nil)
			for range 10 {
				columns := shopColumns(rng, 1)
				got, _, err := s.Explain(t.Context(), columns)
				if err != nil {
					t.Fatal(err)
				}
				if want := scores(t, s, columns); !alike([]float32{got.Score}, want) || got.Err != nil {
					t.Fatalf("score %v (%v), want %v", got.Score, got.Err, want)
				}
				whole, err := predict.BatchOf(s, columns)
				if err != nil {
					t.Fatal(err)
				}
				names := []string{"user", "tab", "hour", "item", "tags", "price", "user_x_tags", "tags_x_stock", "tab_x_hour"}
				tags := len(whole.Keys) - 6 // each tag is one value, and one in two crosses
				if sp.Network.Constant {
					names = append(names, "constant")
					tags--
				}
				tags /= 3
				counts := []int{1, 1, 1, 1, tags, 1, tags, tags, 1, 1}
				from := 0
				for i, name := range names {
					var b worker.Batch
					b.Reset(0, 0, 0)
					for at, key := range whole.Keys {
						if at >= from && at < from+counts[i] {
							continue
						}
						b.AddFeature(key, whole.Values[at])
						if len(whole.Fields) > 0 {
							b.Fields = append(b.Fields, whole.Fields[at])
						}
					}
					b.Close(worker.Train, 0, 1, 0)
					from += counts[i]
					want := got.Score - scored(t, sp, rows, &b)[0]
					if got.Features[i].Feature != name || !alike([]float32{got.Features[i].Contribution}, []float32{want}) {
						t.Errorf("feature %d: %+v, want %s with %v", i, got.Features[i], name, want)
					}
				}
				if from != len(whole.Keys) || len(got.Features) != len(names) {
					t.Fatalf("%d contributions of %d features' %d values, want %d", len(got.Features), len(names), from, len(whole.Keys))
				}
			}
		})
	}
}

func TestContributionsToALinearScoreAreItsParts(t *testing.T) {
	s, _ := shopScorer(t, networks[0], nil)
	got, _, err := s.Explain(t.Context(), shopColumns(rand.New(rand.NewPCG(8, 0)), 1))
	if err != nil {
		t.Fatal(err)
	}
	var sum float32
	for _, f := range got.Features {
		sum += f.Contribution
	}
	if !alike([]float32{sum}, []float32{got.Score}) {
		t.Errorf("the contributions %v add up to %v, want the score %v", got.Features, sum, got.Score)
	}
}

func TestAnEventThatCannotBeUsedIsNotExplained(t *testing.T) {
	s, rows := shopScorer(t, networks[0], nil)
	got, served, err := s.Explain(t.Context(), []predict.Column{column("price", "much")})
	if err != nil || !errors.Is(got.Err, worker.ErrUnreadable) || len(got.Features) != 0 || served.Version != 3 || rows.pulls != 0 {
		t.Errorf("got %+v (%v) with %d pulls, want a reason alone", got, err, rows.pulls)
	}
	for _, columns := range [][]predict.Column{{column("item", "a", "b")}, {column("item")}, nil, {column("itme", "a")}} {
		if _, _, err := s.Explain(t.Context(), columns); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("columns %v: %v, want ErrInvalid", columns, err)
		}
	}
	if got := scores(t, s, []predict.Column{column("price", "1")}); slices.Contains(got, 0) {
		t.Errorf("afterwards the scores are %v", got)
	}
}
