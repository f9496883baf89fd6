package node_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/wire"
)

// pullToPush pulls keys and returns their group and an update that adds 1 to those that
// chosen chooses. Where the update has no more keys than their bits, only they can have been
// what was added to.
func pullToPush(t *testing.T, c *client.Client, keys []ps.Key, from ps.Offset, chosen func() bool) (*ps.Update, map[ps.Key]bool) {
	t.Helper()
	m := testModel()
	var group ps.Group
	group.Fill(keys, shards)
	reads := []ps.Read{{Table: 0, RowBytes: 16, Group: &group}}
	_, rows, err := c.Exchange(t.Context(), nil, m.Name, m.Layout.Hash(), reads)
	if err != nil {
		t.Fatal(err)
	}
	number, err := rows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u, added := everyShard(from, from+1, 0), make(map[ps.Key]bool)
	u.Pulled = number
	for i := range u.Items {
		from, to := group.Shard(u.Items[i].Shard)
		rows := ps.Rows{Pulled: make([]byte, (to-from+7)/8)}
		for k, key := range group.Keys[from:to] {
			if chosen() {
				rows.Pulled[k/8] |= 1 << (k % 8)
				rows.Keys, added[key] = append(rows.Keys, key), true
			}
		}
		values := make([]float64, 2*len(rows.Keys))
		for k := range rows.Keys {
			values[2*k] = 1
		}
		rows.Values = ps.Bytes(values)
		u.Items[i].Rows = nil
		if len(rows.Keys) > 0 {
			u.Items[i].Rows = []ps.Rows{rows}
		}
	}
	return u, added
}

func TestAPushMayReferToTheKeysOfAPull(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	addresses := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(addresses, "a", "b")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	want := make(map[ps.Key]float64)
	var all []ps.Key
	for s := range ps.ShardID(shards) {
		for i := range 40 {
			all = append(all, keyOf(s, i))
		}
	}
	type sent struct {
		update *ps.Update
		added  map[ps.Key]bool
	}
	var ahead []sent
	for i := range ps.Offset(60) {
		var keys []ps.Key
		for range random.IntN(300) {
			keys = append(keys, all[random.IntN(len(all))])
		}
		u, added := pullToPush(t, c, keys, i, func() bool { return random.IntN(10) > 0 })
		ahead = append(ahead, sent{u, added})
		// Some are so far behind that the nodes do not have their keys any more.
		for len(ahead) > 0 && (len(ahead) > wire.PullsKept+3 || random.IntN(4) == 0 || i == 59) {
			next := ahead[0]
			ahead = ahead[1:]
			for _, answer := range push(t, c, next.update) {
				if answer.Outcome != ps.Applied {
					t.Fatalf("push up to %d at shard %d: %v (%v)", next.update.To, answer.Shard, answer.Outcome, answer.Err)
				}
			}
			for key := range next.added {
				want[key]++
			}
		}
	}
	for k, got := range pull(t, c, all...) {
		if k%2 == 0 && got != want[all[k/2]] {
			t.Errorf("key %x: %v, want %v", uint64(all[k/2]), got, want[all[k/2]])
		}
	}
}

