package pace_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-ml/freshet/ps/pace"
)

func TestWorkRestsInProportion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const times, pieces, each, restMin = 15, 1000, 7 * time.Microsecond, time.Millisecond // several pieces to a rest
		p := pace.Pace{Times: times}
		start := time.Now()
		for range pieces {
			if err := p.Rest(t.Context(), each); err != nil {
				t.Fatal(err)
			}
		}
		want := times * pieces * each
		if rested := time.Since(start); rested > want || rested < want-restMin-times*each {
			t.Errorf("%d pieces of %v rested %v, want %v", pieces, each, rested, want)
		}
		if err := p.Rest(t.Context(), restMin/times/2); err != nil || time.Since(start) > want {
			t.Errorf("a short piece rested already (%v)", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Rest(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a rest beyond the end of its context: %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
