package wire

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec encodes and decodes the messages of an exchange and of a look-up without the
// generated code, and leaves all others to it. Both are protobuf: either side may do
// without it. Servers and clients that exchange or look up have to use it.
type Codec struct{ plain encoding.CodecV2 }

// NewCodec returns a codec. It is safe for concurrent use.
func NewCodec() Codec { return Codec{plain: encoding.GetCodecV2(proto.Name)} }

// Name implements encoding.CodecV2: on the wire it is protobuf like any other.
func (Codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2. A *Message is used up by it.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*Message); ok {
		data := m.data
		m.data = nil
		return data, nil
	}
	return c.plain.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Request:
		return m.decode(data)
	case *Response:
		m.hold(data)
		return nil
	case *LookupAsked:
		return m.decode(data)
	case *LookupAnswer:
		m.decode(data)
		return nil
	}
	return c.plain.Unmarshal(data, v)
}

// Message is an encoded message that waits to be sent, which frees it. One that is
// not sent has to be freed.
type Message struct{ data mem.BufferSlice }

// Join returns one message of two, of which the first has a push, or the answer to one, and
// the second a pull or a part of its rows. They are used up.
func Join(a, b *Message) *Message {
	joined := &Message{data: append(a.data, b.data...)}
	a.data, b.data = nil, nil
	return joined
}

// Free gives the message's memory back. It does nothing after the message was sent.
func (m *Message) Free() {
	m.data.Free()
	m.data = nil
}

// Buffers of these sizes are kept for later messages. Larger ones are not.
const (
	pooledBitsMin = 11 // gRPC does not count references to less than 1 KiB
	pooledBitsMax = 22
)

// pools hold buffers by the logarithm of their size. Unlike gRPC's own they come in
// every power of two, since a message takes about as much memory as it has bytes, and
// are not cleared before they are used again.
type pools [pooledBitsMax + 1]sync.Pool

var buffers pools

// Get implements mem.BufferPool. What the buffer holds is undefined.
func (p *pools) Get(n int) *[]byte {
	class := max(bits.Len(uint(max(n, 1)-1)), pooledBitsMin)
	if class > pooledBitsMax {
		b := make([]byte, n)
		return &b
	}
	if b, ok := p[class].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<class)
	return &b
}

// Put implements mem.BufferPool.
func (p *pools) Put(b *[]byte) {
	if class := bits.Len(uint(cap(*b))) - 1; class >= pooledBitsMin && class <= pooledBitsMax && cap(*b) == 1<<class {
		p[class].Put(b)
	}
}
