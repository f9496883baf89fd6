package server

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// figures are what Prometheus is told of the requests. No label has anything that a caller
// has made up.
type figures struct {
	requests            *prometheus.CounterVec   // by method and outcome
	seconds, candidates *prometheus.HistogramVec // by method
	panics              prometheus.Counter
}

var (
	// secondsBuckets reach from a few candidates whose rows are in memory to where a page
	// has long been shown without an answer.
	secondsBuckets = []float64{
		.0001, .00025, .0005, .001, .0015, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075, .1, .25, .5, 1, 2.5, 10,
	}
	candidatesBuckets = []float64{1, 10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000}
)

func newFigures(registerer prometheus.Registerer, underWay *atomic.Int64) (figures, error) {
	f := figures{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "freshet_serve_requests_total", Help: "Requests answered, by outcome: OK, or the reason why not.",
		}, []string{"method", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_serve_request_seconds", Help: "Time from when a request was there until its answer was made.", Buckets: secondsBuckets,
		}, []string{"method"}),
		candidates: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "freshet_serve_request_candidates", Help: "Events to score, or items to retrieve, that a request has asked for.", Buckets: candidatesBuckets,
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "freshet_serve_panics_total", Help: "Requests that ended with a fault in the pod's code.",
		}),
	}
	if registerer == nil {
		return f, nil
	}
	under := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "freshet_serve_requests_under_way", Help: "Requests that compute or wait.",
	}, func() float64 { return float64(underWay.Load()) })
	for _, c := range []prometheus.Collector{f.requests, f.seconds, f.candidates, f.panics, under} {
		if err := registerer.Register(c); err != nil {
			return f, fmt.Errorf("metrics of a server of predictions: %w", err)
		}
	}
	return f, nil
}

// answered counts a request.
func (f *figures) answered(method, outcome string, took time.Duration) {
	f.requests.WithLabelValues(method, outcome).Inc()
	f.seconds.WithLabelValues(method).Observe(took.Seconds())
}

// asked counts what a request is about.
func (f *figures) asked(method string, candidates int) {
	f.candidates.WithLabelValues(method).Observe(float64(candidates))
}
