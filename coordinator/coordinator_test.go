package coordinator_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

func TestNames(t *testing.T) {
	for name, test := range map[string]struct{ id, model bool }{
		"a":                      {true, true},
		"Node_7-b":               {true, true},
		"10.0.0.1:7070":          {true, false},
		strings.Repeat("x", 128): {true, true},
		strings.Repeat("x", 129): {false, false},
		"":                       {false, false},
		"a/b":                    {false, false},
		"a b":                    {false, false},
		"größe":                  {false, false},
		"a\x00":                  {false, false},
	} {
		if err := coordinator.ValidID("node", name); (err == nil) != test.id || err != nil && !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("ID %q: error %v, want valid: %v", name, err, test.id)
		}
		if err := coordinator.ValidModelName(name); (err == nil) != test.model || err != nil && !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("model name %q: error %v, want valid: %v", name, err, test.model)
		}
	}
}

func TestAssignmentPartitions(t *testing.T) {
	a := coordinator.Assignment{Owners: []string{"w", "", "v", "w"}}
	if got, want := a.Partitions("w"), []ps.Partition{0, 3}; !slices.Equal(got, want) {
		t.Errorf("partitions of w in %v are %v, want %v", a.Owners, got, want)
	}
	if got := a.Partitions("x"); len(got) != 0 {
		t.Errorf("partitions of x in %v are %v, want none", a.Owners, got)
	}
}

func TestViewMap(t *testing.T) {
	v := coordinator.View{
		Revision: 7,
		Shards:   []route.Shard{{Owner: "a", Fence: 1}, {Owner: "gone", Fence: 2}},
		Nodes:    []coordinator.Node{{ID: "a", Address: "host:1"}},
	}
	m := v.Map()
	if address, err := m.Address(0); err != nil || address != "host:1" || m.Version != 7 {
		t.Errorf("shard 0 of version %d is at %q (%v), want host:1 in version 7", m.Version, address, err)
	}
	if _, err := m.Address(1); !errors.Is(err, ps.ErrNoOwner) {
		t.Errorf("shard 1, whose owner is gone: error %v, want ErrNoOwner", err)
	}
}
