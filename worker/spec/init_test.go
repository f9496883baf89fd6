package spec_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/freshet-ml/freshet/worker/spec"
)

// TestInit holds what Init writes for the files in testdata/init to its exact text.
// A case is
//
//	init file=shop.csv label=clicked time=ts user=uid item=sku
//	the CSV, if there is no file
//	----
//	the spec, or the mistakes
//
// where + in a value stands for a space.
func TestInit(t *testing.T) {
	datadriven.RunTest(t, "testdata/init.txt", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd != "init" {
			d.Fatalf(t, "unknown command %q", d.Cmd)
		}
		o := spec.Options{Name: "events.csv"}
		for _, arg := range d.CmdArgs {
			value := strings.ReplaceAll(strings.Join(arg.Vals, ","), "+", " ")
			switch arg.Key {
			case "file":
				o.Name = value
			case "label":
				o.Label = value
			case "time":
				o.Time = value
			case "user":
				o.User = value
			case "item":
				o.Item = value
			case "model":
				o.Model = value
			case "source":
				o.Source = value
			default:
				d.Fatalf(t, "unknown argument %q", arg.Key)
			}
		}
		sample := []byte(d.Input + "\n")
		if d.HasArg("file") {
			var err error
			if sample, err = os.ReadFile(filepath.Join("testdata/init", o.Name)); err != nil {
				d.Fatalf(t, "%v", err)
			}
		}
		doc, err := spec.Init(sample, o)
		if err != nil {
			checkErrors(t, err)
			return err.Error() + "\n"
		}
		return string(doc)
	})
}

func readSample(t testing.TB, name string) []byte {
	t.Helper()
	sample, err := os.ReadFile(filepath.Join("testdata/init", name))
	if err != nil {
		t.Fatal(err)
	}
	return sample
}

func TestInitTakesASampleThatEndsAnywhere(t *testing.T) {
	sample := readSample(t, "feed.csv") // its rows go on over line ends
	o := spec.Options{Name: "feed.csv", Label: "opened", Time: "When seen", User: "reader id", Item: "post"}
	made := 0
	for end := 0; end < len(sample); end += 211 {
		doc, err := spec.Init(sample[:end], o)
		if err != nil {
			checkErrors(t, err)
			if made > 0 {
				t.Fatalf("%d bytes give a spec, but %d do not: %v", end-211, end, err)
			}
			continue
		}
		made++
		if bytes.Contains(doc, []byte("could not be read")) {
			t.Fatalf("the row that the sample's end cuts, at %d, counts as unreadable:\n%s", end, doc)
		}
	}
	if made < 150 {
		t.Errorf("%d of %d beginnings of the sample gave a spec", made, len(sample)/211)
	}
}

