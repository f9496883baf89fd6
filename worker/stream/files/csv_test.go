package files_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/worker/spec"
)

const mebibyte = 1 << 20

func itoa[T int | int64](n T) string { return strconv.FormatInt(int64(n), 10) }

// A case's want holds one line per event: its line, then its columns in brackets
// or the reason for which it is unreadable.
func describe(events []event) []string {
	var all []string
	for _, e := range events {
		text := strings.Join(e.Columns, "][")
		if e.Err != "" {
			_, reason, _ := strings.Cut(e.Err, ": ")
			text = "unreadable: " + strings.TrimSuffix(reason, ": unreadable row")
		} else {
			text = "[" + text + "]"
		}
		all = append(all, itoa(e.Line)+" "+text)
	}
	return all
}

const stray = "unreadable: a quote stands inside a field: quote the whole field and double the quotes in it"

func TestCSV(t *testing.T) {
	long := "3," + strings.Repeat("4", 4093) + "\n"
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"a row per line", "a,b\n1,2\n3,4\n", []string{"2 [1][2]", "3 [3][4]"}},
		{"the last line needs no end", "a,b\n1,2\n3,4", []string{"2 [1][2]", "3 [3][4]"}},
		{"only the header line has no rows", "a,b\n", nil},
		{"only the header line, without an end, has no rows", "a,b", nil},
		{"lines may end in CRLF", "a,b\r\n1,2\r\n3,4\r\n", []string{"2 [1][2]", "3 [3][4]"}},
		{"the last CR needs no LF", "a,b\r\n1,2\r", []string{"2 [1][2]"}},
		{"a CR elsewhere is text", "a,b\n1\r,2\n\r3,4\n", []string{"2 [1\r][2]", "3 [\r3][4]"}},
		{"a byte order mark is no part of the first name", "\ufeffa,b\n1,2\n", []string{"2 [1][2]"}},
		{"blank lines are no rows but count as lines", "\n\r\na,b\n\n1,2\n\r\n\n3,4\n\n\r", []string{"5 [1][2]", "8 [3][4]"}},
		{"columns come in the order asked for", "x,b,y,a,z\n1,2,3,4,5\n", []string{"2 [4][2]"}},
		{"fields may be empty", "a,b\n,\n,2\n1,\n", []string{"2 [][]", "3 [][2]", "4 [1][]"}},
		{"quotes are taken off", `a,b` + "\n" + `"1","2"` + "\n" + `1,"2"` + "\n" + `"1",2` + "\n", []string{"2 [1][2]", "3 [1][2]", "4 [1][2]"}},
		{"a quoted field may be empty", "a,b\n\"\",\"\"\n\"\",2\n", []string{"2 [][]", "3 [][2]"}},
		{"two quotes are one", `a,b` + "\n" + `"say ""1""",""""` + "\n" + `"""",""""""` + "\n", []string{`2 [say "1"]["]`, `3 ["][""]`}},
		{"quotes hold commas", "a,b\n\"1,5\",2\n", []string{"2 [1,5][2]"}},
		{"quotes hold line ends, which count as lines", "a,b\n\"1\n\n5\",\"\r\n\"\n3,4\n", []string{"2 [1\n\n5][\r\n]", "6 [3][4]"}},
		{"the header may be quoted", "\"a\",\"x\ny\",\"b\"\r\n1,,2\n", []string{"3 [1][2]"}},
		{"a quoted field may end the file", "a,b\n1,\"2\"", []string{"2 [1][2]"}},
		{"a quoted field may end the file with a CR", "a,b\n1,\"2\"\r", []string{"2 [1][2]"}},
		{"fields that nobody asked for are cut too", "x,a,b\n\"p,\"\"q\",1,2\n", []string{"2 [1][2]"}},

		{"too few fields", "a,b\n1\n3,4\n", []string{"2 unreadable: the row has 1 fields, the header has 2", "3 [3][4]"}},
		{"too many fields", "a,b\n1,2,3\n3,4\n", []string{"2 unreadable: the row has 3 fields, the header has 2", "3 [3][4]"}},
		{"a row with a wrong number of fields goes to its end", "a,b\n1,\"\n\n\",3\n3,4\n", []string{"2 unreadable: the row has 3 fields, the header has 2", "5 [3][4]"}},
		{"a quote inside a field", "a,b\n1\"5,2\n3,4\n", []string{"2 " + stray, "3 [3][4]"}},
		{"a quote at the end of a field", "a,b\n1,2\"\n3,4\n", []string{"2 " + stray, "3 [3][4]"}},
		{"text behind a closing quote", "a,b\n\"1\"5,2\n3,4\n", []string{"2 " + stray, "3 [3][4]"}},
		{"a space behind a closing quote", "a,b\n\"1\" ,2\n3,4\n", []string{"2 " + stray, "3 [3][4]"}},
		{"a CR behind a closing quote", "a,b\n\"1\"\r,2\n3,4\n", []string{"2 " + stray, "3 [3][4]"}},
		{"a quote that is never closed costs one line", "a,b\n\"1,2\n3,4\n5,6\n", []string{"2 unreadable: a quote is never closed", "3 [3][4]", "4 [5][6]"}},
		{"a quote that a later line seems to close costs one line", "a,b\n\"1,2\n\"3\",4\n5,6\n", []string{"2 " + stray, "3 [3][4]", "4 [5][6]"}},
		{"a quote that is never closed in the last line", "a,b\n1,\"2", []string{"2 unreadable: a quote is never closed"}},
		{"a lone quote", "a,b\n\"\n3,4\n", []string{"2 unreadable: a quote is never closed", "3 [3][4]"}},

		{"a row of a mebibyte", "a,b\n1," + strings.Repeat("x", mebibyte-2) + "\r\n3,4\n", []string{"2 [1][" + strings.Repeat("x", mebibyte-2) + "]", "3 [3][4]"}},
		{"a quoted row of a mebibyte", "a,b\n1,\"" + strings.Repeat("\n", mebibyte-4) + "\"\r\n3,4\n", []string{"2 [1][" + strings.Repeat("\n", mebibyte-4) + "]", itoa(mebibyte-4+3) + " [3][4]"}},
		{"a row of more", "a,b\n1," + strings.Repeat("x", mebibyte-1) + "\n3,4\n", []string{"2 " + tooLong, "3 [3][4]"}},
		{"a row of more that is quoted", "a,b\n1,\"" + strings.Repeat("x", mebibyte-3) + "\"\n3,4\n", []string{"2 " + tooLong, "3 [3][4]"}},
		{"a row of much more", "a,b\n1," + strings.Repeat("x,\"", mebibyte) + "\n3,4\n", []string{"2 " + tooLong, "3 [3][4]"}},
		{"a row of more at the end", "a,b\n3,4\n1," + strings.Repeat("x", mebibyte-1), []string{"2 [3][4]", "3 " + tooLong}},
		{"a row of much more at the end", "a,b\n3,4\n1," + strings.Repeat("x", 5*mebibyte), []string{"2 [3][4]", "3 " + tooLong}},
		{"a quote that is never closed, far from the end", "a,b\n\"1,2\n" + strings.Repeat(long, mebibyte/len(long)), append([]string{"2 " + tooLong}, repeat(mebibyte/len(long), 3, " [3]["+long[2:len(long)-1]+"]")...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := csv(write(t, "a.csv", test.text), "a", "b")
			want := append([]string{}, test.want...)
			for _, buffer := range []int{0, 1, 7} {
				config.Buffer = buffer
				s := open(t, config)
				got := append([]string{}, describe(readAll(t, s))...)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("buffer of %d bytes: %.300q: (-want +got)\n%.2000s", buffer, test.text, diff)
				}
			}
			config.Stream.Sort, config.Stream.Time = true, spec.Time{Column: "a", Unit: "2006"} // no row has that
			sorted := readAll(t, open(t, config))
			if len(sorted) != len(want) {
				t.Fatalf("sorted: got %d rows, want %d", len(sorted), len(want))
			}
		})
	}
}

