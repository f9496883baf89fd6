package wire

import (
	"fmt"
	"math"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
)

// LookupAsked is a psv1.LookupRequest as its receiver decodes it. Its memory is used again
// by the next message that is received into it, and its keys are aligned copies.
type LookupAsked struct {
	request Request
	lookup  ps.Lookup
	seen    []ps.Boundary
}

// Words returns the look-up, and refuses what the function Lookup refuses. It is valid
// until the next message is received.
func (q *LookupAsked) Words() (*ps.Lookup, error) {
	if q.request.wrong != nil {
		return nil, q.request.wrong
	}
	return &q.lookup, nil
}

// decode reads a message. It returns an error if it is no such message at all.
func (q *LookupAsked) decode(data mem.BufferSlice) error {
	q.request.reset()
	q.seen = q.seen[:0]
	var encoding int32
	var ageMax float64
	r := newReader(data)
	for {
		number, kind, ok := r.next(0)
		if !ok {
			break
		}
		switch {
		case number == 5 && kind == protowire.VarintType:
			encoding = int32(r.varint())
		case number == 6 && kind == protowire.BytesType:
			var b ps.Boundary
			decodeBoundary(&r, r.message(0), &b)
			if len(q.seen) <= ps.ShardsMax { // more are refused anyway, and take memory
				q.seen = append(q.seen, b)
			}
		case number == 7 && kind == protowire.Fixed64Type:
			ageMax = math.Float64frombits(r.fixed64())
		default:
			q.request.decodePullField(&r, number, kind, 0)
		}
	}
	if r.bad != nil {
		return r.bad
	}
	age, err := ageMaxOf(ageMax)
	q.lookup = ps.Lookup{Pull: q.request.pull, Encoding: ps.Encoding(encoding), Seen: q.seen, AgeMax: age}
	q.request.refuse(checkEncoding(psv1.Encoding(encoding)))
	q.request.refuse(err)
	q.request.refuse(checkLookup(&q.lookup))
	return nil
}

func decodeBoundary(r *reader, end int, b *ps.Boundary) {
	for {
		number, kind, ok := r.next(end)
		if !ok {
			return
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			b.Fence = ps.Fence(r.varint())
		case number == 2 && kind == protowire.VarintType:
			b.Seq = r.varint()
		default:
			r.unknown(number, kind, end)
		}
	}
}

func boundarySize(b ps.Boundary) int {
	return sizeOfNumber(1, uint64(b.Fence)) + sizeOfNumber(2, b.Seq)
}

func appendBoundary(b []byte, number protowire.Number, v ps.Boundary) []byte {
	b = appendLength(b, number, boundarySize(v))
	return appendNumber(appendNumber(b, 1, uint64(v.Fence)), 2, v.Seq)
}

// LookingUp returns a request for the reads' rows of l's shards, ascending. L has no tables;
// it and the reads are the caller's again.
func LookingUp(l *ps.Lookup, reads []ps.Read) *Message {
	age := math.Float64bits(milliseconds(l.AgeMax))
	size := pullSize(l.Model, l.Layout, l.Shards, reads) + sizeOfNumber(5, uint64(l.Encoding)) + sizeOfFixed(7, age)
	for _, b := range l.Seen {
		size += sizeOfMessage(6, boundarySize(b))
	}
	buffer := buffers.Get(size)
	b := appendPull((*buffer)[:0], l.Model, l.Layout, l.Shards, reads)
	b = appendNumber(b, 5, uint64(l.Encoding))
	for _, seen := range l.Seen {
		b = appendBoundary(b, 6, seen)
	}
	b = appendFixed(b, 7, age)
	return message(buffer, b, size)
}

