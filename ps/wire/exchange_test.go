package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// pieces cuts a message as a network might, empty pieces included.
func pieces(doc []byte, random *rand.Rand) mem.BufferSlice {
	var data mem.BufferSlice
	for len(doc) > 0 {
		n := random.IntN(min(len(doc), 40) + 1)
		data, doc = append(data, mem.SliceBuffer(doc[:n])), doc[n:]
	}
	return data
}

// sent returns a message as the network gets it.
func sent(t *testing.T, m *wire.Message) []byte {
	t.Helper()
	data, err := wire.NewCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Free()
	doc := make([]byte, data.Len())
	data.CopyTo(doc)
	return doc
}

func randomOf(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// number is often 0 and often large.
func number(random *rand.Rand) uint64 { return random.Uint64() >> (8 * random.IntN(9)) }

func randomRows(random *rand.Rand) []ps.Rows {
	rows := make([]ps.Rows, random.IntN(4))
	for i := range rows {
		rows[i].Table = ps.TableID(number(random))
		for range random.IntN(20) {
			rows[i].Keys = append(rows[i].Keys, ps.Key(random.Uint64()))
			rows[i].Values = append(rows[i].Values, byte(random.Uint32()), 1, 2, 3)
			if random.IntN(3) == 0 {
				rows[i].Pulled = append(rows[i].Pulled, byte(random.Uint32()))
			}
		}
	}
	return rows
}

func randomUpdate(random *rand.Rand) *ps.Update {
	u := &ps.Update{
		Model: "shop"[:random.IntN(5)], Stream: ps.StreamID("file:1"[:random.IntN(7)]), Layout: number(random), Version: number(random),
		Partition: ps.Partition(number(random)), Generation: ps.Generation(number(random)), To: ps.Offset(number(random)),
		Pulled: number(random),
	}
	for range random.IntN(6) {
		u.Items = append(u.Items, ps.Item{
			Shard: ps.ShardID(number(random)), From: ps.Offset(number(random)), Trained: number(random), Held: number(random), Skipped: number(random),
			Fingerprint: ps.Fingerprint{Count: number(random), Sum: number(random), Xor: number(random)},
			EventTime:   int64(number(random)), Rows: randomRows(random),
		})
	}
	return u
}

// reads returns what is wanted of a few tables, with room for the values.
func randomReads(random *rand.Rand) (reads []ps.Read, shards []ps.ShardID) {
	const all = 8
	for s := range ps.ShardID(all) {
		if random.IntN(2) == 0 {
			shards = append(shards, s)
		}
	}
	for t := range random.IntN(4) {
		var keys []ps.Key
		for range random.IntN(40) {
			keys = append(keys, ps.Key(random.Uint64()))
		}
		group := new(ps.Group)
		group.Fill(keys, all)
		rowBytes := 4 * (1 + random.IntN(5))
		reads = append(reads, ps.Read{Table: ps.TableID(t), RowBytes: rowBytes, Group: group, Values: make([]byte, rowBytes*len(group.Keys))})
	}
	return reads, shards
}

// pullOf returns what a node is to be asked for the shards' part of reads.
func pullOf(model string, layout, number uint64, shards []ps.ShardID, reads []ps.Read) *ps.Pull {
	p := &ps.Pull{Model: model, Layout: layout, Number: number, Shards: shards}
	for _, r := range reads {
		table := ps.TableKeys{Table: r.Table}
		for _, s := range shards {
			from, to := r.Group.Shard(s)
			table.Keys = append(table.Keys, r.Group.Keys[from:to]...)
			table.Counts = append(table.Counts, uint32(to-from))
		}
		p.Tables = append(p.Tables, table)
	}
	return p
}

// refer makes some of u's items, where their rows can, refer to keys instead of having them,
// and returns their shards.
func refer(u *ps.Update, random *rand.Rand) (known []ps.ShardID) {
	for _, item := range u.Items {
		if random.IntN(2) == 0 {
			known = append(known, item.Shard)
		}
	}
	slices.Sort(known)
	if len(known) == 0 {
		u.Pulled = 0
	}
	for i := range u.Items {
		item := &u.Items[i]
		item.Rows = slices.Clone(item.Rows)
		for r := range item.Rows {
			if rows := &item.Rows[r]; slices.Contains(known, item.Shard) && len(rows.Pulled) > 0 {
				rows.Keys = nil
			} else {
				rows.Pulled = nil
			}
		}
	}
	return known
}

func TestRequestsAreTheBytesThatProtobufWouldSend(t *testing.T) {
	random := randomOf(t)
	for range 500 {
		u := randomUpdate(random)
		part := *u
		part.Items = nil
		var positions []int
		for i := range u.Items {
			if random.IntN(3) > 0 {
				positions, part.Items = append(positions, i), append(part.Items, u.Items[i])
			}
		}
		known := refer(&part, random)
		reads, shards := randomReads(random)
		layout, pulled := number(random), number(random)
		for name, pair := range map[string]struct {
			got  []byte
			want *psv1.ExchangeRequest
		}{
			"push": {sent(t, wire.Pushing(u, positions, known)), &psv1.ExchangeRequest{Push: wire.PushRequest(&part)}},
			"pull": {sent(t, wire.Pulling("shop", layout, pulled, shards, reads)), &psv1.ExchangeRequest{Pull: wire.PullRequest(pullOf("shop", layout, pulled, shards, reads))}},
		} {
			want, err := proto.Marshal(pair.want)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(pair.got, want) {
				t.Fatalf("%s %v\nis sent as %x\nwant        %x", name, pair.want, pair.got, want)
			}
		}
	}
}

// received decodes a request by hand, into memory that held others, and compares with what
// the generated code and the functions for it make of it.
func received(t *testing.T, request *wire.Request, doc []byte, random *rand.Rand) {
	t.Helper()
	err := wire.NewCodec().Unmarshal(pieces(doc, random), request)
	var m psv1.ExchangeRequest
	if want := proto.Unmarshal(doc, &m); (err == nil) != (want == nil) {
		t.Fatalf("%x is read with %v, by protobuf with %v", doc, err, want)
	}
	if err != nil {
		return
	}
	update, pull, err := request.Words()
	var wantUpdate *ps.Update
	var wantPull *ps.Pull
	var wanted error
	if m.GetPush() != nil {
		wantUpdate, wanted = wire.Update(m.GetPush())
	}
	if m.GetPull() != nil && wanted == nil {
		wantPull, wanted = wire.Pull(m.GetPull())
	}
	if m.GetPush() == nil && m.GetPull() == nil {
		wanted = ps.ErrInvalid
	}
	if (err == nil) != (wanted == nil) || (err != nil && !errors.Is(err, ps.ErrInvalid)) {
		t.Fatalf("%v: error %v, want %v", &m, err, wanted)
	}
	if err != nil {
		return
	}
	if diff := cmp.Diff(wantUpdate, update, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%v: (-protobuf +by hand):\n%s", &m, diff)
	}
	if diff := cmp.Diff(wantPull, pull, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%v: (-protobuf +by hand):\n%s", &m, diff)
	}
}

func TestRequestsAreReadAsProtobufReadsThem(t *testing.T) {
	random := randomOf(t)
	var request wire.Request
	for range 500 {
		reads, shards := randomReads(random)
		for _, m := range []*psv1.ExchangeRequest{
			{Push: wire.PushRequest(randomUpdate(random))},
			{Pull: wire.PullRequest(pullOf("shop", number(random), number(random), shards, reads))},
			{},
			{Push: &psv1.PushRequest{}},
			{Pull: &psv1.PullRequest{}},
			{Push: &psv1.PushRequest{}, Pull: &psv1.PullRequest{}},
			{Push: wire.PushRequest(randomUpdate(random)), Pull: wire.PullRequest(pullOf("shop", 7, number(random), shards, reads))},
		} {
			doc, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			received(t, &request, doc, random)
			if len(doc) > 0 { // damaged a little
				received(t, &request, doc[:random.IntN(len(doc))], random)
				doc[random.IntN(len(doc))] ^= 1 << random.IntN(8)
				received(t, &request, doc, random)
			}
		}
	}
}

// FuzzExchangeRequest holds the decoder by hand to the generated one and the checks behind it.
func FuzzExchangeRequest(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		reads, shards := randomReads(random)
		for _, m := range []*psv1.ExchangeRequest{
			{Push: wire.PushRequest(randomUpdate(random))}, {Pull: wire.PullRequest(pullOf("shop", 7, 3, shards, reads))},
		} {
			doc, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(doc, uint64(1))
		}
	}
	f.Add([]byte{0x23, 0x2b, 0x2c, 0x24, 0x12, 0x04, 0x1a, 0x00, 0x18, 0x05}, uint64(1)) // unknown groups, numbers one by one
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) {
		received(t, new(wire.Request), doc, rand.New(rand.NewPCG(seed, 0)))
	})
}

