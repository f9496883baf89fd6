package predict_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/predict"
)

// catalogueDoc is a model of a context (user, tab, hour) and items, without a feature of
// both.
const catalogueDoc = `
model: catalogue
stream: {format: csv, time: {column: ts, unit: ms}, identifiers: [uid, owner]}
label: {column: clicked}
features:
  - {name: user, column: uid}
  - {name: tab, column: tab}
  - {name: hour, clock: hour}
  - {name: user_x_tab, cross: [user, tab]}
  - {name: item, column: item}
  - {name: owner, column: owner}
  - {name: tags, column: tags, split: "|", weight_after: ":"}
  - {name: stock, column: stock, log: 2, cross_only: true}
  - {name: tags_x_stock, cross: [tags, stock]}
network: `

const nItems = 300

// catalogue is a list of items.
func catalogue(rng *rand.Rand, n int) *predict.Items {
	columns := []predict.Column{column("item"), column("owner"), column("tags"), column("stock")}
	for i := range n {
		for c, text := range []string{
			fmt.Sprintf("item %d", i), fmt.Sprintf("o%d", rng.IntN(40)), fmt.Sprintf("t%d:%.2f|t%d", rng.IntN(9), rng.Float64(), rng.IntN(9)), fmt.Sprint(rng.IntN(100)),
		} {
			columns[c].Values = append(columns[c].Values, text)
		}
	}
	return &predict.Items{Name: "item", Columns: columns}
}

// running lets a scorer keep its items fresh until the test ends, and waits until it has.
// It is called in a synctest bubble.
func running(t *testing.T, s *predict.Scorer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	synctest.Wait()
}

func retrieveAll(t testing.TB, s *predict.Scorer, r predict.Retrieve) map[string]float32 {
	t.Helper()
	r.Top = cmp.Or(r.Top, 10_000)
	found, served, err := s.Retrieve(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if served.Version != 3 || served.Parameters != "live" {
		t.Errorf("served %+v", served)
	}
	if !slices.IsSortedFunc(found, func(a, b predict.Retrieved) int { return cmp.Compare(b.Score, a.Score) }) {
		t.Error("what was retrieved is not in the order of scores")
	}
	all := make(map[string]float32)
	for _, item := range found {
		all[item.Item] = item.Score
	}
	if len(all) != len(found) {
		t.Errorf("%d items, of them %d different ones", len(found), len(all))
	}
	return all
}

// Predict scores the context with each item. An item's inner product is that less what the
// context says by itself, so they differ by one number, and have one order.
func TestRetrievalHasTheOrderOfTheScores(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	for _, network := range []string{"{kind: fm, factors: 6}", "{kind: fm, factors: 6, constant: false}", "{kind: logistic}"} {
		t.Run(network, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				list := catalogue(rng, nItems)
				s, _ := scorer(t, parsed(t, catalogueDoc+network), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
				running(t, s)
				for range 5 {
					context := one(shopColumns(rng, 1)[:3], 0)
					want := scores(t, s, append(slices.Clone(context), list.Columns...))
					got := retrieveAll(t, s, predict.Retrieve{Context: context})
					if len(got) != nItems {
						t.Fatalf("%d items retrieved, want %d", len(got), nItems)
					}
					less := want[0] - got["item 0"]
					for i, score := range want {
						if name := fmt.Sprintf("item %d", i); math.Abs(float64(score-less-got[name])) > 1e-4 {
							t.Fatalf("%s has %v, its score of %v less the context's %v is %v", name, got[name], score, less, score-less)
						}
					}
					order := make([]int, nItems)
					for i := range order {
						order[i] = i
					}
					slices.SortFunc(order, func(a, b int) int { return cmp.Compare(want[b], want[a]) })
					best, _, err := s.Retrieve(t.Context(), predict.Retrieve{Context: context, Top: 20})
					if err != nil || len(best) != 20 {
						t.Fatalf("%d of the best 20 (%v)", len(best), err)
					}
					for place, found := range best {
						// Scores closer than rounding may change places.
						if name := fmt.Sprintf("item %d", order[place]); found.Item != name && math.Abs(float64(found.Score-got[name])) > 1e-4 {
							t.Errorf("place %d has %s with %v, the scores have %s with %v", place, found.Item, found.Score, name, got[name])
						}
					}
				}
			})
		})
	}
}

