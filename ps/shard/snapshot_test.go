package shard_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// wide is a model whose first table has several slabs when it has a hundred rows,
// and whose second has rows of an odd number of elements.
func wide() ps.Model {
	return ps.Model{Name: "shop", Version: 1, Stream: "orders@1", Partitions: nPartitions, Layout: ps.Layout{Seed: 5, Tables: []ps.Table{
		{
			Name: "text", Kind: ps.Float32, Width: 600,
			Optimizer:   ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 1},
			Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.1},
		},
		{
			Name: "bias", Kind: ps.Float32, Width: 1,
			Optimizer:   ps.Optimizer{Name: ps.FTRL, LearningRate: 0.5, Beta: 1, L1: 0.01},
			Initializer: ps.Initializer{Name: ps.Uniform, Scale: 0.1},
		},
		{Name: "figures", Kind: ps.Float64, Width: 2, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}},
		{Name: "audit", Kind: ps.Uint64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Audit}, Initializer: ps.Initializer{Name: ps.Zero}},
	}}}
}

// config is that of shard 1 of 4 of a model.
func config(m ps.Model, fence ps.Fence) shard.Config {
	return shard.Config{Model: m, ID: 1, Shards: nShards, Fence: fence}
}

// copied is a deep copy of a shard: progress as text, without the fence, and all
// encoded rows.
type copied struct {
	progress string
	rows     []map[ps.Key]string
}

func copyOf(t interface{ Fatal(...any) }, s *shard.Shard, tables int) copied {
	p := s.Progress()
	p.Fence = 0
	c := copied{progress: fmt.Sprintf("%+v", p)}
	for id := range tables {
		m := make(map[ps.Key]string)
		if err := s.Range(ps.TableID(id), func(key ps.Key, seq uint64, row []byte) bool {
			b := binary.LittleEndian.AppendUint64(nil, uint64(key))
			m[key] = string(append(binary.LittleEndian.AppendUint64(b, seq), row...))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		c.rows = append(c.rows, m)
	}
	return c
}

// since returns the rows whose seq is above since.
func (c copied) since(since uint64) []map[ps.Key]string {
	var out []map[ps.Key]string
	for _, rows := range c.rows {
		m := maps.Clone(rows)
		maps.DeleteFunc(m, func(_ ps.Key, row string) bool { return binary.LittleEndian.Uint64([]byte(row[8:])) <= since })
		out = append(out, m)
	}
	return out
}

// differs says how two copies do, or "".
func (c copied) differs(d copied) string {
	if c.progress != d.progress {
		return fmt.Sprintf("progress\n%s\nand\n%s", c.progress, d.progress)
	}
	return differ(c.rows, d.rows)
}

func differ(got, want []map[ps.Key]string) string {
	for id := range want {
		if !maps.Equal(got[id], want[id]) {
			return fmt.Sprintf("table %d: %d rows and %d, and not the same", id, len(got[id]), len(want[id]))
		}
	}
	return ""
}

// file is one snapshot of a chain.
type file struct {
	head   shard.Head
	blocks []ps.Block
}

func load(c shard.Config, chain []file) (*shard.Shard, error) {
	l, err := shard.Load(c)
	if err != nil {
		return nil, err
	}
	for _, f := range chain {
		if err := l.Begin(f.head); err != nil {
			return nil, err
		}
		for _, b := range f.blocks {
			if err := l.Rows(b); err != nil {
				return nil, err
			}
		}
	}
	return l.Shard()
}

// snapshotOf reads a whole snapshot.
func snapshotOf(t testing.TB, s *shard.Shard, since uint64) file {
	t.Helper()
	sn, err := s.Snapshot(since)
	if err != nil {
		t.Fatal(err)
	}
	f := file{head: sn.Head()}
	for {
		b, err := sn.Read(make([]byte, shard.BlockBytes))
		if errors.Is(err, io.EOF) {
			return f
		}
		if err != nil {
			t.Fatal(err)
		}
		f.blocks = append(f.blocks, b)
	}
}

// pushed is an item of random gradients for random keys, some twice.
func pushed(t *rapid.T, m ps.Model, applied []ps.Offset) message {
	p := ps.Partition(rapid.IntRange(0, nPartitions-1).Draw(t, "partition"))
	events := rapid.Uint64Range(1, 9).Draw(t, "events")
	msg := message{
		ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), Version: m.Version, Partition: p, To: applied[p] + ps.Offset(events)},
		&ps.Item{Shard: 1, From: applied[p], EventTime: int64(applied[p])},
	}
	if rapid.IntRange(0, 4).Draw(t, "rows") == 0 {
		return msg // an empty advance
	}
	msg.item.Trained, msg.item.Fingerprint = events, ps.Fingerprint{Count: events, Sum: events * 77, Xor: events}
	rng := rapid.Uint64().Draw(t, "gradients")
	for id, desc := range m.Layout.Tables {
		keys := rapid.SliceOfN(rapid.Uint64Range(0, 99), 0, 80).Draw(t, "keys")
		rows := ps.Rows{Table: ps.TableID(id)}
		for _, k := range keys {
			rows.Keys = append(rows.Keys, keyOf(1, nShards, k))
			for range desc.Width {
				rng = ps.Mix(rng)
				switch v := float64(int64(rng)) * 0x1p-62; desc.Kind {
				case ps.Float32:
					rows.Values = append(rows.Values, ps.Bytes([]float32{float32(v)})...)
				case ps.Float64:
					rows.Values = append(rows.Values, ps.Bytes([]float64{v})...)
				case ps.Uint64:
					rows.Values = append(rows.Values, ps.Bytes([]uint64{rng >> 60})...)
				}
			}
		}
		msg.item.Rows = append(msg.item.Rows, rows)
	}
	return msg
}

