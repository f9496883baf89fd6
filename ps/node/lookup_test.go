package node_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/server"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Tables of the weights model.
const (
	users ps.TableID = iota
	items
	counts
)

// weightsModel has two tables of weights, of which every pushed gradient is taken off, and
// one of sums.
func weightsModel() ps.Model {
	rule := ps.Optimizer{Name: ps.SGD, LearningRate: 1}
	return ps.Model{
		Name: "w", Version: 1, Stream: "s", Partitions: 2,
		Layout: ps.Layout{Seed: 1, Tables: []ps.Table{
			{Name: "users", Width: 16, Optimizer: rule, Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.1}},
			{Name: "items", Width: 2, Optimizer: rule, Initializer: ps.Initializer{Name: ps.Zero}},
			{Name: "counts", Kind: ps.Float64, Width: 2, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}},
		}},
	}
}

// learn adds 1 to the first weight of key 1 of each of the shards, in both tables of
// weights.
func learn(from ps.Offset, list ...ps.ShardID) *ps.Update {
	m := weightsModel()
	u := &ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), Version: m.Version, To: from + 1}
	for _, s := range list {
		var f ps.Fingerprint
		f.Add(ps.EventHash(0, from))
		gradient := make([]float32, 16)
		gradient[0] = -1
		u.Items = append(u.Items, ps.Item{
			Shard: s, From: from, Trained: 1, Fingerprint: f, EventTime: 1000 * int64(from+1),
			Rows: []ps.Rows{
				{Table: users, Keys: []ps.Key{keyOf(s, 1)}, Values: ps.Bytes(gradient)},
				{Table: items, Keys: []ps.Key{keyOf(s, 1)}, Values: ps.Bytes(gradient[:2])},
			},
		})
	}
	return u
}

func allShards() []ps.ShardID {
	list := make([]ps.ShardID, shards)
	for s := range list {
		list[s] = ps.ShardID(s)
	}
	return list
}

// readsOf are reads of keys 1 and 2 of every shard in both tables of weights.
func readsOf() []ps.Read {
	group := new(ps.Group)
	var keys []ps.Key
	for _, s := range allShards() {
		keys = append(keys, keyOf(s, 1), keyOf(s, 2))
	}
	group.Fill(keys, shards)
	return []ps.Read{{Table: users, RowBytes: 64, Group: group}, {Table: items, RowBytes: 8, Group: group}}
}

func lookUp(t *testing.T, c *client.Client, o client.LookupOptions) ([]ps.Read, []client.ShardFreshness) {
	t.Helper()
	reads := readsOf()
	fresh, err := c.Lookup(t.Context(), "w", weightsModel().Layout.Hash(), reads, o)
	if err != nil {
		t.Fatal(err)
	}
	return reads, fresh
}

