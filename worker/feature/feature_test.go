package feature_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // tests do not depend on the machine's time zone database

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// specOf returns a valid spec of a CSV stream with a label and an event time.
func specOf(features ...spec.Feature) *spec.Spec {
	return &spec.Spec{
		Model: "m",
		Seed:  1,
		Stream: spec.Stream{
			Format: spec.CSV, Time: spec.Time{Column: "ts", Unit: spec.Milliseconds}, Partitions: 1, Passes: 1,
		},
		Label:      spec.Label{Column: "clicked"},
		Loss:       spec.Log,
		Features:   features,
		Network:    spec.Network{Kind: spec.Logistic, Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 0.1}},
		Evaluation: spec.Evaluation{Window: 1000},
		Training:   spec.Training{InFlight: 64},
	}
}

func newExtractor(t testing.TB, s *spec.Spec) *feature.Extractor {
	t.Helper()
	x, err := feature.New(s, feature.Columns(s))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// eventOf returns the event at an offset of partition 0. A column that is not in
// row is not in the event.
func eventOf(s *spec.Spec, offset ps.Offset, row map[string]string) *worker.Event {
	e := &worker.Event{Offset: offset, Row: offset, Line: int64(offset) + 2, Time: 1_700_000_000_000}
	for _, name := range feature.Columns(s) {
		text, ok := row[name]
		if !ok && name == s.Label.Column {
			text, ok = "1", true
		}
		if ok {
			e.Columns = append(e.Columns, []byte(text))
		} else {
			e.Columns = append(e.Columns, nil)
		}
	}
	return e
}

// value is what one feature is expected to be.
type value struct {
	Text string
	X    float32
}

func TestKinds(t *testing.T) {
	tags := spec.Feature{Name: "f", Kind: spec.Tokens, Column: "c", Split: "|"}
	weighted := spec.Feature{Name: "f", Kind: spec.Tokens, Column: "c", Split: " ", WeightAfter: ":"}
	log2 := spec.Feature{Name: "f", Kind: spec.Buckets, Column: "c", Log: 2}
	edges := spec.Feature{Name: "f", Kind: spec.Buckets, Column: "c", Edges: []float64{18, 25, 35}}
	for _, c := range []struct {
		name    string
		feature spec.Feature
		text    string
		want    []value
	}{
		{"text is taken as it is", spec.Feature{Name: "f", Column: "c"}, " A b", []value{{" A b", 1}}},
		{"empty text is missing", spec.Feature{Name: "f", Column: "c"}, "", []value{{"", 1}}},

		{"tokens are split", tags, "red|wool", []value{{"red", 1}, {"wool", 1}}},
		{"one token needs no separator", tags, "red", []value{{"red", 1}}},
		{"empty tokens are none", tags, "||red||wool|", []value{{"red", 1}, {"wool", 1}}},
		{"a token that stands twice counts twice", tags, "red|red", []value{{"red", 1}, {"red", 1}}},
		{"no tokens are a missing value", tags, "", []value{{"", 1}}},
		{"only separators are a missing value", tags, "|||", []value{{"", 1}}},
		{"a separator may be longer", spec.Feature{Name: "f", Kind: spec.Tokens, Column: "c", Split: ", "}, "a, b,c", []value{{"a", 1}, {"b,c", 1}}},
		{"tokens have weights", weighted, "red:0.8 wool:-2e1", []value{{"red", 0.8}, {"wool", -20}}},
		{"the weight of a token is 1 unless it says so", weighted, "red wool:3", []value{{"red", 1}, {"wool", 3}}},
		{"the last separator precedes the weight", weighted, "a:b:2", []value{{"a:b", 2}}},
		{"a weight may be 0", weighted, "red:0", []value{{"red", 0}}},

		{"log buckets begin at 0", log2, "0", []value{{"0", 1}}},
		{"log buckets are as wide as their base says", log2, "0.99", []value{{"0", 1}}},
		{"a log bucket includes its lower bound", log2, "1", []value{{"1", 1}}},
		{"a log bucket ends below the next", log2, "2.999", []value{{"1", 1}}},
		{"log buckets go on", log2, "1023", []value{{"10", 1}}},
		{"log buckets have the number's sign", log2, "-3.5", []value{{"-2", 1}}},
		{"small negative numbers share the bucket of small positive ones", log2, "-0.5", []value{{"0", 1}}},
		{"negative zero is zero", log2, "-0", []value{{"0", 1}}},
		{"the largest number has a bucket", log2, "1.7976931348623157e308", []value{{"1023", 1}}},
		{"a power of ten is exact", spec.Feature{Name: "f", Kind: spec.Buckets, Column: "c", Log: 10}, "999", []value{{"3", 1}}},
		{"just below a power of ten is below", spec.Feature{Name: "f", Kind: spec.Buckets, Column: "c", Log: 10}, "998.9999999", []value{{"2", 1}}},
		{"an empty number is missing", log2, "", []value{{"", 1}}},

		{"below the first edge is bucket 0", edges, "17.9", []value{{"0", 1}}},
		{"an edge belongs to the bucket above", edges, "18", []value{{"1", 1}}},
		{"between edges", edges, "3e1", []value{{"2", 1}}},
		{"above the last edge", edges, "1e300", []value{{"3", 1}}},
		{"an empty number is missing among edges", edges, "", []value{{"", 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := specOf(c.feature)
			example, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"c": c.text}))
			if err != nil {
				t.Fatal(err)
			}
			var got []value
			for _, f := range example.Features {
				got = append(got, value{f.Value, f.X})
				if want := feature.Key("f", []byte(f.Value)); f.Key != want || f.Feature != "f" {
					t.Errorf("feature %q, value %q: key %x, want f and %x", f.Feature, f.Value, uint64(f.Key), uint64(want))
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", c.text, diff)
			}
		})
	}
	t.Run("a column that the row does not have is missing", func(t *testing.T) {
		s := specOf(spec.Feature{Name: "f", Column: "c"}, log2named("g"), spec.Feature{Name: "h", Kind: spec.Tokens, Column: "c", Split: " "})
		example, err := newExtractor(t, s).Describe(eventOf(s, 0, nil))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range example.Features {
			if f.Value != "" || f.X != 1 || f.Key != feature.Key(f.Feature, nil) {
				t.Errorf("%+v: want the missing value", f)
			}
		}
		if len(example.Features) != 3 {
			t.Errorf("%d features, want 3", len(example.Features))
		}
	})
}

