package spec_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // tests do not depend on the machine's time zone database

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Beginnings of specs, so that a case shows its mistake only.
var beginnings = map[string]string{
	"":     "",
	"base": "model: m\nlabel: {column: y}\nfeatures: [{name: a, column: a}]\n",
	"features": "model: m\nstream: {time: {column: t}}\nlabel: {column: y}\nfeatures:\n" +
		"- {name: a, column: a}\n- {name: b, column: b}\n",
}

// TestMistakes holds every message to its exact text. A case is
//
//	parse after=base
//	the rest of a spec
//	----
//	the mistakes, or ok
func TestMistakes(t *testing.T) {
	datadriven.Walk(t, "testdata/parse", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd != "parse" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			var after string
			d.MaybeScanArgs(t, "after", &after)
			s, err := spec.Parse("m.yaml", []byte(beginnings[after]+d.Input+"\n"))
			if err == nil {
				if err := s.Valid(); err != nil {
					d.Fatalf(t, "parsed, but invalid: %v", err)
				}
				return "ok\n"
			}
			checkErrors(t, err)
			return err.Error() + "\n"
		})
	})
}

// checkErrors holds an error of Parse to what its doc says.
func checkErrors(t *testing.T, err error) {
	t.Helper()
	var all spec.Errors
	var one *spec.Error
	switch {
	case !errors.Is(err, ps.ErrInvalid):
		t.Errorf("%v does not wrap ps.ErrInvalid", err)
	case !errors.As(err, &all) || len(all) == 0:
		t.Errorf("%v (%T) is no Errors", err, err)
	case !errors.As(err, &one) || one != all[0]:
		t.Errorf("the first *Error of %v is %v", err, one)
	}
	for i, e := range all {
		if e.Problem == "" || e.Advice == "" {
			t.Errorf("%v lacks problem or advice", e)
		}
		if i > 0 && e.Line != 0 && e.Line < all[i-1].Line {
			t.Errorf("line %d after line %d", e.Line, all[i-1].Line)
		}
	}
}

