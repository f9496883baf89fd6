// Package pace makes work in the background leave processors and disks to what somebody
// waits for.
package pace

import (
	"context"
	"time"
)

// restMin is the shortest rest: shorter sleeps cost more than they save.
const restMin = time.Millisecond

// Pace makes work rest in proportion to the time that it takes. On a slow or busy machine
// it rests longer by itself, which a rate in bytes would not. It has one user.
type Pace struct {
	// Times is how many times as long as it works it rests: with 15, it works a sixteenth of
	// the time, which is about what others may lose to it. 0 is no rest.
	Times int
	owed  time.Duration
}

// Rest is called after each piece of work with the time it took. It returns ctx's error if
// that ends first.
func (p *Pace) Rest(ctx context.Context, worked time.Duration) error {
	if p.owed += time.Duration(p.Times) * worked; p.owed < restMin {
		return nil
	}
	timer := time.NewTimer(p.owed)
	defer timer.Stop()
	p.owed = 0
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
