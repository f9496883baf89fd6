package wire

import (
	"fmt"
	"slices"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-ml/freshet/ps"
)

// PullsKept is how many numbered pulls of a stream a node keeps.
const PullsKept = 8

// Request is a psv1.ExchangeRequest as its receiver decodes it. Its memory is used
// again by the next message that is received into it, and its keys and values are
// aligned copies: gRPC hands over messages in pieces of 16 KiB, so something has to put
// them together.
type Request struct {
	update ps.Update
	pull   ps.Pull
	which  [2]bool // push, pull: what the message has
	wrong  error   // with its shape, which no codec knows about

	memory arena
	items  []ps.Item
	rows   []ps.Rows
	counts []uint32
	model  string // of the last message
	stream ps.StreamID
}

// Words returns what is asked for, one of the two or both, and refuses what Update and Pull
// refuse. Both are valid until the next message is received.
func (q *Request) Words() (u *ps.Update, p *ps.Pull, err error) {
	if q.wrong != nil {
		return nil, nil, q.wrong
	}
	if q.which[0] {
		u = &q.update
	}
	if q.which[1] {
		p = &q.pull
	}
	if u == nil && p == nil {
		err = fmt.Errorf("a request for neither a push nor a pull: %w", ps.ErrInvalid)
	}
	return u, p, err
}

// decode reads a message. It returns an error if it is no such message at all.
func (q *Request) decode(data mem.BufferSlice) error {
	q.reset()
	r := newReader(data)
	for {
		number, kind, ok := r.next(0)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.BytesType:
			q.which[0] = true
			q.decodePush(&r, r.message(0))
		case number == 2 && kind == protowire.BytesType:
			q.which[1] = true
			q.decodePull(&r, r.message(0))
		default:
			r.unknown(number, kind, 0)
		}
	}
	if r.bad != nil {
		return r.bad
	}
	q.update.Items = q.items
	if q.which[1] {
		q.refuse(checkPull(&q.pull))
	}
	return nil
}

// reset forgets the last message.
func (q *Request) reset() {
	q.update = ps.Update{}
	q.pull = ps.Pull{Shards: q.pull.Shards[:0], Tables: q.pull.Tables[:0]}
	q.which, q.wrong = [2]bool{}, nil
	q.memory.reset()
	q.items, q.rows, q.counts = q.items[:0], q.rows[:0], q.counts[:0]
}

// refuse remembers the first thing that is wrong.
func (q *Request) refuse(err error) {
	if q.wrong == nil {
		q.wrong = err
	}
}

func (q *Request) name(r *reader, end int) string {
	q.model = r.text(q.model, end)
	return q.model
}

func (q *Request) decodePush(r *reader, end int) {
	u := &q.update
	for {
		number, kind, ok := r.next(end)
		if !ok {
			return
		}
		switch {
		case number == 1 && kind == protowire.BytesType:
			u.Model = q.name(r, end)
		case number == 2 && kind == protowire.BytesType:
			q.stream = ps.StreamID(r.text(string(q.stream), end))
			u.Stream = q.stream
		case number == 3 && kind == protowire.Fixed64Type:
			u.Layout = r.fixed64()
		case number == 4 && kind == protowire.VarintType:
			u.Version = r.varint()
		case number == 5 && kind == protowire.VarintType:
			u.Partition = ps.Partition(r.varint())
		case number == 6 && kind == protowire.VarintType:
			u.Generation = ps.Generation(r.varint())
		case number == 7 && kind == protowire.VarintType:
			u.To = ps.Offset(r.varint())
		case number == 8 && kind == protowire.BytesType:
			q.decodeItem(r, r.message(end))
		case number == 9 && kind == protowire.VarintType:
			u.Pulled = r.varint()
		default:
			r.unknown(number, kind, end)
		}
	}
}

