// These tests put stores of their own below a Bucket: one that fails at a chosen
// byte, and one that costs nothing. Neither is of use to anybody else.

package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"syscall"
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// full is a directory on a disk that takes so many bytes, or fails at the end.
type full struct {
	store
	left     int
	onCommit bool
}

func (f *full) create(ctx context.Context, name string) (sink, error) {
	s, err := f.store.create(ctx, name)
	return &fullSink{sink: s, full: f}, err
}

type fullSink struct {
	sink
	full *full
}

func (s *fullSink) Write(p []byte) (int, error) {
	n := min(len(p), s.full.left)
	s.full.left -= n
	if _, err := s.sink.Write(p[:n]); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, unavailable(syscall.ENOSPC)
	}
	return n, nil
}

func (s *fullSink) commit() error {
	if s.full.onCommit {
		s.abort()
		return unavailable(syscall.ENOSPC)
	}
	return s.sink.commit()
}

func TestAFullDiskLeavesNothing(t *testing.T) {
	h := Head{
		Model: "m", Shards: 1, Seq: 9, Partitions: make([]ps.Progress, 1), Tables: []Table{{Kind: ps.Float32, Stride: 20}},
	}
	rows := make([]byte, 20*8)
	for at := 8; at < len(rows); at += 20 {
		rows[at] = 1
	}
	write := func(b *Bucket) (File, error) {
		w, err := Create(t.Context(), b, Name(&h, 1), h)
		if err != nil {
			return File{}, err
		}
		defer w.Abort()
		if err := w.Rows(0, 20, rows); err != nil {
			return File{}, err
		}
		return w.Close()
	}
	b, err := OpenBucket(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := write(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), whole.Name); err != nil {
		t.Fatal(err)
	}
	for left := range int(whole.Bytes) + 1 {
		limited := &Bucket{store: &full{store: b.store, left: left, onCommit: left == int(whole.Bytes)}, url: b.url}
		if _, err := write(limited); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ps.ErrUnavailable) {
			t.Fatalf("with room for %d bytes of %d: %v, want ErrUnavailable and ENOSPC", left, whole.Bytes, err)
		}
		if objects, err := b.List(t.Context(), ""); err != nil || objects != nil {
			t.Fatalf("with room for %d bytes of %d there are %v (%v)", left, whole.Bytes, objects, err)
		}
	}
	if again, err := write(b); err != nil || again != whole {
		t.Errorf("with room again: %+v, %v; want %+v", again, err, whole)
	}
}

// broken is a store whose connection breaks at a chosen byte.
type broken struct {
	store
	at int64
}

func (b *broken) open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	body, size, err := b.store.open(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	cut := io.MultiReader(io.LimitReader(body, b.at), failing{})
	return struct {
		io.Reader
		io.Closer
	}{cut, body}, size, nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, unavailable(io.ErrUnexpectedEOF) }

func TestABrokenConnectionIsNoCorruptFile(t *testing.T) {
	h := Head{
		Model: "m", Shards: 1, Seq: 9, Partitions: make([]ps.Progress, 1), Tables: []Table{{Kind: ps.Float32, Stride: 20}},
	}
	b, err := OpenBucket(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	w, err := Create(t.Context(), b, Name(&h, 1), h)
	if err != nil {
		t.Fatal(err)
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	for at := range f.Bytes + 1 {
		r, err := Open(t.Context(), &Bucket{store: &broken{b.store, at}}, f)
		if err == nil {
			for err == nil {
				_, _, _, err = r.Next()
			}
			r.Close() // its error is the connection's
		}
		if !errors.Is(err, ps.ErrUnavailable) || errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("broken at byte %d of %d: %v, want ErrUnavailable", at, f.Bytes, err)
		}
	}
}

// nowhere takes everything and keeps the last object if it is told to.
type nowhere struct {
	keep bool
	kept bytes.Buffer
}

func (n *nowhere) create(context.Context, string) (sink, error) { return n, nil }

func (n *nowhere) open(context.Context, string) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(n.kept.Bytes())), int64(n.kept.Len()), nil
}
func (n *nowhere) list(context.Context, string, func(Object) error) error { return nil }
func (n *nowhere) remove(context.Context, string) error                   { return nil }
func (n *nowhere) close() error                                           { return nil }
func (n *nowhere) commit() error                                          { return nil }
func (n *nowhere) abort()                                                 {}

