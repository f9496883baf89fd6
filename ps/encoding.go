package ps

import "fmt"

// Encoding says how a row of float32 weights travels to a reader. Rows of other kinds,
// and rows that would not become smaller, travel plain. Its numbers reach the wire:
// append only.
type Encoding uint8

// The encodings. How far a decoded weight may be from the weight is said in ps/quant.
const (
	Plain    Encoding = iota
	Float16           // IEEE 754 half precision
	BFloat16          // the upper half of a float32
	Int8              // a float32 scale, then a signed byte for each weight
)

// String returns the name used in flags and messages.
func (e Encoding) String() string {
	switch e {
	case Plain:
		return "plain"
	case Float16:
		return "float16"
	case BFloat16:
		return "bfloat16"
	case Int8:
		return "int8"
	}
	return fmt.Sprintf("encoding(%d)", uint8(e))
}

// ParseEncoding returns the encoding of the given name. It wraps ErrInvalid.
func ParseEncoding(name string) (Encoding, error) {
	for e := range Int8 + 1 {
		if e.String() == name {
			return e, nil
		}
	}
	return 0, fmt.Errorf("encoding %q: want plain, float16, bfloat16 or int8: %w", name, ErrInvalid)
}

// RowBytes returns the bytes of a row of the table as it travels.
func (e Encoding) RowBytes(t Table) int {
	if t.Kind != Float32 {
		return t.RowBytes()
	}
	switch e {
	case Float16, BFloat16:
		return 2 * t.Width
	case Int8:
		return min(4+t.Width, t.RowBytes())
	}
	return t.RowBytes()
}
