package meta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

func TestCreateCluster(t *testing.T) {
	t.Run("a cluster is created once, and is what it is", func(t *testing.T) {
		a, b := dial(t), dial(t)
		if _, err := a.Cluster(t.Context()); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("before: error is %v, want ErrUnavailable", err)
		}
		if _, err := a.Map(t.Context()); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("map before: error is %v, want ErrUnavailable", err)
		}
		before := create(t, a, 64)
		got, err := b.CreateCluster(t.Context(), 64)
		if want := before.Cluster; err != nil || got != want || want.Shards != 64 {
			t.Errorf("created again: %+v (%v), want %+v", got, err, want)
		}
		_, err = b.CreateCluster(t.Context(), 256)
		if !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), "64") || !strings.Contains(err.Error(), "256") {
			t.Errorf("error is %v, want ErrConflict naming 64 and 256", err)
		}
		if diff := cmp.Diff(before.Shards, view(t, b).Shards); diff != "" {
			t.Errorf("the map has changed (-before +after):\n%s", diff)
		}
	})
	t.Run("of several at once one number wins", func(t *testing.T) {
		s := dial(t)
		var group errgroup.Group
		errs := make([]error, 8)
		for i := range errs {
			group.Go(func() error {
				_, errs[i] = s.CreateCluster(t.Context(), 1<<(i%2))
				return nil
			})
		}
		group.Wait()
		shards := len(view(t, s).Shards)
		for i, err := range errs {
			if won := 1<<(i%2) == shards; won != (err == nil) || !won && !errors.Is(err, ps.ErrConflict) {
				t.Errorf("asked for %d shards, there are %d, error %v", 1<<(i%2), shards, err)
			}
		}
	})
	t.Run("a number that is no power of two is refused", func(t *testing.T) {
		if _, err := dial(t).CreateCluster(t.Context(), 3); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("error is %v, want ErrInvalid", err)
		}
	})
}

// owned returns shards that all have the owner and fence.
func owned(n int, owner ps.NodeID, fence ps.Fence) []route.Shard {
	shards := make([]route.Shard, n)
	for s := range shards {
		shards[s] = route.Shard{Owner: owner, Fence: fence}
	}
	return shards
}

