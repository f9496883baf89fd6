package shard_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// dump returns the whole state of a shard.
func dump(t testing.TB, s *shard.Shard) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", s.Progress())
	for id := range layout.Tables {
		if err := s.Range(ps.TableID(id), func(key ps.Key, seq uint64, row []byte) bool {
			fmt.Fprintf(&b, "table %d key %#x seq %d: %x\n", id, uint64(key), seq, row)
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func update(to ps.Offset) *ps.Update {
	return &ps.Update{Model: "shop", Stream: "orders@1", Layout: layout.Hash(), Version: 1, To: to}
}

// FuzzPush pushes an arbitrary item to a shard that has some rows. It must never
// panic, and only Applied may change the shard.
func FuzzPush(f *testing.F) {
	one, nan := ps.Bytes([]float32{1}), ps.Bytes([]float32{float32(math.NaN())})
	key := binary.LittleEndian.AppendUint64(nil, 5)
	f.Add(uint32(0), uint32(1), uint64(0), uint64(10), uint64(20), uint64(1), uint64(0), uint64(0), uint64(1), uint32(0), key, one, uint32(3), key, key, true)
	f.Add(uint32(0), uint32(1), uint64(0), uint64(10), uint64(20), uint64(1), uint64(0), uint64(0), uint64(1), uint32(0), key, one, uint32(1), key, nan, true)
	f.Add(uint32(1), uint32(1), uint64(0), uint64(0), uint64(5), uint64(0), uint64(0), uint64(0), uint64(0), uint32(0), []byte{}, []byte{}, uint32(1), []byte{}, []byte{}, true)
	f.Add(uint32(0), uint32(1), uint64(0), uint64(10), uint64(20), uint64(math.MaxUint64), uint64(2), uint64(0), uint64(1), uint32(0), key, one, uint32(0), key, one, true)
	f.Add(uint32(9), uint32(9), uint64(9), uint64(9), uint64(9), uint64(9), uint64(9), uint64(9), uint64(9), uint32(9), key, one, uint32(9), key, one, false)
	f.Fuzz(func(t *testing.T, partition, id uint32, generation, from, to, trained, held, skipped, count uint64,
		table1 uint32, keys1, values1 []byte, table2 uint32, keys2, values2 []byte, ours bool,
	) {
		s := open(t, 1, 1)
		if a := s.Push(update(10), &ps.Item{
			Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1},
			Rows: []ps.Rows{{Table: 1, Keys: []ps.Key{keyOf(1, nShards, 5)}, Values: ps.Bytes([]float32{1, 2})}},
		}); a.Outcome != ps.Applied {
			t.Fatal(a)
		}
		before := dump(t, s)
		u := update(ps.Offset(to))
		u.Partition, u.Generation = ps.Partition(partition), ps.Generation(generation)
		rows := func(id uint32, keys, values []byte) ps.Rows {
			r := ps.Rows{Table: ps.TableID(id), Values: values}
			for ; len(keys) >= 8; keys = keys[8:] {
				key := binary.LittleEndian.Uint64(keys)
				if ours {
					key = uint64(keyOf(1, nShards, key>>2))
				}
				r.Keys = append(r.Keys, ps.Key(key))
			}
			return r
		}
		a := s.Push(u, &ps.Item{
			Shard: ps.ShardID(id), From: ps.Offset(from), Trained: trained, Held: held, Skipped: skipped,
			Fingerprint: ps.Fingerprint{Count: count},
			Rows:        []ps.Rows{rows(table1, keys1, values1), rows(table2, keys2, values2)},
		})
		after := dump(t, s)
		if (a.Err != nil) != (a.Outcome == ps.Refused) {
			t.Errorf("%v with error %v", a.Outcome, a.Err)
		}
		if a.Err != nil && !errors.Is(a.Err, ps.ErrInvalid) && !errors.Is(a.Err, ps.ErrReplaced) {
			t.Errorf("refused for %v", a.Err)
		}
		if (before != after) != (a.Outcome == ps.Applied) {
			t.Errorf("%v (%v): shard was\n%sand is\n%s", a.Outcome, a.Err, before, after)
		}
		if err := s.Valid(); err != nil {
			t.Errorf("%v: %v", a.Outcome, err)
		}
	})
}

func TestPushAllocatesNothingForExistingRows(t *testing.T) {
	s := open(t, 1, 1)
	keys := make([]ps.Key, 100)
	for i := range keys {
		keys[i] = keyOf(1, nShards, uint64(i))
	}
	u := update(0)
	item := &ps.Item{Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{
		{Table: 0, Keys: keys, Values: make([]byte, 400)},
		{Table: 1, Keys: keys, Values: make([]byte, 800)},
		{Table: 3, Keys: keys, Values: make([]byte, 800)},
	}}
	push := func() {
		item.From, u.To = u.To, u.To+1
		if a := s.Push(u, item); a.Outcome != ps.Applied {
			t.Fatal(a)
		}
	}
	push()
	if n := testing.AllocsPerRun(100, push); n != 0 {
		t.Errorf("a push allocates %v times, want never", n)
	}
	dst := make([]byte, 800)
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Gather(1, keys, dst, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a pull allocates %v times, want never", n)
	}
}

func TestProgressIsACopy(t *testing.T) {
	s := open(t, 1, 1)
	s.Progress().Partitions[0].Applied = 99
	if got := s.Progress().Partitions[0].Applied; got != 0 {
		t.Errorf("changing a copy made the shard's offset %d", got)
	}
}

func BenchmarkPush(b *testing.B) {
	const rows, keys, width = 100_000, 64, 16
	m := ps.Model{Name: "shop", Stream: "orders@1", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{{
		Name: "item", Kind: ps.Float32, Width: width,
		Optimizer:   ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.05, InitialAccumulator: 0.1},
		Initializer: ps.Initializer{Name: ps.Zero},
	}}}}
	b.Run(fmt.Sprintf("adagrad/rows=%d/keys=%d/width=%d", rows, keys, width), func(b *testing.B) {
		s, err := shard.New(shard.Config{Model: m, ID: 1, Shards: nShards})
		if err != nil {
			b.Fatal(err)
		}
		u := &ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), To: 1}
		item := &ps.Item{Shard: 1, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{{Values: make([]byte, rows*width*4)}}}
		all := make([]ps.Key, rows)
		for i := range all {
			all[i] = keyOf(1, nShards, ps.Mix(uint64(i))>>2)
		}
		item.Rows[0].Keys = all
		if a := s.Push(u, item); a.Outcome != ps.Applied {
			b.Fatal(a)
		}
		item.Rows[0].Values = item.Rows[0].Values[:keys*width*4]
		i := 0
		for b.Loop() {
			item.Rows[0].Keys = all[i : i+keys]
			item.From, u.To = u.To, u.To+1
			if a := s.Push(u, item); a.Outcome != ps.Applied {
				b.Fatal(a)
			}
			i = (i + 37*keys) % (rows - keys)
		}
		b.ReportMetric(float64(b.N*keys)/b.Elapsed().Seconds(), "rows/s")
	})
}

func TestRowsThatCannotBeSetChangeNothing(t *testing.T) {
	s := learnt(t)
	before := copyOf(t, s, 4)
	mine, other := keyOf(1, nShards, 7), keyOf(2, nShards, 7)
	for name, test := range map[string]struct {
		table   ps.TableID
		keys    []ps.Key
		weights []float32
		want    string
	}{
		"a key of another shard":  {0, []ps.Key{mine, other}, []float32{1, 2}, "is of shard 2"},
		"a table that is not":     {9, []ps.Key{mine}, []float32{1}, "table 9 of a layout of 4"},
		"counts of events":        {3, []ps.Key{mine}, []float32{1, 2}, "sums of events"},
		"a weight that is no one": {0, []ps.Key{mine}, []float32{float32(math.Inf(1))}, "element 0 is +Inf"},
	} {
		if _, err := s.Set(test.table, test.keys, ps.Bytes(test.weights), false); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, test.want)
		}
	}
	if d := copyOf(t, s, 4).differs(before); d != "" {
		t.Error(d)
	}
}
