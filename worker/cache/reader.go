package cache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// Reader reads a cache. It has one owner at a time, and allocates nothing per event.
type Reader struct {
	file   *os.File
	in     *bufio.Reader
	events uint64 // in the file
	next   uint64 // the event that Append gives
	head   [blockHead]byte
	buf    []byte
	block  block
	at     int // of the block's events, the next
}

// Open opens the cache of a name. Errors wrap fs.ErrNotExist if there is none, and
// ps.ErrCorrupt if there is one that cannot be believed.
func Open(dir string, n Name) (*Reader, error) {
	file, err := os.Open(n.path(dir))
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	r := &Reader{file: file}
	if err := r.open(n); err != nil {
		return nil, fmt.Errorf("open cache: %w", errors.Join(err, file.Close()))
	}
	return r, nil
}

// open checks both ends of the file.
func (r *Reader) open(n Name) error {
	var head [headerSize]byte
	if _, err := io.ReadFull(r.file, head[:]); err != nil {
		return damage("header", err)
	}
	if !bytes.Equal(head[:], n.header()) {
		return damage("header", errors.New("it is not of this stream, features and format"))
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	var last [blockHead + 8]byte
	if _, err := r.file.ReadAt(last[:], info.Size()-int64(len(last))); err != nil {
		return damage("last block", err)
	}
	r.events, err = decodeLast(last[:])
	if err != nil {
		return damage("last block", err)
	}
	return r.rewind()
}

// Events returns how many events the cache holds.
func (r *Reader) Events() ps.Offset { return ps.Offset(r.events) }

// Seek makes an event the next one that Append gives; row counts from 0 and is at most
// Events. It reads what is before it.
func (r *Reader) Seek(row ps.Offset) error {
	if uint64(row) < r.next {
		if err := r.rewind(); err != nil {
			return err
		}
	}
	for r.next < uint64(row) {
		if err := r.fill(); err != nil {
			return err
		}
		step := min(uint64(row)-r.next, uint64(r.block.events-r.at))
		r.at, r.next = r.at+int(step), r.next+step
	}
	return nil
}

func (r *Reader) rewind() error {
	if _, err := r.file.Seek(headerSize, io.SeekStart); err != nil {
		return err
	}
	if r.in == nil {
		r.in = bufio.NewReaderSize(r.file, 64<<10) // what is larger goes past it
	}
	r.in.Reset(r.file)
	r.next, r.at, r.block = 0, 0, block{}
	return nil
}

// Append adds the next event to b. It returns io.EOF after the last one, and an error that
// wraps ps.ErrCorrupt if the file is damaged; b is then as it was.
func (r *Reader) Append(b *worker.Batch) error {
	if r.next == r.events {
		return io.EOF
	}
	if r.at == r.block.events {
		if err := r.fill(); err != nil {
			return err
		}
	}
	r.block.appendTo(b, r.at)
	r.at++
	r.next++
	return nil
}

// Close closes the file.
func (r *Reader) Close() error { return r.file.Close() }

// fill reads the next block if the one at hand is used up.
func (r *Reader) fill() error {
	if r.at < r.block.events {
		return nil
	}
	if _, err := io.ReadFull(r.in, r.head[:]); err != nil {
		return damage("block", err)
	}
	size, err := sizeOf(r.head[:])
	if err != nil {
		return damage("block", err)
	}
	if cap(r.buf) < size {
		r.buf = make([]byte, size, size+size/4)
	}
	r.buf = r.buf[:size]
	copy(r.buf, r.head[:])
	if _, err := io.ReadFull(r.in, r.buf[blockHead:]); err != nil {
		return damage("block", err)
	}
	if r.block, err = decode(r.buf); err != nil {
		return damage("block", err)
	}
	if r.at = 0; uint64(r.block.events) > r.events-r.next {
		return damage("block", errors.New("there are more events than the last block says"))
	}
	return nil
}

func damage(where string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("the file ends in it")
	}
	return fmt.Errorf("%s of a cache of examples: %w: %w", where, err, ps.ErrCorrupt)
}

var (
	errSize     = errors.New("its size cannot be")
	errChecksum = errors.New("its checksum is another")
	errContents = errors.New("its contents do not fit together")
)

