package vectors

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/freshet-ml/freshet/ps"
)

// table is rows of two columns of a Parquet file.
type table struct {
	file         *os.File
	rows, read   int64
	ids, vectors column
	// unsigned is set where the identifiers are unsigned integers.
	unsigned bool
	text     []byte
}

// openParquet opens two columns of a Parquet file, which it closes in the end.
func openParquet(s Source, file *os.File, size int64) (_ rows, err error) {
	defer damaged(&err)
	f, err := parquet.OpenFile(file, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ps.ErrCorrupt, err)
	}
	t := &table{file: file, rows: f.NumRows()}
	ids, err := leafOf(f, s.IDs)
	if err != nil {
		return nil, err
	}
	vectors, err := leafOf(f, s.Vectors)
	if err != nil {
		return nil, err
	}
	if t.unsigned, err = identifiers(ids); err != nil {
		return nil, fmt.Errorf("column %q: %w", s.IDs, err)
	}
	if !numbers(vectors) {
		return nil, fmt.Errorf("column %q: vectors are lists of float or double, or fixed bytes with float32 in them, little endian; this is %s: %w", s.Vectors, vectors, ps.ErrInvalid)
	}
	t.ids, t.vectors = newColumn(s.IDs, ids), newColumn(s.Vectors, vectors)
	return t, nil
}

// leafOf returns what holds the values of a column.
func leafOf(f *parquet.File, name string) (*parquet.Column, error) {
	c := f.Root().Column(name)
	if c == nil {
		var names []string
		for _, other := range f.Root().Columns() {
			names = append(names, other.Name())
		}
		return nil, fmt.Errorf("it has no column %q: it has %s: %w", name, strings.Join(names, ", "), ps.ErrInvalid)
	}
	for !c.Leaf() {
		if len(c.Columns()) != 1 {
			return nil, fmt.Errorf("column %q is a record of %d columns: %w", name, len(c.Columns()), ps.ErrInvalid)
		}
		c = c.Columns()[0]
	}
	return c, nil
}

// identifiers reports whether integers of a column are unsigned, or that it has none and
// no texts either.
func identifiers(c *parquet.Column) (unsigned bool, err error) {
	var logical format.LogicalTypeValue
	if l := c.Type().LogicalType(); l != nil {
		logical = l.Value
	}
	integer, isInteger := logical.(*format.IntType)
	_, isDecimal := logical.(*format.DecimalType)
	kind := c.Type().Kind()
	text := kind == parquet.ByteArray && !isDecimal
	number := (kind == parquet.Int32 || kind == parquet.Int64) && (logical == nil || isInteger)
	if c.MaxRepetitionLevel() > 0 || !text && !number {
		return false, fmt.Errorf("identifiers are integers or texts, one for each row; this is %s: %w", c, ps.ErrInvalid)
	}
	return isInteger && !integer.IsSigned, nil
}

// numbers reports whether a column holds vectors.
func numbers(c *parquet.Column) bool {
	switch c.Type().Kind() {
	case parquet.Float, parquet.Double:
		return c.MaxRepetitionLevel() == 1
	case parquet.FixedLenByteArray:
		return c.MaxRepetitionLevel() == 0 && c.Type().Length()%4 == 0
	}
	return false
}

// fits knows the width of packed vectors. Lists may differ from one another.
func (t *table) fits(width int) error {
	if typ := t.vectors.leaf.Type(); typ.Kind() == parquet.FixedLenByteArray && typ.Length() != 4*width {
		return fmt.Errorf("%s: column %q: vectors of %d numbers, the table's rows have %d: %w", t.file.Name(), t.vectors.name, typ.Length()/4, width, ps.ErrInvalid)
	}
	return nil
}

func (t *table) next(vector []float64) (identifier []byte, err error) {
	defer damaged(&err)
	if t.read == t.rows {
		return nil, io.EOF
	}
	t.read++
	if err := t.identifier(); err != nil {
		return nil, err
	}
	first, err := t.vectors.take()
	if err != nil {
		return nil, err
	}
	if first.Kind() == parquet.FixedLenByteArray && len(first.ByteArray()) == 4*len(vector) {
		decodeFloats(vector, first.ByteArray(), 4)
		return t.text, nil
	}
	return t.text, t.list(first, vector)
}

