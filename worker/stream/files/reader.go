package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/stream"
)

// unwanted is the first row that is wanted of a partition of which none is.
const unwanted = ps.Offset(math.MaxUint64)

// reader goes over the file pass by pass. It implements stream.Reader: whatever
// partitions it is asked for, it cuts and counts the rows of all, because a row's
// offset is known only to who has counted those before it.
type reader struct {
	source *Source
	cutter *cutter
	starts []ps.Offset // by partition; unwanted if it is not read
	err    error       // final, from Next

	// Of the pass under way, by partition: the offset of its first row, the first
	// row that is wanted, the next row.
	pass              int
	first, from, rows []ps.Offset

	window *window // nil between passes
	done   func()  // frees the window's source
	mark   int64   // where the next mark is wanted
	sorted int     // the next of the sorted rows
}

func newReader(s *Source, starts []stream.Start) (*reader, error) {
	n := s.Partitions()
	r := &reader{
		source: s, starts: slices.Repeat([]ps.Offset{unwanted}, n),
		first: make([]ps.Offset, n), from: make([]ps.Offset, n), rows: make([]ps.Offset, n),
	}
	if len(starts) == 0 {
		return nil, fmt.Errorf("read %s: no partition is asked for: %w", s.path, ps.ErrInvalid)
	}
	for _, start := range starts {
		switch {
		case uint64(start.Partition) >= uint64(n):
			return nil, fmt.Errorf("read %s: partition %d of %d: %w", s.path, start.Partition, n, ps.ErrInvalid)
		case r.starts[start.Partition] != unwanted:
			return nil, fmt.Errorf("read %s: partition %d is asked for twice: %w", s.path, start.Partition, ps.ErrInvalid)
		}
		r.starts[start.Partition] = start.Offset
	}
	var err error
	r.cutter, err = newCutter(s)
	return r, err
}

// Next fills e with the next event; see stream.Reader. It reads the file in the
// caller's goroutine and looks at ctx once per buffer. Errors of the context leave
// the reader as it was. All others are final, and wrap ps.ErrCorrupt if the file
// is damaged, ps.ErrModelMismatch if it was changed, and ps.ErrInvalid if a
// partition was to be read from beyond its end.
func (r *reader) Next(ctx context.Context, e *worker.Event) error {
	if r.err != nil {
		return r.err
	}
	err := r.next(ctx, e)
	if err != nil && ctx.Err() == nil {
		r.err = err
	}
	return err
}

func (r *reader) next(ctx context.Context, e *worker.Event) error {
	for {
		if r.window == nil {
			if err := r.begin(); err != nil {
				return err
			}
		}
		var err error
		if r.source.sorted == nil {
			err = r.advance(ctx, e)
		} else {
			err = r.advanceSorted(ctx, e)
		}
		if err != io.EOF {
			return err
		}
		if err := r.end(); err != nil {
			return err
		}
	}
}

// begin goes to the next pass with a row that is wanted. It returns io.EOF if
// there is none.
func (r *reader) begin() error {
	s := r.source
	lengths := s.known()
	if lengths != nil {
		for r.pass < s.config.Stream.Passes && !r.wants(lengths) {
			r.pass++
		}
		if r.pass == s.config.Stream.Passes {
			return r.finished()
		}
	} // else it is the first pass, whose offsets are the rows' numbers
	for p, start := range r.starts {
		if lengths != nil {
			r.first[p] = ps.Offset(r.pass) * lengths[p]
		}
		r.from[p] = unwanted
		if start != unwanted {
			r.from[p] = start - min(start, r.first[p])
		}
	}
	if s.sorted != nil {
		clear(r.rows)
		r.window, r.done, r.sorted = s.sorted.window(), func() {}, 0
		return nil
	}
	from := s.start
	r.mark = math.MaxInt64
	if !s.compressed() {
		from = s.seek(r.from)
		r.mark = from.at + s.config.MarkBytes
	}
	copy(r.rows, from.next)
	var err error
	r.window, r.done, err = s.open(from, s.config.Buffer)
	return err
}

