package files

import (
	"math"
	"strconv"
	"time"

	"github.com/freshet-ml/freshet/worker/spec"
)

// Event times outside of the years 1 to 9999 are taken for mistakes: a column in
// milliseconds that is declared in seconds ends up far beyond them.
const (
	timeMin = -62135596800000 // 0001-01-01 in milliseconds
	timeMax = 253402300799999 // the end of 9999
)

// milliseconds returns the event time that text holds in a unit of the spec.
// Fractions of a millisecond are cut off.
func milliseconds(text []byte, unit string) (int64, fault) {
	if len(text) == 0 {
		return 0, fault{kind: noTime}
	}
	switch unit {
	case spec.Seconds:
		return fromNumber(text, 1000, 1)
	case spec.Milliseconds:
		return fromNumber(text, 1, 1)
	case spec.Microseconds:
		return fromNumber(text, 1, 1000)
	case spec.RFC3339:
		var t time.Time
		if err := t.UnmarshalText(text); err != nil {
			return 0, fault{kind: badTime} // err quotes the text
		}
		return within(t.UnixMilli())
	}
	t, err := time.Parse(unit, string(text))
	if err != nil {
		return 0, fault{kind: badTime}
	}
	return within(t.UnixMilli())
}

// fromNumber returns the time text · times / by. Whole numbers and decimal
// fractions are read exactly; what else strconv reads as a number (exponents) is
// read through a float64.
func fromNumber(text []byte, times, by int64) (int64, fault) {
	digits, negative := text, false
	if digits[0] == '-' || digits[0] == '+' {
		digits, negative = digits[1:], digits[0] == '-'
	}
	var value int64
	i := 0
	for ; i < len(digits) && digits[i]-'0' < 10; i++ {
		if value > (math.MaxInt64-9)/10 {
			return 0, fault{kind: farTime}
		}
		value = value*10 + int64(digits[i]-'0')
	}
	whole := i
	if value > math.MaxInt64/times-times {
		return 0, fault{kind: farTime}
	}
	value *= times
	if i < len(digits) && digits[i] == '.' && whole > 0 {
		scale := times
		for i++; i < len(digits) && digits[i]-'0' < 10; i++ {
			scale /= 10
			value += int64(digits[i]-'0') * scale
		}
	}
	if i < len(digits) || whole == 0 {
		x, err := strconv.ParseFloat(string(text), 64)
		switch x = x * float64(times) / float64(by); {
		case err != nil || math.IsNaN(x):
			return 0, fault{kind: badTime}
		case x < timeMin || x > timeMax:
			return 0, fault{kind: farTime}
		}
		return int64(x), fault{}
	}
	if negative {
		value = -value
	}
	return within(value / by)
}

func within(ms int64) (int64, fault) {
	if ms < timeMin || ms > timeMax {
		return 0, fault{kind: farTime}
	}
	return ms, fault{}
}
