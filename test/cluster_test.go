//go:build unix

package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/spec"
)

// shards of the clusters here: several for every node, and as few as that allows.
const shards = 16

// cluster is a coordinator, nodes and workers as processes on the loopback, with
// an etcd of their own, which the test runs. Every one takes a free port, and the
// test reads it in the log.
type cluster struct {
	*host
	dir     string
	etcd    string   // its URL
	flags   []string // of every role
	address string   // of the coordinator

	spec   *spec.Spec
	model  ps.Model
	stream []string // flags: where it is and what masks its identifiers
	client *client.Client
}

// newCluster starts etcd, and a coordinator that waits for so many nodes and
// workers. lease is how long a silent process counts as there; etcd makes two
// seconds of one. more are flags of the coordinator.
func newCluster(t *testing.T, lease time.Duration, nodes, workers int, more ...string) *cluster {
	t.Helper()
	c := &cluster{host: newHost(t), dir: t.TempDir()}
	server, err := etcd.Start(t.Context(), etcd.Config{Dir: filepath.Join(c.dir, "etcd"), UnsafeNoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	c.etcd = server.Endpoints()[0]
	c.flags = []string{"--etcd", c.etcd, "--lease-ttl", lease.String()}
	more = append(more, "--nodes-min", fmt.Sprint(nodes), "--workers-min", fmt.Sprint(workers))
	c.address = c.startCoordinator("127.0.0.1:0", more...)
	return c
}

// role returns a role's command line.
func (c *cluster) role(role string, args ...string) []string {
	return append(append([]string{role}, c.flags...), args...)
}

// startCoordinator starts a coordinator and returns its address.
func (c *cluster) startCoordinator(listen string, args ...string) (address string) {
	c.t.Helper()
	p := c.start("the coordinator", c.role("coordinator", append(args, "--listen", listen, "--shards", fmt.Sprint(shards))...)...)
	return p.await(`"coordinator joined" .*address=(\S+)`)[1]
}

// startNode starts a node and returns the name of its life in the shard map.
func (c *cluster) startNode(name string) (*process, ps.NodeID) {
	c.t.Helper()
	p := c.start("node "+name, c.role("ps", "--name", name)...)
	return p, ps.NodeID(p.await(`"node joined" node=(\S+)`)[1])
}

// startWorker starts a worker of the model.
func (c *cluster) startWorker(name string, args ...string) *process {
	c.t.Helper()
	args = append(append(args, c.stream...), "--name", name, "--dead-letters", filepath.Join(c.dir, name+".jsonl"))
	p := c.start("worker "+name, c.role("worker", args...)...)
	p.await(`"worker joined"`)
	return p
}

// must runs a command that has to succeed and decodes its document, unless it is
// not wanted.
func (c *cluster) must(document any, args ...string) {
	c.t.Helper()
	code, stdout, stderr := c.run(append(args, "--coordinator", c.address, "-o", "json")...)
	if code != 0 {
		c.t.Fatalf("freshet %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	if document == nil {
		return
	}
	if err := json.Unmarshal([]byte(stdout), document); err != nil {
		c.t.Fatalf("freshet %s: stdout is not one JSON document: %v\n%s", strings.Join(args, " "), err, stdout)
	}
}

// masked is the secret that masks the identifiers of every stream here.
const masked = "a secret of at least sixteen bytes"

// write writes a file of the cluster's and returns its path.
func (c *cluster) write(name string, content []byte) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// apply makes a spec and the events in a file the cluster's model.
func (c *cluster) apply(document []byte, events string) {
	c.t.Helper()
	var err error
	if c.spec, err = spec.Parse("test.yaml", document); err != nil {
		c.t.Fatal(err)
	}
	c.model = ps.Model{Name: c.spec.Model, Layout: c.spec.Layout(eval.Tables()), Partitions: c.spec.Stream.Partitions}
	c.stream = []string{"--stream", "file://" + events, "--secret-file", c.write("secret", []byte(masked))}
	c.must(nil, append([]string{"model", "apply", c.write("model.yaml", document)}, c.stream...)...)
}

// dial connects the test itself, as an inference pod would: without etcd.
func (c *cluster) dial() {
	c.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	routes, err := client.Addresses(logger, nil, c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), awaitMax)
	defer cancel()
	if c.client, err = client.Dial(ctx, client.Config{Routes: routes, Logger: logger}); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.client.Close() })
}

// applied returns how many events all shards have applied, and how far the lowest
// and the highest shard are by partition.
func (c *cluster) applied() (events int64, spread []ps.Range) {
	c.t.Helper()
	events, spread, err := c.appliedWithin(awaitMax)
	if err != nil {
		c.t.Fatal(err)
	}
	return events, spread
}

// appliedNow is applied, but nil where a shard cannot be asked within a second.
func (c *cluster) appliedNow() (events int64, spread []ps.Range) {
	events, spread, _ = c.appliedWithin(time.Second)
	return events, spread
}

