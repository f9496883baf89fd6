package export

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/quant"
)

// lines writes JSON Lines: {"key":"17","weights":[0.5,-1]}, and for int8
// {"key":"17","scale":0.01,"weights":[50,-100]}. Keys are text because not every reader of
// JSON has integers of 64 bits; a weight that is not finite is null.
type lines struct {
	columns []column
	files   []*os.File
	outs    []*bufio.Writer
	line    []byte
	plain   []byte
}

func newLines(dir string, columns []column) (output, error) {
	l := &lines{columns: columns}
	for _, c := range columns {
		file, err := os.Create(filepath.Join(dir, c.Name+".jsonl"))
		if err != nil {
			l.close()
			return nil, err
		}
		l.files = append(l.files, file)
		l.outs = append(l.outs, bufio.NewWriterSize(file, 256<<10))
	}
	return l, nil
}

func (l *lines) add(table int, key ps.Key, encoded []byte) error {
	c := l.columns[table]
	b := append(l.line[:0], `{"key":"`...)
	b = strconv.AppendUint(b, uint64(key), 10)
	b = append(b, `",`...)
	if c.encoding == ps.Int8 {
		b = appendFloat(append(b, `"scale":`...), float64(ps.View[float32](encoded[:4])[0]), 32)
		b = append(b, ',')
	}
	b = append(b, `"weights":[`...)
	var err error
	if b, err = l.appendWeights(b, c, encoded); err != nil {
		return err
	}
	l.line = append(b, "]}\n"...)
	_, err = l.outs[table].Write(l.line)
	return err
}

// appendWeights appends a row's weights: int8 as they are, other encodings decoded.
func (l *lines) appendWeights(b []byte, c column, encoded []byte) ([]byte, error) {
	switch {
	case c.Kind == ps.Uint64:
		for i, w := range ps.View[uint64](encoded) {
			b = strconv.AppendUint(comma(b, i), w, 10)
		}
	case c.Kind == ps.Float64:
		for i, w := range ps.View[float64](encoded) {
			b = appendFloat(comma(b, i), w, 64)
		}
	case c.encoding == ps.Int8:
		for i, w := range encoded[4:] {
			b = strconv.AppendInt(comma(b, i), int64(int8(w)), 10)
		}
	default:
		l.plain = append(l.plain[:0], make([]byte, c.RowBytes())...)
		if c.encoding == ps.Plain {
			copy(l.plain, encoded)
		} else if err := quant.Decode(l.plain, c.encoding, c.Table, encoded); err != nil {
			return nil, err
		}
		for i, w := range ps.View[float32](l.plain) {
			b = appendFloat(comma(b, i), float64(w), 32)
		}
	}
	return b, nil
}

func comma(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	return append(b, ',')
}

// appendFloat appends the shortest number that is read as the same float of so many bits.
func appendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, bits)
}

func (l *lines) finish() (names []string, err error) {
	for i, file := range l.files {
		if err := l.outs[i].Flush(); err != nil {
			return nil, err
		}
		if err := file.Close(); err != nil {
			return nil, err
		}
		names = append(names, filepath.Base(file.Name()))
	}
	return names, nil
}

func (l *lines) close() {
	for _, file := range l.files {
		_ = file.Close() // where that matters, it has been closed before
	}
}
