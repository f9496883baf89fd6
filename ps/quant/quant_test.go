package quant_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
)

// bound is how far a decoded weight may be from w, in a row whose greatest is m.
func bound(e ps.Encoding, w, m float64) float64 {
	switch e {
	case ps.Float16:
		if math.Abs(w) > 65504 {
			return math.Abs(w) - 65504
		}
		return max(math.Abs(w)/(1<<11), 0x1p-25)
	case ps.BFloat16:
		return max(math.Abs(w)/(1<<8), 0x1p-134)
	case ps.Int8:
		if m < 0x1p-110 {
			return m
		}
		return m / 253
	}
	return 0
}

func row(weights ...float32) []byte {
	b := make([]byte, 0, 4*len(weights))
	for _, w := range weights {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(w))
	}
	return b
}

func weights(b []byte) []float32 {
	w := make([]float32, len(b)/4)
	for i := range w {
		w[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return w
}

func table(width int) ps.Table { return ps.Table{Kind: ps.Float32, Width: width} }

// through returns what a reader has of the weights.
func through(t *testing.T, e ps.Encoding, tab ps.Table, rows []byte) []byte {
	t.Helper()
	encoded := make([]byte, len(rows)/tab.RowBytes()*e.RowBytes(tab))
	quant.Encode(encoded, e, tab, rows)
	decoded := make([]byte, len(rows))
	if err := quant.Decode(decoded, e, tab, encoded); err != nil {
		t.Fatalf("%v: decoding what was encoded: %v", e, err)
	}
	return decoded
}

func TestEveryWeightDecodesWithinTheBoundOfItsEncoding(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	special := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, 65504, 65519, 65520, -70000, 0x1p-14, 0x1.ffcp-15, 0x1p-24, 0x1p-25, 0x1.8p-25,
		0x1p-126, 0x1p-149, 0x1p-110, 0x1.fp-111, math.MaxFloat32, -math.MaxFloat32, 0x1.fep127, 1 + 0x1p-8, 1 + 0x1p-9, 1 + 0x3p-9,
	}
	for e := range ps.Int8 + 1 {
		for _, width := range []int{1, 2, 3, 16, 33} {
			for range 200 {
				in := make([]float32, 7*width)
				for i := range in {
					switch r.IntN(3) {
					case 0: // of every size
						in[i] = math.Float32frombits(r.Uint32N(0x7f800000) | r.Uint32()&0x80000000)
					case 1:
						in[i] = float32(r.NormFloat64())
					case 2:
						in[i] = special[r.IntN(len(special))]
					}
				}
				out := weights(through(t, e, table(width), row(in...)))
				for i := range in {
					m := 0.0
					for _, w := range in[i/width*width:][:width] {
						m = max(m, math.Abs(float64(w)))
					}
					want := bound(e, float64(in[i]), m)
					if width == 1 && e == ps.Int8 {
						want = 0 // travels plain
					}
					if e == ps.BFloat16 && math.Abs(float64(in[i])) > 0x1.fep127 {
						want = math.Abs(float64(in[i])) - 0x1.fep127
					}
					if off := math.Abs(float64(out[i]) - float64(in[i])); !(off <= want) {
						t.Fatalf("%v, width %d: %v (%x) in a row with %v at most became %v: off by %v, want at most %v",
							e, width, in[i], math.Float32bits(in[i]), m, out[i], off, want)
					}
					if in[i] == 0 && out[i] != 0 {
						t.Fatalf("%v: zero became %v", e, out[i])
					}
				}
			}
		}
	}
}

func TestWhatWasRoundedOnceIsNotRoundedAgain(t *testing.T) {
	for _, e := range []ps.Encoding{ps.Float16, ps.BFloat16} {
		for bits := range 1 << 16 {
			encoded := binary.LittleEndian.AppendUint16(nil, uint16(bits))
			decoded, again := make([]byte, 4), make([]byte, 2)
			if quant.Decode(decoded, e, table(1), encoded) != nil {
				continue // not finite
			}
			quant.Encode(again, e, table(1), decoded)
			if got := binary.LittleEndian.Uint16(again); got != uint16(bits) {
				t.Fatalf("%v %#04x decoded to %v, which was encoded as %#04x", e, bits, weights(decoded), got)
			}
		}
	}
}

func TestWhatIsNoRowOfTheEncodingIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		e       ps.Encoding
		width   int
		encoded []byte
		rows    int
	}{
		"half a row":           {ps.Float16, 4, make([]byte, 6), 1},
		"room for another row": {ps.Int8, 4, make([]byte, 8), 2},
		"plain NaN":            {ps.Plain, 2, row(1, float32(math.NaN())), 1},
		"infinite half":        {ps.Float16, 1, []byte{0, 0x7c}, 1},
		"NaN bfloat16":         {ps.BFloat16, 1, []byte{0xff, 0xff}, 1},
		"scale NaN":            {ps.Int8, 2, append(row(float32(math.NaN())), 1, 1), 1},
		"scale too large":      {ps.Int8, 2, append(row(math.MaxFloat32), 1, 2), 1},
		"plain half a row":     {ps.Plain, 2, make([]byte, 4), 1},
	} {
		err := quant.Decode(make([]byte, c.rows*4*c.width), c.e, table(c.width), c.encoded)
		if !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: %v: want %v", name, err, ps.ErrCorrupt)
		}
	}
}

func TestSmallRowsOfBytesAreAThirdOfTheirFloats(t *testing.T) {
	for width, want := range map[int]int{1: 4, 2: 6, 16: 20, 64: 68} {
		if got := ps.Int8.RowBytes(table(width)); got != want {
			t.Errorf("int8 row of %d weights: %d bytes, want %d", width, got, want)
		}
	}
	if share := float64(ps.Int8.RowBytes(table(16))) / float64(table(16).RowBytes()); share > .35 {
		t.Errorf("int8 rows of 16 weights are %.3f of the bytes, want at most .35", share)
	}
}

func BenchmarkEncode4096x16(b *testing.B) { bench(b, true) }

func BenchmarkDecode4096x16(b *testing.B) { bench(b, false) }

func bench(b *testing.B, encode bool) {
	t := table(16)
	rows := make([]byte, 4096*t.RowBytes())
	for i := 0; i < len(rows); i += 4 {
		binary.LittleEndian.PutUint32(rows[i:], math.Float32bits(float32(rand.NormFloat64())))
	}
	for e := range ps.Int8 + 1 {
		b.Run(e.String(), func(b *testing.B) {
			encoded := make([]byte, 4096*e.RowBytes(t))
			quant.Encode(encoded, e, t, rows)
			b.SetBytes(int64(len(rows)))
			for b.Loop() {
				if encode {
					quant.Encode(encoded, e, t, rows)
				} else if err := quant.Decode(rows, e, t, encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
