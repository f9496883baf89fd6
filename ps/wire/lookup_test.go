package wire_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

func TestALookupSurvivesTheNetwork(t *testing.T) {
	want := &ps.Lookup{
		Pull: ps.Pull{
			Model: "shop", Layout: 1 << 63, Shards: []ps.ShardID{1, 4},
			Tables: []ps.TableKeys{{Table: 2, Counts: []uint32{2, 1}, Keys: []ps.Key{1, 2, 1 << 63}}},
		},
		Encoding: ps.Int8, Seen: []ps.Boundary{{Fence: 3, Seq: 9}, {}}, AgeMax: 1234567 * time.Nanosecond,
	}
	got, err := wire.Lookup(roundTrip(t, wire.LookupRequest(want), &psv1.LookupRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-) and received (+) differ:\n%s", diff)
	}
	fresh := []ps.Freshness{
		{Boundary: ps.Boundary{Fence: 3, Seq: 1 << 60}, Applied: []ps.Offset{7, 0}, EventTime: 1650812741436, Age: 3 * time.Hour},
		{Applied: []ps.Offset{}, Age: 1},
	}
	again, err := wire.Freshness(roundTrip(t, wire.LookupResponse(nil, fresh), &psv1.LookupResponse{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh, again); diff != "" {
		t.Errorf("freshness: sent (-) and received (+) differ:\n%s", diff)
	}
}

func TestMalformedLookupsAreRefused(t *testing.T) {
	keys := []*psv1.TableKeys{{Counts: []uint32{1}, Keys: make([]byte, 8)}}
	for name, m := range map[string]*psv1.LookupRequest{
		"half a key":             {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{1}, Keys: make([]byte, 12)}}},
		"counts beside keys":     {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{2}, Keys: make([]byte, 8)}}},
		"counts beside shards":   {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{1, 0}, Keys: make([]byte, 8)}}},
		"shards out of order":    {Shards: []uint32{2, 1}},
		"the same shard twice":   {Shards: []uint32{2, 2}},
		"too many shards":        {Shards: make([]uint32, ps.ShardsMax+1)},
		"too many tables":        {Tables: slices.Repeat([]*psv1.TableKeys{{}}, ps.TablesMax+2)},
		"an unknown encoding":    {Shards: []uint32{1}, Tables: keys, Encoding: 4},
		"a negative encoding":    {Shards: []uint32{1}, Tables: keys, Encoding: -1},
		"an encoding cut to one": {Shards: []uint32{1}, Tables: keys, Encoding: 256},
		"too few seen":           {Shards: []uint32{1, 2}, Seen: []*psv1.Boundary{{}}},
		"too many seen":          {Shards: []uint32{1}, Seen: []*psv1.Boundary{{}, {}}},
		"far too many seen":      {Shards: []uint32{1}, Seen: slices.Repeat([]*psv1.Boundary{{}}, ps.ShardsMax+2)},
		"an age that is none":    {MaxAgeMs: math.NaN()},
		"a negative age":         {MaxAgeMs: -1},
		"an age without end":     {MaxAgeMs: math.Inf(1)},
		"an age beyond all":      {MaxAgeMs: 1e300},
	} {
		if _, err := wire.Lookup(m); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("a look-up with %s gave %v, want ps.ErrInvalid", name, err)
		}
		lookedFor(t, new(wire.LookupAsked), marshal(t, m), rand.New(rand.NewPCG(1, 1)))
	}
	if l, err := wire.Lookup(&psv1.LookupRequest{MaxAgeMs: 1e-9}); err != nil || l.AgeMax <= 0 {
		t.Errorf("the least age became %v (%v), want one above 0, which would be no bound", l.AgeMax, err)
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	doc, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// randomLookup returns a look-up of some reads.
func randomLookup(random *rand.Rand) (*ps.Lookup, []ps.Read) {
	reads, shards := randomReads(random)
	l := &ps.Lookup{Pull: ps.Pull{Model: "shop"[:random.IntN(5)], Layout: number(random), Shards: shards}, Encoding: ps.Encoding(random.IntN(4))}
	if random.IntN(2) == 0 {
		l.AgeMax = time.Duration(random.Uint64() >> (2 + random.IntN(62)))
	}
	if random.IntN(2) == 0 {
		for range shards {
			l.Seen = append(l.Seen, ps.Boundary{Fence: ps.Fence(number(random)), Seq: number(random)})
		}
	}
	return l, reads
}

// lookedUp returns the message of a look-up of reads.
func lookedUp(l *ps.Lookup, reads []ps.Read) *psv1.LookupRequest {
	whole := *l
	whole.Pull = *pullOf(l.Model, l.Layout, 0, l.Shards, reads)
	return wire.LookupRequest(&whole)
}

func TestLookupsAreTheBytesThatProtobufWouldSend(t *testing.T) {
	random := randomOf(t)
	for range 500 {
		l, reads := randomLookup(random)
		want := lookedUp(l, reads)
		if got, want := sent(t, wire.LookingUp(l, reads)), marshal(t, want); !bytes.Equal(got, want) {
			t.Fatalf("%v\nis sent as %x\nwant        %x", l, got, want)
		}
	}
}

// asExactAsFloats compares durations as a float64 of milliseconds has them: some weeks it has
// to a nanosecond, years not quite.
var asExactAsFloats = cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= 1+a.Abs()>>50 })

