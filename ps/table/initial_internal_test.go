package table

import (
	"math"
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// White-box, because a deviation of the quantile function is far below what the
// rounded rows could show in the tails.
func TestNormalIsTheInverseOfTheDistribution(t *testing.T) {
	worst := 0.0
	check := func(bits uint64) {
		p := float64(bits>>12<<1|1) * 0x1p-53
		want := -math.Sqrt2 * math.Erfinv(1-2*p)
		if p < 1e-3 {
			want = -math.Sqrt2 * erfcinv(2*p)
		} else if p > 1-1e-3 {
			want = math.Sqrt2 * erfcinv(2*(1-p))
		}
		got := normal(bits)
		difference := math.Abs(got-want) / math.Max(math.Abs(want), 1e-300)
		worst = math.Max(worst, difference)
		// PPND7's stated accuracy is 1 part in 10^7.
		if !(difference <= 3e-7) {
			t.Fatalf("normal(%#x), p = %g: %v, want %v", bits, p, got, want)
		}
	}
	for i := range uint64(200_000) {
		check(ps.Mix(i))
	}
	for shift := range 52 { // both tails, down to 2^-53
		check(1 << (12 + shift))
		check(^uint64(0) - 1<<(12+shift))
	}
	check(0)
	check(math.MaxUint64)
	t.Logf("largest relative difference %.2g", worst)
}

// erfcinv inverts math.Erfc for small x by Newton's method on its logarithm.
func erfcinv(x float64) float64 {
	y := math.Sqrt(-math.Log(x))
	for range 100 {
		f := math.Log(math.Erfc(y)) - math.Log(x)
		y += f * math.Erfc(y) * math.Sqrt(math.Pi) / 2 * math.Exp(y*y)
	}
	return y
}

func TestLogarithm(t *testing.T) {
	for i := range uint64(100_000) {
		x := float64(ps.Mix(i)>>11|1) * 0x1p-53
		if got, want := logarithm(x), math.Log(x); !(math.Abs(got-want) <= 1e-15*math.Abs(want)+2e-16) {
			t.Fatalf("logarithm(%v): %v, want %v", x, got, want)
		}
	}
}
