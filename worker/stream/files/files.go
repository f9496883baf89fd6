// Package files reads behaviour streams from files: CSV with a header line and
// Vowpal Wabbit text, plain or compressed with zstd. It cuts a file into rows,
// gives each row its partition and offset and masks identifiers. It does not know
// what columns mean beyond the event time; that is worker/feature's business.
//
// The one idea to keep in mind: partition and offset of a row are a function of
// the file's bytes and of the options that Identity covers, and of nothing else:
// not of where reading began, of buffer sizes or of who reads. Everything that
// promises exactly-once stands on that, so the rules below never change for an
// identity; a change of them must change cutVersion.
//
//   - Rows end in LF or CRLF. Blank lines are no rows. A CSV row goes on over line
//     ends inside quotes.
//   - A row that cannot be cut (a stray quote, a quote that is never closed, more
//     than 1 MiB) is its first line; the next row begins on the next line.
//   - A row's partition is the hash (XXH64) of its partition column's text, masked
//     if it is an identifier, modulo the number of partitions; without a partition
//     column, of its text without the line end. An unreadable row goes by its text,
//     and by the first MiB of it if it is longer.
//   - Offsets count the rows of a partition in file order, or after a stable sort
//     by event time. For the sort an unreadable row has the time of the row before
//     it in the file, and sorts first if there is none.
//   - Several passes are one longer stream: offset = pass · length + row.
//   - Identifiers are masked before an event exists, a namespace of Vowpal Wabbit
//     text as one text. An event of an unreadable row has no columns at all.
//
// See DESIGN.md for why.
package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// Pseudo columns of a Vowpal Wabbit stream: the first and second number of a
// line. A namespace of the same name cannot be asked for.
const (
	Label      = "label"
	Importance = "importance"
)

const (
	bufferDefault    = 256 << 10 // stays in the L2 cache; larger was no faster
	markBytesDefault = 16 << 20  // about 50 ms of parsing to get back to an offset
	sortBytesDefault = 4 << 30   // what a worker may hold for a sort, unless told otherwise
)

// Config says which file is read and how.
type Config struct {
	// URL is file:///absolute/path. A name that ends in .zst is decompressed.
	URL string
	// Stream is the spec's part about the stream; its Source is not read. Format
	// must be set; Partitions and Passes are 1 if 0.
	Stream spec.Stream
	// Columns are what events carry, in this order: columns of a CSV file,
	// namespaces or pseudo columns of a Vowpal Wabbit file.
	Columns []string
	// Secret masks Stream.Identifiers; it is needed only if there are any.
	Secret []byte
	// Logger receives what an operator should know but nobody acts on; nil
	// discards.
	Logger *slog.Logger
	// Progress, if not nil, is called by Open, from its goroutine, after every few
	// megabytes of the file. It must not block.
	Progress func(done, total int64)

	// Buffer is the bytes a reader begins with; it grows to hold the longest row.
	// Default 256 KiB.
	Buffer int
	// MarkBytes is how far places are apart at which a reader can begin in a plain
	// file. Default 16 MiB.
	MarkBytes int64
	// SortBytesMax is the largest file, decompressed, that is held in memory for a
	// sort. Default 4 GiB.
	SortBytesMax int64
}

// validate reports the first thing wrong and fills what is zero.
func (c *Config) validate() error {
	s := &c.Stream
	for _, f := range []struct {
		field *int
		name  string
	}{{&s.Partitions, "partitions"}, {&s.Passes, "passes"}, {&c.Buffer, "a buffer of bytes"}} {
		if *f.field < 0 {
			return fmt.Errorf("%d %s: %w", *f.field, f.name, ps.ErrInvalid)
		}
	}
	s.Partitions, s.Passes = max(s.Partitions, 1), max(s.Passes, 1)
	if c.Buffer == 0 {
		c.Buffer = bufferDefault
	}
	if c.MarkBytes <= 0 {
		c.MarkBytes = markBytesDefault
	}
	if c.SortBytesMax <= 0 {
		c.SortBytesMax = sortBytesDefault
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case s.Format != spec.CSV && s.Format != spec.VW:
		return fmt.Errorf("format %q: want %s or %s: %w", s.Format, spec.CSV, spec.VW, ps.ErrInvalid)
	case s.Sort && s.Time.Column == "":
		return fmt.Errorf("rows are to be sorted, but no column holds their time: %w", ps.ErrInvalid)
	case s.Time.Column != "" && s.Time.Unit == "":
		return fmt.Errorf("time column %q has no unit: %w", s.Time.Column, ps.ErrInvalid)
	}
	for _, name := range s.Identifiers {
		switch {
		case name == s.Time.Column:
			return fmt.Errorf("column %q cannot be both the event time and an identifier: %w", name, ps.ErrInvalid)
		case s.Format == spec.VW && (name == Label || name == Importance):
			return fmt.Errorf("the %s of a Vowpal Wabbit line cannot be an identifier: %w", name, ps.ErrInvalid)
		}
	}
	if len(s.Identifiers) > 0 {
		_, err := mask.New(c.Secret)
		return err
	}
	return nil
}

// path returns the path that the URL names.
func (c *Config) path() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", fmt.Errorf("source %q is no URL: %w", c.URL, ps.ErrInvalid)
	}
	if u.Scheme != "file" || u.Opaque != "" || u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/") {
		return "", fmt.Errorf("source %q: want file:///absolute/path: %w", c.URL, ps.ErrInvalid)
	}
	return filepath.FromSlash(u.Path), nil
}