func TestAPushAfterAMoveSendsTheKeys(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	addresses := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(addresses, "a", "a")
	c := dial(t, o)
	<-a.node.Ready()
	var keys []ps.Key
	for s := range ps.ShardID(shards) {
		keys = append(keys, keyOf(s, 5))
	}
	u, _ := pullToPush(t, c, keys, 0, func() bool { return true })
	before, err := c.Map(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	o.set(addresses, "b", "b")
	if _, err := c.Map(t.Context(), before.Version); err != nil {
		t.Fatal(err)
	}
	pull(t, c, keys...) // waits until b has opened them
	for _, answer := range push(t, c, u) {
		if answer.Outcome != ps.Applied {
			t.Errorf("shard %d: %v (%v)", answer.Shard, answer.Outcome, answer.Err)
		}
	}
	for k, got := range pull(t, c, keys...) {
		if want := float64(1 - k%2); got != want {
			t.Errorf("element %d is %v, want %v", k, got, want)
		}
	}
}

func TestAReferenceToKeysThatANodeDoesNotHaveTouchesNothing(t *testing.T) {
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
	exchange, err := psv1.NewParametersClient(conn).Exchange(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(m *psv1.ExchangeRequest) *psv1.ExchangeResponse {
		t.Helper()
		err := exchange.Send(m)
		if err != nil {
			t.Fatal(err)
		}
		response, err := exchange.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	m := testModel()
	numbered := func(number uint64, model string) *psv1.ExchangeRequest {
		return &psv1.ExchangeRequest{Pull: wire.PullRequest(&ps.Pull{
			Model: model, Layout: m.Layout.Hash(), Number: number, Shards: []ps.ShardID{1, 3},
			Tables: []ps.TableKeys{{Counts: []uint32{1, 2}, Keys: []ps.Key{keyOf(1, 7), keyOf(3, 8), keyOf(3, 9)}}},
		})}
	}
	refer := func(number uint64, shard ps.ShardID, table ps.TableID, bits byte, keys []ps.Key, rows int) *psv1.ExchangeRequest {
		u := everyShard(0, 1, 1)
		u.Pulled, u.Items = number, u.Items[shard:shard+1]
		u.Items[0].Rows = []ps.Rows{{Table: table, Pulled: []byte{bits}, Keys: keys, Values: make([]byte, 16*rows)}}
		return &psv1.ExchangeRequest{Push: wire.PushRequest(u)}
	}
	ask(numbered(1, m.Name))
	ask(numbered(2, "another")) // refused, and not kept
	for what, c := range map[string]struct {
		push   *psv1.ExchangeRequest
		reason string
	}{
		"a pull that was not asked for": {refer(7, 3, 0, 1, nil, 1), "KEYS_UNKNOWN"},
		"a pull that was refused":       {refer(2, 3, 0, 1, nil, 1), "KEYS_UNKNOWN"},
		"no pull":                       {refer(0, 3, 0, 1, nil, 1), "KEYS_UNKNOWN"},
		"a shard that was not pulled":   {refer(1, 2, 0, 1, nil, 1), "KEYS_UNKNOWN"},
		"a table that was not pulled":   {refer(1, 3, 1, 1, nil, 1), "KEYS_UNKNOWN"},
		"more keys than there were":     {refer(1, 3, 0, 5, nil, 2), "INVALID"},
		"keys of its own as well":       {refer(1, 3, 0, 1, []ps.Key{keyOf(3, 8)}, 1), "INVALID"},
		"fewer keys than rows":          {refer(1, 3, 0, 1, nil, 2), "INVALID"},
	} {
		answers := ask(c.push).GetPush().GetAnswers()
		if len(answers) != 1 || answers[0].GetOutcome() != psv1.Outcome_OUTCOME_REFUSED || answers[0].GetReason() != c.reason || answers[0].GetApplied() != 0 {
			t.Errorf("%s: %v, want %s", what, answers, c.reason)
		}
	}
	for n := range uint64(wire.PullsKept) {
		ask(numbered(10+n, m.Name))
	}
	if answers := ask(refer(1, 3, 0, 1, nil, 1)).GetPush().GetAnswers(); len(answers) != 1 || answers[0].GetReason() != "KEYS_UNKNOWN" {
		t.Errorf("a pull before the last %d: %v, want KEYS_UNKNOWN", wire.PullsKept, answers)
	}
	if answers := ask(refer(10, 3, 0, 3, nil, 2)).GetPush().GetAnswers(); len(answers) != 1 || answers[0].GetOutcome() != psv1.Outcome_OUTCOME_APPLIED {
		t.Errorf("the first of the last %d pulls: %v, want it to be applied", wire.PullsKept, answers)
	}
}
