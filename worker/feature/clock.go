package feature

import (
	"time"

	"github.com/freshet-ml/freshet/worker/spec"
)

// addClock adds a part of the event time, in milliseconds since 1970, in the
// feature's zone: the hour from 0 to 23, the weekday from 0, a Sunday, to 6, or the
// hour of the week, 24 times the weekday and the hour. It is missing where the
// event has no time.
func (x *Extractor) addClock(in *input, millis int64) {
	if millis == 0 {
		x.add(in, nil, 1)
		return
	}
	t := time.UnixMilli(millis).In(in.zone)
	var n int
	switch in.Clock {
	case spec.Hour:
		n = t.Hour()
	case spec.Weekday:
		n = int(t.Weekday())
	case spec.HourOfWeek:
		n = 24*int(t.Weekday()) + t.Hour()
	}
	x.addInteger(in, int64(n))
}
