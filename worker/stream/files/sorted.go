package files

import (
	"cmp"
	"context"
	"io"
	"math"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// sorted is a file in memory and the order of its rows by event time. It does not
// change once it is made; readers share it.
type sorted struct {
	data []byte // the decompressed file
	rows []sortedRow
}

// sortedRow is where a row begins and what had to be known of it to place it. Its
// columns are cut again when it is read: to keep them would take more memory than
// the text.
type sortedRow struct {
	at        int64
	line      int64
	time      int64 // what the row is sorted by
	partition ps.Partition
}

// window returns a window over the file.
func (s *sorted) window() *window { return &window{buf: s.data, end: len(s.data), size: -1} }

// ctxEvery is how many rows in memory are cut between two looks at the context.
const ctxEvery = 1024

// sort orders the rows of a file and returns the lengths of its partitions.
func (s *Source) sort(ctx context.Context, data []byte) (*sorted, []ps.Offset, error) {
	c, err := newCutter(s)
	if err != nil {
		return nil, nil, err
	}
	all := &sorted{data: data, rows: make([]sortedRow, 0, s.rows)} // lines are rows but inside quotes
	lengths := make([]ps.Offset, s.config.Stream.Partitions)
	w := all.window()
	w.at, w.line = int(s.start.at), s.start.line
	last := int64(math.MinInt64) // unreadable rows before any other go first
	for {
		if len(all.rows)%ctxEvery == 0 && ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		r, err := w.next(ctx, c.format, c.cells)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, s.explain(err, w.position())
		}
		time, partition := c.place(&r)
		if r.fault.kind == readable {
			last = time
		}
		lengths[partition]++
		all.rows = append(all.rows, sortedRow{r.at, r.line, last, partition})
	}
	slices.SortFunc(all.rows, func(a, b sortedRow) int { // places differ, so this is stable
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.at, b.at))
	})
	return all, lengths, nil
}
