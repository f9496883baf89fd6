package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// cutVersion numbers the rules by which files become rows, partitions and
// offsets. It is part of every identity.
const cutVersion = 1

// identify returns the identity of contents with the given SHA-256.
func identify(sum []byte, c Config) (ps.StreamID, error) {
	cutting := struct {
		Version     int
		Contents    string
		Format      string
		Partitions  int
		PartitionBy string
		Sort        bool
		TimeColumn  string
		TimeUnit    string
		Secret      string
	}{
		cutVersion, hex.EncodeToString(sum), c.Stream.Format, c.Stream.Partitions, c.Stream.PartitionBy,
		c.Stream.Sort, c.Stream.Time.Column, c.Stream.Time.Unit, "",
	}
	if len(c.Stream.Identifiers) > 0 {
		// Under another secret the same offsets hold other events.
		m, err := mask.New(c.Secret)
		if err != nil {
			return "", err
		}
		cutting.Secret = m.Check()
	}
	doc, err := json.Marshal(cutting)
	if err != nil {
		return "", fmt.Errorf("identify stream: %w", err)
	}
	id := sha256.Sum256(doc)
	name := "file:" + hex.EncodeToString(id[:16])
	if cutting.Secret != "" {
		name += secretMark + cutting.Secret[:secretDigits]
	}
	return ps.StreamID(name), nil
}

// What follows secretMark in an identity tells which secret masked the identifiers:
// 32 bits, because secrets are confused and not forged.
const (
	secretMark   = "/"
	secretDigits = 8
)

// SameSecret reports whether the identifiers of two streams were masked with the same
// secret, as their identities tell. It is true if neither masks any.
func SameSecret(a, b ps.StreamID) bool {
	_, secretA, _ := strings.Cut(string(a), secretMark)
	_, secretB, _ := strings.Cut(string(b), secretMark)
	return secretA == secretB
}

// MaskedBy reports whether identifiers of a stream were masked by a masker's secret, as its
// identity tells. It is false if the stream masks none.
func MaskedBy(m *mask.Masker, id ps.StreamID) bool {
	_, secret, _ := strings.Cut(string(id), secretMark)
	return secret == m.Check()[:secretDigits]
}

// contents is what one pass over the bytes of a file tells.
type contents struct {
	sum   []byte // SHA-256 of the file as it is on disk
	lines int64  // of the decompressed file
	data  []byte // the decompressed file, if it is to be sorted
}

// survey reads the whole file.
func (s *Source) survey(ctx context.Context) (contents, error) {
	hash := sha256.New()
	raw := io.TeeReader(s.metered(ctx), hash)
	src, done, err := s.decompress(raw)
	if err != nil {
		return contents{}, err
	}
	defer done()
	var counted lineCounter
	var data bytes.Buffer
	if s.config.Stream.Sort {
		if s.stat.Size() <= s.config.SortBytesMax && !s.compressed() {
			data.Grow(int(s.stat.Size()) + bytes.MinRead)
		}
		_, err = io.Copy(io.MultiWriter(&counted, &data), io.LimitReader(src, s.config.SortBytesMax+1))
		if err == nil && int64(data.Len()) > s.config.SortBytesMax {
			return contents{}, fmt.Errorf("%s has over %d bytes, too many to be sorted in memory: sort the file by its time and take sort out of the spec: %w",
				s.path, s.config.SortBytesMax, ps.ErrTooLarge)
		}
	} else {
		_, err = io.CopyBuffer(&counted, struct{ io.Reader }{src}, make([]byte, bufferDefault))
	}
	switch {
	case ctx.Err() != nil:
		return contents{}, fmt.Errorf("read %s: %w", s.path, ctx.Err())
	case err != nil && (!s.compressed() || s.config.Stream.Sort):
		// The order of a part of the rows is not the order of all: none are given.
		return contents{}, s.explain(err, counted.bytes)
	case err != nil:
		// Rows before the damage can be learned from; the reader says the rest.
		s.config.Logger.Warn("only a part of the stream can be read", "err", s.explain(err, counted.bytes))
		if _, err := io.Copy(io.Discard, raw); err != nil {
			return contents{}, fmt.Errorf("read %s: %w", s.path, err)
		}
	}
	return contents{sum: hash.Sum(nil), lines: counted.lines(), data: fit(data.Bytes())}, nil
}