func TestExampleIsReadInFull(t *testing.T) {
	got, err := spec.Parse("example.yaml", spec.Example())
	if err != nil {
		t.Fatalf("example:\n%v", err)
	}
	want := &spec.Spec{
		Model: "shop",
		Seed:  1,
		Stream: spec.Stream{
			Source: "file:///data/events.csv", Format: spec.CSV,
			Time: spec.Time{Column: "ts", Unit: spec.Milliseconds}, Sort: true,
			Partitions: 8, PartitionBy: "uid", Passes: 1, Identifiers: []string{"uid"},
		},
		Label: spec.Label{Column: "clicked"},
		Loss:  spec.Log,
		Features: []spec.Feature{
			{Name: "user", Column: "uid"},
			{Name: "item", Column: "sku"},
			{Name: "tab", Column: "tab"},
			{Name: "tags", Kind: spec.Tokens, Column: "tags", Split: "|"},
			{Name: "colours", Kind: spec.Tokens, Column: "colours", Split: " ", WeightAfter: ":"},
			{Name: "price", Kind: spec.Buckets, Column: "price", Log: 2},
			{Name: "age", Kind: spec.Buckets, Column: "age", Edges: []float64{18, 25, 35}},
			{Name: "hour", Kind: spec.Clock, Clock: spec.Hour, Zone: "Europe/London"},
			{Name: "duration", Kind: spec.Buckets, Column: "duration", Log: 1.5, CrossOnly: true},
			{Name: "user_x_tab", Kind: spec.Cross, Of: []string{"user", "tab"}},
			{Name: "user_x_duration", Kind: spec.Cross, Of: []string{"user", "duration"}},
		},
		Network: spec.Network{
			Kind: spec.FM, Constant: true,
			Optimizer:       ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L2: 0.1},
			Factors:         16,
			FactorOptimizer: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 1},
			FactorInit:      0.01,
		},
		Evaluation: spec.Evaluation{Holdout: 0.01, Window: 50_000},
		Training:   spec.Training{InFlight: 512},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("example (-want +got):\n%s", diff)
	}
}

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	parse := func(t *testing.T, doc string) *spec.Spec {
		t.Helper()
		s, err := spec.Parse("m.yaml", []byte(doc))
		if err != nil {
			t.Fatalf("%s\n%v", doc, err)
		}
		return s
	}
	ftrl := ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L2: 0.1}
	t.Run("a csv model needs name, label and a feature", func(t *testing.T) {
		got := parse(t, beginnings["base"])
		want := &spec.Spec{
			Model:      "m",
			Stream:     spec.Stream{Format: spec.CSV, Partitions: 8, Passes: 1},
			Label:      spec.Label{Column: "y"},
			Loss:       spec.Log,
			Features:   []spec.Feature{{Name: "a", Column: "a"}},
			Network:    spec.Network{Kind: spec.Logistic, Constant: true, Optimizer: ftrl},
			Evaluation: spec.Evaluation{Window: 50_000},
			Training:   spec.Training{InFlight: 512},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("a vw model needs no label, a time no unit, a clock no zone", func(t *testing.T) {
		s := parse(t, "model: m\nstream: {format: vw, time: {column: t}}\nfeatures: [{name: h, clock: hour}]\n")
		if s.Label.Column != "" || s.Stream.Time.Unit != spec.Milliseconds || s.Features[0].Zone != "UTC" {
			t.Errorf("got label %+v, time %+v, feature %+v; want none, ms, UTC", s.Label, s.Stream.Time, s.Features[0])
		}
	})
	t.Run("an optimizer has the defaults of its name", func(t *testing.T) {
		for given, want := range map[string]ps.Optimizer{
			"{}":                       ftrl,
			"{l1: 2}":                  {Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L1: 2, L2: 0.1},
			"{beta: 0, l2: 0}":         {Name: ps.FTRL, LearningRate: 0.1},
			"{name: sgd}":              {Name: ps.SGD, LearningRate: 0.01},
			"{l2: 0.5, name: adagrad}": {Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 1, L2: 0.5},
		} {
			if got := parse(t, beginnings["base"]+"network: {optimizer: "+given+"}\n").Network.Optimizer; got != want {
				t.Errorf("%s: got %+v, want %+v", given, got, want)
			}
		}
	})
	t.Run("a factorization machine has the defaults of the example", func(t *testing.T) {
		complete := parse(t, string(spec.Example()))
		if got := parse(t, beginnings["base"]+"network: {kind: fm}\n").Network; !cmp.Equal(got, complete.Network) {
			t.Errorf("got %+v, want %+v", got, complete.Network)
		}
	})
}

func TestFilesThatAreNoText(t *testing.T) {
	for name, c := range map[string]struct{ doc, want string }{
		"a byte that is not UTF-8": {
			"model: m\nloss: caf\xe9\n",
			"m.yaml:2:10: the byte 0xe9 is not UTF-8: save the file as UTF-8",
		},
		"UTF-16": {
			"\xff\xfem\x00",
			"m.yaml:1:1: the byte 0xff is not UTF-8: save the file as UTF-8",
		},
		"a control character, columns counted in characters": {
			"model: m\n# é\x00\n",
			`m.yaml:2:4: the control character U+0000: remove it, or write it as an escape inside double quotes, such as "\x01"`,
		},
		"too large": {
			strings.Repeat(" ", spec.SizeMax+1),
			"m.yaml: 1048577 bytes: a spec has at most 1048576",
		},
		"a thousand levels of brackets": {
			strings.Repeat("[", 20_000),
			"m.yaml:1: not YAML: exceeded max depth of 10000; look at the indentation, brackets and quotes here and on the line before",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := spec.Parse("m.yaml", []byte(c.doc))
			if err == nil || err.Error() != c.want {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			checkErrors(t, err)
		})
	}
	t.Run("as large as can be is read", func(t *testing.T) {
		doc := beginnings["base"] + "#"
		doc += strings.Repeat("x", spec.SizeMax-len(doc))
		if _, err := spec.Parse("m.yaml", []byte(doc)); err != nil {
			t.Fatalf("%d bytes: %v", len(doc), err)
		}
	})
}

func TestEndlessMistakesAreCounted(t *testing.T) {
	doc := beginnings["base"]
	for i := range 1000 {
		doc += strings.Repeat("k", 1+i) + ": 1\n"
	}
	_, err := spec.Parse("m.yaml", []byte(doc))
	var all spec.Errors
	if !errors.As(err, &all) || len(all) != spec.ErrorsMax+1 {
		t.Fatalf("got %d errors, want %d", len(all), spec.ErrorsMax+1)
	}
	if got, want := all[spec.ErrorsMax].Error(), "m.yaml: 900 more mistakes: mend these first"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	checkErrors(t, err)
}

func TestASpecMadeInCodeIsCheckedWithoutLines(t *testing.T) {
	s, err := spec.Parse("example.yaml", spec.Example())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Valid(); err != nil {
		t.Fatalf("example: %v", err)
	}
	s.Features[5].Log = 1
	s.Features[9].Of[1] = "tub"
	s.Features[0].Kind = 77
	s.Network.Kind = spec.Logistic
	s.Network.Optimizer.InitialAccumulator = 1
	got := s.Valid()
	want := strings.Join([]string{
		"features[0]: unknown kind 77: use one of the kinds of this package",
		"features[5].log: the base 1: want a number above 1, such as 2: each bucket is so many times as wide as the one before",
		`features[9].cross[1]: unknown feature "tub": did you mean "tab"?`,
		"network.optimizer.initial_accumulator: ftrl has no such setting: its settings are learning_rate, beta, l1, l2",
		"network.factors: a logistic network has no factors: remove them, or write kind: fm",
	}, "\n")
	if got == nil || got.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", got, want)
	}
}

func TestColumnsAreDistinctAndInTheOrderOfFeatures(t *testing.T) {
	for doc, want := range map[string][]string{
		string(spec.Example()): {"uid", "sku", "tab", "tags", "colours", "price", "age", "duration", "clicked"},
		"model: m\nlabel: {column: y}\nstream: {time: {column: t}}\nfeatures: [{name: b, column: b}, {name: a, column: t}, {name: c, column: b, split: ' '}]": {"b", "t", "y"},
		"model: m\nstream: {format: vw}\nfeatures: [{name: a, column: default, split: ' '}]":                                                                  {"default"},
	} {
		s, err := spec.Parse("m.yaml", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.Columns()); diff != "" {
			t.Errorf("%s\n(-want +got):\n%s", doc, diff)
		}
	}
}

func TestLayoutHasTheNetworksTablesFirst(t *testing.T) {
	s, err := spec.Parse("example.yaml", spec.Example())
	if err != nil {
		t.Fatal(err)
	}
	names := func(s *spec.Spec) (names []string) {
		layout := s.Layout(eval.Tables())
		if err := layout.Validate(); err != nil {
			t.Errorf("%+v: %v", layout, err)
		}
		for _, table := range layout.Tables {
			names = append(names, table.Name)
		}
		return names
	}
	s.Training.AuditTable = true
	if diff := cmp.Diff([]string{"linear", "factors", "figures", "histogram", "audit"}, names(s)); diff != "" || s.NetworkTables() != 2 {
		t.Errorf("fm: %d tables of the network, want 2 (-want +got):\n%s", s.NetworkTables(), diff)
	}
	got := s.Layout(nil)
	want := ps.Layout{Seed: 1, Tables: []ps.Table{
		{
			Name: "linear", Width: 1, Optimizer: s.Network.Optimizer,
			Initializer: ps.Initializer{Name: ps.Zero},
		},
		{
			Name: "factors", Width: 16, Optimizer: s.Network.FactorOptimizer,
			Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.01},
		},
		{
			Name: "audit", Kind: ps.Uint64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Audit},
			Initializer: ps.Initializer{Name: ps.Zero},
		},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.Training.AuditTable, s.Network.Kind = false, spec.Logistic
	if diff := cmp.Diff([]string{"linear", "figures", "histogram"}, names(s)); diff != "" || s.NetworkTables() != 1 {
		t.Errorf("logistic: %d tables of the network, want 1 (-want +got):\n%s", s.NetworkTables(), diff)
	}
}

// FuzzParse: no input panics, an error is an Errors, and what parses is valid, lays
// out, and is the same when it is read again.
func FuzzParse(f *testing.F) {
	f.Add(spec.Example())
	for _, doc := range beginnings {
		f.Add([]byte(doc))
	}
	f.Add([]byte("a: &a [*a]\n---\n? {}\n: .nan\n"))
	f.Add([]byte(beginnings["base"] + "network: {kind: fm, factors: 1e9, optimizer: {name: sum, beta: .inf}}\nseed: -1\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		kept := bytes.Clone(doc)
		s, err := spec.Parse("fuzz.yaml", doc)
		if !bytes.Equal(doc, kept) {
			t.Fatalf("%q was changed to %q", kept, doc)
		}
		if err != nil {
			checkErrors(t, err)
			return
		}
		if err := s.Valid(); err != nil {
			t.Fatalf("%q parsed, but: %v", doc, err)
		}
		if err := s.Layout(eval.Tables()).Validate(); err != nil {
			t.Fatalf("%q parsed, but: %v", doc, err)
		}
		if len(s.Columns()) > len(s.Features)+1 {
			t.Fatalf("%q has %d features and the columns %q", doc, len(s.Features), s.Columns())
		}
		again, err := spec.Parse("fuzz.yaml", doc)
		if diff := cmp.Diff(s, again); diff != "" || err != nil {
			t.Fatalf("%q read again: %v\n%s", doc, err, diff)
		}
	})
}

func TestHostileFilesAreRefusedInTime(t *testing.T) {
	fill := func(head, part string) []byte {
		return []byte(head + strings.Repeat(part, (spec.SizeMax-len(head)-200)/len(part)))
	}
	crosses := beginnings["features"]
	for i := range spec.FeaturesMax - 4 {
		crosses += "- {name: f" + strings.Repeat("x", i%40) + string(rune('0'+i%10)) + ", column: c}\n"
	}
	for name, doc := range map[string][]byte{
		"unknown keys":        fill("", "modl: 1\n"),
		"features":            fill(beginnings["features"], "- {}\n"),
		"brackets":            fill("features: ", "[{"),
		"a list":              fill("features: [", "1,"),
		"crosses of everyone": fill(crosses+"- {name: last, cross: [", "a,b,nobody,"),
		"a long key":          fill("", "k"),
		"a long text":         fill("model: ", "m"),
		"identifiers":         fill("stream: {identifiers: [", "a,"),
		"comments":            fill("", "#\n"),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := spec.Parse("hostile.yaml", doc)
			if err == nil {
				t.Fatal("accepted")
			}
			checkErrors(t, err)
			// A tenth of this is usual; quadratic work would take minutes.
			if took := time.Since(start); took > 10*time.Second || len(err.Error()) > 100<<10 {
				t.Errorf("took %v, and the message has %d bytes", took, len(err.Error()))
			}
		})
	}
}

