package sink

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Figures are what a sink has done so far.
type Figures struct {
	// Rows and Bytes of weights were written; a row counts as often as it was.
	Rows  int64 `json:"rows"`
	Bytes int64 `json:"bytes"`
	// Shards are those whose rows are all there.
	Shards int `json:"shards"`
	// Retries counts how often the target was asked again because it was away.
	Retries int64 `json:"retries"`
	// FreshP50 and FreshP99 are of the time between an event and its rows in the target,
	// over the last deltas that brought newer events; 0 if there were none.
	FreshP50 time.Duration `json:"-"`
	FreshP99 time.Duration `json:"-"`
}

// freshMax is how many of the last times between event and target are kept.
const freshMax = 1024

// tally is what Figures are made of.
type tally struct {
	rows, bytes, retries int64
	times                []time.Duration // the last freshMax, in a ring
	next                 int
}

func (t *tally) add(rows, bytes int) {
	t.rows += int64(rows)
	t.bytes += int64(bytes)
}

func (t *tally) fresh(took time.Duration) {
	if len(t.times) < freshMax {
		t.times = append(t.times, took)
		return
	}
	t.times[t.next] = took
	t.next = (t.next + 1) % freshMax
}

// Figures returns what has been done so far.
func (s *Sink) Figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Figures{Rows: s.figures.rows, Bytes: s.figures.bytes, Retries: s.figures.retries}
	for _, shard := range s.shards {
		if shard.written {
			f.Shards++
		}
	}
	if times := slices.Sorted(slices.Values(s.figures.times)); len(times) > 0 {
		f.FreshP50, f.FreshP99 = times[len(times)/2], times[len(times)*99/100]
	}
	return f
}

// metrics are the same for Prometheus.
type metrics struct {
	rows, bytes, retries prometheus.Counter
	freshness            prometheus.Histogram
}

// freshnessBuckets resolve what Freshet promises, a quarter of a second, and reach to
// where somebody should look: seconds.
var freshnessBuckets = []float64{.005, .01, .02, .03, .04, .06, .08, .1, .15, .2, .25, .35, .5, .75, 1, 2, 5, 10, 30, 60, 300}

func newMetrics(registerer prometheus.Registerer, model string) (metrics, error) {
	labels := prometheus.Labels{"model": model}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	m := metrics{
		rows:    counter("freshet_sink_rows_total", "Rows written to the target."),
		bytes:   counter("freshet_sink_bytes_total", "Bytes of weights written to the target, as float32."),
		retries: counter("freshet_sink_retries_total", "How often the target was asked again because it was away."),
		freshness: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "freshet_sink_freshness_seconds", Help: "Time between the newest event of a delta and its rows in the target.",
			ConstLabels: labels, Buckets: freshnessBuckets,
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rows, m.bytes, m.retries, m.freshness} {
		if err := registerer.Register(c); err != nil {
			return m, fmt.Errorf("metrics of a sink: %w", err)
		}
	}
	return m, nil
}
