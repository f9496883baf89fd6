package node_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/server"
)

const shards = 8

// testModel has one table whose pushes add up, so that what was applied shows.
func testModel() ps.Model {
	return ps.Model{
		Name: "m", Version: 1, Stream: "s", Partitions: 2,
		Layout: ps.Layout{Seed: 1, Tables: []ps.Table{{
			Name: "sums", Kind: ps.Float64, Width: 2,
			Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero},
		}}},
	}
}

// ownership is a shard map that a test changes.
type ownership struct {
	mu      sync.Mutex
	current route.Map        // guarded by mu
	epoch   checkpoint.Epoch // guarded by mu
	changed chan struct{}    // guarded by mu
	models  []ps.Model
}

func newOwnership(models ...ps.Model) *ownership {
	return &ownership{changed: make(chan struct{}), models: models}
}

// set makes the given nodes own the shards in turn, under a raised fence, with nobody
// standing by.
func (o *ownership) set(addresses map[ps.NodeID]string, owners ...ps.NodeID) {
	o.setWith(addresses, nil, owners...)
}

// setWith is set with standbys.
func (o *ownership) setWith(addresses map[ps.NodeID]string, standbys []ps.NodeID, owners ...ps.NodeID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := route.Map{Version: o.current.Version + 1, Shards: make([]route.Shard, shards), Addresses: addresses}
	for s := range next.Shards {
		next.Shards[s].Owner = owners[s%len(owners)]
		next.Shards[s].Standbys = standbys
		next.Shards[s].Fence = 1
		if len(o.current.Shards) > 0 {
			next.Shards[s].Fence = o.current.Shards[s].Fence
			if o.current.Shards[s].Owner != next.Shards[s].Owner {
				next.Shards[s].Fence++
			}
		}
	}
	o.current = next
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *ownership) WatchMap(ctx context.Context) <-chan route.Map {
	maps := make(chan route.Map)
	go func() {
		defer close(maps)
		for {
			o.mu.Lock()
			m, changed := o.current, o.changed
			o.mu.Unlock()
			if m.Version > 0 {
				select {
				case maps <- m:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return maps
}

// Epoch returns the committed epoch.
func (o *ownership) Epoch(context.Context, string) (checkpoint.Epoch, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.epoch, nil
}

func (o *ownership) WatchModels(ctx context.Context) <-chan []ps.Model {
	models := make(chan []ps.Model, 1)
	models <- o.models
	context.AfterFunc(ctx, func() { close(models) })
	return models
}

// copies brings copies from other nodes.
type copies struct{ o *ownership }

func (c copies) Follow(ctx context.Context, model string, shards <-chan []ps.ShardID, take func(*ps.Delta) error) error {
	cl, err := client.Dial(ctx, client.Config{Routes: c.o, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil //nolint:nilerr // the test is over
	}
	return errors.Join(cl.Follow(ctx, model, shards, take), cl.Close())
}

// running is a node that serves on loopback until stop.
type running struct {
	address string
	node    *node.Node
	stop    func()
}

func start(t testing.TB, id ps.NodeID, o *ownership) *running {
	t.Helper()
	return startWith(t, id, o, server.LookupLimits{})
}

// startWith is start with limits of look-ups.
func startWith(t testing.TB, id ps.NodeID, o *ownership, limits server.LookupLimits) *running {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	n, err := node.New(node.Config{ID: id, Ownership: o, Copies: copies{o}, Stripes: 3, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := grpc.NewServer(server.Options()...)
	server.Register(s, n, o)
	if err := server.RegisterLookups(s, n, limits); err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("node %s: %v", id, err)
		}
	})
	tasks.Go(func() { _ = s.Serve(listener) })
	r := &running{address: listener.Addr().String(), node: n, stop: sync.OnceFunc(func() {
		cancel()
		s.Stop()
		tasks.Wait()
	})}
	t.Cleanup(r.stop)
	return r
}

// unused returns an address where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}

func dial(t testing.TB, o *ownership, options ...grpc.DialOption) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Routes: o, Logger: slog.New(slog.DiscardHandler), DialOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return c
}

// keyOf returns the i-th key of a shard.
func keyOf(s ps.ShardID, i int) ps.Key { return ps.Key(uint64(s)<<61 | uint64(i)) }

// everyShard returns an update of one key at every shard: value is added to its
// first element.
func everyShard(from, to ps.Offset, value float64) *ps.Update {
	m := testModel()
	u := &ps.Update{Model: m.Name, Stream: m.Stream, Layout: m.Layout.Hash(), Version: m.Version, To: to}
	for s := range ps.ShardID(shards) {
		var f ps.Fingerprint
		f.Add(ps.EventHash(0, from))
		u.Items = append(u.Items, ps.Item{
			Shard: s, From: from, Trained: 1, Fingerprint: f,
			Rows: []ps.Rows{{Keys: []ps.Key{keyOf(s, 1)}, Values: ps.Bytes([]float64{value, 1})}},
		})
	}
	return u
}

func push(t testing.TB, c *client.Client, u *ps.Update) []ps.Answer {
	t.Helper()
	wait, err := c.Push(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func pull(t *testing.T, c *client.Client, keys ...ps.Key) []float64 {
	t.Helper()
	m := testModel()
	var group ps.Group
	group.Fill(keys, shards)
	reads := []ps.Read{{Table: 0, RowBytes: 16, Group: &group}}
	if err := c.Pull(t.Context(), m.Name, m.Layout.Hash(), reads); err != nil {
		t.Fatal(err)
	}
	got := ps.View[float64](reads[0].Values)
	var inOrder []float64
	for _, at := range group.Index {
		inOrder = append(inOrder, got[2*at:2*at+2]...)
	}
	return inOrder
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhatIsPushedToSeveralNodesIsPulled(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "a", "b")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	for i, value := range []float64{1, 10, 100} {
		for _, answer := range push(t, c, everyShard(ps.Offset(i), ps.Offset(i+1), value)) {
			if answer.Outcome != ps.Applied || answer.Applied != ps.Offset(i+1) {
				t.Errorf("push %d: shard %d answered %v, applied %d (%v)", i, answer.Shard, answer.Outcome, answer.Applied, answer.Err)
			}
		}
	}
	got := pull(t, c, keyOf(7, 1), keyOf(0, 1), keyOf(7, 1), keyOf(3, 2))
	want := []float64{111, 3, 111, 3, 111, 3, 0, 0}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("pulled %v, want %v: repeated keys, another shard, and a row never pushed to", got, want)
		}
	}
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	for s, shard := range progress {
		if shard.Shard != ps.ShardID(s) || shard.Rows != 1 || shard.Partitions[0].Applied != 3 || shard.Partitions[1].Applied != 0 {
			t.Errorf("shard %d says %+v, want 1 row, partition 0 applied up to 3, partition 1 up to 0", s, shard)
		}
	}
}

func TestWithoutEtcdTheMapIsWatchedAtANode(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a")
	<-a.node.Ready()
	<-b.node.Ready()
	logger := slog.New(slog.DiscardHandler)
	if _, err := client.Addresses(logger, nil); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("routes at no address gave %v, want ErrInvalid", err)
	}
	routes, err := client.Addresses(logger, nil, unused(t), b.address, a.address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), client.Config{Routes: routes, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	}()
	push(t, c, everyShard(0, 1, 5))
	if got := pull(t, c, keyOf(4, 1)); got[0] != 5 {
		t.Errorf("pulled %v, want what was pushed, 5", got[0])
	}
	b.stop()
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	m, err := c.Map(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := m.Addresses["b"]; m.Version != 2 || there {
		t.Errorf("after the watched node died the map is %+v, want version 2 without it, from the next address", m)
	}
}

func TestWhenNobodyAnswersWhoWasNamedTheMapIsWatchedAtItsNodes(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	o.set(map[ps.NodeID]string{"a": a.address, "b": b.address}, "b")
	<-a.node.Ready()
	<-b.node.Ready()
	logger := slog.New(slog.DiscardHandler)
	routes, err := client.Addresses(logger, nil, a.address) // as a coordinator's would be
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), client.Config{Routes: routes, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m, err := c.Map(t.Context(), 0); err != nil || m.Version != 1 {
		t.Fatalf("the map is %+v (%v), want version 1", m, err)
	}
	a.stop()
	o.set(map[ps.NodeID]string{"b": b.address}, "b")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if m, err := c.Map(ctx, 1); err != nil || m.Version != 2 {
		t.Errorf("after the only named address is gone the map is %+v (%v), want version 2 from the other node", m, err)
	}
}

func TestARepeatedPushChangesNothing(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	for i := range 3 {
		want := ps.Duplicate
		if i == 0 {
			want = ps.Applied
		}
		for _, answer := range push(t, c, everyShard(0, 1, 5)) {
			if answer.Outcome != want || answer.Applied != 1 {
				t.Fatalf("push %d: shard %d answered %v with applied %d, want %v with 1", i, answer.Shard, answer.Outcome, answer.Applied, want)
			}
		}
	}
	if got := pull(t, c, keyOf(2, 1)); got[0] != 5 {
		t.Errorf("after three equal pushes of 5 the sum is %v, want 5", got[0])
	}
}

func TestPullsWaitForAnOwnerAndFollowTheMap(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a", "")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	pulled := make(chan error, 1)
	go func() {
		m := testModel()
		var group ps.Group
		group.Fill([]ps.Key{keyOf(0, 1), keyOf(1, 1)}, shards)
		pulled <- c.Pull(t.Context(), m.Name, m.Layout.Hash(), []ps.Read{{RowBytes: 16, Group: &group}})
	}()
	select {
	case err := <-pulled:
		t.Fatalf("a pull from a shard without owner returned %v", err)
	case <-time.After(100 * time.Millisecond): // that it still waits is what is looked at
	}
	o.set(both, "a", "b")
	if err := <-pulled; err != nil {
		t.Errorf("the pull failed after the shard got an owner: %v", err)
	}
}

func TestShardsOfSeveralNodesThatAreGoneAreAskedForAgainTogether(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"b": unused(t), "c": unused(t)}, "b", "c")
	failed := make(chan struct{}, 100)
	c := dial(t, o, grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(ctx, desc, conn, method, options...)
		if err != nil {
			failed <- struct{}{}
		}
		return stream, err
	}))
	pulled := make(chan error, 1)
	go func() {
		var keys []ps.Key
		for s := range ps.ShardID(shards) {
			keys = append(keys, keyOf(s, 1))
		}
		m := testModel()
		var group ps.Group
		group.Fill(keys, shards)
		pulled <- c.Pull(t.Context(), m.Name, m.Layout.Hash(), []ps.Read{{RowBytes: 16, Group: &group}})
	}()
	<-failed // at b and c, in any order
	<-failed
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	if err := <-pulled; err != nil {
		t.Errorf("a pull whose shards came from two dead nodes to one returned %v", err)
	}
}

