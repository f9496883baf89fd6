package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/server"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// holds is what nodes hold, by address.
type holds map[string][]ps.Holding

func (h holds) Holdings(_ context.Context, address string) ([]ps.Holding, error) {
	list, there := h[address]
	if !there {
		return nil, fmt.Errorf("nobody at %s: %w", address, ps.ErrUnavailable)
	}
	return list, nil
}

// operations remembers what it was asked for.
type operations struct {
	asked []string
	moves []coordinator.Move
}

func (o *operations) note(by, format string, args ...any) error {
	if !strings.HasPrefix(by, "operator") {
		return fmt.Errorf("asked for by %q: %w", by, ps.ErrInvalid)
	}
	o.asked = append(o.asked, fmt.Sprintf(format, args...))
	return nil
}

func (o *operations) Move(_ context.Context, shards []ps.ShardID, to ps.NodeID, by string) error {
	return o.note(by, "move %v to %q", shards, to)
}

func (o *operations) Drain(_ context.Context, node ps.NodeID, drain bool, by string) error {
	return o.note(by, "drain %s %v", node, drain)
}

func (o *operations) Rebalance(_ context.Context, dry bool, by string) ([]coordinator.Move, error) {
	return o.moves, o.note(by, "rebalance %v", dry)
}

func TestOperationsReachTheNodesThatTheyName(t *testing.T) {
	s := store(t)
	if _, err := s.CreateCluster(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	for _, n := range []coordinator.Node{
		{ID: "ps-0-aa", Name: "ps-0", Address: "a:1"}, {ID: "ps-1-bb", Name: "ps-1", Address: "b:1"}, {ID: "ps-1-cc", Name: "ps-1", Address: "c:1"},
	} {
		if _, err := s.JoinNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	o := &operations{moves: []coordinator.Move{{Shard: 2, From: "ps-0-aa", To: "ps-1-bb", Why: "it is fuller"}}}
	client := server.NewClient(serve(t, server.Config{Store: s, Progress: asks(unasked), Operations: o}))
	ctx := t.Context()
	if id, err := client.Move(ctx, []ps.ShardID{1, 3}, "ps-0"); err != nil || id != "ps-0-aa" {
		t.Errorf("move to a name: %s, %v", id, err)
	}
	if id, err := client.Move(ctx, []ps.ShardID{1}, "ps-1-cc"); err != nil || id != "ps-1-cc" {
		t.Errorf("move to an identifier: %s, %v", id, err)
	}
	if _, err := client.Move(ctx, []ps.ShardID{1}, ""); err != nil {
		t.Errorf("stay: %v", err)
	}
	if id, err := client.Drain(ctx, "ps-0", true); err != nil || id != "ps-0-aa" {
		t.Errorf("drain: %s, %v", id, err)
	}
	if _, err := client.Drain(ctx, "ps-0", false); err != nil {
		t.Errorf("take a drain back: %v", err)
	}
	moves, err := client.Rebalance(ctx, true)
	if diff := cmp.Diff(o.moves, moves); err != nil || diff != "" {
		t.Errorf("rebalance: %v (-want +got):\n%s", err, diff)
	}
	want := []string{`move [1 3] to "ps-0-aa"`, `move [1] to "ps-1-cc"`, `move [1] to ""`, "drain ps-0-aa true", "drain ps-0-aa false", "rebalance true"}
	if diff := cmp.Diff(want, o.asked); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}

	// What names nobody, or two, is refused with what there is.
	if _, err := client.Move(ctx, []ps.ShardID{1}, "ps-9"); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "ps-0-aa") {
		t.Errorf("move to nobody: %v, want ErrInvalid with the nodes there are", err)
	}
	if _, err := client.Drain(ctx, "ps-1", true); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "ps-1-cc") {
		t.Errorf("drain one of two: %v, want ErrInvalid with both", err)
	}
	if _, err := client.Move(ctx, nil, "ps-0"); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("move nothing: %v, want ErrInvalid", err)
	}
	if _, err := client.Events(ctx, coordinator.EventsMax+1); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("more events than there can be: %v, want ErrInvalid", err)
	}
	if len(o.asked) != len(want) {
		t.Errorf("what was refused was asked for: %q", o.asked[len(want):])
	}
}

func TestShardsTellWhatTheirOwnersHold(t *testing.T) {
	s := store(t)
	if _, err := s.CreateCluster(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ps.NodeID{"a", "b"} {
		if _, err := s.JoinNode(t.Context(), coordinator.Node{ID: id, Address: string(id) + ":1", Zone: "z-" + string(id)}); err != nil {
			t.Fatal(err)
		}
	}
	v, err := s.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	shards := []route.Shard{{Owner: "a", Fence: 1, Standbys: []ps.NodeID{"b"}, Target: "b"}, {Owner: "b", Fence: 2}}
	event := coordinator.Event{Kind: coordinator.EventShards, What: "a change", Why: "a reason", By: "c"}
	if _, err := s.SetMap(t.Context(), v.Read(), shards, event); err != nil {
		t.Fatal(err)
	}
	client := server.NewClient(serve(t, server.Config{Store: s, Progress: asks(unasked), Nodes: holds{"a:1": {
		{Model: "m", Shard: 0, Rows: 3, Bytes: 300, KeysPulled: 7, KeysPushed: 5},
		{Model: "n", Shard: 0, Rows: 1, Bytes: 10},
		{Model: "m", Shard: 1, Rows: 99, Bytes: 9, Copy: true}, // a copy is no shard
	}}}))
	got, err := client.Shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := coordinator.ShardList{
		Shards: []coordinator.ShardStatus{
			{Owner: "a", Fence: 1, Standbys: []ps.NodeID{"b"}, Target: "b", Rows: 4, Bytes: 310, KeysPulled: 7, KeysPushed: 5},
			{Shard: 1, Owner: "b", Fence: 2, Standbys: []ps.NodeID{}},
		},
		Silent: []ps.NodeID{"b"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shards (-want +got):\n%s", diff)
	}
	events, err := client.Events(t.Context(), 10)
	if err != nil || !slices.ContainsFunc(events, func(e coordinator.Event) bool {
		e.At = 0
		return e == event
	}) {
		t.Errorf("events are %+v (%v), want %+v among them", events, err, event)
	}
	status, err := client.Status(t.Context())
	if err != nil || len(status.Nodes) != 2 || status.Nodes[1].Arriving != 1 || status.Nodes[1].Zone != "z-b" || status.Nodes[0].Capacity != 1 {
		t.Errorf("nodes are %+v (%v), want zones, and one shard arriving at b", status.Nodes, err)
	}
}
