package predict_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/predict"
)

func ptr(x float64) *float64 { return &x }

// The context's columns are one value of each event, so crosses of both sides are those of
// the whole event.
func TestRankingIsThatOfTheEventsScores(t *testing.T) {
	const seed, n = 2, 60
	t.Logf("seed %d", seed)
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			s, _ := shopScorer(t, network, nil)
			columns := shopColumns(rng, n)
			context := one(columns[:3], 0) // user, tab and time
			candidates := columns[3:]
			want := scores(t, s, append(slices.Clone(context), candidates...))
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(want[b], want[a]) })
			for _, top := range []int{0, 1, 7, n, n + 1} {
				got, _, err := s.Rank(t.Context(), predict.Rank{Context: context, Candidates: candidates, Top: top})
				if err != nil || got.Filtered != 0 || got.Unusable != 0 {
					t.Fatalf("top %d: %+v (%v)", top, got, err)
				}
				if most := min(cmp.Or(top, n), n); len(got.Ranked) != most {
					t.Fatalf("top %d of %d: %d ranked", top, n, len(got.Ranked))
				}
				for i, r := range got.Ranked {
					if r.Candidate != order[i] || r.Score != want[order[i]] || r.Value != model.Log.Prediction(r.Score) {
						t.Fatalf("top %d, place %d: %+v, want candidate %d with score %v", top, i, r, order[i], want[order[i]])
					}
				}
			}
		})
	}
}

