package predict_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

const shopDoc = `
model: shop
stream: {format: csv, time: {column: ts, unit: ms}, partition_by: session, identifiers: [uid, payer]}
label: {column: clicked}
features:
  - {name: user, column: uid}
  - {name: tab, column: tab}
  - {name: hour, clock: hour}
  - {name: item, column: item}
  - {name: tags, column: tags, split: "|", weight_after: ":"}
  - {name: price, column: price, log: 2}
  - {name: stock, column: stock, edges: [1, 10], cross_only: true}
  - {name: user_x_tags, cross: [user, tags]}
  - {name: tags_x_stock, cross: [tags, stock]}
  - {name: tab_x_hour, cross: [tab, hour]}
network: `

// networks are of all kinds.
var networks = []string{
	"{kind: logistic}", "{kind: fm, factors: 4}", "{kind: deepfm, factors: 4, hidden: [6, 5]}", "{kind: mlp, factors: 4, hidden: [6], constant: false}",
}

// shopScorer is a scorer of the shop, at an hour that does not end.
func shopScorer(t testing.TB, network string, more func(*predict.ScorerConfig)) (*predict.Scorer, *memory) {
	t.Helper()
	return scorer(t, parsed(t, shopDoc+network), shopConfig(more))
}

func shopConfig(more func(*predict.ScorerConfig)) func(*predict.ScorerConfig) {
	return func(c *predict.ScorerConfig) {
		c.Secret = secret
		c.Now = func() time.Time { return time.UnixMilli(1_700_000_000_000) }
		if more != nil {
			more(c)
		}
	}
}

// shopColumns are n events of the shop.
func shopColumns(rng *rand.Rand, n int) []predict.Column {
	columns := []predict.Column{
		column("uid"), column("tab"), column("ts"), column("item"), column("tags"), column("price"), column("stock"),
	}
	word := func(of int) string {
		if rng.IntN(8) == 0 {
			return "" // missing
		}
		return fmt.Sprintf("w%d", rng.IntN(of))
	}
	for range n {
		tags := word(9) + ":0.5|" + word(9)
		if strings.HasPrefix(tags, ":") {
			tags = ""
		}
		for i, text := range []string{
			word(20), word(3), fmt.Sprint(1_700_000_000_000 + rng.IntN(1e9)), word(50), tags,
			fmt.Sprint(rng.IntN(1000)), fmt.Sprint(rng.IntN(30)),
		} {
			columns[i].Values = append(columns[i].Values, text)
		}
	}
	return columns
}

// one returns the columns of event i alone.
func one(columns []predict.Column, i int) []predict.Column {
	var event []predict.Column
	for _, c := range columns {
		at := i
		if len(c.Values) == 1 {
			at = 0
		}
		event = append(event, column(c.Name, c.Values[at]))
	}
	return event
}

// scores returns the scores of events that can all be used.
func scores(t testing.TB, s *predict.Scorer, columns []predict.Column) []float32 {
	t.Helper()
	predictions, _, err := s.Predict(t.Context(), columns)
	if err != nil {
		t.Fatal(err)
	}
	var scores []float32
	for i, p := range predictions {
		if p.Err != nil {
			t.Fatalf("event %d: %v", i, p.Err)
		}
		scores = append(scores, p.Score)
	}
	return scores
}

// alike are scores that differ by no more than other batches of a product may.
func alike(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(a, b float32) bool {
		return math.Abs(float64(a-b)) <= 1e-5*(1+math.Abs(float64(a)))
	})
}

func TestColumnsMayComeInAnyOrderAndBeShared(t *testing.T) {
	const seed = 1
	t.Logf("seed %d", seed)
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			s, _ := shopScorer(t, network, nil)
			for range 20 {
				columns := shopColumns(rng, 30)
				shared := rng.IntN(1 << len(columns))
				var short []predict.Column
				for i := range columns {
					if shared>>i&1 == 1 {
						for j := range columns[i].Values {
							columns[i].Values[j] = columns[i].Values[0]
						}
						short = append(short, column(columns[i].Name, columns[i].Values[0]))
					} else {
						short = append(short, columns[i])
					}
				}
				want := scores(t, s, columns)
				if len(want) != 30 {
					t.Fatalf("%d predictions of 30 events", len(want))
				}
				rng.Shuffle(len(short), func(i, j int) { short[i], short[j] = short[j], short[i] })
				if got := scores(t, s, short); shared != 1<<len(columns)-1 && !slices.Equal(got, want) {
					t.Fatalf("columns %v:\n%v, want\n%v", short, got, want)
				}
				for i := range 3 {
					if got := scores(t, s, one(columns, i)); !alike(got, want[i:i+1]) {
						t.Errorf("event %d by itself has score %v, want %v", i, got, want[i])
					}
				}
			}
		})
	}
}

