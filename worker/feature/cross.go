package feature

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

var (
	errCombinations = fmt.Errorf("more than %d combinations", CombinationsMax)
	errProduct      = errors.New("the product of the values is not finite")
)

// addCross adds every combination of the values of the crossed inputs, the last
// one's changing fastest. A combination's value is the product of its values.
func (x *Extractor) addCross(in *input) error {
	combinations := 1
	for _, i := range in.of {
		from, to := x.span(i)
		if combinations *= to - from; combinations > CombinationsMax {
			return errCombinations
		}
	}
	for c := range combinations {
		key, value := in.seed, float32(1)
		x.eachPart(in, combinations, c, func(at int) {
			key = chain(key, x.keys[at])
			value *= x.values[at]
		})
		if math.IsInf(float64(value), 0) || math.IsNaN(float64(value)) {
			return errProduct
		}
		x.addCombination(in, key, value, combinations, c)
	}
	return nil
}

func (x *Extractor) addCombination(in *input, key ps.Key, value float32, combinations, c int) {
	if x.describing {
		var parts []string
		x.eachPart(in, combinations, c, func(at int) { parts = append(parts, x.texts[at]) })
		x.texts = append(x.texts, strings.Join(parts, " × "))
	}
	x.keys = append(x.keys, key)
	x.values = append(x.values, value)
}

// eachPart calls do with the positions of the values that combination c is of.
func (x *Extractor) eachPart(in *input, combinations, c int, do func(at int)) {
	for _, i := range in.of {
		from, to := x.span(i)
		combinations /= to - from
		do(from + c/combinations)
		c %= combinations
	}
}

// span returns where the values of input i are; there is at least one.
func (x *Extractor) span(i int) (from, to int) {
	if i > 0 {
		from = x.ends[i-1]
	}
	return from, x.ends[i]
}
