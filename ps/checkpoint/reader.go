package checkpoint

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/freshet-ml/freshet/ps"
)

// Reader reads a snapshot file in one pass. It has one owner at a time.
type Reader struct {
	object *ObjectReader
	in     *bufio.Reader
	file   File
	at     int64 // offset of the next byte

	head   Head
	hash   hash.Hash
	sum    [4]byte  // what the hash is given; a field, so that it is not allocated
	counts []counts // seen so far

	begin   [blockHeadBytes]byte // of the current block; a field, so that it is not allocated
	block   []byte               // its payload
	section section
	table   ps.TableID
	blocks  uint32
	err     error
}

// Open begins to read a snapshot file that a manifest lists, and checks everything
// that its beginning says: magic, format version, length, checksum, and that the
// head is that of the file the manifest means. ctx governs all reading. Whoever
// opens calls Close.
//
// It wraps ps.ErrCorrupt, with the file's name and the byte, if the file is not
// what the manifest says or is not there; ps.ErrUnavailable if the bucket cannot be
// read just now.
func Open(ctx context.Context, b *Bucket, f File) (*Reader, error) {
	object, err := b.Reader(ctx, f.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open snapshot %s, which a manifest lists: %w: %w", f.Name, ps.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", f.Name, err)
	}
	r := &Reader{object: object, in: bufio.NewReaderSize(object, int(min(object.Size(), 4*payloadBytesMax))), file: f, hash: sha256.New()}
	if err := r.open(); err != nil {
		_ = object.Close() // nothing was written
		return nil, err
	}
	return r, nil
}

// Head returns what the file is of. The caller may keep it and must not change
// its slices.
func (r *Reader) Head() Head { return r.head }

// Next returns the next rows of a table: whole rows of stride bytes each, as
// Writer.Rows took them. A stride of TombstoneBytes, which no row has, means
// tombstones; they come after all rows. The bytes are valid until the next call
// and must not be changed.
//
// The checksum of what it returns was right, and every key and seq is one that may
// be in this file. That nothing is missing is known only when Next has returned
// io.EOF: until then the rows must not be put to use.
//
// It wraps ps.ErrCorrupt, with the file's name and the byte, or ps.ErrUnavailable.
func (r *Reader) Next() (table ps.TableID, stride int, rows []byte, err error) {
	if r.err != nil {
		return 0, 0, nil, r.err
	}
	if err := r.nextBlock(); err != nil {
		return 0, 0, nil, r.end(err)
	}
	if r.section == sectionFooter {
		if err := r.footer(); err != nil {
			return 0, 0, nil, r.end(err)
		}
		return 0, 0, nil, r.end(io.EOF)
	}
	stride, err = r.records()
	if err != nil {
		return 0, 0, nil, r.end(err)
	}
	return r.table, stride, r.block, nil
}

// Close ends reading. It may be called at any time and more than once.
func (r *Reader) Close() error {
	_ = r.end(errors.New("the reader is closed"))
	return r.object.Close()
}

func (r *Reader) end(err error) error {
	if r.err == nil {
		r.err = err
	}
	return err
}

// open reads up to the end of the head.
func (r *Reader) open() error {
	var b [openBytes]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return r.corrupt(0, "begins with %q: no snapshot file", b[:len(magic)])
	}
	sum := crc32.Checksum(b[:12], castagnoli)
	if version := binary.LittleEndian.Uint32(b[8:]); version != formatVersion {
		if sum == binary.LittleEndian.Uint32(b[12:]) {
			return r.corrupt(8, "format %d, this program reads up to %d: a newer one wrote it", version, formatVersion)
		}
		return r.corrupt(8, "format %d, and the checksum is wrong", version)
	}
	if size := r.object.Size(); size != r.file.Bytes {
		return r.corrupt(min(size, r.file.Bytes), "%d bytes long, the manifest says %d", size, r.file.Bytes)
	}
	if sum != binary.LittleEndian.Uint32(b[12:]) {
		return r.corrupt(12, "checksum %08x, want %08x", binary.LittleEndian.Uint32(b[12:]), sum)
	}
	r.count(sum)
	return r.openHead()
}

