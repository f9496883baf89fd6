package examples_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
)

func TestCriteoIsTheStreamThatPeersWereMeasuredOn(t *testing.T) {
	// What a program in C, written apart from this one, says of the same settings.
	for _, test := range []struct {
		events    int64
		seed      uint64
		rate      float64
		bestLoss  float64
		wholeText string // SHA-256 of its text
	}{
		{1000, 42, 0.2780, 0.44644, "3bdc31bbd644726766c8743870e6994efd358220f231f0ad898c122b8a2e8e73"},
		{1000, 7, 0.2730, 0.47690, ""},
		{100_000, 42, 0.2833, 0.47778, ""},
		{1_000_000, 42, 0.2854, 0.47935, ""},
	} {
		t.Run(fmt.Sprintf("%d events, seed %d", test.events, test.seed), func(t *testing.T) {
			if testing.Short() && test.events > 100_000 {
				t.Skip("it takes seven seconds")
			}
			hash := sha256.New()
			var told int64
			best, err := examples.Criteo{Events: test.events, Seed: test.seed}.Write(t.Context(), hash, func(events int64) { told = events })
			if err != nil || told != test.events || best.Events != test.events {
				t.Fatalf("Write told of %d events and returned %d and %v, want %d and no error", told, best.Events, err, test.events)
			}
			if got := fmt.Sprintf("%x", hash.Sum(nil)); test.wholeText != "" && got != test.wholeText {
				t.Errorf("the text hashes to %s, want %s", got, test.wholeText)
			}
			if rate := float64(best.Clicks) / float64(best.Events); math.Abs(rate-test.rate) > 0.00005 {
				t.Errorf("click rate %.5f, want %.4f", rate, test.rate)
			}
			if math.Abs(best.LogLoss-test.bestLoss) > 0.00001 {
				t.Errorf("best possible log loss %.6f, want %.5f", best.LogLoss, test.bestLoss)
			}
		})
	}
}

func TestMoreOfCriteoBeginsWithTheSameBytes(t *testing.T) {
	var less, more bytes.Buffer
	for events, to := range map[int64]*bytes.Buffer{500: &less, 2000: &more} {
		if _, err := (examples.Criteo{Events: events, Seed: 3}).Write(t.Context(), to, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(more.Bytes(), less.Bytes()) {
		t.Errorf("2,000 events do not begin with the 500 of the same seed")
	}
}

func TestCriteoThatCannotBeWrittenSaysWhy(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for name, test := range map[string]struct {
		ctx    context.Context
		events int64
		want   error
	}{
		"fewer than none": {t.Context(), -1, ps.ErrInvalid},
		"interrupted":     {ended, 10, context.Canceled},
	} {
		if _, err := (examples.Criteo{Events: test.events}).Write(test.ctx, io.Discard, nil); !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", name, err, test.want)
		}
	}
}
