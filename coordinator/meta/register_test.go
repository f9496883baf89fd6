package meta_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
)

func TestJoin(t *testing.T) {
	t.Parallel() // waits for leases
	t.Run("nodes are there from joining to leaving, and who joined later has the higher revision", func(t *testing.T) {
		s := dial(t)
		changes := s.WatchNodes(t.Context())
		if first := next(t, changes); len(first) != 0 {
			t.Fatalf("nodes before anybody joined: %+v", first)
		}
		leave := joinNode(t, s, "b")
		joinNode(t, s, "a")
		got := until(t, changes, func(n []coordinator.Node) bool { return len(n) == 2 })
		want := []coordinator.Node{{ID: "a", Address: "host-a:7070", Name: "a"}, {ID: "b", Address: "host-b:7070", Name: "b"}}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(coordinator.Node{}, "Joined")); diff != "" {
			t.Errorf("nodes (-want +got):\n%s", diff)
		}
		if got[0].Joined <= got[1].Joined {
			t.Errorf("a joined after b, but at revision %d and b at %d", got[0].Joined, got[1].Joined)
		}
		start := time.Now()
		if err := leave(); err != nil {
			t.Errorf("leave: %v", err)
		}
		until(t, changes, func(n []coordinator.Node) bool { return len(n) == 1 && n[0].ID == "a" })
		if took := time.Since(start); took > time.Second {
			t.Errorf("b was seen to leave after %v, which is no sooner than a crash", took)
		}
	})
	t.Run("stays registered for longer than its lease, and no longer if it is not kept", func(t *testing.T) {
		s := dial(t)
		joinNode(t, s, "kept")
		if _, err := s.JoinNode(t.Context(), coordinator.Node{ID: "silent", Address: "host:1"}); err != nil {
			t.Fatal(err)
		}
		changes := s.WatchNodes(t.Context())
		until(t, changes, func(n []coordinator.Node) bool { return len(n) == 2 })
		// Both leases are as old and as long, so what ends the one has not ended the other.
		if got := next(t, changes); len(got) != 1 || got[0].ID != "kept" {
			t.Errorf("nodes are %+v, want the kept one alone", got)
		}
	})
	t.Run("an ID that is taken is a conflict, until its owner has left", func(t *testing.T) {
		s, other := dial(t), dial(t)
		leave := joinNode(t, s, "a")
		_, err := other.JoinNode(t.Context(), coordinator.Node{ID: "a", Address: "host:1"})
		if !errors.Is(err, ps.ErrConflict) {
			t.Errorf("error is %v, want ErrConflict", err)
		}
		leave()
		joinNode(t, other, "a")
	})
	for name, n := range map[string]coordinator.Node{
		"no ID":           {Address: "host:1"},
		"no address":      {ID: "a"},
		"an ID like a/b":  {ID: "a/b", Address: "host:1"},
		"an overlong ID":  {ID: ps.NodeID(strings.Repeat("x", 129)), Address: "host:1"},
		"an ID of spaces": {ID: "  ", Address: "host:1"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if _, err := dial(t).JoinNode(t.Context(), n); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
		})
	}
	t.Run("a worker without a model is refused", func(t *testing.T) {
		if _, err := dial(t).JoinWorker(t.Context(), coordinator.Worker{ID: "w"}); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("error is %v, want ErrInvalid", err)
		}
	})
	t.Run("coordinators are listed", func(t *testing.T) {
		s := dial(t)
		r, err := s.JoinCoordinator(t.Context(), coordinator.Coordinator{ID: "c", Address: "host:1"})
		if err != nil {
			t.Fatal(err)
		}
		stop := runs(t, r)
		got, err := s.Coordinators(t.Context())
		if err != nil || len(got) != 1 || got[0].ID != "c" || got[0].Address != "host:1" || got[0].Joined == 0 {
			t.Errorf("coordinators are %+v (%v), want c", got, err)
		}
		if err := stop(); err != nil {
			t.Errorf("leave: %v", err)
		}
		if got, err := s.Coordinators(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("coordinators are %+v (%v), want none", got, err)
		}
	})
}

func TestRegistrationLost(t *testing.T) {
	t.Parallel() // waits for leases
	t.Run("a process that is cut off is seen gone by others, and told once etcd answers it again", func(t *testing.T) {
		l := newLink(t)
		near, far := dial(t), dial(t, func(c *meta.Config) { c.Endpoints = []string{l.endpoint()} })
		r, err := far.JoinNode(t.Context(), coordinator.Node{ID: "a", Address: "host:1"})
		if err != nil {
			t.Fatal(err)
		}
		lost := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		go func() { lost <- r.Run(ctx) }()
		changes := near.WatchNodes(t.Context())
		until(t, changes, func(n []coordinator.Node) bool { return len(n) == 1 })
		l.Cut()
		until(t, changes, func(n []coordinator.Node) bool { return len(n) == 0 })
		l.Mend()
		if err := <-lost; !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), "node a") {
			t.Errorf("Run returned %v, want ErrUnavailable about node a", err)
		}
	})
	t.Run("a process whose lease is taken away is told", func(t *testing.T) {
		s := dial(t)
		r, err := s.JoinWorker(t.Context(), coordinator.Worker{ID: "w", Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		c := etcdClient(t)
		kv, err := c.Get(t.Context(), "/freshet/"+cluster(t)+"/training/workers/w")
		if err != nil || len(kv.Kvs) != 1 {
			t.Fatalf("the worker's key: %v, %v", kv, err)
		}
		if _, err := c.Revoke(t.Context(), clientv3.LeaseID(kv.Kvs[0].Lease)); err != nil {
			t.Fatal(err)
		}
		if err := r.Report(t.Context(), coordinator.WorkerReport{}); !errors.Is(err, ps.ErrReplaced) {
			t.Errorf("Report returned %v, want ErrReplaced", err)
		}
		if err := r.Run(t.Context()); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("Run returned %v, want ErrUnavailable", err)
		}
	})
}