func (q *Request) decodeItem(r *reader, end int) {
	var item ps.Item
	first := len(q.rows)
	for {
		number, kind, ok := r.next(end)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			item.Shard = ps.ShardID(r.varint())
		case number == 2 && kind == protowire.VarintType:
			item.From = ps.Offset(r.varint())
		case number == 3 && kind == protowire.VarintType:
			item.Trained = r.varint()
		case number == 4 && kind == protowire.VarintType:
			item.Held = r.varint()
		case number == 5 && kind == protowire.VarintType:
			item.Skipped = r.varint()
		case number == 6 && kind == protowire.BytesType:
			decodeFingerprint(r, r.message(end), &item.Fingerprint)
		case number == 7 && kind == protowire.VarintType:
			item.EventTime = int64(r.varint())
		case number == 8 && kind == protowire.BytesType:
			q.decodeRows(r, r.message(end))
		default:
			r.unknown(number, kind, end)
		}
	}
	item.Rows = q.rows[first:len(q.rows):len(q.rows)]
	q.items = append(q.items, item)
}

func decodeFingerprint(r *reader, end int, f *ps.Fingerprint) {
	for {
		number, kind, ok := r.next(end)
		if !ok {
			return
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			f.Count = r.varint()
		case number == 2 && kind == protowire.Fixed64Type:
			f.Sum = r.fixed64()
		case number == 3 && kind == protowire.Fixed64Type:
			f.Xor = r.fixed64()
		default:
			r.unknown(number, kind, end)
		}
	}
}

func (q *Request) decodeRows(r *reader, end int) {
	var rows ps.Rows
	var packed []byte
	for {
		number, kind, ok := r.next(end)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			rows.Table = ps.TableID(r.varint())
		case number == 2 && kind == protowire.BytesType:
			packed = r.bytes(&q.memory, end)
		case number == 3 && kind == protowire.BytesType:
			rows.Values = r.bytes(&q.memory, end)
		case number == 4 && kind == protowire.BytesType:
			rows.Pulled = r.bytes(&q.memory, end)
		default:
			r.unknown(number, kind, end)
		}
	}
	var err error
	if rows.Keys, err = keys(packed); err != nil {
		q.refuse(fmt.Errorf("table %d of a push: %w", rows.Table, err))
	}
	q.rows = append(q.rows, rows)
}

func (q *Request) decodePull(r *reader, end int) {
	for {
		number, kind, ok := r.next(end)
		if !ok {
			return
		}
		if number == 5 && kind == protowire.VarintType {
			q.pull.Number = r.varint()
			continue
		}
		q.decodePullField(r, number, kind, end)
	}
}

// decodePullField decodes what pulls and look-ups have in common.
func (q *Request) decodePullField(r *reader, number protowire.Number, kind protowire.Type, end int) {
	p := &q.pull
	switch {
	case number == 1 && kind == protowire.BytesType:
		p.Model = q.name(r, end)
	case number == 2 && kind == protowire.Fixed64Type:
		p.Layout = r.fixed64()
	case number == 3 && (kind == protowire.BytesType || kind == protowire.VarintType):
		p.Shards = numbers(r, p.Shards, kind, end)
	case number == 4 && kind == protowire.BytesType:
		q.decodeTable(r, r.message(end))
	default:
		r.unknown(number, kind, end)
	}
}

func (q *Request) decodeTable(r *reader, end int) {
	if len(q.pull.Tables) > ps.TablesMax { // as many are refused anyway, and take memory
		r.skip(r.left - end)
		return
	}
	var table ps.TableKeys
	var packed []byte
	first := len(q.counts)
	for {
		number, kind, ok := r.next(end)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			table.Table = ps.TableID(r.varint())
		case number == 2 && (kind == protowire.BytesType || kind == protowire.VarintType):
			q.counts = numbers(r, q.counts, kind, end)
		case number == 3 && kind == protowire.BytesType:
			packed = r.bytes(&q.memory, end)
		default:
			r.unknown(number, kind, end)
		}
	}
	table.Counts = q.counts[first:len(q.counts):len(q.counts)]
	var err error
	if table.Keys, err = keys(packed); err != nil {
		q.refuse(fmt.Errorf("table %d of a pull: %w", table.Table, err))
	}
	q.pull.Tables = append(q.pull.Tables, table)
}