func TestColumnsThatAreNotGivenAreMissingValues(t *testing.T) {
	s, _ := shopScorer(t, networks[2], nil)
	empty := []predict.Column{column("uid", ""), column("tab", "t"), column("item", ""), column("tags", ""), column("price", ""), column("stock", "")}
	if got, want := scores(t, s, []predict.Column{column("tab", "t")}), scores(t, s, empty); !slices.Equal(got, want) {
		t.Errorf("score %v without the columns, %v with empty ones", got, want)
	}
}

func TestWhatAStreamsRowHasBesideIsNotLookedAt(t *testing.T) {
	s, _ := shopScorer(t, networks[0], nil)
	want := scores(t, s, []predict.Column{column("item", "a", "b")})
	row := []predict.Column{column("clicked", "yes", "no"), column("session", "x", ""), column("payer", "p"), column("item", "a", "b")}
	if got := scores(t, s, row); !slices.Equal(got, want) {
		t.Errorf("with label, partition and another identifier the scores are %v, want %v", got, want)
	}
	vw := parsed(t, "model: m\nstream: {format: vw}\nfeatures: [{name: f, column: f, split: \" \"}]\n")
	v, _ := scorer(t, vw, nil)
	want = scores(t, v, []predict.Column{column("f", "a b")})
	if got := scores(t, v, []predict.Column{column("f", "a b"), column("label", "x"), column("importance", "-1")}); !slices.Equal(got, want) {
		t.Errorf("with label and importance the score is %v, want %v", got, want)
	}
}

func TestWrongColumnsAreRefusedWithWhatToDo(t *testing.T) {
	s, _ := shopScorer(t, networks[0], nil)
	for name, c := range map[string]struct {
		columns []predict.Column
		say     []string
	}{
		"a misspelt column":       {[]predict.Column{column("tab", "a"), column("itme", "b")}, []string{`"itme"`, `did you mean "item"?`, "uid, tab, item"}},
		"an unknown column":       {[]predict.Column{column("weather", "a")}, []string{`"weather"`, "uid, tab, item, tags, price, stock, ts"}},
		"a column that is twice":  {[]predict.Column{column("tab", "a"), column("tab", "b")}, []string{`"tab" is there twice`}},
		"columns of two lengths":  {[]predict.Column{column("tab", "a", "b", "c"), column("item", "a", "b")}, []string{`"item" has 2 values`, "3 events"}},
		"a column without values": {[]predict.Column{column("tab", "a", "b", "c"), column("item")}, []string{`"item" has 0 values`}},
		"no columns":              {nil, []string{"no columns", "uid, tab, item"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := s.Predict(t.Context(), c.columns)
			if !errors.Is(err, ps.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			for _, say := range c.say {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("got %q, want it to say %s", err, say)
				}
			}
		})
	}
}

func TestNoEventsHaveNoPredictions(t *testing.T) {
	s, rows := shopScorer(t, networks[2], nil)
	got, _, err := s.Predict(t.Context(), []predict.Column{column("tab", "shared"), column("item")})
	if err != nil || len(got) != 0 || rows.pulls != 0 {
		t.Errorf("%d predictions with %d pulls (%v), want none", len(got), rows.pulls, err)
	}
}

