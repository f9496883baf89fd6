package redis

import (
	"fmt"
	"math"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
)

// Value says what a row's value looks like.
type Value uint8

// What values look like.
const (
	Binary Value = iota // the weights as little-endian float32, without a head
	JSON                // a list of numbers; null for one that is not finite
)

// String returns the name used in flags and positions.
func (v Value) String() string {
	switch v {
	case Binary:
		return "binary"
	case JSON:
		return "json"
	}
	return fmt.Sprintf("value(%d)", uint8(v))
}

// ParseValue returns the value of the given name. It wraps ps.ErrInvalid.
func ParseValue(name string) (Value, error) {
	for _, v := range []Value{Binary, JSON} {
		if v.String() == name {
			return v, nil
		}
	}
	return 0, fmt.Errorf("value %q: want binary or json: %w", name, ps.ErrInvalid)
}

// appendJSON appends weights as a list of the shortest numbers that are read as the same
// float32.
func appendJSON(to, weights []byte) []byte {
	to = append(to, '[')
	for i, w := range ps.View[float32](weights) {
		if i > 0 {
			to = append(to, ',')
		}
		if f := float64(w); math.IsNaN(f) || math.IsInf(f, 0) {
			to = append(to, "null"...)
			continue
		}
		to = strconv.AppendFloat(to, float64(w), 'g', -1, 32)
	}
	return append(to, ']')
}
