package node

import (
	"context"
	"time"
)

// A snapshot works a sixteenth of the time: after each millisecond of reading and writing
// it leaves processor and disk to training for restTimes as long. That is about as
// much as training may lose to it, and a shard's memory of what pushes change
// meanwhile stays small even so, since shards are read one after the other.
const (
	restTimes = 15
	restMin   = time.Millisecond // shorter sleeps cost more than they save
)

// pace makes work rest in proportion to the time that it takes. On a slow or busy
// machine it rests longer by itself, which a rate in bytes would not.
type pace struct{ owed time.Duration }

// rest is called after each piece of work with the time it took. It returns ctx's
// error if that ends first.
func (p *pace) rest(ctx context.Context, worked time.Duration) error {
	if p.owed += restTimes * worked; p.owed < restMin {
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
