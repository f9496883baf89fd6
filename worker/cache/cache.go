// Package cache keeps extracted examples in files, so that another pass, a replay or a
// restart need not cut and hash the text again. It holds keys and never a row's text, and
// it knows nothing of features or streams but their names.
//
// The one idea to keep in mind: a cache is a copy that may be thrown away at any moment.
// It is believed only if it is whole, undamaged, of this format and of exactly the stream
// and features that are asked for; everything else is as good as no cache. What events
// are and which offsets they have is the stream's business and does not change by it.
//
// # Format
//
// One file per partition holds the events of one pass, in order. All is little-endian, and
// checksums are CRC-32C.
//
//	header   8 magic "FRSHCACH" | 4 version | 4 partition | 32 SHA-256 of stream and features | 4 checksum of the above
//	block    4 checksum of all that follows | 4 events, n, 0 in the last | 4 keys, k | 4 flags
//	         k keys, uint64 | [n times, int64] | n ends of the events' keys, int32 | n labels, float32 |
//	         [n weights, float32] | [k values, float32] | [k fields, uint16] | n roles, a byte each
//	...
//	last     checksum | 0 | 0 | 0 | 8 number of events in the file
//
// What stands in brackets is there if the flags say so: weights and values are 1, and times
// 0, where they are not, and there are no fields. A file without the last block was not finished. Its name says
// the stream, the features and the version, so that a change of any finds nothing.
package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// What reaches the disk; see the package comment.
const (
	magic      = "FRSHCACH"
	version    = 2 // raised by every change of the format
	headerSize = 8 + 4 + 4 + sha256.Size + 4
	blockHead  = 16

	hasWeights = 1 << 0
	hasTimes   = 1 << 1
	hasValues  = 1 << 2
	hasFields  = 1 << 3
	allFlags   = hasWeights | hasTimes | hasValues | hasFields
)

// Bounds of a block.
const (
	blockEvents = 256     // as many as most batches have
	blockMax    = 1 << 28 // bytes; a longer one is damage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Name says what a cache holds.
type Name struct {
	Stream    ps.StreamID
	Features  [sha256.Size]byte // as feature.Digest
	Partition ps.Partition
}

// sum is the SHA-256 of stream and features.
func (n Name) sum() [sha256.Size]byte {
	return sha256.Sum256(append([]byte(n.Stream+"\x00"), n.Features[:]...))
}

// path returns the file of a cache in a directory.
func (n Name) path(dir string) string {
	sum := n.sum()
	return filepath.Join(dir, fmt.Sprintf("%s-%d.v%d.examples", hex.EncodeToString(sum[:16]), n.Partition, version))
}

func (n Name) header() []byte {
	sum := n.sum()
	h := append(make([]byte, 0, headerSize), magic...)
	h = binary.LittleEndian.AppendUint32(h, version)
	h = binary.LittleEndian.AppendUint32(h, uint32(n.Partition))
	h = append(h, sum[:]...)
	return binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

// Exists reports whether dir has a cache of that name; it may be damaged.
func Exists(dir string, n Name) bool {
	_, err := os.Stat(n.path(dir))
	return err == nil
}

// Remove removes a cache that cannot be believed.
func Remove(dir string, n Name) error { return os.Remove(n.path(dir)) }

// Writer writes a cache. It has one owner at a time. Nobody sees what it writes before
// Commit.
type Writer struct {
	file   *os.File
	path   string
	events uint64
	block  worker.Batch // the events of the block under way
	times  []int64
	buf    []byte
}

// Create begins a cache in a directory, which it makes if it is not there.
func Create(dir string, n Name) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create cache: %w", err)
	}
	path := n.path(dir)
	file, err := os.CreateTemp(dir, filepath.Base(path)+".*.part")
	if err != nil {
		return nil, fmt.Errorf("create cache: %w", err)
	}
	w := &Writer{file: file, path: path}
	w.block.Reset(n.Partition, 0, 0)
	if _, err := file.Write(n.header()); err != nil {
		return nil, fmt.Errorf("create cache: %w", errors.Join(err, w.Abort()))
	}
	return w, nil
}

// Add adds the last event of b, which happened at the given time. Events come in the order
// of their offsets, from the first on.
func (w *Writer) Add(b *worker.Batch, eventTime int64) error {
	i := b.Len() - 1
	from, to := b.Starts[i], b.Starts[i+1]
	w.block.Keys = append(w.block.Keys, b.Keys[from:to]...)
	w.block.Values = append(w.block.Values, b.Values[from:to]...)
	if len(b.Fields) > 0 {
		w.block.Fields = append(w.block.Fields, b.Fields[from:to]...)
	}
	w.block.Close(b.Roles[i], b.Labels[i], b.Weights[i], eventTime)
	w.times = append(w.times, eventTime)
	if w.block.Len() == blockEvents {
		return w.flush()
	}
	return nil
}

// flush writes the block under way.
func (w *Writer) flush() error {
	if w.block.Len() == 0 {
		return nil
	}
	w.buf = encode(w.buf[:0], &w.block, w.times)
	w.events += uint64(w.block.Len())
	w.block.Reset(w.block.Partition, w.block.To, 0)
	w.times = w.times[:0]
	if _, err := w.file.Write(w.buf); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	return nil
}

// Commit ends the cache and makes it visible. The writer is closed, whatever it returns.
func (w *Writer) Commit() error {
	err := w.flush()
	if err == nil {
		last := make([]byte, blockHead, blockHead+8)
		last = binary.LittleEndian.AppendUint64(last, w.events)
		binary.LittleEndian.PutUint32(last, crc32.Checksum(last[4:], castagnoli))
		_, err = w.file.Write(last)
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("finish cache: %w", errors.Join(err, w.Abort()))
	}
	if err := errors.Join(w.file.Close(), os.Rename(w.file.Name(), w.path)); err != nil {
		return fmt.Errorf("finish cache: %w", err)
	}
	return nil
}

// Abort throws the cache away.
func (w *Writer) Abort() error { return errors.Join(w.file.Close(), os.Remove(w.file.Name())) }

// encode appends a block.
func encode(dst []byte, b *worker.Batch, times []int64) []byte {
	flags := uint32(0)
	for i, weight := range b.Weights {
		if weight != 1 {
			flags |= hasWeights
		}
		if times[i] != 0 {
			flags |= hasTimes
		}
	}
	for _, value := range b.Values {
		if value != 1 {
			flags |= hasValues
			break
		}
	}
	if len(b.Fields) > 0 {
		flags |= hasFields
	}
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0) // the checksum
	dst = binary.LittleEndian.AppendUint32(dst, uint32(b.Len()))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b.Keys)))
	dst = binary.LittleEndian.AppendUint32(dst, flags)
	dst = append(dst, ps.Bytes(b.Keys)...)
	if flags&hasTimes != 0 {
		dst = append(dst, ps.Bytes(times)...)
	}
	dst = append(dst, ps.Bytes(b.Starts[1:])...)
	dst = append(dst, ps.Bytes(b.Labels)...)
	if flags&hasWeights != 0 {
		dst = append(dst, ps.Bytes(b.Weights)...)
	}
	if flags&hasValues != 0 {
		dst = append(dst, ps.Bytes(b.Values)...)
	}
	if flags&hasFields != 0 {
		dst = append(dst, ps.Bytes(b.Fields)...)
	}
	for _, role := range b.Roles {
		dst = append(dst, byte(role))
	}
	binary.LittleEndian.PutUint32(dst[start:], crc32.Checksum(dst[start+4:], castagnoli))
	return dst
}
