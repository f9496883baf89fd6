package vectors

import (
	"archive/zip"
	"bufio"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// headerBytesMax bounds the header of an .npy file, which for an array of one type has some
// hundred bytes.
const headerBytesMax = 64 << 10

// elementBytesMax bounds one identifier: 16,384 characters.
const elementBytesMax = 64 << 10

// dtype is the type of an array's elements: little endian or of one byte.
type dtype struct {
	kind byte // f float, i and u integers, U and S text of UTF-32 and of bytes
	size int  // bytes of an element
}

// array is an .npy file that is read from its beginning to its end.
type array struct {
	name  string
	in    *bufio.Reader
	dtype dtype
	shape []int64
	row   []byte // of the first dimension
	read  int64  // rows
}

// newArray reads an array's header.
//
// Source: numpy.lib.format, format versions 1.0, 2.0 and 3.0.
func newArray(name string, in io.Reader) (*array, error) {
	a := &array{name: name, in: bufio.NewReaderSize(in, 256<<10)}
	header, err := a.header()
	if err == nil {
		a.dtype, a.shape, err = parseHeader(header)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, nil
}

// header returns the text of the header.
func (a *array) header() (string, error) {
	begin := make([]byte, len(npyMagic)+2)
	if _, err := io.ReadFull(a.in, begin); err != nil || !hasPrefix(begin, npyMagic) {
		return "", ended(err, "it does not begin as an .npy file does")
	}
	length := make([]byte, 4)
	switch version := begin[len(npyMagic)]; version {
	case 1:
		length = length[:2]
	case 2, 3:
	default:
		return "", fmt.Errorf("format %d.%d of .npy, this program reads up to 3.0: %w", version, begin[len(npyMagic)+1], ps.ErrInvalid)
	}
	if _, err := io.ReadFull(a.in, length); err != nil {
		return "", ended(err, "it ends in its header")
	}
	n := uint32(0)
	for i, b := range length {
		n |= uint32(b) << (8 * i)
	}
	if n > headerBytesMax {
		return "", fmt.Errorf("a header of %d bytes: want at most %d: %w", n, headerBytesMax, ps.ErrInvalid)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(a.in, text); err != nil {
		return "", ended(err, "it ends in its header")
	}
	return string(text), nil
}

// ended says in our words that a file ends too early or cannot be unpacked; other errors
// are as they are.
func ended(err error, what string) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: %w", what, ps.ErrCorrupt)
	}
	if _, packed := errors.AsType[flate.CorruptInputError](err); packed || errors.Is(err, zip.ErrChecksum) || errors.Is(err, zip.ErrFormat) {
		return fmt.Errorf("%w: %w", ps.ErrCorrupt, err)
	}
	return err
}

// parseHeader reads the dictionary of a header, such as
//
//	{'descr': '<f4', 'fortran_order': False, 'shape': (3, 16), }
func parseHeader(text string) (d dtype, shape []int64, err error) {
	p := parser{text}
	var descr string
	var keys []string
	fortran := false
	p.expect("{")
	for !p.accept("}") {
		key := p.quoted()
		p.expect(":")
		switch keys = append(keys, key); key {
		case "descr":
			if p.accept("[") {
				return d, nil, fmt.Errorf("its elements are records: want numbers or texts: %w", ps.ErrInvalid)
			}
			descr = p.quoted()
		case "fortran_order":
			if fortran = p.accept("True"); !fortran {
				p.expect("False")
			}
		case "shape":
			shape = p.shape()
		default:
			p.fail()
		}
		if !p.accept(",") && !strings.HasPrefix(p.rest(), "}") {
			p.fail()
		}
	}
	slices.Sort(keys)
	if p.failed() || p.rest() != "" || !slices.Equal(keys, []string{"descr", "fortran_order", "shape"}) {
		return d, nil, fmt.Errorf("its header is not what NumPy writes: %w", ps.ErrCorrupt)
	}
	if fortran && len(shape) > 1 {
		return d, nil, fmt.Errorf("its order is Fortran's, column by column: save np.ascontiguousarray(it): %w", ps.ErrInvalid)
	}
	d, err = parseDtype(descr)
	return d, shape, err
}

// parseDtype reads the name of a type, such as "<f4".
func parseDtype(descr string) (dtype, error) {
	unknown := fmt.Errorf("its elements are of type %q: want f2, f4 or f8 for vectors, integers, U or S for identifiers: %w", descr, ps.ErrInvalid)
	if len(descr) < 2 {
		return dtype{}, unknown
	}
	order, kind := descr[0], descr[1]
	size, err := strconv.Atoi(descr[2:])
	switch {
	case kind == 'O':
		return dtype{}, fmt.Errorf("its elements are pickled objects, which are code: save np.array(it, dtype=str): %w", ps.ErrInvalid)
	case err != nil || size < 1 || size > elementBytesMax:
		return dtype{}, unknown
	case order == '>':
		return dtype{}, fmt.Errorf("its elements %q are big endian: save it.astype(%q): %w", descr, "<"+descr[1:], ps.ErrInvalid)
	case order != '<' && order != '|':
		return dtype{}, unknown
	case kind == 'U' && 4*size <= elementBytesMax:
		return dtype{kind, 4 * size}, nil
	case kind == 'S',
		kind == 'f' && (size == 2 || size == 4 || size == 8),
		(kind == 'i' || kind == 'u') && (size == 1 || size == 2 || size == 4 || size == 8):
		return dtype{kind, size}, nil
	}
	return dtype{}, unknown
}

// parser takes a Python literal apart. After what it does not understand it has nothing
// left, and failed.
type parser struct{ text string }

const parserFailed = "\x00"

func (p *parser) fail()        { p.text = parserFailed }
func (p *parser) failed() bool { return p.text == parserFailed }

// rest returns what is left, without space before it.
func (p *parser) rest() string {
	p.text = strings.TrimLeft(p.text, " \n")
	return p.text
}

// accept takes a word if it is next. After a failure it takes any, so that loops end.
func (p *parser) accept(word string) bool {
	rest, ok := strings.CutPrefix(p.rest(), word)
	if ok {
		p.text = rest
	}
	return ok || p.failed()
}

func (p *parser) expect(word string) {
	if !p.accept(word) {
		p.fail()
	}
}

// quoted takes a string, in which NumPy has no escapes.
func (p *parser) quoted() string {
	rest := p.rest()
	if rest == "" || rest[0] != '\'' && rest[0] != '"' {
		p.fail()
		return ""
	}
	text, after, ok := strings.Cut(rest[1:], rest[:1])
	if !ok {
		p.fail()
		return ""
	}
	p.text = after
	return text
}

// shape takes a tuple of sizes.
func (p *parser) shape() (sizes []int64) {
	p.expect("(")
	for !p.accept(")") {
		rest := p.rest()
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		size, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			p.fail()
			return nil
		}
		sizes, p.text = append(sizes, size), rest[len(digits):]
		if !p.accept(",") && !strings.HasPrefix(p.rest(), ")") {
			p.fail()
		}
	}
	return sizes
}

