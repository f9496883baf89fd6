package meta_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
)

// patience is how long a test waits for what must happen; none waits for it in vain.
const patience = 15 * time.Second

// endpoints are those of the etcd server that all tests share, each under a cluster
// name of its own.
var endpoints []string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "freshet-meta")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	server, err := etcd.Start(context.Background(), etcd.Config{Dir: dir, UnsafeNoFsync: true})
	if err != nil {
		return 1, err
	}
	defer server.Close()
	endpoints = server.Endpoints()
	return m.Run(), nil
}

// clusters numbers tests, since the same one may run several times.
var clusters struct {
	mu      sync.Mutex
	numbers map[*testing.T]int
}

// cluster returns the name of the test's own cluster.
func cluster(t *testing.T) string {
	clusters.mu.Lock()
	defer clusters.mu.Unlock()
	if clusters.numbers == nil {
		clusters.numbers = make(map[*testing.T]int) // it keeps every test, so that none takes another's address
	}
	n, ok := clusters.numbers[t]
	if !ok {
		n = len(clusters.numbers)
		clusters.numbers[t] = n
	}
	return fmt.Sprintf("test-%d", n)
}

// dial connects a store for the test's own cluster. Several of one test share it.
func dial(t *testing.T, change ...func(*meta.Config)) *meta.Store {
	t.Helper()
	cfg := meta.Config{
		Endpoints: endpoints,
		Cluster:   cluster(t),
		LeaseTTL:  time.Second, // etcd makes it 2
	}
	for _, f := range change {
		f(&cfg)
	}
	s, err := meta.Dial(t.Context(), cfg)
	if err != nil {
		t.Fatalf("dial %v: %v", cfg.Endpoints, err)
	}
	t.Cleanup(s.Close)
	return s
}

// etcdClient returns a client of etcd itself, to do what operators do.
func etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// next returns the next value of a watch.
func next[T any](t *testing.T, values <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-values:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return v
	case <-time.After(patience):
		t.Fatal("the watch gives nothing")
	}
	panic("unreachable")
}

// until returns the first value of a watch that is as wanted.
func until[T any](t *testing.T, values <-chan T, wanted func(T) bool) T {
	t.Helper()
	for {
		if v := next(t, values); wanted(v) {
			return v
		}
	}
}

// create makes the test's cluster and returns the map's revision.
func create(t *testing.T, s *meta.Store, shards int) coordinator.View {
	t.Helper()
	if _, err := s.CreateCluster(t.Context(), shards); err != nil {
		t.Fatalf("create a cluster of %d shards: %v", shards, err)
	}
	return view(t, s)
}

func view(t *testing.T, s *meta.Store) coordinator.View {
	t.Helper()
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatalf("view: %v", err)
	}
	return v
}

// runs runs a registration until the returned function is called, which returns what
// Run did.
func runs(t *testing.T, r interface{ Run(context.Context) error }) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { stop() })
	return stop
}

func joinNode(t *testing.T, s *meta.Store, id ps.NodeID) (leave func() error) {
	t.Helper()
	r, err := s.JoinNode(t.Context(), coordinator.Node{ID: id, Address: "host-" + string(id) + ":7070", Name: string(id)})
	if err != nil {
		t.Fatalf("join node %s: %v", id, err)
	}
	return runs(t, r)
}

// link is a network path to etcd that can be cut.
type link struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func newLink(t *testing.T) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: strings.TrimPrefix(endpoints[0], "http://"), conns: make(map[net.Conn]bool)}
	l.wg.Add(1)
	go l.accept()
	t.Cleanup(func() {
		listener.Close()
		l.Cut()
		l.wg.Wait()
	})
	return l
}

func (l *link) endpoint() string { return "http://" + l.listener.Addr().String() }

// Cut breaks all connections and refuses new ones.
func (l *link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		c.Close()
	}
	clear(l.conns)
}

// Mend lets connections through again.
func (l *link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *link) accept() {
	defer l.wg.Done()
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		if l.cut {
			near.Close()
			far.Close()
		} else {
			l.conns[near], l.conns[far] = true, true
			l.wg.Add(2)
			go l.pipe(near, far)
			go l.pipe(far, near)
		}
		l.mu.Unlock()
	}
}

func (l *link) pipe(to, from net.Conn) {
	defer l.wg.Done()
	io.Copy(to, from)
	to.Close()
	from.Close()
}
