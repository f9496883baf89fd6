package files_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

func place(o ps.Offset, partitions ...ps.Partition) []stream.Start {
	var all []stream.Start
	for _, p := range partitions {
		all = append(all, stream.Start{Partition: p, Offset: o})
	}
	return all
}

func TestOpenRefuses(t *testing.T) {
	good := func() files.Config { return csv(write(t, "a.csv", "user_id,item,time\n1,2,3\n"), "user_id") }
	for _, test := range []struct {
		name   string
		change func(*files.Config)
		err    error
		want   string // in the message
	}{
		{"a relative path", func(c *files.Config) { c.URL = "file://a.csv" }, ps.ErrInvalid, "want file:///absolute/path"},
		{"a plain path", func(c *files.Config) { c.URL = "/a.csv" }, ps.ErrInvalid, "want file:///absolute/path"},
		{"another scheme", func(c *files.Config) { c.URL = "s3://bucket/a.csv" }, ps.ErrInvalid, "want file:///absolute/path"},
		{"no URL", func(c *files.Config) { c.URL = "file:///%zz" }, ps.ErrInvalid, "is no URL"},
		{"a file that does not exist", func(c *files.Config) { c.URL += "x" }, os.ErrNotExist, "a.csvx"},
		{"a directory", func(c *files.Config) { c.URL = c.URL[:strings.LastIndex(c.URL, "/")] }, ps.ErrInvalid, "no regular file"},
		{"an unknown format", func(c *files.Config) { c.Stream.Format = "tsv" }, ps.ErrInvalid, `format "tsv": want csv or vw`},
		{"a negative number of partitions", func(c *files.Config) { c.Stream.Partitions = -1 }, ps.ErrInvalid, "-1 partitions"},
		{"a sort without a time", func(c *files.Config) { c.Stream.Sort = true }, ps.ErrInvalid, "no column holds their time"},
		{"a time without a unit", func(c *files.Config) { c.Stream.Time.Column = "time" }, ps.ErrInvalid, "no unit"},
		{"identifiers without a secret", func(c *files.Config) { c.Stream.Identifiers = []string{"user_id"} }, ps.ErrInvalid, "the secret is empty"},
		{"a time that is an identifier", func(c *files.Config) {
			c.Stream.Time, c.Stream.Identifiers = spec.Time{Column: "time", Unit: "s"}, []string{"time"}
		}, ps.ErrInvalid, "both the event time and an identifier"},
		{"a label that is an identifier", func(c *files.Config) {
			*c = vw(write(t, "a.dat", "1 |f a\n"), "label")
			c.Stream.Identifiers = []string{"label"}
		}, ps.ErrInvalid, "cannot be an identifier"},
		{"an empty file", func(c *files.Config) { c.URL = write(t, "b.csv", "") }, ps.ErrInvalid, "b.csv is empty"},
		{"an empty compressed file", func(c *files.Config) { c.URL = write(t, "b.csv.zst", "") }, ps.ErrInvalid, "b.csv.zst is empty"},
		{"a file of blank lines", func(c *files.Config) { c.URL = write(t, "b.csv", "\n\r\n") }, ps.ErrInvalid, "b.csv is empty"},
		{"a bad header", func(c *files.Config) { c.URL = write(t, "b.csv", "a,b\"c\n1,2\n") }, ps.ErrInvalid, "b.csv:1: the line of column names: a quote stands inside"},
		{"an endless header", func(c *files.Config) { c.URL = write(t, "b.csv", strings.Repeat("a,", mebibyte)) }, ps.ErrInvalid, "b.csv:1: the line of column names: the row has more than"},
		{"a misspelt column", func(c *files.Config) { c.Columns = []string{"User_ids"} }, ps.ErrInvalid, `a.csv has no column "User_ids": did you mean "user_id": it has user_id, item, time:`},
		{"a column that is not there", func(c *files.Config) { c.Columns = []string{"item", "price"} }, ps.ErrInvalid, `a.csv has no column "price": it has user_id, item, time:`},
		{"a time that is not there", func(c *files.Config) { c.Stream.Time = spec.Time{Column: "times", Unit: "s"} }, ps.ErrInvalid, `no column "times": did you mean "time"`},
		{"a partition column that is not there", func(c *files.Config) { c.Stream.PartitionBy = "session" }, ps.ErrInvalid, `no column "session"`},
		{"an identifier that is not there", func(c *files.Config) {
			c.Stream.Identifiers, c.Secret = []string{"user"}, []byte("s")
		}, ps.ErrInvalid, `no column "user"`},
		{"a name that two columns have", func(c *files.Config) { c.URL = write(t, "b.csv", "user_id,user_id\n1,2\n") }, ps.ErrInvalid, `two columns "user_id"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := good()
			test.change(&config)
			s, err := files.Open(t.Context(), config)
			if s != nil || !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %v and %q in it", err, test.err, test.want)
			}
		})
	}
	t.Run("what has no header, without showing its rows", func(t *testing.T) {
		config := csv(write(t, "a.csv", "anna.smith,42\nbert.jones,43\n"), "user", "item")
		_, err := files.Open(t.Context(), config)
		if !errors.Is(err, ps.ErrInvalid) || strings.Contains(err.Error(), "anna") || !strings.Contains(err.Error(), "does it begin with a line of column names") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("when its context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := files.Open(ctx, good()); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestOpenReportsProgress(t *testing.T) {
	text := impressions(150_000, "")
	config := clickLog(write(t, "a.csv", text))
	var got []int64
	config.Progress = func(done, total int64) {
		if total != int64(len(text)) {
			t.Errorf("got total %d, want %d", total, len(text))
		}
		got = append(got, done)
	}
	open(t, config)
	if len(got) < 2 || !slices.IsSorted(got) || got[len(got)-1] != int64(len(text)) {
		t.Fatalf("got %v, want steps to %d", got, len(text))
	}
}

func TestSameSecret(t *testing.T) {
	identity := func(text, secret string, identifiers ...string) ps.StreamID {
		c := csv(write(t, "a.csv", text), "item")
		c.Stream.Identifiers, c.Secret = identifiers, []byte(secret)
		return open(t, c).Identity()
	}
	masked := identity("user,item\n1,2\n", "one", "user")
	plain := identity("user,item\n1,2\n", "one")
	for name, test := range map[string]struct {
		other ps.StreamID
		want  bool
	}{
		"other contents under the same secret are": {identity("user,item\n3,4\n", "one", "user"), true},
		"the same contents under another are not":  {identity("user,item\n1,2\n", "two", "user"), false},
		"contents without identifiers are not":     {plain, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := files.SameSecret(masked, test.other); got != test.want {
				t.Errorf("%s and %s: got %v, want %v", masked, test.other, got, test.want)
			}
		})
	}
	if other := identity("user,item\n3,4\n", "two"); !files.SameSecret(plain, other) {
		t.Errorf("%s and %s mask nothing, and are said to have other secrets", plain, other)
	}
}

func TestIdentity(t *testing.T) {
	base := func() files.Config {
		c := csv(write(t, "a.csv", "user,item,time\n1,2,3\n4,5,6\n"), "item")
		c.Stream.Time = spec.Time{Column: "time", Unit: spec.Seconds}
		c.Stream.Partitions, c.Secret = 2, []byte(secret)
		return c
	}
	id := func(change func(*files.Config)) ps.StreamID {
		c := base()
		change(&c)
		return open(t, c).Identity()
	}
	first := id(func(*files.Config) {})
	if got := fmt.Sprint(first); !strings.HasPrefix(got, "file:") || len(got) != len("file:")+32 {
		t.Fatalf("got %q, want file: and 32 digits", got)
	}
	seen := map[ps.StreamID]string{first: "the first"}
	for name, change := range map[string]func(*files.Config){
		"passes":         func(c *files.Config) { c.Stream.Passes = 3 },
		"columns":        func(c *files.Config) { c.Columns = []string{"user"} },
		"the file name":  func(c *files.Config) { c.URL = write(t, "other.csv", "user,item,time\n1,2,3\n4,5,6\n") },
		"buffers":        func(c *files.Config) { c.Buffer, c.MarkBytes = 1, 1 },
		"an idle secret": func(c *files.Config) { c.Secret = []byte("another") },
	} {
		t.Run(name+" makes no difference", func(t *testing.T) {
			if got := id(change); got != first {
				t.Fatalf("got %s, want %s", got, first)
			}
		})
	}
	mask := func(c *files.Config) { c.Stream.Identifiers = []string{"user"} }
	for _, test := range []struct {
		name   string
		change func(*files.Config)
	}{
		{"the contents", func(c *files.Config) { c.URL = write(t, "a.csv", "user,item,time\n1,2,3\n4,5,7\n") }},
		{"compression", func(c *files.Config) { c.URL = write(t, "a.csv.zst", "user,item,time\n1,2,3\n4,5,6\n") }},
		{"partitions", func(c *files.Config) { c.Stream.Partitions = 3 }},
		{"the partition column", func(c *files.Config) { c.Stream.PartitionBy = "item" }},
		{"the sort", func(c *files.Config) { c.Stream.Sort = true }},
		{"the time column", func(c *files.Config) { c.Stream.Time.Column = "item" }},
		{"the unit", func(c *files.Config) { c.Stream.Time.Unit = spec.Milliseconds }},
		{"masking", mask},
		{"masking under another secret", func(c *files.Config) { mask(c); c.Secret = []byte("another") }},
		{"masking the partition column", func(c *files.Config) { mask(c); c.Stream.PartitionBy = "user" }},
	} {
		t.Run(test.name+" makes a difference", func(t *testing.T) {
			got := id(test.change)
			if other, ok := seen[got]; ok {
				t.Fatalf("got the same identity as %s", other)
			}
			seen[got] = test.name
		})
	}
}

func TestMasking(t *testing.T) {
	const raw = "anna.smith@example.com"
	csvText := "user,item,time\n" + raw + ",1,5\n,2,5\n\"" + raw + "\",3,5\n" + raw + ",4,soon\n" + raw + ",5,5,6\n" + raw + "\"x,6,5\n"
	for _, partitions := range []int{1, 3} {
		for _, by := range []string{"", "user", "item"} {
			for _, sort := range []bool{false, true} {
				config := csv(write(t, "a.csv", csvText), "user", "item", "user")
				config.Stream.Time = spec.Time{Column: "time", Unit: spec.Seconds}
				config.Stream.Partitions, config.Stream.PartitionBy, config.Stream.Sort = partitions, by, sort
				config.Stream.Identifiers, config.Secret = []string{"user"}, []byte(secret)
				events := readAll(t, open(t, config))
				if len(events) != 6 {
					t.Fatalf("got %d events, want 6", len(events))
				}
				for _, e := range events {
					if text := fmt.Sprintf("%+v", e); strings.Contains(text, "anna") {
						t.Fatalf("the event shows what is to be masked: %s", text)
					}
					want := map[int64]string{2: masked(raw), 3: "", 4: masked(raw)}
					switch mask, ok := want[e.Line]; {
					case !ok && (e.Err == "" || e.Columns != nil):
						t.Fatalf("line %d: got columns %q and error %q, want an error only", e.Line, e.Columns, e.Err)
					case ok && !slices.Equal(e.Columns, []string{mask, fmt.Sprint(e.Line - 1), mask}):
						t.Fatalf("line %d: got %q %s, want %q twice", e.Line, e.Columns, e.Err, mask)
					}
				}
			}
		}
	}
	t.Run("a namespace is masked as one text", func(t *testing.T) {
		config := vw(write(t, "a.dat", "1 |user anna b:2 |f x\n1 |f y\n1 |user |f z\n"), "user", "f")
		config.Stream.Identifiers, config.Secret = []string{"user"}, []byte(secret)
		got := describe(readAll(t, open(t, config)))
		if want := []string{"1 [" + masked("anna b:2") + "][x]", "2 [<nil>][y]", "3 [][z]"}; !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

func TestNextAllocatesNothing(t *testing.T) {
	text := impressions(30_000, `"`)
	text = strings.ReplaceAll(text, `",2022`, `""x",2022`) // doubled quotes
	vowpal := strings.ReplaceAll(lines(6000), "|item", "|user x |item")
	for _, test := range []struct {
		name   string
		config files.Config
		unit   string
	}{
		{"csv", clickLog(write(t, "a.csv", text)), spec.Milliseconds},
		{"csv, compressed", clickLog(write(t, "a.csv.zst", text)), spec.Milliseconds},
		{"vw", vw(write(t, "a.dat", vowpal), "label", "importance", "user", "item", "words"), ""},
	} {
		for _, sort := range []bool{false, true} {
			if sort && test.unit == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s, sort %v", test.name, sort), func(t *testing.T) {
				c := test.config
				c.Stream.Sort, c.Stream.Partitions, c.Stream.Passes = sort, 4, 100
				c.Stream.PartitionBy, c.Stream.Identifiers, c.Secret = c.Columns[len(c.Columns)-1], c.Columns[:2], []byte(secret)
				if test.unit == "" {
					c.Stream.Identifiers = []string{"user"}
				}
				s := open(t, c)
				r, err := s.Read(t.Context(), starts(s))
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				var e worker.Event
				ctx := t.Context()
				next := func() {
					if err := r.Next(ctx, &e); err != nil || e.Err != nil {
						t.Fatal(err, e.Err)
					}
				}
				next()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if n := testing.AllocsPerRun(5000, next); n != 0 {
					t.Fatalf("%v allocations per event, want 0", n)
				}
				// Nor does a buffer grow slowly; a new pass may have new ones.
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 20_000 {
					t.Fatalf("%d bytes allocated in 5000 events, want a few", n)
				}
			})
		}
	}
}
