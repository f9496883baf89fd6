package export

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
)

const safetensorsName = "weights.safetensors"

// safetensors writes all tensors to one file. Its head says where each is, so that the
// tensors are gathered in files of their own first.
type safetensors struct {
	tensors
	dir      string
	metadata map[string]string
}

func newSafetensors(dir string, columns []column, metadata map[string]string) (output, error) {
	s := &safetensors{dir: dir, metadata: metadata}
	err := s.open(dir, ".part", 0, columns)
	if err != nil {
		s.close()
	}
	return s, err
}

// finish puts the tensors one behind the other.
func (s *safetensors) finish() (names []string, err error) {
	// The widest elements first, so that all are aligned.
	var ordered []*tensor
	for _, size := range []int{8, 4, 2, 1} {
		for _, t := range s.list {
			if t.kind.bytes == size {
				ordered = append(ordered, t)
			}
		}
	}
	head, err := safetensorsHead(ordered, s.metadata)
	if err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(s.dir, safetensorsName))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(head); err != nil {
		return nil, err
	}
	for _, t := range ordered {
		if err := t.out.Flush(); err != nil {
			return nil, err
		}
		if _, err := t.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		if _, err := io.Copy(file, t.file); err != nil {
			return nil, err
		}
		if err := errors.Join(t.file.Close(), os.Remove(t.path)); err != nil {
			return nil, err
		}
	}
	return []string{safetensorsName}, nil
}

// safetensorsHead returns what is in front of the tensors: the length of a JSON object, a
// multiple of 8 by blanks at its end, and the object.
//
// Source: github.com/huggingface/safetensors, README.md, "Format".
func safetensorsHead(list []*tensor, metadata map[string]string) ([]byte, error) {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	object := map[string]any{"__metadata__": metadata}
	at := int64(0)
	for _, t := range list {
		object[t.name] = entry{t.kind.safetensors, t.shape(), [2]int64{at, at + t.bytes()}}
		at += t.bytes()
	}
	doc, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	doc = append(doc, bytes.Repeat([]byte(" "), (8-len(doc)%8)%8)...)
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(doc))), doc...), nil
}