func TestInitReadsOnBehindAStrayQuote(t *testing.T) {
	var sample strings.Builder
	sample.WriteString("\ufeffx,y\r\n")
	for i := range 9000 {
		fmt.Fprintf(&sample, "word%d,%d\r\n", i%3, i%2)
		if i == 10 {
			sample.WriteString("\"never closed,1\r\n")
		}
	}
	doc, err := spec.Init([]byte(sample.String()), spec.Options{Label: "y"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"made from 9,000 rows of sample", "# 1 more rows could not be read", "x: 3 different in 9,000 rows"} {
		if !bytes.Contains(doc, []byte(want)) {
			t.Errorf("want %q in\n%s", want, doc)
		}
	}
}

func TestInitLooksAtSoManyRows(t *testing.T) {
	sample := "x,y\n" + strings.Repeat("a,1\nb,0\na,0\n", spec.SampleRows)
	doc, err := spec.Init([]byte(sample), spec.Options{Label: "y"})
	if want := "made from 10,000 rows"; err != nil || !bytes.Contains(doc, []byte(want)) {
		t.Errorf("want %q; got %v\n%s", want, err, doc)
	}
}

func TestInitKeepsTextsOfTheSampleToItself(t *testing.T) {
	doc, err := spec.Init(readSample(t, "shop.csv"), spec.Options{Name: "shop.csv", Label: "clicked", Time: "ts", User: "uid", Item: "sku"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"@example", "u003", "sku-", "search", "wool", "green", "EUR"} {
		if bytes.Contains(doc, []byte(text)) {
			t.Errorf("%q of the sample is in the spec", text)
		}
	}
}

func TestInitFindsTheUnitOfTimes(t *testing.T) {
	const minute, day = "2006-01-02 15:04", "2006-01-02" // what is left of a time that is read again
	cases := []struct {
		unit, kept string
		text       func(time.Time) string
	}{
		{spec.Seconds, time.DateTime, func(t time.Time) string { return fmt.Sprint(t.Unix()) }},
		{spec.Seconds, time.DateTime, func(t time.Time) string { return fmt.Sprintf("%d.25", t.Unix()) }},
		{spec.Milliseconds, time.DateTime, func(t time.Time) string { return fmt.Sprint(t.UnixMilli()) }},
		{spec.Microseconds, time.DateTime, func(t time.Time) string { return fmt.Sprint(t.UnixMicro()) }},
		{spec.RFC3339, time.DateTime, func(t time.Time) string { return t.Format(time.RFC3339) }},
		{spec.RFC3339, time.DateTime, func(t time.Time) string {
			return t.In(time.FixedZone("", 19800)).Format(time.RFC3339Nano)
		}},
	}
	for layout, kept := range map[string]string{
		time.DateTime: time.DateTime, "2006-01-02T15:04:05": time.DateTime, minute: minute, "2006-01-02T15:04": minute,
		"2006-01-02 15:04:05Z07:00": time.DateTime, "2006-01-02 15:04:05 -0700": time.DateTime, "2006-01-02 15:04:05 UTC": time.DateTime,
		day: day, "2006/1/2 15:04:05": time.DateTime, "2006/1/2 15:04": minute, "2006/1/2": day,
		"2/1/2006 15:04:05": time.DateTime, "1/2/2006 15:04:05": time.DateTime, "2/1/2006 15:04": minute, "1/2/2006 15:04": minute,
		"2/1/2006": day, "1/2/2006": day, "2.1.2006 15:04:05": time.DateTime, "2.1.2006 15:04": minute, "2.1.2006": day,
		"02/Jan/2006:15:04:05 -0700": time.DateTime, "Mon, 02 Jan 2006 15:04:05 GMT": time.DateTime, time.RFC1123Z: time.DateTime, time.ANSIC: time.DateTime,
		"20060102150405": time.DateTime, "200601021504": minute, "2006010215": "2006-01-02 15", "20060102": day, "06010215": "2006-01-02 15",
	} {
		cases = append(cases, struct {
			unit, kept string
			text       func(time.Time) string
		}{layout, kept, func(t time.Time) string { return t.Format(layout) }})
	}
	for _, c := range cases {
		t.Run(c.unit, func(t *testing.T) {
			var sample strings.Builder
			sample.WriteString("t,x,y\n")
			when := time.Date(2014, time.October, 21, 9, 8, 7, 0, time.UTC)
			var times []time.Time
			for i := range 60 {
				times = append(times, when)
				fmt.Fprintf(&sample, "%q,%d,%d\n", c.text(when), i%2, i%3/2)
				when = when.Add(29*time.Hour + 17*time.Minute + 5*time.Second)
			}
			doc, err := spec.Init([]byte(sample.String()), spec.Options{Label: "y", Time: "t"})
			if err != nil {
				t.Fatal(err)
			}
			s, err := spec.Parse("made.yaml", doc)
			if err != nil {
				t.Fatal(err)
			}
			if s.Stream.Time.Unit != c.unit || s.Stream.Sort {
				t.Fatalf("%s is read as %q, sort %v; want %q, false", c.text(when), s.Stream.Time.Unit, s.Stream.Sort, c.unit)
			}
			if hours := len(s.Features) == 3; hours != strings.Contains(c.kept, "15") {
				t.Errorf("features %+v of times in %q", s.Features, c.unit)
			}
			if len(c.unit) < 6 { // no layout
				return
			}
			layout := strings.Replace(c.unit, spec.RFC3339, time.RFC3339, 1)
			for _, when := range times {
				if again, err := time.Parse(layout, c.text(when)); err != nil || again.UTC().Format(c.kept) != when.Format(c.kept) {
					t.Fatalf("%s read again is %v, %v", c.text(when), again, err)
				}
			}
		})
	}
}

func TestInitGuessesAColumnByWhatItHolds(t *testing.T) {
	for name, c := range map[string]struct {
		column string
		text   func(i int, yes bool) string
		want   string
	}{
		"a text that always comes with yes is a leak": {
			"banner", func(i int, yes bool) string { return map[bool]string{true: "big", false: "small"}[yes && i%3 == 0] },
			"# WARNING: banner is left out: one of its values comes in 50 rows, and the label is yes in",
		},
		"among many texts one comes with yes by chance": {
			"banner", func(i int, yes bool) string {
				if yes && i%6 == 0 {
					return "big"
				}
				return fmt.Sprint("b", i%70)
			},
			"\n  - {name: banner, column: banner}\n",
		},
		"a leak by its name": {
			"isClickedThrough", func(i int, _ bool) string { return fmt.Sprint(i % 2) },
			"# WARNING: isClickedThrough is left out: the name sounds like",
		},
		"what was counted before is no leak": {
			"click_count", func(i int, _ bool) string { return fmt.Sprint(i % 2) },
			"\n  - {name: click_count, column: click_count}\n",
		},
		"a row without a value says no more than others": {
			"size", func(i int, _ bool) string { return []string{"s", "", "l"}[i%3] },
			"# size: 2 different in 600 rows, missing in 200.\n  - {name: size, column: size}\n",
		},
		"tokens have weights only if all have": {
			"tags", func(i int, _ bool) string { return []string{"a:1|b", "b|c:2", "c"}[i%3] },
			`- {name: tags, column: tags, split: "|"}`,
		},
		"a weight is a finite decimal number": {
			"tags", func(i int, _ bool) string { return []string{"a:1|b:inf", "b:inf|a:1", "b:inf", "a:1", "c:3"}[i%5] },
			`- {name: tags, column: tags, split: "|"}`,
		},
		"numbers of rows": {
			"n", func(i int, _ bool) string { return fmt.Sprint(100 + i) },
			"# n is left out: it rises from row to row, so it numbers the rows.",
		},
		"many numbers that are names of things": {
			"authorId", func(i int, _ bool) string { return fmt.Sprint(1700000000 + i*i%97) },
			"  - {name: authorId, column: authorId}",
		},
		"ten digits that are no times by their name": {
			"author", func(i int, _ bool) string { return fmt.Sprint(1700000000 + i*i%97) },
			"{name: author, column: author, edges: [",
		},
		"quantities below 0 too": {
			"balance", func(i int, _ bool) string { return fmt.Sprint((i*i*7919)%400009 - 20000) },
			"- {name: balance, column: balance, log: 2}",
		},
		"an address": {
			"ip_address", func(i int, _ bool) string { return fmt.Sprintf("10.0.0.%d", i%80) },
			"  identifiers: [ip_address]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			sample := "x," + c.column + ",y\n"
			for i := range 600 {
				yes := i%4 == 0
				sample += fmt.Sprintf("%d,%s,%d\n", i%2, c.text(i, yes), map[bool]int{true: 1}[yes])
			}
			doc, err := spec.Init([]byte(sample), spec.Options{Label: "y"})
			if err != nil || !strings.Contains(string(doc), c.want) {
				t.Errorf("want %q; got %v\n%s", c.want, err, doc)
			}
		})
	}
}

// FuzzInit: no sample panics, an error is an Errors, and what is made can be parsed.
func FuzzInit(f *testing.F) {
	for _, name := range []string{"shop.csv", "feed.csv", "ratings.csv"} {
		sample := readSample(f, name)
		lines := bytes.SplitAfterN(sample, []byte("\n"), 12)
		f.Add(bytes.Join(lines[:11], nil), "ts", "clicked", "uid", "sku", "m")
		f.Add(bytes.Join(lines[:11], nil), "When seen", "opened", "reader id", "post", "a b.csv")
		f.Add(bytes.Join(lines[:11], nil), "seen", "score", "", "film", "")
	}
	f.Add([]byte("\"a\nb\",\"#\",' ,\u0085,\u2028,true\n1,2,3,4,5,6\n7,8,9,a,b,c\n"), "", "true", "\u0085", "", "x\ny")
	f.Fuzz(func(t *testing.T, sample []byte, when, label, user, item, name string) {
		if len(sample) > 1<<14 {
			return // larger samples find nothing but time
		}
		doc, err := spec.Init(sample, spec.Options{Name: name, Time: when, Label: label, User: user, Item: item})
		if err != nil {
			checkErrors(t, err)
			return
		}
		s, err := spec.Parse("made.yaml", doc)
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if s.Label.Column != label || s.Stream.Time.Column != when || s.Stream.PartitionBy != user {
			t.Fatalf("label %q, time %q, user %q; want %q, %q, %q\n%s", s.Label.Column, s.Stream.Time.Column, s.Stream.PartitionBy, label, when, user, doc)
		}
	})
}
