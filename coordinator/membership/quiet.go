package membership

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// quietTimeout is well above what memberlist's goroutines need to end: a probe
	// lasts up to 8 probe intervals, an exchange up to streamTimeout.
	quietTimeout = 5 * time.Second
	quietPoll    = 5 * time.Millisecond
	// label is what marks a pool's goroutines in a profile.
	label = "gossip pool"
)

// start starts memberlist in such a way that its goroutines can be counted. It has no
// call that waits for them: Shutdown returns while a probe, an exchange or a
// connection is still at work. Goroutines inherit the profiling labels of those that
// start them, so labels say which are this pool's.
func (p *Pool) start(ctx context.Context, cfg *memberlist.Config) error {
	started := make(chan error)
	go func() { // so that the caller keeps its own labels
		pprof.SetGoroutineLabels(pprof.WithLabels(ctx, pprof.Labels(label, p.mark())))
		var err error
		p.list, err = memberlist.Create(cfg)
		started <- err
	}()
	return <-started
}

// quiet waits until no goroutine that memberlist started is left, and reports whether
// that was so in time. What remains are timers, which find the table ended.
func (p *Pool) quiet() bool {
	poll := time.NewTicker(quietPoll)
	defer poll.Stop()
	for deadline := time.Now().Add(quietTimeout); p.busy(); <-poll.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// busy reports whether a goroutine carries this pool's label. When none does, there is
// none left that could start another.
func (p *Pool) busy() bool {
	var profile bytes.Buffer // takes everything: writing to it cannot go wrong
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
	return bytes.Contains(profile.Bytes(), []byte(p.mark()))
}

// mark is this pool's value of the label: no other pool of the process has it.
func (p *Pool) mark() string { return fmt.Sprintf("pool at %p", p) }
