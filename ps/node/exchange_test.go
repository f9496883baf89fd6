package node_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// manyRows returns an update of rows keys at every shard, so large that whoever can
// overtake it does.
func manyRows(from, to ps.Offset, rows int) *ps.Update {
	u := everyShard(from, to, 1)
	for i := range u.Items {
		var keys []ps.Key
		var values []float64
		for k := range rows {
			keys, values = append(keys, keyOf(u.Items[i].Shard, k)), append(values, 1, 1)
		}
		u.Items[i].Rows = []ps.Rows{{Keys: keys, Values: ps.Bytes(values)}}
	}
	return u
}

func TestAPullHasEveryPushThatReturnedBeforeIt(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a", "b")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	const rows = 700
	var keys []ps.Key
	for s := range ps.ShardID(shards) {
		keys = append(keys, keyOf(s, 0), keyOf(s, rows-1))
	}
	var waits []func(context.Context) ([]ps.Answer, error)
	for i := range ps.Offset(200) {
		wait, err := c.Push(t.Context(), manyRows(i, i+1, rows))
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, wait)
		for k, got := range pull(t, c, keys...) {
			if got != float64(i+1) {
				t.Fatalf("a pull behind push %d, which nobody has waited for: element %d is %v, want %d", i, k, got, i+1)
			}
		}
	}
	for i, wait := range waits {
		answers, err := wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, answer := range answers {
			if answer.Outcome != ps.Applied {
				t.Fatalf("push %d at shard %d: %v (%v)", i, answer.Shard, answer.Outcome, answer.Err)
			}
		}
	}
}

func TestAPullThatIsGivenUpBreaksNothing(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	m := testModel()
	givenUp := 0
	for i := range ps.Offset(200) {
		wait, err := c.Push(t.Context(), manyRows(i, i+1, 300))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var pulls sync.WaitGroup
		pulls.Go(cancel)
		for range 3 {
			pulls.Go(func() {
				var group ps.Group
				group.Fill([]ps.Key{keyOf(1, 1), keyOf(2, 1)}, shards)
				reads := []ps.Read{{RowBytes: 16, Group: &group}}
				err := c.Pull(ctx, m.Name, m.Layout.Hash(), reads)
				clear(reads[0].Values) // it is the caller's again: the race detector watches
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("a pull that was given up returned %v", err)
				}
			})
		}
		pulls.Wait()
		if ctx.Err() != nil {
			givenUp++
		}
		if got := pull(t, c, keyOf(1, 1)); got[0] != float64(i+1) {
			t.Fatalf("behind push %d and pulls that were given up: %v, want %d", i, got, i+1)
		}
		if i%3 == 0 {
			continue // its answer comes before later ones
		}
		answers, err := wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if answers[0].Outcome != ps.Applied {
			t.Fatalf("push %d: %v (%v): a pull has broken its stream", i, answers[0].Outcome, answers[0].Err)
		}
	}
	if givenUp == 0 {
		t.Error("no pull was given up: the test does not test")
	}
}

func TestManyRowsArePulledInPartsByManyAtOnce(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	const rows = 10_000 // of 16 bytes: a part holds the rows of one or two shards
	if answers := push(t, c, manyRows(0, 1, rows)); answers[0].Outcome != ps.Applied {
		t.Fatal(answers[0])
	}
	var keys []ps.Key
	for s := range ps.ShardID(shards) {
		for k := range 2 * rows { // half of them are there
			keys = append(keys, keyOf(s, k))
		}
	}
	var pulls sync.WaitGroup
	for range 8 {
		pulls.Go(func() {
			m := testModel()
			var group ps.Group
			group.Fill(keys, shards)
			reads := []ps.Read{{RowBytes: 16, Group: &group}}
			for range 5 {
				if err := c.Pull(t.Context(), m.Name, m.Layout.Hash(), reads); err != nil {
					t.Error(err)
					return
				}
				for i, at := range group.Index {
					want := 1.0
					if i%(2*rows) >= rows {
						want = 0
					}
					if got := ps.View[float64](reads[0].Values)[2*at]; got != want {
						t.Errorf("key %d: %v, want %v", i, got, want)
						return
					}
				}
			}
		})
	}
	pulls.Wait()
}

// TestPlainProtobufIsUnderstood speaks to a node with the generated code alone, as programs in
// other languages do.
func TestPlainProtobufIsUnderstood(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	conn, err := grpc.NewClient(a.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	plain := psv1.NewParametersClient(conn)
	applied := func(what string, m *psv1.PushResponse, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, answer := range m.GetAnswers() {
			if answer.GetOutcome() != psv1.Outcome_OUTCOME_APPLIED {
				t.Fatalf("%s: %v", what, answer)
			}
		}
	}
	m := testModel()
	key := []ps.Key{keyOf(3, 1)}
	request := wire.PullRequest(&ps.Pull{
		Model: m.Name, Layout: m.Layout.Hash(), Shards: []ps.ShardID{3}, Tables: []ps.TableKeys{{Counts: []uint32{1}, Keys: key}},
	})
	pulled := func(what string, m *psv1.PullResponse, err error, want float64) {
		t.Helper()
		if err != nil || len(m.GetValues()) != 1 || len(m.GetValues()[0]) != 16 {
			t.Fatalf("%s: %v (%v)", what, m, err)
		}
		if got := ps.View[float64](m.GetValues()[0])[0]; got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	pushes, err := plain.Push(ctx)
	if err == nil {
		err = pushes.Send(wire.PushRequest(everyShard(0, 1, 5)))
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := pushes.Recv()
	applied("Push", answer, err)
	values, err := plain.Pull(ctx, request)
	pulled("Pull", values, err, 5)

	exchange, err := plain.Exchange(ctx)
	if err != nil {
		t.Fatal(err)
	}
	other := wire.PullRequest(&ps.Pull{Model: "another", Shards: []ps.ShardID{3}})
	for _, m := range []*psv1.ExchangeRequest{{Push: wire.PushRequest(everyShard(1, 2, 7))}, {Pull: request}, {Pull: other}, {Pull: request}, {}} {
		if err := exchange.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	response, err := exchange.Recv()
	applied("a push by Exchange", response.GetPush(), err)
	response, err = exchange.Recv()
	pulled("a pull behind it", response.GetPull(), err, 12)
	if response, err = exchange.Recv(); err != nil || response.GetReason() != "UNKNOWN_MODEL" || response.GetMore() {
		t.Errorf("a pull of an unknown model: %v (%v), want a refusal", response, err)
	}
	response, err = exchange.Recv()
	pulled("a pull behind a refused one", response.GetPull(), err, 12)
	if _, err = exchange.Recv(); !errors.Is(wire.FromStatus(err), ps.ErrInvalid) || errors.Is(err, io.EOF) {
		t.Errorf("a request for nothing: %v, want ps.ErrInvalid", err)
	}
}
