package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// TakeSnapshots asks the owners of shards to write snapshots of a model to a bucket,
// all nodes at the same time, and returns one answer per want, in their order. It asks
// once: a shard whose owner is gone, refuses or does not finish before ctx ends has
// its answer's Err set. It returns an error only if there is no shard map.
func (c *Client) TakeSnapshots(ctx context.Context, model, bucket string, wants []checkpoint.Want) ([]checkpoint.Taken, error) {
	m, err := c.ownedMap(ctx)
	if err != nil {
		return nil, err
	}
	taken := make([]checkpoint.Taken, len(wants))
	positions := make(map[ps.ShardID]int, len(wants))
	byAddress := make(map[string][]checkpoint.Want)
	for i, w := range wants {
		positions[w.Shard] = i
		taken[i] = checkpoint.Taken{Shard: w.Shard, Err: fmt.Errorf("shard %d: no answer: %w", w.Shard, ps.ErrUnavailable)}
		address, err := m.Address(w.Shard)
		if err != nil {
			taken[i].Err = err
			continue
		}
		byAddress[address] = append(byAddress[address], w)
	}
	var mu sync.Mutex // guards taken
	var calls sync.WaitGroup
	for address, list := range byAddress {
		calls.Go(func() {
			err := c.takeFrom(ctx, address, model, bucket, list, func(t checkpoint.Taken) error {
				mu.Lock()
				defer mu.Unlock()
				i, wanted := positions[t.Shard]
				if !wanted {
					return fmt.Errorf("a snapshot of shard %d, which nobody wanted: %w", t.Shard, ps.ErrCorrupt)
				}
				taken[i] = t
				return nil
			})
			if err != nil && ctx.Err() == nil { // else the caller does not want them any more
				c.config.Logger.Warn("snapshots were not all taken", "node", address, "model", model, "error", err)
			}
		})
	}
	calls.Wait()
	return taken, nil
}

// takeFrom asks one node and calls each with every answer.
func (c *Client) takeFrom(ctx context.Context, address, model, bucket string, wants []checkpoint.Want, each func(checkpoint.Taken) error) error {
	conn, err := c.conn(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // ends the stream whatever happens here
	defer cancel()
	stream, err := psv1.NewSnapshotsClient(conn).Take(ctx, wire.TakeRequest(model, bucket, wants))
	if err != nil {
		return wire.FromStatus(err)
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wire.FromStatus(err)
		}
		t, err := wire.Taken(msg)
		if err == nil {
			err = each(t)
		}
		if err != nil {
			return err
		}
	}
}

// ownedWait is how long a map is waited for in which all shards have owners. A cluster that
// has just begun gets them any moment.
const ownedWait = 2 * time.Second

// ownedMap returns the newest map in which every shard has an owner, or the newest there is
// if there is none in time.
func (c *Client) ownedMap(ctx context.Context) (route.Map, error) {
	m, err := c.Map(ctx, 0)
	for late := time.Now().Add(ownedWait); err == nil && !m.Complete() && time.Now().Before(late); m, err = c.Map(ctx, 0) {
		if err := c.waitForChange(ctx, m.Version, time.Until(late)); err != nil {
			return m, err
		}
	}
	return m, err
}
