package model

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Dense says where the rows of a network's layers are: in order for the network, grouped
// by shard for pulls and pushes. It is safe for concurrent use.
type Dense struct {
	tables []denseTable
}

// denseTable is one layer's table.
type denseTable struct {
	ps.Table
	group ps.Group // its Index has the position of every row
	rows  []int32  // of every position, the row
}

// NewDense returns the places of the layers of a spec in a cluster of shards. It has no
// tables if the network has no layers.
func NewDense(s *spec.Spec, shards int) (*Dense, error) {
	d := new(Dense)
	tables := s.Dense()
	d.tables = make([]denseTable, len(tables))
	for i, from := range tables {
		t := &d.tables[i]
		t.Table = from.Table
		keys := make([]ps.Key, from.Rows)
		for row := range keys {
			keys[row] = from.Key(row)
		}
		t.group.Fill(keys, shards)
		if len(t.group.Keys) != len(keys) {
			return nil, fmt.Errorf("table %q: two rows have one key: %w", t.Name, ps.ErrInvalid)
		}
		t.rows = make([]int32, len(keys))
		for row, at := range t.group.Index {
			t.rows[at] = int32(row)
		}
	}
	return d, nil
}

// Tables returns how many tables there are.
func (d *Dense) Tables() int { return len(d.tables) }

// Len returns how many numbers table t has.
func (d *Dense) Len(t int) int { return len(d.tables[t].rows) * d.tables[t].Width }

// AppendReads appends a read of all rows of each table, of which table 0 is first in
// the layout.
func (d *Dense) AppendReads(reads []ps.Read, first ps.TableID) []ps.Read {
	for i := range d.tables {
		t := &d.tables[i]
		reads = append(reads, ps.Read{Table: first + ps.TableID(i), RowBytes: t.RowBytes(), Group: &t.group})
	}
	return reads
}

// Order copies pulled, which are table t's rows grouped by shard, to ordered, where they
// are in the order of the layer. Both are (rows, width).
func (d *Dense) Order(t int, pulled, ordered []float32) {
	table := &d.tables[t]
	w := table.Width
	for at, row := range table.rows {
		copy(ordered[int(row)*w:(int(row)+1)*w], pulled[at*w:(at+1)*w])
	}
}

// AppendShard appends the keys and the ordered rows of table t that a shard has.
func (d *Dense) AppendShard(t int, s ps.ShardID, ordered []float32, keys []ps.Key, rows []float32) ([]ps.Key, []float32) {
	table := &d.tables[t]
	w := table.Width
	from, to := table.group.Shard(s)
	for _, row := range table.rows[from:to] {
		rows = append(rows, ordered[int(row)*w:(int(row)+1)*w]...)
	}
	return append(keys, table.group.Keys[from:to]...), rows
}
