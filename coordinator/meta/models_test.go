package meta_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

func model(name string) coordinator.Model {
	return coordinator.Model{
		Model: ps.Model{
			Name: name,
			Layout: ps.Layout{Seed: 7, Tables: []ps.Table{{
				Name: "weights", Width: 1,
				Optimizer:   ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, L1: 1},
				Initializer: ps.Initializer{Name: ps.Zero},
			}}},
			Stream:     "sha256:0123",
			Partitions: 4,
		},
		Spec: []byte("model: " + name + "\n"),
	}
}

func TestApplyModel(t *testing.T) {
	t.Run("is stored once, and again changes nothing", func(t *testing.T) {
		a, b := dial(t), dial(t)
		version, changed, err := a.ApplyModel(t.Context(), model("m"))
		if err != nil || version != 1 || !changed {
			t.Fatalf("first: version %d, changed %v, %v", version, changed, err)
		}
		again := model("m")
		again.Version = 9
		version, changed, err = b.ApplyModel(t.Context(), again)
		if err != nil || version != 1 || changed {
			t.Errorf("again: version %d, changed %v, %v", version, changed, err)
		}
		want := model("m")
		want.Version = 1
		for _, name := range []string{"m", ""} {
			got, err := b.Model(t.Context(), name)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("model %q (%v, -want +got):\n%s", name, err, diff)
			}
		}
	})
	t.Run("of many at once one stores it", func(t *testing.T) {
		s := dial(t)
		changes := make([]bool, 8)
		var group errgroup.Group
		for i := range changes {
			group.Go(func() (err error) {
				_, changes[i], err = s.ApplyModel(t.Context(), model("m"))
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(fmt.Sprint(changes), "true"); n != 1 {
			t.Errorf("%d of %d stored it", n, len(changes))
		}
	})
	t.Run("something else under a known name is refused, and says what to do", func(t *testing.T) {
		s := dial(t)
		if _, _, err := s.ApplyModel(t.Context(), model("m")); err != nil {
			t.Fatal(err)
		}
		for what, change := range map[string]func(*coordinator.Model){
			"stream is sha256:0123": func(m *coordinator.Model) { m.Stream = "other" },
			"4 partitions, not 8":   func(m *coordinator.Model) { m.Partitions = 8 },
			"laid out differently":  func(m *coordinator.Model) { m.Layout.Seed++ },
			"spec is another":       func(m *coordinator.Model) { m.Spec = []byte("model: m # better\n") },
		} {
			m := model("m")
			change(&m)
			_, _, err := s.ApplyModel(t.Context(), m)
			if !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "another name") {
				t.Errorf("error is %v, want ErrConflict with %q", err, what)
			}
		}
		if got, err := s.Model(t.Context(), "m"); err != nil || !bytes.Equal(got.Spec, model("m").Spec) {
			t.Errorf("the model is now %+v (%v)", got, err)
		}
	})
	t.Run("the largest one fits", func(t *testing.T) {
		s := dial(t)
		m := model("m")
		m.Spec = bytes.Repeat([]byte{'"'}, coordinator.SpecBytesMax)
		m.Layout.Tables = make([]ps.Table, ps.TablesMax)
		for i := range m.Layout.Tables {
			m.Layout.Tables[i] = model("m").Layout.Tables[0]
			m.Layout.Tables[i].Name = fmt.Sprintf("%0250d", i)
		}
		if _, _, err := s.ApplyModel(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Model(t.Context(), "m"); err != nil || !bytes.Equal(got.Spec, m.Spec) || got.Layout.Hash() != m.Layout.Hash() {
			t.Errorf("read back: %v, spec of %d bytes", err, len(got.Spec))
		}
	})
	for name, want := range map[string]struct {
		change func(*coordinator.Model)
		err    error
	}{
		"no name":             {func(m *coordinator.Model) { m.Name = "" }, ps.ErrInvalid},
		"a name with a slash": {func(m *coordinator.Model) { m.Name = "a/b" }, ps.ErrInvalid},
		"no stream":           {func(m *coordinator.Model) { m.Stream = "" }, ps.ErrInvalid},
		"no partitions":       {func(m *coordinator.Model) { m.Partitions = 0 }, ps.ErrInvalid},
		"too many partitions": {func(m *coordinator.Model) { m.Partitions = 65537 }, ps.ErrInvalid},
		"no tables":           {func(m *coordinator.Model) { m.Layout.Tables = nil }, ps.ErrInvalid},
		"a rate of NaN":       {func(m *coordinator.Model) { m.Layout.Tables[0].Optimizer.LearningRate = math.NaN() }, ps.ErrInvalid},
		"no spec":             {func(m *coordinator.Model) { m.Spec = nil }, ps.ErrInvalid},
		"too large a spec":    {func(m *coordinator.Model) { m.Spec = make([]byte, 1<<20+1) }, ps.ErrTooLarge},
		"too large a layout":  {func(m *coordinator.Model) { m.Layout.Tables[0].Name = strings.Repeat("x", 1<<17) }, ps.ErrTooLarge},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			m := model("m")
			want.change(&m)
			if _, _, err := dial(t).ApplyModel(t.Context(), m); !errors.Is(err, want.err) {
				t.Errorf("error is %v, want %v", err, want.err)
			}
		})
	}
}

