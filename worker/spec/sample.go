package spec

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// What Init wants to see of a file. More does not make its guesses better.
const (
	SampleRows  = 10_000
	SampleBytes = 8 << 20 // SampleRows of 800 bytes
)

const (
	// tornTail is how far before the sample's end a quote may be opened and not
	// closed because the sample ends; farther away it is a stray quote.
	tornTail = 64 << 10
	// strayQuotesMax bounds how often reading begins again behind a stray quote,
	// since each looks for its end through the whole sample.
	strayQuotesMax = 32
)

// table is a sample of a CSV file by columns.
//
// Invariant: columns has one entry per name in header, all of them rows long.
type table struct {
	header     []string
	columns    [][]string
	rows       int
	unreadable int
}

// readTable reads the header and up to SampleRows rows. The last row is left out
// where the sample may end in it. Rows with another number of fields than the
// header, or with stray quotes, are counted and left out, as the stream's reader
// skips them.
func readTable(r *reporter, sample []byte) (*table, bool) {
	sample = bytes.TrimPrefix(sample, []byte("\ufeff"))
	rest := sample
	next := newCSV(rest)
	first, err := next.Read()
	if err != nil {
		r.reportAt(place{line: 1}, "", "no header", "the sample must begin with a line that names the columns, separated by commas")
		return nil, false
	}
	t := &table{header: slices.Clone(first)}
	if !validHeader(r, t.header) {
		return nil, false
	}
	t.columns = make([][]string, len(first))
	for stray := 0; t.rows < SampleRows; {
		start := next.InputOffset()
		fields, err := next.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		end := next.InputOffset()
		toEnd := end == int64(len(rest))
		switch {
		case err != nil && toEnd && end-start < tornTail,
			toEnd && rest[end-1] != '\n' && (len(fields) != len(t.header) || t.rows > 0):
			return t, true // the sample's end cuts this row
		case err != nil:
			t.unreadable++
			if stray++; stray > strayQuotesMax {
				return t, true
			}
			from := start + int64(lineLength(rest[start:]))
			rest = rest[from:]
			next = newCSV(rest)
		case len(fields) != len(t.header):
			t.unreadable++
		default:
			t.add(fields)
		}
	}
	return t, true
}

func newCSV(text []byte) *csv.Reader {
	next := csv.NewReader(bytes.NewReader(text))
	next.FieldsPerRecord = -1
	return next
}

// lineLength returns the length of the first line of text that is not empty, with
// its end. Encoding/csv skips empty lines, and so do we.
func lineLength(text []byte) int {
	skipped := 0
	for skipped < len(text) && (text[skipped] == '\n' || text[skipped] == '\r') {
		skipped++
	}
	if end := bytes.IndexByte(text[skipped:], '\n'); end >= 0 {
		return skipped + end + 1
	}
	return len(text)
}

func (t *table) add(fields []string) {
	for i, text := range fields {
		t.columns[i] = append(t.columns[i], text)
	}
	t.rows++
}

// validHeader reports what a header must not have.
func validHeader(r *reporter, header []string) bool {
	seen := make(map[string]bool)
	for _, name := range header {
		switch {
		case !utf8.ValidString(name):
			r.reportAt(place{line: 1}, "", "the header is not UTF-8", "save the file as UTF-8")
			return false
		case seen[name] && name != "":
			r.reportAt(place{line: 1}, "", "two columns are named "+quoted(name), "rename one of them")
			return false
		}
		seen[name] = true
	}
	if len(header) == 1 && strings.ContainsAny(header[0], "\t;|") {
		r.reportAt(place{line: 1}, "", "one column, named "+quoted(header[0]), "separate the columns by commas")
		return false
	}
	return true
}
