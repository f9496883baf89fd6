package client

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/freshet-ml/freshet/ps"
)

// Reader looks weights of one model up by the names of its tables, for whoever keeps
// nothing and does not group keys. It is safe for concurrent use.
type Reader struct {
	client  *Client
	model   string
	layout  ps.Layout
	hash    uint64
	options LookupOptions
	calls   sync.Pool // of *readerCall
}

// readerCall is memory that one call after the other uses.
type readerCall struct {
	group ps.Group
	reads [1]ps.Read
}

// NewReader returns a reader of a model with the given layout, which has to be valid. Its
// look-ups have the options.
func NewReader(c *Client, model string, layout ps.Layout, o LookupOptions) *Reader {
	return &Reader{client: c, model: model, layout: layout, hash: layout.Hash(), options: o}
}

// Weights looks the weights of keys in a table up. They may be in any order, and repeat.
// It returns (len(keys), width) weights in the order of the keys, in dst's memory if it is
// large enough, and how fresh they are, of each shard that has keys, ascending. A key that
// was never pushed to has its initial weights.
//
// It returns what Lookup does; ps.ErrInvalid also where there is no such table of float32s.
func (r *Reader) Weights(ctx context.Context, table string, keys []ps.Key, dst []float32) ([]float32, []ShardFreshness, error) {
	id, desc, found := r.layout.Table(table)
	switch {
	case !found:
		return nil, nil, fmt.Errorf("look-up in table %q: model %q has the tables %s: %w", table, r.model, r.tables(), ps.ErrInvalid)
	case desc.Kind != ps.Float32:
		return nil, nil, fmt.Errorf("look-up in table %q of model %q, whose rows are %vs: want float32s: %w", table, r.model, desc.Kind, ps.ErrInvalid)
	}
	m, err := r.client.Map(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	call, _ := r.calls.Get().(*readerCall)
	if call == nil {
		call = new(readerCall)
	}
	defer r.calls.Put(call)
	call.group.Fill(keys, len(m.Shards))
	read := &call.reads[0]
	*read = ps.Read{Table: id, RowBytes: desc.RowBytes(), Group: &call.group, Values: read.Values}
	fresh, err := r.client.Lookup(ctx, r.model, r.hash, call.reads[:], r.options)
	if err != nil {
		return nil, nil, fmt.Errorf("look-up in table %q: %w", table, err)
	}
	if need := len(keys) * desc.Width; cap(dst) < need {
		dst = make([]float32, need)
	} else {
		dst = dst[:need]
	}
	values := ps.View[float32](read.Values)
	for i, at := range call.group.Index {
		copy(dst[i*desc.Width:(i+1)*desc.Width], values[int(at)*desc.Width:])
	}
	return dst, fresh, nil
}

// tables are the names of the model's tables.
func (r *Reader) tables() string {
	names := make([]string, len(r.layout.Tables))
	for i, t := range r.layout.Tables {
		names[i] = t.Name
	}
	return strings.Join(names, ", ")
}