func TestALookupHasTheWeightsOfAPullAndSaysHowFreshTheyAre(t *testing.T) {
	o := newOwnership(testModel(), weightsModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a", "b")
	<-a.node.Ready()
	<-b.node.Ready()
	c := dial(t, o)
	for i := range ps.Offset(3) {
		push(t, c, learn(i, allShards()...))
	}
	push(t, c, learn(3, 5))
	pulled := readsOf()
	if err := c.Pull(t.Context(), "w", weightsModel().Layout.Hash(), pulled); err != nil {
		t.Fatal(err)
	}
	for _, encoding := range []ps.Encoding{ps.Plain, ps.Float16, ps.BFloat16, ps.Int8} {
		reads, fresh := lookUp(t, c, client.LookupOptions{Encoding: encoding})
		for i := range reads {
			width := reads[i].RowBytes / 4
			got, want := ps.View[float32](reads[i].Values), ps.View[float32](pulled[i].Values)
			for row := 0; row < len(want); row += width {
				greatest := 0.0
				for _, w := range want[row : row+width] {
					greatest = max(greatest, math.Abs(float64(w)))
				}
				for k := row; k < row+width; k++ {
					// What ps/quant promises, and as much as float32 has left of it.
					bound := map[ps.Encoding]float64{ps.Float16: max(math.Abs(float64(want[k]))/2048, 0x1p-25), ps.BFloat16: math.Abs(float64(want[k])) / 256, ps.Int8: greatest / 253}[encoding]
					if far := math.Abs(float64(got[k]) - float64(want[k])); far > bound*(1+1e-6) {
						t.Fatalf("%v, table %d, weight %d is %v, want %v up to %v", encoding, reads[i].Table, k, got[k], want[k], bound)
					}
				}
			}
		}
		if len(fresh) != shards {
			t.Fatalf("%v: the freshness of %d shards, want %d", encoding, len(fresh), shards)
		}
		for s, f := range fresh {
			seq := uint64(3)
			if s == 5 {
				seq = 4
			}
			if f.Shard != ps.ShardID(s) || f.Boundary != (ps.Boundary{Fence: 1, Seq: seq}) || len(f.Applied) != 2 || f.Applied[0] != ps.Offset(seq) || f.Applied[1] != 0 || f.EventTime != int64(1000*seq) {
				t.Errorf("%v: shard %d says %+v, want seq %d, as many events applied, and their time", encoding, s, f, seq)
			}
		}
	}
}

// oneShard is a look-up of key 1 of a shard in both tables of weights.
func oneShard(s ps.ShardID) *ps.Lookup {
	m := weightsModel()
	keys := []ps.Key{keyOf(s, 1)}
	return &ps.Lookup{Pull: ps.Pull{
		Model: m.Name, Layout: m.Layout.Hash(), Shards: []ps.ShardID{s},
		Tables: []ps.TableKeys{{Table: users, Counts: []uint32{1}, Keys: keys}, {Table: items, Counts: []uint32{1}, Keys: keys}},
	}}
}

// ask asks a node without a network.
func ask(ctx context.Context, r *running, l *ps.Lookup) ([]ps.Freshness, error) {
	tables, err := r.node.Tables(l.Model, l.Layout)
	if err != nil {
		return nil, err
	}
	var values [][]byte
	for _, t := range l.Tables {
		values = append(values, make([]byte, len(t.Keys)*l.Encoding.RowBytes(tables[t.Table])))
	}
	fresh := make([]ps.Freshness, len(l.Shards))
	return fresh, r.node.Lookup(ctx, l, values, fresh)
}

func TestAgeIsSinceSomethingWasLastAppliedOrTheShardWasOpened(t *testing.T) {
	before := time.Now()
	o := newOwnership(weightsModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	opened := time.Now()
	c := dial(t, o)
	age := func(s ps.ShardID, from, to time.Time) {
		t.Helper()
		asked := time.Now()
		fresh, err := ask(t.Context(), a, oneShard(s))
		if err != nil {
			t.Fatal(err)
		}
		if got, least, most := fresh[0].Age, asked.Sub(to), time.Since(from); got < least || got > most {
			t.Errorf("shard %d is %v old, want %v to %v", s, got, least, most)
		}
	}
	age(3, before, opened)
	pushing := time.Now()
	push(t, c, learn(0, 3))
	pushed := time.Now()
	push(t, c, learn(0, 3)) // a duplicate applies nothing
	age(3, pushing, pushed)
	age(4, before, opened)
}

func TestAShardThatHasLessThanTheReaderHasSeenIsRefused(t *testing.T) {
	o := newOwnership(weightsModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	c := dial(t, o)
	for i := range ps.Offset(3) {
		push(t, c, learn(i, 3, 4))
	}
	for _, seen := range []ps.Boundary{{}, {Fence: 1, Seq: 2}, {Fence: 1, Seq: 3}, {Fence: 0, Seq: 99}} {
		l := oneShard(3)
		l.Seen = []ps.Boundary{seen}
		if _, err := ask(t.Context(), a, l); err != nil {
			t.Errorf("who has seen %+v was refused: %v", seen, err)
		}
	}
	for _, seen := range []ps.Boundary{{Fence: 1, Seq: 4}, {Fence: 2, Seq: 0}, {Fence: 2, Seq: 99}} {
		l := oneShard(3)
		l.Seen = []ps.Boundary{seen}
		_, err := ask(t.Context(), a, l)
		want := fmt.Sprintf("shard 3 is at fence 1, seq 3, the reader has seen fence %d, seq %d", seen.Fence, seen.Seq)
		if !errors.Is(err, ps.ErrBehind) || !strings.Contains(err.Error(), want) {
			t.Errorf("who has seen %+v got %v, want ps.ErrBehind that says %q", seen, err, want)
		}
	}
	l := oneShard(3)
	l.AgeMax = time.Nanosecond
	if _, err := ask(t.Context(), a, l); !errors.Is(err, ps.ErrBehind) || !strings.Contains(err.Error(), "shard 3") || !strings.Contains(err.Error(), "1ns") {
		t.Errorf("who accepts 1 ns got %v, want ps.ErrBehind that says so", err)
	}
	l.AgeMax = time.Hour
	if _, err := ask(t.Context(), a, l); err != nil {
		t.Errorf("who accepts an hour was refused: %v", err)
	}
}

func TestAShardThatWasSetBackIsReadUnderItsNewFence(t *testing.T) {
	o := newOwnership(weightsModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a")
	<-a.node.Ready()
	<-b.node.Ready()
	c := dial(t, o)
	for i := range ps.Offset(3) {
		push(t, c, learn(i, allShards()...))
	}
	seen := client.LookupOptions{Seen: new(client.Seen)}
	if _, fresh := lookUp(t, c, seen); fresh[2].Boundary != (ps.Boundary{Fence: 1, Seq: 3}) {
		t.Fatalf("shard 2 is at %+v", fresh[2].Boundary)
	}
	moveTo(t, o, c, "b", b.address) // without an epoch it begins anew
	reads, fresh := lookUp(t, c, seen)
	if fresh[2].Boundary != (ps.Boundary{Fence: 2}) || ps.View[float32](reads[1].Values)[0] != 0 {
		t.Errorf("under its new owner shard 2 is at %+v, want fence 2 and nothing learnt", fresh[2].Boundary)
	}
	push(t, c, learn(0, 2))
	if _, fresh = lookUp(t, c, seen); fresh[2].Boundary != (ps.Boundary{Fence: 2, Seq: 1}) {
		t.Errorf("it is then at %+v, want seq 1", fresh[2].Boundary)
	}
	l := oneShard(2)
	l.Seen = []ps.Boundary{{Fence: 2, Seq: 2}}
	if _, err := ask(t.Context(), b, l); !errors.Is(err, ps.ErrBehind) {
		t.Errorf("who has seen more under the new fence got %v, want ps.ErrBehind", err)
	}
}

func TestRowsOfAllTablesOfAShardAreOfTheBoundaryThatIsSaid(t *testing.T) {
	o := newOwnership(weightsModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	c := dial(t, o)
	initial, _ := lookUp(t, c, client.LookupOptions{})
	born := ps.View[float32](initial[0].Values)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range ps.Offset(300) {
			wait, err := c.Push(t.Context(), learn(i, allShards()...))
			if err == nil {
				_, err = wait(t.Context())
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	options := client.LookupOptions{Seen: new(client.Seen)}
	for pushing := true; pushing; {
		select {
		case <-done:
			pushing = false
		default:
		}
		reads, fresh := lookUp(t, c, options)
		for i := range fresh {
			from, _ := reads[0].Group.Shard(fresh[i].Shard)
			user := ps.View[float32](reads[0].Values)[16*from] - born[16*from]
			item := ps.View[float32](reads[1].Values)[2*from]
			if math.Abs(float64(user)-float64(fresh[i].Seq)) > 0.01 || item != float32(fresh[i].Seq) || fresh[i].Applied[0] != ps.Offset(fresh[i].Seq) {
				t.Fatalf("shard %d at seq %d, applied %d: a user's weight has had %v, an item's %v", i, fresh[i].Seq, fresh[i].Applied[0], user, item)
			}
		}
	}
}

// ending is a context whose time is up when it was looked at a number of times.
type ending struct {
	context.Context
	looks atomic.Int64
}

func (e *ending) Err() error {
	if e.looks.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

func TestALookupEndsBetweenStripesWhenItsTimeIsUp(t *testing.T) {
	o := newOwnership(weightsModel())
	a := start(t, "a", o) // of 3 stripes
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	m := weightsModel()
	for looks := range int64(6) {
		l := &ps.Lookup{Pull: ps.Pull{Model: m.Name, Layout: m.Layout.Hash(), Shards: allShards()}, Encoding: ps.Int8}
		table := ps.TableKeys{Table: users}
		for _, s := range l.Shards {
			table.Counts, table.Keys = append(table.Counts, 1), append(table.Keys, keyOf(s, 1))
		}
		l.Tables = []ps.TableKeys{table}
		ctx := &ending{Context: t.Context()}
		ctx.looks.Store(looks)
		fresh, err := ask(ctx, a, l)
		read := 0
		for i := range fresh {
			if fresh[i].Fence == 1 {
				read++
			}
		}
		// It looks once before all, before each of the stripes, which have 3, 3 and 2 shards,
		// and before it encodes.
		if most := min(max(0, looks-1)*3, shards); int64(read) > most || (looks < 5) != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("time was up after %d looks: %d shards were read (%v), want at most %d", looks, read, err, most)
		}
	}
}

// plainly dials a node as programs in other languages do, by the generated code alone.
func plainly(t *testing.T, address string) psv1.LookupsClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return psv1.NewLookupsClient(conn)
}

// said returns the code and reason of an error of gRPC.
func said(err error) (codes.Code, string) {
	st := status.Convert(err)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return st.Code(), info.GetReason()
		}
	}
	return st.Code(), ""
}

func TestWrongLookupsAreRefusedWithTheirReasonAndDisturbNobody(t *testing.T) {
	o := newOwnership(testModel(), weightsModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a", "b")
	<-a.node.Ready()
	c, plain := dial(t, o), plainly(t, a.address)
	push(t, c, learn(0, 2))
	with := func(change func(l *ps.Lookup, m *psv1.LookupRequest)) *psv1.LookupRequest {
		l := oneShard(2)
		change(l, nil)
		m := wire.LookupRequest(l)
		change(l, m)
		return m
	}
	words := func(change func(l *ps.Lookup)) *psv1.LookupRequest {
		return with(func(l *ps.Lookup, m *psv1.LookupRequest) {
			if m == nil {
				change(l)
			}
		})
	}
	message := func(change func(m *psv1.LookupRequest)) *psv1.LookupRequest {
		return with(func(_ *ps.Lookup, m *psv1.LookupRequest) {
			if m != nil {
				change(m)
			}
		})
	}
	many := func(n int) *psv1.LookupRequest {
		return words(func(l *ps.Lookup) { l.Tables[0].Counts, l.Tables[0].Keys = []uint32{uint32(n)}, make([]ps.Key, n) })
	}
	good := words(func(*ps.Lookup) {})
	for name, w := range map[string]struct {
		request *psv1.LookupRequest
		code    codes.Code
		reason  string
	}{
		"an unknown model":          {words(func(l *ps.Lookup) { l.Model = "x" }), codes.NotFound, "UNKNOWN_MODEL"},
		"the layout of before":      {words(func(l *ps.Lookup) { l.Layout-- }), codes.FailedPrecondition, "MODEL_MISMATCH"},
		"an unknown table":          {words(func(l *ps.Lookup) { l.Tables[0].Table = 9 }), codes.InvalidArgument, "INVALID"},
		"a table of statistics":     {words(func(l *ps.Lookup) { l.Tables[0].Table = counts }), codes.InvalidArgument, "INVALID"},
		"a key of another shard":    {words(func(l *ps.Lookup) { l.Tables[0].Keys = []ps.Key{keyOf(3, 1)} }), codes.InvalidArgument, "INVALID"},
		"another node's shard":      {words(func(l *ps.Lookup) { l.Shards[0] = 3 }), codes.FailedPrecondition, "NOT_OWNER"},
		"no shard of any":           {words(func(l *ps.Lookup) { l.Shards[0] = 1 << 20 }), codes.FailedPrecondition, "NOT_OWNER"},
		"an age that is none":       {message(func(m *psv1.LookupRequest) { m.MaxAgeMs = math.NaN() }), codes.InvalidArgument, "INVALID"},
		"a negative age":            {message(func(m *psv1.LookupRequest) { m.MaxAgeMs = -1 }), codes.InvalidArgument, "INVALID"},
		"an unknown encoding":       {message(func(m *psv1.LookupRequest) { m.Encoding = 7 }), codes.InvalidArgument, "INVALID"},
		"more than was seen":        {words(func(l *ps.Lookup) { l.Seen = []ps.Boundary{{Fence: 1, Seq: 2}} }), codes.FailedPrecondition, "BEHIND"},
		"counts beside keys":        {message(func(m *psv1.LookupRequest) { m.Tables[0].Counts[0] = 2 }), codes.InvalidArgument, "INVALID"},
		"a million keys":            {many(1_000_000), codes.InvalidArgument, "TOO_LARGE"},
		"a key more than there may": {many(server.LookupKeysMax + 1), codes.InvalidArgument, "TOO_LARGE"},
		"ten million keys":          {many(10_000_000), codes.ResourceExhausted, ""}, // over what any message may have: gRPC itself says so
	} {
		_, err := plain.Lookup(t.Context(), w.request)
		if code, reason := said(err); code != w.code || reason != w.reason {
			t.Errorf("%s: %v %q (%v), want %v %q", name, code, reason, err, w.code, w.reason)
		}
		// It goes on as if nothing had been asked.
		resp, err := plain.Lookup(t.Context(), good)
		if err != nil || len(resp.GetValues()) != 2 || ps.View[float32](resp.GetValues()[1])[0] != 1 || resp.GetShards()[0].GetBoundary().GetSeq() != 1 {
			t.Fatalf("after %s a good look-up gave %v (%v)", name, resp, err)
		}
	}
	var group ps.Group
	keys := make([]ps.Key, 10_000_000)
	for i := range keys {
		keys[i] = ps.Key(ps.Mix(uint64(i)))
	}
	group.Fill(keys, shards)
	reads := []ps.Read{{Table: items, RowBytes: 8, Group: &group}}
	if _, err := c.Lookup(t.Context(), "w", weightsModel().Layout.Hash(), reads, client.LookupOptions{}); !errors.Is(err, ps.ErrTooLarge) {
		t.Errorf("a client's look-up of ten million keys gave %v, want ps.ErrTooLarge", err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := c.Lookup(late, "w", weightsModel().Layout.Hash(), readsOf(), client.LookupOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a look-up whose time was up gave %v, want context.DeadlineExceeded", err)
	}
	if answers := push(t, c, learn(1, 2)); answers[0].Outcome != ps.Applied {
		t.Errorf("after all that a push was answered %v (%v)", answers[0].Outcome, answers[0].Err)
	}
}

func TestReadersAreHeldToTheLimitsOfANode(t *testing.T) {
	o := newOwnership(weightsModel())
	a := startWith(t, "a", o, server.LookupLimits{Tables: []string{"counts", "items"}, KeysMax: 2, KeysPerSecond: 1e-3})
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	plain := plainly(t, a.address)
	asks := func(who string, tables ...ps.TableID) error {
		l := oneShard(2)
		l.Tables = nil
		for _, table := range tables {
			l.Tables = append(l.Tables, ps.TableKeys{Table: table, Counts: []uint32{1}, Keys: []ps.Key{keyOf(2, 1)}})
		}
		_, err := plain.Lookup(metadata.AppendToOutgoingContext(t.Context(), "freshet-identity", who), wire.LookupRequest(l))
		return err
	}
	if code, reason := said(asks("pod-1", users)); code != codes.InvalidArgument || reason != "INVALID" {
		t.Errorf("a table that is not listed: %v %q, want INVALID_ARGUMENT, INVALID", code, reason)
	}
	if code, reason := said(asks("pod-1", counts, items, items)); code != codes.InvalidArgument || reason != "TOO_LARGE" {
		t.Errorf("three keys: %v %q, want INVALID_ARGUMENT, TOO_LARGE", code, reason)
	}
	if err := asks("pod-1", counts, items); err != nil {
		t.Errorf("two keys of the listed tables: %v", err)
	}
	err := asks("pod-1", items)
	if code, reason := said(err); code != codes.ResourceExhausted || reason != "LIMITED" {
		t.Errorf("a third key at once: %v %q, want RESOURCE_EXHAUSTED, LIMITED", code, reason)
	}
	limited, ok := errors.AsType[*ps.LimitedError](wire.FromStatus(err))
	if !ok || limited.Wait < 900*time.Second || limited.Wait > 1000*time.Second {
		t.Errorf("of a key every 1000 s the third is to come after %+v, want 1000 s less what has passed", limited)
	}
	if err := asks("pod-2", items); err != nil {
		t.Errorf("another reader: %v", err)
	}
}