// openHead reads the blocks of the head, whose payload begins with its length.
func (r *Reader) openHead() error {
	var doc []byte
	for want := headLengthBytes; len(doc) < want; {
		if err := r.nextBlock(); err != nil {
			return err
		}
		start := r.at - int64(len(r.block))
		if r.section != sectionHead || len(r.block) > payloadBytesMax {
			return r.corrupt(start, "%d bytes of %v where the head belongs", len(r.block), r.section)
		}
		first := doc == nil
		doc = append(doc, r.block...)
		if first && len(doc) > headLengthBytes {
			want += int(min(binary.LittleEndian.Uint32(doc), headBytesMax))
		}
		if len(doc) > want || len(doc) < want && len(r.block) < payloadBytesMax {
			return r.corrupt(start, "%d bytes of a head of %d", len(doc), want)
		}
	}
	return r.takeHead(doc[headLengthBytes:])
}

func (r *Reader) takeHead(doc []byte) error {
	head, err := decodeHead(doc)
	if err != nil {
		return r.corrupt(openBytes, "head: %v", err)
	}
	name, ok := parseSnapshot(r.file.Name)
	if !ok || name.model != head.Model || name.shard != head.Shard || name.tip != (tip{head.Fence, head.Seq}) {
		return r.corrupt(openBytes, "head of model %q, shard %d, fence %d, seq %d under another's name",
			head.Model, head.Shard, head.Fence, head.Seq)
	}
	if f := r.file; f.Fence != head.Fence || f.Seq != head.Seq || f.Since != head.Since || f.Parent != head.Parent.Hash {
		return r.corrupt(openBytes, "fence %d, seq %d, since %d, parent %v; the manifest says %d, %d, %d, %v",
			head.Fence, head.Seq, head.Since, head.Parent.Hash, f.Fence, f.Seq, f.Since, f.Parent)
	}
	r.head = head
	r.counts = make([]counts, len(head.Tables))
	return nil
}

// nextBlock reads a block and checks its place and its checksum.
func (r *Reader) nextBlock() error {
	start := r.at
	b := r.begin[:]
	if err := r.read(b); err != nil {
		return err
	}
	h, err := parseBlockHead(b)
	if err != nil {
		return r.corrupt(start, "%v", err)
	}
	if int64(h.length) > r.file.Bytes-r.at {
		return r.corrupt(start, "block of %d bytes, the file has %d more", h.length, r.file.Bytes-r.at)
	}
	if cap(r.block) < h.length {
		r.block = make([]byte, max(h.length, int(min(payloadBytesMax, r.file.Bytes))))
	}
	r.block = r.block[:h.length]
	if err := r.read(r.block); err != nil {
		return err
	}
	sum := crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, r.block)
	if stored := binary.LittleEndian.Uint32(b[12:]); sum != stored {
		return r.corrupt(start, "checksum of the block is %08x, want %08x", stored, sum)
	}
	if h.index != r.blocks {
		return r.corrupt(start, "block %d where block %d belongs", h.index, r.blocks)
	}
	if h.section < r.section || h.section == r.section && h.table < r.table {
		return r.corrupt(start, "%v of table %d after %v of table %d", h.section, h.table, r.section, r.table)
	}
	r.section, r.table = h.section, h.table
	r.blocks++
	r.count(sum)
	return nil
}

// records checks that the block holds whole records that belong here, and counts
// them.
func (r *Reader) records() (stride int, err error) {
	start := r.at - int64(len(r.block))
	if int64(r.table) >= int64(len(r.counts)) {
		return 0, r.corrupt(start, "table %d of %d", r.table, len(r.counts))
	}
	switch {
	case r.section == sectionRows:
		stride = r.head.Tables[r.table].Stride
	case r.section == sectionTombstones && !r.head.Full():
		stride = TombstoneBytes
	default:
		return 0, r.corrupt(start, "%v where rows belong", r.section)
	}
	if len(r.block)%stride != 0 || len(r.block) > max(payloadBytesMax, stride) {
		return 0, r.corrupt(start, "table %d: block of %d bytes for rows of %d", r.table, len(r.block), stride)
	}
	if err := checkRows(&r.head, stride, r.block); err != nil {
		return 0, r.corrupt(start, "%v of table %d: %v", r.section, r.table, err)
	}
	n := uint64(len(r.block) / stride)
	if r.section == sectionRows {
		r.counts[r.table].rows += n
	} else {
		r.counts[r.table].tombstones += n
	}
	return stride, nil
}

