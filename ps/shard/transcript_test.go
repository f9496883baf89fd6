package shard_test

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// layout is that of all tests: weights that are easy to follow by hand, weights
// with state and random initial values, a table of figures and an audit table.
var layout = ps.Layout{
	Seed: 1,
	Tables: []ps.Table{
		{
			Name: "linear", Kind: ps.Float32, Width: 1,
			Optimizer:   ps.Optimizer{Name: ps.SGD, LearningRate: 0.5},
			Initializer: ps.Initializer{Name: ps.Zero},
		},
		{
			Name: "factors", Kind: ps.Float32, Width: 2,
			Optimizer:   ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 1},
			Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.1},
		},
		{
			Name: "figures", Kind: ps.Float64, Width: 3,
			Optimizer:   ps.Optimizer{Name: ps.Sum},
			Initializer: ps.Initializer{Name: ps.Zero},
		},
		{
			Name: "audit", Kind: ps.Uint64, Width: 1,
			Optimizer:   ps.Optimizer{Name: ps.Audit},
			Initializer: ps.Initializer{Name: ps.Zero},
		},
	},
}

func model(partitions int) ps.Model {
	return ps.Model{Name: "shop", Version: 1, Layout: layout, Stream: "orders@1", Partitions: partitions}
}

// TestTranscripts runs testdata/*.txt. The commands are
//
//	open [shards=N] [shard=N] [partitions=N] [rows-max=N] [fence=N]
//	push [partition=N] from=N to=N [trained=N] [held=N] [skipped=N] [time=N] [generation=N]
//	     [model=S] [stream=S] [version=N] [layout=other] [for=SHARD] [count=N] [sum=N]
//	table key values…
//	…
//	pull
//	table key…
//	…
//	progress
//	rows table
//	snapshot [since=N]
//	read [rows=N] [as=NAME]
//	close
//	load [fence=N] [rows-max=N] [partitions=N]
//	NAME [change…]
//	…
//
// A key is a number that is unique within the shard, or shard:number. The
// fingerprint is that of the first offsets of the range, as many as the counts
// say, unless count or sum is given. Read gives one block, of at most so many rows
// of the widest table; with a name it gives all that are left, and load takes
// snapshots by name, each as it was read but for the changes (see changed). The
// loaded shard is then the one that commands are for.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		x := &transcript{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			x.t, x.d = t, d
			out := x.run()
			if x.shard != nil {
				if err := x.shard.Valid(); err != nil {
					t.Fatalf("%s: after %s: %v", d.Pos, d.Cmd, err)
				}
			}
			return out
		})
	})
}

type transcript struct {
	t      *testing.T
	d      *datadriven.TestData
	shard  *shard.Shard
	config shard.Config

	snapshot *shard.Snapshot
	read     file            // what was read of it
	files    map[string]file // by name
}

func (x *transcript) run() string {
	switch x.d.Cmd {
	case "open":
		x.config = shard.Config{
			Shards:  int(x.number("shards", 4)),
			ID:      ps.ShardID(x.number("shard", 2)),
			Fence:   ps.Fence(x.number("fence", 1)),
			RowsMax: int(x.number("rows-max", 0)),
			Model:   model(int(x.number("partitions", 1))),
		}
		s, err := shard.New(x.config)
		if err != nil {
			return describe(err)
		}
		x.shard = s
		return "ok\n"
	case "push":
		return x.push()
	case "pull":
		return x.pull()
	case "progress":
		return x.progress()
	case "rows":
		return x.rows()
	case "snapshot", "read", "close", "load":
		return x.runSnapshot()
	}
	x.t.Fatalf("%s: unknown command %s", x.d.Pos, x.d.Cmd)
	return ""
}

func (x *transcript) text(name, otherwise string) string {
	x.d.MaybeScanArgs(x.t, name, &otherwise)
	return otherwise
}

func (x *transcript) number(name string, otherwise int64) int64 {
	if text := x.text(name, ""); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			x.t.Fatalf("%s: %s: %v", x.d.Pos, name, err)
		}
		return n
	}
	return otherwise
}

func (x *transcript) key(text string) ps.Key {
	of := uint64(x.config.ID)
	if before, after, ok := strings.Cut(text, ":"); ok {
		of, _ = strconv.ParseUint(before, 10, 64)
		text = after
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		x.t.Fatalf("%s: key: %v", x.d.Pos, err)
	}
	return keyOf(ps.ShardID(of), x.config.Shards, n)
}

// keyOf returns a shard's n-th key.
func keyOf(s ps.ShardID, shards int, n uint64) ps.Key {
	return ps.Key(uint64(s)*(math.MaxUint64/uint64(shards)+1) + n)
}

func (x *transcript) table(name string) (ps.TableID, ps.Table) {
	if id, desc, ok := layout.Table(name); ok {
		return id, desc
	}
	return ps.TableID(len(layout.Tables)), ps.Table{Name: name, Width: 1}
}