func (n *nowhere) Write(p []byte) (int, error) {
	if n.keep {
		return n.kept.Write(p)
	}
	return len(p), nil
}

// benchRows are rows of width float32 weights and as many of state, and their head.
func benchRows(width, bytes int) (Head, []byte) {
	h := Head{
		Model: "m", Shards: 64, Shard: 5, Seq: 1 << 40, Partitions: make([]ps.Progress, 16),
		Tables: []Table{{Kind: ps.Float32, Stride: RowHeadBytes + 8*width}},
	}
	stride := h.Tables[0].Stride
	rows := make([]byte, bytes/stride*stride)
	for at := 0; at < len(rows); at += stride {
		key := ps.Mix(uint64(at))>>bits.TrailingZeros(64) | 5<<58
		binary.LittleEndian.PutUint64(rows[at:], key)
		binary.LittleEndian.PutUint64(rows[at+8:], uint64(at)+1)
	}
	return h, rows
}

func writeRows(tb testing.TB, b *Bucket, h Head, rows []byte, times, part int) File {
	w, err := Create(tb.Context(), b, Name(&h, 1), h)
	if err != nil {
		tb.Fatal(err)
	}
	for range times {
		for rest := rows; len(rest) > 0; {
			n := min(part, len(rest))
			if err := w.Rows(0, h.Tables[0].Stride, rest[:n]); err != nil {
				tb.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	f, err := w.Close()
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestRowsAndNextAllocateNothing(t *testing.T) {
	h, rows := benchRows(16, 4<<20)
	n := &nowhere{keep: true}
	b := &Bucket{store: n}
	w, err := Create(t.Context(), b, Name(&h, 1), h)
	if err != nil {
		t.Fatal(err)
	}
	n.kept.Grow(64 << 20)
	if allocs := testing.AllocsPerRun(10, func() {
		if err := w.Rows(0, h.Tables[0].Stride, rows); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("Rows allocates %v times for %d bytes, want 0", allocs, len(rows))
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), b, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := r.Next(); err != nil { // makes room for a block
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if _, _, _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("Next allocates %v times, want 0", allocs)
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, width := range []int{1, 16, 64} {
		for _, part := range []string{"row", "MiB"} {
			b.Run(fmt.Sprintf("width=%d/call=%s", width, part), func(b *testing.B) {
				h, rows := benchRows(width, 1<<20)
				n := len(rows)
				if part == "row" {
					n = h.Tables[0].Stride
				}
				bucket := &Bucket{store: &nowhere{}}
				b.SetBytes(int64(64 * len(rows)))
				for b.Loop() {
					writeRows(b, bucket, h, rows, 64, n)
				}
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, width := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("width=%d", width), func(b *testing.B) {
			h, rows := benchRows(width, 1<<20)
			bucket := &Bucket{store: &nowhere{keep: true}}
			f := writeRows(b, bucket, h, rows, 64, len(rows))
			readAll(b, bucket, f)
		})
	}
}

// BenchmarkDirectory includes the disk: every file is synced.
func BenchmarkDirectory(b *testing.B) {
	bucket, err := OpenBucket(b.Context(), "file://"+b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	h, rows := benchRows(16, 1<<20)
	name := Name(&h, 1)
	var f File
	b.Run("write/64MiB", func(b *testing.B) {
		b.SetBytes(int64(64 * len(rows)))
		for b.Loop() {
			if err := bucket.Delete(b.Context(), name); err != nil {
				b.Fatal(err)
			}
			f = writeRows(b, bucket, h, rows, 64, len(rows))
		}
	})
	b.Run("read/64MiB", func(b *testing.B) {
		if f.Bytes == 0 {
			f = writeRows(b, bucket, h, rows, 64, len(rows))
		}
		readAll(b, bucket, f)
	})
}

func readAll(b *testing.B, bucket *Bucket, f File) {
	b.SetBytes(f.Bytes)
	for b.Loop() {
		r, err := Open(b.Context(), bucket, f)
		for err == nil {
			_, _, _, err = r.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