func TestSetMap(t *testing.T) {
	t.Run("of two who change the same revision one is told of the conflict", func(t *testing.T) {
		a, b := dial(t), dial(t)
		revision := create(t, a, 4).MapRevision
		var group errgroup.Group
		errs := make([]error, 2)
		for i, s := range []*meta.Store{a, b} {
			group.Go(func() error {
				_, errs[i] = s.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(4, ps.NodeID(fmt.Sprint("node-", i)), 1))
				return nil
			})
		}
		group.Wait()
		winner := 0
		if errs[0] != nil {
			winner = 1
		}
		if errs[winner] != nil || !errors.Is(errs[1-winner], ps.ErrConflict) {
			t.Fatalf("errors are %v, want one nil and one ErrConflict", errs)
		}
		if got := view(t, a).Shards[0].Owner; got != ps.NodeID(fmt.Sprint("node-", winner)) {
			t.Errorf("owner is %s, want that of %d, who won", got, winner)
		}
	})
	t.Run("the revision it returns is the one to change next", func(t *testing.T) {
		s := dial(t)
		revision := create(t, s, 4).MapRevision
		for fence := range ps.Fence(3) {
			var err error
			if revision, err = s.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(4, ps.NodeID(fmt.Sprint(fence)), fence+1)); err != nil {
				t.Fatalf("fence %d: %v", fence+1, err)
			}
		}
		if v := view(t, s); v.MapRevision != revision {
			t.Errorf("map revision is %d, want %d", v.MapRevision, revision)
		}
	})

	s := dial(t)
	revision := create(t, s, 2).MapRevision
	revision, err := s.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(2, "a", 5))
	if err != nil {
		t.Fatal(err)
	}
	for name, shards := range map[string][]route.Shard{
		"a new owner under the old fence": {{Owner: "b", Fence: 5}, {Owner: "a", Fence: 5}},
		"no owner under the old fence":    {{Owner: "", Fence: 5}, {Owner: "a", Fence: 5}},
		"a fence that falls":              {{Owner: "a", Fence: 4}, {Owner: "a", Fence: 5}},
		"a new owner and a lower fence":   {{Owner: "b", Fence: 4}, {Owner: "a", Fence: 5}},
		"another number of shards":        owned(4, "a", 5),
	} {
		t.Run(name+" is refused and changes nothing", func(t *testing.T) {
			if _, err := s.SetMap(t.Context(), coordinator.Read{Map: revision}, shards); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("%v: error is %v, want ErrInvalid", shards, err)
			}
			if diff := cmp.Diff(owned(2, "a", 5), view(t, s).Shards); diff != "" {
				t.Errorf("the map has changed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLargestMap(t *testing.T) {
	s := dial(t)
	v := create(t, s, ps.ShardsMax)
	shards := make([]route.Shard, ps.ShardsMax)
	for id := range shards {
		shards[id] = route.Shard{
			Owner: ps.NodeID(fmt.Sprintf("freshet-parameter-server-%04d.%s", id%2000, strings.Repeat("x", 60))),
			Fence: ps.Fence(1)<<62 + ps.Fence(id),
		}
	}
	if _, err := s.SetMap(t.Context(), coordinator.Read{Map: v.MapRevision}, shards); err != nil {
		t.Fatalf("%d shards on 2000 nodes with long names: %v", len(shards), err)
	}
	if diff := cmp.Diff(shards, view(t, s).Shards); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	t.Run("a map beyond what etcd takes is ErrTooLarge", func(t *testing.T) {
		for id := range shards {
			shards[id] = route.Shard{Owner: ps.NodeID(fmt.Sprintf("%0128d", id)), Fence: shards[id].Fence + 1}
		}
		if _, err := s.SetMap(t.Context(), coordinator.Read{Map: view(t, s).MapRevision}, shards); !errors.Is(err, ps.ErrTooLarge) {
			t.Errorf("error is %v, want ErrTooLarge", err)
		}
	})
}

func TestWatchMap(t *testing.T) {
	t.Run("gives nothing before the cluster exists, then the map as it is", func(t *testing.T) {
		s := dial(t)
		maps := s.WatchMap(t.Context())
		joinNode(t, s, "a")
		create(t, s, 4)
		m := next(t, maps)
		want := route.Map{Version: m.Version, Shards: make([]route.Shard, 4), Addresses: map[ps.NodeID]string{"a": "host-a:7070"}}
		if diff := cmp.Diff(want, m); diff != "" || m.Version == 0 {
			t.Errorf("first map (-want +got):\n%s", diff)
		}
		if m.Complete() {
			t.Error("a map without owners is complete")
		}
	})
	t.Run("a node's leaving makes a newer map", func(t *testing.T) {
		s := dial(t)
		v := create(t, s, 4)
		leave := joinNode(t, s, "a")
		if _, err := s.SetMap(t.Context(), coordinator.Read{Map: v.MapRevision}, owned(4, "a", 1)); err != nil {
			t.Fatal(err)
		}
		maps := s.WatchMap(t.Context())
		before := until(t, maps, route.Map.Complete)
		if err := leave(); err != nil {
			t.Fatalf("leave: %v", err)
		}
		after := until(t, maps, func(m route.Map) bool { return !m.Complete() })
		if after.Version <= before.Version || len(after.Addresses) != 0 {
			t.Errorf("map is %+v, want a version above %d and no address", after, before.Version)
		}
		again, err := dial(t).Map(t.Context())
		if err != nil || again.Version < after.Version {
			t.Errorf("a map read later has version %d (%v), want no less than %d", again.Version, err, after.Version)
		}
	})
	t.Run("maps only become newer, and the last one always comes", func(t *testing.T) {
		s, other := dial(t), dial(t)
		revision := create(t, s, 8).MapRevision
		maps := other.WatchMap(t.Context())
		const last = 200
		var group errgroup.Group
		group.Go(func() error {
			for fence := range ps.Fence(last) {
				var err error
				if revision, err = s.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(8, ps.NodeID(fmt.Sprint(fence)), fence+1)); err != nil {
					return err
				}
			}
			return nil
		})
		var before route.Map
		given := 0
		for before.Shards == nil || before.Shards[0].Fence < last {
			m := next(t, maps)
			given++
			if m.Version <= before.Version || before.Shards != nil && m.Shards[0].Fence < before.Shards[0].Fence {
				t.Fatalf("version %d with fence %d after version %d with fence %d", m.Version, m.Shards[0].Fence, before.Version, before.Shards[0].Fence)
			}
			if !m.Shards[0].Equal(m.Shards[7]) {
				t.Fatalf("a map of two moments: %+v", m.Shards)
			}
			before = m
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d changes, %d maps", last, given)
	})
	t.Run("ends with its context", func(t *testing.T) {
		s := dial(t)
		create(t, s, 1)
		ctx, cancel := context.WithCancel(t.Context())
		maps := s.WatchMap(ctx)
		next(t, maps)
		cancel()
		if _, ok := <-maps; ok {
			t.Error("the watch gave another map instead of ending")
		}
	})
}

func TestWatchSurvives(t *testing.T) {
	t.Run("a compaction while it is cut off", func(t *testing.T) {
		l := newLink(t)
		far := dial(t, func(c *meta.Config) { c.Endpoints = []string{l.endpoint()} })
		near := dial(t)
		revision := create(t, near, 4).MapRevision
		maps, views := far.WatchMap(t.Context()), far.WatchView(t.Context())
		next(t, maps)
		next(t, views)

		l.Cut()
		for fence := range ps.Fence(3) {
			var err error
			if revision, err = near.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(4, ps.NodeID(fmt.Sprint(fence)), fence+1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := etcdClient(t).Compact(t.Context(), revision); err != nil {
			t.Fatalf("compact: %v", err)
		}
		l.Mend()

		until(t, maps, func(m route.Map) bool { return m.Shards[0].Fence == 3 })
		until(t, views, func(v coordinator.View) bool { return v.Shards[0].Fence == 3 })
		if _, err := near.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(4, "z", 9)); err != nil {
			t.Fatal(err)
		}
		until(t, maps, func(m route.Map) bool { return m.Shards[0].Fence == 9 })
		until(t, views, func(v coordinator.View) bool { return v.Shards[0].Fence == 9 })
	})
	t.Run("a compaction while it waits", func(t *testing.T) {
		s := dial(t)
		v := create(t, s, 4)
		maps := s.WatchMap(t.Context())
		next(t, maps)
		revision, err := s.SetMap(t.Context(), coordinator.Read{Map: v.MapRevision}, owned(4, "a", 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := etcdClient(t).Compact(t.Context(), revision); err != nil {
			t.Fatalf("compact: %v", err)
		}
		until(t, maps, func(m route.Map) bool { return m.Shards[0].Fence == 1 })
		if _, err := s.SetMap(t.Context(), coordinator.Read{Map: revision}, owned(4, "b", 2)); err != nil {
			t.Fatal(err)
		}
		until(t, maps, func(m route.Map) bool { return m.Shards[0].Fence == 2 })
	})
	t.Run("a start without etcd", func(t *testing.T) {
		l := newLink(t)
		s := dial(t, func(c *meta.Config) { c.Endpoints = []string{l.endpoint()} })
		create(t, dial(t), 4)
		l.Cut()
		maps := s.WatchMap(t.Context())
		l.Mend()
		next(t, maps)
	})
}
