package files_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// rewrite changes a file in place. If hidden, its size and time of change stay.
func rewrite(t testing.TB, url string, change func([]byte) []byte, hidden bool) {
	t.Helper()
	path := strings.TrimPrefix(url, "file://")
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(text), 0o600); err != nil {
		t.Fatal(err)
	}
	changed := stat.ModTime()
	if !hidden {
		changed = changed.Add(time.Second)
	}
	if err := os.Chtimes(path, changed, changed); err != nil {
		t.Fatal(err)
	}
}

func TestTruncatedZstd(t *testing.T) {
	text := impressions(2000, "")
	whole := compress(t, text)
	want := readAll(t, open(t, clickLog(write(t, "whole.csv", text))))
	const parts = 50
	delivered := 0
	for i := range parts {
		n := len(whole) * i / parts
		config := clickLog(write(t, "cut.csv", "")) // its directory
		path := strings.TrimPrefix(config.URL, "file://") + ".zst"
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		config.URL = "file://" + path
		var log bytes.Buffer
		config.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, err := files.Open(t.Context(), config)
		if err != nil {
			// The header is beyond the cut: the first block is a fifth of the file.
			if i > parts/3 || i > 0 && !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), path) {
				t.Fatalf("cut at byte %d of %d: %v", n, len(whole), err)
			}
			continue
		}
		got, r, err := read(t.Context(), t, s)
		delivered = max(delivered, len(got))
		if len(got) >= len(want) || len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
			t.Fatalf("cut at byte %d of %d: %d events, not the first of the whole", n, len(whole), len(got))
		}
		for _, part := range []string{path, "byte " + strconv.Itoa(n) + " (", " decompressed)", "the file ends in the middle of a zstd frame: "} {
			if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), part) {
				t.Fatalf("cut at byte %d of %d: got %v, want %q in it", n, len(whole), err, part)
			}
		}
		if _, ok := r.End(0); ok {
			t.Fatalf("cut at byte %d of %d: the end is known", n, len(whole))
		}
		var e worker.Event
		if again := r.Next(t.Context(), &e); again != err {
			t.Fatalf("cut at byte %d of %d: the second time: %v", n, len(whole), again)
		}
		if !strings.Contains(log.String(), "only a part of the stream can be read") {
			t.Fatalf("cut at byte %d of %d: the log says %q", n, len(whole), log.String())
		}
		s.Close()

		config.Stream.Sort = true
		if _, err := files.Open(t.Context(), config); !errors.Is(err, ps.ErrCorrupt) {
			t.Fatalf("cut at byte %d of %d, sorted: got %v, want %v", n, len(whole), err, ps.ErrCorrupt)
		}
	}
	if delivered < len(want)/2 {
		t.Fatalf("at most %d of %d events were delivered before a cut", delivered, len(want))
	}
}

func TestDamagedZstd(t *testing.T) {
	config := clickLog(write(t, "a.csv.zst", impressions(5000, "")))
	rewrite(t, config.URL, func(b []byte) []byte { b[len(b)*3/4] ^= 0x10; return b }, true)
	s := open(t, config)
	_, _, err := read(t.Context(), t, s)
	rewrite(t, config.URL, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, true)
	if other := open(t, config); other.Identity() == s.Identity() {
		t.Fatal("what stands behind the damage makes no difference to the identity")
	}
	if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), "a.csv.zst") {
		t.Fatalf("got %v, want %v", err, ps.ErrCorrupt)
	}
}

