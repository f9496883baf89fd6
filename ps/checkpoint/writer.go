package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/freshet-ml/freshet/ps"
)

// errEnded is what a writer says after Close or Abort.
var errEnded = errors.New("the writer is closed")

// counts is what a file holds of one table.
type counts struct{ rows, tombstones uint64 }

// Writer writes a snapshot file in one pass. It has one owner at a time. After an
// error it does nothing but return it again; Abort is then still to be called.
type Writer struct {
	object *ObjectWriter
	name   string
	head   Head
	hash   hash.Hash
	last   [4]byte // what the hash is given; a field, so that it is not allocated
	counts []counts

	block   []byte // head and payload of the block being filled
	section section
	table   ps.TableID
	blocks  uint32
	bytes   int64
	err     error
}

// Create begins the snapshot file of the given name, which Name made for this very
// head, and writes its head. ctx governs all writing: when it ends the file is
// given up. The writer keeps its own copy of the head.
//
// Nothing of the file can be seen by others before Close. Whoever creates calls
// Close or Abort; `defer w.Abort()` does no harm after Close.
//
// It wraps ps.ErrInvalid if the head or the name is wrong, ps.ErrConflict if there
// is such a file already, ps.ErrUnavailable if the bucket cannot be written.
func Create(ctx context.Context, b *Bucket, name string, head Head) (*Writer, error) {
	fail := func(err error) (*Writer, error) { return nil, fmt.Errorf("create snapshot %s: %w", name, err) }
	if err := head.Valid(); err != nil {
		return fail(err)
	}
	n, ok := parseSnapshot(name)
	if !ok || n.model != head.Model || n.shard != head.Shard || n.tip != (tip{head.Fence, head.Seq}) {
		return fail(fmt.Errorf("no name for model %q, shard %d, fence %d, seq %d: %w",
			head.Model, head.Shard, head.Fence, head.Seq, ps.ErrInvalid))
	}
	head.Partitions = append([]ps.Progress(nil), head.Partitions...)
	head.Tables = append([]Table(nil), head.Tables...)
	doc, err := head.encode()
	if err != nil {
		return fail(err)
	}
	object, err := b.Writer(ctx, name)
	if err != nil {
		return fail(err)
	}
	w := &Writer{
		object: object, name: name, head: head, hash: sha256.New(), counts: make([]counts, len(head.Tables)),
		block: make([]byte, blockHeadBytes, blockHeadBytes+payloadBytesMax), section: sectionHead,
	}
	w.open()
	doc = append(binary.LittleEndian.AppendUint32(nil, uint32(len(doc))), doc...)
	for len(doc) > 0 && w.err == nil {
		n := min(len(doc), payloadBytesMax)
		w.block = append(w.block, doc[:n]...)
		doc = doc[n:]
		w.flush()
	}
	if w.err != nil {
		object.Abort()
		return nil, w.err
	}
	return w, nil
}

// Rows adds whole rows of a table: each its key, the seq of its last change, and
// the little-endian elements of its weights and state, stride bytes in all as the
// head says. It is called as often as the caller likes, tables in ascending order,
// and keeps no reference to rows. It allocates nothing, unless a row is longer than
// a block.
//
// It wraps ps.ErrInvalid if rows are not what the head announced, or come after a
// higher table's or after a tombstone; else it returns the bucket's error.
func (w *Writer) Rows(table ps.TableID, stride int, rows []byte) error {
	if w.err == nil && int64(table) < int64(len(w.head.Tables)) && w.head.Tables[table].Stride != stride {
		w.fail(fmt.Errorf("rows of %d bytes, the head says %d: %w", stride, w.head.Tables[table].Stride, ps.ErrInvalid))
	}
	w.add(sectionRows, table, stride, rows)
	if w.err == nil {
		w.counts[table].rows += uint64(len(rows) / stride)
	}
	return w.err
}

// Tombstones adds deletions of rows of a table: each the key and the seq of the
// deletion, TombstoneBytes in all. They come after all rows of all tables, tables
// in ascending order, and only into a file with a parent. Errors are those of Rows.
func (w *Writer) Tombstones(table ps.TableID, tombstones []byte) error {
	if w.err == nil && w.head.Full() {
		w.fail(fmt.Errorf("tombstones in a full snapshot, which has no older row to delete: %w", ps.ErrInvalid))
	}
	w.add(sectionTombstones, table, TombstoneBytes, tombstones)
	if w.err == nil {
		w.counts[table].tombstones += uint64(len(tombstones) / TombstoneBytes)
	}
	return w.err
}