// lookedFor decodes a look-up by hand, into memory that held others, and compares with what
// the generated code and the function for it make of it.
func lookedFor(t *testing.T, asked *wire.LookupAsked, doc []byte, random *rand.Rand) {
	t.Helper()
	err := wire.NewCodec().Unmarshal(pieces(doc, random), asked)
	var m psv1.LookupRequest
	if want := proto.Unmarshal(doc, &m); (err == nil) != (want == nil) {
		t.Fatalf("%x is read with %v, by protobuf with %v", doc, err, want)
	}
	if err != nil {
		return
	}
	got, err := asked.Words()
	want, wanted := wire.Lookup(&m)
	if (err == nil) != (wanted == nil) || (err != nil && !errors.Is(err, ps.ErrInvalid)) {
		t.Fatalf("%x: error %v, want %v", doc, err, wanted)
	}
	if err != nil {
		return
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%v: (-protobuf +by hand):\n%s", &m, diff)
	}
	again, err := wire.Lookup(wire.LookupRequest(want))
	if diff := cmp.Diff(want, again, cmpopts.EquateEmpty(), asExactAsFloats); diff != "" || err != nil {
		t.Fatalf("%v: first (-) and second (+) decoding differ (%v):\n%s", &m, err, diff)
	}
}

func TestLookupsAreReadAsProtobufReadsThem(t *testing.T) {
	random := randomOf(t)
	var asked wire.LookupAsked
	for range 1000 {
		l, reads := randomLookup(random)
		doc := sent(t, wire.LookingUp(l, reads))
		lookedFor(t, &asked, doc, random)
		if len(doc) > 0 { // damaged a little
			lookedFor(t, &asked, doc[:random.IntN(len(doc))], random)
			doc[random.IntN(len(doc))] ^= 1 << random.IntN(8)
			lookedFor(t, &asked, doc, random)
		}
	}
}

// FuzzLookupRequest holds the decoder by hand to the generated one and the checks behind it.
func FuzzLookupRequest(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		l, reads := randomLookup(random)
		doc, err := proto.Marshal(lookedUp(l, reads))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc, uint64(1))
	}
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) {
		lookedFor(t, new(wire.LookupAsked), doc, rand.New(rand.NewPCG(seed, 0)))
	})
}

