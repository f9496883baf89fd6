package vectors

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/freshet-ml/freshet/ps"
)

// appendUTF32 appends the text of an element of UTF-32, which zeros fill to its length.
func appendUTF32(dst, element []byte) ([]byte, error) {
	for len(element) >= 4 && binary.LittleEndian.Uint32(element[len(element)-4:]) == 0 {
		element = element[:len(element)-4]
	}
	for ; len(element) >= 4; element = element[4:] {
		r := rune(binary.LittleEndian.Uint32(element))
		if !utf8.ValidRune(r) {
			return dst, fmt.Errorf("the identifier has a character that Unicode does not have: %w", ps.ErrCorrupt)
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, nil
}

// decodeFloats sets dst to little-endian floats of the given size: 2, 4 or 8 bytes.
func decodeFloats(dst []float64, b []byte, size int) {
	for i := range dst {
		at := b[i*size:]
		switch size {
		case 2:
			dst[i] = half(binary.LittleEndian.Uint16(at))
		case 4:
			dst[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(at)))
		default:
			dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(at))
		}
	}
}

// half returns the value of an IEEE 754 binary16.
func half(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10&31), float64(bits&1023)
	if bits>>15 == 1 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * fraction * 0x1p-24
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}