// LookedUp returns the psv1.LookupResponse with Values as the rows. The room is gone with
// it; fresh is the caller's again.
func (r *Reply) LookedUp(fresh []ps.Freshness) *Message {
	defer r.Free()
	data := r.tables(r.whole.ReadOnlyData()[r.headers:r.headers])
	size := 0
	for i := range fresh {
		size += sizeOfMessage(2, freshnessSize(&fresh[i]))
	}
	buffer := buffers.Get(size)
	b := (*buffer)[:0]
	for i := range fresh {
		f := &fresh[i]
		b = appendLength(b, 2, freshnessSize(f))
		b = appendBoundary(b, 1, f.Boundary)
		b = appendPacked(b, 2, f.Applied)
		b = appendNumber(b, 3, uint64(f.EventTime))
		b = appendFixed(b, 4, math.Float64bits(milliseconds(f.Age)))
	}
	return &Message{data: append(data, message(buffer, b, size).data...)}
}

func freshnessSize(f *ps.Freshness) int {
	return sizeOfMessage(1, boundarySize(f.Boundary)) + sizeOfField(2, packedSize(f.Applied)) +
		sizeOfNumber(3, uint64(f.EventTime)) + sizeOfFixed(4, math.Float64bits(milliseconds(f.Age)))
}

// LookupAnswer is a psv1.LookupResponse as its receiver decodes it: rows are copied to where
// they belong when it comes.
type LookupAnswer struct {
	to      Destination
	tables  int
	fresh   []ps.Freshness
	offsets []ps.Offset
	wrong   error
}

// Begin makes the reads' rows of the shards, ascending, the place of the rows to come. Rows
// of encoded reads have as many bytes as they travel with.
func (a *LookupAnswer) Begin(shards []ps.ShardID, reads []ps.Read) {
	a.to.Begin(shards, reads)
	a.tables, a.fresh, a.offsets, a.wrong = 0, make([]ps.Freshness, 0, len(shards)), nil, nil
}

// Freshness returns, of each of the shards, how fresh the rows are, once the message has
// come. It wraps ps.ErrCorrupt if the message is not what was asked for; the rows then are
// anything.
func (a *LookupAnswer) Freshness() ([]ps.Freshness, error) {
	switch {
	case a.wrong != nil:
		return nil, fmt.Errorf("the answer to a look-up: %w: %w", ps.ErrCorrupt, a.wrong)
	case a.tables != len(a.to.reads):
		return nil, fmt.Errorf("reply with %d tables to a look-up of %d: %w", a.tables, len(a.to.reads), ps.ErrCorrupt)
	case len(a.fresh) != len(a.to.shards):
		return nil, fmt.Errorf("reply with the freshness of %d shards to a look-up of %d: %w", len(a.fresh), len(a.to.shards), ps.ErrCorrupt)
	}
	return a.fresh, a.to.complete()
}

// decode reads a message. What is wrong with it is said by Freshness.
func (a *LookupAnswer) decode(data mem.BufferSlice) {
	r := newReader(data)
	for {
		number, kind, ok := r.next(0)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.BytesType:
			a.to.copyTable(&r, 0, a.tables)
			a.tables++
		case number == 2 && kind == protowire.BytesType:
			a.decodeFreshness(&r, r.message(0))
		default:
			r.unknown(number, kind, 0)
		}
	}
	a.wrong = r.bad
}

func (a *LookupAnswer) decodeFreshness(r *reader, end int) {
	if len(a.fresh) == len(a.to.shards) {
		r.spoil("freshness of more shards than were asked for")
		return
	}
	var f ps.Freshness
	var age float64
	first := len(a.offsets)
	for {
		number, kind, ok := r.next(end)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.BytesType:
			decodeBoundary(r, r.message(end), &f.Boundary)
		case number == 2 && (kind == protowire.BytesType || kind == protowire.VarintType):
			a.offsets = numbers(r, a.offsets, kind, end)
		case number == 3 && kind == protowire.VarintType:
			f.EventTime = int64(r.varint())
		case number == 4 && kind == protowire.Fixed64Type:
			age = math.Float64frombits(r.fixed64())
		default:
			r.unknown(number, kind, end)
		}
	}
	f.Applied = a.offsets[first:len(a.offsets):len(a.offsets)]
	var err error
	if f.Age, err = duration(age); err != nil {
		r.spoil("the age of a shard's rows is no duration")
	}
	a.fresh = append(a.fresh, f)
}
