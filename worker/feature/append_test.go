package feature_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// shop is a spec with every kind of feature.
func shop() *spec.Spec {
	s := specOf(
		spec.Feature{Name: "user", Column: "user"},
		spec.Feature{Name: "item", Column: "item"},
		spec.Feature{Name: "tags", Kind: spec.Tokens, Column: "tags", Split: " ", WeightAfter: ":"},
		spec.Feature{Name: "price", Kind: spec.Buckets, Column: "price", Log: 2},
		spec.Feature{Name: "age", Kind: spec.Buckets, Column: "age", Edges: []float64{18, 25, 35}, CrossOnly: true},
		spec.Feature{Name: "hour", Kind: spec.Clock, Clock: spec.Hour, Zone: "UTC"},
		spec.Feature{Name: "user_x_tags", Kind: spec.Cross, Of: []string{"user", "tags"}},
		spec.Feature{Name: "item_x_age", Kind: spec.Cross, Of: []string{"item", "age"}},
	)
	s.Network.Constant = true
	return s
}

func shopRow(rng *rand.Rand) map[string]string {
	row := map[string]string{
		"user":    fmt.Sprint(rng.IntN(100)),
		"item":    fmt.Sprint(rng.IntN(100)),
		"price":   fmt.Sprint(rng.Float64() * 100),
		"age":     fmt.Sprint(rng.IntN(80)),
		"clicked": fmt.Sprint(rng.IntN(2)),
	}
	for range rng.IntN(4) {
		row["tags"] += fmt.Sprintf("t%d:%v ", rng.IntN(10), rng.Float32())
	}
	if rng.IntN(10) == 0 {
		row["price"] = "cheap"
	}
	return row
}

// extractAll extracts events in batches of size, and returns what each batch
// has of each event.
func extractAll(t *testing.T, s *spec.Spec, events []*worker.Event, size int) (got []string) {
	t.Helper()
	x := newExtractor(t, s)
	var b worker.Batch
	for len(events) > 0 {
		n := min(size, len(events))
		b.Reset(events[0].Partition, events[0].Offset, events[0].Pass)
		for _, e := range events[:n] {
			err := x.Append(&b, e)
			if (err != nil) != (b.Roles[len(b.Roles)-1] == worker.Skip) {
				t.Fatalf("offset %d: role %d and error %v", e.Offset, b.Roles[len(b.Roles)-1], err)
			}
		}
		checkBatch(t, &b)
		for i := range n {
			from, to := b.Starts[i], b.Starts[i+1]
			got = append(got, fmt.Sprint(b.From+ps.Offset(i), b.Roles[i], b.Labels[i], b.Weights[i], b.Keys[from:to], b.Values[from:to]))
		}
		events = events[n:]
	}
	return got
}

func checkBatch(t *testing.T, b *worker.Batch) {
	t.Helper()
	n := b.Range.Len()
	if len(b.Roles) != n || len(b.Labels) != n || len(b.Weights) != n || len(b.Starts) != n+1 ||
		len(b.Keys) != int(b.Starts[n]) || len(b.Values) != len(b.Keys) {
		t.Fatalf("batch of %v has %d roles, %d labels, %d weights, %d starts, %d keys, %d values",
			b.Range, len(b.Roles), len(b.Labels), len(b.Weights), len(b.Starts), len(b.Keys), len(b.Values))
	}
}

func TestAppendIsDeterministic(t *testing.T) {
	const seed = 17
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := shop()
	s.Evaluation.Holdout = 0.2
	var events []*worker.Event
	for i := range 300 {
		events = append(events, eventOf(s, ps.Offset(i), shopRow(rng)))
	}
	want := extractAll(t, s, events, 300)
	for _, size := range []int{1, 7, 100} {
		if diff := cmp.Diff(want, extractAll(t, s, events, size)); diff != "" {
			t.Errorf("batches of 300 and of %d (-300 +%d):\n%s", size, size, diff)
		}
	}
	for i, e := range events { // read again in a second pass
		e.Pass, e.Offset = 1, ps.Offset(300+i)
	}
	for i, second := range extractAll(t, s, events, 50) {
		_, first, _ := strings.Cut(want[i], " ")
		if _, second, _ = strings.Cut(second, " "); first != second {
			t.Fatalf("row %d: first pass %s\nsecond pass %s", i, first, second)
		}
	}
}

