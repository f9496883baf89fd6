package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
)

// testCluster is a cluster in this process, with an etcd of its own, whose members
// come and go as a test says.
type testCluster struct {
	t      *testing.T
	store  *meta.Store
	client *client.Client
	shards int
	// coordinator is its address.
	coordinator string
	logger      *slog.Logger
	log         *syncBuffer

	spec   *spec.Spec
	source stream.Source
	model  ps.Model
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newTestCluster starts etcd and a coordinator that waits for nodes.
func newTestCluster(t *testing.T, nodesMin, workersMin int) *testCluster {
	t.Helper()
	return newCheckpointedCluster(t, nodesMin, workersMin, epochSettings{})
}

// newCheckpointedCluster is newTestCluster with a coordinator that takes epochs.
func newCheckpointedCluster(t *testing.T, nodesMin, workersMin int, checkpoints epochSettings) *testCluster {
	t.Helper()
	c := &testCluster{t: t, shards: 16, log: &syncBuffer{}}
	c.logger = slog.New(slog.NewTextHandler(c.log, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the cluster:\n%s", c.log)
		}
	})
	server, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	c.store, err = meta.Dial(t.Context(), meta.Config{Endpoints: server.Endpoints(), LeaseTTL: time.Second, Logger: c.logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.store.Close)
	listener := c.listen()
	c.coordinator = listener.Addr().String()
	c.start("the coordinator", func(ctx context.Context) error {
		return runCoordinator(ctx, coordinatorSettings{
			store: c.store, name: "coordinator", listener: listener, advertise: listener.Addr().String(),
			shards: c.shards, nodesMin: nodesMin, workersMin: workersMin, checkpoints: checkpoints, logger: c.logger,
		})
	})
	return c
}

func (c *testCluster) listen() net.Listener {
	listener, err := listen(c.t.Context(), "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	return listener
}

// start runs a member until the returned function or the test ends it.
func (c *testCluster) start(name string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil && ctx.Err() == nil {
			c.t.Errorf("%s ended: %v", name, err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	c.t.Cleanup(stop)
	return stop
}

func (c *testCluster) startNode(name string) (stop func()) {
	listener := c.listen()
	return c.start(name, func(ctx context.Context) error {
		return runNode(ctx, nodeSettings{store: c.store, name: name, listener: listener, advertise: listener.Addr().String(), logger: c.logger})
	})
}

func (c *testCluster) startWorker(name string) (stop func()) { return c.startPacedWorker(name, 0) }

// startPacedWorker starts a worker that learns so many events a second at most; 0 is as fast
// as it goes.
func (c *testCluster) startPacedWorker(name string, rate float64) (stop func()) {
	return c.start(name, func(ctx context.Context) error {
		return runWorker(ctx, workerSettings{
			store: c.store, name: name, model: c.model.Name, source: c.source, logger: c.logger,
			inFlight: c.spec.Training.InFlight, rate: rate, secret: testSecret,
		})
	})
}

var testSecret = []byte("a secret of at least sixteen bytes")

// apply makes a spec and a stream the cluster's model.
func (c *testCluster) apply(doc, events string) {
	c.t.Helper()
	var err error
	if c.spec, err = spec.Parse("test.yaml", []byte(doc)); err != nil {
		c.t.Fatal(err)
	}
	url, err := fileURL(events)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.source, err = openStream(c.t.Context(), opening{spec: c.spec, url: url, columns: feature.Columns(c.spec), secret: testSecret, logger: c.logger}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.source.Close() })
	c.model = ps.Model{
		Name: c.spec.Model, Version: 1, Layout: c.spec.Layout(eval.Tables()),
		Stream: c.source.Identity(), Partitions: c.source.Partitions(),
	}
	if _, _, err := c.store.ApplyModel(c.t.Context(), coordinator.Model{Model: c.model, Spec: []byte(doc)}); err != nil {
		c.t.Fatal(err)
	}
}

// dial makes the cluster's client; it waits for the shard map.
func (c *testCluster) dial() {
	c.t.Helper()
	var err error
	if c.client, err = client.Dial(c.t.Context(), client.Config{Routes: c.store, Logger: c.logger}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.client.Close() })
}

// applied returns the lowest offset applied, summed over the partitions: every
// event before has been learned everywhere.
func (c *testCluster) applied() (events int64, progress []ps.ShardProgress) {
	c.t.Helper()
	progress, err := c.client.Applied(c.t.Context(), c.model.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range spread(progress) {
		events += int64(r.From)
	}
	return events, progress
}

// waitFor waits until the cluster has applied n events everywhere.
func (c *testCluster) waitFor(n int64) []ps.ShardProgress {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for ticks := time.NewTicker(5 * time.Millisecond); ; <-ticks.C {
		events, progress := c.applied()
		if events >= n {
			return progress
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after two minutes %d events are applied everywhere, want %d", events, n)
		}
	}
}

// audit checks that every event was applied exactly once and returns the figures.
func (c *testCluster) audit(events int64) (learned, replayed eval.Figures) {
	c.t.Helper()
	progress := c.waitFor(events)
	report, err := audit.Run(c.t.Context(), audit.Config{Spec: c.spec, Source: c.source, Progress: progress})
	if err != nil {
		c.t.Fatal(err)
	}
	if !report.Clean() || report.Events != events {
		c.t.Errorf("audit %+v, want %d events, nothing lost or doubled", report, events)
	}
	summary, err := newSummary(c.client, c.model, c.spec, c.shards)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := summary.Update(c.t.Context(), spread(progress)); err != nil {
		c.t.Fatal(err)
	}
	learned, replayed = summary.Figures(eval.Progressive), summary.Figures(eval.Replayed)
	if n := int64(learned.Events+replayed.Events) + skippedEvents(progress); n != events {
		c.t.Errorf("%v learned + %v replayed + %d skipped events, want %d together", learned.Events, replayed.Events, skippedEvents(progress), events)
	}
	return learned, replayed
}

const clusterSpec = `
model: clicks
stream: {format: csv, partitions: 6, partition_by: user, identifiers: [user]}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
evaluation: {window: 1000, holdout: 0.02}
training: {in_flight: 128, audit_table: true}
`

// click returns the label and the item of an event of writeClicks: some items are clicked
// more than others.
func click(i int) (clicked int, item uint64) {
	item = ps.Mix(uint64(i)) % 30
	if ps.Mix(uint64(i)+1e9)%30 < item {
		clicked = 1
	}
	return clicked, item
}

// writeClicks writes n events.
func writeClicks(t *testing.T, n int) (path string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("user,item,clicked\n")
	for i := range n {
		clicked, item := click(i)
		fmt.Fprintf(&b, "u%d,i%d,%d\n", ps.Mix(uint64(i)+2e9)%2000, item, clicked)
	}
	path = filepath.Join(t.TempDir(), "clicks.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAClusterLearnsAStreamExactlyOnce(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 2, 2)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	c.startNode("b")
	c.startWorker("v")
	c.startWorker("w")
	c.dial()
	learned, replayed := c.audit(events)
	if replayed.Events != 0 {
		t.Errorf("%v events were replayed though nothing failed", replayed.Events)
	}
	if auc, ok := learned.AUC(); !ok || auc < 0.7 {
		t.Errorf("AUC %v, want above 0.7: items differ in their click rates from 0 to 1", auc)
	}
}

func TestANodeThatLeavesUnderWayLosesNothing(t *testing.T) {
	const events = 30_000
	c := newTestCluster(t, 2, 2)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startNode("b")
	c.startWorker("v")
	c.startWorker("w")
	c.dial()
	c.waitFor(events / 5)
	stop()
	_, replayed := c.audit(events)
	if replayed.Events == 0 {
		t.Error("no event was replayed: the node left too late for the test to say anything")
	}
}

func TestWorkersThatComeAndGoDoubleNothing(t *testing.T) {
	const events = 30_000
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startWorker("v")
	c.dial()
	c.waitFor(events / 10)
	c.startWorker("w")
	c.waitFor(events / 5)
	stop()
	c.waitFor(events / 3)
	c.startWorker("x")
	c.audit(events)
}
