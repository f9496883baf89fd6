//go:build linux

package replica_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/pace"
	"github.com/freshet-ml/freshet/ps/replica"
	"github.com/freshet-ml/freshet/ps/shard"
)

// resident returns the memory of this process that is there, in MB.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	kb, err := strconv.Atoi(string(regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(text)[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

// pullTimes pulls random rows until ctx ends, and returns how long pulls took, in order.
func pullTimes(ctx context.Context, t *testing.T, r *replica.Replica, m ps.Model, key func(n uint64) ps.Key) (took []time.Duration) {
	keys := make([]ps.Key, 1300)
	var g ps.Group
	reads := []ps.Read{{Table: 0, RowBytes: m.Layout.Tables[0].RowBytes(), Group: &g}}
	for next := uint64(0); ctx.Err() == nil; {
		for i := range keys {
			next++
			keys[i] = key(ps.Mix(next))
		}
		began := time.Now()
		g.Fill(keys, 64)
		if err := r.Pull(context.Background(), m.Name, m.Layout.Hash(), reads); err != nil {
			t.Errorf("pull: %v", err)
			return took
		}
		took = append(took, time.Since(began))
		time.Sleep(time.Millisecond) // a pod does other things too
	}
	slices.Sort(took)
	return took
}

// TestResyncsTakeTheMemoryOfOne reads all shards of a replica of some 200 MB anew,
// again and again, as a pod does whose cluster restarts again and again.
func TestResyncsTakeTheMemoryOfOne(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this takes 200 MB")
	}
	const (
		shards  = 64
		rows    = 36_000 // of each shard
		width   = 16
		stride  = 8 + 4*width
		resyncs = 3
	)
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as freshet serve does
	m := ps.Model{Name: "m", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{{
		Name: "factors", Width: width, Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 1}, Initializer: ps.Initializer{Name: ps.Zero},
	}}}}
	key := func(s ps.ShardID, n uint64) ps.Key { return ps.Key(uint64(s)<<58 | ps.Mix(n)>>6) }
	w := &wire{follows: make(chan struct{}, 1)}
	r, err := replica.New(replica.Config{Source: w, Model: m, Shards: shards, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_, end := again(t, r, w)
	defer end()
	before := resident(t)
	// A node reads a base a sixteenth of the time; here it is a fourth, to be through sooner.
	resync := func(fence ps.Fence, rests pace.Pace) {
		for s := range ps.ShardID(shards) {
			for part, n := 0, uint64(0); ; part++ {
				began := time.Now()
				block := make([]byte, 0, shard.BlockBytes)
				for ; n < rows && len(block)+stride <= cap(block); n++ {
					block = append(binary.LittleEndian.AppendUint64(block, uint64(key(s, n))), make([]byte, stride-8)...)
				}
				d := &ps.Delta{
					ShardProgress: ps.ShardProgress{Shard: s, Fence: fence, Seq: 1, Rows: rows, Partitions: make([]ps.Progress, 1)},
					Blocks:        []ps.Block{{Table: 0, Stride: stride, Rows: block}}, Part: part, More: n < rows,
				}
				if err := w.take(d); err != nil {
					t.Fatal(err)
				}
				if err := rests.Rest(t.Context(), time.Since(began)); err != nil {
					t.Fatal(err)
				}
				if !d.More {
					break
				}
			}
		}
	}
	resync(1, pace.Pace{})
	one := resident(t) - before
	measure := func(during func()) time.Duration {
		ctx, cancel := context.WithCancel(t.Context())
		var took []time.Duration
		var task sync.WaitGroup
		task.Go(func() {
			took = pullTimes(ctx, t, r, m, func(n uint64) ps.Key { return key(ps.ShardID(n>>58), n%rows) })
		})
		during()
		cancel()
		task.Wait()
		if len(took) == 0 {
			t.Fatal("no pull was measured")
		}
		return took[len(took)*99/100]
	}
	quiet := measure(func() { <-time.After(2 * time.Second) })
	var sizes []int
	most := 0
	began := time.Now()
	busy := measure(func() {
		for i := range resyncs {
			resync(ps.Fence(i+2), pace.Pace{Times: 3})
			sizes = append(sizes, resident(t)-before)
			most = max(most, sizes[i])
		}
	})
	t.Logf("one copy takes %d MB, after each of %d resyncs, of %v each, there are %v MB; p99 of a pull of 1,300 keys: %v before, %v meanwhile",
		one, resyncs, (time.Since(began) / resyncs).Round(time.Millisecond), sizes, quiet, busy)
	if most > one*3/2 {
		t.Errorf("%d MB are resident after a resync, where one copy takes %d", most, one)
	}
}
