package examples_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
)

// written returns a shop's events as text.
func written(t *testing.T, s examples.Shop) ([]byte, examples.Best) {
	t.Helper()
	var b bytes.Buffer
	best, err := s.Write(t.Context(), &b, nil)
	if err != nil {
		t.Fatalf("%+v: %v", s, err)
	}
	return b.Bytes(), best
}

// rows calls each with every row of CSV text, by column.
func rows(t *testing.T, text io.Reader, each func(row func(column string) string)) {
	t.Helper()
	r := csv.NewReader(text)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[string]int)
	for i, c := range header {
		at[c] = i
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		each(func(column string) string {
			i, ok := at[column]
			if !ok {
				t.Fatalf("no column %q among %q", column, header)
			}
			return row[i]
		})
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestShopIsDeterministic(t *testing.T) {
	const head = 1 << 20
	text, _ := written(t, examples.Shop{Events: 20_000, Seed: 1})
	t.Run("the first bytes of seed 1 never change", func(t *testing.T) {
		got := fmt.Sprintf("%x", sha256.Sum256(text[:head]))
		const want = "bb1c1d4f777a6f5a9bfce8723b62485c3ebc92fc11be26c185c5308410389093"
		if got != want {
			t.Errorf("the first %d bytes have SHA-256 %s, want %s: a figure quoted for this shop no longer holds", head, got, want)
		}
	})
	t.Run("written again it is the same", func(t *testing.T) {
		if again, _ := written(t, examples.Shop{Events: 20_000, Seed: 1}); !bytes.Equal(text, again) {
			t.Error("two runs with the same settings differ")
		}
	})
	t.Run("fewer events are the beginning of more", func(t *testing.T) {
		for _, n := range []int64{1, 7, 3000} {
			few, _ := written(t, examples.Shop{Events: n, Seed: 1})
			if !bytes.HasPrefix(text, few) || bytes.Count(few, []byte("\n")) != int(n)+1 {
				t.Errorf("%d events are %d lines and the beginning of 20000: %v", n, bytes.Count(few, []byte("\n")), bytes.HasPrefix(text, few))
			}
		}
	})
	t.Run("another seed is another shop", func(t *testing.T) {
		if other, _ := written(t, examples.Shop{Events: 20_000, Seed: 2}); bytes.Equal(text, other) {
			t.Error("seeds 1 and 2 give the same events")
		}
	})
}

func TestShopEvents(t *testing.T) {
	const events = 120_000
	text, _ := written(t, examples.Shop{Events: events, Seed: 1})
	n, last := 0, int64(0)
	rows(t, bytes.NewReader(text), func(row func(string) string) {
		n++
		ts, err := strconv.ParseInt(row("ts"), 10, 64)
		if err != nil || ts < last {
			t.Fatalf("event %d: ts %s after %d", n, row("ts"), last)
		}
		last = ts
		for column, bound := range map[string][2]float64{
			"age": {16, 75}, "position": {1, 12}, "price": {0.5, 1e5}, "discount": {0, 50}, "days_listed": {0, 89}, "click_probability": {0.0003, 0.9997},
		} {
			if v := number(t, row(column)); v < bound[0] || v > bound[1] {
				t.Fatalf("event %d: %s is %v, want it in %v", n, column, v, bound)
			}
		}
		if (row("query") != "") != (row("surface") == "search") {
			t.Fatalf("event %d: surface %s with query %q", n, row("surface"), row("query"))
		}
		if day := time.UnixMilli(ts).UTC().Weekday(); row("discount") != "0" && day != time.Friday && day != time.Saturday && day != time.Sunday {
			t.Fatalf("event %d: a discount on a %s", n, day)
		}
	})
	if n != events {
		t.Errorf("%d events, want %d", n, events)
	}
	days := float64(last-1_767_571_200_000) / 86_400_000
	if math.Abs(days/(events/50_000.)-1) > 0.1 {
		t.Errorf("%d events take %.2f days, want about 50000 a day", events, days)
	}
}

// TestShopClicks holds the labels against the probabilities they are drawn from.
func TestShopClicks(t *testing.T) {
	text, best := written(t, examples.Shop{Events: 300_000, Seed: 1})
	var n, expected, variance, clicks [10]float64
	rows(t, bytes.NewReader(text), func(row func(string) string) {
		p := number(t, row("click_probability"))
		i := min(int(p*20), 9)
		n[i]++
		expected[i] += p
		variance[i] += p * (1 - p)
		clicks[i] += number(t, row("clicked"))
	})
	for i := range n {
		if off := (clicks[i] - expected[i]) / math.Sqrt(variance[i]); math.Abs(off) > 4 {
			t.Errorf("p from %.2f: %v of %v events clicked, want about %.1f (off by %.1f standard deviations)",
				float64(i)/20, clicks[i], n[i], expected[i], off)
		}
	}
	t.Run("a click is neither rare nor common, and can be foretold", func(t *testing.T) {
		rate := float64(best.Clicks) / float64(best.Events)
		if rate < 0.08 || rate > 0.15 || best.LogLoss > 0.85*best.Average || best.AUC < 0.75 {
			t.Errorf("got a rate of %.4f and %+v", rate, best)
		}
	})
	t.Run("the best log loss of seed 1 never changes", func(t *testing.T) {
		want := examples.Best{Events: 300_000, Clicks: 30_375, Average: 0.327821, LogLoss: 0.262937, AUC: 0.813935}
		got := best
		const digits = 1e6
		got.Average, got.LogLoss, got.AUC = math.Round(got.Average*digits)/digits, math.Round(got.LogLoss*digits)/digits, math.Round(got.AUC*digits)/digits
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("the file says the same as the writer", func(t *testing.T) {
		got, err := examples.ReadBest(t.Context(), bytes.NewReader(text))
		if err != nil || got != best {
			t.Errorf("read %+v, %v; written %+v", got, err, best)
		}
	})
}

// TestShopDrifts compares what styles like and what is on offer in the first three
// days with two weeks later.
func TestShopDrifts(t *testing.T) {
	const nCells, day = 24 * 24, 86_400_000
	type period struct{ sum, n [2][nCells]float64 } // by half of the users
	var early, late period
	products := [2]map[string]bool{{}, {}}
	cells := make(map[string]int)
	text, _ := written(t, examples.Shop{Events: 900_000, Seed: 1})
	rows(t, bytes.NewReader(text), func(row func(string) string) {
		at, later := &early, 0
		switch days := (number(t, row("ts")) - 1_767_571_200_000) / day; {
		case days >= 14 && days < 17:
			at, later = &late, 1
		case days >= 3:
			return
		}
		products[later][row("product")] = true
		if row("surface") == "search" {
			return
		}
		name := row("style") + row("category")
		cell, ok := cells[name]
		if !ok {
			cell = len(cells)
			cells[name] = cell
		}
		half := int(row("uid")[len(row("uid"))-1]) % 2
		at.n[half][cell]++
		at.sum[half][cell] += number(t, row("click_probability"))
	})
	rates := func(p *period, half int) []float64 {
		var r []float64
		for c := range len(cells) {
			r = append(r, (p.sum[half][c]+0.05)/(p.n[half][c]+1))
		}
		return r
	}
	same := stat.Correlation(rates(&early, 0), rates(&early, 1), nil)
	moved := stat.Correlation(rates(&early, 0), rates(&late, 1), nil)
	t.Logf("a style's click rates by category correlate %.3f between halves of the users, and %.3f over two weeks", same, moved)
	if same < 0.85 || moved > 0.6 {
		t.Errorf("want at least 0.85 at a time, and at most 0.6 two weeks later")
	}
	known := 0
	for p := range products[1] {
		if products[0][p] {
			known++
		}
	}
	share := float64(known) / float64(len(products[1]))
	t.Logf("%.2f of the products of the third week were there in the first", share)
	if share < 0.5 || share > 0.9 {
		t.Errorf("want some, and not all, to be new")
	}
}

func TestShopSettings(t *testing.T) {
	for name, s := range map[string]examples.Shop{
		"events below 0":   {Events: -1},
		"users below 0":    {Users: -1},
		"products below 0": {Products: -1},
		"too many users":   {Users: 10_000_001},
		"too many goods":   {Products: math.MaxInt},
	} {
		t.Run(name+" are refused", func(t *testing.T) {
			var b bytes.Buffer
			if _, err := s.Write(t.Context(), &b, nil); !errors.Is(err, ps.ErrInvalid) || b.Len() > 0 {
				t.Errorf("%+v: got %v and %d bytes, want ps.ErrInvalid and none", s, err, b.Len())
			}
		})
	}
	t.Run("the smallest shop has one user and a product per category", func(t *testing.T) {
		text, best := written(t, examples.Shop{Events: 5000, Users: 1, Products: 1})
		products := make(map[string]bool)
		rows(t, bytes.NewReader(text), func(row func(string) string) {
			products[row("category")+row("product")] = true
			if row("uid") != "u0" {
				t.Fatalf("user %q", row("uid"))
			}
		})
		if best.Events != 5000 || len(products) > 30 {
			t.Errorf("got %+v and %d products", best, len(products))
		}
	})
	t.Run("users and products come in the numbers asked for", func(t *testing.T) {
		text, _ := written(t, examples.Shop{Events: 50_000, Users: 100, Products: 240})
		users, products := make(map[string]bool), make(map[string]bool)
		rows(t, bytes.NewReader(text), func(row func(string) string) {
			users[row("uid")], products[row("product")] = true, true
		})
		if len(users) != 100 || len(products) < 240 || len(products) > 300 {
			t.Errorf("got %d users and %d products, want 100 and a few more than 240", len(users), len(products))
		}
	})
}

// limited takes so many bytes and then has no more room.
type limited struct{ left int }

var errFull = errors.New("no space left")

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestShopStops(t *testing.T) {
	t.Run("a full disk ends it", func(t *testing.T) {
		_, err := examples.Shop{Events: 50_000}.Write(t.Context(), &limited{left: 1_000_000}, nil)
		if !errors.Is(err, errFull) {
			t.Errorf("got %v, want %v", err, errFull)
		}
	})
	t.Run("a cancelled context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var seen int64
		_, err := examples.Shop{Events: math.MaxInt64}.Write(ctx, io.Discard, func(events int64) {
			seen = events
			cancel()
		})
		if !errors.Is(err, context.Canceled) || seen == 0 {
			t.Errorf("got %v after %d events, want %v", err, seen, context.Canceled)
		}
	})
	t.Run("progress rises to the number of events", func(t *testing.T) {
		var seen []int64
		if _, err := (examples.Shop{Events: 20_000}).Write(t.Context(), io.Discard, func(events int64) { seen = append(seen, events) }); err != nil {
			t.Fatal(err)
		}
		if len(seen) < 3 || !slices.IsSorted(seen) || seen[len(seen)-1] != 20_000 {
			t.Errorf("got %d, want several that rise to 20000", seen)
		}
	})
}

func TestShopAllocatesNothingPerEvent(t *testing.T) {
	allocs := func(events int64) float64 {
		return testing.AllocsPerRun(3, func() {
			if _, err := (examples.Shop{Events: events}).Write(t.Context(), io.Discard, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := allocs(1000), allocs(51_000); many > few+2 {
		t.Errorf("%v allocations for 1000 events and %v for 51000", few, many)
	}
}

func BenchmarkShopWrite(b *testing.B) {
	for b.Loop() {
		if _, err := (examples.Shop{Events: 200_000, Seed: 1}).Write(b.Context(), io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(200_000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func TestReadBest(t *testing.T) {
	t.Run("figures by hand", func(t *testing.T) {
		got, err := examples.ReadBest(t.Context(), strings.NewReader("click_probability,x,clicked\n0.5,a,1\n0.5,b,0\n0.25,\"c\n\",0\n0.8,d,1\n"))
		if err != nil {
			t.Fatal(err)
		}
		// Of the four pairs of a clicked and another event one is a tie.
		want := examples.Best{Events: 4, Clicks: 2, Average: math.Ln2, LogLoss: -(2*math.Log(0.5) + math.Log(0.75) + math.Log(0.8)) / 4, AUC: 3.5 / 4}
		if got.Events != want.Events || got.Clicks != want.Clicks || got.AUC != want.AUC ||
			math.Abs(got.Average-want.Average) > 1e-15 || math.Abs(got.LogLoss-want.LogLoss) > 1e-15 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("no events and events of one kind have no AUC", func(t *testing.T) {
		for _, text := range []string{"clicked,click_probability\n", "clicked,click_probability\n1,0.5\n"} {
			got, err := examples.ReadBest(t.Context(), strings.NewReader(text))
			if err != nil || !math.IsNaN(got.AUC) || got.Average != 0 {
				t.Errorf("%q: got %+v, %v", text, got, err)
			}
		}
	})
	for name, c := range map[string][2]string{
		"no header":                {"", "header"},
		"no probability":           {"clicked,q\n", "clicked and click_probability"},
		"a row too short":          {"clicked,click_probability\n1,0.5\n1\n", "line 3"},
		"an open quote":            {"clicked,click_probability\n1,\"0.5\n", "line"},
		"a p that is no number":    {"clicked,click_probability\n1,0.5\n1,often\n", "line 3"},
		"a p that is certain":      {"clicked,click_probability\n1,1\n", "line 2"},
		"a p of NaN":               {"clicked,click_probability\n1,NaN\n", "line 2"},
		"a label that is no label": {"clicked,click_probability\n2,0.5\n", "line 2"},
	} {
		t.Run(name+" is refused with the place", func(t *testing.T) {
			_, err := examples.ReadBest(t.Context(), strings.NewReader(c[0]))
			if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), c[1]) {
				t.Errorf("%q: got %v, want ps.ErrCorrupt with %q", c[0], err, c[1])
			}
		})
	}
}
