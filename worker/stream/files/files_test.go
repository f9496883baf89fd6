package files_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// write puts text into a file of the given name and returns its URL.
func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if filepath.Ext(name) == ".zst" {
		text = string(compress(t, text))
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

func compress(t testing.TB, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<15))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll([]byte(text), nil)
}

// csv returns the configuration of a CSV stream with columns.
func csv(url string, columns ...string) files.Config {
	return files.Config{URL: url, Stream: spec.Stream{Format: spec.CSV, Partitions: 1, Passes: 1}, Columns: columns}
}

func vw(url string, columns ...string) files.Config {
	return files.Config{URL: url, Stream: spec.Stream{Format: spec.VW, Partitions: 1, Passes: 1}, Columns: columns}
}

func open(t testing.TB, config files.Config) *files.Source {
	t.Helper()
	s, err := files.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// event is a copy of a worker.Event that can be compared.
type event struct {
	Partition ps.Partition
	Offset    ps.Offset
	Pass      uint32
	Row       ps.Offset
	Line      int64
	Time      int64
	Columns   []string // "<nil>" where absent
	Err       string
}

func starts(s *files.Source) []stream.Start {
	var all []stream.Start
	for p := range s.Partitions() {
		all = append(all, stream.Start{Partition: ps.Partition(p)})
	}
	return all
}

// read returns all events from starts on and the error that ended reading.
func read(ctx context.Context, t testing.TB, s *files.Source, from ...stream.Start) ([]event, stream.Reader, error) {
	t.Helper()
	if from == nil {
		from = starts(s)
	}
	r, err := s.Read(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	var events []event
	for {
		var e worker.Event
		if err := r.Next(ctx, &e); err != nil {
			return events, r, err
		}
		got := event{e.Partition, e.Offset, e.Pass, e.Row, e.Line, e.Time, nil, ""}
		for _, c := range e.Columns {
			text := "<nil>"
			if c != nil {
				text = string(c)
			}
			got.Columns = append(got.Columns, text)
		}
		if e.Err != nil {
			if !errors.Is(e.Err, worker.ErrUnreadable) {
				t.Fatalf("line %d: %v does not wrap %v", e.Line, e.Err, worker.ErrUnreadable)
			}
			got.Err = e.Err.Error()
		}
		events = append(events, got)
	}
}

// readAll returns all events of a source that ends well.
func readAll(t testing.TB, s *files.Source, from ...stream.Start) []event {
	t.Helper()
	events, _, err := read(t.Context(), t, s, from...)
	if err != io.EOF {
		t.Fatalf("after %d events: got %v, want %v", len(events), err, io.EOF)
	}
	return events
}
