package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// trainNetworks are the networks that bench train can learn, and their lines in the
// spec. The settings are those that a sequential learner does best with.
var trainNetworks = map[string]string{
	spec.Logistic: `network: {kind: logistic, optimizer: {name: ftrl, learning_rate: 0.05, beta: 1, l1: 0, l2: 0}}`,
	spec.FM: `network:
  kind: fm
  optimizer: {name: ftrl, learning_rate: 0.05, beta: 1, l1: 0, l2: 0}
  factors: 16
  factor_optimizer: {name: adagrad, learning_rate: 0.02, initial_accumulator: 1}
  factor_init: 0.01`,
	spec.DeepFM: `network:
  kind: deepfm
  optimizer: {name: ftrl, learning_rate: 0.05, beta: 1, l1: 0, l2: 0}
  factors: 16
  factor_optimizer: {name: adagrad, learning_rate: 0.005, initial_accumulator: 1}
  factor_init: 0.01
  hidden: [512, 256, 128]
  hidden_optimizer: {name: adam, learning_rate: 0.001}`,
}

// trainFields are the columns of the generated stream; a network with hidden layers sees
// each by itself.
const trainFields = 39

// benchTrain are the flags of "bench train".
type benchTrain struct {
	network  string
	source   string
	data     string
	events   int64
	seed     uint64
	passes   int
	shards   int
	inFlight int
	serial   bool
	every    time.Duration
	profiles string
	spec     string
	cache    string
	product  string
}

// trainReport is the document of "bench train -o json". Keys may be added and do not
// change.
type trainReport struct {
	Network                    string       `json:"network"`
	Product                    string       `json:"product"` // of matrices
	InFlight                   int          `json:"in_flight"`
	Shards                     int          `json:"shards"`
	Passes                     int          `json:"passes"`
	Examples                   int64        `json:"examples"`
	Seconds                    float64      `json:"seconds"`
	ExamplesPerSecond          float64      `json:"examples_per_second"`
	ExamplesPerWorkerCPUSecond float64      `json:"examples_per_worker_cpu_second"`
	ExamplesPerServerCPUSecond float64      `json:"examples_per_server_cpu_second"`
	LogLoss                    *float64     `json:"log_loss"`
	AUC                        *float64     `json:"auc"`
	Rows                       uint64       `json:"rows"`
	Epochs                     ps.Epoch     `json:"epochs"` // committed while it learned
	Audit                      audit.Report `json:"audit"`
}