// An etcd that is not there tells nobody that somebody has died, so that nobody has to
// end because of it.
func TestARegistrationOutlivesAnEtcdThatIsGoneForLongerThanItsLease(t *testing.T) {
	t.Parallel() // waits for leases
	dir := t.TempDir()
	start := func(url string) *etcd.Server {
		server, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, ClientURL: url, UnsafeNoFsync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		return server
	}
	server := start("")
	url := server.Endpoints()[0]
	s := dial(t, func(c *meta.Config) { c.Endpoints = []string{url} })
	r, err := s.JoinNode(t.Context(), coordinator.Node{ID: "a", Address: "host:1"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- r.Run(ctx) }()

	server.Close()
	gone := time.After(3 * time.Second) // its lease is 2 s
	select {
	case err := <-ended:
		t.Fatalf("Run returned %v while etcd was gone", err)
	case <-gone:
	}
	start(url)
	changes := s.WatchNodes(t.Context())
	if got := next(t, changes); len(got) != 1 {
		t.Errorf("nodes are %+v once etcd is back, want the one that was there", got)
	}
	select {
	case err := <-ended:
		t.Fatalf("Run returned %v after etcd was back", err)
	case got := <-changes:
		t.Errorf("nodes are %+v a lease after etcd was back, want the one that was there", got)
	case <-time.After(3 * time.Second):
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v when it was ended, want nil", err)
	}
}

func TestReport(t *testing.T) {
	s, prefix := dial(t), "/freshet/"+cluster(t)+"/"
	r, err := s.JoinWorker(t.Context(), coordinator.Worker{ID: "w", Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	stop := runs(t, r)
	report := coordinator.WorkerReport{Partitions: []coordinator.PartitionReport{
		{Partition: 0, Position: 17},
		{Partition: 3, Position: 4, End: 5, EndKnown: true},
	}}
	t.Run("a worker is listed with its newest report", func(t *testing.T) {
		for _, position := range []ps.Offset{1, 17} {
			report.Partitions[0].Position = position
			if err := r.Report(t.Context(), report); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Workers(t.Context())
		want := []coordinator.Worker{{ID: "w", Model: "m", Report: report}}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(coordinator.Worker{}, "Joined")); diff != "" || err != nil {
			t.Errorf("workers (%v, -want +got):\n%s", err, diff)
		}
	})
	t.Run("a report wakes nobody, a worker's coming and going does", func(t *testing.T) {
		changes := s.WatchWorkers(t.Context())
		next(t, changes)
		if err := r.Report(t.Context(), coordinator.WorkerReport{}); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := next(t, changes); len(got) != 0 {
			t.Errorf("the next value is %+v, want that there is no worker", got)
		}
	})
	t.Run("a report goes with its worker", func(t *testing.T) {
		kv, err := etcdClient(t).Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil || len(kv.Kvs) != 0 {
			t.Errorf("keys left: %v (%v)", kv.Kvs, err)
		}
	})
}

func TestLead(t *testing.T) {
	t.Parallel() // waits for leases
	t.Run("a second coordinator waits until the first has ended", func(t *testing.T) {
		s, other := dial(t), dial(t)
		leading, end := make(chan string, 2), make(chan struct{})
		results := make(chan error, 2)
		lead := func(s *meta.Store, id string) {
			results <- s.Lead(t.Context(), id, func(ctx context.Context) error {
				leading <- id
				<-end
				return errors.New(id + " has ended")
			})
		}
		go lead(s, "first")
		if id := <-leading; id != "first" {
			t.Fatalf("%s leads", id)
		}
		go lead(other, "second")
		waiting, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		err := s.Lead(waiting, "third", func(context.Context) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a third returned %v, want the context's error", err)
		}
		if len(leading) != 0 {
			t.Fatal("two lead at once")
		}
		end <- struct{}{}
		if err := <-results; err == nil || err.Error() != "first has ended" {
			t.Errorf("Lead returned %v, want what was led", err)
		}
		if id := <-leading; id != "second" {
			t.Errorf("%s leads, want the second", id)
		}
		end <- struct{}{}
		<-results
	})
	t.Run("who loses leadership is told by the context", func(t *testing.T) {
		l := newLink(t)
		far := dial(t, func(c *meta.Config) { c.Endpoints = []string{l.endpoint()} })
		err := far.Lead(t.Context(), "cut-off", func(ctx context.Context) error {
			l.Cut()
			<-ctx.Done()
			return ctx.Err()
		})
		if !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("Lead returned %v, want ErrUnavailable", err)
		}
		led := false
		err = dial(t).Lead(t.Context(), "next", func(context.Context) error {
			led = true
			return nil
		})
		if err != nil || !led {
			t.Errorf("the next one led: %v (%v)", led, err)
		}
	})
}
