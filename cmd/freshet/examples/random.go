package examples

import (
	"math"
	"math/bits"

	"github.com/freshet-ml/freshet/ps"
)

// random is a stream of random numbers: SplitMix64, whose step is ps.Mix.
type random uint64

func (r *random) next() uint64 {
	x := ps.Mix(uint64(*r))
	*r += 0x9e3779b97f4a7c15 // the step that Mix itself takes first
	return x
}

// below returns a number in [0, n).
func (r *random) below(n int) int {
	hi, _ := bits.Mul64(r.next(), uint64(n))
	return int(hi)
}

// bell returns a number around 0 with standard deviation about sd, never beyond
// 3.5 of them: a sum of four uniform ones, which needs no floating point.
func (r *random) bell(sd int) int {
	const uniformMax, sumSD = 1<<16 - 1, 37837 // √(4/12) · 2^16
	x := r.next()
	sum := int(x&uniformMax + x>>16&uniformMax + x>>32&uniformMax + x>>48)
	return (sum - 2*uniformMax) * sd / sumSD
}

// popularity draws indices with probabilities in proportion to given weights, in
// a time that does not depend on their number.
type popularity struct {
	sums  []uint64 // sums[i] is the weight of 0 to i
	guide []int32  // per top bits of a draw the first index it may mean
	shift uint     // what leaves the top bits of a draw
}

// zipf returns the popularity of n ranks where rank k, from 1, weighs 1/k^exponent.
func zipf(n int, exponent float64) popularity {
	p := popularity{sums: make([]uint64, n), shift: uint(64 - bits.Len(uint(n)))}
	total := uint64(0)
	for i := range p.sums {
		// 2^30 keeps the rarest of ten million ranks above 100 and all sums exact.
		total += uint64(math.Round((1 << 30) * math.Pow(float64(i+1), -exponent)))
		p.sums[i] = total
	}
	p.guide = make([]int32, 1<<(64-p.shift))
	at := 0
	for j := range p.guide {
		low, _ := bits.Mul64(uint64(j)<<p.shift, total)
		for p.sums[at] <= low {
			at++
		}
		p.guide[j] = int32(at)
	}
	return p
}

func (p *popularity) draw(r *random) int {
	x := r.next()
	target, _ := bits.Mul64(x, p.sums[len(p.sums)-1])
	at := int(p.guide[x>>p.shift])
	for p.sums[at] <= target {
		at++
	}
	return at
}