// Source is a file as a behaviour stream. It implements stream.Source.
type Source struct {
	config   Config
	path     string
	file     *os.File    // read at positions only, by all readers
	stat     fs.FileInfo // of the file that was identified
	identity ps.StreamID
	rows     int64 // estimate for one pass
	columns  columns
	start    mark    // the first row: after the byte order mark and the header
	sorted   *sorted // nil unless Stream.Sort

	mu sync.Mutex
	// marks are places in a plain file at which a reader can begin, ascending and
	// at least MarkBytes apart; the first is start. Guarded by mu.
	marks []mark
	// lengths is how many rows each partition has in a pass, or nil before the
	// first reader has seen the end. Guarded by mu; the array never changes.
	lengths []ps.Offset
}

var _ stream.Source = (*Source)(nil)

// mark is a place between two rows.
type mark struct {
	at   int64       // byte position in the decompressed file
	line int64       // 1-based, of the next row
	next []ps.Offset // by partition: the next row's number
}

// Open reads the whole file once, to identify its contents, and for a sort to
// load it. The file must not change until Close.
//
// Errors wrap ps.ErrInvalid if the configuration and the file do not fit (a
// missing column, no secret), ps.ErrCorrupt if the header cannot be read because
// the file is damaged, ps.ErrTooLarge if a file to be sorted is over its limit.
func Open(ctx context.Context, config Config) (*Source, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", config.URL, err)
	}
	path, err := config.path()
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	config.Columns = slices.Clone(config.Columns)
	config.Secret = slices.Clone(config.Secret)
	s := &Source{config: config, path: path, file: file}
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("open stream: %w", errors.Join(err, file.Close()))
	}
	return s, nil
}

// load fills everything that Open has not.
func (s *Source) load(ctx context.Context) error {
	var err error
	if s.stat, err = s.file.Stat(); err != nil {
		return err
	}
	if !s.stat.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file: a stream must be readable again from any place: %w", s.path, ps.ErrInvalid)
	}
	if err := s.readHeader(ctx); err != nil {
		return err
	}
	contents, err := s.survey(ctx)
	if err != nil {
		return err
	}
	if err := s.unchanged(); err != nil {
		return err
	}
	if s.identity, err = identify(contents.sum, s.config); err != nil {
		return err
	}
	s.rows = max(contents.lines-s.start.line+1, 0)
	s.marks = []mark{s.start}
	if s.config.Stream.Sort {
		if s.sorted, s.lengths, err = s.sort(ctx, contents.data); err != nil {
			return err
		}
		s.rows = int64(len(s.sorted.rows))
	}
	return nil
}

// Identity names the file's contents, the options that decide how they are cut
// into rows, partitions and offsets, and the secret if it masks a column (see
// SameSecret). The number of passes and the file's name are no part of it.
func (s *Source) Identity() ps.StreamID { return s.identity }

// Partitions returns the number of partitions.
func (s *Source) Partitions() int { return s.config.Stream.Partitions }

// Size estimates the events over all partitions and passes: exactly for a sorted
// file, else by counting lines.
func (s *Source) Size() int64 { return s.rows * int64(s.config.Stream.Passes) }

// Read begins reading partitions. It returns an error that wraps ps.ErrInvalid
// for a partition that does not exist or is named twice, and ps.ErrModelMismatch
// if the file has changed since Open.
func (s *Source) Read(_ context.Context, starts []stream.Start) (stream.Reader, error) {
	if err := s.unchanged(); err != nil {
		return nil, err
	}
	return newReader(s, starts)
}

// Close closes the file; readers fail from then on.
func (s *Source) Close() error { return s.file.Close() }

// unchanged returns an error if the file at the path is not the one opened, or
// not as it was.
func (s *Source) unchanged() error {
	now, err := os.Stat(s.path)
	if err == nil && os.SameFile(now, s.stat) && now.Size() == s.stat.Size() && now.ModTime().Equal(s.stat.ModTime()) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", s.path, err)
	}
	return s.changed()
}

func (s *Source) changed() error {
	return fmt.Errorf("%s was changed or replaced while it is read as a stream: put the file back as it was, or give the new one to a new model: %w",
		s.path, ps.ErrModelMismatch)
}

// seek returns the last mark from which all rows with at least the given numbers
// (by partition) are still to come.
func (s *Source) seek(from []ps.Offset) mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.marks) - 1; i > 0; i-- {
		before := true
		for p, next := range s.marks[i].next {
			before = before && next <= from[p]
		}
		if before {
			return s.marks[i]
		}
	}
	return s.start
}

// note adds a mark if it is far enough beyond the last one, and returns where the
// next one is wanted.
func (s *Source) note(at, line int64, next []ps.Offset) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.marks[len(s.marks)-1].at
	if at < last+s.config.MarkBytes {
		return last + s.config.MarkBytes
	}
	s.marks = append(s.marks, mark{at, line, slices.Clone(next)})
	return at + s.config.MarkBytes
}

// ended takes what a reader counted in a whole pass.
func (s *Source) ended(rows []ps.Offset) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lengths == nil {
		s.lengths = slices.Clone(rows)
	}
	if !slices.Equal(s.lengths, rows) {
		return s.changed()
	}
	return nil
}

// known returns the lengths of the partitions, or nil.
func (s *Source) known() []ps.Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lengths
}
