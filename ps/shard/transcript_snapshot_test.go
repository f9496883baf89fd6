package shard_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// runSnapshot runs the commands of transcripts about snapshots.
func (x *transcript) runSnapshot() string {
	switch x.d.Cmd {
	case "snapshot":
		sn, err := x.shard.Snapshot(uint64(x.number("since", 0)))
		if err != nil {
			return describe(err)
		}
		x.snapshot, x.read = sn, file{head: sn.Head()}
		h := x.read.head
		return fmt.Sprintf("shard %d fence %d seq %d since %d rows %d applied %d\n",
			h.Shard, h.Fence, h.Seq, h.Since, h.Rows, h.Partitions[0].Applied)
	case "close":
		x.snapshot.Close()
		return "ok\n"
	case "read":
		return x.readSnapshot()
	}
	return x.load()
}

func (x *transcript) readSnapshot() string {
	name := x.text("as", "")
	size := shard.BlockBytes
	if rows := x.number("rows", 0); rows > 0 {
		size = int(rows) * (16 + 3*8)
	}
	var out strings.Builder
	for {
		b, err := x.snapshot.Read(make([]byte, size))
		if errors.Is(err, io.EOF) {
			if x.files == nil {
				x.files = make(map[string]file)
			}
			x.files[name] = x.read
			return out.String() + "end\n"
		}
		if err != nil {
			return describe(err)
		}
		x.read.blocks = append(x.read.blocks, b)
		desc := layout.Tables[b.Table]
		fmt.Fprintf(&out, "%s: stride %d\n", desc.Name, b.Stride)
		for row := range slices.Chunk(b.Rows, b.Stride) {
			key := ps.Key(binary.LittleEndian.Uint64(row))
			fmt.Fprintf(&out, "  key %d seq %d: %s\n", key-keyOf(x.config.ID, x.config.Shards, 0),
				binary.LittleEndian.Uint64(row[8:]), decode(desc.Kind, row[16:]))
		}
		if name == "" {
			return out.String()
		}
	}
}

func (x *transcript) load() string {
	c := x.config
	c.Fence = ps.Fence(x.number("fence", int64(c.Fence)+1))
	c.RowsMax = int(x.number("rows-max", 0))
	c.Model = model(int(x.number("partitions", int64(c.Model.Partitions))))
	var chain []file
	for line := range strings.Lines(x.d.Input) {
		fields := strings.Fields(line)
		f, ok := x.files[fields[0]]
		if !ok {
			x.t.Fatalf("%s: no snapshot %s", x.d.Pos, fields[0])
		}
		chain = append(chain, x.changed(f, fields[1:]))
	}
	loaded, err := load(c, chain)
	if err != nil {
		return describe(err)
	}
	x.shard, x.config, x.snapshot = loaded, c, nil
	return "ok\n"
}

// changed returns a copy of a snapshot with changes to its head
//
//	shard=N fence=N since=N seq=N rows=N applied=N held=N
//
// or to its first block: table=N stride=N, the first row's key=KEY seq-of=N nan, a
// cut of the last byte, the first row twice or without.
func (x *transcript) changed(f file, changes []string) file {
	f.head.Partitions = slices.Clone(f.head.Partitions)
	f.blocks = slices.Clone(f.blocks)
	b := &f.blocks[0]
	b.Rows = slices.Clone(b.Rows)
	for _, change := range changes {
		name, text, _ := strings.Cut(change, "=")
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil && text != "" && name != "key" {
			x.t.Fatalf("%s: %s: %v", x.d.Pos, change, err)
		}
		switch name {
		case "shard":
			f.head.Shard = ps.ShardID(n)
		case "fence":
			f.head.Fence = ps.Fence(n)
		case "since":
			f.head.Since = n
		case "seq":
			f.head.Seq = n
		case "rows":
			f.head.Rows = n
		case "applied":
			f.head.Partitions[0].Applied = ps.Offset(n)
		case "held":
			f.head.Partitions[0].Held = n
		case "table":
			b.Table = ps.TableID(n)
		case "stride":
			b.Stride = int(n)
		case "key":
			binary.LittleEndian.PutUint64(b.Rows, uint64(x.key(text)))
		case "seq-of":
			binary.LittleEndian.PutUint64(b.Rows[8:], n)
		case "nan":
			binary.LittleEndian.PutUint32(b.Rows[16:], 0x7fc00000)
		case "cut":
			b.Rows = b.Rows[:len(b.Rows)-1]
		case "twice":
			b.Rows = append(b.Rows, b.Rows[:b.Stride]...)
		case "without":
			b.Rows = b.Rows[b.Stride:]
		default:
			x.t.Fatalf("%s: unknown change %s", x.d.Pos, change)
		}
	}
	return f
}