// change is what happens to a shard: a push, or rows that are set.
type change func(t *rapid.T, s *shard.Shard)

// changed draws what happens next, and advances applied by it.
func changed(t *rapid.T, m ps.Model, applied []ps.Offset) change {
	if rapid.IntRange(0, 4).Draw(t, "set") > 0 {
		msg := pushed(t, m, applied)
		applied[msg.update.Partition] = msg.update.To
		return func(t *rapid.T, s *shard.Shard) {
			if a := s.Push(&msg.update, msg.item); a.Outcome != ps.Applied {
				t.Fatalf("push: %+v", a)
			}
		}
	}
	id, fresh := ps.TableID(rapid.IntRange(0, 1).Draw(t, "table")), rapid.Bool().Draw(t, "fresh")
	var keys []ps.Key
	for _, k := range rapid.SliceOfNDistinct(rapid.Uint64Range(0, 99), 0, 80, rapid.ID[uint64]).Draw(t, "keys") {
		keys = append(keys, keyOf(1, nShards, k))
	}
	rng := rapid.Uint64().Draw(t, "weights")
	weights := make([]float32, len(keys)*m.Layout.Tables[id].Width)
	for i := range weights {
		weights[i] = float32(int64(ps.Mix(rng+uint64(i)))) * 0x1p-63
	}
	return func(t *rapid.T, s *shard.Shard) {
		before := s.Progress()
		born, err := s.Set(id, keys, ps.Bytes(weights), fresh)
		if err != nil {
			t.Fatalf("set: %v", err)
		}
		before.Seq, before.Rows = before.Seq+1, before.Rows+uint64(born)
		if after := s.Progress(); fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) {
			t.Fatalf("after %d rows were set, and %d born, the shard is at %+v, want %+v", len(keys), born, after, before)
		}
		got := make([]byte, len(keys)*m.Layout.Tables[id].RowBytes())
		if err := s.Gather(id, keys, got, nil); err != nil || !slices.Equal(got, ps.Bytes(weights)) {
			t.Fatalf("rows that were set have other weights (%v)", err)
		}
	}
}