func TestRowsThatAreSentInPartsArriveWhereTheyBelong(t *testing.T) {
	random := randomOf(t)
	for range 300 {
		reads, shards := randomReads(random)
		var want [][]byte
		for i := range reads {
			want = append(want, make([]byte, len(reads[i].Values)))
			for k := range reads[i].Values {
				reads[i].Values[k] = 0xee // untouched
				want[i][k] = 0xee
			}
		}
		var to wire.Destination
		to.Begin(shards, reads)
		var reply wire.Reply
		for first := 0; ; {
			last := min(first+1+random.IntN(3), len(shards))
			var sizes []int
			for i := range reads {
				n := 0
				for _, s := range shards[first:last] {
					from, end := reads[i].Group.Shard(s)
					n += (end - from) * reads[i].RowBytes
				}
				sizes = append(sizes, n)
			}
			reply.Room(sizes)
			for i, values := range reply.Values {
				for k := range values {
					values[k] = byte(random.Uint32())
				}
				for _, s := range shards[first:last] {
					from, end := reads[i].Group.Shard(s)
					values = values[copy(want[i][from*reads[i].RowBytes:end*reads[i].RowBytes], values):]
				}
			}
			doc := sent(t, reply.Message(last < len(shards)))
			var m psv1.ExchangeResponse
			if err := proto.Unmarshal(doc, &m); err != nil || m.GetPull() == nil || len(m.GetPull().GetValues()) != len(reads) || m.GetMore() != (last < len(shards)) {
				t.Fatalf("%x: protobuf reads %v (%v)", doc, &m, err)
			}
			var response wire.Response
			if err := wire.NewCodec().Unmarshal(pieces(doc, random), &response); err != nil {
				t.Fatal(err)
			}
			more, refused, err := response.Rows(&to)
			response.Free()
			if more != (last < len(shards)) || refused != nil || err != nil {
				t.Fatalf("shards %d to %d of %d: more %v, refused %v, error %v", first, last, len(shards), more, refused, err)
			}
			if first = last; !more {
				break
			}
		}
		for i := range reads {
			if !bytes.Equal(reads[i].Values, want[i]) {
				t.Fatalf("read %d of shards %v:\n%x, want\n%x", i, shards, reads[i].Values, want[i])
			}
		}
	}
}