func TestModel(t *testing.T) {
	s := dial(t)
	changes := s.WatchModels(t.Context())
	t.Run("that there is none is a value of the watch", func(t *testing.T) {
		if got := next(t, changes); len(got) != 0 {
			t.Errorf("models are %+v", got)
		}
		if _, err := s.Model(t.Context(), ""); !errors.Is(err, ps.ErrUnknownModel) {
			t.Errorf("error is %v, want ErrUnknownModel", err)
		}
	})
	t.Run("the watch gives all of them, by name", func(t *testing.T) {
		for _, name := range []string{"news", "films"} {
			if _, _, err := s.ApplyModel(t.Context(), model(name)); err != nil {
				t.Fatal(err)
			}
		}
		got := until(t, changes, func(m []ps.Model) bool { return len(m) == 2 })
		want := []ps.Model{model("films").Model, model("news").Model}
		want[0].Version, want[1].Version = 1, 1
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("models (-want +got):\n%s", diff)
		}
	})
	t.Run("an unknown name is told which there are", func(t *testing.T) {
		_, err := s.Model(t.Context(), "music")
		if !errors.Is(err, ps.ErrUnknownModel) || !strings.Contains(err.Error(), "films, news") {
			t.Errorf("error is %v, want ErrUnknownModel naming the others", err)
		}
	})
	t.Run("no name among several is told to name one", func(t *testing.T) {
		_, err := s.Model(t.Context(), "")
		if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "films, news") {
			t.Errorf("error is %v, want ErrInvalid naming both", err)
		}
	})
}

func TestAssignment(t *testing.T) {
	s, other := dial(t), dial(t)
	create(t, s, 4)
	if _, _, err := s.ApplyModel(t.Context(), model("m")); err != nil {
		t.Fatal(err)
	}
	changes := other.WatchAssignment(t.Context(), "m")
	first := coordinator.Assignment{Model: "m", Workers: 1, Owners: []string{"w1", "w1", "w1", ""}}
	t.Run("before the first its generation is 0", func(t *testing.T) {
		got, err := s.Assignment(t.Context(), "m")
		if err != nil || got.Generation != 0 || got.Owners != nil {
			t.Errorf("assignment is %+v (%v)", got, err)
		}
	})
	t.Run("every change raises the generation by one and reaches the watch", func(t *testing.T) {
		a := first
		for expected := range ps.Generation(3) {
			a.Owners[3] = fmt.Sprint("w", expected)
			got, err := s.SetAssignment(t.Context(), expected, a)
			if err != nil || got.Generation != expected+1 {
				t.Fatalf("change of generation %d: %+v (%v)", expected, got, err)
			}
		}
		a.Generation = 3
		got := until(t, changes, func(a coordinator.Assignment) bool { return a.Generation == 3 })
		if diff := cmp.Diff(a, got); diff != "" {
			t.Errorf("assignment (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]coordinator.Assignment{"m": a}, view(t, s).Assignments); diff != "" {
			t.Errorf("in the view (-want +got):\n%s", diff)
		}
	})
	t.Run("a change of another generation is a conflict", func(t *testing.T) {
		for _, expected := range []ps.Generation{0, 2, 4} {
			if _, err := other.SetAssignment(t.Context(), expected, first); !errors.Is(err, ps.ErrConflict) {
				t.Errorf("generation %d: error is %v, want ErrConflict", expected, err)
			}
		}
	})
	t.Run("of many at once one succeeds", func(t *testing.T) {
		var group errgroup.Group
		errs := make([]error, 6)
		for i := range errs {
			group.Go(func() error {
				_, errs[i] = s.SetAssignment(t.Context(), 3, first)
				return nil
			})
		}
		group.Wait()
		succeeded := 0
		for _, err := range errs {
			if err == nil {
				succeeded++
			} else if !errors.Is(err, ps.ErrConflict) {
				t.Errorf("error is %v, want ErrConflict", err)
			}
		}
		if succeeded != 1 {
			t.Errorf("%d succeeded", succeeded)
		}
	})
	t.Run("a model that does not exist has none", func(t *testing.T) {
		a := first
		a.Model = "music"
		if _, err := s.SetAssignment(t.Context(), 0, a); !errors.Is(err, ps.ErrUnknownModel) {
			t.Errorf("error is %v, want ErrUnknownModel", err)
		}
	})
	t.Run("the largest one fits", func(t *testing.T) {
		a := coordinator.Assignment{Model: "m", Workers: 500, Owners: make([]string, coordinator.PartitionsMax)}
		for p := range a.Owners {
			a.Owners[p] = fmt.Sprintf("worker-%d-%s", p%500, strings.Repeat("x", 80))
		}
		if _, err := s.SetAssignment(t.Context(), 4, a); err != nil {
			t.Errorf("%d partitions: %v", len(a.Owners), err)
		}
	})
}
