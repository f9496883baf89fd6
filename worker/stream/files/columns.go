package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

// columns says which columns of a file are read, as cells of a row. It does not
// change once the file is open.
type columns struct {
	names     []string // by cell; the first ones are Config.Columns
	asked     int      // how many are Config.Columns
	masked    []bool   // by cell
	time      int      // cell with the event time, or -1
	partition int      // cell whose hash chooses the partition, or -1
	fields    []int    // CSV: by cell, the field that holds it
	want      int      // CSV: fields of a row
}

// format returns a new cutter of rows.
func (c *columns) format(name string) format {
	if name == spec.CSV {
		return newCSV(c.fields, c.want)
	}
	return newVW(c.names)
}

// newColumns returns the columns that a configuration asks for.
func newColumns(c Config) columns {
	cols := columns{names: slices.Clone(c.Columns), asked: len(c.Columns)}
	cell := func(name string) int {
		if name == "" {
			return -1
		}
		if i := slices.Index(cols.names, name); i >= 0 {
			return i
		}
		cols.names = append(cols.names, name)
		return len(cols.names) - 1
	}
	cols.time = cell(c.Stream.Time.Column)
	cols.partition = cell(c.Stream.PartitionBy)
	for _, name := range cols.names {
		cols.masked = append(cols.masked, slices.Contains(c.Stream.Identifiers, name))
	}
	return cols
}

// readHeader fills columns and start.
func (s *Source) readHeader(ctx context.Context) error {
	w, done, err := s.open(mark{line: 1}, rowMax+4)
	if err != nil {
		return err
	}
	defer done()
	if err := w.fill(ctx); err != nil && err != io.EOF {
		return s.explain(err, w.position())
	}
	if bytes.HasPrefix(w.buf[:w.end], []byte("\xef\xbb\xbf")) {
		w.at = 3 // a byte order mark, as spreadsheets write it
	}
	s.columns = newColumns(s.config)
	if s.config.Stream.Format == spec.CSV {
		if err := s.csvHeader(ctx, w); err != nil {
			return err
		}
	}
	s.start = mark{at: w.position(), line: w.line, next: make([]ps.Offset, s.config.Stream.Partitions)}
	return nil
}

// csvHeader reads the header line and finds the columns in it.
func (s *Source) csvHeader(ctx context.Context, w *window) error {
	var head headerFormat
	r, err := w.next(ctx, &head, nil)
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s is empty: a CSV file begins with a line of column names: %w", s.path, ps.ErrInvalid)
	case err != nil:
		return s.explain(err, w.position())
	case r.fault.kind != readable:
		return fmt.Errorf("%s:%d: the line of column names: %v: %w", s.path, r.line, r.fault, ps.ErrInvalid)
	}
	names := head.names
	s.columns.want = len(names)
	for _, name := range s.columns.names {
		i := slices.Index(names, name)
		switch {
		case i < 0:
			return s.missing(name, names)
		case slices.Contains(names[i+1:], name):
			return fmt.Errorf("%s has two columns %q: %w", s.path, name, ps.ErrInvalid)
		}
		s.columns.fields = append(s.columns.fields, i)
	}
	for _, name := range s.config.Stream.Identifiers {
		if !slices.Contains(names, name) {
			return s.missing(name, names) // what was meant would go unmasked
		}
	}
	return nil
}

// headerFormat cuts the header line.
type headerFormat struct{ names []string }

func (h *headerFormat) cut(text []byte, last bool, _ [][]byte) (n, size int, f fault) {
	h.names, n, size, f = header(text, last)
	return n, size, f
}

// missing returns the error for a column that the file does not have. It shows
// the file's columns only if they are likely to be that: a file without a header
// begins with a row of data.
func (s *Source) missing(name string, names []string) error {
	const most = 40 // names that a message can bear
	near := spec.Nearest(name, names)
	related := near != "" || slices.ContainsFunc(s.columns.names, func(n string) bool { return slices.Contains(names, n) })
	switch {
	case !related:
		return fmt.Errorf("%s has no column %q, nor any other of the %d asked for: does it begin with a line of column names: %w",
			s.path, name, len(s.columns.names), ps.ErrInvalid)
	case near != "":
		near = fmt.Sprintf(": did you mean %q", near)
	}
	rest := ""
	if len(names) > most {
		rest = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return fmt.Errorf("%s has no column %q%s: it has %s%s: %w", s.path, name, near, strings.Join(names, ", "), rest, ps.ErrInvalid)
}