func newBenchTrain(t *terminal) *cobra.Command {
	var b benchTrain
	cmd := &cobra.Command{
		Use:   "train",
		Short: "Measure learning through a parameter server, with its log loss",
		Long: `Starts a parameter-server node and a worker, each a process of its own, and
learns a stream through them as "up" would: exactly once, with epochs being
taken. The time runs from the first event to the last acknowledged one. log_loss
and auc are of each event before it was learned from. At the end the audit must
be clean; exit code 1 if it is not.

The stream is that of "freshet stream generate --shape criteo", made once and
kept in --data, or that of --source: Vowpal Wabbit text, features in column f.`,
		Example: `  freshet bench train
  freshet bench train --network fm --in-flight 256 -o json
  freshet bench train --source file:///data/criteo.vw --cpuprofile profiles

  # From extracted examples; the second run is the one to look at:
  freshet bench train --cache examples && freshet bench train --cache examples

  # The log loss of learning each event before the next is pulled:
  freshet bench train --examples 100000 --sequential`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			if err := t.result(report, report.print); err != nil {
				return err
			}
			if !report.Audit.Clean() {
				return errNotClean
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&b.network, "network", spec.Logistic, "what is learned: "+strings.Join(trainNetworkNames(), " or "))
	flags.StringVar(&b.source, "source", "", "stream URL: file:///path/to/events.vw[.zst] (default: a generated stream)")
	flags.StringVar(&b.data, "data", filepath.Join(os.TempDir(), "freshet-bench"), "directory that generated streams are kept in")
	flags.Int64Var(&b.events, "examples", 1_000_000, "events of the generated stream")
	flags.Uint64Var(&b.seed, "seed", 42, "of the generated stream")
	flags.IntVar(&b.passes, "passes", 1, "times that the stream is learned, one after the other")
	flags.IntVar(&b.shards, "shards", 8, "shards, a power of two")
	flags.IntVar(&b.inFlight, "in-flight", 512, "events between pull and push")
	flags.BoolVar(&b.serial, "sequential", false, "one event in flight: slow, and the log loss to compare with")
	flags.DurationVar(&b.every, "checkpoint-every", time.Second, "time between epochs")
	flags.StringVar(&b.profiles, "cpuprofile", "", "directory to write a processor profile of the node and of the worker to")
	flags.StringVar(&b.cache, "cache", "", "directory of extracted examples: the first run fills it, and others read it in place of the text")
	flags.StringVar(&b.product, "product", productFreshet, productUsage)
	flags.StringVar(&b.spec, "spec", "", "file with another model spec, in place of --network")
	return cmd
}

// trainNetworkNames returns what --network may be.
func trainNetworkNames() []string {
	var names []string
	for name := range trainNetworks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (b *benchTrain) validate() error {
	switch {
	case trainNetworks[b.network] == "":
		return usageError{fmt.Errorf("--network %q: want %s", b.network, strings.Join(trainNetworkNames(), " or "))}
	case !validProduct(b.product):
		return usageError{badProduct(b.product)}
	case b.events < 1:
		return usageError{fmt.Errorf("--examples %d: want at least 1", b.events)}
	case b.passes < 1:
		return usageError{fmt.Errorf("--passes %d: want at least 1", b.passes)}
	case b.inFlight < 1:
		return usageError{fmt.Errorf("--in-flight %d: want at least 1", b.inFlight)}
	case b.every <= 0:
		return usageError{fmt.Errorf("--checkpoint-every %v: want above 0", b.every)}
	}
	if err := ps.ValidShards(b.shards); err != nil {
		return usageError{fmt.Errorf("--shards: %w", err)}
	}
	return nil
}

// document returns the spec to learn with.
func (b *benchTrain) document() ([]byte, error) {
	if b.spec != "" {
		doc, err := os.ReadFile(b.spec)
		if err != nil {
			return nil, usageError{fmt.Errorf("--spec: %w", err)}
		}
		return doc, nil
	}
	fields := ""
	if b.network == spec.DeepFM {
		fields = fmt.Sprintf(", fields: %d", trainFields)
	}
	return fmt.Appendf(nil, `model: bench
stream: {format: vw, partitions: 1, passes: %d}
loss: log
features:
  - {name: f, column: f, split: " "%s}
%s
evaluation: {holdout: 0}
training: {in_flight: %d}
`, b.passes, fields, trainNetworks[b.network], b.inFlight), nil
}

func (b *benchTrain) run(ctx context.Context, t *terminal) (report trainReport, err error) {
	if err := b.validate(); err != nil {
		return report, err
	}
	if b.serial {
		b.inFlight = 1
	}
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o750); err != nil {
			return report, usageError{fmt.Errorf("--cpuprofile: %w", err)}
		}
	}
	j := &job{url: b.source}
	if j.doc, err = b.document(); err != nil {
		return report, err
	}
	if j.spec, err = spec.Parse("bench train", j.doc); err != nil {
		return report, err
	}
	if j.url == "" {
		if j.url, err = b.generate(ctx, t); err != nil {
			return report, err
		}
	}
	t.progress("opening %s", j.url)
	if j.source, err = openStream(ctx, opening{spec: j.spec, url: j.url, columns: feature.Columns(j.spec), logger: t.logger}); err != nil {
		return report, err
	}
	defer j.source.Close()
	j.model = ps.Model{
		Name: j.spec.Model, Version: 1, Layout: j.spec.Layout(eval.Tables()),
		Stream: j.source.Identity(), Partitions: j.source.Partitions(),
	}
	dir, err := openDirectory("")
	if err != nil {
		return report, err
	}
	m := &trainMeasurement{benchTrain: *b, t: t, cluster: &recoveryCluster{
		terminal: t, dir: dir.file("cluster"), nodes: 1, workers: 1, shards: b.shards, every: b.every, job: j, profiles: b.profiles,
	}}
	defer func() {
		var keep []string
		if err != nil {
			keep = []string{"cluster"}
			t.note("what is left, the members' logs among it, is in %s", dir.path)
		}
		err = errors.Join(err, dir.end(keep...))
	}()
	if err := os.MkdirAll(m.cluster.dir, 0o700); err != nil {
		return report, err
	}
	err = m.cluster.live(ctx, m.learn)
	return m.report, err
}