func TestChangedFile(t *testing.T) {
	text := impressions(3000, "")
	for _, test := range []struct {
		name   string
		change func(t *testing.T, url string)
	}{
		{"appended to", func(t *testing.T, url string) {
			rewrite(t, url, func(b []byte) []byte { return append(b, "1,2\n"...) }, true)
		}},
		{"cut", func(t *testing.T, url string) {
			rewrite(t, url, func(b []byte) []byte { return b[:len(b)/2] }, true)
		}},
		{"written to", func(t *testing.T, url string) {
			rewrite(t, url, func(b []byte) []byte { b[len(b)/2]++; return b }, false)
		}},
		{"replaced", func(t *testing.T, url string) {
			path := strings.TrimPrefix(url, "file://")
			stat, _ := os.Stat(path)
			if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600),
				os.Chtimes(path+".new", stat.ModTime(), stat.ModTime()), os.Rename(path+".new", path)); err != nil {
				t.Fatal(err)
			}
		}},
		{"removed", func(t *testing.T, url string) {
			if err := os.Remove(strings.TrimPrefix(url, "file://")); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run("a file that is "+test.name+" cannot be read any more", func(t *testing.T) {
			config := clickLog(write(t, "a.csv", text))
			config.Buffer = 1000
			s := open(t, config)
			r, err := s.Read(t.Context(), starts(s))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var e worker.Event
			if err := r.Next(t.Context(), &e); err != nil {
				t.Fatal(err)
			}
			test.change(t, config.URL)
			if _, err := s.Read(t.Context(), starts(s)); !errors.Is(err, ps.ErrModelMismatch) || !strings.Contains(err.Error(), "a.csv was changed") {
				t.Errorf("a new reader: got %v, want %v", err, ps.ErrModelMismatch)
			}
			// One that reads already finds out at the end at the latest, and gives
			// neither an end nor the torn last row.
			n := 1
			for err = nil; err == nil; n++ {
				err = r.Next(t.Context(), &e)
				if err == nil && e.Err != nil {
					t.Fatalf("event %d: %v", n, e.Err)
				}
			}
			if _, ok := r.End(0); ok || !errors.Is(err, ps.ErrModelMismatch) {
				t.Errorf("a reader under way: got %v after %d events, end known %v", err, n, ok)
			}
		})
	}
}

func TestRead(t *testing.T) {
	t.Run("stops with its context and goes on with another", func(t *testing.T) {
		for _, sort := range []bool{false, true} {
			config := clickLog(write(t, "a.csv", impressions(5000, "")))
			config.Buffer, config.Stream.Sort = 1000, sort
			s := open(t, config)
			want := readAll(t, s)
			r, err := s.Read(t.Context(), starts(s))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var e worker.Event
			n := 0
			for ; ; n++ {
				if n == 100 {
					cancel()
				}
				if err = r.Next(ctx, &e); err != nil {
					break
				}
			}
			if !errors.Is(err, context.Canceled) || n < 100 || n > 2000 {
				t.Fatalf("sort %v: got %v after %d events, want %v after about 100", sort, err, n, context.Canceled)
			}
			for ; ; n++ {
				if err = r.Next(t.Context(), &e); err != nil {
					break
				}
				if int(e.Offset) != n || e.Line != want[n].Line {
					t.Fatalf("sort %v: event %d is offset %d, line %d, want line %d", sort, n, e.Offset, e.Line, want[n].Line)
				}
			}
			if err != io.EOF || n != len(want) {
				t.Fatalf("sort %v: got %d events and %v, want %d", sort, n, err, len(want))
			}
		}
	})
	t.Run("refuses places that do not exist", func(t *testing.T) {
		config := csv(write(t, "a.csv", "a\n1\n2\n"), "a")
		config.Stream.Partitions = 2
		s := open(t, config)
		for _, from := range [][]ps.Partition{{}, {2}, {0, 0}} {
			if _, err := s.Read(t.Context(), place(0, from...)); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("partitions %v: got %v, want %v", from, err, ps.ErrInvalid)
			}
		}
		for range 2 { // before and after the length is known
			if _, _, err := read(t.Context(), t, s, place(3, 0)...); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "partition 0 from offset 3") {
				t.Errorf("beyond the end: got %v, want %v", err, ps.ErrInvalid)
			}
		}
	})
	t.Run("fails once the source or the reader is closed", func(t *testing.T) {
		s := open(t, csv(write(t, "a.csv", "a\n1\n2\n"), "a"))
		r, err := s.Read(t.Context(), starts(s))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		var e worker.Event
		if err := r.Next(t.Context(), &e); !errors.Is(err, os.ErrClosed) {
			t.Errorf("source closed: got %v, want %v", err, os.ErrClosed)
		}
		r.Close()
		if err := r.Next(t.Context(), &e); err == nil || !strings.Contains(err.Error(), "closed") {
			t.Errorf("reader closed: got %v", err)
		}
	})
}