func TestHoldout(t *testing.T) {
	held := func(s *spec.Spec, p ps.Partition) (rows []bool) {
		x := newExtractor(t, s)
		var b worker.Batch
		b.Reset(p, 0, 0)
		for o := range ps.Offset(20000) {
			e := eventOf(s, o, nil)
			e.Partition = p
			if err := x.Append(&b, e); err != nil {
				t.Fatal(err)
			}
			rows = append(rows, b.Roles[o] == worker.Hold)
		}
		return rows
	}
	count := func(rows []bool) (n int) {
		for _, h := range rows {
			if h {
				n++
			}
		}
		return n
	}
	for _, share := range []float64{0, 0.01, 0.3} {
		t.Run(fmt.Sprintf("a share of %v is held out", share), func(t *testing.T) {
			s := specOf(spec.Feature{Name: "f", Column: "c"})
			s.Evaluation.Holdout = share
			got, want := float64(count(held(s, 0))), share*20000
			if math.Abs(got-want) > 5*math.Sqrt(want) {
				t.Errorf("%v of 20000 held out, want about %v", got, want)
			}
		})
	}
	t.Run("which ones depends on seed and partition", func(t *testing.T) {
		s := specOf(spec.Feature{Name: "f", Column: "c"})
		s.Evaluation.Holdout = 0.5
		a, other := held(s, 0), *s
		other.Seed++
		for name, b := range map[string][]bool{"partition": held(s, 1), "seed": held(&other, 0)} {
			same := 0
			for i := range a {
				if a[i] == b[i] {
					same++
				}
			}
			if same < 9500 || same > 10500 {
				t.Errorf("another %s: %d of 20000 alike, want about half", name, same)
			}
		}
	})
}

func TestLabels(t *testing.T) {
	for _, c := range []struct {
		loss, text string
		want       float32
		ok         bool
	}{
		{spec.Log, "1", 1, true},
		{spec.Log, "1.0", 1, true},
		{spec.Log, "+1", 1, true},
		{spec.Log, "0", 0, true},
		{spec.Log, "-1", 0, true},
		{spec.Log, "-0", 0, true},
		{spec.Log, "2", 0, false},
		{spec.Log, "0.5", 0, false},
		{spec.Log, "yes", 0, false},
		{spec.Log, " 1", 0, false},
		{spec.Log, "", 0, false},
		{spec.Squared, "3.5", 3.5, true},
		{spec.Squared, "-1", -1, true},
		{spec.Squared, "1e39", 0, false}, // no float32
		{spec.Squared, "inf", 0, false},
		{spec.Squared, "NaN", 0, false},
		{spec.Squared, "", 0, false},
	} {
		t.Run(fmt.Sprintf("%q under %s", c.text, c.loss), func(t *testing.T) {
			s := specOf(spec.Feature{Name: "f", Column: "c"})
			s.Loss = c.loss
			got, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"clicked": c.text}))
			if (err == nil) != c.ok || err != nil && !errors.Is(err, worker.ErrUnreadable) || got.Label != c.want {
				t.Errorf("label %v, %v, want %v, readable %v", got.Label, err, c.want, c.ok)
			}
		})
	}
}