// Pushing returns a request to push those of an update's items that stand at the given
// positions. Items of the known shards, ascending, refer to the keys of the update's pull;
// the others have theirs. The request holds nothing of the update's memory.
func Pushing(u *ps.Update, positions []int, known []ps.ShardID) *Message {
	refers := func(item *ps.Item) bool {
		_, found := slices.BinarySearch(known, item.Shard)
		return found
	}
	pulled := u.Pulled
	if len(known) == 0 {
		pulled = 0
	}
	size := sizeOfNumber(9, pulled)
	for _, i := range positions {
		size += sizeOfMessage(8, itemSize(&u.Items[i], refers(&u.Items[i])))
	}
	size += sizeOfField(1, len(u.Model)) + sizeOfField(2, len(u.Stream)) + sizeOfFixed(3, u.Layout) +
		sizeOfNumber(4, u.Version) + sizeOfNumber(5, uint64(u.Partition)) + sizeOfNumber(6, uint64(u.Generation)) + sizeOfNumber(7, uint64(u.To))
	whole := sizeOfMessage(1, size)
	buffer := buffers.Get(whole)
	b := appendLength((*buffer)[:0], 1, size)
	b = appendField(b, 1, u.Model)
	b = appendField(b, 2, string(u.Stream))
	b = appendFixed(b, 3, u.Layout)
	b = appendNumber(b, 4, u.Version)
	b = appendNumber(b, 5, uint64(u.Partition))
	b = appendNumber(b, 6, uint64(u.Generation))
	b = appendNumber(b, 7, uint64(u.To))
	for _, i := range positions {
		b = appendItem(b, &u.Items[i], refers(&u.Items[i]))
	}
	b = appendNumber(b, 9, pulled)
	return message(buffer, b, whole)
}

func itemSize(item *ps.Item, refers bool) int {
	size := sizeOfNumber(1, uint64(item.Shard)) + sizeOfNumber(2, uint64(item.From)) + sizeOfNumber(3, item.Trained) +
		sizeOfNumber(4, item.Held) + sizeOfNumber(5, item.Skipped) + sizeOfNumber(7, uint64(item.EventTime))
	if item.Fingerprint != (ps.Fingerprint{}) {
		size += sizeOfMessage(6, fingerprintSize(item.Fingerprint))
	}
	for i := range item.Rows {
		size += sizeOfMessage(8, rowsSize(&item.Rows[i], refers))
	}
	return size
}

func fingerprintSize(f ps.Fingerprint) int {
	return sizeOfNumber(1, f.Count) + sizeOfFixed(2, f.Sum) + sizeOfFixed(3, f.Xor)
}

// namesOf returns the two forms of rows' keys, of which one is empty.
func namesOf(rows *ps.Rows, refers bool) (keys, pulled []byte) {
	if refers && len(rows.Pulled) > 0 {
		return nil, rows.Pulled
	}
	return ps.Bytes(rows.Keys), nil
}

func rowsSize(rows *ps.Rows, refers bool) int {
	keys, pulled := namesOf(rows, refers)
	return sizeOfNumber(1, uint64(rows.Table)) + sizeOfField(2, len(keys)) + sizeOfField(3, len(rows.Values)) + sizeOfField(4, len(pulled))
}

func appendItem(b []byte, item *ps.Item, refers bool) []byte {
	b = appendLength(b, 8, itemSize(item, refers))
	b = appendNumber(b, 1, uint64(item.Shard))
	b = appendNumber(b, 2, uint64(item.From))
	b = appendNumber(b, 3, item.Trained)
	b = appendNumber(b, 4, item.Held)
	b = appendNumber(b, 5, item.Skipped)
	if f := item.Fingerprint; f != (ps.Fingerprint{}) {
		b = appendLength(b, 6, fingerprintSize(f))
		b = appendNumber(b, 1, f.Count)
		b = appendFixed(b, 2, f.Sum)
		b = appendFixed(b, 3, f.Xor)
	}
	b = appendNumber(b, 7, uint64(item.EventTime))
	for i := range item.Rows {
		rows := &item.Rows[i]
		keys, pulled := namesOf(rows, refers)
		b = appendLength(b, 8, rowsSize(rows, refers))
		b = appendNumber(b, 1, uint64(rows.Table))
		b = appendField(b, 2, keys)
		b = appendField(b, 3, rows.Values)
		b = appendField(b, 4, pulled)
	}
	return b
}