func TestANodeThatCannotBeConnectedToHoldsUpNobodyElse(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	// silent takes connections and never says a word, so that a call to it waits.
	var config net.ListenConfig
	silent, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	o.set(map[ps.NodeID]string{"a": a.address, "b": silent.Addr().String()}, "a", "b")
	c := dial(t, o)
	<-a.node.Ready()

	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	pushed := make(chan []ps.Answer, 1)
	go func() {
		wait, err := c.Push(ctx, everyShard(0, 1, 5))
		if err != nil {
			t.Errorf("push: %v", err)
		}
		answers, err := wait(t.Context())
		if err != nil {
			t.Errorf("wait for the answers: %v", err)
		}
		pushed <- answers
	}()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for { // the push waits for b; a has its part meanwhile
		if got := pull(t, c, keyOf(2, 1)); got[0] == 5 {
			break
		}
		select {
		case answers := <-pushed:
			t.Fatalf("the push did not wait for the silent node: %+v", answers)
		default:
		}
	}
	giveUp()
	for _, answer := range <-pushed {
		ofSilent := answer.Shard%2 == 1
		if ofSilent && !errors.Is(answer.Err, ps.ErrUnavailable) {
			t.Errorf("shard %d of the silent node answered %v (%v), want refused as unavailable", answer.Shard, answer.Outcome, answer.Err)
		}
		if !ofSilent && answer.Outcome != ps.Applied {
			t.Errorf("shard %d of the other node answered %v (%v), want applied", answer.Shard, answer.Outcome, answer.Err)
		}
	}
}