// footer checks the counts, and then what the file ends with.
func (r *Reader) footer() error {
	start := r.at - int64(len(r.block))
	if len(r.block) != footerBytes+len(r.counts)*footerTableBytes {
		return r.corrupt(start, "footer of %d bytes for %d tables", len(r.block), len(r.counts))
	}
	blocks, tables := binary.LittleEndian.Uint32(r.block), binary.LittleEndian.Uint32(r.block[4:])
	bytes := binary.LittleEndian.Uint64(r.block[8:])
	if blocks != r.blocks-1 || int64(tables) != int64(len(r.counts)) || bytes != uint64(start-blockHeadBytes) {
		return r.corrupt(start, "footer counts %d blocks, %d tables and %d bytes, there are %d, %d and %d",
			blocks, tables, bytes, r.blocks-1, len(r.counts), start-blockHeadBytes)
	}
	var rows, tombstones uint64
	for i, c := range r.counts {
		b := r.block[footerBytes+i*footerTableBytes:]
		if want := (counts{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}); c != want {
			return r.corrupt(start, "table %d has %d rows and %d tombstones, the footer says %d and %d",
				i, c.rows, c.tombstones, want.rows, want.tombstones)
		}
		rows += c.rows
		tombstones += c.tombstones
	}
	if rows != r.file.Rows || tombstones != r.file.Tombstones {
		return r.corrupt(start, "%d rows and %d tombstones, the manifest says %d and %d",
			rows, tombstones, r.file.Rows, r.file.Tombstones)
	}
	return r.endMark()
}

func (r *Reader) endMark() error {
	start := r.at
	var b [endBytes]byte
	if err := r.read(b[:]); err != nil {
		return err
	}
	if string(b[44:]) != endMark {
		return r.corrupt(start+44, "ends with %q", b[44:])
	}
	if length := binary.LittleEndian.Uint64(b[32:]); length != uint64(r.at) || r.at != r.file.Bytes {
		return r.corrupt(start+32, "is complete at %d bytes, says %d, the manifest says %d", r.at, length, r.file.Bytes)
	}
	if sum := crc32.Checksum(b[:40], castagnoli); sum != binary.LittleEndian.Uint32(b[40:]) {
		return r.corrupt(start+40, "checksum %08x of the end, want %08x", binary.LittleEndian.Uint32(b[40:]), sum)
	}
	var hash Hash
	r.hash.Sum(hash[:0])
	if hash != Hash(b[:32]) || hash != r.file.Hash {
		return r.corrupt(start, "hash %v, the file says %v, the manifest %v", hash, Hash(b[:32]), r.file.Hash)
	}
	if _, err := r.in.ReadByte(); err != io.EOF {
		if err == nil {
			return r.corrupt(r.at, "bytes after the end")
		}
		return fmt.Errorf("read snapshot %s: byte %d: %w", r.file.Name, r.at, err)
	}
	return nil
}

// read fills b.
func (r *Reader) read(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.at += int64(n)
	// A broken connection is an error of the bucket's, which wraps what it likes; to
	// end too early is the file's fault.
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return r.corrupt(r.at, "ends in the middle, the manifest says %d bytes", r.file.Bytes)
	}
	if err != nil {
		return fmt.Errorf("read snapshot %s: byte %d: %w", r.file.Name, r.at, err)
	}
	return nil
}

func (r *Reader) count(sum uint32) {
	binary.LittleEndian.PutUint32(r.sum[:], sum)
	r.hash.Write(r.sum[:])
}

func (r *Reader) corrupt(at int64, format string, args ...any) error {
	return fmt.Errorf("snapshot %s: byte %d: %s: %w", r.file.Name, at, fmt.Sprintf(format, args...), ps.ErrCorrupt)
}

// Verify reads a file to its end, which checks every byte of it. Its errors are those of
// Open and of Reader.Next.
func Verify(ctx context.Context, bucket *Bucket, f File) (err error) {
	r, err := Open(ctx, bucket, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		if _, _, _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
