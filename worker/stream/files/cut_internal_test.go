package files

// Rows are cut by unexported code; to fuzz it through files on disk would take a
// thousand times as long.

import (
	"bytes"
	stdcsv "encoding/csv"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cutAll cuts text with windows of a buffer that grows from the given size.
func cutAll(t *testing.T, f format, text []byte, cells, buffer int) (rows [][]string, faults []faultKind) {
	t.Helper()
	w := &window{src: bytes.NewReader(text), buf: make([]byte, buffer), line: 1, size: int64(len(text))}
	into := make([][]byte, cells)
	lines := int64(0)
	for {
		r, err := w.next(t.Context(), f, into)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if r.line <= lines || r.at < 0 || len(r.text) > rowMax || !bytes.HasPrefix(text[r.at:], r.text) ||
			r.line != 1+int64(bytes.Count(text[:r.at], lineEnd)) {
			t.Fatalf("%q: row %d: line %d after line %d, at byte %d, text %q", text, len(rows), r.line, lines, r.at, r.text)
		}
		lines = r.line
		row := []string(nil)
		if r.fault.kind == readable {
			for _, c := range into {
				row = append(row, string(c))
			}
		}
		rows = append(rows, row)
		faults = append(faults, r.fault.kind)
	}
	if w.position() != int64(len(text)) {
		t.Fatalf("%q: ended at byte %d", text, w.position())
	}
	return rows, faults
}

// FuzzCSV checks that any text is cut without a panic and alike with any buffer,
// and that where the standard library accepts it, both see the same.
func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		"a,b\n1,2\n", "\"a\",\"b\"\"c\"\r\n\"1\n2\",\n", "a,\"b\n", "a\"b,c\n", "\r\n\r\n,\r", "\"a\"b,c\n1,2\n", "\"\"\"\"\r", "a,,,,,,,b,-,c,d\n",
	} {
		f.Add([]byte(seed), 2)
	}
	f.Fuzz(func(t *testing.T, text []byte, want int) {
		if want < 1 || want > 50 || len(text) > 1<<12 {
			return
		}
		fields := make([]int, want)
		for i := range fields {
			fields[i] = i
		}
		rows, faults := cutAll(t, newCSV(fields, want), text, want, 1<<13)
		for _, buffer := range []int{1, 5} {
			again, faultsAgain := cutAll(t, newCSV(fields, want), text, want, buffer)
			if diff := cmp.Diff(rows, again); diff != "" || !slices.Equal(faults, faultsAgain) {
				t.Fatalf("%q: a buffer of %d bytes makes a difference: %s %v %v", text, buffer, diff, faults, faultsAgain)
			}
		}
		std := stdcsv.NewReader(bytes.NewReader(text))
		std.FieldsPerRecord = -1
		for i := 0; ; i++ {
			row, err := std.Read()
			if err == io.EOF {
				if i != len(rows) {
					t.Fatalf("%q: got %d rows %q, want %d", text, len(rows), rows, i)
				}
				return
			}
			switch {
			case i >= len(rows):
				t.Fatalf("%q: got %d rows, want more: %q %v", text, len(rows), row, err)
			case err != nil:
				if faults[i] != strayQuote && faults[i] != openQuote {
					t.Fatalf("%q: row %d: got %q fault %v, want %v", text, i, rows[i], faults[i], err)
				}
				return // from here on the two go separate ways
			case len(row) != want:
				if faults[i] != wrongFields {
					t.Fatalf("%q: row %d: got %q fault %v, want %d fields", text, i, rows[i], faults[i], len(row))
				}
				continue
			}
			for field, text := range rows[i] { // the library rewrites line ends in quotes
				rows[i][field] = strings.ReplaceAll(text, "\r\n", "\n")
			}
			if !slices.Equal(rows[i], row) {
				t.Fatalf("%q: row %d: got %q, want %q", text, i, rows[i], row)
			}
		}
	})
}

// FuzzVW checks that any text is cut without a panic and alike with any buffer,
// and against a plain reading of each line.
func FuzzVW(f *testing.F) {
	for _, seed := range []string{
		"1 |f a:1 b |g c\n", "1 2 0 'tag|f:1 a|f b\r\n\n|default x\n", "-1.5e3 tag| a |f |f b |f c\n", "1 |f:2 a\n", "||||\n", "1\n", "'|:1\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<12 {
			return
		}
		names := []string{Label, Importance, defaultNamespace, "f", "g", "f"}
		rows, faults := cutAll(t, newVW(names), text, len(names), 1<<13)
		for _, buffer := range []int{1, 5} {
			again, faultsAgain := cutAll(t, newVW(names), text, len(names), buffer)
			if diff := cmp.Diff(rows, again); diff != "" || !slices.Equal(faults, faultsAgain) {
				t.Fatalf("%q: a buffer of %d bytes makes a difference: %s %v %v", text, buffer, diff, faults, faultsAgain)
			}
		}
		i := 0
		for _, line := range strings.Split(string(text), "\n") {
			line = strings.TrimSuffix(line, "\r")
			if line == "" {
				continue
			}
			if faults[i] == readable {
				if want := plainVW(line, names); !slices.Equal(rows[i], want) {
					t.Fatalf("%q: got %q, want %q", line, rows[i], want)
				}
			}
			i++
		}
		if i != len(rows) {
			t.Fatalf("%q: got %d rows, want %d", text, len(rows), i)
		}
	})
}

// plainVW cuts a readable line the obvious way.
func plainVW(line string, names []string) []string {
	space := func(r rune) bool { return r == ' ' || r == '\t' }
	head, rest, _ := strings.Cut(line, "|")
	words := strings.FieldsFunc(head, space)
	if n := len(words); n > 0 && (words[n-1][0] == '\'' || !space(rune(head[len(head)-1]))) {
		words = words[:n-1]
	}
	words = append(words, "", "")
	got := map[string]string{Label: words[0], Importance: words[1]}
	texts := map[string][]string{}
	for _, part := range strings.Split(rest, "|") {
		name, text := part, ""
		if at := strings.IndexFunc(part, space); at >= 0 {
			name, text = part[:at], strings.Trim(part[at:], " \t")
		}
		name, _, _ = strings.Cut(name, ":")
		if name == "" {
			name = defaultNamespace
		}
		if text != "" {
			texts[name] = append(texts[name], text)
		}
	}
	var row []string
	for _, name := range names {
		if text, ok := got[name]; ok {
			row = append(row, text)
		} else {
			row = append(row, strings.Join(texts[name], " "))
		}
	}
	return row
}

// TestFields compares the cutting of lines without quotes, eight bytes at a time,
// with the obvious way, on all bytes beside a comma.
func TestFields(t *testing.T) {
	for b := range 256 {
		if b == '\n' || b == '"' {
			continue
		}
		for shift := range 10 {
			text := []byte(strings.Repeat("x", shift) + ",?,,?" + strings.Repeat("y,", 9))
			text = bytes.ReplaceAll(text, []byte{'?'}, []byte{byte(b)})
			want := strings.Split(string(text), ",")
			c := newCSV(nil, 100)
			n := c.plain(text)
			var got []string
			for _, s := range c.spans[:n] {
				got = append(got, string(text[s.from:s.to]))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q: got %q, want %q", text, got, want)
			}
		}
	}
}
