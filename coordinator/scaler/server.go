package scaler

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/proto/externalscaler"
	"github.com/freshet-ml/freshet/ps"
)

// Names of what a ScaledObject says in its metadata.
const (
	metaModel       = "model"
	metaCatchUp     = "catchUpSeconds"
	metaUtilisation = "targetUtilisation"
)

const (
	// lookEvery is the time between two looks at the cluster.
	lookEvery = 5 * time.Second
	// forgetAfter is for how long targets that nobody asks for are kept in mind. KEDA asks
	// every 30 s, or as a ScaledObject says.
	forgetAfter = 10 * time.Minute
	// askedMax is how many targets are kept in mind besides the usual ones.
	askedMax = 256
)

// Config is what a Server needs.
type Config struct {
	// Status returns the cluster as it is.
	Status func(ctx context.Context) (coordinator.Status, error)
	// Targets are for metrics, and for whoever asks and says none. Defaults: a minute, and
	// 0.7.
	Targets Targets
	// Metrics, if not nil, is told of every model.
	Metrics prometheus.Registerer
	Logger  *slog.Logger
}

func (c *Config) validate() error {
	c.Targets = Targets{cmp.Or(c.Targets.CatchUp, time.Minute), cmp.Or(c.Targets.Utilisation, 0.7)}
	if c.Status == nil || c.Logger == nil {
		return fmt.Errorf("a scaler needs a status and a logger: %w", ps.ErrInvalid)
	}
	return c.Targets.validate()
}

func (t Targets) validate() error {
	if t.CatchUp < time.Second || !(t.Utilisation > 0 && t.Utilisation <= 1) {
		return fmt.Errorf("catch up in %v at a utilisation of %v: want a second or more, and above 0 up to 1: %w", t.CatchUp, t.Utilisation, ps.ErrInvalid)
	}
	return nil
}

// Server is KEDA's external scaler. Every coordinator has one, and looks at the cluster by
// itself: KEDA asks any of them. It is safe for concurrent use.
type Server struct {
	externalscaler.UnimplementedExternalScalerServer
	config  Config
	metrics *metrics

	mu sync.Mutex
	// Guarded by mu.
	models  map[asked]*Model
	askedAt map[asked]time.Time // of models with other targets than the usual ones
	looked  bool                // there was a look
	known   map[string]int      // looks that were taken, by the name of a model; of every model there is
	now     map[asked]Figures
	news    chan struct{} // closed by the next look
}

// asked is a model and what somebody wants of it.
type asked struct {
	model   string
	targets Targets
}

// New returns a Server that answers once it is registered, and knows something once it runs.
func New(c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config: c, models: make(map[asked]*Model), askedAt: make(map[asked]time.Time), known: make(map[string]int), now: make(map[asked]Figures), news: make(chan struct{}),
	}
	if c.Metrics != nil {
		var err error
		if s.metrics, err = newMetrics(c.Metrics); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Register adds the service to a gRPC server that is not serving yet.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	externalscaler.RegisterExternalScalerServer(r, s)
}

// Run looks at the cluster until ctx ends; then it returns nil.
func (s *Server) Run(ctx context.Context) error {
	for {
		if st, err := s.config.Status(ctx); err == nil {
			s.take(st, time.Now())
		} else if ctx.Err() == nil {
			s.config.Logger.Debug("what the stream needs is not known", "err", err)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return nil
		}
	}
}

// take takes in what the cluster is at a time.
func (s *Server) take(st coordinator.Status, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = true
	seen := make(map[string]bool)
	for _, m := range st.Models {
		seen[m.Name] = true
		if _, there := s.known[m.Name]; !there {
			s.known[m.Name] = 0
		}
		if m.ProgressError != "" {
			continue // nothing is known, and 0 would be a lie
		}
		s.known[m.Name]++
		l := lookAt(st, m, at)
		usual := asked{m.Name, s.config.Targets}
		if s.models[usual] == nil {
			s.models[usual] = NewModel(usual.targets)
		}
		for of, model := range s.models {
			if of.model == m.Name {
				s.now[of] = model.Take(l)
			}
		}
		s.metrics.set(m.Name, s.now[usual])
	}
	for of := range s.models {
		since, unusual := s.askedAt[of]
		if !seen[of.model] || unusual && at.Sub(since) > forgetAfter {
			delete(s.models, of)
			delete(s.askedAt, of)
			delete(s.now, of)
		}
	}
	for name := range s.known {
		if !seen[name] {
			delete(s.known, name)
			s.metrics.forget(name) // an autoscaler would go on with the last number
		}
	}
	close(s.news)
	s.news = make(chan struct{})
}