// TestSnapshotsAmongPushes takes snapshots of a shard that goes on learning, reads
// them in steps of any size between the pushes, gives some of them up, and chains
// the others. Each must be the shard at its boundary; a chain must load as the
// shard at its last boundary, and learn on as the shard itself did.
func TestSnapshotsAmongPushes(t *testing.T) {
	var copies, abandoned, links int
	rapid.Check(t, func(t *rapid.T) {
		m := wide()
		n := len(m.Layout.Tables)
		live, err := shard.New(config(m, 3))
		if err != nil {
			t.Fatal(err)
		}
		var (
			applied [nPartitions]ps.Offset
			chain   []file   // ended
			pushes  []change // since the boundary of chain's last
			then    copied   // the shard at that boundary

			sn      *shard.Snapshot // under way, or nil
			current file
			got     []map[ps.Key]string
			now     copied   // the shard at its boundary
			later   []change // since then
		)
		read := func(t *rapid.T, rows int) {
			b, err := sn.Read(make([]byte, rows*(16+2*600*4)))
			if errors.Is(err, io.EOF) {
				if d := differ(got, now.since(current.head.Since)); d != "" {
					t.Fatalf("snapshot of seq %d since %d and the shard at its boundary: %s", current.head.Seq, current.head.Since, d)
				}
				if current.head.Since == 0 {
					chain = nil
				}
				chain, pushes, then, sn = append(chain, current), later, now, nil
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			current.blocks = append(current.blocks, b)
			for at := 0; at < len(b.Rows); at += b.Stride {
				key := ps.Key(binary.LittleEndian.Uint64(b.Rows[at:]))
				if _, ok := got[b.Table][key]; ok {
					t.Fatalf("table %d key %#x is in the snapshot twice", b.Table, uint64(key))
				}
				got[b.Table][key] = string(b.Rows[at : at+b.Stride])
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				c := changed(t, m, applied[:])
				size := live.Bytes()
				c(t, live)
				if live.Bytes() > size {
					copies++
				}
				pushes, later = append(pushes, c), append(later, c)
			},
			"snapshot": func(t *rapid.T) {
				since := uint64(0)
				if len(chain) > 0 && rapid.IntRange(0, 4).Draw(t, "full") > 0 {
					since = chain[len(chain)-1].head.Seq
				}
				if sn != nil {
					if _, err := live.Snapshot(since); !errors.Is(err, ps.ErrConflict) {
						t.Fatalf("a second snapshot: %v, want ps.ErrConflict", err)
					}
					return
				}
				now = copyOf(t, live, n)
				if sn, err = live.Snapshot(since); err != nil {
					t.Fatal(err)
				}
				current, later, got = file{head: sn.Head()}, nil, nil
				for range n {
					got = append(got, map[ps.Key]string{})
				}
			},
			"read": func(t *rapid.T) {
				for range rapid.IntRange(1, 12).Draw(t, "blocks") {
					if sn != nil {
						read(t, rapid.SampledFrom([]int{1, 7, 60}).Draw(t, "rows"))
					}
				}
			},
			"give up": func(t *rapid.T) {
				if sn != nil && rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					abandoned++
					sn.Close()
					sn = nil
				}
			},
			"load": func(t *rapid.T) {
				if len(chain) == 0 {
					return
				}
				links = max(links, len(chain))
				loaded, err := load(config(m, 8), chain)
				if err != nil {
					t.Fatal(err)
				}
				if d := copyOf(t, loaded, n).differs(then); d != "" {
					t.Fatalf("loaded shard and the one at the last boundary: %s", d)
				}
				if fence := loaded.Progress().Fence; fence != 8 {
					t.Fatalf("loaded under fence %d, want its own, 8", fence)
				}
				for _, c := range pushes {
					c(t, loaded)
				}
				if d := copyOf(t, loaded, n).differs(copyOf(t, live, n)); d != "" {
					t.Fatalf("the loaded shard after the same %d changes and the live one: %s", len(pushes), d)
				}
				for id, desc := range m.Layout.Tables { // unborn rows too
					var keys []ps.Key
					for k := range uint64(120) {
						keys = append(keys, keyOf(1, nShards, k))
					}
					a, b := make([]byte, len(keys)*desc.RowBytes()), make([]byte, len(keys)*desc.RowBytes())
					if err := errors.Join(loaded.Gather(ps.TableID(id), keys, a, nil), live.Gather(ps.TableID(id), keys, b, nil)); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(a, b) {
						t.Fatalf("table %d: pulls differ", id)
					}
				}
				if err := loaded.Valid(); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
	t.Logf("%d pushes that needed memory, %d snapshots given up, chains of %d", copies, abandoned, links)
	if (copies == 0 || abandoned == 0 || links < 3) && !testing.Short() { // which tries a fifth as much
		t.Error("the test does not test")
	}
}

func TestSnapshotHead(t *testing.T) {
	s := learnt(t)
	want := s.Progress()
	sn, err := s.Snapshot(1)
	if err != nil {
		t.Fatal(err)
	}
	more(t, s)
	if got := sn.Head(); fmt.Sprint(got) != fmt.Sprint(shard.Head{Since: 1, ShardProgress: want, TableRows: []int{2, 1, 0, 1}}) {
		t.Errorf("head after another push is %+v, want seq 1 and %+v", got, want)
	}
	if got, want := s.SnapshotBytes(), 3*(16+4)+2*(16+16)+1*(16+8); got != want {
		t.Errorf("snapshot of %d bytes, want %d", got, want)
	}
	if got, want := s.Strides(), []int{16 + 4, 16 + 16, 16 + 24, 16 + 8}; !slices.Equal(got, want) {
		t.Errorf("strides %v, want %v", got, want)
	}
	if _, err := sn.Read(make([]byte, 8)); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("read into 8 bytes: %v, want ps.ErrInvalid", err)
	}
	sn.Close()
	if _, err := sn.Read(make([]byte, shard.BlockBytes)); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("read after close: %v, want ps.ErrInvalid", err)
	}
}

// learnt is a shard with rows of seq 1 and 2; more brings it to seq 3.
func learnt(t testing.TB) *shard.Shard {
	s := open(t, 1, 1)
	key := func(n uint64) ps.Key { return keyOf(1, nShards, n) }
	for i, rows := range [][]ps.Rows{
		{
			{Table: 0, Keys: []ps.Key{key(1), key(2)}, Values: ps.Bytes([]float32{1, 2})},
			{Table: 1, Keys: []ps.Key{key(1)}, Values: ps.Bytes([]float32{1, 2})},
		},
		{
			{Table: 0, Keys: []ps.Key{key(2)}, Values: ps.Bytes([]float32{1})},
			{Table: 3, Keys: []ps.Key{key(9)}, Values: ps.Bytes([]uint64{1})},
		},
	} {
		item := &ps.Item{Shard: 1, From: ps.Offset(i), Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: rows}
		if a := s.Push(update(ps.Offset(i+1)), item); a.Outcome != ps.Applied {
			t.Fatal(a)
		}
	}
	return s
}

func more(t testing.TB, s *shard.Shard) {
	item := &ps.Item{Shard: 1, From: 2, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{
		{Table: 0, Keys: []ps.Key{keyOf(1, nShards, 1), keyOf(1, nShards, 3)}, Values: ps.Bytes([]float32{1, 2})},
		{Table: 1, Keys: []ps.Key{keyOf(1, nShards, 5)}, Values: ps.Bytes([]float32{1, 2})},
	}}
	if a := s.Push(update(3), item); a.Outcome != ps.Applied {
		t.Fatal(a)
	}
}

func TestLoaderIsOfNoUseAfterAnError(t *testing.T) {
	s := learnt(t)
	good := snapshotOf(t, s, 0)
	l, err := shard.Load(config(model(nPartitions), 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Begin(good.head); err != nil {
		t.Fatal(err)
	}
	bad := good.blocks[0]
	bad.Stride++
	first := l.Rows(bad)
	if !errors.Is(first, ps.ErrCorrupt) {
		t.Fatalf("%v, want ps.ErrCorrupt", first)
	}
	loaded, err := l.Shard()
	for what, err := range map[string]error{"begin": l.Begin(good.head), "rows": l.Rows(good.blocks[0]), "shard": err} {
		if !errors.Is(err, first) {
			t.Errorf("%s: %v, want the first error: %v", what, err, first)
		}
	}
	if loaded != nil {
		t.Errorf("got a shard, want none")
	}
}

func TestLoaderGivesOneShard(t *testing.T) {
	l, err := shard.Load(config(model(nPartitions), 2))
	if err != nil {
		t.Fatal(err)
	}
	f := snapshotOf(t, learnt(t), 0)
	for _, call := range []func() error{
		func() error { return l.Begin(f.head) },
		func() error { return l.Rows(f.blocks[0]) },
		func() error { return l.Rows(f.blocks[1]) },
		func() error { return l.Rows(f.blocks[2]) },
		func() error { _, err := l.Shard(); return err },
	} {
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := l.Shard(); s != nil || !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("the second time: %v, %v; want ps.ErrInvalid", s, err)
	}
	if err := l.Rows(f.blocks[0]); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("rows afterwards: %v, want ps.ErrInvalid", err)
	}
	if _, err := shard.Load(shard.Config{}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("load of no model: %v, want ps.ErrInvalid", err)
	}
}

// FuzzLoad loads an arbitrary block behind a good one. It must never panic; what
// it accepts must be a valid shard.
func FuzzLoad(f *testing.F) {
	s := learnt(f)
	full := snapshotOf(f, s, 0)
	more(f, s)
	increment := snapshotOf(f, s, 2)
	for _, b := range append(slices.Clone(full.blocks), increment.blocks...) {
		f.Add(uint32(b.Table), b.Stride, b.Rows, uint64(2), uint64(3), uint64(6), uint64(3), uint64(3))
	}
	f.Add(uint32(9), 0, []byte{}, uint64(0), uint64(0), uint64(0), uint64(0), uint64(0))
	f.Add(uint32(0), 20, []byte(strings.Repeat("x", 20)), uint64(2), uint64(3), uint64(6), uint64(3), uint64(9))
	f.Fuzz(func(t *testing.T, table uint32, stride int, rows []byte, since, seq, count, applied, trained uint64) {
		head := shard.Head{Since: since, ShardProgress: ps.ShardProgress{Shard: 1, Fence: 1, Seq: seq, Rows: count, Partitions: []ps.Progress{
			{Applied: ps.Offset(applied), Trained: trained, Fingerprint: ps.Fingerprint{Count: trained}}, {},
		}}}
		block := ps.Block{Table: ps.TableID(table), Stride: stride, Rows: rows}
		loaded, err := load(config(model(nPartitions), 2), []file{full, {head, []ps.Block{block}}})
		if err != nil {
			if !errors.Is(err, ps.ErrCorrupt) || loaded != nil {
				t.Errorf("%v, want ps.ErrCorrupt and no shard", err)
			}
			return
		}
		if err := loaded.Valid(); err != nil {
			t.Error(err)
		}
	})
}

func TestPushAfterSnapshotsAllocatesNothing(t *testing.T) {
	s := learnt(t)
	snapshotOf(t, s, 0)
	u := update(2)
	item := &ps.Item{Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{
		{Table: 0, Keys: []ps.Key{keyOf(1, nShards, 1)}, Values: make([]byte, 4)},
	}}
	push := func() {
		item.From, u.To = u.To, u.To+1
		if a := s.Push(u, item); a.Outcome != ps.Applied {
			t.Fatal(a)
		}
	}
	if n := testing.AllocsPerRun(100, push); n != 0 {
		t.Errorf("a push after a snapshot allocates %v times, want never", n)
	}
	if _, err := s.Snapshot(0); err != nil {
		t.Fatal(err)
	}
	push() // saves the row
	if n := testing.AllocsPerRun(100, push); n != 0 {
		t.Errorf("a push of saved rows allocates %v times, want never", n)
	}
}

// full returns a shard of one table with rows of 144 bytes, and all its keys.
func full(b *testing.B, rows int) (*shard.Shard, ps.Model, []ps.Key) {
	m := ps.Model{Name: "shop", Stream: "orders@1", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{{
		Name: "item", Kind: ps.Float32, Width: 16,
		Optimizer:   ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 0.1},
		Initializer: ps.Initializer{Name: ps.Zero},
	}}}}
	s, err := shard.New(shard.Config{Model: m, ID: 1, Shards: nShards})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]ps.Key, rows)
	for i := range keys {
		keys[i] = keyOf(1, nShards, ps.Mix(uint64(i))>>2)
	}
	u := &ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), To: 1}
	item := &ps.Item{Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{{Keys: keys, Values: make([]byte, rows*64)}}}
	if a := s.Push(u, item); a.Outcome != ps.Applied {
		b.Fatal(a)
	}
	return s, m, keys
}

