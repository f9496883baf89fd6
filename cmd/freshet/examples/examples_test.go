package examples_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestNames(t *testing.T) {
	want := []string{"shop", "kuairand"}
	if got := examples.Names(); !slices.Equal(got, want) {
		t.Fatalf("Names() = %q, want %q", got, want)
	}
	for _, name := range want {
		line, err := examples.Describe(name)
		if err != nil || line == "" || strings.ContainsAny(line, "\n\t") {
			t.Errorf("Describe(%q) = %q, %v: want one line", name, line, err)
		}
	}
	t.Run("an unknown name is refused with the known ones", func(t *testing.T) {
		_, specErr := examples.Spec("../shop")
		_, describeErr := examples.Describe("Shop")
		for _, err := range []error{specErr, describeErr} {
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "shop or kuairand") {
				t.Errorf("got %v, want ps.ErrInvalid with the names", err)
			}
		}
	})
}

// specOf returns an example's spec as the commands read it.
func specOf(t *testing.T, name string) *spec.Spec {
	t.Helper()
	doc, err := examples.Spec(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(name+".yaml", doc)
	if err != nil {
		t.Fatalf("the embedded spec of %s is not valid: %v", name, err)
	}
	return s
}

func TestSpecs(t *testing.T) {
	for _, name := range examples.Names() {
		t.Run(name, func(t *testing.T) {
			s := specOf(t, name)
			if s.Model != name || s.Stream.Source != "" || s.Stream.Partitions != 8 || s.Loss != spec.Log {
				t.Errorf("got model %q, source %q, %d partitions, loss %q", s.Model, s.Stream.Source, s.Stream.Partitions, s.Loss)
			}
			if !slices.Contains(s.Stream.Identifiers, s.Stream.PartitionBy) {
				t.Errorf("the stream is partitioned by %q, which is not among the identifiers %q", s.Stream.PartitionBy, s.Stream.Identifiers)
			}
			outcomes := []string{
				"click_probability", "is_click", "clicked", "long_view", "is_like", "is_follow", "is_comment", "is_forward", "is_hate",
				"play_time_ms", "profile_stay_time", "comment_stay_time", "is_profile_enter",
			}
			for _, f := range s.Features {
				if slices.Contains(outcomes, f.Column) {
					t.Errorf("feature %s reads %s, which is known only afterwards", f.Name, f.Column)
				}
			}
		})
	}
}