func TestEqualCandidatesKeepTheirOrder(t *testing.T) {
	s, _ := shopScorer(t, networks[1], nil)
	got, _, err := s.Rank(t.Context(), predict.Rank{Candidates: []predict.Column{column("item", slices.Repeat([]string{"a", "b"}, 20)...)}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got.Ranked {
		if want := i%20*2 + got.Ranked[i/20*20].Candidate%2; r.Candidate != want {
			t.Fatalf("place %d has candidate %d, want %d: %v", i, r.Candidate, want, got.Ranked)
		}
	}
}

func TestFiltersKeepWhatTheySay(t *testing.T) {
	const seed = 3
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s, rows := shopScorer(t, networks[0], nil)
	numbers := []string{"", "0", "-1.5", "7", "7.0", "1e2", "NaN", "inf", "0x10", "many", "300"}
	for round := range 300 {
		n := 1 + rng.IntN(30)
		candidates := shopColumns(rng, n)[3:]
		rating := column("rating") // no column of the model's
		for range n {
			rating.Values = append(rating.Values, numbers[rng.IntN(len(numbers))])
		}
		candidates = append(candidates, rating)
		var filters []predict.Filter
		kept := slices.Repeat([]bool{true}, n)
		for range rng.IntN(4) {
			words := []string{fmt.Sprintf("w%d", rng.IntN(50)), "", fmt.Sprintf("w%d", rng.IntN(50))}[:rng.IntN(4)]
			bound := []float64{-2, 0, 7, 100, math.Inf(1)}[rng.IntN(5)]
			number := func(i int) (float64, bool) {
				x, err := strconv.ParseFloat(rating.Values[i], 64)
				return x, err == nil && !math.IsNaN(x) && !math.IsInf(x, 0) && !strings.Contains(rating.Values[i], "x")
			}
			var f predict.Filter
			var keeps func(i int) bool
			switch rng.IntN(4) {
			case 0:
				f = predict.Filter{Column: "item", In: words}
				keeps = func(i int) bool { return slices.Contains(words, candidates[0].Values[i]) }
			case 1:
				f = predict.Filter{Column: "item", NotIn: words}
				keeps = func(i int) bool { return !slices.Contains(words, candidates[0].Values[i]) }
			case 2:
				f = predict.Filter{Column: "rating", AtLeast: &bound}
				keeps = func(i int) bool { x, ok := number(i); return ok && x >= bound }
			case 3:
				f = predict.Filter{Column: "rating", AtMost: &bound}
				keeps = func(i int) bool { x, ok := number(i); return ok && x <= bound }
			}
			filters = append(filters, f)
			for i := range kept {
				kept[i] = kept[i] && keeps(i)
			}
		}
		var want []int
		for i, keep := range kept {
			if keep {
				want = append(want, i)
			}
		}
		if len(filters) == 0 {
			candidates = candidates[:len(candidates)-1] // nobody looks at the rating
		}
		rng.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
		if !slices.ContainsFunc(filters, func(f predict.Filter) bool { return f.Column == "rating" }) {
			candidates = slices.DeleteFunc(candidates, func(c predict.Column) bool { return c.Name == "rating" })
		}
		before := rows.pulls
		got, _, err := s.Rank(t.Context(), predict.Rank{Candidates: candidates, Filters: filters})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var ranked []int
		for _, r := range got.Ranked {
			ranked = append(ranked, r.Candidate)
		}
		slices.Sort(ranked)
		if !slices.Equal(ranked, want) || got.Filtered != n-len(want) {
			t.Fatalf("round %d, filters %+v: kept %v and filtered %d, want %v of %d", round, filters, ranked, got.Filtered, want, n)
		}
		if len(want) == 0 && rows.pulls != before {
			t.Fatalf("round %d: pulled for no candidate", round)
		}
	}
}

func TestWhatIsFilteredIsNotPulledFor(t *testing.T) {
	s, rows := shopScorer(t, networks[0], nil)
	candidates := []predict.Column{column("item", "kept", "left out"), column("price", "1", "no number")}
	got, _, err := s.Rank(t.Context(), predict.Rank{Candidates: candidates, Filters: []predict.Filter{{Column: "item", NotIn: []string{"left out"}}}})
	if err != nil || len(got.Ranked) != 1 || got.Filtered != 1 || got.Unusable != 0 {
		t.Fatalf("ranking %+v (%v), want one kept and one filtered", got, err)
	}
	b, err := predict.BatchOf(s, []predict.Column{column("item", "left out")})
	if err != nil {
		t.Fatal(err)
	}
	if _, there := rows.rows[0][b.Keys[3]]; there {
		t.Error("the row of a candidate that was filtered was pulled")
	}
}

func TestCandidatesThatCannotBeUsedAreCounted(t *testing.T) {
	s, _ := shopScorer(t, networks[0], nil)
	got, _, err := s.Rank(t.Context(), predict.Rank{Candidates: []predict.Column{column("price", "1", "x", "2")}})
	if err != nil || got.Unusable != 1 || len(got.Ranked) != 2 {
		t.Errorf("ranking %+v (%v), want two ranked and one unusable", got, err)
	}
	got, _, err = s.Rank(t.Context(), predict.Rank{Context: []predict.Column{column("price", "x")}, Candidates: []predict.Column{column("item", "a", "b")}})
	if err != nil || got.Unusable != 2 || len(got.Ranked) != 0 {
		t.Errorf("in an unusable context: %+v (%v), want two unusable", got, err)
	}
	got, _, err = s.Rank(t.Context(), predict.Rank{Context: []predict.Column{column("tab", "x")}, Candidates: []predict.Column{column("item")}})
	if err != nil || len(got.Ranked) != 0 || got.Filtered != 0 {
		t.Errorf("of no candidates: %+v (%v), want nothing", got, err)
	}
}

func TestRankingsThatCannotBeMeantAreRefused(t *testing.T) {
	s, _ := shopScorer(t, networks[0], nil)
	items := []predict.Column{column("item", "a", "b")}
	filtered := func(f predict.Filter) predict.Rank {
		return predict.Rank{Candidates: items, Filters: []predict.Filter{f}}
	}
	for name, c := range map[string]struct {
		rank predict.Rank
		say  string
	}{
		"no candidates":                  {predict.Rank{Context: items[:0]}, "no column of candidates"},
		"a negative top":                 {predict.Rank{Candidates: items, Top: -1}, "the best -1"},
		"a context of two":               {predict.Rank{Context: []predict.Column{column("tab", "a", "b")}, Candidates: items}, `"tab" of the context has 2 values`},
		"an unknown column of a context": {predict.Rank{Context: []predict.Column{column("tba", "a")}, Candidates: items}, `did you mean "tab"`},
		"a misspelt candidates' column":  {predict.Rank{Candidates: []predict.Column{column("itme", "a")}}, `did you mean "item"`},
		"a column on both sides":         {predict.Rank{Context: []predict.Column{column("item", "a")}, Candidates: items}, "twice"},
		"a filter on no column":          {filtered(predict.Filter{Column: "itme", In: []string{"a"}}), `did you mean "item"`},
		"a filter on the context":        {predict.Rank{Context: []predict.Column{column("tab", "a")}, Candidates: items, Filters: []predict.Filter{{Column: "tab", In: []string{"a"}}}}, `"tab": it is no column of the candidates`},
		"a filter without a test":        {filtered(predict.Filter{Column: "item"}), "0 tests"},
		"a filter with two":              {filtered(predict.Filter{Column: "item", AtLeast: ptr(1), AtMost: ptr(2)}), "2 tests"},
		"a bound that is no number":      {filtered(predict.Filter{Column: "item", AtLeast: ptr(math.NaN())}), "no number"},
		"a filtered column that is twice": {predict.Rank{
			Candidates: []predict.Column{column("item", "a"), column("x", "1"), column("x", "2")}, Filters: []predict.Filter{{Column: "x", AtMost: ptr(1)}},
		}, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := s.Rank(t.Context(), c.rank); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want ErrInvalid and %q", err, c.say)
			}
		})
	}
}
