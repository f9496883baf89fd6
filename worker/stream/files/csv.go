package files

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// csv cuts rows of comma-separated values as in RFC 4180. A field that begins
// with a quote ends at the next quote that is not doubled, and may hold commas
// and line ends; bytes inside fields are kept as they are. A quote anywhere else
// makes the row unreadable.
type csv struct {
	// fields says for each cell which field of the row it holds.
	fields []int
	// want is how many fields a row has. spans has as many entries.
	want  int
	spans []span
	// unquoted holds fields with doubled quotes, without the doubling.
	unquoted []byte
}

// span is where a field's text is in its row, without its outer quotes.
type span struct {
	from, to int32
	doubled  bool // it has doubled quotes
}

func newCSV(fields []int, want int) *csv {
	return &csv{fields: fields, want: want, spans: make([]span, want)}
}

// cut finds a row; see format.
func (c *csv) cut(text []byte, last bool, cells [][]byte) (n, size int, f fault) {
	var count int
	n, size = line(text, last)
	if bytes.IndexByte(text[:size], '"') >= 0 {
		n, size, count, f = c.quoted(text, last)
	} else if n > 0 {
		count = c.plain(text[:size])
	}
	if n == 0 {
		return n, size, f
	}
	if count != c.want {
		return n, size, fault{kind: wrongFields, got: count, want: c.want}
	}
	c.unquoted = c.unquoted[:0]
	for i, field := range c.fields {
		s := c.spans[field]
		cells[i] = text[s.from:s.to:s.to]
		if s.doubled {
			cells[i] = c.undouble(cells[i])
		}
	}
	return n, size, f
}

// plain fills spans for a line without quotes and returns how many fields it has.
//
// It looks at eight bytes at a time: those equal to a comma become zero, and an
// exact test for zero bytes (no carry crosses a byte) leaves their highest bit
// set. With fields of a few bytes this is twice as fast as a search per field.
func (c *csv) plain(line []byte) int {
	const (
		low    = 0x7f7f7f7f7f7f7f7f
		commas = 0x2c2c2c2c2c2c2c2c
	)
	spans, count, from := c.spans, 0, 0
	end := func(at int) {
		if count < len(spans) {
			spans[count] = span{from: int32(from), to: int32(at)}
		}
		count, from = count+1, at+1
	}
	i := 0
	for ; i+8 <= len(line); i += 8 {
		x := binary.LittleEndian.Uint64(line[i:]) ^ commas
		for found := ^((x&low + low) | x | low); found != 0; found &= found - 1 {
			end(i + bits.TrailingZeros64(found)>>3)
		}
	}
	for ; i < len(line); i++ {
		if line[i] == ',' {
			end(i)
		}
	}
	end(len(line))
	return count
}

// quoted fills spans for a row that has quotes and may go on over line ends. It
// returns the row's length with and without its end and its number of fields; or
// n = 0 if there is a fault or more of the row.
func (c *csv) quoted(text []byte, last bool) (n, size, count int, f fault) {
	for at := 0; ; {
		s, end, f := field(text, at, last)
		if end < 0 {
			return 0, 0, 0, f
		}
		if count < len(c.spans) {
			c.spans[count] = s
		}
		count++
		if end < len(text) && text[end] == ',' {
			at = end + 1
			continue
		}
		switch n := rowEnd(text[end:], last); n {
		case more:
			return 0, 0, 0, fault{}
		case noEnd: // something stands behind a closing quote
			return 0, 0, 0, fault{kind: strayQuote}
		default:
			return end + n, end, count, fault{}
		}
	}
}

// field finds the field that begins at a position and the position behind it,
// which is negative if there is a fault or more of the field.
func field(text []byte, at int, last bool) (s span, end int, f fault) {
	if at == len(text) || text[at] != '"' {
		end = at
		for end < len(text) && text[end] != ',' && text[end] != '\n' && text[end] != '"' {
			end++
		}
		switch {
		case end == len(text) && !last:
			return span{}, more, fault{}
		case end < len(text) && text[end] == '"':
			return span{}, more, fault{kind: strayQuote}
		case end > at && text[end-1] == '\r' && (end == len(text) || text[end] == '\n'):
			end--
		}
		return span{from: int32(at), to: int32(end)}, end, fault{}
	}
	s.from = int32(at + 1)
	for i := at + 1; ; i += 2 {
		next := bytes.IndexByte(text[i:], '"')
		if next < 0 && last {
			return span{}, more, fault{kind: openQuote}
		}
		i += next
		if next < 0 {
			return span{}, more, fault{}
		}
		if i+1 == len(text) || text[i+1] != '"' { // rowEnd asks for what may follow
			s.to = int32(i)
			return s, i + 1, fault{}
		}
		s.doubled = true
	}
}

// What a position is if there is none.
const (
	more  = -1 // it takes more text to tell
	noEnd = -2
)

// rowEnd returns the length of the end of a row at the beginning of text.
func rowEnd(text []byte, last bool) int {
	switch {
	case len(text) == 0 && last:
		return 0
	case len(text) == 0:
		return more
	case text[0] == '\n':
		return 1
	case text[0] != '\r':
		return noEnd
	case len(text) > 1 && text[1] == '\n':
		return 2
	case len(text) == 1 && last:
		return 1
	case len(text) == 1:
		return more
	}
	return noEnd
}

// undouble appends text to c.unquoted with one quote for each two, and returns it.
func (c *csv) undouble(text []byte) []byte {
	from := len(c.unquoted)
	for {
		quote := bytes.IndexByte(text, '"')
		if quote < 0 {
			c.unquoted = append(c.unquoted, text...)
			return c.unquoted[from:len(c.unquoted):len(c.unquoted)]
		}
		c.unquoted = append(c.unquoted, text[:quote+1]...)
		text = text[quote+2:]
	}
}

// header returns the fields of the row at the beginning of text, and the row's
// length as format.cut does.
func header(text []byte, last bool) (names []string, n, size int, f fault) {
	n, size, count, f := newCSV(nil, 0).quoted(text, last)
	if n == 0 {
		return nil, 0, 0, f
	}
	fields := make([]int, count)
	for i := range fields {
		fields[i] = i
	}
	cells := make([][]byte, count)
	newCSV(fields, count).cut(text, last, cells)
	for _, cell := range cells {
		names = append(names, string(cell))
	}
	return names, n, size, fault{}
}