func TestAnUnusableEventIsToldOfByItself(t *testing.T) {
	for _, network := range networks {
		s, _ := shopScorer(t, network, nil)
		prices := []string{"1", "NaN", "secret words", "2", "0x10", "3"}
		columns := []predict.Column{column("item", "a", "b", "c", "d", "e", "f"), column("price", prices...), column("ts", "1", "2", "3", "not a time", "", "6")}
		got, _, err := s.Predict(t.Context(), columns)
		if err != nil {
			t.Fatal(err)
		}
		for i, usable := range []bool{true, false, false, false, false, true} {
			p := got[i]
			if usable {
				if want := scores(t, s, one(columns, i)); p.Err != nil || !alike([]float32{p.Score}, want) {
					t.Errorf("event %d: %+v, want the score %v that it has by itself", i, p, want)
				}
				continue
			}
			unreadable, ok := errors.AsType[*worker.Unreadable](p.Err)
			if !ok || unreadable.Line != int64(i)+1 || p.Score != 0 || p.Value != 0 {
				t.Errorf("event %d: %+v, want it unreadable and nothing else", i, p)
			}
			if p.Err != nil && (strings.Contains(p.Err.Error(), "secret") || strings.Contains(p.Err.Error(), "not a time")) {
				t.Errorf("event %d: the reason %q has its text", i, p.Err)
			}
		}
	}
}

func TestAnEventWithoutATimeHappensNow(t *testing.T) {
	now := time.Date(2026, 3, 5, 17, 20, 0, 0, time.UTC)
	s, rows := shopScorer(t, networks[0], func(c *predict.ScorerConfig) { c.Now = func() time.Time { return now } })
	at := func(hour int) string { return fmt.Sprint(time.Date(2020, 1, 1, hour, 0, 0, 0, time.UTC).UnixMilli()) }
	score := func(columns ...predict.Column) float32 { return scores(t, s, append(columns, column("item", "a")))[0] }
	if score() != score(column("ts", at(17))) {
		t.Error("without a time the score is not that of this hour")
	}
	if score() == score(column("ts", at(18))) {
		t.Error("another hour has the same score: its rows are not looked at")
	}
	if rows.pulls != 4 {
		t.Errorf("%d pulls for 4 requests", rows.pulls)
	}
}

func TestIdentifiersAreMasked(t *testing.T) {
	doc := "model: m\nstream: {format: csv%s}\nlabel: {column: y}\nfeatures: [{name: user, column: uid}]\n"
	masked, _ := scorer(t, parsed(t, fmt.Sprintf(doc, ", identifiers: [uid]")), func(c *predict.ScorerConfig) { c.Secret = secret })
	plain, _ := scorer(t, parsed(t, fmt.Sprintf(doc, "")), nil)
	m, err := mask.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	users := []string{"712", "", "713", "someone"}
	var masks []string
	for _, user := range users {
		masks = append(masks, string(m.Append(nil, []byte(user))))
	}
	want := scores(t, plain, []predict.Column{column("uid", masks...)})
	if got := scores(t, masked, []predict.Column{column("uid", users...)}); !slices.Equal(got, want) {
		t.Errorf("scores %v, want those of the masks %v", got, want)
	}
	if got := scores(t, masked, []predict.Column{column("uid", users[0])}); !slices.Equal(got, want[:1]) {
		t.Errorf("score %v of a user that all events share, want %v", got, want[:1])
	}
	if _, _, err := tryScorer(parsed(t, fmt.Sprintf(doc, ", identifiers: [uid]")), nil); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("without a secret: %v, want ErrInvalid", err)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	s, rows := shopScorer(t, networks[0], func(c *predict.ScorerConfig) { c.Limits = predict.Limits{Events: 10, Keys: 100, Bytes: 1000} })
	long := strings.Repeat("x", 1001)
	tags := strings.Repeat("a|", 100)
	items := slices.Repeat([]string{"a"}, 11)
	for name, request := range map[string]func() error{
		"events": func() error {
			_, _, err := s.Predict(t.Context(), []predict.Column{column("item", items...)})
			return err
		},
		"keys":  func() error { _, _, err := s.Predict(t.Context(), []predict.Column{column("tags", tags)}); return err },
		"bytes": func() error { _, _, err := s.Predict(t.Context(), []predict.Column{column("item", long)}); return err },
		"bytes of what is not looked at": func() error {
			_, _, err := s.Predict(t.Context(), []predict.Column{column("clicked", long)})
			return err
		},
		"candidates": func() error {
			_, _, err := s.Rank(t.Context(), predict.Rank{Candidates: []predict.Column{column("item", items...)}})
			return err
		},
		"bytes of a filter": func() error {
			_, _, err := s.Rank(t.Context(), predict.Rank{Candidates: []predict.Column{column("item", "a")}, Filters: []predict.Filter{{Column: "item", In: []string{long}}}})
			return err
		},
		"keys of an explanation": func() error { _, _, err := s.Explain(t.Context(), []predict.Column{column("item", "a")}); return err },
	} {
		if err := request(); !errors.Is(err, ps.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if rows.pulls != 0 {
		t.Errorf("%d pulls for requests that are too large", rows.pulls)
	}
	if got := scores(t, s, []predict.Column{column("item", items[:10]...)}); len(got) != 10 {
		t.Errorf("%d predictions of 10 events, which is the limit", len(got))
	}
}

func TestAnswersSayWhatTheyWereComputedFrom(t *testing.T) {
	s, rows := shopScorer(t, networks[0], nil)
	want := predict.Served{Version: 3, Fresh: rows.Fresh()}
	event := []predict.Column{column("item", "a")}
	_, predicted, err1 := s.Predict(t.Context(), event)
	_, ranked, err2 := s.Rank(t.Context(), predict.Rank{Candidates: event})
	_, explained, err3 := s.Explain(t.Context(), event)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, got := range []predict.Served{predicted, ranked, explained} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("served (-want +got):\n%s", diff)
		}
	}
}

