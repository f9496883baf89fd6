package feature

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// White-box because short ways are compared with the long ones, number by number.

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

func TestPowersOfTwoBoundBucketsAsOtherPowersDo(t *testing.T) {
	const seed = 6
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	l := newLogBuckets(2)
	check := func(v float64) {
		if got, want := l.bucket(v), l.largest(1+v); got != want {
			t.Errorf("%v is in bucket %d, want %d", v, got, want)
		}
		if v > 0 && l.bucket(-v) != -l.bucket(v) {
			t.Errorf("%v is in bucket %d, and %v in %d", v, l.bucket(v), -v, l.bucket(-v))
		}
	}
	for exponent := range 1024 {
		power := math.Ldexp(1, exponent)
		for _, v := range []float64{power - 1, math.Nextafter(power-1, 0), math.Nextafter(power-1, math.Inf(1)), power * (1 + rng.Float64())} {
			check(min(v, math.MaxFloat64))
		}
	}
	check(0)
	check(math.MaxFloat64)
	check(math.SmallestNonzeroFloat64)
}