func TestVowpalWabbit(t *testing.T) {
	s := specOf(spec.Feature{Name: "f", Column: "c"})
	s.Stream.Format, s.Label.Column = spec.VW, ""
	if diff := cmp.Diff([]string{"c", "label", "importance"}, feature.Columns(s)); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	x := newExtractor(t, s)
	for _, c := range []struct {
		label, importance string
		want              feature.Example
		ok                bool
	}{
		{"1", "2.5", feature.Example{Label: 1, Weight: 2.5}, true},
		{"-1", "", feature.Example{Label: 0, Weight: 1}, true},
		{"-1", "0", feature.Example{Label: 0, Weight: 0}, true},
		{"1", "-1", feature.Example{Role: worker.Skip}, false},
		{"1", "nan", feature.Example{Role: worker.Skip}, false},
		{"", "1", feature.Example{Role: worker.Skip}, false},
	} {
		t.Run(fmt.Sprintf("label %q with importance %q", c.label, c.importance), func(t *testing.T) {
			got, err := x.Describe(eventOf(s, 0, map[string]string{"label": c.label, "importance": c.importance}))
			got.Features = nil
			if (err == nil) != c.ok {
				t.Errorf("err = %v, want readable %v", err, c.ok)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	const secret = "secret"
	for _, c := range []struct {
		name, column, text string
		want               string
	}{
		{"a number that is none", "price", secret, `column "price": not a finite decimal number`},
		{"a number that is not a number", "price", "NaN", `column "price": not a finite decimal number`},
		{"an infinite number", "price", "-Inf", `column "price": not a finite decimal number`},
		{"a number that is too large", "price", "1e309", `column "price": not a finite decimal number`},
		{"a hexadecimal number", "price", "0x1p4", `column "price": not a finite decimal number`},
		{"a number with spaces", "age", " 3", `column "age": not a finite decimal number`},
		{"a number with underscores", "age", "1_000", `column "age": not a finite decimal number`},
		{"a weight that is none", "tags", "red:" + secret, `column "tags": a token's weight is not a finite decimal number`},
		{"an empty weight", "tags", "red:", `column "tags": a token's weight is not a finite decimal number`},
		{"an infinite weight", "tags", "red:inf", `column "tags": a token's weight is not a finite decimal number`},
		{"a weight that is not a number", "tags", "blue red:nan", `column "tags": a token's weight is not a finite decimal number`},
		{"a weight beyond float32", "tags", "red:1e39", `column "tags": a token's weight is not a finite decimal number`},
		{"a weight without a name", "tags", ":3", `column "tags": a token has a weight and no name`},
		{"a label that is none", "clicked", secret, `column "clicked": not a finite decimal number`},
		{"a label that is neither", "clicked", "7", `column "clicked": the label is not 1, 0 or -1`},
		{"no label", "clicked", "", `column "clicked": no label`},
	} {
		t.Run(c.name+" skips the event", func(t *testing.T) {
			s := shop()
			x := newExtractor(t, s)
			good := map[string]string{"price": "3", "age": "20", "tags": "a:2 b"}
			bad := map[string]string{"price": "3", "age": "20", "tags": "a:2 b"}
			bad[c.column] = c.text
			var b worker.Batch
			b.Reset(0, 5, 0)
			if err := x.Append(&b, eventOf(s, 5, good)); err != nil {
				t.Fatal(err)
			}
			err := x.Append(&b, eventOf(s, 6, bad))
			want := "partition 0, offset 6, line 8: " + c.want + ": unreadable row"
			if !errors.Is(err, worker.ErrUnreadable) || err.Error() != want {
				t.Fatalf("err = %v\nwant  %s", err, want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has text of the row: %v", err)
			}
			if err := x.Append(&b, eventOf(s, 7, good)); err != nil {
				t.Fatal(err)
			}
			checkBatch(t, &b)
			if diff := cmp.Diff([]worker.Role{worker.Train, worker.Skip, worker.Train}, b.Roles); diff != "" {
				t.Errorf("roles (-want +got):\n%s", diff)
			}
			if b.Starts[2] != b.Starts[1] {
				t.Errorf("the skipped event has %d features", b.Starts[2]-b.Starts[1])
			}
			if diff := cmp.Diff(b.Keys[:b.Starts[1]], b.Keys[b.Starts[2]:]); diff != "" {
				t.Errorf("the same event before and after (-before +after):\n%s", diff)
			}
		})
	}
	t.Run("an event that the reader gave up on is skipped with the reader's error", func(t *testing.T) {
		x := newExtractor(t, shop())
		var b worker.Batch
		b.Reset(0, 0, 0)
		e := &worker.Event{Time: 99, Err: fmt.Errorf("events.csv:2: %w", worker.ErrUnreadable)}
		if err := x.Append(&b, e); !errors.Is(err, e.Err) || b.Range.Len() != 1 || b.Roles[0] != worker.Skip || b.EventTime != 0 {
			t.Errorf("err = %v, %v, roles %v, event time %d", err, b.Range, b.Roles, b.EventTime)
		}
	})
	t.Run("a product that is not finite skips the event", func(t *testing.T) {
		s := specOf(
			spec.Feature{Name: "a", Kind: spec.Tokens, Column: "a", Split: " ", WeightAfter: ":"},
			spec.Feature{Name: "b", Kind: spec.Tokens, Column: "b", Split: " ", WeightAfter: ":"},
			spec.Feature{Name: "x", Kind: spec.Cross, Of: []string{"a", "b"}},
		)
		_, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"a": "t:1e30", "b": "t:1e30"}))
		if !errors.Is(err, worker.ErrUnreadable) || !strings.Contains(err.Error(), `cross "x"`) {
			t.Errorf("err = %v, want %v of cross x", err, worker.ErrUnreadable)
		}
	})
}

func TestAppendKeepsTheLatestTime(t *testing.T) {
	s := shop()
	x := newExtractor(t, s)
	var b worker.Batch
	b.Reset(0, 0, 0)
	for o, at := range []int64{5, 9, 7} {
		e := eventOf(s, ps.Offset(o), nil)
		e.Time = at
		if err := x.Append(&b, e); err != nil {
			t.Fatal(err)
		}
	}
	if b.EventTime != 9 {
		t.Errorf("event time %d, want 9", b.EventTime)
	}
}

func TestAppendRefusesAGap(t *testing.T) {
	s := shop()
	for name, change := range map[string]func(*worker.Event){
		"a later offset":       func(e *worker.Event) { e.Offset++ },
		"an earlier offset":    func(e *worker.Event) { e.Offset-- },
		"of another partition": func(e *worker.Event) { e.Partition++ },
		"of another pass":      func(e *worker.Event) { e.Pass++ },
	} {
		t.Run(name, func(t *testing.T) {
			var b worker.Batch
			b.Reset(0, 10, 0)
			e := eventOf(s, 10, nil)
			change(e)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_ = newExtractor(t, s).Append(&b, e)
		})
	}
}

func TestUnlabelled(t *testing.T) {
	s := shop()
	s.Evaluation.Holdout = 0.9
	columns := []string{"item", "user", "tags", "price", "age"}
	x, err := feature.NewUnlabelled(s, columns)
	if err != nil {
		t.Fatal(err)
	}
	var b worker.Batch
	b.Reset(0, 0, 0)
	for range 20 { // their places do not matter
		if err := x.Append(&b, &worker.Event{Offset: 77, Time: 1_700_000_000_000, Columns: [][]byte{[]byte("i"), []byte("u"), nil, nil, nil}}); err != nil {
			t.Fatal(err)
		}
	}
	checkBatch(t, &b)
	for i, role := range b.Roles {
		if role != worker.Train || b.Weights[i] != 1 {
			t.Fatalf("event %d has role %d and weight %v", i, role, b.Weights[i])
		}
	}
	labelled, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"item": "i", "user": "u"}))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range labelled.Features {
		if b.Keys[i] != f.Key {
			t.Errorf("feature %d: key %x to predict, %x to learn", i, uint64(b.Keys[i]), uint64(f.Key))
		}
	}
}

