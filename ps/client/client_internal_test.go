package client

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// Internal: how soon a call asks again is seen from outside only as time that passes,
// and nodes that refuse by the clock have no other way in.

// given are shard maps that a test gives out.
type given chan route.Map

func (m given) WatchMap(ctx context.Context) <-chan route.Map {
	next := make(chan route.Map)
	go func() {
		defer close(next)
		for {
			select {
			case current := <-m:
				next <- current
			case <-ctx.Done():
				return
			}
		}
	}()
	return next
}

func TestANewOwnerThatIsNotReadyIsAskedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		routes := make(given, 1)
		version := func(v int64) route.Map {
			return route.Map{Version: v, Shards: []route.Shard{{Owner: "a", Fence: ps.Fence(v)}}, Addresses: map[ps.NodeID]string{"a": "127.0.0.1:1"}}
		}
		routes <- version(1)
		c, err := Dial(t.Context(), Config{Routes: routes, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		const dead = 5250 * time.Millisecond // long enough for the pauses to be as long as they get
		time.AfterFunc(dead, func() { routes <- version(2) })
		ready := start.Add(dead + 15*time.Millisecond)
		err = c.eachShard(t.Context(), []ps.ShardID{0}, func(context.Context, string, []ps.ShardID) error {
			if time.Now().Before(ready) {
				return ps.ErrNoOwner
			}
			return nil
		})
		if late := time.Since(ready); err != nil || late > 50*time.Millisecond {
			t.Errorf("a new owner was asked %v after it was ready, want within 50 ms (%v)", late, err)
		}
	})
}
