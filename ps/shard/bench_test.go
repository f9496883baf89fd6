package shard_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

const benchShards = 64

// stripe is all shards of a cluster under one writer, as a node with one processor
// has them.
type stripe struct {
	shards []*shard.Shard
	model  ps.Model
	at     ps.Offset   // of the next push
	sent   []ps.Offset // by shard
}

func newStripe(b *testing.B, name string, width int) *stripe {
	b.Helper()
	o := ps.Optimizer{Name: name, LearningRate: 0.05}
	switch name {
	case ps.AdaGrad:
		o.InitialAccumulator = 0.1
	case ps.FTRL:
		o.Beta, o.L1 = 1, 0.01
	}
	s := &stripe{sent: make([]ps.Offset, benchShards), model: ps.Model{Name: "m", Version: 1, Stream: "s", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{{
		Name: "item", Kind: ps.Float32, Width: width, Optimizer: o, Initializer: ps.Initializer{Name: ps.Zero},
	}}}}}
	for id := range ps.ShardID(benchShards) {
		opened, err := shard.New(shard.Config{Model: s.model, ID: id, Shards: benchShards, Fence: 1})
		if err != nil {
			b.Fatal(err)
		}
		s.shards = append(s.shards, opened)
	}
	return s
}

// piece is one shard's part of a message.
type piece struct {
	shard  ps.ShardID
	keys   []ps.Key
	values []byte
}

// parts cuts keys by shard, with values for each.
func parts(keys []ps.Key, width int, values []float32) []piece {
	slices.SortFunc(keys, func(a, b ps.Key) int { return int(ps.ShardOf(a, benchShards)) - int(ps.ShardOf(b, benchShards)) })
	bytes := ps.Bytes(values)
	var all []piece
	for from := 0; from < len(keys); {
		to, id := from, ps.ShardOf(keys[from], benchShards)
		for to < len(keys) && ps.ShardOf(keys[to], benchShards) == id {
			to++
		}
		all = append(all, piece{id, keys[from:to], bytes[from*width*4 : to*width*4]})
		from = to
	}
	return all
}

func (s *stripe) push(b *testing.B, all []piece) {
	u := ps.Update{Model: "m", Version: 1, Stream: "s", Layout: s.model.Layout.Hash(), To: s.at + 1}
	var rows [1]ps.Rows
	for i := range all {
		p := &all[i]
		rows[0] = ps.Rows{Keys: p.keys, Values: p.values}
		sh := s.shards[p.shard]
		item := ps.Item{Shard: p.shard, From: s.sent[p.shard], Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: rows[:]}
		if a := sh.Push(&u, &item); a.Outcome != ps.Applied {
			b.Fatalf("shard %d: %v (%v)", p.shard, a.Outcome, a.Err)
		}
		s.sent[p.shard] = u.To
	}
	s.at++
}

func (s *stripe) pull(b *testing.B, all []piece) {
	for i := range all {
		if err := s.shards[all[i].shard].Gather(0, all[i].keys, all[i].values, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// resident returns the memory of the process in bytes, or 0 where /proc has none.
func resident() int {
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(statm))[1])
	return pages * os.Getpagesize()
}

// BenchmarkStripe pulls and pushes messages of keys that are spread over all
// shards, as a node does. B/row is resident memory after minus before, without
// presizing.
func BenchmarkStripe(b *testing.B) {
	for _, c := range []struct {
		optimizer  string
		width      int
		rows, keys int
	}{
		{ps.AdaGrad, 16, 100_000, 4096},
		{ps.AdaGrad, 16, 1_000_000, 4096},
		{ps.AdaGrad, 16, 10_000_000, 4096},
		{ps.SGD, 16, 10_000_000, 4096},
		{ps.FTRL, 1, 10_000_000, 4096},
	} {
		b.Run(fmt.Sprintf("%s/rows=%d/keys=%d/width=%d", c.optimizer, c.rows, c.keys, c.width), func(b *testing.B) {
			before := resident()
			s := newStripe(b, c.optimizer, c.width)
			rng := rand.New(rand.NewPCG(1, 2))
			values := make([]float32, c.keys*c.width)
			for i := range values {
				values[i] = float32(rng.NormFloat64())
			}
			keys := make([]ps.Key, c.keys)
			for n := 0; n < c.rows; n += len(keys) {
				for i := range keys {
					keys[i] = ps.Key(ps.Mix(uint64(n + i)))
				}
				s.push(b, parts(keys, c.width, values))
			}
			perRow := float64(resident()-before) / float64(c.rows)
			messages := make([][]piece, 256)
			for m := range messages {
				some := make([]ps.Key, c.keys)
				for i := range some {
					some[i] = ps.Key(ps.Mix(uint64(rng.IntN(c.rows))))
				}
				messages[m] = parts(some, c.width, values)
			}
			for what, op := range map[string]func(*testing.B, []piece){"pull": s.pull, "push": s.push} {
				b.Run(what, func(b *testing.B) {
					i := 0
					b.ReportAllocs()
					for b.Loop() {
						op(b, messages[i%len(messages)])
						i++
					}
					b.ReportMetric(float64(b.N*c.keys)/b.Elapsed().Seconds(), "keys/s")
					b.ReportMetric(perRow, "B/row")
				})
			}
		})
	}
}
