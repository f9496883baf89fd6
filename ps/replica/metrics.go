package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-ml/freshet/ps"
)

// metrics are how fresh a replica is, by the steps of an event's way: event, applied by the
// owner, sent to readers, served here. They rest on the clocks of those who take part, and
// on event times that are the present; no rule reads them.
type metrics struct {
	applied, sent, served, fresh prometheus.Histogram
	swaps                        prometheus.Counter
}

// freshBuckets resolve what Freshet promises, a quarter of a second, and reach to where
// somebody should look: seconds.
var freshBuckets = []float64{.001, .0025, .005, .01, .02, .03, .04, .06, .08, .1, .15, .2, .25, .35, .5, .75, 1, 2, 5, 10, 30, 60, 300}

func newMetrics(registerer prometheus.Registerer, model string) (metrics, error) {
	labels := prometheus.Labels{"model": model}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, ConstLabels: labels, Buckets: freshBuckets})
	}
	m := metrics{
		applied: histogram("freshet_event_to_applied_seconds", "Time from the newest event of a delta to its shard having applied it."),
		sent:    histogram("freshet_applied_to_sent_seconds", "Time from a shard's last push before a delta to the delta being handed to readers."),
		served:  histogram("freshet_sent_to_served_seconds", "Time from a delta being handed to readers to this replica serving it."),
		fresh:   histogram("freshet_event_to_served_seconds", "Time from the newest event of a delta to this replica serving it."),
		swaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_replica_swaps_total", Help: "Shards that were read anew and replaced.", ConstLabels: labels,
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.applied, m.sent, m.served, m.fresh, m.swaps} {
		if err := registerer.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

// observe takes note of a delta that is served now; newer says that it brings newer events.
func (m *metrics) observe(d *ps.Delta, newer bool, now time.Time) {
	if d.AppliedAt == 0 || d.SentAt == 0 {
		return
	}
	seconds := func(from, to int64) float64 { return max(0, float64(to-from)/1e6) }
	var event int64 // the newest
	for _, p := range d.Partitions {
		event = max(event, p.EventTime*1000)
	}
	m.sent.Observe(seconds(d.AppliedAt, d.SentAt))
	m.served.Observe(seconds(d.SentAt, now.UnixMicro()))
	if newer {
		m.applied.Observe(seconds(event, d.AppliedAt))
		m.fresh.Observe(seconds(event, now.UnixMicro()))
	}
}
