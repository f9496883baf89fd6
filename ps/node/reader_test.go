package node_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// reader keeps what it is sent of rows of two float64s.
type reader struct {
	mu      sync.Mutex
	sums    map[ps.Key][2]float64
	applied map[ps.ShardID]ps.Offset
	current map[ps.ShardID]time.Time
}

func (r *reader) take(d *ps.Delta) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range d.Blocks {
		if b.Stride != 8+16 {
			return fmt.Errorf("rows of %d bytes, want a key and two float64s", b.Stride)
		}
		for ; len(b.Rows) > 0; b.Rows = b.Rows[b.Stride:] {
			r.sums[ps.Key(binary.LittleEndian.Uint64(b.Rows))] = [2]float64{
				math.Float64frombits(binary.LittleEndian.Uint64(b.Rows[8:])), math.Float64frombits(binary.LittleEndian.Uint64(b.Rows[16:])),
			}
		}
	}
	if !d.More {
		r.applied[d.Shard] = d.Partitions[0].Applied
	}
	return nil
}

func (r *reader) isCurrent(shards []ps.ShardID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range shards {
		r.current[s] = time.Now()
	}
}

// read follows all shards with the given reading until the test ends.
func read(t *testing.T, o *ownership, reading ps.Reading) *reader {
	t.Helper()
	r := &reader{sums: make(map[ps.Key][2]float64), applied: make(map[ps.ShardID]ps.Offset), current: make(map[ps.ShardID]time.Time)}
	all := make(chan []ps.ShardID, 1)
	list := make([]ps.ShardID, shards)
	for s := range list {
		list[s] = ps.ShardID(s)
	}
	all <- list
	c := dial(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Read(ctx, "m", reading, all, r.take, r.isCurrent) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("reading ended with %v", err)
		}
	})
	return r
}

func TestAReaderHasTheWeightsOfAllShardsAndLearnsThatTheyAreCurrent(t *testing.T) {
	o := newOwnership(testModel())
	nodes := map[ps.NodeID]*running{"a": start(t, "a", o), "b": start(t, "b", o)}
	o.set(addresses(nodes), "a", "b")
	c := dial(t, o)
	<-nodes["a"].node.Ready() // a push before is refused
	<-nodes["b"].node.Ready()
	push(t, c, everyShard(0, 1, 1))
	r := read(t, o, ps.Reading{Layout: testModel().Layout.Hash()})
	upTo := func(n ps.Offset) func() bool {
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, applied := range r.applied {
				if applied < n {
					return false
				}
			}
			return len(r.applied) == shards
		}
	}
	until(t, "the base has come", upTo(1))
	for i := range ps.Offset(5) {
		push(t, c, everyShard(i+1, i+2, 1))
	}
	until(t, "the deltas have come", upTo(6))
	pushed := time.Now()
	until(t, "every shard is said to be current", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, at := range r.current {
			if !at.After(pushed) {
				return false
			}
		}
		return len(r.current) == shards
	})
	r.mu.Lock()
	sums := maps.Clone(r.sums)
	r.mu.Unlock()
	for s := range ps.ShardID(shards) {
		if got := sums[keyOf(s, 1)]; got != [2]float64{6, 6} {
			t.Errorf("shard %d: %v was read, want 6 twice", s, got)
		}
	}
}

func TestAReaderOfAnotherLayoutIsToldSo(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	unknown := ps.Reading{Layout: testModel().Layout.Hash()}
	unknown.Tables.Add(7)
	for name, reading := range map[string]ps.Reading{"another layout": {Layout: 5}, "an unknown table": unknown} {
		changes := make(chan ps.FollowChange, 1)
		changes <- ps.FollowChange{Begin: []ps.ShardID{3}}
		ended := errors.New("seen")
		err := a.node.Follow(t.Context(), "m", reading, changes, func(n *ps.News) error {
			if len(n.Deltas) > 0 {
				t.Errorf("%s: it was sent %+v", name, n.Deltas[0])
			}
			if len(n.Lost) == 0 {
				return nil
			}
			if n.Lost[0].Shard != 3 || !errors.Is(n.Lost[0].Err, ps.ErrModelMismatch) {
				t.Errorf("%s: lost %+v, want shard 3 and %v", name, n.Lost[0], ps.ErrModelMismatch)
			}
			return ended
		})
		if !errors.Is(err, ended) {
			t.Errorf("%s: following ended with %v", name, err)
		}
	}
}
