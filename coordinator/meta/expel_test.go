package meta_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

func TestMembersAreEverybodyWhoIsThere(t *testing.T) {
	s := dial(t)
	ctx := t.Context()
	if _, err := s.JoinCoordinator(ctx, coordinator.Coordinator{ID: "c", Address: "host:1", Gossip: "host:2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.JoinWorker(ctx, coordinator.Worker{ID: "w", Model: "m", Gossip: "host:3"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.JoinNode(ctx, coordinator.Node{ID: "n", Address: "host:4"}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Members(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := []coordinator.Member{
		{Role: coordinator.RoleNode, ID: "n", Address: "host:4"},
		{Role: coordinator.RoleWorker, ID: "w", Gossip: "host:3"},
		{Role: coordinator.RoleCoordinator, ID: "c", Address: "host:1", Gossip: "host:2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
}

func TestWhoIsExpelledIsGoneAtOnceAndTold(t *testing.T) {
	t.Parallel() // a registration is renewed every third of its lease
	s, other := dial(t), dial(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	node, err := s.JoinNode(ctx, coordinator.Node{ID: "x", Address: "host:1"})
	if err != nil {
		t.Fatal(err)
	}
	worker, err := s.JoinWorker(ctx, coordinator.Worker{ID: "x", Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	leader, err := s.JoinCoordinator(ctx, coordinator.Coordinator{ID: "x", Address: "host:2"})
	if err != nil {
		t.Fatal(err)
	}
	lives := map[coordinator.Role]interface{ Run(context.Context) error }{
		coordinator.RoleNode: node, coordinator.RoleWorker: worker, coordinator.RoleCoordinator: leader,
	}
	for role, life := range lives {
		if err := other.Expel(ctx, coordinator.Member{Role: role, ID: "x"}); err != nil {
			t.Fatalf("expel the %s: %v", role, err)
		}
		left, err := other.Members(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range left {
			if m.Role == role {
				t.Errorf("the %s is expelled and still there: %+v", role, left)
			}
		}
		delete(lives, role)
		if len(left) != len(lives) {
			t.Errorf("after the %s was expelled there are %+v, want all %d others", role, left, len(lives))
		}
		if err := life.Run(ctx); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("the %s that was expelled goes on or ends with %v, want ErrUnavailable", role, err)
		}
		if err := other.Expel(ctx, coordinator.Member{Role: role, ID: "x"}); err != nil {
			t.Errorf("expel the %s that is gone: %v, want nothing to happen", role, err)
		}
	}
	if err := other.Expel(ctx, coordinator.Member{Role: "stranger", ID: "x"}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("expel a stranger: %v, want ErrInvalid", err)
	}
}

func TestANodeIsDrainedUntilTheMarkIsTakenBackOrItLeaves(t *testing.T) {
	s := dial(t)
	create(t, s, 4)
	if err := s.Drain(t.Context(), "n", true); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("drain of a node that is not there: error is %v, want ErrUnavailable", err)
	}
	n, err := s.JoinNode(t.Context(), coordinator.Node{ID: "n", Address: "host:1", Zone: "z", Capacity: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.JoinNode(t.Context(), coordinator.Node{ID: "o", Address: "host:2"}); err != nil {
		t.Fatal(err)
	}
	draining := func() (ids []ps.NodeID) {
		for _, n := range view(t, s).Nodes {
			if n.Draining {
				ids = append(ids, n.ID)
			}
		}
		return ids
	}
	for _, drain := range []bool{true, true, false, true} {
		if err := s.Drain(t.Context(), "n", drain); err != nil {
			t.Fatal(err)
		}
		want := []ps.NodeID(nil)
		if drain {
			want = []ps.NodeID{"n"}
		}
		if diff := cmp.Diff(want, draining()); diff != "" {
			t.Errorf("after drain %v (-want +got):\n%s", drain, diff)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil { // leaves
		t.Fatal(err)
	}
	if _, err := s.JoinNode(t.Context(), coordinator.Node{ID: "n", Address: "host:1"}); err != nil {
		t.Fatal(err)
	}
	if got := draining(); len(got) > 0 {
		t.Errorf("%v are to be drained after the node has left", got)
	}
}