const tooLong = "unreadable: the row has more than 1048576 bytes: is a quote never closed"

func repeat(n, line int, text string) []string {
	var all []string
	for i := range n {
		all = append(all, itoa(line+i)+text)
	}
	return all
}

func TestEventTime(t *testing.T) {
	const (
		far   = "unreadable: the event time is not within the years 1 to 9999: is its unit right"
		bad   = "unreadable: the event time is not in the declared unit or layout"
		empty = "unreadable: the event time is empty"
	)
	for _, test := range []struct {
		unit, text string
		want       int64
		err        string
	}{
		{spec.Milliseconds, "1650812741436", 1650812741436, ""},
		{spec.Milliseconds, "0", 0, ""},
		{spec.Milliseconds, "-1", -1, ""},
		{spec.Milliseconds, "+5", 5, ""},
		{spec.Milliseconds, "7.9", 7, ""},
		{spec.Milliseconds, "-7.9", -7, ""},
		{spec.Milliseconds, "1.650812741436e12", 1650812741436, ""},
		{spec.Seconds, "1650812741", 1650812741000, ""},
		{spec.Seconds, "1291191960.0", 1291191960000, ""},
		{spec.Seconds, "1650812741.4369", 1650812741436, ""},
		{spec.Seconds, "-0.25", -250, ""},
		{spec.Seconds, "1.", 1000, ""},
		{spec.Seconds, ".5", 500, ""},
		{spec.Microseconds, "1650812741436999", 1650812741436, ""},
		{spec.Microseconds, "-1999", -1, ""},
		{spec.RFC3339, "2022-04-24T15:05:41.436Z", 1650812741436, ""},
		{spec.RFC3339, "2022-04-24T17:05:41+02:00", 1650812741000, ""},
		{"2006-01-02 15:04", "2022-04-24 15:05", 1650812700000, ""},

		{spec.Milliseconds, "", 0, empty},
		{spec.RFC3339, "", 0, empty},
		{spec.Milliseconds, "x", 0, bad},
		{spec.Milliseconds, "-", 0, bad},
		{spec.Milliseconds, ".", 0, bad},
		{spec.Milliseconds, "12 ", 0, bad},
		{spec.Milliseconds, "1650812741436x", 0, bad},
		{spec.Milliseconds, "NaN", 0, bad},
		{spec.RFC3339, "2022-04-24 15:05:41", 0, bad},
		{"2006-01-02", "2022-04-31", 0, bad},
		{spec.Seconds, "1650812741436", 0, far},
		{spec.Milliseconds, "9999999999999999999999", 0, far},
		{spec.Seconds, "9223372036854775807", 0, far},
		{spec.Seconds, "18446744073709552", 0, far}, // 384 ms, if it overflows
		{spec.Seconds, "1e300", 0, far},
		{spec.Milliseconds, "Inf", 0, far},
		{spec.Milliseconds, "253402300800000", 0, far},
	} {
		t.Run(test.text+" in "+test.unit, func(t *testing.T) {
			config := csv(write(t, "a.csv", "t,a\n\""+test.text+"\",1\n"), "a")
			config.Stream.Time = spec.Time{Column: "t", Unit: test.unit}
			events := readAll(t, open(t, config))
			if len(events) != 1 {
				t.Fatalf("got %d events, want 1", len(events))
			}
			if test.err != "" {
				if got := describe(events)[0]; got != "2 "+test.err {
					t.Fatalf("got %q, want %q", got, "2 "+test.err)
				}
				return
			}
			if got := events[0]; got.Time != test.want || got.Err != "" {
				t.Fatalf("got %d %s, want %d", got.Time, got.Err, test.want)
			}
		})
	}
}