func TestAnswersOfAnotherShapeAreNotTaken(t *testing.T) {
	group := new(ps.Group)
	group.Fill([]ps.Key{1, 2, 3}, 1)
	reads := []ps.Read{{RowBytes: 4, Group: group, Values: make([]byte, 12)}}
	answer := func(m *psv1.ExchangeResponse) (more bool, refused, err error) {
		doc, failed := proto.Marshal(m)
		if failed != nil {
			t.Fatal(failed)
		}
		var response wire.Response
		if err := wire.NewCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(doc)}, &response); err != nil {
			t.Fatal(err)
		}
		var to wire.Destination
		to.Begin([]ps.ShardID{0}, reads)
		return response.Rows(&to)
	}
	values := func(sizes ...int) *psv1.PullResponse {
		m := &psv1.PullResponse{}
		for _, n := range sizes {
			m.Values = append(m.Values, make([]byte, n))
		}
		return m
	}
	for name, m := range map[string]*psv1.ExchangeResponse{
		"too few values": {Pull: values(8)}, "too many values": {Pull: values(16)}, "no table": {Pull: values()},
		"another table": {Pull: values(12, 4)}, "nothing": {}, "an answer to a push": {Push: &psv1.PushResponse{}},
		"too many values of more": {Pull: values(13), More: true},
	} {
		if _, _, err := answer(m); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: %v, want ps.ErrCorrupt", name, err)
		}
	}
	if more, refused, err := answer(&psv1.ExchangeResponse{Pull: values(12)}); more || refused != nil || err != nil {
		t.Errorf("all values: more %v, refused %v, error %v", more, refused, err)
	}
	if _, refused, err := answer(&psv1.ExchangeResponse{Reason: "NOT_OWNER", Message: "no"}); !errors.Is(refused, ps.ErrNotOwner) || refused.Error() != "no" || err != nil {
		t.Errorf("a refusal: %v (%v), want ps.ErrNotOwner", refused, err)
	}
	refusal := fmt.Errorf("shard 3: %w", ps.ErrNoOwner)
	var m psv1.ExchangeResponse
	if err := proto.Unmarshal(sent(t, wire.Refused(refusal)), &m); err != nil || m.GetReason() != "NO_OWNER" || m.GetMessage() != refusal.Error() {
		t.Errorf("%v is sent as %v (%v)", refusal, &m, err)
	}
}