// TestReferenceIsComplete holds SPEC.md to the code: it has the example as it is,
// and every key that is known.
func TestReferenceIsComplete(t *testing.T) {
	reference, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(reference, spec.Example()) {
		t.Error("SPEC.md does not contain example.yaml as it is")
	}
	sections := []string{
		"qqqqqqqq: 1", "stream: {qqqqqqqq: 1}", "stream: {time: {qqqqqqqq: 1}}", "label: {qqqqqqqq: 1}",
		"features: [{split: x, qqqqqqqq: 1}, {clock: x, qqqqqqqq: 1}]",
		"network: {kind: fm, qqqqqqqq: 1, optimizer: {qqqqqqqq: 1}, factor_optimizer: {qqqqqqqq: 1}}",
		"evaluation: {qqqqqqqq: 1}", "training: {qqqqqqqq: 1}",
	}
	keys := 0
	for _, section := range sections {
		_, err := spec.Parse("m.yaml", []byte(section))
		var all spec.Errors
		if !errors.As(err, &all) {
			t.Fatalf("%s: %v", section, err)
		}
		for _, e := range all {
			known, ok := strings.CutPrefix(e.Advice, "known here: ")
			if !ok {
				continue
			}
			for key := range strings.SplitSeq(known, ", ") {
				keys++
				if !bytes.Contains(reference, []byte("`"+key+"`")) {
					t.Errorf("SPEC.md does not explain `%s`, known after %q", key, section)
				}
			}
		}
	}
	if keys < 50 {
		t.Errorf("only %d keys were listed", keys)
	}
}