func BenchmarkSnapshotBegin(b *testing.B) {
	const rows = 1_000_000
	b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
		s, _, _ := full(b, rows)
		for b.Loop() {
			sn, err := s.Snapshot(0)
			if err != nil {
				b.Fatal(err)
			}
			sn.Close()
		}
	})
}

// BenchmarkPushDuringSnapshot pushes random keys of a shard of 25 MB, one push
// before every Read. The first push of a snapshot has the most to copy: its median
// says how long a push can take. (So does the longest of all, but on a busy machine
// that is a push that was interrupted.) without=true is the same without snapshots.
func BenchmarkPushDuringSnapshot(b *testing.B) {
	const rows = 173_600 // of 144 bytes: 25 MB
	for _, keys := range []int{64, 4096} {
		for _, without := range []bool{true, false} {
			b.Run(fmt.Sprintf("keys=%d/without=%t", keys, without), func(b *testing.B) {
				s, m, all := full(b, rows)
				rng := rand.New(rand.NewPCG(1, 2))
				u := &ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), To: 1}
				item := &ps.Item{Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{{
					Keys: make([]ps.Key, keys), Values: make([]byte, keys*64),
				}}}
				dst := make([]byte, shard.BlockBytes)
				var total, totalRead, longest time.Duration
				var first []time.Duration // by snapshot
				pushes := 0
				for b.Loop() {
					var sn *shard.Snapshot
					if !without {
						var err error
						if sn, err = s.Snapshot(0); err != nil {
							b.Fatal(err)
						}
					}
					for i := 0; ; i++ {
						for k := range item.Rows[0].Keys {
							item.Rows[0].Keys[k] = all[rng.IntN(rows)]
						}
						item.From, u.To = u.To, u.To+1
						start := time.Now()
						a := s.Push(u, item)
						took := time.Since(start)
						if a.Outcome != ps.Applied {
							b.Fatal(a)
						}
						pushes++
						if i == 0 {
							first = append(first, took)
						}
						longest, total = max(longest, took), total+took
						if without && i == rows>>10 {
							break
						}
						if without {
							continue
						}
						start = time.Now()
						_, err := sn.Read(dst)
						totalRead += time.Since(start)
						if errors.Is(err, io.EOF) {
							break
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
				slices.Sort(first)
				b.ReportMetric(float64(first[len(first)/2].Microseconds()), "first-push-µs")
				b.ReportMetric(float64(longest.Microseconds()), "longest-push-µs")
				b.ReportMetric(float64(total.Microseconds())/float64(pushes), "mean-push-µs")
				b.ReportMetric(float64(totalRead.Microseconds())/float64(pushes), "mean-read-µs")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
