package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/coordinator/server"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
)

// asks is a Progress that answers as it is told to.
type asks func(ctx context.Context, model string) ([]ps.ShardProgress, error)

func (f asks) Applied(ctx context.Context, model string) ([]ps.ShardProgress, error) {
	return f(ctx, model)
}

// store returns a store on an etcd of the test's own.
func store(t *testing.T) *meta.Store {
	t.Helper()
	e, err := etcd.Start(t.Context(), etcd.Config{Dir: t.TempDir(), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	s, err := meta.Dial(t.Context(), meta.Config{Endpoints: e.Endpoints(), Cluster: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// serve returns a connection to a server.
func serve(t *testing.T, cfg server.Config) *grpc.ClientConn {
	t.Helper()
	if cfg.Nodes == nil {
		cfg.Nodes = holds(nil)
	}
	if cfg.Operations == nil {
		cfg.Operations = &operations{}
	}
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	s.Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	conn, err := grpc.NewClient("passthrough:///coordinator",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

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
			Partitions: 2,
		},
		Spec: []byte("model: " + name + "\n"),
	}
}

func unasked(context.Context, string) ([]ps.ShardProgress, error) {
	return nil, errors.New("nobody should have asked")
}

func TestModels(t *testing.T) {
	client := server.NewClient(serve(t, server.Config{Store: store(t), Progress: asks(unasked)}))
	t.Run("there is none at first", func(t *testing.T) {
		if _, err := client.Model(t.Context(), ""); !errors.Is(err, ps.ErrUnknownModel) {
			t.Errorf("error is %v, want ErrUnknownModel", err)
		}
	})
	t.Run("a model is applied once, and read back as it was", func(t *testing.T) {
		for _, first := range []bool{true, false} {
			version, changed, err := client.ApplyModel(t.Context(), model("m"))
			if err != nil || version != 1 || changed != first {
				t.Fatalf("version %d, changed %v (%v), want 1 and %v", version, changed, err, first)
			}
		}
		want := model("m")
		want.Version = 1
		for _, name := range []string{"m", ""} {
			got, err := client.Model(t.Context(), name)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("model %q (%v, -want +got):\n%s", name, err, diff)
			}
		}
	})
	t.Run("conditions cross the network, with their text", func(t *testing.T) {
		other := model("m")
		other.Spec = []byte("another")
		_, _, err := client.ApplyModel(t.Context(), other)
		if !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), "give this one another name") {
			t.Errorf("error is %v, want ErrConflict that says what to do", err)
		}
		if _, err := client.Model(t.Context(), "films"); !errors.Is(err, ps.ErrUnknownModel) || !strings.Contains(err.Error(), "there is m") {
			t.Errorf("error is %v, want ErrUnknownModel naming m", err)
		}
		if _, err := client.Model(t.Context(), "../m"); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("error is %v, want ErrInvalid", err)
		}
	})
	t.Run("the largest spec passes", func(t *testing.T) {
		m := model("large")
		m.Spec = bytes.Repeat([]byte("#"), coordinator.SpecBytesMax)
		if _, _, err := client.ApplyModel(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Model(t.Context(), "large"); err != nil || !bytes.Equal(got.Spec, m.Spec) {
			t.Errorf("read back a spec of %d bytes (%v)", len(got.Spec), err)
		}
	})
}

func TestApplyModelRefuses(t *testing.T) {
	s := store(t)
	admin := adminv1.NewAdminClient(serve(t, server.Config{Store: s, Progress: asks(unasked)}))
	layout, err := json.Marshal(model("m").Layout)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*adminv1.Model)
		text   string
	}{
		"no model at all":             {func(m *adminv1.Model) { *m = adminv1.Model{} }, "model without a name"},
		"a name with a dot":           {func(m *adminv1.Model) { m.Name = "m.1" }, "'.'"},
		"an overlong name":            {func(m *adminv1.Model) { m.Name = strings.Repeat("m", 129) }, "128"},
		"no layout":                   {func(m *adminv1.Model) { m.Layout = nil }, "layout is not JSON"},
		"a layout without tables":     {func(m *adminv1.Model) { m.Layout = []byte(`{"seed":1}`) }, "0 tables"},
		"an unknown setting":          {func(m *adminv1.Model) { m.Layout = []byte(`{"seed":1,"shards":4}`) }, `unknown field "shards"`},
		"something after the layout":  {func(m *adminv1.Model) { m.Layout = append(layout, "{}"...) }, "goes on"},
		"a layout beyond the limit":   {func(m *adminv1.Model) { m.Layout = make([]byte, 1<<17+1) }, "131072"},
		"a row of no width":           {func(m *adminv1.Model) { m.Layout = bytes.Replace(layout, []byte(`"width":1`), []byte(`"width":0`), 1) }, "width 0"},
		"a table of an unknown kind":  {func(m *adminv1.Model) { m.Layout = bytes.Replace(layout, []byte(`"kind":0`), []byte(`"kind":9`), 1) }, "kind(9)"},
		"no stream":                   {func(m *adminv1.Model) { m.Stream = "" }, "stream identity"},
		"a stream with no partitions": {func(m *adminv1.Model) { m.Partitions = 0 }, "0 partitions"},
		"too many partitions":         {func(m *adminv1.Model) { m.Partitions = 1<<16 + 1 }, "65537 partitions"},
		"no spec":                     {func(m *adminv1.Model) { m.Spec = nil }, "without a spec"},
		"a spec beyond the limit":     {func(m *adminv1.Model) { m.Spec = make([]byte, 1<<20+1) }, "1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			m := &adminv1.Model{Name: "m", Spec: []byte("spec"), Layout: bytes.Clone(layout), Stream: "s", Partitions: 2}
			test.change(m)
			_, err := admin.ApplyModel(t.Context(), &adminv1.ApplyModelRequest{Model: m})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error is %v, want InvalidArgument with %q", err, test.text)
			}
		})
	}
	if models, err := s.Models(t.Context()); err != nil || len(models) != 0 {
		t.Errorf("models are %+v (%v), want none", models, err)
	}
}

