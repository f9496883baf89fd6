// Package quant makes rows of float32 weights smaller for readers, and floats of them
// again. It knows nothing of tables' contents or of messages: a row goes in, a row of
// ps.Encoding.RowBytes comes out.
//
// The one idea to keep in mind: an encoding is chosen by the reader and bounds the error of
// every weight w by itself or by its row, so that what it does to a model can be told
// beforehand:
//
//   - Plain: none.
//   - Float16 rounds to the nearest (ties to even): by at most |w|/2¹¹, or 2⁻²⁵ below 2⁻¹⁴.
//     What is beyond ±65504 becomes ±65504.
//   - BFloat16 rounds alike: by at most |w|/2⁸, or 2⁻¹³⁴ below 2⁻¹²⁶. What is beyond its
//     greatest number, some 3.39e38, becomes that.
//   - Int8: with m the greatest |w| of the row, by at most m/253, or m if that is below
//     2⁻¹¹⁰: then the row is all zeros.
//
// Invariants: what is encoded of finite weights decodes to finite weights; zero stays zero;
// encoding what was decoded changes nothing more, but for Int8 by its bound.
package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// Int8's numbers go from -levels to levels, and rows whose greatest weight is below least
// are all zeros, so that the scale never is subnormal.
const (
	levels     = 127
	least      = 0x1p-110
	scaleMax   = 0x1.020406p121 // 127 of it are finite
	scaleBytes = 4
)

const (
	float16Max  = 65504
	bfloat16Max = 0x7f7f // bits
)

// Encode writes rows of t, little-endian and one behind the other, to dst as e has them. The
// weights of a float32 table have to be finite. dst has exactly e.RowBytes(t) for each row.
func Encode(dst []byte, e ps.Encoding, t ps.Table, rows []byte) {
	to, from := e.RowBytes(t), t.RowBytes()
	if len(rows)%from != 0 || len(dst) != len(rows)/from*to {
		panic(fmt.Sprintf("quant: %d bytes of rows of %d to %d bytes of rows of %d", len(rows), from, len(dst), to))
	}
	switch {
	case to == from:
		copy(dst, rows)
	case e == ps.Int8:
		for ; len(rows) > 0; rows, dst = rows[from:], dst[to:] {
			encodeInt8(dst[:to], rows[:from])
		}
	case e == ps.Float16:
		for i := 0; i < len(rows); i += 4 {
			binary.LittleEndian.PutUint16(dst[i/2:], float16Of(weight(rows[i:])))
		}
	case e == ps.BFloat16:
		for i := 0; i < len(rows); i += 4 {
			binary.LittleEndian.PutUint16(dst[i/2:], bfloat16Of(weight(rows[i:])))
		}
	}
}

// Decode writes encoded rows of t to dst, which has exactly t.RowBytes() for each, as
// little-endian weights. It wraps ps.ErrCorrupt if there is no whole number of rows, dst's
// length is another, or a weight would not be finite; dst then has nothing of use.
func Decode(dst []byte, e ps.Encoding, t ps.Table, encoded []byte) error {
	from, to := e.RowBytes(t), t.RowBytes()
	if len(encoded)%from != 0 || len(dst) != len(encoded)/from*to {
		return fmt.Errorf("%d bytes of %v rows of %d for %d bytes of rows of %d: %w", len(encoded), e, from, len(dst), to, ps.ErrCorrupt)
	}
	switch {
	case to == from:
		copy(dst, encoded)
		if t.Kind != ps.Float32 {
			return nil
		}
	case e == ps.Int8:
		for row := 0; row*from < len(encoded); row++ {
			decodeInt8(dst[row*to:][:to], encoded[row*from:][:from])
		}
	case e == ps.Float16:
		for i := 0; i < len(encoded); i += 2 {
			putWeight(dst[2*i:], float16From(binary.LittleEndian.Uint16(encoded[i:])))
		}
	case e == ps.BFloat16:
		for i := 0; i < len(encoded); i += 2 {
			binary.LittleEndian.PutUint32(dst[2*i:], uint32(binary.LittleEndian.Uint16(encoded[i:]))<<16)
		}
	}
	return finite(dst, e, to)
}

// finite wraps ps.ErrCorrupt if a weight is not.
func finite(rows []byte, e ps.Encoding, rowBytes int) error {
	const exponent = 0x7f800000
	for i, bits := range ps.View[int32](rows) {
		if bits&exponent == exponent {
			return fmt.Errorf("row %d as %v: weight %d is %v: %w", 4*i/rowBytes, e, 4*i%rowBytes/4, weight(rows[4*i:]), ps.ErrCorrupt)
		}
	}
	return nil
}

func weight(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }

func putWeight(b []byte, w float32) { binary.LittleEndian.PutUint32(b, math.Float32bits(w)) }

func encodeInt8(dst, row []byte) {
	var bits uint32 // of the greatest: without their signs, floats are in the order of their bits
	for rest := row; len(rest) >= 4; rest = rest[4:] {
		bits = max(bits, binary.LittleEndian.Uint32(rest)&^(1<<31))
	}
	greatest := math.Float32frombits(bits)
	if greatest < least {
		clear(dst)
		return
	}
	scale := min(greatest/levels, scaleMax)
	putWeight(dst, scale)
	inverse := 1 / float64(scale)
	dst = dst[scaleBytes:]
	for rest := row; len(rest) >= 4 && len(dst) > 0; rest, dst = rest[4:], dst[1:] {
		// Rounding of the scale can make 127 of it less than the greatest, never by a half. The
		// sum leaves no room for fractions: its last bits are the number, rounded to even.
		dst[0] = byte(math.Float64bits(float64(weight(rest))*inverse + 0x1.8p52))
	}
}

func decodeInt8(dst, encoded []byte) {
	scale := weight(encoded)
	for _, q := range encoded[scaleBytes:] {
		putWeight(dst, scale*float32(int8(q)))
		dst = dst[4:]
	}
}

// bfloat16Of rounds to the nearest, ties to even, by adding just under half of the last bit
// that stays, and all of the half if that bit is odd.
func bfloat16Of(w float32) uint16 {
	b := math.Float32bits(w)
	b += 0x7fff + b>>16&1
	if magnitude := uint16(b>>16) & 0x7fff; magnitude > bfloat16Max {
		return uint16(b>>16)&0x8000 | bfloat16Max
	}
	return uint16(b >> 16)
}

func float16Of(w float32) uint16 {
	b := math.Float32bits(w)
	sign, magnitude := uint16(b>>16)&0x8000, b&0x7fffffff
	switch {
	case magnitude >= math.Float32bits(float16Max):
		return sign | 0x7bff
	case magnitude < 0x38800000: // below 2⁻¹⁴: a multiple of 2⁻²⁴
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(magnitude))*0x1p24))
	}
	magnitude += 0xfff + magnitude>>13&1
	return sign | uint16(magnitude>>13-(127-15)<<10)
}

func float16From(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // subnormal: exact as a float32
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}
