package files

import (
	"bytes"
	"context"
	"io"

	"github.com/cespare/xxhash/v2"
)

// rowMax is the longest row in bytes, without its line end. The limit keeps a
// quote that is never closed from swallowing the file.
const rowMax = 1 << 20

// format cuts rows of one kind of text. Its memory is reused from row to row; it
// has one owner at a time.
type format interface {
	// cut finds the row at the beginning of text, which is not empty and of which
	// there is more unless last. n is the row's length with its line end and size
	// without.
	//
	// A row that needs more text has n = 0 and no fault. A row that has no end by
	// the rules of the format has n = 0 and a fault. Otherwise cells holds one
	// entry per column asked for, unless there is a fault; they are valid until
	// the next call and as long as text is.
	cut(text []byte, last bool, cells [][]byte) (n, size int, f fault)
}

// row is one row of a file.
type row struct {
	text  []byte // without its line end; valid until the next row
	at    int64  // position in the text
	line  int64
	fault fault
}

// hash returns what chooses the partition of a row without a partition column.
func (r *row) hash() uint64 { return xxhash.Sum64(r.text) }

// window goes over a text row by row. It holds a part of the text: at least the
// row under it.
type window struct {
	src     io.Reader // nil once buf holds the rest of the text
	buf     []byte
	at, end int   // what is left of buf: [at, end)
	base    int64 // position of buf[0] in the text
	line    int64 // 1-based, of the next row
	skip    bool  // at is inside a row that is too long
	size    int64 // of the text if it is known, else -1
}

// position returns the next row's place in the text.
func (w *window) position() int64 { return w.base + int64(w.at) }

// next gives the next row and fills cells with its columns. It returns io.EOF
// after the last row, and any other error of the source after the last row that
// is complete; it can be called again.
func (w *window) next(ctx context.Context, f format, cells [][]byte) (row, error) {
	for {
		text, last := w.buf[w.at:w.end], w.src == nil
		if len(text) > rowMax+2 {
			// Never look farther: what is found must not depend on how much of the
			// text the buffer happens to hold.
			text, last = text[:rowMax+2], false
		}
		switch {
		case len(text) == 0 && last:
			return row{}, io.EOF
		case len(text) == 0:
		case w.skip:
			end := bytes.IndexByte(text, '\n') + 1
			w.skip = end == 0
			if w.skip {
				end = len(text)
			}
			w.at += end
			continue
		case text[0] <= '\r' && blank(text, last) > 0:
			w.at += blank(text, last)
			w.line++
			continue
		default:
			if r, ok := w.cut(f, text, last, cells); ok {
				return r, nil
			}
		}
		if err := w.fill(ctx); err != nil {
			return row{}, err
		}
	}
}

// cut takes the row at the beginning of text, unless there may be more of it.
func (w *window) cut(f format, text []byte, last bool, cells [][]byte) (r row, ok bool) {
	n, size, flt := f.cut(text, last, cells)
	full := len(text) == rowMax+2 // there is more, but not for this row
	switch {
	case n > 0 && size <= rowMax:
		return w.take(text, n, size, flt), true
	case n > 0 || full && flt.kind == readable:
		flt = fault{kind: tooLong}
	case flt.kind == readable:
		return row{}, false
	}
	// It cannot be cut by the rules of its format, so it is its first line.
	switch n, size = line(text, last); {
	case n > 0 && size <= rowMax:
		return w.take(text, n, size, flt), true
	case n > 0 || full:
		w.skip = true
		return w.take(text, rowMax, rowMax, fault{kind: tooLong}), true
	}
	return row{}, false
}

// take goes n bytes on, over a row of the given size.
func (w *window) take(text []byte, n, size int, f fault) row {
	r := row{text[:size], w.position(), w.line, f}
	w.at += n
	w.line += 1 + int64(bytes.Count(r.text, lineEnd))
	return r
}

var lineEnd = []byte{'\n'}

// line returns the length of the first line of text with and without its end, or
// 0 if there is more of it.
func line(text []byte, last bool) (n, size int) {
	n = bytes.IndexByte(text, '\n') + 1
	size = n - 1
	if n == 0 {
		if !last {
			return 0, 0
		}
		n, size = len(text), len(text)
	}
	if size > 0 && text[size-1] == '\r' {
		size--
	}
	return n, size
}

// blank returns the length of the blank line at the beginning of text, or 0.
func blank(text []byte, last bool) int {
	if n, size := line(text[:min(len(text), 2)], last && len(text) <= 2); size == 0 {
		return n
	}
	return 0
}

// fill reads more of the text behind what is left of it. At the end of the source
// it sets src to nil.
func (w *window) fill(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.src == nil {
		return io.ErrNoProgress // a format asks for more than there is
	}
	copy(w.buf, w.buf[w.at:w.end])
	w.base, w.end, w.at = w.base+int64(w.at), w.end-w.at, 0
	if w.end == len(w.buf) {
		w.buf = append(w.buf, make([]byte, len(w.buf))...)
	}
	from := w.end
	for w.end < len(w.buf) {
		n, err := w.src.Read(w.buf[w.end:])
		w.end += n
		switch {
		case err == io.EOF && w.size >= 0 && w.base+int64(w.end) != w.size:
			return io.ErrUnexpectedEOF
		case err == io.EOF:
			w.src = nil
			return nil
		case err != nil && w.end > from:
			return nil // an error comes back on the next read, after these rows
		case err != nil:
			return err
		}
	}
	return nil
}
