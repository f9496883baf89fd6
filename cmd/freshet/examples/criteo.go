package examples

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
)

// CriteoName names the stream of Criteo; it is no example of its own.
const CriteoName = "criteo"

// Fields of an event of Criteo.
const (
	criteoNumeric     = 13
	criteoCategorical = len(criteoCardinalities)
	criteoFields      = criteoNumeric + criteoCategorical
	criteoPairs       = 6
	criteoRank        = 8 // of a pair's interaction
	criteoValueBits   = 40
)

// criteoCardinalities are roughly those of the categorical fields of the Criteo Kaggle
// display-advertising set.
var criteoCardinalities = [...]float64{
	1460, 583, 2000000, 1000000, 305, 24, 12517, 633, 3, 93145, 5683, 1500000, 3194,
	27, 14992, 1200000, 10, 5652, 2173, 4, 1400000, 18, 15, 286181, 105, 142572,
}

// Criteo describes a stream of clicks whose fields and cardinalities are those of the
// Criteo display-advertising set: 13 numbers in logarithmic buckets and 26 categories
// with popularities by a power law. An event is clicked with probability
//
//	p = 1 / (1 + exp(-η)),   η = -1.9
//	  + Σ over numbers     0.12 · w[field, bucket]
//	  + Σ over categories  0.22 · w[field, category]
//	  + 0.1 · Σ over 6 pairs of categories  <v[a], v'[b]>, with 8 factors each
//
// where all w, v and v' are standard normal, by a hash of their field and value. It is
// the work by which Freshet is compared with other systems: unlike the shop's it never
// changes, and so what is to be learned is large but simple.
//
// The probabilities are floating-point numbers of package math: on another kind of
// processor one event in very many may differ.
type Criteo struct {
	// Events is how many events to write; 0 means 1,000,000.
	Events int64
	// Seed decides everything that is drawn; the weights are always the same.
	Seed uint64
}

// Valid returns an error that wraps ps.ErrInvalid if a setting is out of range.
func (c Criteo) Valid() error {
	if c.Events < 0 {
		return fmt.Errorf("criteo of %d events: want none below 0: %w", c.Events, ps.ErrInvalid)
	}
	return nil
}

// Write writes the events as Vowpal Wabbit text: the label, 1 or -1, then in namespace
// f one feature per field, its number from 0, an underscore, and its value in
// hexadecimal digits. It returns what the best possible model would reach on them.
//
// Progress, memory and errors are as in Shop.Write.
func (c Criteo) Write(ctx context.Context, w io.Writer, progress func(events int64)) (Best, error) {
	if err := c.Valid(); err != nil {
		return Best{}, err
	}
	if c.Events == 0 {
		c.Events = eventsDefault
	}
	const full = 1 << 18 // large enough that a write's own cost vanishes
	buf := make([]byte, 0, full+1<<12)
	sim, best := newCriteoSimulation(c.Seed), newTally()
	for written := int64(1); written <= c.Events; written++ {
		probability, clicked := sim.next()
		best.add(min(max(int(math.Round(probability*million)), 1), million-1), clicked)
		if buf = sim.append(buf, clicked); len(buf) < full && written < c.Events {
			continue
		}
		if err := ctx.Err(); err != nil {
			return Best{}, fmt.Errorf("write the events of criteo, %d of %d written: %w", written, c.Events, err)
		}
		if _, err := w.Write(buf); err != nil {
			return Best{}, fmt.Errorf("write the events of criteo up to %d of %d: %w", written, c.Events, err)
		}
		buf = buf[:0]
		if progress != nil {
			progress(written)
		}
	}
	return best.result(), nil
}

// criteoSimulation draws events. It has one owner.
type criteoSimulation struct {
	random xoroshiro
	zipf   [criteoCategorical]powerLaw
	values [criteoFields]uint64 // of the event drawn last
}

func newCriteoSimulation(seed uint64) *criteoSimulation {
	s := &criteoSimulation{}
	s.random[0] = ps.Mix(seed)
	s.random[1] = ps.Mix(s.random[0])
	for i, n := range criteoCardinalities {
		s.zipf[i] = newPowerLaw(n, 1.05)
	}
	return s
}

// next draws an event and returns its true probability of a click and whether it was
// clicked. Products are rounded by conversions before they are added, so that no
// processor fuses the two.
func (s *criteoSimulation) next() (probability float64, clicked bool) {
	score := -1.9
	for field := range criteoNumeric {
		root := -math.Log(1-s.random.uniform()) * float64(1+field%4)
		number := int(root * root)
		s.values[field] = uint64(math.Log1p(float64(number)) * 2)
		score += float64(0.12 * normal(s.id(field)))
	}
	for i := range s.zipf {
		field := criteoNumeric + i
		s.values[field] = uint64(s.zipf[i].draw(&s.random))
		score += float64(0.22 * normal(s.id(field)))
	}
	for pair := range uint64(criteoPairs) {
		a := s.id(criteoNumeric + 4*int(pair))
		b := s.id(criteoNumeric + 4*int(pair) + 2)
		product := 0.0
		for factor := uint64(1); factor <= criteoRank; factor++ {
			product += float64(normal(a*31+factor) * normal(b*37+factor))
		}
		score += float64(0.1 * product)
	}
	probability = 1 / (1 + math.Exp(-score))
	return probability, s.random.uniform() < probability
}

// id returns what the weights of a field's value are hashed from.
func (s *criteoSimulation) id(field int) uint64 {
	return uint64(field+1)<<criteoValueBits | s.values[field]
}

// append appends the event's line.
func (s *criteoSimulation) append(line []byte, clicked bool) []byte {
	label := "-1 |f"
	if clicked {
		label = "1 |f"
	}
	line = append(line, label...)
	for field, value := range s.values {
		line = append(line, ' ')
		line = strconv.AppendInt(line, int64(field), 10)
		line = append(line, '_')
		line = strconv.AppendUint(line, value, 16)
	}
	return append(line, '\n')
}

// xoroshiro is xoroshiro128+ with the constants of 2018 (Blackman and Vigna 2018,
// Scrambled Linear Pseudorandom Number Generators, arXiv:1805.01407).
type xoroshiro [2]uint64

func (x *xoroshiro) next() uint64 {
	a, b := x[0], x[1]
	sum := a + b
	b ^= a
	x[0] = bits.RotateLeft64(a, 24) ^ b ^ b<<16
	x[1] = bits.RotateLeft64(b, 37)
	return sum
}

// uniform returns a number in [0, 1).
func (x *xoroshiro) uniform() float64 { return float64(x.next()>>11) / (1 << 53) }

// powerLaw draws whole numbers from 1 to below n, k with a probability in proportion
// to about k^-exponent: the whole part of a continuous power law, by the inverse of its
// distribution.
type powerLaw struct{ span, power float64 }

func newPowerLaw(n, exponent float64) powerLaw {
	rise := 1 - exponent
	return powerLaw{span: 1 - math.Pow(n, rise), power: 1 / rise}
}

func (p powerLaw) draw(x *xoroshiro) int {
	return int(math.Pow(1-float64(x.uniform()*p.span), p.power))
}

// normal returns the standard normal number that belongs to a hash (Box and Muller
// 1958, A Note on the Generation of Random Normal Deviates).
func normal(hash uint64) float64 {
	radius := float64(ps.Mix(hash)>>11+1) * (1.0 / (1<<53 + 1))
	angle := float64(ps.Mix(hash^0x5555)>>11) / (1 << 53)
	return math.Sqrt(-2*math.Log(radius)) * math.Cos(2*math.Pi*angle)
}
