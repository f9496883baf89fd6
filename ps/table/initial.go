package table

import (
	"fmt"
	"hash/fnv"
	"math"

	"github.com/freshet-ml/freshet/ps"
)

// Initial computes what rows are before their first update: a function of the
// layout's seed, the table's name and the key, the same to the last bit on every
// machine. It is a value without state, safe for concurrent use.
//
// The elements of a row are drawn from a SplitMix64 generator of its own, whose
// seed is a hash of the three. Only operations that IEEE 754 rounds correctly
// are used (no function of package math but the exact Frexp, and the root), and
// every product is rounded before it is added, since Go may otherwise fuse the
// two on some processors.
type Initial struct {
	name  string
	scale float32
	base  uint64
}

// scaleMax keeps rows within what package optim can compute with.
const scaleMax = 1e6

// NewInitial returns the initializer of a table. It wraps ps.ErrInvalid if it is
// unknown, if its scale is out of range, or if the rows are not float32 and not
// zero.
func NewInitial(t ps.Table, seed uint64) (Initial, error) {
	name, scale := t.Initializer.Name, t.Initializer.Scale
	switch {
	case name == ps.Zero && scale != 0:
		return Initial{}, fmt.Errorf("initializer %s: scale = %g: it has none, leave it out: %w", name, scale, ps.ErrInvalid)
	case name == ps.Zero:
	case name != ps.Uniform && name != ps.Normal:
		return Initial{}, fmt.Errorf("initializer name %q: want one of %s, %s, %s: %w", name, ps.Zero, ps.Uniform, ps.Normal, ps.ErrInvalid)
	case t.Kind != ps.Float32:
		return Initial{}, fmt.Errorf("initializer name %q: rows of %v begin at %s: %w", name, t.Kind, ps.Zero, ps.ErrInvalid)
	case !(1e-12 <= scale && scale <= scaleMax): // so that NaN is refused
		return Initial{}, fmt.Errorf("initializer %s: scale = %g: want 1e-12 to %g: %w", name, scale, float64(scaleMax), ps.ErrInvalid)
	}
	hash := fnv.New64a()
	hash.Write([]byte(t.Name))
	return Initial{name: name, scale: float32(scale), base: ps.Mix(ps.Mix(seed) ^ hash.Sum64())}, nil
}

// Zero reports whether all rows begin at zero.
func (v Initial) Zero() bool { return v.name == ps.Zero }

// Fill writes the initial weights of key's row to dst, which is (width).
func (v Initial) Fill(dst []float32, key ps.Key) {
	draw := ps.Mix(v.base ^ uint64(key))
	switch v.name {
	case ps.Uniform:
		for i := range dst {
			dst[i] = uniform(ps.Mix(draw)) * v.scale
			draw += golden
		}
	case ps.Normal:
		for i := range dst {
			dst[i] = float32(normal(ps.Mix(draw))) * v.scale
			draw += golden
		}
	default:
		clear(dst)
	}
}

// golden is the step of SplitMix64's counter; ps.Mix is one step and its
// finalizer.
const golden = 0x9e3779b97f4a7c15

// uniform turns 64 random bits into a multiple of 2^-23 in [-1, 1).
func uniform(bits uint64) float32 {
	return float32(int64(bits>>40)-1<<23) * 0x1p-23
}

// normal turns 64 random bits into a normal deviate, by the inverse of the normal
// distribution function at an odd multiple of 2^-53 in (0, 1). Its relative error
// is about 1e-7, that of a float32.
//
// Source: Wichura 1988, Algorithm AS 241: The Percentage Points of the Normal
// Distribution, routine PPND7 (doi:10.2307/2347330).
func normal(bits uint64) float64 {
	p := float64(bits>>12<<1|1) * 0x1p-53
	q := p - 0.5
	if math.Abs(q) <= 0.425 {
		r := 0.180625 - float64(q*q)
		return q * polynomial(r, 3.3871327179, 50.434271938, 159.29113202, 59.109374720) /
			polynomial(r, 1, 17.895169469, 78.757757664, 67.187563600)
	}
	r := math.Sqrt(-logarithm(math.Min(p, 1-p)))
	if r <= 5 {
		r -= 1.6
		r = polynomial(r, 1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103) /
			polynomial(r, 1, 0.73700164250, 0.12021132975, 0)
	} else {
		r -= 5
		r = polynomial(r, 6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997) /
			polynomial(r, 1, 0.24197894225, 0.012258202635, 0)
	}
	return math.Copysign(r, q)
}

// polynomial returns a + b x + c x² + d x³, rounding every product.
func polynomial(x, a, b, c, d float64) float64 {
	return a + float64(x*(b+float64(x*(c+float64(x*d)))))
}

// logarithm returns ln x for normal x > 0. math.Log is in assembly on some
// machines and need not agree in the last bit.
//
// x = m 2^e with m in [√½, √2), and ln m = 2 (s + s³/3 + s⁵/5 + …) for
// s = (m-1)/(m+1), which is at most 0.172: ten terms are exact to 1e-17.
func logarithm(x float64) float64 {
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m, e = 2*m, e-1
	}
	s := (m - 1) / (m + 1)
	square := float64(s * s)
	sum := 0.0
	for k := 19; k >= 1; k -= 2 {
		sum = float64(sum*square) + 1/float64(k)
	}
	return float64(2*float64(s*sum)) + float64(float64(e)*math.Ln2)
}