func TestAShardThatComesBackStartsEmptyUnderItsNewFence(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	push(t, c, everyShard(0, 1, 5))
	before, err := c.Map(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	o.set(both, "b")
	o.set(both, "a")
	if _, err := c.Map(t.Context(), before.Version+1); err != nil {
		t.Fatal(err)
	}
	for { // the node follows the map by itself
		progress, err := c.Applied(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		if progress[4].Fence == 3 {
			if progress[4].Partitions[0].Applied != 0 || progress[4].Rows != 0 {
				t.Errorf("under its new fence the shard says %+v, want nothing applied", progress[4])
			}
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the node did not follow the map")
		}
	}
}

func TestANodeThatDiesMakesPushesFailAndPullsWait(t *testing.T) {
	o := newOwnership(testModel())
	a, b := start(t, "a", o), start(t, "b", o)
	both := map[ps.NodeID]string{"a": a.address, "b": b.address}
	o.set(both, "a", "b")
	c := dial(t, o)
	<-a.node.Ready()
	<-b.node.Ready()
	push(t, c, everyShard(0, 1, 1))
	b.stop()
	for _, answer := range push(t, c, everyShard(1, 2, 1)) {
		dead := answer.Shard%2 == 1
		if dead && !errors.Is(answer.Err, ps.ErrUnavailable) {
			t.Errorf("shard %d of the dead node answered %v (%v), want refused as unavailable", answer.Shard, answer.Outcome, answer.Err)
		}
		if !dead && answer.Outcome != ps.Applied {
			t.Errorf("shard %d of the living node answered %v (%v)", answer.Shard, answer.Outcome, answer.Err)
		}
	}
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	progress, err := c.Applied(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	for s, shard := range progress {
		want := ps.Offset(2)
		if s%2 == 1 {
			want = 0 // nothing was saved: the new owner begins anew
		}
		if got := shard.Partitions[0].Applied; got != want {
			t.Errorf("shard %d has applied %d, want %d", s, got, want)
		}
	}
}

func TestWrongRequestsAreRefusedWithTheirReason(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	c := dial(t, o)
	<-a.node.Ready()
	m := testModel()
	var group, wrongShards ps.Group
	group.Fill([]ps.Key{1}, shards)
	wrongShards.Fill([]ps.Key{1}, 2*shards)
	pulls := []struct {
		name   string
		model  string
		layout uint64
		read   ps.Read
		want   error
	}{
		{"an unknown model", "x", m.Layout.Hash(), ps.Read{RowBytes: 16, Group: &group}, ps.ErrUnknownModel},
		{"another layout", "m", 1, ps.Read{RowBytes: 16, Group: &group}, ps.ErrModelMismatch},
		{"an unknown table", "m", m.Layout.Hash(), ps.Read{Table: 9, RowBytes: 16, Group: &group}, ps.ErrInvalid},
		{"rows of another width", "m", m.Layout.Hash(), ps.Read{RowBytes: 8, Group: &group}, ps.ErrCorrupt},
		{"another number of shards", "m", m.Layout.Hash(), ps.Read{RowBytes: 16, Group: &wrongShards}, ps.ErrInvalid},
	}
	for _, p := range pulls {
		if err := c.Pull(t.Context(), p.model, p.layout, []ps.Read{p.read}); !errors.Is(err, p.want) {
			t.Errorf("a pull of %s returned %v, want %v", p.name, err, p.want)
		}
	}
	if _, err := c.Applied(t.Context(), "x"); !errors.Is(err, ps.ErrUnknownModel) {
		t.Errorf("applied of an unknown model returned %v", err)
	}
	u := everyShard(0, 1, 1)
	u.Stream = "another"
	for _, answer := range push(t, c, u) {
		if !errors.Is(answer.Err, ps.ErrModelMismatch) {
			t.Errorf("a push of another stream was answered %v (%v), want ErrModelMismatch", answer.Outcome, answer.Err)
		}
	}
	tooLarge := everyShard(0, 1, 1)
	tooLarge.Items[0].Rows[0].Values = make([]byte, 70<<20)
	if answers := push(t, c, tooLarge); !errors.Is(answers[0].Err, ps.ErrTooLarge) {
		t.Errorf("a push of 70 MiB was answered %v, want ErrTooLarge", answers[0].Err)
	}
	if answers := push(t, c, everyShard(0, 1, 1)); answers[0].Outcome != ps.Applied {
		t.Errorf("after all that a good push was answered %v (%v)", answers[0].Outcome, answers[0].Err)
	}
}

func TestANodeWithoutAMapSaysSo(t *testing.T) {
	n, err := node.New(node.Config{ID: "a", Ownership: newOwnership(testModel()), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m := testModel()
	if err := n.Pull(t.Context(), &ps.Pull{Model: m.Name, Layout: m.Layout.Hash()}, nil); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("a pull before the first map returned %v, want ErrUnavailable", err)
	}
	if _, err := n.Push(t.Context(), everyShard(0, 1, 1)); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("a push before the first map returned %v, want ErrUnavailable", err)
	}
	if _, err := n.Applied(t.Context(), m.Name, nil); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("applied before the first map returned %v, want ErrUnavailable", err)
	}
}

func TestAPullBeyondWhatAMessageHoldsIsRefused(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	m := testModel()
	keys := make([]ps.Key, 64<<20/16+1)
	_, err := a.node.Sizes(&ps.Pull{
		Model: m.Name, Layout: m.Layout.Hash(), Shards: []ps.ShardID{0},
		Tables: []ps.TableKeys{{Counts: []uint32{uint32(len(keys))}, Keys: keys}},
	}, nil)
	if !errors.Is(err, ps.ErrTooLarge) {
		t.Errorf("a pull of %d rows of 16 bytes returned %v, want ErrTooLarge", len(keys), err)
	}
}

func TestProgressOfMoreShardsThanThereCanBeIsRefused(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	if _, err := a.node.Applied(t.Context(), "m", make([]ps.ShardID, ps.ShardsMax+1)); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("progress of %d shards returned %v, want ErrInvalid", ps.ShardsMax+1, err)
	}
	progress, err := a.node.Applied(t.Context(), "m", nil)
	if err != nil || len(progress) != shards {
		t.Errorf("progress of all shards is of %d (%v), want %d", len(progress), err, shards)
	}
}

func TestAClosedNodeSaysSo(t *testing.T) {
	o := newOwnership(testModel())
	a := start(t, "a", o)
	o.set(map[ps.NodeID]string{"a": a.address}, "a")
	<-a.node.Ready()
	a.stop()
	m := testModel()
	err := a.node.Pull(t.Context(), &ps.Pull{Model: m.Name, Layout: m.Layout.Hash(), Shards: []ps.ShardID{0}, Tables: []ps.TableKeys{{Counts: []uint32{1}, Keys: []ps.Key{1}}}}, [][]byte{make([]byte, 16)})
	if !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("a pull after the end returned %v, want ErrUnavailable", err)
	}
}
