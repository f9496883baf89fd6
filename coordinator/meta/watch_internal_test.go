package meta

// White box: from outside, whether a slow reader missed a value or never had it offered
// is a question of who was faster.

import "testing"

func TestOfferReplacesWhatWasNotTaken(t *testing.T) {
	values := make(chan int, 1)
	for value := range 3 {
		offer(values, value) // must not wait for a reader
	}
	if got := <-values; got != 2 {
		t.Errorf("got %d, want 2, the latest", got)
	}
	if len(values) != 0 {
		t.Errorf("%d more values wait, want none", len(values))
	}
}