// cluster makes a cluster of two shards, on one node if placed, with a model and one
// worker that has reported.
func cluster(t *testing.T, placed bool) *meta.Store {
	t.Helper()
	s := store(t)
	ctx := t.Context()
	_, err := s.CreateCluster(ctx, 2)
	must(t, err)
	_, err = s.JoinNode(ctx, coordinator.Node{ID: "node-1", Address: "host:7070"})
	must(t, err)
	if placed {
		v, err := s.View(ctx)
		must(t, err)
		_, err = s.SetMap(ctx, coordinator.Read{Map: v.MapRevision}, []route.Shard{{Owner: "node-1", Fence: 1}, {Owner: "node-1", Fence: 1, Standbys: []ps.NodeID{"gone", "node-1"}}})
		must(t, err)
	}
	_, _, err = s.ApplyModel(ctx, model("m"))
	must(t, err)
	w, err := s.JoinWorker(ctx, coordinator.Worker{ID: "w", Model: "m"})
	must(t, err)
	must(t, w.Report(ctx, coordinator.WorkerReport{Partitions: []coordinator.PartitionReport{
		{Partition: 0, Position: 50}, {Partition: 1, Position: 40, End: 90, EndKnown: true}, {Partition: 7, End: 1, EndKnown: true},
	}}))
	_, err = s.SetAssignment(ctx, 0, coordinator.Assignment{Model: "m", Workers: 1, Owners: []string{"w", "w"}})
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func getStatus(t *testing.T, s *meta.Store, progress asks) coordinator.Status {
	t.Helper()
	client := server.NewClient(serve(t, server.Config{Store: s, Progress: progress, ProgressTimeout: 50 * time.Millisecond}))
	st, err := client.Status(t.Context())
	must(t, err)
	return st
}

func TestStatus(t *testing.T) {
	s := cluster(t, true)
	shards := []ps.ShardProgress{
		{Shard: 0, Rows: 10, Partitions: []ps.Progress{{Applied: 30, Skipped: 2, EventTime: 5}, {Applied: 31, EventTime: 9}}},
		{Shard: 1, Rows: 5, Partitions: []ps.Progress{{Applied: 29, Skipped: 1, EventTime: 6}, {Applied: 40, EventTime: 8}}},
	}
	want := coordinator.Status{
		Cluster: "test",
		Shards:  2,
		Nodes:   []coordinator.NodeStatus{{ID: "node-1", Address: "host:7070", Shards: 2, Copies: 1, Capacity: 1}},
		Workers: []coordinator.WorkerStatus{{ID: "w", Model: "m", Partitions: []ps.Partition{0, 1}}},
		Models: []coordinator.ModelStatus{{
			Name: "m", Version: 1, Stream: "sha256:0123", Generation: 1, Rows: 15,
			Partitions: []coordinator.PartitionStatus{
				{Partition: 0, Worker: "w", Applied: 29, Skipped: 2, EventTime: 6},
				{Partition: 1, Worker: "w", Applied: 31, End: 90, EndKnown: true, EventTime: 9},
			},
		}},
	}
	t.Run("says what the store, the shards and the workers say", func(t *testing.T) {
		got := getStatus(t, s, func(_ context.Context, model string) ([]ps.ShardProgress, error) {
			if model != "m" {
				return nil, fmt.Errorf("asked about model %q", model)
			}
			return shards, nil
		})
		if got.MapVersion == 0 {
			t.Error("no map version")
		}
		got.MapVersion = 0
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
	})
	t.Run("a shard that knows nothing of a partition has applied nothing of it", func(t *testing.T) {
		got := getStatus(t, s, func(context.Context, string) ([]ps.ShardProgress, error) {
			return []ps.ShardProgress{shards[0], {Shard: 1}}, nil
		})
		if p := got.Models[0].Partitions; p[0].Applied != 0 || p[1].Applied != 0 || p[0].Skipped != 2 {
			t.Errorf("partitions are %+v", p)
		}
	})
	for name, test := range map[string]struct {
		progress asks
		want     string
	}{
		"an error": {func(context.Context, string) ([]ps.ShardProgress, error) {
			return nil, fmt.Errorf("node-1 is on fire: %w", ps.ErrUnavailable)
		}, "node-1 is on fire"},
		"silence": {func(ctx context.Context, _ string) ([]ps.ShardProgress, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "within 50ms"},
		"one shard of two": {func(context.Context, string) ([]ps.ShardProgress, error) {
			return shards[:1], nil
		}, "1 of 2 shards answered"},
	} {
		t.Run(name+" from the shards leaves the rest of the status", func(t *testing.T) {
			got := getStatus(t, s, test.progress)
			m := got.Models[0]
			if !strings.Contains(m.ProgressError, test.want) || m.Rows != 0 || m.Partitions[1].Applied != 0 {
				t.Errorf("model is %+v, want no progress and the error %q", m, test.want)
			}
			if p := m.Partitions[1]; p.Worker != "w" || p.End != 90 || len(got.Nodes) != 1 {
				t.Errorf("status is %+v, want what is known without the shards", got)
			}
		})
	}
	t.Run("shards are not asked while one has no owner", func(t *testing.T) {
		got := getStatus(t, cluster(t, false), unasked)
		if got.ShardsWithoutOwner != 2 || got.Models[0].ProgressError != "2 of 2 shards have no owner" || got.Nodes[0].Shards != 0 {
			t.Errorf("status is %+v", got)
		}
	})
	t.Run("a cluster that does not exist yet is unavailable", func(t *testing.T) {
		client := server.NewClient(serve(t, server.Config{Store: store(t), Progress: asks(unasked)}))
		if _, err := client.Status(t.Context()); !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), "not created") {
			t.Errorf("error is %v, want ErrUnavailable", err)
		}
	})
}