func TestADeepNetworksItemsAreThoseOfItsFactorizationMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := catalogue(rand.New(rand.NewPCG(12, 0)), nItems)
		items := shopConfig(func(c *predict.ScorerConfig) { c.Items = list })
		deep, _ := scorer(t, parsed(t, catalogueDoc+"{kind: deepfm, factors: 6, hidden: [4]}"), items)
		wide, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), items)
		running(t, deep)
		running(t, wide)
		r := predict.Retrieve{Context: []predict.Column{column("tab", "w1"), column("uid", "w2")}, Top: nItems}
		got, _, err1 := deep.Retrieve(t.Context(), r)
		want, _, err2 := wide.Retrieve(t.Context(), r)
		if err := errors.Join(err1, err2); err != nil || !slices.Equal(got, want) {
			t.Errorf("deepfm retrieves other items than fm with the same rows (%v)", err)
		}
	})
}

func TestCrossesOfContextAndItemsCountForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := catalogue(rand.New(rand.NewPCG(13, 0)), 20)
		items := shopConfig(func(c *predict.ScorerConfig) { c.Items = list })
		apart, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), items)
		joined := strings.Replace(catalogueDoc, "network:", "  - {name: budget, column: budget, log: 2, cross_only: true}\n  - {name: both, cross: [user, tags, budget]}\nnetwork:", 1)
		crossed, _ := scorer(t, parsed(t, joined+"{kind: fm, factors: 6}"), items)
		running(t, apart)
		running(t, crossed)
		context := []predict.Column{column("tab", "w1"), column("uid", "w2")}
		want := retrieveAll(t, apart, predict.Retrieve{Context: context})
		got := retrieveAll(t, crossed, predict.Retrieve{Context: append(context, column("budget", "7"))})
		for name, score := range want {
			if got[name] != score {
				t.Errorf("%s has %v, without the cross of both sides %v", name, got[name], score)
			}
		}
	})
}

func TestAVectorIsAQueryByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := parsed(t, "model: m\nlabel: {column: y}\nfeatures: [{name: item, column: item}, {name: user, column: user}]\nnetwork: {kind: fm, factors: 3}\n")
		s, rows := scorer(t, sp, func(c *predict.ScorerConfig) {
			c.Items = &predict.Items{Name: "item", Columns: []predict.Column{column("item", "a", "b", "c")}}
		})
		for i, name := range []string{"a", "b", "c"} {
			key := feature.Key("item", []byte(name))
			vector := make([]float32, 3)
			vector[i] = 2
			rows.put(0, key, []float32{float32(100 * i)})
			rows.put(1, key, vector)
		}
		running(t, s)
		got := retrieveAll(t, s, predict.Retrieve{Vector: []float32{1, 0.5, -1}})
		if got["a"] != 2 || got["b"] != 1 || got["c"] != -2 {
			t.Errorf("inner products %v, want 2, 1 and -2: what items add by themselves does not count", got)
		}
		for _, vector := range [][]float32{{1, 2}, {1, 2, 3, 4}, {1, 2, float32(math.NaN())}} {
			if _, _, err := s.Retrieve(t.Context(), predict.Retrieve{Vector: vector, Top: 1}); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("vector %v: %v, want ErrInvalid", vector, err)
			}
		}
	})
}

func TestItemsAreLeftOutByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := catalogue(rand.New(rand.NewPCG(14, 0)), nItems)
		s, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
		running(t, s)
		r := predict.Retrieve{Context: []predict.Column{column("tab", "w1")}, Top: 50}
		all, _, err := s.Retrieve(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		r.NotIn, r.Top = []string{"nobody has this name", all[7].Item, all[0].Item, all[0].Item}, 48
		got, _, err := s.Retrieve(t.Context(), r)
		want := slices.Concat(all[1:7], all[8:])
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	})
}

func TestAChangedRowIsSearchedBySoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(15, 0))
		list := catalogue(rng, nItems)
		for i := range list.Columns[1].Values {
			list.Columns[1].Values[i] = "everybody's"
		}
		config := shopConfig(func(c *predict.ScorerConfig) { c.Items = list })
		s, rows := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), config)
		running(t, s)
		r := predict.Retrieve{Context: []predict.Column{column("tab", "w1")}}
		check := func(what string) {
			t.Helper()
			fresh, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) { c.Items, c.Parameters = list, rows }))
			running(t, fresh)
			want, got := retrieveAll(t, fresh, r), retrieveAll(t, s, r)
			for name, score := range want {
				if got[name] != score {
					t.Errorf("%s: %s has %v, want %v", what, name, got[name], score)
				}
			}
		}
		before := retrieveAll(t, s, r)
		change := func(of string, values ...string) (keys []ps.Key) {
			for _, value := range values {
				keys = append(keys, feature.Key(of, []byte(value)))
				rows.put(0, keys[len(keys)-1], []float32{rng.Float32()})
				rows.put(1, keys[len(keys)-1], []float32{rng.Float32(), rng.Float32(), rng.Float32(), 1, 2, 3})
			}
			return keys
		}
		keys := change("item", "item 3", "item 299", "an item that is not there")
		if after := retrieveAll(t, s, r); after["item 3"] != before["item 3"] {
			t.Error("an item changed without being told")
		}
		s.Changed(1, keys)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if after := retrieveAll(t, s, r); after["item 3"] == before["item 3"] || after["item 299"] == before["item 299"] || after["item 4"] != before["item 4"] {
			t.Error("100 ms after a change two items should have other vectors, and no more")
		}
		check("after a change of items' rows")

		m := ownersKey(t, s)
		rows.put(1, m, []float32{9, 8, 7, 6, 5, 4})
		s.Changed(0, []ps.Key{m})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		check("after a change of a row that all items have")

		change("item", "item 7")
		pulls := rows.pulls
		s.Changed(2, []ps.Key{feature.Key("item", []byte("item 7"))}) // figures
		s.Changed(0, []ps.Key{feature.Key("user", []byte("item 7"))})
		time.Sleep(time.Second)
		synctest.Wait()
		if rows.pulls != pulls {
			t.Error("changes of what no item has made items be recomputed")
		}
		s.Reload()
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		check("after a reload")
	})
}

func TestAnItemsOwnRowNeedNotWaitForWhatManyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 70_000 // more than a round recomputes of those
		list := &predict.Items{Name: "item", Columns: []predict.Column{column("item"), column("owner", "everybody's")}}
		for i := range n {
			list.Columns[0].Values = append(list.Columns[0].Values, fmt.Sprint(i))
		}
		s, rows := scorer(t, parsed(t, "model: m\nlabel: {column: y}\nfeatures: [{name: item, column: item}, {name: owner, column: owner}]\n"),
			func(c *predict.ScorerConfig) { c.Items, c.Limits.Events = list, n })
		key := func(i int) ps.Key { return feature.Key("item", fmt.Append(nil, i)) }
		for i := range n {
			rows.put(0, key(i), []float32{0})
		}
		all := feature.Key("owner", []byte("everybody's"))
		rows.put(0, all, []float32{1})
		running(t, s)
		if got := retrieveAll(t, s, predict.Retrieve{Top: n}); len(got) != n || got["0"] != 1 || got["69999"] != 1 {
			t.Fatalf("%d items, the first with %v, want %d with 1", len(got), got["0"], n)
		}
		time.Sleep(time.Second)
		rows.put(0, all, []float32{2})
		rows.put(0, key(n-1), []float32{5})
		s.Changed(0, []ps.Key{all, key(n - 1)})
		synctest.Wait()
		got := retrieveAll(t, s, predict.Retrieve{Top: n})
		if got["69999"] != 7 || got["69998"] != 1 || got["0"] != 2 {
			t.Errorf("after a round the item whose own row changed has %v, its neighbour %v, the first %v; want 7, 1, 2", got["69999"], got["69998"], got["0"])
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := retrieveAll(t, s, predict.Retrieve{Top: n}); got["69999"] != 7 || got["69998"] != 2 {
			t.Errorf("after another the last has %v and its neighbour %v; want 7 and 2", got["69999"], got["69998"])
		}
	})
}

// ownersKey returns the key of the owner that all items have, who is masked.
func ownersKey(t *testing.T, s *predict.Scorer) ps.Key {
	t.Helper()
	b, err := predict.BatchOf(s, []predict.Column{column("owner", "everybody's")})
	if err != nil {
		t.Fatal(err)
	}
	return b.Keys[5]
}

