package quant_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
)

// FuzzDecode gives Decode any bytes: it refuses them as corrupt, or has finite weights of them
// that keep what the package promises when they are encoded once more.
func FuzzDecode(f *testing.F) {
	for e := range ps.Int8 + 1 {
		for _, width := range []int{1, 2, 3, 16} {
			rows := make([]float32, 2*width)
			for i := range rows {
				rows[i] = float32(i) - .3
			}
			encoded := make([]byte, 2*e.RowBytes(table(width)))
			quant.Encode(encoded, e, table(width), row(rows...))
			f.Add(uint8(e), uint8(width-1), encoded)
		}
	}
	f.Add(uint8(ps.Int8), uint8(1), append(row(0x1.020406p121), 0x80, 0x7f)) // the largest scale, and a number below -127
	f.Add(uint8(ps.Int8), uint8(1), append(row(-0x1p-149), 0x80, 0x7f))
	f.Fuzz(func(t *testing.T, encoding, widthLess1 uint8, encoded []byte) {
		e, tab := ps.Encoding(encoding)%(ps.Int8+1), table(int(widthLess1)+1)
		n := len(encoded) / e.RowBytes(tab)
		const guard = 0xa5
		dst := bytes.Repeat([]byte{guard}, n*tab.RowBytes()+8)
		decoded := dst[:n*tab.RowBytes()]
		err := quant.Decode(decoded, e, tab, encoded)
		if !bytes.Equal(dst[len(decoded):], bytes.Repeat([]byte{guard}, 8)) {
			t.Fatalf("%v, width %d: %x: bytes behind dst are written", e, tab.Width, encoded)
		}
		if whole := len(encoded)%e.RowBytes(tab) == 0; err != nil {
			if !errors.Is(err, ps.ErrCorrupt) {
				t.Fatalf("%v, width %d: %x: %v, want ps.ErrCorrupt", e, tab.Width, encoded, err)
			}
			return
		} else if !whole {
			t.Fatalf("%v, width %d: %d bytes are no whole rows of %d, and are not refused", e, tab.Width, len(encoded), e.RowBytes(tab))
		}
		for i, w := range weights(decoded) {
			if math.IsNaN(float64(w)) || math.IsInf(float64(w), 0) {
				t.Fatalf("%v, width %d: %x: weight %d is %v, and is not refused", e, tab.Width, encoded, i, w)
			}
		}
		checkAgain(t, e, tab, decoded)
	})
}

// checkAgain encodes what was decoded: nothing changes but for Int8 by its bound.
func checkAgain(t *testing.T, e ps.Encoding, tab ps.Table, decoded []byte) {
	t.Helper()
	again := through(t, e, tab, decoded)
	if e != ps.Int8 || e.RowBytes(tab) == tab.RowBytes() {
		if !bytes.Equal(again, decoded) {
			t.Fatalf("%v, width %d: %v became %v when encoded again", e, tab.Width, weights(decoded), weights(again))
		}
		return
	}
	before, after := weights(decoded), weights(again)
	for i, w := range before {
		greatest := 0.0
		for _, x := range before[i/tab.Width*tab.Width:][:tab.Width] {
			greatest = max(greatest, math.Abs(float64(x)))
		}
		if off, most := math.Abs(float64(after[i])-float64(w)), bound(e, float64(w), greatest); !(off <= most) {
			t.Fatalf("int8, width %d: %v in a row with %v at most became %v: off by %v, want at most %v", tab.Width, w, greatest, after[i], off, most)
		}
	}
}
