package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/control"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// patience is how long a test waits for what must happen; none waits for it in vain.
const patience = 15 * time.Second

// store returns a store of a cluster of 8 shards, on an etcd of the test's own.
func store(t *testing.T) *meta.Store {
	t.Helper()
	server, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	s, err := meta.Dial(t.Context(), meta.Config{Endpoints: server.Endpoints(), LeaseTTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.CreateCluster(t.Context(), 8); err != nil {
		t.Fatal(err)
	}
	return s
}

// lines is a log that goroutines may write to, and that can be waited for.
type lines struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	written chan struct{} // holds one: something was written since
}

func newLines() *lines { return &lines{written: make(chan struct{}, 1)} }

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.written <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// wait waits until the log holds text.
func (l *lines) wait(t *testing.T, text string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.written:
		case <-timeout:
			t.Fatalf("the log lacks %s:\n%s", text, l)
		}
	}
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// run runs a controller until stop is called.
func run(t *testing.T, cfg control.Config) (stop func()) {
	t.Helper()
	c, err := control.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return background(t, c.Run)
}

func background(t *testing.T, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func node(t *testing.T, s *meta.Store, id ps.NodeID) (leave func()) {
	t.Helper()
	r, err := s.JoinNode(t.Context(), coordinator.Node{ID: id, Address: string(id) + ":1"})
	if err != nil {
		t.Fatal(err)
	}
	return background(t, r.Run)
}

// until waits for a view that is as wanted.
func until(t *testing.T, s *meta.Store, what string, wanted func(coordinator.View) bool) coordinator.View {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last coordinator.View
	for v := range s.WatchView(ctx) {
		if last = v; wanted(v) {
			return v
		}
	}
	t.Fatalf("want %s, have %+v", what, last)
	return last
}

func shares(v coordinator.View) map[ps.NodeID]int {
	n := make(map[ps.NodeID]int)
	for _, s := range v.Shards {
		n[s.Owner]++
	}
	return n
}

func complete(v coordinator.View) bool { return v.Map().Complete() }

func model() coordinator.Model {
	return coordinator.Model{
		Model: ps.Model{
			Name: "m", Stream: "s", Partitions: 4,
			Layout: ps.Layout{Tables: []ps.Table{{Name: "t", Width: 1}}},
		},
		Spec: []byte("model: m"),
	}
}

func TestRun(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("places, assigns and follows who comes and goes, and says why", func(t *testing.T) {
		s := store(t)
		log := newLines()
		run(t, control.Config{Store: s, ID: "c", NodesMin: 2, Logger: log.logger()})
		node(t, s, "a")
		log.wait(t, `because="1 of 2 nodes are there`)
		leave := node(t, s, "b")
		v := until(t, s, "a complete map", complete)
		if n := shares(v); n["a"] != 4 || n["b"] != 4 {
			t.Errorf("shards per node: %v, want 4 each", n)
		}
		if _, _, err := s.ApplyModel(t.Context(), model()); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"w1", "w2"} {
			r, err := s.JoinWorker(t.Context(), coordinator.Worker{ID: id, Model: "m"})
			if err != nil {
				t.Fatal(err)
			}
			background(t, r.Run)
		}
		v = until(t, s, "an assignment to two workers", func(v coordinator.View) bool { return v.Assignments["m"].Workers == 2 })
		for _, w := range []string{"w1", "w2"} {
			if got := v.Assignments["m"].Partitions(w); len(got) != 2 {
				t.Errorf("%s has partitions %v, want 2 of them", w, got)
			}
		}
		leave()
		v = until(t, s, "all shards on a", func(v coordinator.View) bool { return shares(v)["a"] == 8 })
		for id, shard := range v.Shards {
			if want := ps.Fence(1 + id%2); shard.Fence != want {
				t.Errorf("shard %d has fence %d, want %d", id, shard.Fence, want)
			}
		}
		log.wait(t, `"4 shards (1, 3, 5, 7) given to b" because="nobody owned that"`)
		log.wait(t, `"4 shards (1, 3, 5, 7) from b to a" because="node b is gone"`)
		log.wait(t, "w2 joined")
		events, err := s.Events(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		var told strings.Builder
		for _, e := range events {
			fmt.Fprintln(&told, e, "by", e.By)
		}
		for _, want := range []string{
			"member: node b joined by c", "shards: 4 shards (1, 3, 5, 7) given to b because nobody owned that by c",
			"partitions: 4 partitions of model m are read by 2 workers because ",
			"member: node b is gone because it left, was expelled or was not heard of by c",
			"shards: 4 shards (1, 3, 5, 7) from b to a because node b is gone by c",
		} {
			if !strings.Contains(told.String(), want) {
				t.Errorf("the log of events lacks %q:\n%s", want, told.String())
			}
		}
	})
	t.Run("a second one waits, and goes on where the first ended", func(t *testing.T) {
		s := store(t)
		stop := run(t, control.Config{Store: s, ID: "first"})
		node(t, s, "a")
		before := until(t, s, "a complete map", complete)
		run(t, control.Config{Store: s, ID: "second"})
		stop()
		leave := node(t, s, "b")
		leave() // nothing to do for either
		node(t, s, "c")
		if _, _, err := s.ApplyModel(t.Context(), model()); err != nil {
			t.Fatal(err)
		}
		r, err := s.JoinWorker(t.Context(), coordinator.Worker{ID: "w", Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		background(t, r.Run)
		after := until(t, s, "an assignment", func(v coordinator.View) bool { return v.Assignments["m"].Generation > 0 })
		if after.MapRevision != before.MapRevision {
			t.Errorf("the second leader changed a map that was right: %+v -> %+v", before.Shards, after.Shards)
		}
	})
	t.Run("a cluster that has lost all its nodes waits only for a while", func(t *testing.T) {
		s := store(t)
		run(t, control.Config{Store: s, ID: "c", NodesMin: 2, NodesWait: 50 * time.Millisecond})
		leaveA, leaveB := node(t, s, "a"), node(t, s, "b")
		until(t, s, "a complete map", complete)
		leaveA()
		leaveB()
		node(t, s, "a2")
		until(t, s, "a complete map", complete)
	})
}

// meddler is a store that others change behind the controller's back, and that is not
// always there.
type meddler struct {
	control.Store
	t        *testing.T
	s        *meta.Store
	meddle   sync.Once
	failures int
}

func (m *meddler) SetMap(ctx context.Context, read coordinator.Read, shards []route.Shard, events ...coordinator.Event) (int64, error) {
	m.meddle.Do(func() {
		raised := make([]route.Shard, len(shards))
		for id := range raised {
			raised[id].Fence = 7
		}
		if _, err := m.s.SetMap(ctx, read, raised); err != nil {
			m.t.Errorf("meddle: %v", err)
		}
	})
	return m.Store.SetMap(ctx, read, shards, events...)
}

func (m *meddler) SetAssignment(ctx context.Context, expected ps.Generation, a coordinator.Assignment, events ...coordinator.Event) (coordinator.Assignment, error) {
	if m.failures > 0 {
		m.failures--
		return coordinator.Assignment{}, fmt.Errorf("no etcd: %w", ps.ErrUnavailable)
	}
	return m.Store.SetAssignment(ctx, expected, a, events...)
}

func TestRunAgainstOdds(t *testing.T) {
	s := store(t)
	if _, _, err := s.ApplyModel(t.Context(), model()); err != nil {
		t.Fatal(err)
	}
	r, err := s.JoinWorker(t.Context(), coordinator.Worker{ID: "w", Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	background(t, r.Run)
	node(t, s, "a")
	run(t, control.Config{Store: &meddler{Store: s, t: t, s: s, failures: 9}, ID: "c", RetryDelay: time.Millisecond})
	t.Run("a map that somebody else has changed is planned anew", func(t *testing.T) {
		v := until(t, s, "a complete map", complete)
		if !v.Shards[0].Equal(route.Shard{Owner: "a", Fence: 8}) {
			t.Errorf("shard 0 is %+v, want owner a with the fence after 7", v.Shards[0])
		}
	})
	// Views stop coming when the map is complete, after at most a few of the failures.
	t.Run("a change that could not be made is tried again, without anybody's coming", func(t *testing.T) {
		until(t, s, "an assignment", func(v coordinator.View) bool { return v.Assignments["m"].Generation == 1 })
	})
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]control.Config{
		"no store":        {ID: "c"},
		"no ID":           {Store: &meta.Store{}},
		"a negative wait": {Store: &meta.Store{}, ID: "c", NodesWait: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := control.New(cfg); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
		})
	}
}

// holding is what nodes hold: of the shards that move to one, whole copies.
type holding struct{ s *meta.Store }

func (h holding) Holdings(ctx context.Context, address string) (all []ps.Holding, err error) {
	v, err := h.s.View(ctx)
	if err != nil {
		return nil, err
	}
	for id, shard := range v.Shards {
		if m := v.Map(); m.Addresses[shard.Target] == address {
			for _, model := range v.Models {
				all = append(all, ps.Holding{Model: model.Name, Shard: ps.ShardID(id), Fence: shard.Fence, Copy: true})
			}
		}
	}
	return all, nil
}

func TestOperatorsMoveAndDrain(t *testing.T) {
	s := store(t)
	if _, _, err := s.ApplyModel(t.Context(), model()); err != nil {
		t.Fatal(err)
	}
	c, err := control.New(control.Config{Store: s, ID: "c", NodesMin: 2, Nodes: holding{s}, Moves: 2})
	if err != nil {
		t.Fatal(err)
	}
	background(t, c.Run)
	ctx := t.Context()
	node(t, s, "a")
	node(t, s, "b")
	until(t, s, "a complete map", complete)
	if err := c.Move(ctx, []ps.ShardID{0}, "b", "operator"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "shard 0 on b, and another one of b's on a in its place or not", func(v coordinator.View) bool { return v.Shards[0].Owner == "b" && v.Shards[0].Fence == 2 })
	for what, try := range map[string]struct {
		is  error
		err error
	}{
		"a shard that is not there": {ps.ErrInvalid, c.Move(ctx, []ps.ShardID{8}, "a", "operator")},
		"a node that is not there":  {ps.ErrInvalid, c.Move(ctx, []ps.ShardID{1}, "z", "operator")},
		"nobody to drain":           {ps.ErrUnavailable, c.Drain(ctx, "z", true, "operator")},
	} {
		if !errors.Is(try.err, try.is) {
			t.Errorf("%s: %v, want %v", what, try.err, try.is)
		}
	}
	if err := c.Drain(ctx, "b", true, "operator"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "all shards on a, and none on their way", func(v coordinator.View) bool { return shares(v)["a"] == 8 && !moving(v) })
	if err := c.Drain(ctx, "a", true, "operator"); !errors.Is(err, ps.ErrConflict) {
		t.Errorf("drain of the last node: %v, want ErrConflict", err)
	}
	if err := c.Move(ctx, []ps.ShardID{1}, "b", "operator"); !errors.Is(err, ps.ErrConflict) {
		t.Errorf("a move to a node that is drained: %v, want ErrConflict", err)
	}
	if err := c.Drain(ctx, "b", false, "operator"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "b has its share again", func(v coordinator.View) bool { return shares(v)["b"] == 4 && !moving(v) })
	if moves, err := c.Rebalance(ctx, true, "operator"); err != nil || len(moves) > 0 {
		t.Errorf("even nodes would be evened out by %v (%v)", moves, err)
	}
	events, err := s.Events(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, e := range events {
		if e.By == "operator" {
			asked++
		}
	}
	if asked != 3 {
		t.Errorf("%d events are an operator's, want a move and two drains: %+v", asked, events)
	}
}

func moving(v coordinator.View) bool {
	return slices.ContainsFunc(v.Shards, func(s route.Shard) bool { return s.Target != "" })
}