func randomFreshness(random *rand.Rand, shards int) []ps.Freshness {
	fresh := make([]ps.Freshness, shards)
	for i := range fresh {
		f := &fresh[i]
		f.Boundary = ps.Boundary{Fence: ps.Fence(number(random)), Seq: number(random)}
		f.EventTime, f.Age = int64(number(random)), time.Duration(random.Uint64()>>(12+random.IntN(52)))
		for range random.IntN(4) {
			f.Applied = append(f.Applied, ps.Offset(number(random)))
		}
	}
	return fresh
}

// answeredLookup decodes a reply by hand and compares with what the generated code makes of it.
func answeredLookup(t *testing.T, doc []byte, shards []ps.ShardID, reads []ps.Read, random *rand.Rand) {
	t.Helper()
	var answer wire.LookupAnswer
	answer.Begin(shards, reads)
	if err := wire.NewCodec().Unmarshal(pieces(doc, random), &answer); err != nil {
		t.Fatal(err)
	}
	fresh, err := answer.Freshness()
	if err != nil && !errors.Is(err, ps.ErrCorrupt) {
		t.Fatalf("%x: refused with %v, want ps.ErrCorrupt", doc, err)
	}
	var m psv1.LookupResponse
	wanted := proto.Unmarshal(doc, &m)
	var want []ps.Freshness
	if wanted == nil {
		want, wanted = wire.Freshness(&m)
	}
	fits := wanted == nil && len(want) == len(shards) && len(m.GetValues()) == len(reads)
	for i := 0; fits && i < len(reads); i++ {
		var rows []byte
		for _, s := range shards {
			from, to := reads[i].Group.Shard(s)
			rows = append(rows, reads[i].Values[from*reads[i].RowBytes:to*reads[i].RowBytes]...)
		}
		if fits = len(rows) == len(m.GetValues()[i]); fits && err == nil && !bytes.Equal(rows, m.GetValues()[i]) {
			t.Fatalf("read %d has %x, want %x", i, rows, m.GetValues()[i])
		}
	}
	if fits != (err == nil) {
		t.Fatalf("%x is read with %v, by protobuf with %v as %v", doc, err, wanted, &m)
	}
	if err == nil {
		if diff := cmp.Diff(want, fresh, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%v: (-protobuf +by hand):\n%s", &m, diff)
		}
	}
}

func TestWhatIsLookedUpArrivesWhereItBelongs(t *testing.T) {
	random := randomOf(t)
	var reply wire.Reply
	for range 500 {
		reads, shards := randomReads(random)
		var sizes []int
		for i := range reads {
			n := 0
			for _, s := range shards {
				from, to := reads[i].Group.Shard(s)
				n += (to - from) * reads[i].RowBytes
			}
			sizes = append(sizes, n)
		}
		reply.Room(sizes)
		var values [][]byte
		for _, v := range reply.Values {
			for k := range v {
				v[k] = byte(random.Uint32())
			}
			values = append(values, slices.Clone(v))
		}
		fresh := randomFreshness(random, len(shards))
		doc := sent(t, reply.LookedUp(fresh))
		if want := marshal(t, wire.LookupResponse(values, fresh)); !bytes.Equal(doc, want) {
			t.Fatalf("%v of %d shards\nis sent as %x\nwant        %x", values, len(shards), doc, want)
		}
		answeredLookup(t, doc, shards, reads, random)
		if len(doc) > 0 {
			answeredLookup(t, doc[:random.IntN(len(doc))], shards, reads, random)
			doc[random.IntN(len(doc))] ^= 1 << random.IntN(8)
			answeredLookup(t, doc, shards, reads, random)
		}
	}
}

