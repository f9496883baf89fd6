// These tests make files whose checksums are right and whose contents are not, for
// which they need the layout of a block.

package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// reseal makes the checksums, the hash and the lengths of object right, as far as
// it has blocks, and returns what a manifest would say.
func reseal(object []byte, f File) File {
	sum := sha256.New()
	take := func(crc uint32) { sum.Write(binary.LittleEndian.AppendUint32(nil, crc)) }
	f.Bytes = int64(len(object))
	if len(object) < openBytes+endBytes {
		return f
	}
	crc := crc32.Checksum(object[:12], castagnoli)
	binary.LittleEndian.PutUint32(object[12:], crc)
	take(crc)
	end := object[len(object)-endBytes:]
	blocks := object[openBytes : len(object)-endBytes]
	for len(blocks) >= blockHeadBytes {
		n := int(binary.LittleEndian.Uint32(blocks[4:]))
		if n > len(blocks)-blockHeadBytes {
			break
		}
		crc := crc32.Update(crc32.Checksum(blocks[:12], castagnoli), castagnoli, blocks[blockHeadBytes:blockHeadBytes+n])
		binary.LittleEndian.PutUint32(blocks[12:], crc)
		take(crc)
		blocks = blocks[blockHeadBytes+n:]
	}
	sum.Sum(f.Hash[:0])
	copy(end, f.Hash[:])
	binary.LittleEndian.PutUint64(end[32:], uint64(len(object)))
	binary.LittleEndian.PutUint32(end[40:], crc32.Checksum(end[:40], castagnoli))
	return f
}

// tiny is a file of two blocks of rows, and where each of its blocks begins.
func tiny(tb testing.TB) (object []byte, f File, starts []int) {
	h := Head{
		Model: "m", Shards: 1, Seq: 9, Partitions: make([]ps.Progress, 1),
		Tables: []Table{{Kind: ps.Float32, Stride: 20}, {Kind: ps.Float32, Stride: 20}},
	}
	rows := bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 2)
	n := &nowhere{keep: true}
	w, err := Create(tb.Context(), &Bucket{store: n}, Name(&h, 1), h)
	if err == nil {
		err = errors.Join(w.Rows(0, 20, rows), w.Rows(1, 20, rows))
	}
	if err == nil {
		f, err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	object = n.kept.Bytes()
	for at := openBytes; at < len(object)-endBytes; at += blockHeadBytes + int(binary.LittleEndian.Uint32(object[at+4:])) {
		starts = append(starts, at)
	}
	return object, f, starts
}

func readObject(tb testing.TB, object []byte, f File) (opened bool, err error) {
	n := &nowhere{}
	n.kept.Write(object)
	r, err := Open(tb.Context(), &Bucket{store: n}, f)
	if err != nil {
		return false, err
	}
	defer r.Close()
	for err == nil {
		_, _, _, err = r.Next()
	}
	if err == io.EOF {
		err = nil
	}
	return true, err
}

func TestRightChecksumsOverWrongContentsAreNotEnough(t *testing.T) {
	object, f, starts := tiny(t)
	if len(starts) != 4 {
		t.Fatalf("the file has blocks at %v, want a head, two of rows and a footer", starts)
	}
	if _, err := readObject(t, object, reseal(object, f)); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	first, second, footer := starts[1], starts[2], starts[3]
	for what, c := range map[string]struct {
		at   int
		to   byte
		want string
	}{
		"a block's number":       {second + 8, 7, "where block"},
		"an unknown section":     {second, 9, "unknown section"},
		"a second head":          {first, byte(sectionHead), "where rows belong"},
		"a tombstone in full":    {first, byte(sectionTombstones), "where rows belong"},
		"a table too many":       {second + 2, 2, "table 2 of 2"},
		"tables backwards":       {first + 2, 1, "footer says"},
		"a seq of the future":    {second + blockHeadBytes + 8, 10, "seq"},
		"rows in the footer":     {footer + blockHeadBytes + footerBytes, 3, "footer says"},
		"tombstones there":       {footer + blockHeadBytes + footerBytes + 8, 1, "footer says"},
		"blocks in the footer":   {footer + blockHeadBytes, 9, "footer counts"},
		"tables in the footer":   {footer + blockHeadBytes + 4, 1, "footer counts"},
		"bytes in the footer":    {footer + blockHeadBytes + 8, 0, "footer counts"},
		"a newer format":         {8, 2, "a newer one wrote it"},
		"a head that is no JSON": {openBytes + blockHeadBytes + headLengthBytes, '[', "head:"},
		"a head too short":       {openBytes + blockHeadBytes, 1, "of a head of"},
		"an unknown field":       {openBytes + blockHeadBytes + headLengthBytes + 2, 'x', "unknown field"},
	} {
		changed := bytes.Clone(object)
		changed[c.at] = c.to
		_, err := readObject(t, changed, reseal(changed, f))
		if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrCorrupt and %q", what, err, c.want)
		}
	}
	swapped := append(bytes.Clone(object[:first]), object[second:footer]...)
	swapped = append(append(swapped, object[first:second]...), object[footer:]...)
	if _, err := readObject(t, swapped, reseal(swapped, f)); !errors.Is(err, ps.ErrCorrupt) {
		t.Errorf("two blocks swapped: %v, want ErrCorrupt", err)
	}
}

func TestAWrongLengthIsNoticedAtOnce(t *testing.T) {
	object, f, _ := tiny(t)
	for _, c := range [][]byte{object[:len(object)-1], append(bytes.Clone(object), 0)} {
		if opened, err := readObject(t, c, f); opened || !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%d bytes of %d: opened %v, %v; want ErrCorrupt from Open", len(c), len(object), opened, err)
		}
	}
}

// FuzzResealed gets past the checksums, to the checks behind them.
func FuzzResealed(f *testing.F) {
	object, file, _ := tiny(f)
	f.Add(object)
	f.Fuzz(func(t *testing.T, object []byte) {
		object = bytes.Clone(object)
		if _, err := readObject(t, object, reseal(object, file)); err != nil && !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%d bytes gave %v, want ErrCorrupt or the file", len(object), err)
		}
	})
}
