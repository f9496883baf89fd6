package files

import (
	"github.com/cespare/xxhash/v2"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// cutter turns the text of rows into what events are made of. It has one owner at
// a time and allocates nothing per row.
type cutter struct {
	*columns
	format     format
	cells      [][]byte
	clock      spec.Time
	partitions uint64
	masker     *mask.Masker // nil if nothing is masked
	masks      []byte       // of the row's cells; has room for all
}

// newCutter returns a cutter of a source's rows.
func newCutter(s *Source) (*cutter, error) {
	c := &cutter{
		columns:    &s.columns,
		format:     s.columns.format(s.config.Stream.Format),
		cells:      make([][]byte, len(s.columns.names)),
		clock:      s.config.Stream.Time,
		partitions: uint64(s.config.Stream.Partitions),
	}
	if len(s.config.Stream.Identifiers) == 0 {
		return c, nil
	}
	var err error
	c.masker, err = mask.New(s.config.Secret)
	c.masks = make([]byte, 0, mask.Len*len(c.cells))
	return c, err
}

// place returns the event time and the partition of the row whose cells were just
// cut. If the time cannot be read it sets the row's fault, and the row goes where
// unreadable rows go.
func (c *cutter) place(r *row) (time int64, p ps.Partition) {
	c.masks = c.masks[:0]
	if c.time >= 0 && r.fault.kind == readable {
		var err error
		if time, err = c.clock.Milliseconds(c.cells[c.time]); err != nil {
			r.fault = fault{kind: badTime, time: err}
		}
	}
	switch {
	case c.partitions == 1:
		return time, 0
	case r.fault.kind != readable || c.partition < 0:
		return time, ps.Partition(r.hash() % c.partitions)
	}
	if c.masked[c.partition] {
		c.mask(c.partition)
	}
	return time, ps.Partition(xxhash.Sum64(c.cells[c.partition]) % c.partitions)
}

// event returns the columns of the row that was just placed, which is readable,
// with identifiers masked. They are valid until the next row.
func (c *cutter) event() [][]byte {
	for i := range c.asked {
		placed := c.partitions > 1 && i == c.partition // and so masked already
		if c.masked[i] && !placed {
			c.mask(i)
		}
	}
	return c.cells[:c.asked:c.asked]
}

func (c *cutter) mask(cell int) {
	if len(c.cells[cell]) == 0 {
		return // empty is nobody, and absent stays absent
	}
	from := len(c.masks)
	c.masks = c.masker.Append(c.masks, c.cells[cell])
	c.cells[cell] = c.masks[from:len(c.masks):len(c.masks)]
}