// generate returns the URL of the generated stream, and makes it if it is not there.
func (b *benchTrain) generate(ctx context.Context, t *terminal) (url string, err error) {
	if err := os.MkdirAll(b.data, 0o750); err != nil {
		return "", usageError{fmt.Errorf("--data: %w", err)}
	}
	path := filepath.Join(b.data, fmt.Sprintf("criteo-%d-%d.vw", b.events, b.seed))
	if _, err := os.Stat(path); err == nil {
		return fileURL(path)
	}
	// Under another name, so that what is interrupted, or made twice at once, is not
	// taken for the stream.
	file, err := os.CreateTemp(b.data, "part-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // it is only a part
		}
	}()
	out := bufio.NewWriterSize(file, 1<<20)
	_, err = examples.Criteo{Events: b.events, Seed: b.seed}.Write(ctx, out, func(events int64) {
		t.progress("making the stream: %s of %s events", thousands(events), thousands(b.events))
	})
	if err = errors.Join(err, out.Flush(), file.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return "", err
	}
	return fileURL(path)
}

// trainMeasurement is a bench train under way.
type trainMeasurement struct {
	benchTrain
	t       *terminal
	cluster *recoveryCluster
	worker  *child
	report  trainReport
}

// How often learning is looked at. Before and after, where the time is taken, often;
// meanwhile seldom, since who looks takes the processor from who learns.
const (
	trainEdgeEvery = 2 * time.Millisecond
	trainLookEvery = 20 * time.Millisecond
)

// learn starts the worker, waits until it has learned everything, and fills in the
// report.
func (m *trainMeasurement) learn(ctx context.Context, g *errgroup.Group, home childHome) error {
	c := m.cluster
	m.t.progress("starting a node and a worker")
	if _, err := c.sample(ctx); err != nil { // until all shards are served
		return err
	}
	m.worker = home.worker(workerName(0), c.job.spec.Model, c.job.url, "", m.inFlight, 0, m.cache)
	m.worker.args = append(m.worker.args, "--product", m.product)
	g.Go(func() error { return m.worker.run(ctx) })
	started, err := m.begin(ctx)
	if err != nil {
		return err
	}
	progress, err := m.end(ctx)
	if err != nil {
		return err
	}
	ended, err := m.usages()
	if err != nil {
		return err
	}
	return m.fill(ctx, progress, started, ended)
}

// moment is what had been used at a time.
type moment struct {
	at             time.Time
	server, worker usage
}

// usages returns what node and worker have used up to now.
func (m *trainMeasurement) usages() (now moment, err error) {
	now.at = time.Now()
	if now.server, err = processUsage(m.cluster.children[0].pid()); err != nil {
		return now, err
	}
	now.worker, err = processUsage(m.worker.pid())
	return now, err
}