func TestAnswersToLookupsOfAnotherShapeAreNotTaken(t *testing.T) {
	group := new(ps.Group)
	group.Fill([]ps.Key{1, 2, 3}, 1)
	reads := []ps.Read{{RowBytes: 4, Group: group, Values: make([]byte, 12)}}
	values := func(sizes ...int) (v [][]byte) {
		for _, n := range sizes {
			v = append(v, make([]byte, n))
		}
		return v
	}
	one := []*psv1.ShardFreshness{{}}
	for name, m := range map[string]*psv1.LookupResponse{
		"too few values": {Values: values(8), Shards: one}, "too many values": {Values: values(16), Shards: one}, "no table": {Shards: one},
		"another table": {Values: values(12, 4), Shards: one}, "nothing": {}, "no freshness": {Values: values(12)},
		"the freshness of two":     {Values: values(12), Shards: []*psv1.ShardFreshness{{}, {}}},
		"an age that is no number": {Values: values(12), Shards: []*psv1.ShardFreshness{{AgeMs: math.NaN()}}},
	} {
		var answer wire.LookupAnswer
		answer.Begin([]ps.ShardID{0}, reads)
		if err := wire.NewCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(marshal(t, m))}, &answer); err != nil {
			t.Fatal(err)
		}
		if _, err := answer.Freshness(); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: %v, want ps.ErrCorrupt", name, err)
		}
	}
	var none wire.LookupAnswer
	none.Begin([]ps.ShardID{0}, reads)
	if _, err := none.Freshness(); !errors.Is(err, ps.ErrCorrupt) {
		t.Errorf("no message at all: %v, want ps.ErrCorrupt", err)
	}
}

// FuzzLookupResponse does it for answers.
func FuzzLookupResponse(f *testing.F) {
	group := new(ps.Group)
	group.Fill([]ps.Key{1, 2, 3, 1 << 63}, 2)
	doc, err := proto.Marshal(wire.LookupResponse([][]byte{make([]byte, 32)}, []ps.Freshness{
		{Boundary: ps.Boundary{Fence: 1, Seq: 2}, Applied: []ps.Offset{3, 4}, EventTime: 5, Age: 6}, {},
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc, uint64(1))
	f.Fuzz(func(t *testing.T, doc []byte, seed uint64) {
		reads := []ps.Read{{RowBytes: 8, Group: group, Values: make([]byte, 32)}}
		answeredLookup(t, doc, []ps.ShardID{0, 1}, reads, rand.New(rand.NewPCG(seed, 0)))
	})
}

func TestLookupsAllocateNothingPerKeyOrShard(t *testing.T) {
	_, _, reads, shards := hot()
	l := &ps.Lookup{Pull: ps.Pull{Model: "bench", Layout: 1, Shards: shards}, Seen: make([]ps.Boundary, len(shards))}
	fresh := randomFreshness(rand.New(rand.NewPCG(1, 1)), len(shards))
	codec := wire.NewCodec()
	request := mem.BufferSlice{mem.SliceBuffer(sent(t, wire.LookingUp(l, reads)))}
	var reply wire.Reply
	reply.Room([]int{64 * 4096})
	rows := mem.BufferSlice{mem.SliceBuffer(sent(t, reply.LookedUp(fresh)))}
	var asked wire.LookupAsked
	var answer wire.LookupAnswer
	receive := func() {
		if err := codec.Unmarshal(request, &asked); err != nil {
			t.Fatal(err)
		}
	}
	receive() // it learns how much memory it takes
	receive()
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
		"receive a look-up": {0, receive},
		"send a look-up":    {2, func() { send(wire.LookingUp(l, reads)) }},
		"send rows": {6, func() {
			reply.Room([]int{64 * 4096})
			send(reply.LookedUp(fresh))
		}},
		"receive rows": {12, func() { // offsets take memory that doubles
			answer.Begin(shards, reads)
			if err := codec.Unmarshal(rows, &answer); err != nil {
				t.Fatal(err)
			}
			if _, err := answer.Freshness(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		// A collection empties the pools, so that a buffer has to be made again now and then.
		if got := testing.AllocsPerRun(200, c.do); got > c.most+1 {
			t.Errorf("%s of 4096 keys at 64 shards: %v allocations, want at most %v", name, got, c.most)
		}
	}
}
