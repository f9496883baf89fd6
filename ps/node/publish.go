package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
	"github.com/freshet-ml/freshet/ps/shard"
)

const (
	// deltaEvery is the age at which what has changed is published: what a standby
	// lacks when its owner dies, and part of what makes a reader's rows old.
	deltaEvery = 20 * time.Millisecond
	// deltaBytes are published at once, however young.
	deltaBytes = 256 << 10
	// newsBytes is about the most that one message of a follower has.
	newsBytes = 1 << 20
	// behindBytesMin is how far a follower may be behind before it is cut off, or the
	// size of the shard if that is more: a base would cost it less then.
	behindBytesMin = 8 << 20
	// currentEvery is how often a reader is told that it has all there is.
	currentEvery = 100 * time.Millisecond
	// baseAgain is how long a base waits for a snapshot that is under way.
	baseAgain = 10 * time.Millisecond
)

// publish hands what has changed to the shard's followers, or forgets about it if
// there are none any more.
func (o *opened) publish() {
	if !o.feed.Followed() {
		o.Forget()
		o.feed = nil
		return
	}
	o.publishDelta()
}

// publishDelta publishes what has changed, if anything has.
func (o *opened) publishDelta() {
	if d := o.Delta(); d != nil {
		d.Lineage, d.AppliedAt, d.SentAt = o.lineage, o.appliedAt.UnixMicro(), time.Now().UnixMicro()
		o.feed.Publish(d)
	}
}

// publishAllLocked publishes what is due, and reports whether anybody follows.
func (s *stripe) publishAllLocked() bool {
	followed := false
	for _, held := range s.shards {
		for _, o := range held {
			if o != nil && o.feed != nil {
				o.publish()
				followed = followed || o.feed != nil
			}
		}
	}
	return followed
}

// follow begins a base of a shard and follows it from the base's boundary on.
func (s *stripe) follow(held *opened, reading ps.Reading, layout ps.Layout, wake chan<- struct{}) (*shard.Snapshot, *delta.Follower, error) {
	snapshot, err := held.Snapshot(0)
	if err != nil {
		return nil, nil, err
	}
	if held.feed == nil {
		held.feed = delta.NewFeed(layout, max(behindBytesMin, held.SnapshotBytes()))
		held.Record()
	} else {
		held.publishDelta() // up to the boundary
	}
	select {
	case s.followed <- struct{}{}:
	default:
	}
	return snapshot, held.feed.Follow(reading, wake), nil
}

// follower is one call of Follow.
type follower struct {
	node    *Node
	model   string
	reading ps.Reading
	send    func(*ps.News) error
	wake    chan struct{}

	waiting []ps.ShardID // for their base
	base    *baseSending // under way, or nil
	feeds   map[ps.ShardID]*delta.Follower
}

// baseSending is a base that is read and sent.
type baseSending struct {
	shard    ps.ShardID
	stripe   *stripe
	held     *opened
	layout   ps.Layout
	snapshot *shard.Snapshot
	feed     *delta.Follower
	part     int
	buffer   []byte
}

// Follow sends news of shards of a model until changes is closed or ctx ends: of each
// shard that is begun its base, in parts, and then what changes, in order, all of it as
// reading wants it. It returns send's error, and nil otherwise. What is sent is valid until
// send returns. A reader is sent news without anything every currentEvery: it then was sent
// all that there is of what it follows.
//
// A shard that is not owned, or not any more, or whose follower is too slow, is sent as
// lost; beginning it again is the follower's business.
func (n *Node) Follow(ctx context.Context, model string, reading ps.Reading, changes <-chan ps.FollowChange, send func(*ps.News) error) error {
	if err := n.serving(); err != nil {
		return err
	}
	f := &follower{node: n, model: model, reading: reading, send: send, wake: make(chan struct{}, 1), feeds: make(map[ps.ShardID]*delta.Follower)}
	defer f.close(ctx)
	var current <-chan time.Time
	if reading != (ps.Reading{}) {
		ticker := time.NewTicker(currentEvery)
		defer ticker.Stop()
		current = ticker.C
	}
	for {
		var again <-chan time.Time // another try at a base
		if f.base != nil || len(f.waiting) > 0 {
			busy, err := f.sendBase(ctx)
			if err != nil {
				return err
			}
			pause := time.Duration(0)
			if busy {
				pause = baseAgain
			}
			again = time.After(pause)
		}
		select {
		case c, ok := <-changes:
			if !ok {
				return nil
			}
			f.change(ctx, c)
		case <-f.wake:
			if err := f.sendDeltas(); err != nil {
				return err
			}
		case <-again:
		case <-current:
			if err := f.sendDeltas(); err != nil {
				return err
			}
			if err := f.send(&ps.News{}); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-n.stopped:
			return fmt.Errorf("node stopped: %w", ps.ErrUnavailable)
		}
	}
}

// change begins and ends following shards.
func (f *follower) change(ctx context.Context, c ps.FollowChange) {
	for _, id := range append(c.End, c.Begin...) {
		f.drop(ctx, id)
	}
	f.waiting = append(f.waiting, c.Begin...)
}