// Pulling returns a request, with a number or 0, to pull the reads' rows of the given
// shards, ascending. It holds nothing of the reads' memory.
func Pulling(model string, layout, number uint64, shards []ps.ShardID, reads []ps.Read) *Message {
	size := pullSize(model, layout, shards, reads) + sizeOfNumber(5, number)
	whole := sizeOfMessage(2, size)
	buffer := buffers.Get(whole)
	b := appendLength((*buffer)[:0], 2, size)
	b = appendPull(b, model, layout, shards, reads)
	b = appendNumber(b, 5, number)
	return message(buffer, b, whole)
}

// pullSize returns the size of what pulls and look-ups have in common.
func pullSize(model string, layout uint64, shards []ps.ShardID, reads []ps.Read) int {
	size := sizeOfField(1, len(model)) + sizeOfFixed(2, layout) + sizeOfField(3, packedSize(shards))
	for i := range reads {
		size += sizeOfMessage(4, tableSize(&reads[i], shards))
	}
	return size
}

// packedSize returns the size of packed numbers.
func packedSize[T ~uint32 | ~uint64](numbers []T) int {
	size := 0
	for _, n := range numbers {
		size += protowire.SizeVarint(uint64(n))
	}
	return size
}

// appendPacked appends a repeated field of numbers.
func appendPacked[T ~uint32 | ~uint64](b []byte, number protowire.Number, numbers []T) []byte {
	if len(numbers) == 0 {
		return b
	}
	b = appendLength(b, number, packedSize(numbers))
	for _, n := range numbers {
		b = protowire.AppendVarint(b, uint64(n))
	}
	return b
}

func appendPull(b []byte, model string, layout uint64, shards []ps.ShardID, reads []ps.Read) []byte {
	b = appendField(b, 1, model)
	b = appendFixed(b, 2, layout)
	b = appendPacked(b, 3, shards)
	for i := range reads {
		b = appendTable(b, &reads[i], shards)
	}
	return b
}

// countsOf returns how many keys a read has of the shards, and the size of the counts.
func countsOf(read *ps.Read, shards []ps.ShardID) (total, packed int) {
	for _, s := range shards {
		from, to := read.Group.Shard(s)
		total += to - from
		packed += protowire.SizeVarint(uint64(to - from))
	}
	return total, packed
}

func tableSize(read *ps.Read, shards []ps.ShardID) int {
	total, packed := countsOf(read, shards)
	return sizeOfNumber(1, uint64(read.Table)) + sizeOfField(2, packed) + sizeOfField(3, 8*total)
}

func appendTable(b []byte, read *ps.Read, shards []ps.ShardID) []byte {
	total, packed := countsOf(read, shards)
	b = appendLength(b, 4, tableSize(read, shards))
	b = appendNumber(b, 1, uint64(read.Table))
	if packed > 0 {
		b = appendLength(b, 2, packed)
	}
	for _, s := range shards {
		from, to := read.Group.Shard(s)
		b = protowire.AppendVarint(b, uint64(to-from))
	}
	if total > 0 {
		b = appendLength(b, 3, 8*total)
	}
	for _, s := range shards {
		from, to := read.Group.Shard(s)
		b = append(b, ps.Bytes(read.Group.Keys[from:to])...)
	}
	return b
}

// message returns what was appended to a buffer of the pool, which has to have had room
// for it.
func message(buffer *[]byte, b []byte, size int) *Message {
	if len(b) != size {
		panic(fmt.Sprintf("wire: a message of %d bytes, computed were %d", len(b), size))
	}
	return &Message{data: mem.BufferSlice{mem.NewBuffer(buffer, &buffers)}}
}

// Sizes and encodings of fields. A number that is 0 and an empty bytes field that is not
// repeated are left out, as protobuf does.

func sizeOfNumber(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}

func sizeOfMessage(number protowire.Number, n int) int {
	return protowire.SizeTag(number) + protowire.SizeBytes(n)
}

func sizeOfField(number protowire.Number, n int) int {
	if n == 0 {
		return 0
	}
	return sizeOfMessage(number, n)
}

func appendNumber(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func sizeOfFixed(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + 8
}

func appendFixed(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), v)
}

// appendLength appends the tag and length of n bytes that follow.
func appendLength(b []byte, number protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(n))
}

func appendField[T []byte | string](b []byte, number protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	return append(appendLength(b, number, len(v)), v...)
}