// wants reports whether a row of the pass is wanted.
func (r *reader) wants(lengths []ps.Offset) bool {
	for p, start := range r.starts {
		if start != unwanted && start < ps.Offset(r.pass+1)*lengths[p] {
			return true
		}
	}
	return false
}

// finished returns io.EOF, or what is wrong with a start.
func (r *reader) finished() error {
	for p, start := range r.starts {
		if end, _ := r.End(ps.Partition(p)); start != unwanted && start > end {
			return fmt.Errorf("read %s: partition %d from offset %d: it ends at %d: %w", r.source.path, p, start, end, ps.ErrInvalid)
		}
	}
	return io.EOF
}

// advance fills e with the next row of the file that is wanted. It returns io.EOF
// at the end of the pass.
func (r *reader) advance(ctx context.Context, e *worker.Event) error {
	for {
		if at := r.window.position(); at >= r.mark && !r.window.skip {
			r.mark = r.source.note(at, r.window.line, r.rows)
		}
		row, err := r.window.next(ctx, r.cutter.format, r.cutter.cells)
		switch {
		case err == io.EOF:
			return io.EOF
		case err != nil:
			return r.source.explain(err, r.window.base+int64(r.window.end))
		}
		time, p := r.cutter.place(&row)
		number := r.rows[p]
		r.rows[p]++
		if number >= r.from[p] {
			r.fill(e, row, time, p, number)
			return nil
		}
	}
}

// advanceSorted is advance in the order of event times.
func (r *reader) advanceSorted(ctx context.Context, e *worker.Event) error {
	rows := r.source.sorted.rows
	for r.sorted < len(rows) {
		if r.sorted%ctxEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		at := rows[r.sorted]
		r.sorted++
		number := r.rows[at.partition]
		r.rows[at.partition]++
		if number < r.from[at.partition] {
			continue
		}
		r.window.at, r.window.line, r.window.skip = int(at.at), at.line, false
		row, err := r.window.next(ctx, r.cutter.format, r.cutter.cells)
		if err != nil {
			return r.source.explain(err, at.at)
		}
		time, p := r.cutter.place(&row)
		r.fill(e, row, time, p, number)
		return nil
	}
	return io.EOF
}

// fill makes an event of the row that was just placed.
func (r *reader) fill(e *worker.Event, row row, time int64, p ps.Partition, number ps.Offset) {
	*e = worker.Event{
		Partition: p, Offset: r.first[p] + number,
		Pass: uint32(r.pass), Row: number, File: r.source.path, Line: row.line, Time: time,
	}
	if row.fault.kind == readable {
		e.Columns = r.cutter.event()
		return
	}
	// No columns: they are not masked.
	e.Err = &worker.Unreadable{File: r.source.path, Line: row.line, Reason: row.fault.String()}
}

// end ends a pass.
func (r *reader) end() error {
	r.release()
	r.pass++
	if r.source.sorted != nil {
		return nil
	}
	if err := r.source.unchanged(); err != nil {
		return err
	}
	return r.source.ended(r.rows)
}

// End returns the end of a partition over all passes. It is known once any reader
// of the source has come to the end of a pass, and from the beginning for a sorted
// file.
func (r *reader) End(p ps.Partition) (ps.Offset, bool) {
	lengths := r.source.known()
	if uint64(p) >= uint64(len(lengths)) {
		return 0, false
	}
	return lengths[p] * ps.Offset(r.source.config.Stream.Passes), true
}

// Close frees what the reader holds. Next must not be called any more.
func (r *reader) Close() error {
	r.err = errClosed
	r.release()
	return nil
}

var errClosed = errors.New("reader is closed")

func (r *reader) release() {
	if r.window != nil {
		r.done()
		r.window = nil
	}
}