func (x *transcript) push() string {
	u := &ps.Update{
		Model:      x.text("model", "shop"),
		Stream:     ps.StreamID(x.text("stream", "orders@1")),
		Version:    uint64(x.number("version", 1)),
		Layout:     layout.Hash(),
		Partition:  ps.Partition(x.number("partition", 0)),
		Generation: ps.Generation(x.number("generation", 1)),
		To:         ps.Offset(x.number("to", 0)),
	}
	if x.text("layout", "") == "other" {
		u.Layout++
	}
	item := &ps.Item{
		Shard:     ps.ShardID(x.number("for", int64(x.config.ID))),
		From:      ps.Offset(x.number("from", 0)),
		Trained:   uint64(x.number("trained", 0)),
		Held:      uint64(x.number("held", 0)),
		Skipped:   uint64(x.number("skipped", 0)),
		EventTime: x.number("time", 0),
	}
	for i := range item.Trained + item.Held + item.Skipped {
		item.Fingerprint.Add(ps.EventHash(u.Partition, item.From+ps.Offset(i)))
	}
	item.Fingerprint.Count = uint64(x.number("count", int64(item.Fingerprint.Count)))
	item.Fingerprint.Sum = uint64(x.number("sum", int64(item.Fingerprint.Sum)))
	for line := range strings.Lines(x.d.Input) {
		fields := strings.Fields(line)
		id, desc := x.table(fields[0])
		if n := len(item.Rows); n == 0 || item.Rows[n-1].Table != id {
			item.Rows = append(item.Rows, ps.Rows{Table: id})
		}
		rows := &item.Rows[len(item.Rows)-1]
		rows.Keys = append(rows.Keys, x.key(fields[1]))
		for _, value := range fields[2:] {
			rows.Values = append(rows.Values, x.encode(desc.Kind, value)...)
		}
	}
	a := x.shard.Push(u, item)
	if a.Shard != x.config.ID {
		x.t.Errorf("%s: answer is of shard %d", x.d.Pos, a.Shard)
	}
	if a.Err != nil {
		return fmt.Sprintf("%v, applied %d: %s", a.Outcome, a.Applied, describe(a.Err))
	}
	return fmt.Sprintf("%v, applied %d\n", a.Outcome, a.Applied)
}

func (x *transcript) encode(kind ps.Kind, text string) []byte {
	if kind == ps.Uint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			x.t.Fatalf("%s: %v", x.d.Pos, err)
		}
		return ps.Bytes([]uint64{n})
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		x.t.Fatalf("%s: %v", x.d.Pos, err)
	}
	if kind == ps.Float32 {
		return ps.Bytes([]float32{float32(v)})
	}
	return ps.Bytes([]float64{v})
}

func decode(kind ps.Kind, values []byte) string {
	switch kind {
	case ps.Float32:
		return fmt.Sprint(ps.View[float32](values))
	case ps.Float64:
		return fmt.Sprint(ps.View[float64](values))
	}
	return fmt.Sprint(ps.View[uint64](values))
}

func (x *transcript) pull() string {
	var out strings.Builder
	for line := range strings.Lines(x.d.Input) {
		fields := strings.Fields(line)
		id, desc := x.table(fields[0])
		var keys []ps.Key
		for _, field := range fields[1:] {
			keys = append(keys, x.key(field))
		}
		dst := make([]byte, len(keys)*desc.RowBytes())
		if err := x.shard.Gather(id, keys, dst, nil); err != nil {
			out.WriteString(describe(err))
			continue
		}
		fmt.Fprintf(&out, "%s:", desc.Name)
		for i := range keys {
			fmt.Fprintf(&out, " %s", decode(desc.Kind, dst[i*desc.RowBytes():(i+1)*desc.RowBytes()]))
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func (x *transcript) progress() string {
	var out strings.Builder
	p := x.shard.Progress()
	fmt.Fprintf(&out, "shard %d fence %d seq %d rows %d\n", p.Shard, p.Fence, p.Seq, p.Rows)
	for i, q := range p.Partitions {
		fmt.Fprintf(&out, "partition %d: applied %d, %d trained, %d held, %d skipped, fingerprint %d %016x %016x, time %d\n",
			i, q.Applied, q.Trained, q.Held, q.Skipped, q.Fingerprint.Count, q.Fingerprint.Sum, q.Fingerprint.Xor, q.EventTime)
	}
	return out.String()
}

func (x *transcript) rows() string {
	var out strings.Builder
	id, desc := x.table(x.d.CmdArgs[0].Key)
	err := x.shard.Range(id, func(key ps.Key, seq uint64, row []byte) bool {
		fmt.Fprintf(&out, "key %d seq %d: %s\n", key-keyOf(x.config.ID, x.config.Shards, 0), seq, decode(desc.Kind, row))
		return true
	})
	if err != nil {
		return describe(err)
	}
	return out.String()
}

// describe returns an error's text after the name of its sentinel.
func describe(err error) string {
	for name, sentinel := range map[string]error{
		"ErrInvalid": ps.ErrInvalid, "ErrModelMismatch": ps.ErrModelMismatch,
		"ErrReplaced": ps.ErrReplaced, "ErrOutOfMemory": ps.ErrOutOfMemory,
		"ErrCorrupt": ps.ErrCorrupt, "ErrConflict": ps.ErrConflict,
	} {
		if errors.Is(err, sentinel) {
			return fmt.Sprintf("%s: %s\n", name, strings.TrimSuffix(err.Error(), ": "+sentinel.Error()))
		}
	}
	return fmt.Sprintf("no sentinel: %v\n", err)
}
