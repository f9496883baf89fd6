package train

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Internal: what is paced is seen from outside only as time that passes.

func TestPaceLetsEventsThroughAtTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		start := time.Now()
		for range 100 {
			if err := p.wait(t.Context(), 50, 1000); err != nil {
				t.Fatal(err)
			}
		}
		if took, want := time.Since(start), 5*time.Second-paceBehind; took != want {
			t.Errorf("5,000 events at 1,000 per second took %v, want %v", took, want)
		}
	})
}

func TestPaceDoesNotRushAfterAStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		if err := p.wait(t.Context(), 1000, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		start := time.Now()
		if err := p.wait(t.Context(), 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if took, want := time.Since(start), time.Second-paceBehind; took != want {
			t.Errorf("a second's events after a minute of none took %v, want %v", took, want)
		}
	})
}

func TestPaceDoesNotCountEventsThatWereGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.wait(ctx, 60_000, 1000); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a minute's events in a second gave %v, want that the time is up", err)
		}
		start := time.Now()
		if err := p.wait(t.Context(), 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("a second's events took %v, want at most a second", took)
		}
	})
}

func TestAPacedBatchIsSmall(t *testing.T) {
	for _, test := range []struct {
		batch int
		rate  float64
		want  int
	}{
		{256, 1e9, 256}, {256, 1000, 100}, {64, 1000, 64}, {256, 3, 1}, {1, 1e300, 1},
	} {
		if got := pacedBatch(test.batch, test.rate); got != test.want {
			t.Errorf("a batch of %d at %v per second holds %d, want %d", test.batch, test.rate, got, test.want)
		}
	}
}
