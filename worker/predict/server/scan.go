package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/freshet-ml/freshet/ps"
)

// scan reads JSON of which encoding/json has said that it is valid, so that it only looks
// for what is meant. What it returns are parts of the text: a request of thousands of values
// is as cheap as its bytes.
//
// Invariant: at is where a value begins, or white space before one, whenever a method is
// called that reads a value. After an error nothing more is read.
type scan struct {
	text string
	at   int
}

// newScan returns a scan of a body. The error wraps ps.ErrInvalid if it is no JSON in UTF-8.
func newScan(body []byte) (*scan, error) {
	if !utf8.Valid(body) {
		return nil, fmt.Errorf("the body is not UTF-8: %w", ps.ErrInvalid)
	}
	if json.Valid(body) {
		return &scan{text: string(body)}, nil
	}
	var text json.RawMessage
	err := json.Unmarshal(body, &text)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return nil, fmt.Errorf("the body is no JSON: byte %d: %v: %w", syntax.Offset, err, ps.ErrInvalid) //nolint:errorlint // for people; nobody asks for it
	}
	return nil, fmt.Errorf("the body is no JSON: %v: %w", err, ps.ErrInvalid) //nolint:errorlint // for people; nobody asks for it
}

// next goes over white space and returns the byte behind it.
func (s *scan) next() byte {
	for {
		switch b := s.text[s.at]; b {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return b
		}
	}
}

// unlike returns the error for a value that is not what it should be.
func (s *scan) unlike(want string) error {
	is := "a number"
	switch s.next() {
	case '{':
		is = "an object"
	case '[':
		is = "an array"
	case '"':
		is = "a string"
	case 't', 'f':
		is = "a boolean"
	case 'n':
		is = "null"
	}
	return fmt.Errorf("want %s, not %s: %w", want, is, ps.ErrInvalid)
}

// object calls each for every field of an object, to read its value.
func (s *scan) object(each func(name string) error) error {
	if s.next() != '{' {
		return s.unlike("an object")
	}
	s.at++
	if s.next() == '}' {
		s.at++
		return nil
	}
	for {
		s.next()
		name := s.quoted()
		s.next()
		s.at++ // the colon
		if err := each(name); err != nil {
			return fmt.Errorf("%.100s: %w", name, err)
		}
		end := s.next() == '}'
		s.at++
		if end {
			return nil
		}
	}
}

// array calls each for every element of an array, to read it.
func (s *scan) array(each func(i int) error) error {
	if s.next() != '[' {
		return s.unlike("an array")
	}
	s.at++
	if s.next() == ']' {
		s.at++
		return nil
	}
	for i := 0; ; i++ {
		if err := each(i); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		end := s.next() == ']'
		s.at++
		if end {
			return nil
		}
	}
}

// fields is object for one that has some of the known fields, none of them twice.
func (s *scan) fields(known []string, each func(name string) error) error {
	var seen uint64
	return s.object(func(name string) error {
		i := slices.Index(known, name)
		if i < 0 {
			return fmt.Errorf("unknown field, want some of %s: %w", strings.Join(known, ", "), ps.ErrInvalid)
		}
		if seen>>i&1 == 1 {
			return errTwice
		}
		seen |= 1 << i
		return each(name)
	})
}

// errTwice: of two values it is not known which is meant.
var errTwice = fmt.Errorf("it is there twice: %w", ps.ErrInvalid)

// quoted reads a string, at whose first quote it is. A surrogate without its other half
// becomes U+FFFD.
func (s *scan) quoted() string {
	rest := s.text[s.at+1:]
	end := strings.IndexByte(rest, '"')
	if raw := rest[:end]; strings.IndexByte(raw, '\\') < 0 {
		s.at += end + 2
		return raw
	}
	for end = 0; rest[end] != '"'; end++ {
		if rest[end] == '\\' {
			end++
		}
	}
	from := s.at
	s.at += end + 2
	var text string
	if err := json.Unmarshal([]byte(s.text[from:s.at]), &text); err != nil {
		panic(fmt.Sprintf("a valid body has a string from byte %d to %d that is not: %v", from, s.at, err))
	}
	return text
}

// literal reads a number, true, false or null, at whose first byte it is.
func (s *scan) literal() string {
	from := s.at
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ',', ']', '}', ' ', '\t', '\n', '\r':
			return s.text[from:s.at]
		}
		s.at++
	}
	return s.text[from:]
}

// string reads a string.
func (s *scan) string() (string, error) {
	if s.next() != '"' {
		return "", s.unlike("a string")
	}
	return s.quoted(), nil
}

// value reads a value as a stream would have it in a column: text, numbers and booleans as
// they are written, and nothing for null.
func (s *scan) value() (string, error) {
	switch s.next() {
	case '"':
		return s.quoted(), nil
	case '{', '[':
		return "", s.unlike("a string, number, boolean or null")
	case 'n':
		s.literal()
		return "", nil
	}
	return s.literal(), nil
}

// number reads a number that fits into so many bits.
func (s *scan) number(bits int) (float64, error) {
	if b := s.next(); b != '-' && (b < '0' || b > '9') {
		return 0, s.unlike("a number")
	}
	x, err := strconv.ParseFloat(s.literal(), bits)
	if err != nil {
		return 0, fmt.Errorf("the number is too large for %d bits: %w", bits, ps.ErrInvalid)
	}
	return x, nil
}

// count reads how many of something are wanted; 3.0 and 3e0 are 3, as they are elsewhere in
// JSON.
func (s *scan) count() (int, error) {
	x, err := s.number(64)
	if err == nil && (x != math.Trunc(x) || x < 0 || x > math.MaxUint32) {
		err = fmt.Errorf("want a whole number from 0 to %d: %w", uint32(math.MaxUint32), ps.ErrInvalid)
	}
	return int(x), err
}