func TestAnswersAreTheBytesThatProtobufWouldSend(t *testing.T) {
	random := randomOf(t)
	for range 300 {
		var answers []ps.Answer
		for range random.IntN(6) {
			a := ps.Answer{Shard: ps.ShardID(number(random)), Outcome: ps.Outcome(random.IntN(int(ps.Overlap) + 1)), Applied: ps.Offset(number(random))}
			if a.Outcome == ps.Refused {
				a.Err = fmt.Errorf("for %d: %w", random.IntN(1000), sentinels[random.IntN(len(sentinels))])
			}
			answers = append(answers, a)
		}
		got := sent(t, wire.Answered(answers))
		want, err := proto.Marshal(&psv1.ExchangeResponse{Push: wire.PushResponse(answers)})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%v\nis sent as %x\nwant        %x", answers, got, want)
		}
		answered(t, got, random)
		if len(got) > 0 {
			got[random.IntN(len(got))] ^= 1 << random.IntN(8)
			answered(t, got, random)
		}
	}
}

// answered compares what is read of an answer to a push by hand and by the generated code.
func answered(t *testing.T, doc []byte, random *rand.Rand) {
	t.Helper()
	var response wire.Response
	if err := wire.NewCodec().Unmarshal(pieces(doc, random), &response); err != nil {
		t.Fatal(err)
	}
	got, err := response.Answers(nil)
	response.Free()
	var m psv1.ExchangeResponse
	var want []ps.Answer
	wanted := proto.Unmarshal(doc, &m)
	if wanted == nil {
		if want, wanted = wire.Answers(m.GetPush()); m.GetPush() == nil {
			wanted = ps.ErrInvalid
		}
	}
	if (err == nil) != (wanted == nil) {
		// Only protobuf reads what is not the answers' before it refuses: text that is no text.
		if m := new(psv1.ExchangeResponse); err != nil || (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(doc, m) == nil {
			t.Fatalf("%x is read with %v, by protobuf with %v", doc, err, wanted)
		}
		return
	}
	if err != nil {
		return
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), sameErrors); diff != "" {
		t.Fatalf("%v: (-protobuf +by hand):\n%s", &m, diff)
	}
}

// FuzzExchangeResponse does it for answers, and reads them as rows, which must not end badly.
func FuzzExchangeResponse(f *testing.F) {
	for _, m := range []*psv1.ExchangeResponse{
		{Push: wire.PushResponse([]ps.Answer{{Shard: 1, Outcome: ps.Applied, Applied: 3}, {Shard: 2, Err: ps.ErrNotOwner}})},
		{Pull: &psv1.PullResponse{Values: [][]byte{make([]byte, 24)}}, More: true},
		{Reason: "INVALID", Message: "no"},
	} {
		doc, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc, uint64(1))
	}
	group := new(ps.Group)
	group.Fill([]ps.Key{1, 2, 3, 1 << 63}, 2)
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		answered(t, doc, random)
		var response wire.Response
		if err := wire.NewCodec().Unmarshal(pieces(doc, random), &response); err != nil {
			t.Fatal(err)
		}
		var to wire.Destination
		to.Begin([]ps.ShardID{0, 1}, []ps.Read{{RowBytes: 8, Group: group, Values: make([]byte, 32)}})
		if _, _, err := response.Rows(&to); err != nil && !errors.Is(err, ps.ErrCorrupt) {
			t.Fatalf("%x: refused with %v, want ps.ErrCorrupt", doc, err)
		}
	})
}

