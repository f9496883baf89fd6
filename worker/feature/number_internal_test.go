package feature

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// White-box because the short way for whole numbers is compared with strconv, number by
// number.

func TestWholeNumbersAreReadAsStrconvReadsThem(t *testing.T) {
	const seed = 5
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		text := strconv.FormatInt(rng.Int64()>>rng.IntN(64), 10)
		if rng.IntN(4) == 0 {
			text = "-00" + text[min(1, len(text)-1):]
		}
		for _, bits := range []int{32, 64} {
			want, err := strconv.ParseFloat(text, bits)
			if err != nil {
				t.Fatal(err)
			}
			got, err := number([]byte(text), bits)
			if bits == 32 {
				got = float64(float32(got)) // as all who want 32 bits do
			}
			if err != nil || math.Float64bits(got) != math.Float64bits(want) {
				t.Errorf("%q in %d bits is %v (%v), want %v", text, bits, got, err, want)
			}
		}
	}
	for _, text := range []string{"", "-", "--1", "+", "1 ", "1-", "１"} {
		if v, err := number([]byte(text), 64); err == nil {
			t.Errorf("%q is the number %v, want none", text, v)
		}
	}
}
