package export

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
)

// npyHead is the size of a file's head. Elements begin at a multiple of 64 bytes, as
// NumPy wants it, so that they can be mapped into memory.
const npyHead = 128

// npy writes every tensor to a file of its own.
type npy struct{ tensors }

func newNPY(dir string, columns []column) (output, error) {
	n := &npy{}
	err := n.open(dir, ".npy", npyHead, columns)
	if err != nil {
		n.close()
	}
	return n, err
}

// finish writes the heads, which say how many rows there are.
func (n *npy) finish() (names []string, err error) {
	for _, t := range n.list {
		if err := t.out.Flush(); err != nil {
			return nil, err
		}
		if _, err := t.file.WriteAt(npyHeader(t.kind, t.shape()), 0); err != nil {
			return nil, err
		}
		if err := t.file.Close(); err != nil {
			return nil, err
		}
		names = append(names, filepath.Base(t.path))
	}
	return names, nil
}

// npyHeader returns the head of a file of format 1.0.
//
// Source: numpy.lib.format, "Format Version 1.0".
func npyHeader(kind dtype, shape []int64) []byte {
	sizes := fmt.Sprintf("%d,", shape[0])
	if len(shape) == 2 {
		sizes = fmt.Sprintf("%d, %d", shape[0], shape[1])
	}
	head := make([]byte, 0, npyHead)
	head = append(head, "\x93NUMPY\x01\x00"...)
	head = binary.LittleEndian.AppendUint16(head, npyHead-10)
	head = fmt.Appendf(head, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", kind.npy, sizes)
	return append(append(head, strings.Repeat(" ", npyHead-1-len(head))...), '\n')
}