func log2named(name string) spec.Feature {
	return spec.Feature{Name: name, Kind: spec.Buckets, Column: "c", Log: 2}
}

func TestLogBucketsAreWhatTheySay(t *testing.T) {
	for _, base := range []float64{1.01, 1.5, 2, 10} {
		t.Run(fmt.Sprintf("to base %v", base), func(t *testing.T) {
			s := specOf(spec.Feature{Name: "f", Kind: spec.Buckets, Column: "c", Log: base})
			x := newExtractor(t, s)
			rapid.Check(t, func(t *rapid.T) {
				v := rapid.OneOf(
					rapid.Float64Range(0, 1e15),
					// At a bound and just beside it.
					rapid.Custom(func(t *rapid.T) float64 {
						bound := math.Pow(base, float64(rapid.IntRange(0, 40).Draw(t, "n"))) - 1
						return max(0, rapid.SampledFrom([]float64{bound, math.Nextafter(bound, 0), math.Nextafter(bound, math.Inf(1))}).Draw(t, "bound"))
					}),
				).Draw(t, "v")
				bucket := func(text string) int {
					example, err := x.Describe(eventOf(s, 0, map[string]string{"c": text}))
					if err != nil {
						t.Fatal(err)
					}
					n, err := strconv.Atoi(example.Features[0].Value)
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				text := strconv.FormatFloat(v, 'g', -1, 64)
				n := bucket(text)
				if math.Pow(base, float64(n)) > 1+v || math.Pow(base, float64(n+1)) <= 1+v {
					t.Fatalf("%v is in bucket %d, from %v to %v", v, n, math.Pow(base, float64(n))-1, math.Pow(base, float64(n+1))-1)
				}
				if negative := bucket("-" + text); negative != -n {
					t.Fatalf("-%v is in bucket %d, want %d", v, negative, -n)
				}
			})
		})
	}
}

func TestClock(t *testing.T) {
	// A Wednesday; London is in summer time.
	summer := time.Date(2024, 7, 3, 23, 30, 0, 0, time.UTC).UnixMilli()
	for _, c := range []struct {
		clock, zone string
		time        int64
		want        string
	}{
		{spec.Hour, "UTC", summer, "23"},
		{spec.Hour, "Europe/London", summer, "0"},
		{spec.Weekday, "UTC", summer, "3"},
		{spec.Weekday, "Europe/London", summer, "4"},
		{spec.HourOfWeek, "UTC", summer, "95"},
		{spec.HourOfWeek, "Europe/London", summer, "96"},
		{spec.Weekday, "UTC", time.Date(2024, 7, 7, 12, 0, 0, 0, time.UTC).UnixMilli(), "0"}, // Sunday
		{spec.Hour, "UTC", -1, "23"},                                                         // before 1970
		{spec.Hour, "UTC", 0, ""},
	} {
		t.Run(fmt.Sprintf("%s in %s of %d is %q", c.clock, c.zone, c.time, c.want), func(t *testing.T) {
			s := specOf(spec.Feature{Name: "f", Kind: spec.Clock, Clock: c.clock, Zone: c.zone})
			e := eventOf(s, 0, nil)
			e.Time = c.time
			example, err := newExtractor(t, s).Describe(e)
			if err != nil {
				t.Fatal(err)
			}
			if got := example.Features[0].Value; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestCross(t *testing.T) {
	tags := spec.Feature{Name: "tags", Kind: spec.Tokens, Column: "tags", Split: " ", WeightAfter: ":"}
	user := spec.Feature{Name: "user", Column: "user", CrossOnly: true}
	cross := func(name string, of ...string) spec.Feature {
		return spec.Feature{Name: name, Kind: spec.Cross, Of: of}
	}
	t.Run("has every combination, with the product of the values", func(t *testing.T) {
		more := spec.Feature{Name: "more", Kind: spec.Tokens, Column: "more", Split: " ", WeightAfter: ":"}
		s := specOf(user, tags, more, cross("x", "tags", "user", "more"))
		example, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"user": "u", "tags": "a:2 b", "more": "c:3 d:-1"}))
		if err != nil {
			t.Fatal(err)
		}
		k := func(tag, more string) ps.Key {
			return feature.CrossKey("x", feature.Key("tags", []byte(tag)), feature.Key("user", []byte("u")), feature.Key("more", []byte(more)))
		}
		want := []feature.Named{
			{Feature: "tags", Value: "a", Key: feature.Key("tags", []byte("a")), X: 2},
			{Feature: "tags", Value: "b", Key: feature.Key("tags", []byte("b")), X: 1},
			{Feature: "more", Value: "c", Key: feature.Key("more", []byte("c")), X: 3},
			{Feature: "more", Value: "d", Key: feature.Key("more", []byte("d")), X: -1},
			{Feature: "x", Value: "a × u × c", Key: k("a", "c"), X: 6},
			{Feature: "x", Value: "a × u × d", Key: k("a", "d"), X: -2},
			{Feature: "x", Value: "b × u × c", Key: k("b", "c"), X: 3},
			{Feature: "x", Value: "b × u × d", Key: k("b", "d"), X: -1},
		}
		if diff := cmp.Diff(want, example.Features); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("has an order", func(t *testing.T) {
		a, b := feature.Key("user", []byte("1")), feature.Key("tags", []byte("1"))
		if feature.CrossKey("x", a, b) == feature.CrossKey("x", b, a) {
			t.Error("the key of (a, b) is that of (b, a)")
		}
	})
	t.Run("is of the missing value where one is missing", func(t *testing.T) {
		s := specOf(user, tags, cross("x", "tags", "user"))
		example, err := newExtractor(t, s).Describe(eventOf(s, 0, map[string]string{"tags": "a"}))
		if err != nil {
			t.Fatal(err)
		}
		want := feature.CrossKey("x", feature.Key("tags", []byte("a")), feature.Key("user", nil))
		if got := example.Features[1].Key; got != want {
			t.Errorf("key %x, want %x", uint64(got), uint64(want))
		}
	})
	t.Run("may have as many combinations as there may be, and not one more", func(t *testing.T) {
		other := tags
		other.Name, other.Column = "more", "more"
		s := specOf(tags, other, cross("x", "tags", "more"))
		tokens := func(n int) string {
			var text strings.Builder
			for i := range n {
				fmt.Fprintf(&text, "t%d ", i)
			}
			return text.String()
		}
		x := newExtractor(t, s)
		example, err := x.Describe(eventOf(s, 0, map[string]string{"tags": tokens(64), "more": tokens(64)}))
		if want := 128 + feature.CombinationsMax; err != nil || len(example.Features) != want {
			t.Errorf("%d features, %v, want %d and no error", len(example.Features), err, want)
		}
		_, err = x.Describe(eventOf(s, 0, map[string]string{"tags": tokens(64), "more": tokens(65)}))
		if !errors.Is(err, worker.ErrUnreadable) {
			t.Errorf("err = %v, want %v", err, worker.ErrUnreadable)
		}
	})
}

func TestUnreadableNamesTheFile(t *testing.T) {
	s := specOf(spec.Feature{Name: "price", Kind: spec.Buckets, Column: "price", Log: 2})
	e := eventOf(s, 7, map[string]string{"price": "cheap"})
	e.File, e.Line = "a.csv", 9
	_, err := newExtractor(t, s).Describe(e)
	unreadable, ok := errors.AsType[*worker.Unreadable](err)
	if !ok || unreadable.File != "a.csv" || unreadable.Line != 9 || !strings.Contains(unreadable.Reason, `"price"`) || strings.Contains(err.Error(), "cheap") {
		t.Errorf("err = %v, want a.csv:9 and the column, and no text of the row", err)
	}
}

func TestConstant(t *testing.T) {
	s := specOf(spec.Feature{Name: "constant", Column: "c"})
	s.Network.Constant = true
	example, err := newExtractor(t, s).Describe(eventOf(s, 0, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []feature.Named{
		{Feature: "constant", Key: feature.Key("constant", nil), X: 1},
		{Feature: "constant", Key: feature.ConstantKey(), X: 1},
	}
	if diff := cmp.Diff(want, example.Features); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if want[0].Key == want[1].Key {
		t.Error("the constant is the missing value of a feature of that name")
	}
}

func TestSharedColumnsAreExtractedAsOthers(t *testing.T) {
	s, err := spec.Parse("test.yaml", []byte(`
model: test
stream: {format: csv, time: {column: ts}}
label: {column: y}
features:
  - {name: a, column: a}
  - {name: b, column: b, split: " ", cross_only: true}
  - {name: c, column: c, split: " ", fields: 3}
  - {name: d, column: d, log: 2}
  - {name: hour, clock: hour}
  - {name: a_x_b, cross: [a, b]}
  - {name: b_x_d, cross: [b, d]}
  - {name: a_x_hour, cross: [a, hour]}
network: {kind: mlp}
`))
	if err != nil {
		t.Fatal(err)
	}
	const seed = 21
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	columns := []string{"a", "b", "c", "d"}
	texts := [][]string{{"x", "y", ""}, {"1 2", "3", ""}, {"p q r", "p  r", "q", "p q r s", ""}, {"7", "-8", "no number", ""}}
	reused, err := feature.NewUnlabelled(s, columns)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 300 {
		fresh, err := feature.NewUnlabelled(s, columns)
		if err != nil {
			t.Fatal(err)
		}
		shared, clock := make([]bool, len(columns)), rng.IntN(2) == 0
		for i := range shared {
			shared[i] = rng.IntN(2) == 0
		}
		reused.Share(shared, clock)
		var want, got worker.Batch
		want.Reset(0, 0, 0)
		got.Reset(0, 0, 0)
		event := worker.Event{Columns: make([][]byte, len(columns))}
		for n := range 5 {
			for i, of := range texts {
				if n == 0 || !shared[i] {
					event.Columns[i] = []byte(of[rng.IntN(len(of))])
				}
			}
			if n == 0 || !clock {
				event.Time = rng.Int64N(1e12)
			}
			if err1, err2 := fresh.Append(&want, &event), reused.Append(&got, &event); fmt.Sprint(err1) != fmt.Sprint(err2) {
				t.Fatalf("round %d, event %d: %v, without sharing %v", round, n, err2, err1)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d, shared %v, clock %v (-alone +shared):\n%s", round, shared, clock, diff)
		}
	}
	reused.Share(nil, false)
	var b worker.Batch
	b.Reset(0, 0, 0)
	for _, text := range []string{"x", "y"} {
		if err := reused.Append(&b, &worker.Event{Columns: [][]byte{[]byte(text), nil, nil, nil}}); err != nil {
			t.Fatal(err)
		}
	}
	if b.Keys[0] == b.Keys[b.Starts[1]] {
		t.Error("two texts have one key after sharing has ended")
	}
}

func TestSpansSayWhatAnExampleConsistsOf(t *testing.T) {
	s := specOf(
		spec.Feature{Name: "a", Column: "a"},
		spec.Feature{Name: "b", Kind: spec.Tokens, Column: "b", Split: " ", CrossOnly: true},
		spec.Feature{Name: "c", Kind: spec.Tokens, Column: "c", Split: " "},
		spec.Feature{Name: "b_x_c", Kind: spec.Cross, Of: []string{"b", "c"}},
	)
	s.Network.Constant = true
	x, err := feature.NewUnlabelled(s, []string{"a", "b", "c"})
	if err != nil {
		t.Fatal(err)
	}
	var b worker.Batch
	b.Reset(0, 0, 0)
	if err := x.Append(&b, &worker.Event{Columns: [][]byte{nil, []byte("1 2"), []byte("x y z")}}); err != nil {
		t.Fatal(err)
	}
	want := []feature.Span{{Feature: "a", Values: 1}, {Feature: "c", Values: 3}, {Feature: "b_x_c", Values: 6}, {Feature: feature.Constant, Values: 1}}
	if diff := cmp.Diff(want, x.AppendSpans(nil)); diff != "" || len(b.Keys) != 11 {
		t.Errorf("spans of %d values (-want +got):\n%s", len(b.Keys), diff)
	}
}