// lookAt returns what a status says of a model.
func lookAt(st coordinator.Status, m coordinator.ModelStatus, at time.Time) Look {
	l := Look{At: at, Partitions: len(m.Partitions), Known: len(m.Partitions) > 0, Workers: make(map[string]Work)}
	for _, p := range m.Partitions {
		lag, known := p.Lag()
		if !known {
			l.Known = false
		}
		l.Applied += uint64(p.Applied)
		l.Grown += uint64(p.Applied) + lag
		if lag > 0 && p.EventTime > 0 && (l.EventTime == 0 || p.EventTime < l.EventTime) {
			l.EventTime = p.EventTime
		}
	}
	for _, w := range st.Workers {
		if w.Model == m.Name {
			l.Workers[w.ID] = Work{Events: w.Events, BusySeconds: w.BusySeconds}
		}
	}
	return l
}

// figures returns what is known of what is asked for, or a gRPC status: InvalidArgument where
// the metadata has to be put right, Unavailable where asking later helps.
func (s *Server) figures(ctx context.Context, ref *externalscaler.ScaledObjectRef) (asked, Figures, error) {
	of, err := s.parse(ref)
	if err != nil {
		return of, Figures{}, status.Error(codes.InvalidArgument, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.looked {
		return of, Figures{}, status.Error(codes.Unavailable, "this coordinator has not looked at the cluster yet")
	}
	names := slices.Sorted(maps.Keys(s.known))
	if of.model == "" && len(names) == 1 {
		of.model = names[0]
	}
	looks, there := s.known[of.model]
	switch {
	case of.model == "":
		return of, Figures{}, status.Errorf(codes.InvalidArgument, "say which model with %s: there are %q", metaModel, names)
	case !there:
		return of, Figures{}, status.Errorf(codes.InvalidArgument, "there is no model %q: apply it, or put %s right: there are %q", of.model, metaModel, names)
	case looks == 0:
		return of, Figures{}, status.Errorf(codes.Unavailable, "nothing is known of model %q yet: its shards do not answer", of.model)
	}
	if of.targets != s.config.Targets { // somebody wants it otherwise
		if s.models[of] == nil { // it begins with the next look
			if len(s.askedAt) >= askedMax {
				return of, Figures{}, status.Errorf(codes.ResourceExhausted,
					"%d other targets are asked for already: use the coordinator's, or those of another ScaledObject", askedMax)
			}
			s.models[of] = NewModel(of.targets)
			s.now[of] = s.now[asked{of.model, s.config.Targets}]
		}
		s.askedAt[of] = time.Now()
	}
	return of, s.now[of], ctx.Err()
}

// parse returns what the metadata of a ScaledObject asks for.
func (s *Server) parse(ref *externalscaler.ScaledObjectRef) (asked, error) {
	of := asked{targets: s.config.Targets}
	for name, value := range ref.GetScalerMetadata() {
		switch name {
		case metaModel:
			of.model = value
		case metaCatchUp, metaUtilisation:
			number, err := strconv.ParseFloat(value, 64)
			if err != nil || !(number > 0 && number < 1e6) {
				return of, fmt.Errorf("metadata %s %q of %s: want a number above 0", name, value, ref.GetName())
			}
			if name == metaCatchUp {
				of.targets.CatchUp = time.Duration(number * float64(time.Second))
			} else {
				of.targets.Utilisation = number
			}
		case "scalerAddress", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey", "unsafeSsl", "enableTLS": // KEDA's own
		default:
			return of, fmt.Errorf("metadata %s of %s is not known: want %s, %s or %s", name, ref.GetName(), metaModel, metaCatchUp, metaUtilisation)
		}
	}
	return of, of.targets.validate()
}

// IsActive is called by gRPC.
func (s *Server) IsActive(ctx context.Context, ref *externalscaler.ScaledObjectRef) (*externalscaler.IsActiveResponse, error) {
	_, f, err := s.figures(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &externalscaler.IsActiveResponse{Result: f.Active}, nil
}

// StreamIsActive is called by gRPC. It sends what is so, and then every change. It waits for a
// model that is not there yet; the other calls say so.
func (s *Server) StreamIsActive(ref *externalscaler.ScaledObjectRef, stream grpc.ServerStreamingServer[externalscaler.IsActiveResponse]) error {
	if _, err := s.parse(ref); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	sent, last := false, false
	for {
		s.mu.Lock()
		news := s.news
		s.mu.Unlock()
		_, f, err := s.figures(stream.Context(), ref)
		switch {
		case status.Code(err) == codes.ResourceExhausted:
			return err
		case err != nil: // not known yet
		case !sent || f.Active != last:
			if err := stream.Send(&externalscaler.IsActiveResponse{Result: f.Active}); err != nil {
				return err
			}
			sent, last = true, f.Active
		}
		select {
		case <-news:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// metricName is the name of the metric of a model: the workers that are wanted.
func metricName(model string) string { return "freshet-wanted-workers-" + model }

// GetMetricSpec is called by gRPC. The target is 1: as many workers as the metric says.
func (s *Server) GetMetricSpec(ctx context.Context, ref *externalscaler.ScaledObjectRef) (*externalscaler.GetMetricSpecResponse, error) {
	of, _, err := s.figures(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &externalscaler.GetMetricSpecResponse{MetricSpecs: []*externalscaler.MetricSpec{
		{MetricName: metricName(of.model), TargetSize: 1, TargetSizeFloat: 1},
	}}, nil
}

// GetMetrics is called by gRPC.
func (s *Server) GetMetrics(ctx context.Context, request *externalscaler.GetMetricsRequest) (*externalscaler.GetMetricsResponse, error) {
	of, f, err := s.figures(ctx, request.GetScaledObjectRef())
	if err != nil {
		return nil, err
	}
	return &externalscaler.GetMetricsResponse{MetricValues: []*externalscaler.MetricValue{
		{MetricName: metricName(of.model), MetricValue: int64(f.Wanted), MetricValueFloat: float64(f.Wanted)},
	}}, nil
}

// metrics are what Prometheus is told. A nil one is told to nobody.
type metrics struct {
	wanted, arrival, rate, backlog, lag *prometheus.GaugeVec
}

func newMetrics(to prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"model"})
	}
	m := &metrics{
		wanted:  gauge("freshet_wanted_workers", "Workers that the model's stream needs, for an autoscaler."),
		arrival: gauge("freshet_stream_arrival_events_per_second", "Events that come each second."),
		rate:    gauge("freshet_worker_events_per_busy_second", "Events that one worker learns in a second in which it has any."),
		backlog: gauge("freshet_stream_backlog_events", "Events that are there and not in the model everywhere."),
		lag:     gauge("freshet_stream_lag_seconds", "Age of the oldest event that is not in the model everywhere."),
	}
	for _, g := range []*prometheus.GaugeVec{m.wanted, m.arrival, m.rate, m.backlog, m.lag} {
		if err := to.Register(g); err != nil {
			return nil, fmt.Errorf("metrics of the scaler: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) forget(model string) {
	if m == nil {
		return
	}
	for _, g := range []*prometheus.GaugeVec{m.wanted, m.arrival, m.rate, m.backlog, m.lag} {
		g.DeleteLabelValues(model)
	}
}

func (m *metrics) set(model string, f Figures) {
	if m == nil {
		return
	}
	m.wanted.WithLabelValues(model).Set(float64(f.Wanted))
	m.arrival.WithLabelValues(model).Set(f.Arrival)
	m.rate.WithLabelValues(model).Set(f.Rate)
	m.backlog.WithLabelValues(model).Set(float64(f.Backlog))
	m.lag.WithLabelValues(model).Set(f.Lag.Seconds())
}