func TestStatusJSON(t *testing.T) {
	// The keys are what "status -o json" promises: they may grow and do not change.
	st := coordinator.Status{
		Cluster: "c", Shards: 2, ShardsWithoutOwner: 1, MapVersion: 3,
		Nodes:   []coordinator.NodeStatus{{ID: "n", Address: "h:1", Shards: 2, Copies: 3, Name: "ps-0", Zone: "z", Capacity: 2, Draining: true, Arriving: 1}},
		Workers: []coordinator.WorkerStatus{{ID: "w", Model: "m", Partitions: []ps.Partition{0}, Events: 9, BusySeconds: 1.5}},
		Models: []coordinator.ModelStatus{{
			Name: "m", Version: 1, Stream: "s", Generation: 4, Rows: 5,
			Partitions: []coordinator.PartitionStatus{{Worker: "w", Applied: 6, End: 7, EndKnown: true, Skipped: 8, EventTime: 9}},
		}},
	}
	got, err := json.Marshal(st)
	want := `{"cluster":"c","shards":2,"shards_without_owner":1,"map_version":3,` +
		`"nodes":[{"id":"n","address":"h:1","shards":2,"copies":3,"name":"ps-0","zone":"z","capacity":2,"draining":true,"arriving":1}],` +
		`"workers":[{"id":"w","model":"m","partitions":[0],"events":9,"busy_seconds":1.5}],` +
		`"models":[{"name":"m","version":1,"stream":"s","generation":4,"rows":5,` +
		`"partitions":[{"partition":0,"worker":"w","applied":6,"end":7,"end_known":true,"newest":0,"skipped":8,"event_time":9}]}]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	listener.Close()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	if _, err := server.NewClient(conn).Status(t.Context()); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("error is %v, want ErrUnavailable", err)
	}
}