func (c *cluster) appliedWithin(most time.Duration) (events int64, spread []ps.Range, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), most)
	defer cancel()
	progress, err := c.client.Applied(ctx, c.model.Name)
	if err != nil {
		return 0, nil, err
	}
	spread = make([]ps.Range, c.model.Partitions)
	for i, shard := range progress {
		for p, at := range shard.Partitions {
			if i == 0 || at.Applied < spread[p].From {
				spread[p].From = at.Applied
			}
			spread[p].To = max(spread[p].To, at.Applied)
		}
	}
	for _, r := range spread {
		events += int64(r.From)
	}
	return events, spread, nil
}

// until looks every interval until done, which says what it saw, is.
func (c *cluster) until(what string, interval, most time.Duration, done func() (ok bool, saw string)) {
	c.t.Helper()
	looks := time.NewTicker(interval)
	defer looks.Stop()
	deadline := time.Now().Add(most)
	for {
		ok, saw := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v not yet: %s; %s", most, what, saw)
		}
		<-looks.C
	}
}

// learnMax is how long a cluster may take to learn what a test gives it, faults
// and all. It takes a few seconds.
const learnMax = time.Minute

// waitFor waits until n events are applied everywhere, and returns how many are.
func (c *cluster) waitFor(n int64) (events int64) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d events applied everywhere", n), 5*time.Millisecond, learnMax, func() (bool, string) {
		events, _ = c.applied()
		return events >= n, fmt.Sprintf("%d are", events)
	})
	return events
}

// waitForEnd waits until the operator's status knows the end of every partition and
// sees no lag.
func (c *cluster) waitForEnd() {
	c.t.Helper()
	c.until("no lag", 200*time.Millisecond, learnMax, func() (bool, string) {
		var s coordinator.Status
		c.must(&s, "status")
		if len(s.Models) != 1 || s.Models[0].ProgressError != "" || len(s.Models[0].Partitions) != c.model.Partitions {
			return false, fmt.Sprintf("status %+v", s)
		}
		for _, p := range s.Models[0].Partitions {
			if !p.EndKnown || p.Applied != p.End {
				return false, fmt.Sprintf("status %+v", s)
			}
		}
		return true, ""
	})
}

// audit has the operator's audit prove that so many events were applied exactly
// once: nothing lost, nothing doubled.
func (c *cluster) audit(events int64) {
	c.t.Helper()
	var got audit.Report
	c.must(&got, append([]string{"audit"}, c.stream...)...)
	if got.Events != events || got.Lost != 0 || got.Doubled != 0 || got.Skipped != 0 || got.Shards != shards {
		c.t.Errorf("audit %+v, want %d events at %d shards, nothing lost, doubled or skipped", got, events, shards)
	}
}

// figures returns what the shards say of the scores that were given before
// learning, and of those given again after a fault. Every event is in one of them.
func (c *cluster) figures(events int64) (learned, replayed eval.Figures) {
	c.t.Helper()
	summary, err := eval.NewSummary(eval.SummaryConfig{
		Layout: c.model.Layout, Binary: true, Window: c.spec.Evaluation.Window, Pull: c.pull,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	_, spread := c.applied()
	if err := summary.Update(c.t.Context(), spread); err != nil {
		c.t.Fatal(err)
	}
	learned, replayed = summary.Figures(eval.Progressive), summary.Figures(eval.Replayed)
	if n := int64(learned.Events + replayed.Events); n != events {
		c.t.Errorf("the figures are of %.0f + %.0f replayed events, want %d together", learned.Events, replayed.Events, events)
	}
	return learned, replayed
}

func (c *cluster) pull(ctx context.Context, table ps.TableID, keys []ps.Key) ([]byte, error) {
	var group ps.Group
	group.Fill(keys, shards)
	width := c.model.Layout.Tables[table].RowBytes()
	reads := []ps.Read{{Table: table, RowBytes: width, Group: &group}}
	if err := c.client.Pull(ctx, c.model.Name, c.model.Layout.Hash(), reads); err != nil {
		return nil, err
	}
	values := make([]byte, 0, len(keys)*width)
	for _, at := range group.Index {
		values = append(values, reads[0].Values[int(at)*width:][:width]...)
	}
	return values, nil
}

// clicksSpec is the model of writeClicks. With 64 events in flight a cluster on two
// processors takes a few seconds for events to spare, in which a fault finds work
// under way.
const clicksSpec = `
model: clicks
stream: {format: csv, partitions: 6, partition_by: user, identifiers: [user]}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
evaluation: {window: 1000, holdout: 0}
training: {in_flight: 64, audit_table: true}
`

// writeClicks writes events in which some items are clicked more than others.
func (c *cluster) writeClicks(events int) (path string) {
	c.t.Helper()
	var b bytes.Buffer
	b.WriteString("user,item,clicked\n")
	for i := range uint64(events) {
		item, clicked := ps.Mix(i)%30, 0
		if ps.Mix(i+1e9)%30 < item {
			clicked = 1
		}
		fmt.Fprintf(&b, "u%d,i%d,%d\n", ps.Mix(i+2e9)%2000, item, clicked)
	}
	return c.write("clicks.csv", b.Bytes())
}
