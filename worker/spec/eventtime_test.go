package spec_test

import (
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/worker/spec"
)

// What all units make of all kinds of texts is tested where streams are read.
func TestEventTimesAreReadWithoutAllocations(t *testing.T) {
	for _, c := range []struct {
		unit, text string
		want       int64
	}{
		{spec.Seconds, "1650812741.4369", 1650812741436},
		{spec.Milliseconds, "1650812741436", 1650812741436},
		{spec.Microseconds, "1650812741436999", 1650812741436},
		{spec.RFC3339, "2022-04-24T15:05:41.436Z", 1650812741436},
		{spec.Milliseconds, "", 0},
		{spec.Milliseconds, "yesterday", 0},
		{spec.Seconds, "1650812741436", 0},
	} {
		clock, text := spec.Time{Unit: c.unit}, []byte(c.text)
		got, err := clock.Milliseconds(text)
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%q in %s is %d (%v), want %d", c.text, c.unit, got, err, c.want)
		}
		if err != nil && c.text != "" && strings.Contains(err.Error(), c.text) {
			t.Errorf("%q tells the text", err)
		}
		if c.text == "yesterday" {
			continue // strconv's own error is made, and dropped
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = clock.Milliseconds(text) }); n != 0 {
			t.Errorf("%q in %s: %v allocations, want 0", c.text, c.unit, n)
		}
	}
}
