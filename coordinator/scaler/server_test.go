package scaler_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/scaler"
	"github.com/freshet-ml/freshet/proto/externalscaler"
	"github.com/freshet-ml/freshet/ps"
)

// told is a status that a test changes.
type told struct {
	mu sync.Mutex
	st coordinator.Status // guarded by mu
}

func (s *told) status(context.Context) (coordinator.Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st, nil
}

// serve runs a scaler and returns a client of it.
func serve(t *testing.T, c scaler.Config) externalscaler.ExternalScalerClient {
	t.Helper()
	c.Logger = slog.New(slog.DiscardHandler)
	s, err := scaler.New(c)
	if err != nil {
		t.Fatal(err)
	}
	listener, g := bufconn.Listen(1<<20), grpc.NewServer()
	s.Register(g)
	ctx, cancel := context.WithCancel(t.Context())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = g.Serve(listener) })
	tasks.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); g.Stop(); tasks.Wait() })
	conn, err := grpc.NewClient("passthrough:///scaler", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return externalscaler.NewExternalScalerClient(conn)
}

func TestKEDAIsToldWhatIsWanted(t *testing.T) {
	cluster := &told{st: coordinator.Status{
		Workers: []coordinator.WorkerStatus{{ID: "a", Model: "shop"}, {ID: "b", Model: "shop"}, {ID: "c", Model: "other"}},
		Models: []coordinator.ModelStatus{
			{Name: "shop", Partitions: []coordinator.PartitionStatus{{Applied: 10, Newest: 40, EventTime: time.Now().Add(-3 * time.Second).UnixMilli()}, {Applied: 7, Newest: 7}}},
			{Name: "other", Partitions: []coordinator.PartitionStatus{{Applied: 5, End: 5, EndKnown: true}}},
		},
	}}
	registry := prometheus.NewRegistry()
	client := serve(t, scaler.Config{Status: cluster.status, Metrics: registry})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ref := func(metadata ...string) *externalscaler.ScaledObjectRef {
		r := &externalscaler.ScaledObjectRef{Name: "workers", Namespace: "default", ScalerMetadata: map[string]string{"scalerAddress": "freshet:7400"}}
		for i := 0; i < len(metadata); i += 2 {
			r.ScalerMetadata[metadata[i]] = metadata[i+1]
		}
		return r
	}
	var active *externalscaler.IsActiveResponse
	for { // until it has looked once
		var err error
		if active, err = client.IsActive(ctx, ref("model", "shop")); err == nil {
			break
		} else if status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if !active.GetResult() {
		t.Error("a model with a backlog is not active")
	}
	spec, err := client.GetMetricSpec(ctx, ref("model", "shop"))
	if err != nil || len(spec.GetMetricSpecs()) != 1 || spec.GetMetricSpecs()[0].GetTargetSizeFloat() != 1 {
		t.Fatalf("metric spec is %v (%v), want one with a target of 1", spec, err)
	}
	name := spec.GetMetricSpecs()[0].GetMetricName()
	values, err := client.GetMetrics(ctx, &externalscaler.GetMetricsRequest{ScaledObjectRef: ref("model", "shop"), MetricName: name})
	if err != nil || len(values.GetMetricValues()) != 1 || values.GetMetricValues()[0].GetMetricName() != name || values.GetMetricValues()[0].GetMetricValueFloat() != 2 {
		t.Errorf("metrics are %v (%v), want the 2 workers there are while nothing is known of what they can do", values, err)
	}
	if active, err := client.IsActive(ctx, ref("model", "other")); err != nil || active.GetResult() {
		t.Errorf("a model that is learned to its end is active: %v (%v)", active, err)
	}
	for what, bad := range map[string]*externalscaler.ScaledObjectRef{
		"two models and none named": ref(),
		"a word for a number":       ref("model", "shop", "catchUpSeconds", "soon"),
		"more than all the time":    ref("model", "shop", "targetUtilisation", "7"),
		"a name nobody knows":       ref("model", "shop", "catchupseconds", "60"),
	} {
		if _, err := client.IsActive(ctx, bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", what, err)
		}
	}
	if _, err := client.GetMetricSpec(ctx, ref("model", "nobody's")); status.Code(err) != codes.InvalidArgument ||
		!strings.Contains(err.Error(), "nobody's") || !strings.Contains(err.Error(), `"other" "shop"`) {
		t.Errorf("a model that is not there: %v, want InvalidArgument with its name and those there are", err)
	}
	if got := testutil.ToFloat64(collect(t, registry, "freshet_stream_backlog_events", "shop")); got != 30 {
		t.Errorf("the backlog of shop is told to be %v, want 30", got)
	}
	if got := testutil.ToFloat64(collect(t, registry, "freshet_stream_lag_seconds", "shop")); got < 3 || got > 20 {
		t.Errorf("the lag of shop is told to be %v s, want 3 or a little more", got)
	}

	// The stream of what is active: what is so, and then changes.
	stream, err := client.StreamIsActive(ctx, ref("model", "shop"))
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || !first.GetResult() {
		t.Fatalf("the stream begins with %v (%v), want active", first, err)
	}
	cluster.mu.Lock()
	cluster.st.Models = []coordinator.ModelStatus{{Name: "shop", Partitions: []coordinator.PartitionStatus{{Applied: 40, End: 40, EndKnown: true}, {Applied: ps.Offset(7), End: 7, EndKnown: true}}}}
	cluster.mu.Unlock()
	if second, err := stream.Recv(); err != nil || second.GetResult() {
		t.Fatalf("the stream goes on with %v (%v), want not active", second, err)
	}
}

// collect returns a gauge of a model as a collector.
func collect(t *testing.T, r *prometheus.Registry, name, model string) prometheus.Collector {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name})
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == model {
				g.Set(m.GetGauge().GetValue())
				return g
			}
		}
	}
	t.Fatalf("no metric %s of %s", name, model)
	return nil
}
