package table

import (
	"fmt"
	"runtime"

	"github.com/freshet-ml/freshet/ps"
)

// Set replaces the weights of rows by values that were not learned here: (len(keys),
// width) float32, little endian. A key without a row gets one, whose state is that of a
// row born with these weights. A row that is there keeps what its state says of past
// gradients, unless fresh asks for the state of a new one. The rows' seq becomes seq, as
// in Apply. It returns how many rows were born. The caller keeps the slices.
//
// It is all or nothing: it wraps ps.ErrInvalid if the table's rows are not float32, the
// lengths or seq do not fit, or a weight is not finite or beyond ps.WeightMax (it says
// which), and ps.ErrOutOfMemory as Fits does.
func (t *Table) Set(keys []ps.Key, weights []byte, seq uint64, fresh bool) (born int, err error) {
	if err := t.settable(keys, weights); err != nil {
		return 0, err
	}
	if t.snapshot != nil && seq <= t.snapshot.seq {
		return 0, fmt.Errorf("table %q: rows are set at seq %d during a snapshot of seq %d: %w", t.desc.Name, seq, t.snapshot.seq, ps.ErrInvalid)
	}
	if err := t.Fits(keys); err != nil {
		return 0, err
	}
	if err := t.follow(seq); err != nil {
		return 0, err
	}
	before, stamp := t.rows.len, t.stamp(seq)
	t.locate(keys, t.rows.stride, func(found *location, from, to int) {
		t.set(found, keys[from:to], weights[from*t.rowBytes:to*t.rowBytes], stamp, fresh)
	})
	runtime.KeepAlive(t)
	return t.rows.len - before, nil
}

// settable reports why weights cannot be those of rows of keys.
func (t *Table) settable(keys []ps.Key, weights []byte) error {
	if t.desc.Kind != ps.Float32 {
		return fmt.Errorf("table %q: its rows are sums of events, of %v: only float32 weights can be set: %w", t.desc.Name, t.desc.Kind, ps.ErrInvalid)
	}
	if len(weights) != len(keys)*t.rowBytes {
		return t.badLength(len(keys), len(weights))
	}
	for i, w := range ps.View[float32](weights) {
		if !(-ps.WeightMax <= w && w <= ps.WeightMax) { // so that NaN is found
			row := i / t.desc.Width
			return fmt.Errorf("table %q: key %d (%#016x): element %d is %g: want a weight of at most %g: %w",
				t.desc.Name, row, uint64(keys[row]), i%t.desc.Width, w, float64(ps.WeightMax), ps.ErrInvalid)
		}
	}
	return nil
}

func (t *Table) set(found *location, keys []ps.Key, weights []byte, stamp uint32, fresh bool) {
	t.settle(found, keys)
	existed := found.rows
	t.insertMissing(found, keys)
	rows := found.rows[:len(keys)]
	if t.snapshot != nil {
		t.snapshot.save(rows, stamp)
	}
	if t.changes != nil {
		t.changes.note(rows, t.rows.len)
	}
	for i, row := range rows {
		setStamp(t.rows.row(row-1), stamp)
		t.elements.set(t.rows.elements(row-1), weights[i*t.rowBytes:(i+1)*t.rowBytes], fresh || existed[i] == 0)
	}
}
