// The pace of snapshots shows from outside as time alone, so this test looks inside,
// with a clock of its own.

package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWorkRestsInProportion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		start := time.Now()
		const pieces, each = 1000, 7 * time.Microsecond // several to a rest
		for range pieces {
			if err := p.rest(t.Context(), each); err != nil {
				t.Fatal(err)
			}
		}
		want := restTimes * pieces * each
		if rested := time.Since(start); rested > want || rested < want-restMin-restTimes*each {
			t.Errorf("%d pieces of %v rested %v, want %v", pieces, each, rested, want)
		}
		if err := p.rest(t.Context(), restMin/restTimes/2); err != nil || time.Since(start) > want {
			t.Errorf("a short piece rested already (%v)", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.rest(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a rest beyond the end of its context: %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
