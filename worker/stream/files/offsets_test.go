package files_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// line is one line of a generated file and what ought to become of it.
type line struct {
	text string // as in the file, without its end
	ok   bool
	key  string // the partition column, masked if it is to be
	time int64
}

const secret = "a secret of the test"

func masked(identifier string) string {
	if identifier == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(identifier))
	return hex.EncodeToString(mac.Sum(nil))[:32]
}

// drawLines draws rows of the columns user, time, note (CSV) or such namespaces
// (VW), some of them unreadable.
func drawLines(t *rapid.T, format string) []line {
	one := rapid.Custom(func(t *rapid.T) line {
		user := rapid.SampledFrom([]string{"", "7", "712", "u\u00e9", "99999999999999999999"}).Draw(t, "user")
		time := rapid.Int64Range(-3, 12).Draw(t, "time")
		note := rapid.StringMatching(`[a-z ]{0,12}`).Draw(t, "note")
		kind := rapid.IntRange(0, 9).Draw(t, "kind")
		if format == spec.VW {
			l := line{fmt.Sprintf("1 |user %s |time %d |note %s", user, time, note), true, user, time}
			switch kind {
			case 0:
				l.text, l.ok = "x"+l.text, false
			case 1:
				l.text, l.ok = fmt.Sprintf("1 |user %s |note %s", user, note), false // no time
			}
			return l
		}
		l := line{fmt.Sprintf("%s,%d,%s", user, time, note), true, user, time}
		switch kind {
		case 0:
			l.text, l.ok = l.text+",", false
		case 1:
			l.text, l.ok = fmt.Sprintf("%s,soon,%s", user, note), false
		case 2:
			l.text, l.ok = fmt.Sprintf("%s,%d,a\"b%s", user, time, note), false
		case 3:
			l.text = fmt.Sprintf("%q,\"%d\",\"%s,\"\"\n%s\"", user, time, note, note)
		}
		return l
	})
	return rapid.SliceOfN(one, 0, 60).Draw(t, "lines")
}

// expect says by the documentation, and without the code under test, which row
// (its line in the file) is which event of a pass: by partition, in order.
func expect(lines []line, first int, c spec.Stream) [][]int {
	type placed struct {
		at        int
		time      int64
		partition uint64
	}
	var rows []placed
	at, before := first, int64(math.MinInt64)
	for _, l := range lines {
		hash := xxhash.Sum64String(l.text)
		if l.ok && c.PartitionBy != "" {
			key := l.key
			if slices.Contains(c.Identifiers, c.PartitionBy) {
				key = masked(key)
			}
			hash = xxhash.Sum64String(key)
		}
		if l.ok {
			before = l.time
		}
		rows = append(rows, placed{at, before, hash % uint64(c.Partitions)})
		at += 1 + strings.Count(l.text, "\n")
	}
	if c.Sort {
		slices.SortStableFunc(rows, func(a, b placed) int {
			switch {
			case a.time < b.time:
				return -1
			case a.time > b.time:
				return 1
			}
			return 0
		})
	}
	all := make([][]int, c.Partitions)
	for _, r := range rows {
		all[r.partition] = append(all[r.partition], r.at)
	}
	return all
}

// drawConfig draws options, a file and what to expect of it.
func drawConfig(t *rapid.T, tb testing.TB) (files.Config, [][]int) {
	format := rapid.SampledFrom([]string{spec.CSV, spec.VW}).Draw(t, "format")
	config := files.Config{
		Stream: spec.Stream{
			Format:     format,
			Time:       spec.Time{Column: "time", Unit: spec.Milliseconds},
			Sort:       rapid.Bool().Draw(t, "sort"),
			Partitions: rapid.IntRange(1, 4).Draw(t, "partitions"),
			Passes:     rapid.IntRange(1, 3).Draw(t, "passes"),
		},
		Columns:   []string{"note", "user"},
		Secret:    []byte(secret),
		Buffer:    rapid.SampledFrom([]int{0, 1, 13, 64}).Draw(t, "buffer"),
		MarkBytes: rapid.SampledFrom([]int64{0, 1, 40, 300}).Draw(t, "mark bytes"),
	}
	if rapid.Bool().Draw(t, "by user") {
		config.Stream.PartitionBy = "user"
	}
	if rapid.Bool().Draw(t, "masked") {
		config.Stream.Identifiers = []string{"user"}
	}
	lines := drawLines(t, format)
	name, text, first := "a.dat", "", 1
	if format == spec.CSV {
		name, text, first = "a.csv", "user,time,note\n", 2
	}
	for _, l := range lines {
		text += l.text + "\n"
	}
	if rapid.Bool().Draw(t, "zstd") {
		name += ".zst"
	}
	config.URL = write(tb, name, text)
	return config, expect(lines, first, config.Stream)
}