func TestItemsKeepTheirVectorsWhileRowsCannotBePulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		list := catalogue(rand.New(rand.NewPCG(16, 0)), nItems)
		s, rows := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) {
			c.Items, c.Logger = list, slog.New(slog.NewTextHandler(&log, nil))
		}))
		vector := predict.Retrieve{Vector: make([]float32, 6), Top: 1}
		if _, _, err := s.Retrieve(t.Context(), vector); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("before anything is loaded: %v, want ErrUnavailable", err)
		}
		rows.fail(ps.ErrUnavailable)
		running(t, s)
		time.Sleep(time.Minute)
		if _, _, err := s.Retrieve(t.Context(), vector); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("while nothing can be loaded: %v, want ErrUnavailable", err)
		}
		rows.fail(nil)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		r := predict.Retrieve{Context: []predict.Column{column("tab", "w1")}}
		before := retrieveAll(t, s, r)
		key := feature.Key("item", []byte("item 5"))
		rows.put(0, key, []float32{77})
		rows.fail(ps.ErrUnavailable)
		s.Changed(0, []ps.Key{key})
		time.Sleep(time.Minute)
		synctest.Wait()
		rows.fail(nil)
		if after := retrieveAll(t, s, r); after["item 5"] != before["item 5"] {
			t.Error("an item whose row could not be pulled has another vector")
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if after := retrieveAll(t, s, r); after["item 5"] <= before["item 5"] {
			t.Error("the change was forgotten with the pull that failed")
		}
		for say, times := range map[string]int{"items keep the vectors they have": 2, "items get new vectors again": 2, "items can be retrieved": 1} {
			if n := strings.Count(log.String(), say); n != times {
				t.Errorf("said %q %d times, want %d:\n%s", say, n, times, log.String())
			}
		}
	})
}

func TestItemsThatCannotBeUsedAreNotRetrieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		list := &predict.Items{Name: "item", Columns: []predict.Column{column("item", "a", "b", "c"), column("stock", "1", "a lot", "3"), column("tags", "x", "y", "z")}}
		s, rows := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) {
			c.Items, c.Logger = list, slog.New(slog.NewTextHandler(&log, nil))
		}))
		key := feature.Key("item", []byte("c"))
		rows.put(0, key, []float32{float32(math.Inf(1))})
		running(t, s)
		got := retrieveAll(t, s, predict.Retrieve{Context: []predict.Column{column("tab", "w1")}})
		if _, there := got["a"]; !there || len(got) != 1 {
			t.Errorf("retrieved %v, want a alone: b's stock is no number, and c's row not finite", got)
		}
		if !strings.Contains(log.String(), "items=1 of=3") || strings.Contains(log.String(), "a lot") || !strings.Contains(log.String(), "diverged") {
			t.Errorf("the log should tell of both, without their text:\n%s", log.String())
		}
		rows.put(0, key, []float32{1})
		s.Changed(0, []ps.Key{key})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := retrieveAll(t, s, predict.Retrieve{}); len(got) != 2 {
			t.Errorf("retrieved %v, want a and c, whose row is finite again", got)
		}
	})
}

func TestNamesNeedNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := &predict.Items{Name: "sku", Columns: []predict.Column{column("sku", "a", "b"), column("tags", "x", "y")}}
		s, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
		running(t, s)
		// The item itself is of the context then, as whatever the list does not have.
		if got := retrieveAll(t, s, predict.Retrieve{Context: []predict.Column{column("item", "i")}}); len(got) != 2 {
			t.Errorf("retrieved %v, want a and b", got)
		}
	})
}

func TestListsThatCannotBeMeantAreRefused(t *testing.T) {
	fm := "{kind: fm, factors: 6}"
	for name, c := range map[string]struct {
		network string
		name    string
		columns []predict.Column
		say     string
	}{
		"no column of names":         {fm, "sku", []predict.Column{column("item", "a")}, `no column "sku"`},
		"a column without a name":    {fm, "", []predict.Column{column("", "a")}, `no column ""`},
		"no items":                   {fm, "item", []predict.Column{column("item")}, "0 items"},
		"a name that is empty":       {fm, "item", []predict.Column{column("item", "a", "")}, "item 1 of column"},
		"a name that is there twice": {fm, "item", []predict.Column{column("item", "a", "b", "c", "b")}, "items 1 and 3"},
		"a column too short":         {fm, "item", []predict.Column{column("item", "a", "b", "c"), column("tags", "x", "y")}, `"tags" has 2 values`},
		"a column too long":          {fm, "item", []predict.Column{column("item", "a"), column("tags", "x", "y")}, "1 names"},
		"an unknown column":          {fm, "item", []predict.Column{column("item", "a"), column("tasg", "x")}, `did you mean "tags"`},
		"columns that nobody reads":  {fm, "sku", []predict.Column{column("sku", "a")}, "no feature depends on sku"},
		"an mlp":                     {"{kind: mlp}", "item", []predict.Column{column("item", "a")}, "network mlp"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := tryScorer(parsed(t, catalogueDoc+c.network), shopConfig(func(s *predict.ScorerConfig) {
				s.Items = &predict.Items{Name: c.name, Columns: c.columns}
			}))
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("got %v, want ErrInvalid and %q", err, c.say)
			}
		})
	}
}

func TestRetrievalsThatCannotBeMeantAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := catalogue(rand.New(rand.NewPCG(17, 0)), 10)
		s, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
		linear, _ := scorer(t, parsed(t, catalogueDoc+"{kind: logistic}"), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
		without, _ := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(nil))
		running(t, s)
		running(t, linear)
		running(t, without)
		six := make([]float32, 6)
		for name, c := range map[string]struct {
			s    *predict.Scorer
			r    predict.Retrieve
			want error
			say  string
		}{
			"without a list":              {without, predict.Retrieve{Top: 1}, ps.ErrInvalid, "no list of items"},
			"none":                        {s, predict.Retrieve{}, ps.ErrInvalid, "the best 0 items"},
			"too many":                    {s, predict.Retrieve{Top: 10_001}, ps.ErrTooLarge, "at most 10000"},
			"two queries":                 {s, predict.Retrieve{Top: 1, Vector: six, Context: []predict.Column{column("tab", "a")}}, ps.ErrInvalid, "both"},
			"a vector of a linear model":  {linear, predict.Retrieve{Top: 1, Vector: six}, ps.ErrInvalid, "has none"},
			"an unknown column":           {s, predict.Retrieve{Top: 1, Context: []predict.Column{column("tbb", "a")}}, ps.ErrInvalid, `did you mean "tab"`},
			"an item's column":            {s, predict.Retrieve{Top: 1, Context: []predict.Column{column("tags", "a")}}, ps.ErrInvalid, "one that the items have"},
			"two contexts":                {s, predict.Retrieve{Top: 1, Context: []predict.Column{column("tab", "a", "b")}}, ps.ErrInvalid, "2 values"},
			"a context that has no sense": {s, predict.Retrieve{Top: 1, Context: []predict.Column{column("ts", "tomorrow")}}, ps.ErrInvalid, "the event time is not"},
		} {
			if _, _, err := c.s.Retrieve(t.Context(), c.r); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("%s: %v, want %v and %q", name, err, c.want, c.say)
			}
		}
	})
}

// Every request and every change at once; the race detector looks on.
func TestItemsAreSearchedWhileTheyChange(t *testing.T) {
	const seed = 18
	t.Logf("seed %d", seed)
	list := catalogue(rand.New(rand.NewPCG(seed, 0)), 3000)
	s, rows := scorer(t, parsed(t, catalogueDoc+"{kind: fm, factors: 6}"), shopConfig(func(c *predict.ScorerConfig) { c.Items = list }))
	ctx, cancel := context.WithCancel(t.Context())
	var running, asking sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for g := range uint64(4) {
		asking.Go(func() {
			rng := rand.New(rand.NewPCG(seed, g))
			for range 200 {
				switch rng.IntN(4) {
				case 0:
					key := feature.Key("item", fmt.Appendf(nil, "item %d", rng.IntN(3000)))
					rows.put(1, key, []float32{rng.Float32(), 0, 0, 0, 0, 0})
					s.Changed(1, []ps.Key{key})
				case 1:
					s.Reload()
				default:
					found, _, err := s.Retrieve(ctx, predict.Retrieve{Top: 10, Context: []predict.Column{column("tab", "w1")}})
					if err == nil && len(found) != 10 || err != nil && !errors.Is(err, ps.ErrUnavailable) {
						t.Errorf("%d items (%v), want 10, or none before they are loaded", len(found), err)
					}
				}
				request(ctx, rng, s)
			}
		})
	}
	asking.Wait()
	cancel()
	running.Wait()
}
