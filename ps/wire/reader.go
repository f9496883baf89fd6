package wire

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-ml/freshet/ps"
)

// reader reads protobuf from a message as it came from the network, in pieces. The
// first thing that is wrong makes it bad; from then on it reads zeros and has nothing
// left.
type reader struct {
	pieces mem.BufferSlice // behind at
	at     []byte
	left   int // bytes, all in all
	bad    error
}

func newReader(data mem.BufferSlice) reader { return reader{pieces: data, left: data.Len()} }

// spoil makes the reader bad.
func (r *reader) spoil(why string) {
	if r.bad == nil {
		r.bad = fmt.Errorf("%s: %w", why, ps.ErrInvalid)
	}
	r.pieces, r.at, r.left = nil, nil, 0
}

// fill makes at begin with the next byte. There has to be one.
func (r *reader) fill() {
	for len(r.at) == 0 {
		r.at, r.pieces = r.pieces[0].ReadOnlyData(), r.pieces[1:]
	}
}

func (r *reader) varint() uint64 {
	if len(r.at) > 0 && r.at[0] < 0x80 {
		v := r.at[0]
		r.at, r.left = r.at[1:], r.left-1
		return uint64(v)
	}
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		if r.left == 0 {
			break
		}
		r.fill()
		b := r.at[0]
		r.at, r.left = r.at[1:], r.left-1
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.spoil("a number is cut off or too large")
	return 0
}

func (r *reader) fixed64() uint64 {
	var b [8]byte
	if r.left < len(b) {
		r.spoil("a number is cut off")
		return 0
	}
	r.copy(b[:])
	v, _ := protowire.ConsumeFixed64(b[:])
	return v
}

// copy reads len(dst) bytes, which have to be left.
func (r *reader) copy(dst []byte) {
	r.left -= len(dst)
	for len(dst) > 0 {
		r.fill()
		n := copy(dst, r.at)
		dst, r.at = dst[n:], r.at[n:]
	}
}

// skip passes over n bytes, which have to be left.
func (r *reader) skip(n int) {
	r.left -= n
	for n > 0 {
		r.fill()
		k := min(n, len(r.at))
		n, r.at = n-k, r.at[k:]
	}
}

// length reads the length of what follows, which ends before the last end bytes.
func (r *reader) length(end int) int {
	n := r.varint()
	if r.left < end || n > uint64(r.left-end) {
		r.spoil("a field is cut off")
		return 0
	}
	return int(n)
}

// message reads the length of an embedded message and returns what will be left behind
// it, for next.
func (r *reader) message(end int) int {
	n := r.length(end)
	return r.left - n
}

// next reads the tag of the next field of a message that ends when end bytes are left.
// It returns false behind the last.
func (r *reader) next(end int) (protowire.Number, protowire.Type, bool) {
	if r.left < end {
		r.spoil("a field reaches beyond its message")
	}
	if r.left <= end || r.bad != nil {
		return 0, 0, false
	}
	tag := r.varint()
	number, kind := protowire.DecodeTag(tag)
	if r.bad == nil && (number < protowire.MinValidNumber || number > protowire.MaxValidNumber || r.left < end) {
		r.spoil("a field without a number")
	}
	return number, kind, r.bad == nil
}

// groupsMax is how deep unknown groups may be nested in one another.
const groupsMax = 100

// unknown passes over a field whose tag was read: a later version's, or one that is not
// of the kind that it should have.
func (r *reader) unknown(number protowire.Number, kind protowire.Type, end int) {
	r.unknownWithin(number, kind, end, groupsMax)
}

func (r *reader) unknownWithin(number protowire.Number, kind protowire.Type, end, depth int) {
	switch kind {
	case protowire.VarintType:
		r.varint()
	case protowire.Fixed64Type:
		r.fixed64()
	case protowire.Fixed32Type:
		if r.left-end < 4 {
			r.spoil("a number is cut off")
			return
		}
		r.skip(4)
	case protowire.BytesType:
		r.skip(r.length(end))
	case protowire.StartGroupType:
		for depth > 0 {
			inner, k, ok := r.next(end)
			if !ok {
				break
			}
			if k == protowire.EndGroupType {
				if inner == number {
					return
				}
				break
			}
			r.unknownWithin(inner, k, end, depth-1)
		}
		r.spoil("a group without an end")
	default:
		r.spoil("a field of no known kind")
	}
}

// numbers appends the elements of a repeated field of numbers, packed or one of them.
func numbers[T ~uint32 | ~uint64](r *reader, to []T, kind protowire.Type, end int) []T {
	if kind == protowire.VarintType {
		return append(to, T(r.varint()))
	}
	for behind := r.message(end); r.left > behind; {
		to = append(to, T(r.varint()))
		if r.left < behind {
			r.spoil("a field reaches beyond its message")
		}
	}
	return to
}

// arena is memory that one message's keys and values are copied to, aligned for any
// element. It is used again for the next message.
type arena struct {
	words []uint64
	used  int
	want  int // words that this message has taken or would have
}

// arenaMax is the most memory that is kept between messages, in words.
const arenaMax = 4 << 20 / 8

// reset makes all of it free, and enough if it is known how much the next needs.
func (a *arena) reset() {
	if a.want > len(a.words) && a.want <= arenaMax {
		a.words = make([]uint64, a.want+a.want/8)
	}
	if len(a.words) > arenaMax {
		a.words = nil
	}
	a.used, a.want = 0, 0
}

// take returns n bytes, which hold anything.
func (a *arena) take(n int) []byte {
	size := (n + 7) / 8
	a.want += size
	if size > len(a.words)-a.used {
		return ps.Bytes(make([]uint64, size))[:n]
	}
	words := a.words[a.used : a.used+size : a.used+size]
	a.used += size
	return ps.Bytes(words)[:n]
}

// bytes reads a field of bytes into the arena.
func (r *reader) bytes(a *arena, end int) []byte {
	n := r.length(end)
	if n == 0 {
		return nil
	}
	b := a.take(n)
	r.copy(b)
	return b
}

// text reads a string. What was is returned if it reads the same, so that a name that
// comes with every message is not allocated with every message.
func (r *reader) text(was string, end int) string {
	n := r.length(end)
	if n <= len(r.at) {
		b := r.at[:n]
		r.at, r.left = r.at[n:], r.left-n
		return r.valid(was, b)
	}
	b := make([]byte, n)
	r.copy(b)
	return r.valid(was, b)
}

func (r *reader) valid(was string, b []byte) string {
	if string(b) == was {
		return was
	}
	if !utf8.Valid(b) {
		r.spoil("a text is not UTF-8")
		return ""
	}
	return string(b)
}