func TestOffsets(t *testing.T) {
	t.Run("partitions and offsets are those of the documentation, and reading from any offsets gives the rest of the whole", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			config, want := drawConfig(rt, t)
			s := open(t, config)
			whole := readAll(t, s)

			got := make([][]int, s.Partitions())
			next := make([]ps.Offset, s.Partitions())
			for _, e := range whole {
				length := len(want[e.Partition])
				if e.Offset != next[e.Partition] || int(e.Offset) != int(e.Pass)*length+int(e.Row) || int(e.Row) >= length {
					t.Fatalf("partition %d with %d rows in a pass: event %+v follows offset %d", e.Partition, length, e, next[e.Partition])
				}
				next[e.Partition]++
				got[e.Partition] = append(got[e.Partition], int(e.Line))
			}
			for p := range want {
				if all := slices.Repeat(want[p], config.Stream.Passes); !slices.Equal(got[p], all) {
					t.Fatalf("partition %d: got the rows of lines %v, want %v", p, got[p], all)
				}
			}

			// Other readers, of this source (which knows marks and lengths) and of a
			// new one (which knows nothing), with other buffers.
			config.Buffer = rapid.SampledFrom([]int{0, 1, 29}).Draw(rt, "other buffer")
			for _, s := range []*files.Source{s, open(t, config)} {
				for range 2 {
					from := make(map[ps.Partition]ps.Offset)
					var starts []stream.Start
					for p, length := range next {
						if rapid.Bool().Draw(rt, "wanted") || p == len(next)-1 && starts == nil {
							o := ps.Offset(rapid.Uint64Range(0, uint64(length)).Draw(rt, "from"))
							from[ps.Partition(p)] = o
							starts = append(starts, stream.Start{Partition: ps.Partition(p), Offset: o})
						}
					}
					var rest []event
					for _, e := range whole {
						if o, ok := from[e.Partition]; ok && e.Offset >= o {
							rest = append(rest, e)
						}
					}
					got, r, err := read(t.Context(), t, s, starts...)
					if err != io.EOF {
						t.Fatalf("from %v: %v", starts, err)
					}
					if diff := cmp.Diff(rest, got); diff != "" {
						t.Fatalf("from %v: (-want +got)\n%s", starts, diff)
					}
					for p, length := range next {
						if end, ok := r.End(ps.Partition(p)); !ok || end != length {
							t.Fatalf("end of partition %d: got %d %v, want %d", p, end, ok, length)
						}
					}
				}
			}
		})
	})
	t.Run("a mark saves reading from the beginning", func(t *testing.T) {
		// What is before the marks is overwritten with something else behind the
		// source's back: a reader that looked at it would find it unreadable.
		text := impressions(2000, "")
		config := clickLog(write(t, "a.csv", text))
		config.MarkBytes, config.Buffer = 10_000, 1000
		s := open(t, config)
		whole := readAll(t, s)
		destroy(t, config.URL, len(text)-40_000)
		got := readAll(t, s, stream.Start{Offset: 1900})
		if diff := cmp.Diff(whole[1900:], got); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
	})
	t.Run("no mark is set inside a row that is too long", func(t *testing.T) {
		long := strings.Repeat("1\n", 5) + strings.Repeat("x", 2*mebibyte) + "\n"
		config := csv(write(t, "a.csv", "a\n"+long+long+"2\n3\n"), "a")
		config.MarkBytes = 1
		s := open(t, config)
		whole := readAll(t, s)
		for i := range whole {
			got := readAll(t, s, stream.Start{Offset: ps.Offset(i)})
			if diff := cmp.Diff(whole[i:], got); diff != "" || len(whole) != 14 {
				t.Fatalf("from %d of %d, want 14: (-want +got)\n%s", i, len(whole), diff)
			}
		}
	})
	t.Run("readers do not disturb each other", func(t *testing.T) {
		config := clickLog(write(t, "a.csv", impressions(3000, `"`)))
		config.MarkBytes, config.Buffer = 5000, 1000
		config.Stream.Partitions, config.Stream.Passes = 3, 2
		config.Stream.Identifiers, config.Secret = []string{"user_id"}, []byte(secret)
		s := open(t, config)
		want := readAll(t, open(t, config))
		var group sync.WaitGroup
		for i := range 6 {
			group.Go(func() {
				from := ps.Offset(i * 300)
				var rest []event
				for _, e := range want {
					if e.Partition == 1 && e.Offset >= from {
						rest = append(rest, e)
					}
				}
				got, _, err := read(t.Context(), t, s, stream.Start{Partition: 1, Offset: from})
				if diff := cmp.Diff(rest, got); diff != "" || err != io.EOF {
					t.Errorf("from %d: %v (-want +got)\n%s", from, err, diff)
				}
			})
		}
		group.Wait()
	})
	t.Run("an empty stream of many passes ends", func(t *testing.T) {
		config := csv(write(t, "a.csv", "a\n"), "a")
		config.Stream.Passes = 1000
		if events := readAll(t, open(t, config)); len(events) != 0 {
			t.Fatalf("got %v, want none", events)
		}
	})
	t.Run("the size is known before anything is read", func(t *testing.T) {
		for _, name := range []string{"a.csv", "a.csv.zst"} {
			for _, text := range []string{"a\n1\n2\n3\n", "a\n1\n2\n3"} {
				config := csv(write(t, name, text), "a")
				config.Stream.Passes = 2
				if got := open(t, config).Size(); got != 6 {
					t.Fatalf("%s: got %d, want 6", name, got)
				}
			}
		}
	})
}