// Close writes what remains, makes the file durable and returns what a manifest
// says of it. If it fails, there is no file of this name, or one that nothing names.
func (w *Writer) Close() (File, error) {
	if w.err != nil {
		return File{}, w.err
	}
	w.flush()
	w.footer()
	if w.err == nil {
		w.end()
	}
	if w.err != nil {
		return File{}, w.err
	}
	if err := w.object.Close(); err != nil {
		w.fail(err)
		return File{}, w.err
	}
	f := File{
		Ref:   Ref{Name: w.name, Hash: w.sum(), Bytes: w.bytes},
		Fence: w.head.Fence, Seq: w.head.Seq, Since: w.head.Since, Parent: w.head.Parent.Hash,
	}
	for _, c := range w.counts {
		f.Rows += c.rows
		f.Tombstones += c.tombstones
	}
	w.err = errEnded
	return f, nil
}

// Abort gives the file up. It may be called at any time and more than once.
func (w *Writer) Abort() {
	if w.err == nil {
		w.err = errEnded
	}
	w.object.Abort()
}

// add puts records of one table into blocks.
func (w *Writer) add(s section, table ps.TableID, stride int, records []byte) {
	if w.err != nil {
		return
	}
	switch {
	case int64(table) >= int64(len(w.head.Tables)):
		w.fail(fmt.Errorf("table %d of %d: %w", table, len(w.head.Tables), ps.ErrInvalid))
		return
	case len(records)%stride != 0:
		w.fail(fmt.Errorf("table %d: %d bytes are no whole number of %d: %w", table, len(records), stride, ps.ErrInvalid))
		return
	case len(records) == 0:
		return
	case s < w.section || s == w.section && table < w.table:
		w.fail(fmt.Errorf("%v of table %d after %v of table %d: %w", s, table, w.section, w.table, ps.ErrInvalid))
		return
	}
	if err := checkRows(&w.head, stride, records); err != nil {
		w.fail(fmt.Errorf("%v of table %d: %w: %w", s, table, err, ps.ErrInvalid))
		return
	}
	if s != w.section || table != w.table {
		w.flush()
		w.section, w.table = s, table
	}
	for len(records) > 0 && w.err == nil {
		room := (blockHeadBytes + payloadBytesMax - len(w.block)) / stride
		if room <= 0 {
			if len(w.block) > blockHeadBytes {
				w.flush()
				continue
			}
			room = 1 // a row that is longer than a block is a block
		}
		n := min(len(records), room*stride)
		w.block = append(w.block, records[:n]...)
		records = records[n:]
	}
}

// flush writes the block being filled, if there is anything in it.
func (w *Writer) flush() {
	if len(w.block) == blockHeadBytes || w.err != nil {
		return
	}
	head := blockHead{section: w.section, table: w.table, length: len(w.block) - blockHeadBytes, index: w.blocks}
	w.count(head.seal(w.block))
	w.write(w.block)
	w.block = w.block[:blockHeadBytes]
	w.blocks++
}

func (w *Writer) footer() {
	w.section, w.table = sectionFooter, 0
	b := binary.LittleEndian.AppendUint32(w.block, w.blocks)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(w.counts)))
	b = binary.LittleEndian.AppendUint64(b, uint64(w.bytes))
	for _, c := range w.counts {
		b = binary.LittleEndian.AppendUint64(b, c.rows)
		b = binary.LittleEndian.AppendUint64(b, c.tombstones)
	}
	w.block = b
	w.flush()
}

// open writes what a file begins with.
func (w *Writer) open() {
	b := append(make([]byte, 0, openBytes), magic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	sum := crc32.Checksum(b, castagnoli)
	w.count(sum)
	w.write(binary.LittleEndian.AppendUint32(b, sum))
}

// end writes what a file ends with.
func (w *Writer) end() {
	hash := w.sum()
	b := append(make([]byte, 0, endBytes), hash[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.bytes+endBytes))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	w.write(append(b, endMark...))
}

// count takes a checksum into the file's hash.
func (w *Writer) count(sum uint32) {
	binary.LittleEndian.PutUint32(w.last[:], sum)
	w.hash.Write(w.last[:])
}

func (w *Writer) sum() (h Hash) {
	w.hash.Sum(h[:0])
	return h
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.object.Write(b); err != nil {
		w.fail(err)
		return
	}
	w.bytes += int64(len(b))
}

func (w *Writer) fail(err error) { w.err = fmt.Errorf("write snapshot %s: %w", w.name, err) }
