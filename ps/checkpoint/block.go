package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/freshet-ml/freshet/ps"
)

// What follows reaches disk: see FORMAT.md.
const (
	// magic is no text in any encoding, and shows a transfer that changed line ends.
	magic   = "\x89FRSNAP\n"
	endMark = "\nPANSRF\x89"

	formatVersion = 1

	openBytes        = 16 // magic, version, checksum
	blockHeadBytes   = 16
	endBytes         = 52
	payloadBytesMax  = 64 << 10 // one checksum's reach, and what is read at a time
	headBytesMax     = 16 << 20 // the progress of some 50,000 partitions
	headLengthBytes  = 4
	footerBytes      = 16 // and per table
	footerTableBytes = 16
)

// section says what a block holds. Sections follow each other in this order.
type section uint8

const (
	sectionHead section = iota + 1
	sectionRows
	sectionTombstones
	sectionFooter
)

func (s section) String() string {
	switch s {
	case sectionHead:
		return "head"
	case sectionRows:
		return "rows"
	case sectionTombstones:
		return "tombstones"
	case sectionFooter:
		return "footer"
	}
	return fmt.Sprintf("section(%d)", uint8(s))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// blockHead precedes every payload.
type blockHead struct {
	section section
	table   ps.TableID
	length  int
	index   uint32 // of the block in its file
}

// seal writes the head of the block whose payload is block[blockHeadBytes:] and
// returns the block's checksum, which covers both.
func (h blockHead) seal(block []byte) uint32 {
	block[0] = byte(h.section)
	block[1] = 0
	binary.LittleEndian.PutUint16(block[2:], uint16(h.table))
	binary.LittleEndian.PutUint32(block[4:], uint32(h.length))
	binary.LittleEndian.PutUint32(block[8:], h.index)
	sum := crc32.Update(crc32.Checksum(block[:12], castagnoli), castagnoli, block[blockHeadBytes:])
	binary.LittleEndian.PutUint32(block[12:], sum)
	return sum
}

// parseBlockHead reads a head whose checksum nobody has looked at yet. All that
// may be done with it is to read as many bytes as it says, which are bounded.
func parseBlockHead(b []byte) (blockHead, error) {
	h := blockHead{
		section: section(b[0]),
		table:   ps.TableID(binary.LittleEndian.Uint16(b[2:])),
		length:  int(binary.LittleEndian.Uint32(b[4:])),
		index:   binary.LittleEndian.Uint32(b[8:]),
	}
	if h.section < sectionHead || h.section > sectionFooter || b[1] != 0 {
		return h, fmt.Errorf("block of an unknown section %d,%d", b[0], b[1])
	}
	if h.length == 0 || h.length > StrideMax {
		return h, fmt.Errorf("block of %d bytes", h.length)
	}
	return h, nil
}

// storedHead is the JSON of a Head. Hashes and sums exceed what many readers of
// JSON keep exactly, so they are strings.
type storedHead struct {
	Model      string           `json:"model"`
	Version    uint64           `json:"version"`
	Layout     uint64           `json:"layout,string"`
	Stream     ps.StreamID      `json:"stream"`
	Shard      ps.ShardID       `json:"shard"`
	Shards     int              `json:"shards"`
	Fence      ps.Fence         `json:"fence"`
	Seq        uint64           `json:"seq"`
	Since      uint64           `json:"since"`
	Stored     uint64           `json:"stored"`
	Parent     *Ref             `json:"parent,omitempty"`
	Partitions []storedProgress `json:"partitions"`
	Tables     []storedTable    `json:"tables"`
}

// storedTable keeps the kind as its number, whatever JSON ps.Kind has elsewhere.
type storedTable struct {
	Kind   uint8 `json:"kind"`
	Stride int   `json:"stride"`
}

type storedProgress struct {
	Applied   ps.Offset `json:"applied"`
	Trained   uint64    `json:"trained"`
	Held      uint64    `json:"held"`
	Skipped   uint64    `json:"skipped"`
	Count     uint64    `json:"count"`
	Sum       uint64    `json:"sum,string"`
	Xor       uint64    `json:"xor,string"`
	EventTime int64     `json:"event_time"`
}

func (h *Head) encode() ([]byte, error) {
	s := storedHead{
		Model: h.Model, Version: h.Version, Layout: h.Layout, Stream: h.Stream, Shard: h.Shard, Shards: h.Shards,
		Fence: h.Fence, Seq: h.Seq, Since: h.Since, Stored: h.Stored,
	}
	if !h.Full() {
		s.Parent = &h.Parent
	}
	for _, p := range h.Partitions {
		s.Partitions = append(s.Partitions, storedProgress{
			Applied: p.Applied, Trained: p.Trained, Held: p.Held, Skipped: p.Skipped,
			Count: p.Fingerprint.Count, Sum: p.Fingerprint.Sum, Xor: p.Fingerprint.Xor, EventTime: p.EventTime,
		})
	}
	for _, t := range h.Tables {
		s.Tables = append(s.Tables, storedTable{Kind: uint8(t.Kind), Stride: t.Stride})
	}
	doc, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ps.ErrInvalid, err)
	}
	if len(doc) > headBytesMax {
		return nil, fmt.Errorf("head of %d bytes, at most %d are taken: %w", len(doc), headBytesMax, ps.ErrTooLarge)
	}
	return doc, nil
}

// decodeHead reads what encode wrote.
func decodeHead(doc []byte) (Head, error) {
	var s storedHead
	if err := decodeStrictly(doc, &s); err != nil {
		return Head{}, err
	}
	h := Head{
		Model: s.Model, Version: s.Version, Layout: s.Layout, Stream: s.Stream, Shard: s.Shard, Shards: s.Shards,
		Fence: s.Fence, Seq: s.Seq, Since: s.Since, Stored: s.Stored,
	}
	if s.Parent != nil {
		h.Parent = *s.Parent
	}
	for _, p := range s.Partitions {
		h.Partitions = append(h.Partitions, ps.Progress{
			Applied: p.Applied, Trained: p.Trained, Held: p.Held, Skipped: p.Skipped,
			Fingerprint: ps.Fingerprint{Count: p.Count, Sum: p.Sum, Xor: p.Xor}, EventTime: p.EventTime,
		})
	}
	for _, t := range s.Tables {
		h.Tables = append(h.Tables, Table{Kind: ps.Kind(t.Kind), Stride: t.Stride})
	}
	return h, h.Valid()
}

// checkRows reports the first of whole records that cannot be in a file with head
// h: its key is another shard's or its seq is not above the parent's and up to the
// file's.
func checkRows(h *Head, stride int, records []byte) error {
	for at := 0; at < len(records); at += stride {
		key := ps.Key(binary.LittleEndian.Uint64(records[at:]))
		seq := binary.LittleEndian.Uint64(records[at+8:])
		if seq <= h.Since || seq > h.Seq || ps.ShardOf(key, h.Shards) != h.Shard {
			return fmt.Errorf("row %d of %d has key %#016x and seq %d: want a key of shard %d and a seq in (%d,%d]",
				at/stride, len(records)/stride, uint64(key), seq, h.Shard, h.Since, h.Seq)
		}
	}
	return nil
}
