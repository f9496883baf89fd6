package wire_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

var sentinels = []error{
	ps.ErrInvalid, ps.ErrTooLarge, ps.ErrUnknownModel, ps.ErrModelMismatch, ps.ErrNotOwner, ps.ErrNoOwner,
	ps.ErrReplaced, ps.ErrUnavailable, ps.ErrOutOfMemory, ps.ErrCorrupt, ps.ErrConflict, ps.ErrKeysUnknown, ps.ErrBehind, ps.ErrLimited,
}

func TestEverySentinelSurvivesTheNetwork(t *testing.T) {
	for _, sentinel := range sentinels {
		sent := fmt.Errorf("shard 7: %w", sentinel)
		st := status.Convert(wire.ToStatus(sent))
		if st.Code() == codes.Internal || st.Code() == codes.Unknown {
			t.Errorf("%v has no status code of its own: %v", sentinel, st.Code())
		}
		// Through the encoded form, as a client sees it.
		got := wire.FromStatus(status.ErrorProto(roundTrip(t, st.Proto(), &statuspb.Status{})))
		if !errors.Is(got, sentinel) || got.Error() != sent.Error() {
			t.Errorf("sent %q, got %q (is %v: %v)", sent, got, sentinel, errors.Is(got, sentinel))
		}
		if got := wire.Refusal(wire.Reason(sent), sent.Error()); !errors.Is(got, sentinel) {
			t.Errorf("refusal %q does not come back as %v", wire.Reason(sent), sentinel)
		}
	}
}

func TestALimitSaysHowLongToWaitAcrossTheNetwork(t *testing.T) {
	want := &ps.LimitedError{Message: "too many keys", Wait: 1250 * time.Millisecond}
	st := status.Convert(wire.ToStatus(fmt.Errorf("node a: %w", want)))
	got := wire.FromStatus(status.ErrorProto(roundTrip(t, st.Proto(), &statuspb.Status{})))
	limited, ok := errors.AsType[*ps.LimitedError](got)
	if !ok || limited.Wait != want.Wait || got.Error() != "node a: too many keys" || !errors.Is(got, ps.ErrLimited) {
		t.Errorf("%v came back as %v, want the same text and wait of %v", want, got, want.Wait)
	}
}

func TestErrorsWithoutASentinelStayErrors(t *testing.T) {
	if got := status.Code(wire.ToStatus(errors.New("boom"))); got != codes.Internal {
		t.Errorf("an unknown error has code %v, want Internal", got)
	}
	if got := wire.FromStatus(status.Error(codes.Unavailable, "connection refused")); !errors.Is(got, ps.ErrUnavailable) {
		t.Errorf("a broken connection is %v, want ps.ErrUnavailable", got)
	}
	dial := status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:7: connect: connection refused"`)
	if got, want := wire.FromStatus(dial).Error(), "not reached: dial tcp 10.0.0.1:7: connect: connection refused"; got != want {
		t.Errorf("a refused connection reads as %q, want %q", got, want)
	}
	if got := wire.FromStatus(wire.ToStatus(context.DeadlineExceeded)); !errors.Is(got, context.DeadlineExceeded) {
		t.Errorf("a deadline came back as %v", got)
	}
	if wire.ToStatus(nil) != nil || wire.FromStatus(nil) != nil {
		t.Error("nil does not stay nil")
	}
}

