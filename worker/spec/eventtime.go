package spec

import (
	"errors"
	"math"
	"strconv"
	"time"
)

// Event times outside of the years 1 to 9999 are taken for mistakes: a column in
// milliseconds that is declared in seconds ends up far beyond them.
const (
	timeMin = -62135596800000 // 0001-01-01 in milliseconds
	timeMax = 253402300799999 // the end of 9999
)

// What is wrong with an event time. They hold nothing of its text.
var (
	errTimeEmpty = errors.New("the event time is empty")
	errTimeUnit  = errors.New("the event time is not in the declared unit or layout")
	errTimeFar   = errors.New("the event time is not within the years 1 to 9999: is its unit right")
)

// Milliseconds returns the event time that a text of the column holds, in milliseconds
// since 1970. Fractions of a millisecond are cut off. The error says what is wrong with
// the text without telling it.
//
// Whoever makes an event reads its time by this, so that it is the same in learning and
// in serving.
func (t Time) Milliseconds(text []byte) (int64, error) {
	if len(text) == 0 {
		return 0, errTimeEmpty
	}
	switch t.Unit {
	case Seconds:
		return fromNumber(text, 1000, 1)
	case Milliseconds:
		return fromNumber(text, 1, 1)
	case Microseconds:
		return fromNumber(text, 1, 1000)
	case RFC3339:
		var at time.Time
		if err := at.UnmarshalText(text); err != nil {
			return 0, errTimeUnit // err quotes the text
		}
		return within(at.UnixMilli())
	}
	at, err := time.Parse(t.Unit, string(text))
	if err != nil {
		return 0, errTimeUnit
	}
	return within(at.UnixMilli())
}

// fromNumber returns the time text · times / by. Whole numbers and decimal
// fractions are read exactly; what else strconv reads as a number (exponents) is
// read through a float64.
func fromNumber(text []byte, times, by int64) (int64, error) {
	digits, negative := text, false
	if digits[0] == '-' || digits[0] == '+' {
		digits, negative = digits[1:], digits[0] == '-'
	}
	var value int64
	i := 0
	for ; i < len(digits) && digits[i]-'0' < 10; i++ {
		if value > (math.MaxInt64-9)/10 {
			return 0, errTimeFar
		}
		value = value*10 + int64(digits[i]-'0')
	}
	whole := i
	if value > math.MaxInt64/times-times {
		return 0, errTimeFar
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
			return 0, errTimeUnit
		case x < timeMin || x > timeMax:
			return 0, errTimeFar
		}
		return int64(x), nil
	}
	if negative {
		value = -value
	}
	return within(value / by)
}

func within(ms int64) (int64, error) {
	if ms < timeMin || ms > timeMax {
		return 0, errTimeFar
	}
	return ms, nil
}
