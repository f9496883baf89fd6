package wire

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/freshet-ml/freshet/ps"
)

// Reply is room for rows in a message that is to be sent: whoever reads the rows
// writes them where they leave from. It can be used again after Message.
type Reply struct {
	// Values is, for each table, as many bytes as were asked for, aligned for any
	// element. They hold anything.
	Values [][]byte

	whole   mem.Buffer
	headers int // where the headers are in whole
	starts  []int
}

// headerMax is the most bytes that stand before a table's values.
const headerMax = 1 + 10

// Room makes Values of the given sizes in bytes. It has to be followed by Message or
// Free.
func (r *Reply) Room(sizes []int) {
	total := 0
	r.starts = r.starts[:0]
	for _, n := range sizes {
		r.starts = append(r.starts, total)
		total += (n + 7) &^ 7
	}
	r.headers = total
	buffer := buffers.Get(total + (len(sizes)+2)*headerMax)
	b := *buffer
	r.Values = r.Values[:0]
	for i, n := range sizes {
		at := r.starts[i]
		r.Values = append(r.Values, b[at:at+n:at+n])
	}
	r.whole = mem.NewBuffer(buffer, &buffers)
}

// Free gives the room back.
func (r *Reply) Free() {
	r.whole.Free()
	r.whole = nil
	clear(r.Values)
}

// Message returns the psv1.ExchangeResponse with Values as a part of a pull's rows. More
// says that another follows. The room is gone with it.
func (r *Reply) Message(more bool) *Message {
	defer r.Free()
	size := 0
	for _, v := range r.Values {
		size += sizeOfMessage(1, len(v))
	}
	b := r.whole.ReadOnlyData()[r.headers:r.headers]
	if more {
		b = appendNumber(b, 3, 1)
	}
	return &Message{data: r.tables(appendLength(b, 2, size))}
}

// tables returns b, which begins where the headers do, and Values behind it, each as a
// field of bytes.
func (r *Reply) tables(b []byte) mem.BufferSlice {
	data := make(mem.BufferSlice, 0, 2*len(r.Values)+1)
	from := 0
	for i, v := range r.Values {
		b = appendLength(b, 1, len(v))
		data = append(data, r.whole.Slice(r.headers+from, r.headers+len(b)))
		from = len(b)
		if len(v) > 0 {
			data = append(data, r.whole.Slice(r.starts[i], r.starts[i]+len(v)))
		}
	}
	if from < len(b) { // no tables
		data = append(data, r.whole.Slice(r.headers+from, r.headers+len(b)))
	}
	return data
}

// Refused returns the psv1.ExchangeResponse to a pull that is refused for err.
func Refused(err error) *Message {
	reason, text := Reason(err), err.Error()
	size := sizeOfField(4, len(reason)) + sizeOfField(5, len(text))
	buffer := buffers.Get(size)
	b := appendField((*buffer)[:0], 4, reason)
	return message(buffer, appendField(b, 5, text), size)
}

// Answered returns the psv1.ExchangeResponse to a push.
func Answered(answers []ps.Answer) *Message {
	size := 0
	for i := range answers {
		size += sizeOfMessage(1, answerSize(&answers[i]))
	}
	whole := sizeOfMessage(1, size)
	buffer := buffers.Get(whole)
	b := appendLength((*buffer)[:0], 1, size)
	for i := range answers {
		a := &answers[i]
		b = appendLength(b, 1, answerSize(a))
		b = appendNumber(b, 1, uint64(a.Shard))
		b = appendNumber(b, 2, uint64(a.Outcome))
		b = appendNumber(b, 3, uint64(a.Applied))
		if a.Err != nil {
			b = appendField(b, 4, Reason(a.Err))
			b = appendField(b, 5, a.Err.Error())
		}
	}
	return message(buffer, b, whole)
}

func answerSize(a *ps.Answer) int {
	size := sizeOfNumber(1, uint64(a.Shard)) + sizeOfNumber(2, uint64(a.Outcome)) + sizeOfNumber(3, uint64(a.Applied))
	if a.Err != nil {
		size += sizeOfField(4, len(Reason(a.Err))) + sizeOfField(5, len(a.Err.Error()))
	}
	return size
}

// Response is a psv1.ExchangeResponse as its receiver holds it, encoded as it came, until
// it knows where the rows belong. It has to be freed before another is received into it.
type Response struct{ data mem.BufferSlice }

// hold keeps the message.
func (r *Response) hold(data mem.BufferSlice) {
	data.Ref()
	r.data = data
}

// Free gives the message's memory back.
func (r *Response) Free() {
	r.data.Free()
	r.data = nil
}

// Answers appends the answers that the message has, if it answers a push, and refuses what
// the function Answers refuses. The caller knows what was asked: a message that answers a
// pull wraps ps.ErrInvalid. One that cannot be read wraps nothing.
func (r *Response) Answers(to []ps.Answer) ([]ps.Answer, error) {
	in := newReader(r.data)
	pushed := false
	for {
		number, kind, ok := in.next(0)
		if !ok {
			break
		}
		if number != 1 || kind != protowire.BytesType {
			in.unknown(number, kind, 0)
			continue
		}
		pushed = true
		end := in.message(0)
		for {
			number, kind, ok := in.next(end)
			if !ok {
				break
			}
			if number != 1 || kind != protowire.BytesType {
				in.unknown(number, kind, end)
				continue
			}
			answer, err := decodeAnswer(&in, in.message(end))
			if err != nil {
				return to, err
			}
			to = append(to, answer)
		}
	}
	switch {
	case in.bad != nil: // damaged on its way: the condition is nobody's who could mend it
		return to, fmt.Errorf("the answer to a push cannot be read: %v", in.bad) //nolint:errorlint // so that nothing is made of it
	case !pushed:
		return to, fmt.Errorf("the answer to a push has none: %w", ps.ErrInvalid)
	}
	return to, nil
}