// hot is a push and a pull of the size that counts.
func hot() (*ps.Update, []int, []ps.Read, []ps.ShardID) {
	const shards = 64
	random := rand.New(rand.NewPCG(1, 1))
	keys := make([]ps.Key, 4096)
	for i := range keys {
		keys[i] = ps.Key(random.Uint64())
	}
	group := new(ps.Group)
	group.Fill(keys, shards)
	values := make([]byte, 64*len(keys))
	u := &ps.Update{Model: "bench", Stream: "bench", To: 1}
	var positions []int
	var all []ps.ShardID
	for s := range ps.ShardID(shards) {
		from, to := group.Shard(s)
		u.Items = append(u.Items, ps.Item{Shard: s, Trained: 1, Rows: []ps.Rows{{Keys: group.Keys[from:to], Values: values[64*from : 64*to]}}})
		positions, all = append(positions, int(s)), append(all, s)
	}
	return u, positions, []ps.Read{{RowBytes: 64, Group: group, Values: values}}, all
}

func TestMessagesAllocateNothingPerKeyOrShard(t *testing.T) {
	u, positions, reads, shards := hot()
	codec := wire.NewCodec()
	push := mem.BufferSlice{mem.SliceBuffer(sent(t, wire.Pushing(u, positions, nil)))}
	pull := mem.BufferSlice{mem.SliceBuffer(sent(t, wire.Pulling("bench", 1, 0, shards, reads)))}
	var reply wire.Reply
	reply.Room([]int{64 * 4096})
	rows := mem.BufferSlice{mem.SliceBuffer(sent(t, reply.Message(false)))}
	var request wire.Request
	var to wire.Destination
	decode := func(data mem.BufferSlice) {
		if err := codec.Unmarshal(data, &request); err != nil {
			t.Fatal(err)
		}
	}
	decode(push) // it learns how much memory it takes
	decode(pull)
	send := func(m *wire.Message) {
		data, err := codec.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		data.Free()
	}
	for name, c := range map[string]struct {
		most float64
		do   func()
	}{
		"receive a push": {0, func() { decode(push) }},
		"receive a pull": {0, func() { decode(pull) }},
		"send a push":    {2, func() { send(wire.Pushing(u, positions, nil)) }},
		"send a pull":    {2, func() { send(wire.Pulling("bench", 1, 0, shards, reads)) }},
		"send rows": {2, func() {
			reply.Room([]int{64 * 4096})
			send(reply.Message(false))
		}},
		"receive rows": {0, func() {
			to.Begin(shards, reads)
			var response wire.Response
			if err := codec.Unmarshal(rows, &response); err != nil {
				t.Fatal(err)
			}
			if _, _, err := response.Rows(&to); err != nil {
				t.Fatal(err)
			}
			response.Free()
		}},
	} {
		// A collection empties the pools, so that a buffer has to be made again now and then.
		if got := testing.AllocsPerRun(200, c.do); got > c.most+1 {
			t.Errorf("%s of 4096 keys at 64 shards: %v allocations, want at most %v", name, got, c.most)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	u, positions, reads, shards := hot()
	codec := wire.NewCodec()
	var request wire.Request
	b.Run("push/keys=4096/width=16", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			data, err := codec.Marshal(wire.Pushing(u, positions, nil))
			if err != nil {
				b.Fatal(err)
			}
			if err := codec.Unmarshal(data, &request); err != nil {
				b.Fatal(err)
			}
			data.Free()
		}
	})
	b.Run("pull/keys=4096/width=16", func(b *testing.B) {
		b.ReportAllocs()
		var reply wire.Reply
		var to wire.Destination
		for b.Loop() {
			data, err := codec.Marshal(wire.Pulling("bench", 1, 0, shards, reads))
			if err != nil {
				b.Fatal(err)
			}
			if err := codec.Unmarshal(data, &request); err != nil {
				b.Fatal(err)
			}
			data.Free()
			reply.Room([]int{64 * 4096})
			if data, err = codec.Marshal(reply.Message(false)); err != nil {
				b.Fatal(err)
			}
			var response wire.Response
			if err := codec.Unmarshal(data, &response); err != nil {
				b.Fatal(err)
			}
			to.Begin(shards, reads)
			if _, _, err := response.Rows(&to); err != nil {
				b.Fatal(err)
			}
			response.Free()
			data.Free()
		}
	})
}