func TestNewRefusals(t *testing.T) {
	s := shop()
	all := feature.Columns(s)
	for i, missing := range all {
		t.Run("without column "+missing, func(t *testing.T) {
			columns := append(append([]string(nil), all[:i]...), all[i+1:]...)
			_, err := feature.New(s, columns)
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q", missing)) {
				t.Errorf("err = %v, want %v of %q", err, ps.ErrInvalid, missing)
			}
		})
	}
	t.Run("with a spec that is not valid", func(t *testing.T) {
		s := shop()
		s.Features[6].Of = []string{"user", "nobody"}
		if _, err := feature.New(s, all); err == nil {
			t.Error("no error")
		}
	})
}

func TestAllocations(t *testing.T) {
	s := shop()
	x := newExtractor(t, s)
	e := eventOf(s, 0, map[string]string{"user": "u", "item": "i", "tags": "a:2 b c:0.25", "price": "12.5", "age": "30"})
	var b worker.Batch
	if n := testing.AllocsPerRun(100, func() {
		b.Reset(0, 0, 0)
		if err := x.Append(&b, e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per event, want 0", n)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("u"), []byte("a:1 b"), []byte("3.5"), []byte("40"), []byte("1"))
	f.Add([]byte(""), []byte(": ::1 a:"), []byte("-0x1"), []byte("1_0"), []byte("-1"))
	s := shop()
	x, err := feature.New(s, []string{"user", "item", "tags", "price", "age", "clicked"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, user, tags, price, age, clicked []byte) {
		var b worker.Batch
		b.Reset(0, 0, 0)
		err := x.Append(&b, &worker.Event{Columns: [][]byte{user, user, tags, price, age, clicked}})
		checkBatch(t, &b)
		if err != nil && (!errors.Is(err, worker.ErrUnreadable) || b.Roles[0] != worker.Skip || len(b.Keys) != 0) {
			t.Fatalf("err = %v, role %d, %d keys", err, b.Roles[0], len(b.Keys))
		}
		for i, v := range b.Values {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("value %d is %v", i, v)
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	var features []spec.Feature
	for i := range 8 {
		features = append(features, spec.Feature{Name: fmt.Sprintf("text%d", i), Column: fmt.Sprintf("text%d", i)})
	}
	for i := range 3 {
		features = append(features,
			spec.Feature{Name: fmt.Sprintf("log%d", i), Kind: spec.Buckets, Column: fmt.Sprintf("number%d", i), Log: 2},
			spec.Feature{Name: fmt.Sprintf("edges%d", i), Kind: spec.Buckets, Column: fmt.Sprintf("number%d", i), Edges: []float64{1, 10, 100}},
		)
	}
	features = append(features, spec.Feature{Name: "hour", Kind: spec.Clock, Clock: spec.Hour, Zone: "Europe/London"})
	for i := range 4 {
		features = append(features, spec.Feature{Name: fmt.Sprintf("cross%d", i), Kind: spec.Cross, Of: []string{"text0", features[i+1].Name}})
	}
	s := specOf(features...)
	s.Network.Constant = true
	row := make(map[string]string)
	for _, c := range feature.Columns(s) {
		row[c] = "12.34"
	}
	row["clicked"] = "1"
	x, e := newExtractor(b, s), eventOf(s, 0, row)
	var batch worker.Batch
	b.Run("features=20", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			batch.Reset(0, 0, 0)
			if err := x.Append(&batch, e); err != nil || len(batch.Keys) != 20 {
				b.Fatal(err, len(batch.Keys))
			}
		}
	})
}

func TestARowThatCrashesTheExtractorIsUnusableAndNothingElse(t *testing.T) {
	s := shop()
	x := newExtractor(t, s)
	var b worker.Batch
	b.Reset(0, 0, 0)
	// A stream that breaks its promise and leaves columns out.
	err := x.Append(&b, &worker.Event{Columns: [][]byte{[]byte("secret")}})
	if !errors.Is(err, worker.ErrUnreadable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want ErrUnreadable without the row's text", err)
	}
	if b.Len() != 1 || b.Roles[0] != worker.Skip || len(b.Keys) != 0 {
		t.Errorf("the batch is %+v, want one skipped event", b)
	}
}