func TestErrorsOfParametersAreToldAndLeaveNothingBehind(t *testing.T) {
	s, rows := shopScorer(t, networks[2], func(c *predict.ScorerConfig) { c.Concurrent = 1 })
	event := []predict.Column{column("item", "a", "b")}
	want := scores(t, s, event)
	rows.fail(ps.ErrUnavailable)
	if _, _, err := s.Predict(t.Context(), event); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("predict: %v, want ErrUnavailable", err)
	}
	if _, _, err := s.Rank(t.Context(), predict.Rank{Candidates: event}); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("rank: %v, want ErrUnavailable", err)
	}
	if _, _, err := s.Explain(t.Context(), one(event, 0)); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("explain: %v, want ErrUnavailable", err)
	}
	rows.fail(nil)
	if got := scores(t, s, event); !slices.Equal(got, want) {
		t.Errorf("afterwards the scores are %v, want %v", got, want)
	}
}

func TestADivergedModelIsNotServedAsNumbers(t *testing.T) {
	s, rows := shopScorer(t, networks[0], nil)
	event := []predict.Column{column("item", "a", "b")}
	b, err := predict.BatchOf(s, event)
	if err != nil {
		t.Fatal(err)
	}
	rows.put(0, b.Keys[3], []float32{float32(math.Inf(1))})
	got, _, err := s.Predict(t.Context(), event)
	if err != nil || got[0].Err == nil || got[0].Score != 0 || got[1].Err != nil {
		t.Errorf("got %+v (%v), want the first without a score and the second with one", got, err)
	}
	ranking, _, err := s.Rank(t.Context(), predict.Rank{Candidates: event})
	if err != nil || ranking.Unusable != 1 || len(ranking.Ranked) != 1 || ranking.Ranked[0].Candidate != 1 {
		t.Errorf("ranking %+v (%v), want only the second", ranking, err)
	}
}

func TestAModelOfAnotherSpecIsRefused(t *testing.T) {
	_, _, err := tryScorer(parsed(t, shopDoc+networks[2]), shopConfig(func(c *predict.ScorerConfig) { c.Model.Layout.Tables = c.Model.Layout.Tables[:2] }))
	if !errors.Is(err, ps.ErrModelMismatch) {
		t.Errorf("got %v, want ErrModelMismatch", err)
	}
}

// request makes one of all kinds of requests, and returns its answer as text.
func request(ctx context.Context, rng *rand.Rand, s *predict.Scorer) string {
	n := 1 + rng.IntN(20)
	columns := shopColumns(rng, n)
	switch rng.IntN(8) {
	case 0:
		columns[rng.IntN(len(columns))].Name = "unknown"
	case 1:
		columns[rng.IntN(len(columns))].Values = make([]string, n+1)
	case 2:
		columns[5].Values[rng.IntN(n)] = "no number"
	case 3:
		columns = columns[rng.IntN(len(columns)):]
	case 4:
		columns[2].Values[rng.IntN(n)] = "no time"
	}
	switch rng.IntN(3) {
	case 0:
		predictions, _, err := s.Predict(ctx, columns)
		return fmt.Sprint(predictions, err)
	case 1:
		explanation, _, err := s.Explain(ctx, columns)
		return fmt.Sprint(explanation, err)
	}
	bound := 300.0
	ranking, _, err := s.Rank(ctx, predict.Rank{
		Candidates: columns, Top: rng.IntN(5),
		Filters: []predict.Filter{{Column: "price", AtLeast: &bound}, {Column: "tab", NotIn: []string{"w1"}}},
	})
	return fmt.Sprint(ranking, err)
}

