package feature

import (
	"bytes"
	"errors"
	"math"
	"sort"
	"strconv"
	"unsafe"
)

var errNotNumber = errors.New("not a finite decimal number")

var minus = []byte{'-'}

// Number returns the finite decimal number that text is, by the rules of features, and
// whether it is one.
func Number(text []byte) (float64, bool) {
	v, err := number(text, 64)
	return v, err == nil
}

// number parses a finite decimal number of the given bits, as in "-12.5e3". What
// else Go takes for a number, other languages do not: "inf", "nan", "0x1p-2", "1_000".
func number(text []byte, bits int) (float64, error) {
	if v, ok := whole(text); ok {
		return v, nil
	}
	// ParseFloat keeps no reference to the string, not even in its error, which
	// is dropped because it holds the text.
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), bits)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) || bytes.ContainsAny(text, "xX_") {
		return 0, errNotNumber
	}
	return v, nil
}

// whole parses a whole number of so few digits that float64 has it exactly, as most labels
// and prices are. Who wants 32 bits rounds it once, as ParseFloat would.
func whole(text []byte) (float64, bool) {
	const most = 15
	digits := bytes.TrimPrefix(text, minus)
	if len(digits) == 0 || len(digits) > most {
		return 0, false
	}
	n := 0
	for _, digit := range digits {
		if digit-'0' > 9 {
			return 0, false
		}
		n = 10*n + int(digit-'0')
	}
	if len(digits) < len(text) {
		return -float64(n), true
	}
	return float64(n), true
}

func appendInteger(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

// addBucket adds the bucket that the number in text falls into.
func (x *Extractor) addBucket(in *input, text []byte) error {
	if len(text) == 0 {
		x.add(in, nil, 1)
		return nil
	}
	v, err := number(text, 64)
	if err != nil {
		return err
	}
	if in.Log > 1 {
		x.addInteger(in, in.log.bucket(v))
	} else {
		x.addInteger(in, int64(edgesUpTo(in.Edges, v)))
	}
	return nil
}

// edgesUpTo returns how many of the ascending edges are at most v.
func edgesUpTo(edges []float64, v float64) int {
	return sort.Search(len(edges), func(i int) bool { return edges[i] > v })
}

// logBuckets are buckets that grow by a factor: bucket n of x >= 0 is the largest
// n with base^n <= 1+x, and that of -x is -n.
type logBuckets struct {
	base, logarithm float64
}

func newLogBuckets(base float64) logBuckets { return logBuckets{base, math.Log(base)} }

func (l logBuckets) bucket(v float64) int64 {
	y := 1 + math.Abs(v)
	var n int64
	if l.base == 2 {
		n = int64(math.Float64bits(y)>>52) - 1023 // its exponent: what largest says, for less
	} else {
		n = l.largest(y)
	}
	if v < 0 {
		n = -n
	}
	return n
}

// largest returns the largest n with base^n <= y, which is at least 1.
func (l logBuckets) largest(y float64) int64 {
	quotient := math.Log(y) / l.logarithm
	n := math.Floor(quotient)
	// A quotient of logarithms is off in its last bits, so that 999, say, could
	// fall on either side of 10^3 depending on the machine. The power decides.
	if nearest := math.Round(quotient); math.Abs(quotient-nearest) < 1e-9*max(1, nearest) {
		n = nearest
		if math.Pow(l.base, nearest) > y {
			n--
		}
	}
	return int64(n)
}