func TestAnUpdateSurvivesTheNetwork(t *testing.T) {
	want := &ps.Update{
		Model: "shop", Stream: "file:1", Layout: 1 << 63, Version: 3, Partition: 4, Generation: 5, To: 90,
		Items: []ps.Item{
			{
				Shard: 1, From: 80, Trained: 2, Held: 1, Skipped: 1,
				Fingerprint: ps.Fingerprint{Count: 4, Sum: 1 << 60, Xor: 9}, EventTime: 1650812741436,
				Rows: []ps.Rows{{Table: 1, Keys: []ps.Key{1 << 63, 2}, Values: ps.Bytes([]float32{1, -2})}},
			},
			{Shard: 2, From: 10, Rows: []ps.Rows{}},
		},
	}
	got, err := wire.Update(roundTrip(t, wire.PushRequest(want), &psv1.PushRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sent (-) and received (+) differ:\n%s", diff)
	}
}

func TestAnswersSurviveTheNetwork(t *testing.T) {
	refusal := fmt.Errorf("shard 3 is another node's: %w", ps.ErrNotOwner)
	sent := []ps.Answer{
		{Shard: 1, Outcome: ps.Applied, Applied: 5},
		{Shard: 2, Outcome: ps.Overlap, Applied: 7},
		{Shard: 3, Outcome: ps.Refused, Err: refusal},
	}
	got, err := wire.Answers(roundTrip(t, wire.PushResponse(sent), &psv1.PushResponse{}))
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != sent[0] || got[1] != sent[1] {
		t.Errorf("sent %v, got %v", sent[:2], got[:2])
	}
	if !errors.Is(got[2].Err, ps.ErrNotOwner) || got[2].Err.Error() != refusal.Error() {
		t.Errorf("sent %v, got %v", refusal, got[2].Err)
	}
	for _, unknown := range []psv1.Outcome{99, -1, 256 + 1, 1773213442, math.MinInt32} {
		if _, err := wire.Answers(&psv1.PushResponse{Answers: []*psv1.Answer{{Outcome: unknown}}}); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("the unknown outcome %d gave %v, want ps.ErrInvalid", unknown, err)
		}
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	pulls := map[string]*psv1.PullRequest{
		"half a key":            {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{1}, Keys: make([]byte, 12)}}},
		"counts beside keys":    {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{2}, Keys: make([]byte, 8)}}},
		"counts beside shards":  {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Counts: []uint32{1, 0}, Keys: make([]byte, 8)}}},
		"counts that overflow":  {Shards: []uint32{1, 2}, Tables: []*psv1.TableKeys{{Counts: []uint32{1 << 31, 1 << 31}, Keys: nil}}},
		"shards out of order":   {Shards: []uint32{2, 1}},
		"the same shard twice":  {Shards: []uint32{2, 2}},
		"a missing counts list": {Shards: []uint32{1}, Tables: []*psv1.TableKeys{{Keys: make([]byte, 8)}}},
	}
	for name, req := range pulls {
		if _, err := wire.Pull(req); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("a pull with %s gave %v, want ps.ErrInvalid", name, err)
		}
	}
	push := &psv1.PushRequest{Items: []*psv1.Item{{Rows: []*psv1.Rows{{Keys: make([]byte, 7)}}}}}
	if _, err := wire.Update(push); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("a push with half a key gave %v, want ps.ErrInvalid", err)
	}
	if _, err := wire.RouteMap(&psv1.ShardMap{Shards: make([]*psv1.ShardOwner, 3)}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("a map of 3 shards gave %v, want ps.ErrInvalid", err)
	}
}

