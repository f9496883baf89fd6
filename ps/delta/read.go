package delta

import (
	"encoding/binary"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
)

const (
	keyBytes  = 8
	headBytes = 16 // key and seq
)

// Read returns what a reader is sent of a delta, or of a part of one, of a shard of that
// layout. They share no rows, and nobody changes either.
func Read(layout ps.Layout, r ps.Reading, d *ps.Delta) *ps.Delta {
	read := *d
	read.Blocks = nil
	read.Rows = 0
	for id, rows := range d.TableRows {
		if r.Wants(ps.TableID(id)) {
			read.Rows += uint64(rows)
		}
	}
	for _, b := range d.Blocks {
		if r.Wants(b.Table) && len(b.Rows) > 0 {
			read.Blocks = append(read.Blocks, readBlock(layout.Tables[b.Table], r.Encoding, b))
		}
	}
	return &read
}

func readBlock(t ps.Table, e ps.Encoding, b ps.Block) ps.Block {
	n, weights, stride := len(b.Rows)/b.Stride, t.RowBytes(), keyBytes+e.RowBytes(t)
	rows := make([]byte, n*stride)
	for i := range n {
		from, to := b.Rows[i*b.Stride:], rows[i*stride:(i+1)*stride]
		copy(to[:keyBytes], from)
		quant.Encode(to[keyBytes:], e, t, from[headBytes:headBytes+weights])
	}
	return ps.Block{Table: b.Table, Stride: stride, Rows: rows}
}

// Whole returns a reader's block as one of rows of the given seq, as they are stored in a
// table whose optimizer has no state. They share no memory. It wraps ps.ErrCorrupt if the
// block has no whole rows or one that cannot be decoded.
func Whole(t ps.Table, e ps.Encoding, b ps.Block, seq uint64) (ps.Block, error) {
	weights := t.RowBytes()
	from, stride := keyBytes+e.RowBytes(t), headBytes+weights
	if b.Stride != from || len(b.Rows)%from != 0 {
		return ps.Block{}, fmt.Errorf("table %q: %d bytes of rows of %d: want rows of %d: %w", t.Name, len(b.Rows), b.Stride, from, ps.ErrCorrupt)
	}
	rows := make([]byte, len(b.Rows)/from*stride)
	for to, in := rows, b.Rows; len(in) > 0; to, in = to[stride:], in[from:] {
		copy(to, in[:keyBytes])
		binary.LittleEndian.PutUint64(to[keyBytes:], seq)
		if err := quant.Decode(to[headBytes:stride], e, t, in[keyBytes:from]); err != nil {
			return ps.Block{}, fmt.Errorf("table %q: key %#016x: %w", t.Name, binary.LittleEndian.Uint64(in), err)
		}
	}
	return ps.Block{Table: b.Table, Stride: stride, Rows: rows}, nil
}
