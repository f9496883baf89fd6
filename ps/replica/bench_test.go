package replica_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/replica"
)

// BenchmarkPull reads random rows of a table of a million of 16 floats.
func BenchmarkPull(b *testing.B) {
	const (
		rows   = 1 << 20
		width  = 16
		shards = 64
		stride = 8 + 4*width
	)
	m := ps.Model{Name: "m", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{{
		Name: "factors", Width: width, Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 1}, Initializer: ps.Initializer{Name: ps.Zero},
	}}}}
	w := &wire{follows: make(chan struct{}, 1)}
	r, err := replica.New(replica.Config{Source: w, Model: m, Shards: shards, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	_, end := again(b, r, w)
	defer end()
	blocks := make([][]byte, shards)
	for i := range rows {
		key := ps.Mix(uint64(i))
		s := ps.ShardOf(ps.Key(key), shards)
		blocks[s] = append(binary.LittleEndian.AppendUint64(blocks[s], key), make([]byte, stride-8)...)[:len(blocks[s])+stride]
	}
	for s, block := range blocks {
		d := &ps.Delta{
			ShardProgress: ps.ShardProgress{Shard: ps.ShardID(s), Fence: 1, Seq: 1, Rows: uint64(len(block) / stride), Partitions: make([]ps.Progress, 1)},
			Blocks:        []ps.Block{{Table: 0, Stride: stride, Rows: block}},
		}
		if err := w.take(d); err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range []int{1300, 4096} {
		b.Run(fmt.Sprintf("keys=%d/width=%d", n, width), func(b *testing.B) {
			keys := make([]ps.Key, n)
			var g ps.Group
			reads := []ps.Read{{Table: 0, RowBytes: 4 * width, Group: &g}}
			next := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				for i := range keys {
					next++
					keys[i] = ps.Key(ps.Mix(ps.Mix(next) % rows))
				}
				g.Fill(keys, shards)
				if err := r.Pull(context.Background(), "m", m.Layout.Hash(), reads); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/key")
		})
	}
}
