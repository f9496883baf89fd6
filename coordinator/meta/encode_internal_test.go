package meta

// White box: what is stored must be read back by later versions of this package, and
// what anybody may have written with etcdctl must not break it. Neither shows from
// outside without an etcd in between.

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

func TestShardMapReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shards := make([]route.Shard, 1<<rapid.IntRange(0, 5).Draw(t, "log2 shards"))
		for s := range shards {
			shards[s] = route.Shard{
				Owner: ps.NodeID(rapid.SampledFrom([]string{"", "a", "b", "node-3"}).Draw(t, "owner")),
				Fence: ps.Fence(rapid.Uint64().Draw(t, "fence")),
			}
			if n := rapid.IntRange(0, 3).Draw(t, "standbys"); n > 0 { // none reads back as nil
				shards[s].Standbys = rapid.SliceOfN(rapid.SampledFrom([]ps.NodeID{"a", "b", "node-3"}), n, n).Draw(t, "standby")
			}
		}
		value, err := encodeShards(shards)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeShards(value)
		if err != nil || !reflect.DeepEqual(got, shards) {
			t.Fatalf("%s reads back as %+v (%v), want %+v", value, got, err, shards)
		}
	})
}

// Golden files hold what version 1 wrote. They stay readable forever.
func TestGolden(t *testing.T) {
	shards := []route.Shard{{Owner: "a", Fence: 3}, {Fence: 1}, {Owner: "b", Fence: 1 << 63}, {Owner: "a", Fence: 4}}
	assignment := coordinator.Assignment{Model: "m", Generation: 12, Workers: 2, Owners: []string{"w1", "w2", "", "w1"}}
	shardsNow, err := encodeShards(shards)
	if err != nil {
		t.Fatal(err)
	}
	assignmentNow, err := encodeAssignment(assignment)
	if err != nil {
		t.Fatal(err)
	}
	withStandbys := slices.Clone(shards)
	withStandbys[0].Standbys, withStandbys[2].Standbys = []ps.NodeID{"b"}, []ps.NodeID{"a", "c"}
	standbysNow, err := encodeShards(withStandbys)
	if err != nil {
		t.Fatal(err)
	}
	moving := slices.Clone(withStandbys)
	moving[0].Target, moving[3].Target = "c", "b"
	movingNow, err := encodeShards(moving)
	if err != nil {
		t.Fatal(err)
	}
	for name, now := range map[string][]byte{
		"map-v1.json": shardsNow, "map-standbys-v1.json": standbysNow, "map-targets-v1.json": movingNow, "assignment-v1.json": assignmentNow,
	} {
		golden, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil || string(golden) != string(now) {
			t.Errorf("%s holds %s (%v), written now is %s", name, golden, err, now)
		}
	}
	if got, err := decodeShards(shardsNow); err != nil || !reflect.DeepEqual(got, shards) {
		t.Errorf("map reads as %+v (%v), want %+v", got, err, shards)
	}
	if got, err := decodeShards(standbysNow); err != nil || !reflect.DeepEqual(got, withStandbys) {
		t.Errorf("map with standbys reads as %+v (%v), want %+v", got, err, withStandbys)
	}
	if got, err := decodeShards(movingNow); err != nil || !reflect.DeepEqual(got, moving) {
		t.Errorf("map with targets reads as %+v (%v), want %+v", got, err, moving)
	}
	if got, err := decodeAssignment("m", assignmentNow); err != nil || !reflect.DeepEqual(got, assignment) {
		t.Errorf("assignment reads as %+v (%v), want %+v", got, err, assignment)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, value := range map[string]string{
		"text":                    `owners`,
		"no format":               `{}`,
		"a later format":          `{"format":2,"owners":{"names":["a"],"at":[1]},"fences":[1]}`,
		"an owner without a name": `{"format":1,"owners":{"names":["a"],"at":[2]},"fences":[1]}`,
		"a negative owner":        `{"format":1,"owners":{"names":["a"],"at":[-1]},"fences":[1]}`,
		"too few fences":          `{"format":1,"owners":{"names":["a"],"at":[1,1]},"fences":[1]}`,
		"standbys of fewer":       `{"format":1,"owners":{"names":["a"],"at":[1,1]},"fences":[1,1],"standbys":[{"names":["b"],"at":[1]}]}`,
		"a standby without name":  `{"format":1,"owners":{"names":["a"],"at":[1]},"fences":[1],"standbys":[{"names":[],"at":[1]}]}`,
		"three shards":            `{"format":1,"owners":{"names":[],"at":[0,0,0]},"fences":[0,0,0]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := decodeShards([]byte(value)); !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("%s reads as %+v (%v), want ErrCorrupt", value, got, err)
			}
		})
	}
}

func FuzzDecodeShards(f *testing.F) {
	for _, seed := range []string{
		`{"format":1,"owners":{"names":["a"],"at":[1,0]},"fences":[3,0]}`,
		`{"format":1,"owners":{"names":[],"at":[9]},"fences":[3]}`,
		`{"format":1,"owners":{"names":["a"],"at":[1]},"fences":[1],"standbys":[{"names":["b"],"at":[1]}]}`,
		`{"format":2}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		shards, err := decodeShards(value)
		if err != nil {
			if !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("%q: error is %v, want ErrCorrupt", value, err)
			}
			return
		}
		if err := ps.ValidShards(len(shards)); err != nil {
			t.Errorf("%q reads as a map of %v", value, err)
		}
	})
}

func FuzzDecodeAssignment(f *testing.F) {
	f.Add([]byte(`{"format":1,"generation":1,"workers":1,"owners":{"names":["w"],"at":[1,0]}}`))
	f.Add([]byte(`{"format":1,"owners":{"at":[7]}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		a, err := decodeAssignment("m", value)
		if err == nil && a.Model != "m" || err != nil && !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%q reads as %+v (%v)", value, a, err)
		}
	})
}
