//go:build linux

package test

import (
	"fmt"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
)

// TestThroughputFollowsTheWorkersThatComeAndGo learns with one worker, then three, then one,
// each of which is slow, and wants what they learn together to follow within ten seconds.
func TestThroughputFollowsTheWorkersThatComeAndGo(t *testing.T) {
	const slow, events = 1500, 60_000
	c := newCluster(t, 2*time.Second, 1, 1)
	c.apply([]byte(clicksSpec), c.writeClicks(events))
	c.startNode("n")
	c.startWorker("w0", "--slow", fmt.Sprint(slow))
	c.dial()
	c.waitFor(slow / 2)

	// rate is what is learned in two seconds.
	rate := func() float64 {
		before, began := int64(0), time.Now()
		before, _ = c.applied()
		time.Sleep(2 * time.Second)
		after, _ := c.applied()
		return float64(after-before) / time.Since(began).Seconds()
	}
	// follows waits until so many workers learn as much as they can.
	follows := func(workers int, what string) {
		t.Helper()
		began := time.Now()
		c.until(what, time.Millisecond, 10*time.Second, func() (bool, string) {
			r := rate()
			want := float64(workers) * slow
			return r > 0.8*want && r < 1.2*want, fmt.Sprintf("%.0f events/s are learned, want about %.0f", r, want)
		})
		t.Logf("%s: followed within %.1f s", what, time.Since(began).Seconds())
	}
	follows(1, "one worker")
	second, third := c.startWorker("w1", "--slow", fmt.Sprint(slow)), c.startWorker("w2", "--slow", fmt.Sprint(slow))
	follows(3, "three workers")
	second.terminate()
	third.kill()
	follows(1, "one worker again, of the others one has left and one was killed")

	// More workers than partitions: it is said, and nobody is the worse for it.
	for i := range 6 {
		c.startWorker(fmt.Sprint("more", i), "--slow", "20000")
	}
	c.until("one of seven workers has nothing to do", 100*time.Millisecond, awaitMax, func() (bool, string) {
		var workers []coordinator.WorkerStatus
		c.must(&workers, "workers")
		idle := 0
		for _, w := range workers {
			if len(w.Partitions) == 0 {
				idle++
			}
		}
		return len(workers) == 7 && idle == 1, fmt.Sprintf("%+v", workers)
	})
	c.waitForEnd()
	c.audit(events)
}
