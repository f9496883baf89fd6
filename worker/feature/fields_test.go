package feature_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestFields(t *testing.T) {
	s, err := spec.Parse("test.yaml", []byte(`
model: test
label: {column: y}
features:
  - {name: a, column: a}
  - {name: b, column: b, split: " ", cross_only: true}
  - {name: c, column: c, split: " ", fields: 3}
  - {name: d, column: d, split: ","}
  - {name: a_x_b, cross: [a, b]}
network: {kind: mlp}
`))
	if err != nil {
		t.Fatal(err)
	}
	const none = worker.NoField
	for _, c := range []struct {
		name       string
		a, b, c, d string
		want       []uint16
	}{
		{"a token in each field", "1", "1", "x y z", "1", []uint16{0, 1, 2, 3, 4, 5, none}},
		{"an empty token leaves its field empty", "1", "1", "x  z", "1", []uint16{0, 1, 3, 4, 5, none}},
		{"fields behind the last token are empty", "1", "1", "x", "1", []uint16{0, 1, 4, 5, none}},
		{"separators behind the last field are nothing", "1", "1", "x y z   ", "1", []uint16{0, 1, 2, 3, 4, 5, none}},
		{"no token is the first field's missing value", "1", "1", "", "1", []uint16{0, 1, 4, 5, none}},
		{"other tokens share a field, and combinations too", "1", "1 2", "x", "1,2,3", []uint16{0, 1, 4, 4, 4, 5, 5, none}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, err := feature.NewUnlabelled(s, []string{"a", "b", "c", "d"})
			if err != nil {
				t.Fatal(err)
			}
			var b worker.Batch
			b.Reset(0, 0, 0)
			for range 2 { // the second is not the first's heir
				event := worker.Event{Offset: b.To, Columns: [][]byte{[]byte(c.a), []byte(c.b), []byte(c.c), []byte(c.d)}}
				if err := x.Append(&b, &event); err != nil {
					t.Fatal(err)
				}
			}
			if want := slices.Concat(c.want, c.want); !slices.Equal(b.Fields, want) || len(b.Keys) != len(want) {
				t.Errorf("fields %d of %d features, want %d", b.Fields, len(b.Keys), want)
			}
			if c.c != "" && b.Keys[1] != feature.Key("c", []byte("x")) {
				t.Errorf("the key of x is %016x, want the same as without fields", uint64(b.Keys[1]))
			}
		})
	}
	t.Run("more tokens than fields cannot be used", func(t *testing.T) {
		x, err := feature.NewUnlabelled(s, []string{"a", "b", "c", "d"})
		if err != nil {
			t.Fatal(err)
		}
		var b worker.Batch
		b.Reset(0, 0, 0)
		event := worker.Event{Columns: [][]byte{nil, nil, []byte("1 2 3 4"), nil}}
		if err := x.Append(&b, &event); !errors.Is(err, worker.ErrUnreadable) || len(b.Fields) != 0 {
			t.Errorf("%v and fields %d, want ErrUnreadable and none", err, b.Fields)
		}
	})
	t.Run("a network without layers has none", func(t *testing.T) {
		x, err := feature.NewUnlabelled(specOf(spec.Feature{Name: "a", Column: "a"}), []string{"a"})
		if err != nil {
			t.Fatal(err)
		}
		var b worker.Batch
		b.Reset(0, 0, 0)
		if err := x.Append(&b, &worker.Event{Columns: [][]byte{nil}}); err != nil || len(b.Fields) != 0 || len(b.Keys) == 0 {
			t.Errorf("fields %d of keys %v (%v), want none", b.Fields, b.Keys, err)
		}
	})
}