// begin waits until something has been learned, and returns the moment it looked
// before that.
func (m *trainMeasurement) begin(ctx context.Context) (before moment, err error) {
	for {
		now := moment{at: time.Now()}
		if m.worker.pid() != 0 {
			if now, err = m.usages(); err != nil {
				return before, err
			}
		}
		progress, err := m.cluster.client.Applied(ctx, m.cluster.job.model.Name)
		if err != nil {
			return before, err
		}
		if applied(progress) > 0 {
			return before, nil
		}
		before = now
		if err := rest(ctx, trainEdgeEvery); err != nil {
			return before, err
		}
	}
}

// end waits until every shard has applied the end of the stream.
func (m *trainMeasurement) end(ctx context.Context) ([]ps.ShardProgress, error) {
	stream := &ends{model: m.cluster.job.model, of: make(map[ps.Partition]ps.Offset)}
	var shown time.Time
	for {
		known, err := stream.look(ctx, m.cluster.store)
		if err != nil {
			return nil, err
		}
		every := trainLookEvery
		if show := time.Since(shown) > showEvery; known || show {
			progress, err := m.cluster.client.Applied(ctx, m.cluster.job.model.Name)
			if err != nil {
				return nil, err
			}
			if known && stream.reached(progress) {
				return progress, nil
			}
			if show {
				shown = time.Now()
				m.t.progress("learning: %s events", thousands(applied(progress)))
			}
		}
		if known {
			every = trainEdgeEvery
		}
		if err := rest(ctx, every); err != nil {
			return nil, err
		}
	}
}

// fill fills in the report.
func (m *trainMeasurement) fill(ctx context.Context, progress []ps.ShardProgress, from, to moment) error {
	c := m.cluster
	epoch, err := c.store.Epoch(ctx, c.job.model.Name)
	if err != nil {
		return err
	}
	summary, err := newSummary(c.client, c.job.model, c.job.spec, m.shards)
	if err != nil {
		return err
	}
	if err := summary.Update(ctx, spread(progress)); err != nil {
		return err
	}
	scores := summary.Figures(eval.Progressive)
	judged := scores.Report(c.job.spec.Loss == spec.Log)
	examples := applied(progress)
	seconds := to.at.Sub(from.at).Seconds()
	m.report = trainReport{
		Network: c.job.spec.Network.Kind, Product: m.product, InFlight: m.inFlight, Shards: m.shards, Passes: c.job.spec.Stream.Passes,
		Examples: examples, Seconds: seconds, ExamplesPerSecond: float64(examples) / seconds,
		ExamplesPerWorkerCPUSecond: float64(examples) / (to.worker.CPU - from.worker.CPU),
		ExamplesPerServerCPUSecond: float64(examples) / (to.server.CPU - from.server.CPU),
		LogLoss:                    judged.LogLoss, AUC: judged.AUC, Epochs: epoch.Number,
	}
	for _, shard := range progress {
		m.report.Rows += shard.Rows
	}
	return c.audit(ctx, &m.report.Audit)
}

// print writes the report for people.
func (r trainReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %s examples in %.2f s, %s; %d in flight, %s, %s taken\n",
		r.Network, thousands(r.Examples), r.Seconds, count(r.Passes, "pass"), r.InFlight, count(r.Shards, "shard"), count(int(r.Epochs), "epoch"))
	fmt.Fprintf(w, "  examples per second          %12s\n", thousands(int64(r.ExamplesPerSecond)))
	fmt.Fprintf(w, "  per worker CPU-second        %12s\n", thousands(int64(r.ExamplesPerWorkerCPUSecond)))
	fmt.Fprintf(w, "  per server CPU-second        %12s\n", thousands(int64(r.ExamplesPerServerCPUSecond)))
	fmt.Fprintf(w, "  log loss before learning     %12s\n", figure5(r.LogLoss))
	fmt.Fprintf(w, "  AUC                          %12s\n", figure5(r.AUC))
	printAudit(w, r.Audit)
}

// figure5 prints a figure, that may be undefined, to the digits by which learners of
// one stream differ.
func figure5(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.5f", *v)
}