// fit returns data without much room behind it: it stays in memory.
func fit(data []byte) []byte {
	if cap(data)-len(data) > len(data)/8 {
		return slices.Clone(data)
	}
	return data
}

// raw returns the bytes of the file as they were when it was opened, from a
// position on. What is appended later is not seen.
func (s *Source) raw(at int64) io.Reader { return io.NewSectionReader(s.file, at, s.stat.Size()-at) }

func (s *Source) compressed() bool { return strings.HasSuffix(s.path, ".zst") }

// decompress returns the contents of raw, and what frees them.
func (s *Source) decompress(raw io.Reader) (io.Reader, func(), error) {
	contents, free, err := Decompress(s.path, raw)
	if err != nil {
		return nil, nil, s.explain(err, 0)
	}
	return contents, free, nil
}

// Decompress returns the contents of raw, the bytes of a file of the given name, and
// what frees them: decompressed if the name ends in .zst, else raw itself.
func Decompress(name string, raw io.Reader) (contents io.Reader, free func(), err error) {
	if !strings.HasSuffix(name, ".zst") {
		return raw, func() {}, nil
	}
	d, err := zstd.NewReader(raw,
		zstd.WithDecoderConcurrency(1), // no goroutines: whoever reads has one of its own
		zstd.WithDecoderMaxMemory(1<<62))
	if err != nil {
		return nil, nil, err
	}
	return d, d.Close, nil
}

// open returns a window over the rows from a place on, with a buffer of at least
// the given bytes, and what frees its source. Only in a plain file does the place
// make a difference to the time it takes.
func (s *Source) open(from mark, buffer int) (*window, func(), error) {
	w := &window{buf: make([]byte, buffer), base: from.at, line: from.line, size: -1}
	if !s.compressed() {
		w.src, w.size = s.raw(from.at), s.stat.Size()
		return w, func() {}, nil
	}
	src, done, err := s.decompress(s.raw(0))
	if err != nil {
		return nil, nil, err
	}
	if n, err := io.CopyN(io.Discard, src, from.at); err != nil {
		done()
		return nil, nil, s.explain(err, n)
	}
	w.src = src
	return w, done, nil
}

// explain returns the error for a file that cannot be read beyond a byte of its
// decompressed contents.
func (s *Source) explain(err error, at int64) error {
	switch {
	case !s.compressed() && errors.Is(err, io.ErrUnexpectedEOF):
		return s.changed() // it became shorter
	case !s.compressed():
		return fmt.Errorf("read %s at byte %d: %w", s.path, at, err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("read %s at byte %d (%d decompressed): the file ends in the middle of a zstd frame: "+
			"fetch it again, or wait until whoever writes it has closed it, and open the new file as a new stream: %w",
			s.path, s.stat.Size(), at, ps.ErrCorrupt)
	case damaged(err):
		return fmt.Errorf("read %s after %d decompressed bytes: %w: fetch the file again (zstd -t tests it): %w",
			s.path, at, err, ps.ErrCorrupt)
	}
	return fmt.Errorf("read %s after %d decompressed bytes: %w", s.path, at, err)
}

// damaged reports whether err is the decompressor's word on the bytes, and not
// the disk's, the context's or a closed file's.
func damaged(err error) bool {
	var path *os.PathError
	return !errors.As(err, &path) && !errors.Is(err, os.ErrClosed) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// metered returns the bytes of the file through a reader that stops with ctx and
// reports how far it is.
func (s *Source) metered(ctx context.Context) io.Reader {
	const often = 4 << 20 // bytes: some hundred reports a second
	src, total := s.raw(0), s.stat.Size()
	var done, told int64
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := src.Read(p)
		done += int64(n)
		if s.config.Progress != nil && (done-told >= often || done == total && told < total) {
			told = done
			s.config.Progress(done, total)
		}
		return n, err
	})
}

type readerFunc func(p []byte) (int, error)

// Read calls f.
func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// lineCounter counts the lines written to it.
type lineCounter struct {
	bytes, ends int64
	open        bool // the last line has no end
}

// Write counts.
func (c *lineCounter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	c.ends += int64(bytes.Count(p, []byte{'\n'}))
	if len(p) > 0 {
		c.open = p[len(p)-1] != '\n'
	}
	return len(p), nil
}

func (c *lineCounter) lines() int64 {
	if c.open {
		return c.ends + 1
	}
	return c.ends
}
