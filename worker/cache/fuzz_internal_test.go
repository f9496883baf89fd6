package cache

// White-box: the decoder of a block is fuzzed behind its checksum, which nothing random
// would pass.

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

func FuzzDecode(f *testing.F) {
	var b worker.Batch
	b.Reset(0, 0, 0)
	b.AddFeature(1, 2)
	b.Close(worker.Train, 1, 1, 0)
	f.Add(encode(nil, &b, []int64{0}))
	b.Close(worker.Skip, 0, 0, 5)
	f.Add(encode(nil, &b, []int64{0, 5}))
	b.Fields = []uint16{7}
	f.Add(encode(nil, &b, []int64{0, 5}))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) < blockHead {
			return
		}
		text = append([]byte(nil), text...)
		binary.LittleEndian.PutUint32(text, crc32.Checksum(text[4:], castagnoli))
		d, err := decode(text)
		if err != nil {
			return
		}
		var got worker.Batch
		got.Reset(0, 0, 0)
		for i := range d.events {
			d.appendTo(&got, i)
		}
		if got.Len() != d.events || len(got.Keys) != len(got.Values) || len(got.Fields) > 0 && len(got.Fields) != len(got.Keys) || got.Starts[got.Len()] != int32(len(got.Keys)) {
			t.Fatalf("%d events with %d keys and %d values of %d", got.Len(), len(got.Keys), len(got.Values), d.events)
		}
		for i := range ps.Offset(got.Len()) {
			if got.Starts[i] > got.Starts[i+1] {
				t.Fatalf("event %d ends before it begins", i)
			}
		}
	})
}