// destroy overwrites the first n bytes of a file without changing what a look at
// it shows.
func destroy(t testing.TB, url string, n int) {
	t.Helper()
	rewrite(t, url, func(b []byte) []byte { return append(bytes.Repeat([]byte{'"'}, n), b[n:]...) }, true)
}

func TestSort(t *testing.T) {
	config := csv(write(t, "a.csv", "t,a\n"+
		"x,unreadable before any\n5,one of two at 5\n3,at 3\nx,unreadable after 3\n,unreadable after that\n5,two of two at 5\n4,at 4\n"), "a")
	config.Stream.Sort, config.Stream.Time = true, spec.Time{Column: "t", Unit: spec.Seconds}
	want := []int64{2, 4, 5, 6, 8, 3, 7}
	s := open(t, config)
	events := readAll(t, s)
	var got []int64
	for i, e := range events {
		got = append(got, e.Line)
		if int(e.Offset) != i {
			t.Fatalf("event %d has offset %d", i, e.Offset)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got lines %v, want %v", got, want)
	}
	if s.Size() != 7 {
		t.Fatalf("got size %d, want 7", s.Size())
	}
	config.SortBytesMax = 20
	if _, err := files.Open(t.Context(), config); !strings.Contains(fmt.Sprint(err), "over 20 bytes") {
		t.Fatalf("over the limit: got %v", err)
	}
}

// TestGolden holds the assignment still: it is stored, as applied offsets, in
// every checkpoint.
func TestGolden(t *testing.T) {
	text := "user,item\n1,a\n2,b\n3,c\n\"4\",d\n5\n6,f\n7,g\n8,h\n"
	for _, test := range []struct {
		by, identifier string
		want           string
		identity       ps.StreamID
	}{
		{"", "", "2:1/0 3:3/0 4:3/1 5:1/1 6:1/2 7:2/0 8:1/3 9:3/2", "file:0c280e430a0bd4ca11c36670ee287543"},
		{"user", "", "2:0/0 3:3/0 4:0/1 5:1/0 6:1/1 7:3/1 8:3/2 9:0/2", "file:55bd1341dba9866c4ab256885d6e6d58"},
		{"user", "user", "2:3/0 3:2/0 4:1/0 5:0/0 6:1/1 7:3/1 8:2/1 9:2/2", "file:03cd0e4bc01da1c03c7ea716e9c1cd68/764bc006"},
	} {
		config := csv(write(t, "a.csv", text), "user", "item")
		config.Stream.Partitions, config.Stream.PartitionBy = 4, test.by
		if test.identifier != "" {
			config.Stream.Identifiers, config.Secret = []string{test.identifier}, []byte(secret)
		}
		s := open(t, config)
		var got []string
		for _, e := range readAll(t, s) {
			got = append(got, strconv.Itoa(int(e.Line))+":"+strconv.Itoa(int(e.Partition))+"/"+strconv.Itoa(int(e.Offset)))
		}
		if got := strings.Join(got, " "); got != test.want || s.Identity() != test.identity {
			t.Errorf("partitioned by %q, masked %q:\n got %s %s\nwant %s %s", test.by, test.identifier, got, s.Identity(), test.want, test.identity)
		}
	}
}
