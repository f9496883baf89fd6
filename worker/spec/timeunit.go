package spec

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// layouts are those that a column of times is tried with, the first that fits
// being taken. Where day and month may change places, both orders are there.
var layouts = []string{
	time.RFC3339, // under the name rfc3339
	"2006-01-02 15:04:05",
	"2006-01-02T15:04:05",
	"2006-01-02 15:04",
	"2006-01-02T15:04",
	"2006-01-02 15:04:05Z07:00",
	"2006-01-02 15:04:05 -0700",
	"2006-01-02 15:04:05 UTC",
	"2006-01-02",
	"2006/1/2 15:04:05",
	"2006/1/2 15:04",
	"2006/1/2",
	"2/1/2006 15:04:05",
	"1/2/2006 15:04:05",
	"2/1/2006 15:04",
	"1/2/2006 15:04",
	"2/1/2006",
	"1/2/2006",
	"2.1.2006 15:04:05",
	"2.1.2006 15:04",
	"2.1.2006",
	"02/Jan/2006:15:04:05 -0700",
	"Mon, 02 Jan 2006 15:04:05 GMT", // other abbreviations of zones mean different zones
	time.RFC1123Z,
	time.ANSIC,
	"20060102150405",
	"200601021504",
	"2006010215",
	"20060102",
	"06010215",
}

// either are layouts whose twin has day and month the other way round.
var either = map[string]string{
	"2/1/2006 15:04:05": "1/2/2006 15:04:05",
	"2/1/2006 15:04":    "1/2/2006 15:04",
	"2/1/2006":          "1/2/2006",
}

// timing is what the texts of a column are as times.
type timing struct {
	unit string // as in Time
	why  string
	// twin is another layout that fits as well.
	twin     string
	fits     int // rows
	from, to time.Time
	sorted   bool
	hours    bool // it tells hours
}

// guessTime returns how most of the texts are times between 1990 and 2100, if they
// are.
func (p *profile) guessTime() (timing, bool) {
	if p.filled == 0 {
		return timing{}, false
	}
	best := timing{}
	for _, layout := range layouts {
		if t := p.tryTime(layout, layout); t.fits > best.fits {
			best = t
			if layout == time.RFC3339 {
				best.unit = RFC3339
			}
		} else if t.fits > 0 && t.fits == best.fits && either[best.unit] == layout {
			best.twin = layout
		}
	}
	if p.isNumeric() {
		// Ten digits may be seconds or a year, month, day and hour; only the
		// former spread over all digits, so whichever fits more rows is taken.
		if unit := unitOf(p.numbers); unit != "" {
			if t := p.tryTime(unit, ""); t.fits > best.fits {
				best = t
			}
		}
	}
	best.why = "what the texts look like"
	if slices.Contains([]string{Seconds, Milliseconds, Microseconds}, best.unit) {
		best.why = "the size of the numbers"
	}
	const enough = 0.95
	return best, float64(best.fits) >= enough*float64(p.filled)
}

// unitOf returns the unit in which most of the numbers are times, by their size.
func unitOf(numbers []float64) string {
	var sorted []float64
	for _, v := range numbers {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	switch v := sorted[len(sorted)/2]; {
	case v >= 1e8 && v < 1e11:
		return Seconds
	case v >= 1e11 && v < 1e14:
		return Milliseconds
	case v >= 1e14 && v < 1e17:
		return Microseconds
	}
	return ""
}

// tryTime reads all texts as times in a unit, or under a layout if that is not
// empty.
func (p *profile) tryTime(unit, layout string) timing {
	t := timing{unit: unit, sorted: true, hours: layout == ""}
	if layout != "" {
		noon := time.Date(2021, time.November, 23, 12, 0, 0, 0, time.UTC)
		t.hours = noon.Format(layout) != noon.Add(time.Hour).Format(layout)
	}
	var last time.Time
	for row, text := range p.texts {
		when, ok := p.timeOf(row, text, unit, layout)
		if !ok || when.Year() < 1990 || when.Year() > 2100 {
			// A layout that fails at the first rows is none; the rest is not tried.
			if row > 20 && t.fits == 0 {
				break
			}
			continue
		}
		if t.fits == 0 || when.Before(t.from) {
			t.from = when
		}
		if t.fits == 0 || when.After(t.to) {
			t.to = when
		}
		t.sorted = t.sorted && !when.Before(last)
		last = when
		t.fits++
	}
	return t
}

func (p *profile) timeOf(row int, text, unit, layout string) (time.Time, bool) {
	if layout != "" {
		when, err := time.Parse(layout, text)
		return when.UTC(), err == nil
	}
	v := p.numbers[row]
	if math.IsNaN(v) {
		return time.Time{}, false
	}
	switch unit {
	case Seconds:
		v *= 1000
	case Microseconds:
		v /= 1000
	}
	if math.Abs(v) > 1e15 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(v)).UTC(), true
}

// described returns the unit for a comment.
func (t timing) described() string {
	switch t.unit {
	case Seconds:
		return "seconds since 1970"
	case Milliseconds:
		return "milliseconds since 1970"
	case Microseconds:
		return "microseconds since 1970"
	case RFC3339:
		return "times as in RFC 3339"
	}
	return "times in the layout " + strconv.Quote(t.unit)
}