func decodeAnswer(r *reader, end int) (ps.Answer, error) {
	var a ps.Answer
	var outcome int32
	var reason, text string
	for {
		number, kind, ok := r.next(end)
		if !ok {
			break
		}
		switch {
		case number == 1 && kind == protowire.VarintType:
			a.Shard = ps.ShardID(r.varint())
		case number == 2 && kind == protowire.VarintType:
			outcome = int32(r.varint())
		case number == 3 && kind == protowire.VarintType:
			a.Applied = ps.Offset(r.varint())
		case number == 4 && kind == protowire.BytesType:
			reason = r.text("", end)
		case number == 5 && kind == protowire.BytesType:
			text = r.text("", end)
		default:
			r.unknown(number, kind, end)
		}
	}
	a.Outcome = ps.Outcome(outcome)
	switch {
	case outcome < 0 || outcome > int32(ps.Overlap):
		return a, fmt.Errorf("shard %d answered with unknown outcome %d: %w", a.Shard, outcome, ps.ErrInvalid)
	case a.Outcome == ps.Refused:
		a.Err = Refusal(reason, text)
	}
	return a, nil
}

// Rows copies the rows that the message has to where they belong. More says that the pull's
// next message is to follow. A pull that was refused is refused: an error that wraps the
// condition; any other error wraps ps.ErrCorrupt. Without a destination the rows are dropped.
func (r *Response) Rows(to *Destination) (more bool, refused, err error) {
	in := newReader(r.data)
	table, pulled := 0, false
	var reason, text string
	for {
		number, kind, ok := in.next(0)
		if !ok {
			break
		}
		switch {
		case number == 2 && kind == protowire.BytesType:
			pulled = true
			if to == nil {
				in.unknown(number, kind, 0)
				continue
			}
			table = to.copyTables(&in, in.message(0), table)
		case number == 3 && kind == protowire.VarintType:
			more = in.varint() != 0
		case number == 4 && kind == protowire.BytesType:
			reason = in.text("", 0)
		case number == 5 && kind == protowire.BytesType:
			text = in.text("", 0)
		default:
			in.unknown(number, kind, 0)
		}
	}
	switch {
	case in.bad != nil:
		return false, nil, fmt.Errorf("the answer to a pull: %w: %w", ps.ErrCorrupt, in.bad)
	case reason != "":
		return false, Refusal(reason, text), nil
	case !pulled:
		return false, nil, fmt.Errorf("the answer to a pull has no rows: %w", ps.ErrCorrupt)
	case to == nil:
		return more, nil, nil
	case table != len(to.reads):
		return false, nil, fmt.Errorf("reply with %d tables to a pull of %d: %w", table, len(to.reads), ps.ErrCorrupt)
	case !more:
		return false, nil, to.complete()
	}
	return true, nil, nil
}

// Destination is where the rows of a pull from one node belong: in the reads' values, at
// the given shards.
type Destination struct {
	reads  []ps.Read
	shards []ps.ShardID
	at     []place // by read
}

// place is how far one read's rows are there.
type place struct {
	shard int // position in shards
	bytes int // of that shard's rows
}

// Begin makes d the destination of the reads' rows of the shards, ascending. It keeps
// both until the next.
func (d *Destination) Begin(shards []ps.ShardID, reads []ps.Read) {
	d.reads, d.shards = reads, shards
	d.at = append(d.at[:0], make([]place, len(reads))...)
}

// rest returns the room for the next rows of a read, which is empty when all are there.
func (d *Destination) rest(table int) []byte {
	read, at := &d.reads[table], &d.at[table]
	for ; at.shard < len(d.shards); *at = (place{shard: at.shard + 1}) {
		from, to := read.Group.Shard(d.shards[at.shard])
		if room := read.Values[from*read.RowBytes+at.bytes : to*read.RowBytes]; len(room) > 0 {
			return room
		}
	}
	return nil
}

// copyTables copies a part of the rows of the tables from the given one on, and returns
// how many tables that makes.
func (d *Destination) copyTables(r *reader, end, table int) int {
	for {
		number, kind, ok := r.next(end)
		switch {
		case !ok:
			return table
		case number == 1 && kind == protowire.BytesType:
			d.copyTable(r, end, table)
			table++
		default:
			r.unknown(number, kind, end)
		}
	}
}

// copyTable copies a part of the rows of one table.
func (d *Destination) copyTable(r *reader, end, table int) {
	n := r.length(end)
	if table >= len(d.reads) {
		r.spoil("values of more tables than were asked for")
		return
	}
	for n > 0 {
		room := d.rest(table)
		if len(room) == 0 {
			r.spoil("more values than were asked for")
			return
		}
		room = room[:min(n, len(room))]
		r.copy(room)
		d.at[table].bytes += len(room)
		n -= len(room)
	}
}

// complete reports rows that have not come.
func (d *Destination) complete() error {
	for i := range d.reads {
		if room := d.rest(i); len(room) > 0 {
			return fmt.Errorf("reply without the last rows of table %d: %w", d.reads[i].Table, ps.ErrCorrupt)
		}
	}
	return nil
}