// identifiers reports that the array holds none.
func (a *array) identifiers() error {
	if len(a.shape) != 1 || a.dtype.kind == 'f' {
		return fmt.Errorf("%s: identifiers are one dimension of integers or texts, this is %s: %w", a.name, a, ps.ErrInvalid)
	}
	a.row = make([]byte, a.dtype.size)
	return nil
}

// vectors reports that the array holds none of so many numbers. One dimension will do for
// vectors of one number.
func (a *array) vectors(width int) error {
	if a.dtype.kind != 'f' || len(a.shape) != 2 && (len(a.shape) != 1 || width != 1) {
		return fmt.Errorf("%s: vectors are two dimensions of f2, f4 or f8, this is %s: %w", a.name, a, ps.ErrInvalid)
	}
	if len(a.shape) == 2 && a.shape[1] != int64(width) {
		return fmt.Errorf("%s: vectors of %d numbers, the table's rows have %d: %w", a.name, a.shape[1], width, ps.ErrInvalid)
	}
	a.row = make([]byte, width*a.dtype.size)
	return nil
}

// String says what the array is, for errors.
func (a *array) String() string {
	return fmt.Sprintf("an array %v of %c%d", a.shape, a.dtype.kind, a.dtype.size)
}

// next reads the next row's bytes, or returns io.EOF after the last, where the file must
// end too.
func (a *array) next() error {
	if a.read == a.shape[0] {
		if _, err := a.in.ReadByte(); err == nil {
			return fmt.Errorf("%s: bytes after its last element: %w", a.name, ps.ErrCorrupt)
		} else if !errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: %w: %w", a.name, ps.ErrCorrupt, err)
		}
		return io.EOF
	}
	if _, err := io.ReadFull(a.in, a.row); err != nil {
		return fmt.Errorf("%s: %w", a.name, ended(err, fmt.Sprintf("it ends after %d of %d elements", a.read, a.shape[0])))
	}
	a.read++
	return nil
}

// appendText appends the element in row as text.
func (a *array) appendText(dst []byte) ([]byte, error) {
	switch a.dtype.kind {
	case 'U':
		return appendUTF32(dst, a.row)
	case 'S':
		return append(dst, strings.TrimRight(string(a.row), "\x00")...), nil
	}
	var padded [8]byte
	copy(padded[:], a.row)
	n := binary.LittleEndian.Uint64(padded[:])
	if a.dtype.kind == 'u' {
		return strconv.AppendUint(dst, n, 10), nil
	}
	unused := 64 - 8*a.dtype.size
	return strconv.AppendInt(dst, int64(n<<unused)>>unused, 10), nil
}