func TestARequestLeavesNothingBehind(t *testing.T) {
	const seed, requests = 9, 300
	t.Logf("seed %d", seed)
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			s, rows := shopScorer(t, network, func(c *predict.ScorerConfig) { c.Concurrent = 1 })
			for i := range uint64(requests) {
				fresh, _ := shopScorer(t, network, func(c *predict.ScorerConfig) { c.Parameters = rows })
				got, want := request(t.Context(), rand.New(rand.NewPCG(seed, i)), s), request(t.Context(), rand.New(rand.NewPCG(seed, i)), fresh)
				if got != want {
					t.Fatalf("request %d after others:\n%s\nby itself:\n%s", i, got, want)
				}
			}
		})
	}
}

func TestRequestsAtATimeHaveTheAnswersThatTheyHaveAlone(t *testing.T) {
	const seed, requests = 10, 400
	t.Logf("seed %d", seed)
	s, _ := shopScorer(t, networks[2], func(c *predict.ScorerConfig) { c.Concurrent = 3 })
	want := make([]string, requests)
	for i := range want {
		want[i] = request(t.Context(), rand.New(rand.NewPCG(seed, uint64(i))), s)
	}
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := g; i < requests; i += 4 { // each request twice
				if got := request(t.Context(), rand.New(rand.NewPCG(seed, uint64(i))), s); got != want[i] {
					t.Errorf("request %d beside others:\n%s\nalone:\n%s", i, got, want[i])
				}
			}
		})
	}
	group.Wait()
}

// slow are parameters whose pulls last until they are let go.
type slow struct {
	*memory
	pulling, let chan struct{}
}

func (p slow) Pull(ctx context.Context, model string, layout uint64, reads []ps.Read) error {
	p.pulling <- struct{}{}
	<-p.let
	return p.memory.Pull(ctx, model, layout, reads)
}

func TestMoreRequestsThanMayBeWorkedOnWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parameters := slow{pulling: make(chan struct{}, 4), let: make(chan struct{})}
		s, rows := shopScorer(t, networks[0], func(c *predict.ScorerConfig) { c.Concurrent, c.Parameters = 2, &parameters })
		parameters.memory = rows
		event := []predict.Column{column("item", "a")}
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				if _, _, err := s.Predict(t.Context(), event); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(parameters.pulling); n != 2 {
			t.Errorf("%d requests are worked on, want 2", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := s.Predict(ctx, event); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request that waited too long: %v, want its deadline", err)
		}
		close(parameters.let)
		group.Wait()
	})
}

func TestScoringAllocatesNothingPerEvent(t *testing.T) {
	// Without a tower: here its product is gonum's own, which starts goroutines.
	s, _ := shopScorer(t, networks[1], func(c *predict.ScorerConfig) { c.Concurrent = 1 })
	rng := rand.New(rand.NewPCG(4, 0))
	allocations := func(n int) float64 {
		columns := shopColumns(rng, n)
		predicting := testing.AllocsPerRun(50, func() {
			if _, _, err := s.Predict(t.Context(), columns); err != nil {
				t.Fatal(err)
			}
		})
		bound := 100.0
		r := predict.Rank{Candidates: columns, Filters: []predict.Filter{{Column: "price", AtLeast: &bound}}}
		return predicting + testing.AllocsPerRun(50, func() {
			if _, _, err := s.Rank(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		})
	}
	allocations(400) // its memory is made
	// The race detector makes some of its own.
	if few, many := allocations(2), allocations(400); many > few+4 {
		t.Errorf("%v allocations for 2 events and %v for 400, want as many", few, many)
	}
}

func TestAStreamWithoutATimeNeedsNone(t *testing.T) {
	s, _ := scorer(t, parsed(t, "model: m\nlabel: {column: y}\nfeatures: [{name: f, column: f}]\n"), nil)
	if _, _, err := s.Predict(t.Context(), []predict.Column{column("f", "a"), column("ts", "1")}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("a time that the stream does not have: %v, want ErrInvalid", err)
	}
	scores(t, s, []predict.Column{column("f", "a")})
}