// drop ends following a shard.
func (f *follower) drop(ctx context.Context, id ps.ShardID) {
	for i, w := range f.waiting {
		if w == id {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			break
		}
	}
	if f.base != nil && f.base.shard == id {
		f.base.feed.Close()
		f.endBase(ctx)
	}
	if feed := f.feeds[id]; feed != nil {
		feed.Close()
		delete(f.feeds, id)
	}
}

// close ends following all.
func (f *follower) close(ctx context.Context) {
	if f.base != nil {
		f.drop(ctx, f.base.shard)
	}
	for _, feed := range f.feeds {
		feed.Close()
	}
}

// sendBase sends a part of a base, or begins the next. busy says that another snapshot
// is in the way.
func (f *follower) sendBase(ctx context.Context) (busy bool, err error) {
	if f.base == nil {
		if busy, err = f.beginBase(ctx); f.base == nil {
			return busy, err
		}
	}
	b := f.base
	head := b.snapshot.Head()
	d := &ps.Delta{ShardProgress: head.ShardProgress, TableRows: head.TableRows, Lineage: b.held.lineage, Part: b.part, More: true}
	err = b.stripe.do(ctx, func(*stripe) error {
		block, err := b.snapshot.Read(b.buffer)
		d.Blocks = []ps.Block{block}
		return err
	})
	switch {
	case errors.Is(err, io.EOF):
		d.More, d.Blocks = false, nil
		d.SentAt = time.Now().UnixMicro()
	case err != nil:
		return false, err
	}
	if f.reading != (ps.Reading{}) {
		if d = delta.Read(b.layout, f.reading, d); d.More && len(d.Blocks) == 0 {
			return false, nil // of another table
		}
	}
	if b.part++; !d.More {
		f.feeds[b.shard] = b.feed
		f.endBase(ctx)
		f.tellSelf() // of what was published meanwhile
	}
	return false, f.send(&ps.News{Deltas: []*ps.Delta{d}})
}

// beginBase begins the base of the first shard that waits for one.
func (f *follower) beginBase(ctx context.Context) (busy bool, err error) {
	id := f.waiting[0]
	b := &baseSending{shard: id, stripe: f.node.stripes[f.node.stripeOf(id)], buffer: make([]byte, shard.BlockBytes)}
	err = b.stripe.do(ctx, func(s *stripe) (err error) {
		if b.held, err = s.shard(f.model, id); err != nil {
			return err
		}
		b.layout = s.models[f.model].Layout
		if err := readable(f.model, b.layout, f.reading); err != nil {
			return err
		}
		select {
		case b.held.turn <- struct{}{}:
		default:
			busy = true
			return nil
		}
		if b.snapshot, b.feed, err = s.follow(b.held, f.reading, b.layout, f.wake); err != nil {
			<-b.held.turn
		}
		return err
	})
	f.waiting = f.waiting[1:]
	switch {
	case ctx.Err() != nil:
		return false, nil
	case err != nil:
		return false, f.send(&ps.News{Lost: []ps.Lost{{Shard: id, Err: err}}})
	case busy:
		f.waiting = append(f.waiting, id) // others may be free
		return true, nil
	}
	f.base = b
	return false, nil
}

// readable wraps ps.ErrModelMismatch if a reader would not understand rows of the layout.
func readable(model string, layout ps.Layout, r ps.Reading) error {
	if r == (ps.Reading{}) {
		return nil
	}
	if hash := layout.Hash(); hash != r.Layout {
		return fmt.Errorf("model %q has layout %016x, the reader's is %016x: %w", model, hash, r.Layout, ps.ErrModelMismatch)
	}
	for id := ps.TableID(len(layout.Tables)); id < ps.TablesMax; id++ {
		if r.Tables.Has(id) {
			return fmt.Errorf("model %q has %d tables, the reader wants table %d: %w", model, len(layout.Tables), id, ps.ErrModelMismatch)
		}
	}
	return nil
}

// endBase lets go of the base that is sent. The snapshot is given up even if ctx has
// ended: while it is under way, pushes copy rows for it.
func (f *follower) endBase(ctx context.Context) {
	b := f.base
	f.base = nil
	_ = b.stripe.do(context.WithoutCancel(ctx), func(*stripe) error {
		b.snapshot.Close()
		return nil
	})
	<-b.held.turn
}

// tellSelf makes the follower look for deltas.
func (f *follower) tellSelf() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// sendDeltas sends what was published.
func (f *follower) sendDeltas() error {
	news := &ps.News{}
	size := 0
	for id, feed := range f.feeds {
		for {
			d, err := feed.Next()
			if err != nil {
				news.Lost = append(news.Lost, ps.Lost{Shard: id, Err: fmt.Errorf("shard %d: %w: %w", id, ps.ErrUnavailable, err)})
				delete(f.feeds, id)
				break
			}
			if d == nil {
				break
			}
			news.Deltas = append(news.Deltas, d)
			if size += d.Bytes(); size >= newsBytes {
				if err := f.send(news); err != nil {
					return err
				}
				news, size = &ps.News{}, 0
			}
		}
	}
	if len(news.Deltas)+len(news.Lost) == 0 {
		return nil
	}
	return f.send(news)
}
