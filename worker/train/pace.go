package train

import (
	"context"
	"time"
)

// paceBehind is how far pacing may fall behind and still catch up, so that late timers
// cost no rate and a standstill is not followed by a rush.
const paceBehind = 100 * time.Millisecond

// pace lets events through at a rate. It is owned by the running session's plan.
type pace struct {
	due time.Time // when the events let through so far have come
}

// wait returns once n more events have come, at rate events per second; above 0.
func (p *pace) wait(ctx context.Context, n int, rate float64) error {
	before, earliest := p.due, time.Now().Add(-paceBehind)
	if p.due.Before(earliest) {
		p.due = earliest
	}
	p.due = p.due.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	timer := time.NewTimer(time.Until(p.due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		p.due = before // they will be read again
		return ctx.Err()
	}
}

// pacedBatch returns how many events a batch holds so that, at a rate, none waits much
// more than a tenth of a second for the others.
func pacedBatch(batch int, rate float64) int {
	return min(batch, max(1, int(min(rate/10, batchMax))))
}
