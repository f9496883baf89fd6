package node_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
)

// BenchmarkLookup looks 1300 random keys of 100,000 rows of 16 floats up, as a pod that keeps
// nothing does for a request: at a node of the same process without a network, and over
// loopback with all of the client's work.
func BenchmarkLookup(b *testing.B) {
	const rows, keys = 100_000, 1300
	o := newOwnership(weightsModel())
	a := start(b, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	c := dial(b, o)
	m := weightsModel()
	var group ps.Group
	key := func(row int) ps.Key { return ps.Key(ps.Mix(uint64(row))) }
	all := make([]ps.Key, rows)
	for i := range all {
		all[i] = key(i)
	}
	group.Fill(all, shards)
	u := learn(0, allShards()...)
	for i := range u.Items {
		from, to := group.Shard(u.Items[i].Shard)
		u.Items[i].Rows = []ps.Rows{{Table: users, Keys: group.Keys[from:to], Values: make([]byte, 64*(to-from))}}
	}
	if answers := push(b, c, u); answers[0].Outcome != ps.Applied {
		b.Fatal(answers[0].Err)
	}
	random := rand.New(rand.NewPCG(1, 1))
	wanted := make([]ps.Key, keys)
	draw := func() {
		for i := range wanted {
			wanted[i] = key(random.IntN(rows))
		}
		group.Fill(wanted, shards)
	}
	run := func(b *testing.B, lookUp func() error) {
		b.ReportAllocs()
		var times []time.Duration
		for b.Loop() {
			draw()
			start := time.Now()
			if err := lookUp(); err != nil {
				b.Fatal(err)
			}
			times = append(times, time.Since(start))
		}
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/keys, "p50-ns/key")
	}
	for _, encoding := range []ps.Encoding{ps.Plain, ps.Int8} {
		name := fmt.Sprintf("keys=%d/width=16/%v", keys, encoding)
		b.Run("node/"+name, func(b *testing.B) {
			l := &ps.Lookup{Pull: ps.Pull{Model: m.Name, Layout: m.Layout.Hash(), Shards: allShards()}, Encoding: encoding}
			fresh := make([]ps.Freshness, shards)
			memory := make([]byte, keys*encoding.RowBytes(m.Layout.Tables[users]))
			run(b, func() error {
				counts := make([]uint32, shards)
				for s := range counts {
					from, to := group.Shard(ps.ShardID(s))
					counts[s] = uint32(to - from)
				}
				l.Tables = []ps.TableKeys{{Table: users, Counts: counts, Keys: group.Keys}}
				return a.node.Lookup(b.Context(), l, [][]byte{memory[:len(group.Keys)*encoding.RowBytes(m.Layout.Tables[users])]}, fresh)
			})
		})
		b.Run("loopback/"+name, func(b *testing.B) {
			reads := []ps.Read{{Table: users, RowBytes: 64, Group: &group}}
			layout := m.Layout.Hash()
			run(b, func() error {
				_, err := c.Lookup(b.Context(), m.Name, layout, reads, client.LookupOptions{Encoding: encoding})
				return err
			})
		})
	}
}