// identifier takes the next identifier as text.
func (t *table) identifier() error {
	v, err := t.ids.take()
	if err != nil {
		return err
	}
	t.text = t.text[:0]
	switch {
	case v.IsNull():
		return fmt.Errorf("it has no identifier: %w", ps.ErrInvalid)
	case v.Kind() == parquet.ByteArray:
		t.text = append(t.text, v.ByteArray()...)
	case v.Kind() == parquet.Int32 && t.unsigned:
		t.text = strconv.AppendUint(t.text, uint64(v.Uint32()), 10)
	case v.Kind() == parquet.Int32:
		t.text = strconv.AppendInt(t.text, int64(v.Int32()), 10)
	case t.unsigned:
		t.text = strconv.AppendUint(t.text, v.Uint64(), 10)
	default:
		t.text = strconv.AppendInt(t.text, v.Int64(), 10)
	}
	return nil
}

// list takes the rest of a list that begins with v.
func (t *table) list(v parquet.Value, vector []float64) error {
	n := 0
	for ; ; n++ {
		if n < len(vector) && !v.IsNull() {
			if vector[n] = float64(v.Float()); v.Kind() == parquet.Double {
				vector[n] = v.Double()
			}
		}
		if v.IsNull() {
			return fmt.Errorf("its vector, or element %d of it, is missing: %w", n, ps.ErrInvalid)
		}
		goesOn, err := t.vectors.goesOn()
		if err != nil {
			return err
		}
		if !goesOn {
			break
		}
		if v, err = t.vectors.take(); err != nil {
			return err
		}
	}
	if n+1 != len(vector) {
		return fmt.Errorf("a vector of %d numbers, the table's rows have %d: %w", n+1, len(vector), ps.ErrInvalid)
	}
	return nil
}

func (t *table) close() (err error) {
	defer damaged(&err)
	return errors.Join(t.ids.pages.Close(), t.vectors.pages.Close(), t.file.Close())
}

// damaged makes an error of a panic: the library has some for files that are not what they
// say.
func damaged(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("reading it crashed, so it is not what it says: %v: %w", p, ps.ErrCorrupt)
	}
}

// column is the values of a column, one after the other.
type column struct {
	name   string
	leaf   *parquet.Column
	pages  parquet.Pages
	page   parquet.Page
	values parquet.ValueReader // of page, until it is at its end
	buffer []parquet.Value
	have   []parquet.Value // of buffer, not yet taken
}

func newColumn(name string, leaf *parquet.Column) column {
	return column{name: name, leaf: leaf, pages: leaf.Pages(), buffer: make([]parquet.Value, 1024)}
}

// fill makes sure that there is a value to take, or returns io.EOF.
func (c *column) fill() error {
	for len(c.have) == 0 {
		if c.values == nil {
			if c.page != nil {
				parquet.Release(c.page)
				c.page = nil
			}
			page, err := c.pages.ReadPage()
			if errors.Is(err, io.EOF) {
				return io.EOF
			}
			if err != nil {
				return fmt.Errorf("column %q: %w: %w", c.name, ps.ErrCorrupt, err)
			}
			c.page, c.values = page, page.Values()
		}
		n, err := c.values.ReadValues(c.buffer)
		if c.have = c.buffer[:n]; err != nil || n == 0 {
			c.values = nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("column %q: %w: %w", c.name, ps.ErrCorrupt, err)
		}
	}
	return nil
}

// take returns the next value, which is valid until the next call.
func (c *column) take() (parquet.Value, error) {
	if err := c.fill(); err != nil {
		return parquet.Value{}, ended(err, fmt.Sprintf("column %q ends before the file's last row", c.name))
	}
	v := c.have[0]
	c.have = c.have[1:]
	return v, nil
}

// goesOn reports whether the next value is of the same row.
func (c *column) goesOn() (bool, error) {
	if err := c.fill(); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	return c.have[0].RepetitionLevel() > 0, nil
}
