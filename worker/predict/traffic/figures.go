package traffic

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what versions have done, for Prometheus.
type figures struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
	// By version.
	names  []string
	said   []prometheus.Observer
	missed []prometheus.Counter
}

// secondsBuckets are of a request in memory, some milliseconds, and of a bad one.
var secondsBuckets = []float64{.0001, .00025, .0005, .001, .002, .004, .008, .016, .032, .064, .125, .25, .5, 1}

// saidBuckets are twenty parts of what a probability can be; quantities are beyond or not.
var saidBuckets = prometheus.LinearBuckets(0.05, 0.05, 20)

func newFigures(c Config) (figures, error) {
	labels := prometheus.Labels{"model": c.Model}
	said := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "freshet_version_predictions", Help: "Predictions that a version has made.", ConstLabels: labels, Buckets: saidBuckets,
	}, []string{"version"})
	missed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "freshet_version_missed_total", Help: "Requests that a version in the shadow was not asked, because it was busy.", ConstLabels: labels,
	}, []string{"version"})
	f := figures{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_version_request_seconds", Help: "Time that a version took to answer.", ConstLabels: labels, Buckets: secondsBuckets,
		}, []string{"version", "method"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_version_errors_total", Help: "Requests that a version could not answer.", ConstLabels: labels,
		}, []string{"version", "method"}),
	}
	for _, v := range c.Versions {
		f.names = append(f.names, v.Name)
		f.said = append(f.said, said.WithLabelValues(v.Name))
		f.missed = append(f.missed, missed.WithLabelValues(v.Name))
	}
	if c.Metrics == nil {
		return f, nil
	}
	for _, collector := range []prometheus.Collector{said, missed, f.seconds, f.errors} {
		if err := c.Metrics.Register(collector); err != nil {
			return f, err
		}
	}
	return f, nil
}

// answered counts a request.
func (f *figures) answered(version int, method string, took time.Duration, err error) {
	f.seconds.WithLabelValues(f.names[version], method).Observe(took.Seconds())
	if err != nil {
		f.errors.WithLabelValues(f.names[version], method).Inc()
	}
}
