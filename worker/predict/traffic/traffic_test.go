package traffic_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/traffic"
)

// version says its own number, and can be made to wait.
type version struct {
	predict.Predictions
	value  float64
	err    error
	hold   chan struct{}
	mu     sync.Mutex
	asked  int // guarded by mu
	asking chan struct{}
}

func (v *version) Predict(ctx context.Context, columns []predict.Column) ([]predict.Prediction, predict.Served, error) {
	v.mu.Lock()
	v.asked++
	v.mu.Unlock()
	if v.asking != nil {
		v.asking <- struct{}{}
	}
	if v.hold != nil {
		select {
		case <-v.hold:
		case <-ctx.Done():
			return nil, predict.Served{}, ctx.Err()
		}
	}
	return []predict.Prediction{{Value: v.value}, {Err: ps.ErrInvalid}}, predict.Served{}, v.err
}

func said(t *testing.T, s *traffic.Split, key string) float64 {
	t.Helper()
	answer, _, err := s.Predict(predict.WithKey(t.Context(), key), nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer[0].Value
}

func TestAKeyMeetsOneVersionAndSharesAreKept(t *testing.T) {
	split := func(share float64) *traffic.Split {
		s, err := traffic.New(traffic.Config{Versions: []traffic.Version{
			{Name: "a", Predictions: &version{value: 1}, Share: 1 - share},
			{Name: "b", Predictions: &version{value: 2}, Share: share},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const keys = 4000
	tenth, again, fifth := split(0.1), split(0.1), split(0.2)
	b, without := 0, 0
	for i := range keys {
		key := fmt.Sprintf("session-%d", i)
		got := said(t, tenth, key)
		if got == 2 {
			b++
		}
		if other := said(t, again, key); other != got {
			t.Fatalf("%s meets version %v here and %v there", key, got, other)
		}
		if more := said(t, fifth, key); got == 2 && more != 2 {
			t.Errorf("%s leaves the version whose share has grown", key)
		}
		if said(t, tenth, "") == 2 {
			without++
		}
	}
	for name, n := range map[string]int{"with keys": b, "without": without} {
		// Five standard deviations.
		if off := math.Abs(float64(n) - keys*0.1); off > 5*math.Sqrt(keys*0.1*0.9) {
			t.Errorf("%s, %d of %d requests went to a version of a tenth", name, n, keys)
		}
	}
}

func TestAVersionInTheShadowIsAskedAndNobodyWaitsForIt(t *testing.T) {
	shadow := &version{value: 9, hold: make(chan struct{}), asking: make(chan struct{}, 100)}
	registry := prometheus.NewRegistry()
	values := make(chan float64, 100)
	s, err := traffic.New(traffic.Config{Model: "m", Metrics: registry, Versions: []traffic.Version{
		{Name: "live", Predictions: &version{value: 1}, Share: 1},
		{Name: "new", Predictions: shadow, Said: func(v float64) { values <- v }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	const requests = 10
	for range requests { // the shadow holds the first four and misses the others
		if got := said(t, s, "k"); got != 1 {
			t.Fatalf("the shadow's answer %v was returned", got)
		}
	}
	for range 4 {
		<-shadow.asking
	}
	close(shadow.hold)
	for range 4 {
		if v := <-values; v != 9 {
			t.Errorf("the shadow is said to have said %v", v)
		}
	}
	if got := testutil.ToFloat64(metric(t, registry, "freshet_version_missed_total", "new")); got != requests-4 {
		t.Errorf("%v requests were missed, want %d", got, requests-4)
	}
}

// metric returns a counter of a version as a collector of its own.
func metric(t *testing.T, registry *prometheus.Registry, name, version string) prometheus.Collector {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if f.GetName() == name && label.GetValue() == version {
					c := prometheus.NewCounter(prometheus.CounterOpts{Name: "found"})
					c.Add(m.GetCounter().GetValue())
					return c
				}
			}
		}
	}
	t.Fatalf("no metric %s of version %s", name, version)
	return nil
}

func TestAnErrorIsTheAnswerOfTheVersionThatWasAsked(t *testing.T) {
	s, err := traffic.New(traffic.Config{Versions: []traffic.Version{{Name: "a", Predictions: &version{err: ps.ErrUnavailable}, Share: 1, Said: func(float64) {
		t.Error("a version that failed is said to have said something")
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Predict(t.Context(), nil); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestSharesThatCannotBeMeantAreRefused(t *testing.T) {
	p := &version{}
	for name, versions := range map[string][]traffic.Version{
		"none":             nil,
		"less than all":    {{Name: "a", Predictions: p, Share: 0.5}},
		"more than all":    {{Name: "a", Predictions: p, Share: 0.5}, {Name: "b", Predictions: p, Share: 0.6}},
		"a negative share": {{Name: "a", Predictions: p, Share: -0.5}, {Name: "b", Predictions: p, Share: 1.5}},
		"a share of NaN":   {{Name: "a", Predictions: p, Share: math.NaN()}},
		"two of a name":    {{Name: "a", Predictions: p, Share: 0.5}, {Name: "a", Predictions: p, Share: 0.5}},
		"no name":          {{Predictions: p, Share: 1}},
		"no predictions":   {{Name: "a", Share: 1}},
	} {
		if _, err := traffic.New(traffic.Config{Versions: versions}); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}