// block is a decoded block; it shares memory with what it was decoded from.
type block struct {
	events  int
	keys    []ps.Key
	times   []int64 // nil: all 0
	ends    []int32
	labels  []float32
	weights []float32 // nil: all 1
	values  []float32 // nil: all 1
	fields  []uint16  // nil: there are none
	roles   []byte
}

// sizeOf returns the size of the block, not the last, that begins with head.
func sizeOf(head []byte) (int, error) {
	n := int64(binary.LittleEndian.Uint32(head[4:]))
	k := int64(binary.LittleEndian.Uint32(head[8:]))
	flags := binary.LittleEndian.Uint32(head[12:])
	if n == 0 || flags&^allFlags != 0 {
		return 0, errSize
	}
	size := blockHead + n*(1+4+4) + k*8
	if flags&hasWeights != 0 {
		size += 4 * n
	}
	if flags&hasTimes != 0 {
		size += 8 * n
	}
	if flags&hasValues != 0 {
		size += 4 * k
	}
	if flags&hasFields != 0 {
		size += 2 * k
	}
	if size > blockMax {
		return 0, errSize
	}
	return int(size), nil
}

// decode returns what text, a whole block, holds. Nothing in it is trusted before the
// checksum.
func decode(text []byte) (block, error) {
	if len(text) < blockHead {
		return block{}, errSize
	}
	if size, err := sizeOf(text); err != nil || size != len(text) {
		return block{}, errSize
	}
	if crc32.Checksum(text[4:], castagnoli) != binary.LittleEndian.Uint32(text) {
		return block{}, errChecksum
	}
	n := int(binary.LittleEndian.Uint32(text[4:]))
	k := int(binary.LittleEndian.Uint32(text[8:]))
	flags := binary.LittleEndian.Uint32(text[12:])
	rest := text[blockHead:]
	take := func(size int) []byte {
		taken := rest[:size:size]
		rest = rest[size:]
		return taken
	}
	d := block{events: n, keys: ps.View[ps.Key](take(8 * k))}
	if flags&hasTimes != 0 {
		d.times = ps.View[int64](take(8 * n))
	}
	d.ends = ps.View[int32](take(4 * n))
	d.labels = ps.View[float32](take(4 * n))
	if flags&hasWeights != 0 {
		d.weights = ps.View[float32](take(4 * n))
	}
	if flags&hasValues != 0 {
		d.values = ps.View[float32](take(4 * k))
	}
	if flags&hasFields != 0 {
		d.fields = ps.View[uint16](take(2 * k))
	}
	d.roles = take(n)
	return d, d.valid()
}

// valid returns an error if the parts do not fit together.
func (d *block) valid() error {
	before := int32(0)
	for i, end := range d.ends {
		role := worker.Role(d.roles[i])
		if end < before || role > worker.Skip || role == worker.Skip && end != before {
			return errContents
		}
		before = end
	}
	if int(before) != len(d.keys) {
		return errContents
	}
	return nil
}

// appendTo adds event i to b.
func (d *block) appendTo(b *worker.Batch, i int) {
	from, to := int32(0), d.ends[i]
	if i > 0 {
		from = d.ends[i-1]
	}
	b.Keys = append(b.Keys, d.keys[from:to]...)
	if d.values != nil {
		b.Values = append(b.Values, d.values[from:to]...)
	} else {
		for range to - from {
			b.Values = append(b.Values, 1)
		}
	}
	if d.fields != nil {
		b.Fields = append(b.Fields, d.fields[from:to]...)
	}
	weight, eventTime := float32(1), int64(0)
	if d.weights != nil {
		weight = d.weights[i]
	}
	if d.times != nil {
		eventTime = d.times[i]
	}
	b.Close(worker.Role(d.roles[i]), d.labels[i], weight, eventTime)
}

// decodeLast returns the number of events that a last block says.
func decodeLast(text []byte) (uint64, error) {
	if len(text) != blockHead+8 || !bytes.Equal(text[4:blockHead], make([]byte, blockHead-4)) {
		return 0, errors.New("it was not finished")
	}
	if crc32.Checksum(text[4:], castagnoli) != binary.LittleEndian.Uint32(text) {
		return 0, errChecksum
	}
	return binary.LittleEndian.Uint64(text[blockHead:]), nil
}