func TestProgressAndMapsSurviveTheNetwork(t *testing.T) {
	progress := []ps.ShardProgress{{
		Shard: 3, Fence: 2, Seq: 9, Rows: 100,
		Partitions: []ps.Progress{{Applied: 7, Trained: 1, Held: 2, Skipped: 3, Fingerprint: ps.Fingerprint{Count: 6, Sum: 1, Xor: 2}, EventTime: 5}},
	}}
	if diff := cmp.Diff(progress, wire.ShardProgress(roundTrip(t, wire.AppliedResponse(progress), &psv1.AppliedResponse{}))); diff != "" {
		t.Errorf("progress: sent (-) and received (+) differ:\n%s", diff)
	}
	m := route.Map{
		Version: 5, Shards: []route.Shard{{Owner: "a", Fence: 1}, {Fence: 4}},
		Addresses: map[ps.NodeID]string{"a": "127.0.0.1:1"},
	}
	got, err := wire.RouteMap(roundTrip(t, wire.ShardMap(m), &psv1.ShardMap{}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("map: sent (-) and received (+) differ:\n%s", diff)
	}
}

// FuzzPushRequest holds the decoder to its promise: whatever arrives is either
// refused or becomes words that encode to the same message again.
func FuzzPushRequest(f *testing.F) {
	seed, err := proto.Marshal(wire.PushRequest(&ps.Update{
		Model: "m", To: 3, Items: []ps.Item{{Shard: 1, Rows: []ps.Rows{{Keys: []ps.Key{5}, Values: ps.Bytes([]float32{1})}}}},
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, doc []byte) {
		var req psv1.PushRequest
		if proto.Unmarshal(doc, &req) != nil {
			return
		}
		u, err := wire.Update(&req)
		if err != nil {
			if !errors.Is(err, ps.ErrInvalid) {
				t.Fatalf("refused with %v, want ps.ErrInvalid", err)
			}
			return
		}
		again, err := wire.Update(wire.PushRequest(u))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(u, again); diff != "" {
			t.Fatalf("first (-) and second (+) decoding differ:\n%s", diff)
		}
	})
}

// FuzzPullRequest does the same for pulls.
func FuzzPullRequest(f *testing.F) {
	seed, err := proto.Marshal(wire.PullRequest(&ps.Pull{
		Model: "m", Shards: []ps.ShardID{1, 4}, Tables: []ps.TableKeys{{Counts: []uint32{1, 1}, Keys: []ps.Key{5, 6}}},
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, doc []byte) {
		var req psv1.PullRequest
		if proto.Unmarshal(doc, &req) != nil {
			return
		}
		p, err := wire.Pull(&req)
		if err != nil {
			if !errors.Is(err, ps.ErrInvalid) {
				t.Fatalf("refused with %v, want ps.ErrInvalid", err)
			}
			return
		}
		for _, table := range p.Tables {
			if len(table.Counts) != len(p.Shards) {
				t.Fatalf("accepted %d counts for %d shards", len(table.Counts), len(p.Shards))
			}
		}
	})
}

// roundTrip encodes from and decodes it into to.
func roundTrip[M proto.Message](t *testing.T, from, to M) M {
	t.Helper()
	doc, err := proto.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(doc, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestNewsAndChangesSurviveTheNetwork(t *testing.T) {
	change := ps.FollowChange{Begin: []ps.ShardID{1, 5}, End: []ps.ShardID{2}}
	req := roundTrip(t, wire.FollowRequest("shop", ps.Reading{}, change), &psv1.FollowRequest{})
	if diff := cmp.Diff(change, wire.FollowChange(req)); diff != "" || req.GetModel() != "shop" {
		t.Errorf("model %q (-sent +got):\n%s", req.GetModel(), diff)
	}
	reading := ps.Reading{Layout: 6, Encoding: ps.Int8}
	reading.Tables.Add(3)
	req = roundTrip(t, wire.FollowRequest("shop", reading, change), &psv1.FollowRequest{})
	if got, err := wire.Reading(req); err != nil || got != reading {
		t.Errorf("reading %+v (%v), want %+v", got, err, reading)
	}
	for name, bad := range map[string]*psv1.FollowRequest{
		"no layout": {Reading: true}, "an unknown encoding": {Reading: true, Layout: 1, Encoding: 9}, "a table beyond all": {Reading: true, Layout: 1, Tables: []uint32{1 << 20}},
	} {
		if _, err := wire.Reading(bad); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, ps.ErrInvalid)
		}
	}
	news := &ps.News{
		Deltas: []*ps.Delta{{
			Since: 4, Part: 2, More: true, Lineage: 8,
			ShardProgress: ps.ShardProgress{Shard: 5, Fence: 3, Seq: 9, Rows: 7, Partitions: []ps.Progress{
				{Applied: 8, Trained: 1, Held: 2, Skipped: 3, Fingerprint: ps.Fingerprint{Count: 6, Sum: 7, Xor: 8}, EventTime: 9},
			}},
			Blocks: []ps.Block{{Table: 1, Stride: 20, Rows: make([]byte, 40)}, {Table: 2, Stride: 16, Rows: make([]byte, 16)}},
		}},
		Lost: []ps.Lost{{Shard: 3, Err: fmt.Errorf("shard 3: %w", ps.ErrNotOwner)}},
	}
	got := wire.News(roundTrip(t, wire.FollowResponse(news), &psv1.FollowResponse{}))
	if diff := cmp.Diff(news.Deltas, got.Deltas); diff != "" {
		t.Errorf("deltas (-sent +got):\n%s", diff)
	}
	if len(got.Lost) != 1 || got.Lost[0].Shard != 3 || !errors.Is(got.Lost[0].Err, ps.ErrNotOwner) {
		t.Errorf("lost %+v, want shard 3 that has another owner", got.Lost)
	}
}

// fuzzed fuzzes a decoder of what nodes and coordinators answer: whatever arrives is
// refused or becomes words that encode to a message with the same meaning.
func fuzzed[M any, P interface {
	*M
	proto.Message
}, W any](f *testing.F, seed P, decode func(P) (W, error), encode func(W) P) {
	doc, err := proto.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Fuzz(func(t *testing.T, doc []byte) {
		var m M
		if proto.Unmarshal(doc, P(&m)) != nil {
			return
		}
		words, err := decode(&m)
		if err != nil {
			if !errors.Is(err, ps.ErrInvalid) && !errors.Is(err, ps.ErrCorrupt) {
				t.Fatalf("refused with %v, want ps.ErrInvalid or ps.ErrCorrupt", err)
			}
			return
		}
		again, err := decode(encode(words))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(words, again, cmpopts.EquateEmpty(), sameErrors); diff != "" {
			t.Fatalf("first (-) and second (+) decoding differ:\n%s", diff)
		}
	})
}

// sameErrors compares whether there is an error: of an unknown reason only the text travels.
var sameErrors = cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Err" },
	cmp.Comparer(func(a, b error) bool { return (a == nil) == (b == nil) }))

// FuzzPushResponse does it for the answers to a push.
func FuzzPushResponse(f *testing.F) {
	fuzzed(f, wire.PushResponse([]ps.Answer{
		{Shard: 1, Outcome: ps.Applied, Applied: 5}, {Shard: 2, Outcome: ps.Refused, Err: ps.ErrNotOwner},
	}), wire.Answers, wire.PushResponse)
}

// FuzzAppliedResponse does it for how far shards are.
func FuzzAppliedResponse(f *testing.F) {
	fuzzed(f, wire.AppliedResponse([]ps.ShardProgress{{Shard: 3, Fence: 2, Seq: 9, Rows: 4, Partitions: []ps.Progress{
		{Applied: 7, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1, Sum: 2, Xor: 2}, EventTime: -1}, {},
	}}}), func(m *psv1.AppliedResponse) ([]ps.ShardProgress, error) { return wire.ShardProgress(m), nil }, wire.AppliedResponse)
}

// FuzzFollowResponse does it for news of shards.
func FuzzFollowResponse(f *testing.F) {
	fuzzed(f, wire.FollowResponse(&ps.News{
		Deltas: []*ps.Delta{{
			Since: 1, ShardProgress: ps.ShardProgress{Shard: 1, Seq: 2, Rows: 1, Partitions: []ps.Progress{{Applied: 3}}}, Part: 1, More: true,
			Blocks: []ps.Block{{Table: 1, Stride: 20, Rows: make([]byte, 20)}},
		}},
		Lost: []ps.Lost{{Shard: 2, Err: ps.ErrNotOwner}},
	}), func(m *psv1.FollowResponse) (*ps.News, error) { return wire.News(m), nil }, wire.FollowResponse)
}

// FuzzTakeRequest does it for the snapshots that are asked for.
func FuzzTakeRequest(f *testing.F) {
	fuzzed(f, wire.TakeRequest("m", "mem://", []checkpoint.Want{{Shard: 1}, {Shard: 2, Parent: checkpoint.Hash{1}}}),
		wire.Wants, func(wants []checkpoint.Want) *psv1.TakeRequest { return wire.TakeRequest("m", "mem://", wants) })
}

// FuzzTakeResponse does it for the snapshots that were taken.
func FuzzTakeResponse(f *testing.F) {
	seed, err := wire.TakeResponse(checkpoint.Taken{
		Shard: 1, Fence: 2, Seq: 3, Applied: []ps.Offset{4},
		File: checkpoint.File{Ref: checkpoint.Ref{Name: "snapshots/m/00001/a", Hash: checkpoint.Hash{1}, Bytes: 9}, Fence: 2, Seq: 3, Rows: 1},
	})
	if err != nil {
		f.Fatal(err)
	}
	fuzzed(f, seed, wire.Taken, func(taken checkpoint.Taken) *psv1.TakeResponse {
		m, err := wire.TakeResponse(taken)
		if err != nil {
			f.Fatal(err)
		}
		return m
	})
}

// FuzzShardMap does it for the map of shards.
func FuzzShardMap(f *testing.F) {
	fuzzed(f, wire.ShardMap(route.Map{
		Version: 7, Shards: []route.Shard{{Owner: "a", Fence: 1, Standbys: []ps.NodeID{"b"}}, {}}, Addresses: map[ps.NodeID]string{"a": "127.0.0.1:1"},
	}), wire.RouteMap, wire.ShardMap)
}
