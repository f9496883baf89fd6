package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// LookupOptions are what a reader may ask for beside rows. The zero value takes them as
// they are.
type LookupOptions struct {
	// Encoding is how rows of float32 tables travel. They come as floats in any case;
	// ps/quant says how far from the weights.
	Encoding ps.Encoding
	// AgeMax, if not 0, is the greatest ps.Freshness.Age that is accepted: of a shard to
	// which nothing was applied for longer nothing is wanted. It is of no use where a
	// stream may rest.
	AgeMax time.Duration
	// Seen, if not nil, is what the reader has seen already: of a shard that has less
	// nothing is wanted. What is read is added to it.
	Seen *Seen
}

// Seen is how much of each shard of one model a reader has seen. Who passes the same one to
// all look-ups never goes back in a shard but with a new owner of it, who may have begun
// with an epoch. The zero value has seen nothing. It is safe for concurrent use: look-ups
// that begin after one has returned are not behind it.
type Seen struct {
	mu     sync.Mutex
	shards []ps.Boundary // guarded by mu; by shard
}

// of returns what was seen of the shards, to which positions belong, or nil if s is nil.
func (s *Seen) of(shards []ps.ShardID) []ps.Boundary {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make([]ps.Boundary, len(shards))
	for i, id := range shards {
		if int(id) < len(s.shards) {
			seen[i] = s.shards[id]
		}
	}
	return seen
}

// add notes what was read.
func (s *Seen) add(fresh []ShardFreshness) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range fresh {
		f := &fresh[i]
		for int(f.Shard) >= len(s.shards) {
			s.shards = append(s.shards, ps.Boundary{})
		}
		if s.shards[f.Shard].Behind(f.Boundary) {
			s.shards[f.Shard] = f.Boundary
		}
	}
}

// ShardFreshness says how fresh the rows of one shard are.
type ShardFreshness struct {
	Shard ps.ShardID
	ps.Freshness
}

// Lookup fills the values of every read with weights, as Pull does, and returns how fresh
// they are: of each shard that has keys of the reads, ascending. All rows of a shard are as
// they were at its boundary. Unlike a pull a look-up does not wait for pushes of the same
// client, and nodes limit it (see ps/server).
//
// It asks again, until ctx ends, while shards are moving or nodes are gone. It returns
// ps.ErrUnknownModel, ps.ErrModelMismatch, ps.ErrInvalid (a table that may not be looked up
// is one), ps.ErrTooLarge, ps.ErrBehind where the options say so, a *ps.LimitedError, and
// what kept it from succeeding when ctx ended. The values then hold anything.
func (c *Client) Lookup(ctx context.Context, model string, layout uint64, reads []ps.Read, o LookupOptions) ([]ShardFreshness, error) {
	m, err := c.Map(ctx, 0)
	if err != nil {
		return nil, err
	}
	wanted, err := prepare(m, reads)
	if err != nil {
		return nil, err
	}
	l := lookup{client: c, model: model, layout: layout, reads: reads, options: o, wanted: wanted}
	l.travel()
	l.fresh = make([]ShardFreshness, len(wanted))
	for i, id := range wanted {
		l.fresh[i].Shard = id
	}
	if err := c.eachShard(ctx, wanted, l.ask); err != nil {
		return nil, err
	}
	if err := l.decode(); err != nil {
		return nil, err
	}
	o.Seen.add(l.fresh)
	return l.fresh, nil
}

// lookup is one call of Lookup.
type lookup struct {
	client  *Client
	model   string
	layout  uint64
	reads   []ps.Read
	encoded []ps.Read // reads as they travel, or reads
	options LookupOptions
	wanted  []ps.ShardID
	fresh   []ShardFreshness // by position in wanted; of different shards for each node
}

// table describes the rows of a read.
func table(r *ps.Read) ps.Table {
	return ps.Table{Kind: r.Kind, Width: r.RowBytes / r.Kind.Size()}
}

// travel makes room for the rows as they travel.
func (l *lookup) travel() {
	l.encoded = l.reads
	if l.options.Encoding == ps.Plain {
		return
	}
	l.encoded = slices.Clone(l.reads)
	for i := range l.encoded {
		r := &l.encoded[i]
		if n := l.options.Encoding.RowBytes(table(r)); n != r.RowBytes {
			r.RowBytes, r.Values = n, make([]byte, len(r.Group.Keys)*n)
		}
	}
}

// decode makes floats of the rows.
func (l *lookup) decode() error {
	for i := range l.reads {
		r := &l.reads[i]
		if l.encoded[i].RowBytes == r.RowBytes {
			continue
		}
		if err := quant.Decode(r.Values, l.options.Encoding, table(r), l.encoded[i].Values); err != nil {
			return fmt.Errorf("look-up in table %d: %w", r.Table, err)
		}
	}
	return nil
}

// ask looks the rows of the given shards up at one node.
func (l *lookup) ask(ctx context.Context, address string, shards []ps.ShardID) error {
	if err := checkPullSize(shards, l.reads); err != nil {
		return err
	}
	conn, err := l.client.conn(address)
	if err != nil {
		return err
	}
	request := ps.Lookup{Pull: ps.Pull{Model: l.model, Layout: l.layout, Shards: shards}, Encoding: l.options.Encoding, AgeMax: l.options.AgeMax, Seen: l.options.Seen.of(shards)}
	message := wire.LookingUp(&request, l.reads)
	defer message.Free()
	var answer wire.LookupAnswer
	answer.Begin(shards, l.encoded)
	failed := conn.Invoke(ctx, psv1.Lookups_Lookup_FullMethodName, message, &answer)
	known, err := l.client.Map(ctx, 0)
	if err != nil {
		return err
	}
	if failed != nil {
		return refused(known, address, shards, request.Seen, wire.FromStatus(failed))
	}
	fresh, err := answer.Freshness()
	if err != nil {
		return err
	}
	return l.take(known, shards, fresh)
}

// refused makes what a node at an address has refused as behind something to ask again for,
// if it need not be the owner: the shard map names another by now, or will.
func refused(known route.Map, address string, shards []ps.ShardID, seen []ps.Boundary, err error) error {
	if !errors.Is(err, ps.ErrBehind) {
		return err
	}
	for i := range seen {
		if now, routeErr := known.Address(shards[i]); routeErr != nil || now != address || seen[i].Fence > known.Shards[shards[i]].Fence {
			return fmt.Errorf("%w: %w", ps.ErrNotOwner, err)
		}
	}
	return err
}

// take notes how fresh the shards are.
func (l *lookup) take(known route.Map, shards []ps.ShardID, fresh []ps.Freshness) error {
	at := 0
	for i, s := range shards {
		// A node that has not heard that it lost the shard would show what is gone.
		if fence := known.Shards[s].Fence; fresh[i].Fence < fence {
			return fmt.Errorf("shard %d: rows under fence %d, it is %d now: %w", s, fresh[i].Fence, fence, ps.ErrNotOwner)
		}
		for l.wanted[at] != s {
			at++
		}
		l.fresh[at].Freshness = fresh[i]
	}
	return nil
}
