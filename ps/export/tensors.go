package export

import (
	"bufio"
	"encoding/binary"
	"os"
	"path/filepath"

	"github.com/freshet-ml/freshet/ps"
)

// dtype is the type of a tensor's elements, as the formats call it.
type dtype struct {
	npy, safetensors string
	bytes            int
}

var (
	dtypeUint64   = dtype{"<u8", "U64", 8}
	dtypeFloat32  = dtype{"<f4", "F32", 4}
	dtypeFloat64  = dtype{"<f8", "F64", 8}
	dtypeFloat16  = dtype{"<f2", "F16", 2}
	dtypeBFloat16 = dtype{"<u2", "BF16", 2} // NumPy has none
	dtypeInt8     = dtype{"|i1", "I8", 1}
)

// weightsType returns the type of a table's weights.
func (c column) weightsType() dtype {
	switch {
	case c.Kind == ps.Float64:
		return dtypeFloat64
	case c.Kind == ps.Uint64:
		return dtypeUint64
	case c.encoding == ps.Float16:
		return dtypeFloat16
	case c.encoding == ps.BFloat16:
		return dtypeBFloat16
	case c.encoding == ps.Int8:
		return dtypeInt8
	}
	return dtypeFloat32
}

// tensor is a file to which the elements of one tensor are appended.
type tensor struct {
	name  string // <table>.keys and so on
	kind  dtype
	width int // elements of a row; 0 if the tensor has one dimension
	rows  int64
	path  string
	file  *os.File
	out   *bufio.Writer
}

// newTensor begins a file, with room for a head.
func newTensor(path, name string, kind dtype, width, head int) (*tensor, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	t := &tensor{name: name, kind: kind, width: width, path: path, file: file, out: bufio.NewWriterSize(file, 256<<10)}
	_, err = t.out.Write(make([]byte, head))
	return t, err
}

func (t *tensor) add(elements []byte) error {
	t.rows++
	_, err := t.out.Write(elements)
	return err
}

// bytes returns the size of the elements.
func (t *tensor) bytes() int64 { return t.rows * int64(max(1, t.width)*t.kind.bytes) }

// shape returns the sizes of the dimensions.
func (t *tensor) shape() []int64 {
	if t.width == 0 {
		return []int64{t.rows}
	}
	return []int64{t.rows, int64(t.width)}
}

// tensors are those of all tables: for each its keys, its weights, and scales if they are
// int8.
type tensors struct {
	list   []*tensor
	tables []tableTensors
}

type tableTensors struct {
	keys, weights, scales *tensor // scales may be nil
}

// open begins all tensors, in files with the given suffix and room for a head.
func (t *tensors) open(dir, suffix string, head int, columns []column) error {
	begin := func(c column, what string, kind dtype, width int) (*tensor, error) {
		name := c.Name + "." + what
		one, err := newTensor(filepath.Join(dir, name+suffix), name, kind, width, head)
		if one != nil {
			t.list = append(t.list, one)
		}
		return one, err
	}
	for _, c := range columns {
		var table tableTensors
		var err error
		if table.keys, err = begin(c, "keys", dtypeUint64, 0); err != nil {
			return err
		}
		if table.weights, err = begin(c, "weights", c.weightsType(), c.Width); err != nil {
			return err
		}
		if c.encoding == ps.Int8 {
			if table.scales, err = begin(c, "scales", dtypeFloat32, 0); err != nil {
				return err
			}
		}
		t.tables = append(t.tables, table)
	}
	return nil
}

// add appends a row.
func (t *tensors) add(table int, key ps.Key, encoded []byte) error {
	to := t.tables[table]
	var name [8]byte
	binary.LittleEndian.PutUint64(name[:], uint64(key))
	if err := to.keys.add(name[:]); err != nil {
		return err
	}
	if to.scales != nil {
		if err := to.scales.add(encoded[:4]); err != nil {
			return err
		}
		encoded = encoded[4:]
	}
	return to.weights.add(encoded)
}

// close closes the files.
func (t *tensors) close() {
	for _, one := range t.list {
		_ = one.file.Close() // where that matters, it has been closed before
	}
}
