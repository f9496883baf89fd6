package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/control"
	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/scaler"
	coordinatorserver "github.com/freshet-ml/freshet/coordinator/server"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/server"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/deadletter"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
	"github.com/freshet-ml/freshet/worker/stream/kafka"
	"github.com/freshet-ml/freshet/worker/train"
)

// life returns an identifier for this life of a process: its name and something
// that no other life has, because what was in memory under the name is gone.
func life(name string) string {
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		panic(err) // the documentation rules it out
	}
	return name + "-" + hex.EncodeToString(random)
}

// listen opens the port that --listen asks for.
func listen(ctx context.Context, address string) (net.Listener, error) {
	return listenAs(ctx, "--listen", address)
}

// listenAs opens the port that a flag asks for. A port in use is told with what to do about
// it.
func listenAs(ctx context.Context, flag, address string) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err == nil {
		return listener, nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the rest of it is the address again
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen at %s: %w: is another freshet running there? give another address with %s, or port 0 for a free one", address, err, flag)
	}
	return nil, usageError{fmt.Errorf("%s %q: %w", flag, address, err)}
}

// serve runs a gRPC server until ctx ends, then lets calls finish for a moment.
func serve(ctx context.Context, s *grpc.Server, listener net.Listener) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		force := time.AfterFunc(time.Second, s.Stop) // watches and push streams do not end by themselves
		defer force.Stop()
		s.GracefulStop()
	}()
	err := s.Serve(listener)
	if ctx.Err() == nil {
		return fmt.Errorf("serve at %s: %w", listener.Addr(), err)
	}
	<-stopped
	return nil
}

// nodeSettings are what a node is started with.
type nodeSettings struct {
	store     *meta.Store
	name      string
	listener  net.Listener
	advertise string // host:port that others reach the listener at
	zone      string
	capacity  float64
	rowsMax   int
	lookups   server.LookupLimits
	gossip    gossipSettings
	logger    *slog.Logger
}

// runNode is a parameter-server node until ctx ends.
func runNode(ctx context.Context, c nodeSettings) error {
	id := ps.NodeID(life(c.name))
	logger := c.logger.With("node", id)
	copies := &onDemand{store: c.store, logger: logger, turn: make(chan struct{}, 1)}
	defer copies.close()
	n, err := node.New(node.Config{ID: id, Ownership: c.store, Copies: copies, RowsMax: c.rowsMax, Logger: logger})
	if err != nil {
		return err
	}
	s := grpc.NewServer(server.Options()...)
	server.Register(s, n, c.store)
	if err := server.RegisterLookups(s, n, c.lookups); err != nil {
		return err
	}
	gossip, err := joinGossip(ctx, c.gossip, c.store, coordinator.RoleNode, string(id), logger)
	if err != nil {
		return err
	}
	defer gossip.close()
	registration, err := c.store.JoinNode(ctx, coordinator.Node{
		ID: id, Address: c.advertise, Name: c.name, Zone: c.zone, Capacity: c.capacity, Gossip: gossip.address(),
	})
	if err != nil {
		return err
	}
	logger.Info("node joined", "address", c.advertise)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return registration.Run(ctx) })
	g.Go(func() error { return gossip.run(ctx) })
	g.Go(func() error { return n.Run(ctx) })
	g.Go(func() error { return serve(ctx, s, c.listener) })
	return g.Wait()
}

// coordinatorSettings are what a coordinator is started with.
type coordinatorSettings struct {
	store      *meta.Store
	name       string
	listener   net.Listener
	advertise  string
	shards     int
	nodesMin   int
	workersMin int
	standbys   int
	moves      int
	scale      scaler.Targets // zero: the defaults
	metrics    string         // address where Prometheus asks; empty: nowhere
	// checkpoints, if it has a bucket, says where epochs go and when they are taken.
	checkpoints epochSettings
	gossip      gossipSettings
	logger      *slog.Logger
}

// epochSettings are where and when epochs are taken.
type epochSettings struct {
	bucket string
	every  time.Duration
	events uint64
	keep   int
}

// runCoordinator is a coordinator until ctx ends.
func runCoordinator(ctx context.Context, c coordinatorSettings) error {
	id := life(c.name)
	logger := c.logger.With("coordinator", id)
	if _, err := c.store.CreateCluster(ctx, c.shards); err != nil {
		return err
	}
	progress := &onDemand{store: c.store, logger: logger, turn: make(chan struct{}, 1)}
	defer progress.close()
	settings := control.Config{
		Store: c.store, ID: id, NodesMin: c.nodesMin, WorkersMin: c.workersMin, Standbys: c.standbys,
		Nodes: progress, Moves: c.moves, Logger: logger,
	}
	serving := coordinatorserver.Config{Store: c.store, Progress: progress, Nodes: progress, Logger: logger}
	gossip, err := joinGossip(ctx, c.gossip, c.store, coordinator.RoleCoordinator, id, logger)
	if err != nil {
		return err
	}
	defer gossip.close()
	settings.Beside = func(ctx context.Context) error { return gossip.lookOut(ctx, c.store, logger) }
	if c.checkpoints.bucket != "" {
		keeper, err := epochs.Open(ctx, epochs.Config{
			Store: c.store, Nodes: progress, Bucket: c.checkpoints.bucket, Every: c.checkpoints.every,
			Events: c.checkpoints.events, Keep: c.checkpoints.keep, Logger: logger,
		})
		if err != nil {
			return err
		}
		defer keeper.Close()
		serving.Epochs = keeper
		settings.Beside = func(ctx context.Context) error {
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return keeper.Run(ctx) })
			g.Go(func() error { return gossip.lookOut(ctx, c.store, logger) })
			return g.Wait()
		}
	}
	controller, err := control.New(settings)
	if err != nil {
		return err
	}
	serving.Operations = controller
	s := grpc.NewServer(server.Options()...)
	server.Register(s, nil, c.store)
	admin, err := coordinatorserver.New(serving)
	if err != nil {
		return err
	}
	admin.Register(s)
	registry := prometheus.NewRegistry()
	scaling, err := scaler.New(scaler.Config{Status: admin.Status, Targets: c.scale, Metrics: registry, Logger: logger})
	if err != nil {
		return err
	}
	scaling.Register(s)
	me := coordinator.Coordinator{ID: id, Address: c.advertise, Gossip: gossip.address()}
	registration, err := c.store.JoinCoordinator(ctx, me)
	if err != nil {
		return err
	}
	logger.Info("coordinator joined", "address", c.advertise)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return stayRegistered(ctx, c.store, me, registration, logger) })
	g.Go(func() error { return gossip.run(ctx) })
	g.Go(func() error { return controller.Run(ctx) })
	g.Go(func() error { return scaling.Run(ctx) })
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	g.Go(func() error { return serveMetrics(ctx, c.metrics, registry, logger) })
	g.Go(func() error { return serve(ctx, s, c.listener) })
	return g.Wait()
}

// rejoinEvery is how often a coordinator that counts as dead says that it is not.
const rejoinEvery = time.Second

// stayRegistered keeps a coordinator registered until ctx ends, anew where etcd took it
// for dead. Unlike a node or a worker it has nothing that others took over meanwhile,
// and if it ended for it, a member of etcd would end with it.
func stayRegistered(ctx context.Context, store *meta.Store, me coordinator.Coordinator, registration *meta.Registration, logger *slog.Logger) error {
	for {
		err := registration.Run(ctx)
		if !errors.Is(err, ps.ErrUnavailable) {
			return err
		}
		for {
			again, joinErr := store.JoinCoordinator(ctx, me)
			if joinErr == nil {
				registration = again
				break
			}
			select {
			case <-time.After(rejoinEvery):
			case <-ctx.Done():
				return nil
			}
		}
		logger.Info("coordinator registered anew", "because", err)
	}
}

// onDemand asks the shards with a client that is made by its first use, because a
// coordinator and a node start before there is a shard map.
type onDemand struct {
	store  *meta.Store
	logger *slog.Logger
	turn   chan struct{} // capacity 1: held while client is looked at
	client *client.Client
}

func (p *onDemand) close() {
	p.turn <- struct{}{}
	if p.client != nil {
		if err := p.client.Close(); err != nil {
			p.logger.Debug("close a client of the shards", "error", err)
		}
	}
}

// dial returns the client.
func (p *onDemand) dial(ctx context.Context) (*client.Client, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.turn }()
	if p.client == nil {
		c, err := client.Dial(ctx, client.Config{Routes: p.store, Logger: p.logger})
		if err != nil {
			return nil, err
		}
		p.client = c
	}
	return p.client, nil
}

// Applied returns how far every shard has applied a model's stream.
func (p *onDemand) Applied(ctx context.Context, model string) ([]ps.ShardProgress, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.Applied(ctx, model)
}

// Holdings returns what the node at an address holds.
func (p *onDemand) Holdings(ctx context.Context, address string) ([]ps.Holding, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.Holdings(ctx, address)
}

// TakeSnapshots asks the owners of shards for snapshots.
func (p *onDemand) TakeSnapshots(ctx context.Context, model, bucket string, wants []checkpoint.Want) ([]checkpoint.Taken, error) {
	c, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.TakeSnapshots(ctx, model, bucket, wants)
}

// Follow brings what changes in shards of a model.
func (p *onDemand) Follow(ctx context.Context, model string, shards <-chan []ps.ShardID, take func(*ps.Delta) error) error {
	c, err := p.dial(ctx)
	if err != nil {
		return err
	}
	return c.Follow(ctx, model, shards, take)
}

// opening is how a stream is opened.
type opening struct {
	spec *spec.Spec
	// url, if not empty, is used in place of the spec's source.
	url string
	// columns are those that events carry.
	columns []string
	secret  []byte
	// known is the stream's identity, if a model has it already, and from is where a topic's
	// stream begins else.
	known ps.StreamID
	from  string
	// bounded: a topic's stream ends at what is there.
	bounded bool
	logger  *slog.Logger
}

// openStream opens a stream.
func openStream(ctx context.Context, o opening) (stream.Source, error) {
	url := cmp.Or(o.url, o.spec.Stream.Source)
	scheme, _, _ := strings.Cut(url, "://")
	switch {
	case url == "":
		return nil, usageError{fmt.Errorf("model %s: the spec has no stream.source; give --stream file:///path/to/events.csv or kafka://broker:9092/topic", o.spec.Model)}
	case scheme != "file" && scheme != kafka.Scheme:
		return nil, usageError{fmt.Errorf("stream %q: want file:///path/to/events.csv (plain or .zst) or kafka://broker:9092/topic", url)}
	case scheme == "file" && o.from != "":
		return nil, usageError{fmt.Errorf("--from %s: a file is read from its beginning; it is for topics", o.from)}
	case len(o.spec.Stream.Identifiers) > 0 && len(o.secret) == 0:
		return nil, usageError{fmt.Errorf("model %s masks %s: give the secret of the cluster with --secret-file (freshet up keeps it in its --dir)",
			o.spec.Model, strings.Join(o.spec.Stream.Identifiers, ", "))}
	}
	if scheme == kafka.Scheme {
		source, err := kafka.Open(ctx, kafka.Config{
			URL: url, Stream: o.spec.Stream, Columns: o.columns, Secret: o.secret, Known: o.known, From: o.from, Bounded: o.bounded,
			Auth: kafkaAuth(), Logger: o.logger,
		})
		if errors.Is(err, ps.ErrInvalid) {
			err = usageError{err}
		}
		if err != nil {
			return nil, err
		}
		return source, nil
	}
	source, err := files.Open(ctx, files.Config{URL: url, Stream: o.spec.Stream, Columns: o.columns, Secret: o.secret, Logger: o.logger})
	if err != nil {
		return nil, err
	}
	return source, nil
}

// kafkaAuth returns how Kafka's brokers are reached. It is said in the environment: a spec and a
// command line are seen by many.
func kafkaAuth() kafka.Auth {
	get := func(name string) string { return os.Getenv("FRESHET_KAFKA_" + name) }
	return kafka.Auth{
		TLS: get("TLS") != "" || get("CA") != "" || get("CERTIFICATE") != "", CA: get("CA"), Certificate: get("CERTIFICATE"), Key: get("KEY"),
		Mechanism: get("SASL"), User: get("USER"), PasswordFile: get("PASSWORD_FILE"),
	}
}

// fileURL returns path as a file:// URL.
func fileURL(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return "file://" + filepath.ToSlash(absolute), nil
}

// workerSettings are what a worker is started with.
type workerSettings struct {
	store  *meta.Store
	name   string
	model  string // its name; empty for the only one there is
	stream string // overrides the spec's source
	// source, if not nil, is an open stream to use.
	source   stream.Source
	inFlight int     // overrides the spec's, if above 0
	rate     float64 // events per second over all workers; 0 is as fast as it goes
	slow     float64 // events in a busy second at most; 0 is no bound
	cache    string  // directory of extracted examples; empty: none are kept
	secret   []byte
	letters  *deadletter.List
	gossip   gossipSettings
	logger   *slog.Logger
}

// A worker reports its positions every reportEvery, and the end of a partition within
// endsEvery of coming upon it: who waits for the stream to be learned waits for that.
const (
	reportEvery = time.Second
	endsEvery   = 20 * time.Millisecond
)

// runWorker is a worker until ctx ends.
func runWorker(ctx context.Context, c workerSettings) error {
	id := life(c.name)
	logger := c.logger.With("worker", id)
	model, err := waitForModel(ctx, c.store, c.model, logger)
	if err != nil {
		return err
	}
	s, err := spec.Parse("spec of model "+model.Name, model.Spec)
	if err != nil {
		return err
	}
	if c.inFlight > 0 {
		s.Training.InFlight = c.inFlight
	}
	source := c.source
	if source == nil {
		if source, err = openStream(ctx, opening{spec: s, url: c.stream, columns: feature.Columns(s), secret: c.secret, known: model.Stream, logger: logger}); err != nil {
			return err
		}
		defer source.Close()
	}
	if err := sameStream(model, source.Identity()); err != nil {
		return err
	}
	params, err := client.Dial(ctx, client.Config{Routes: c.store, Logger: logger})
	if err != nil {
		return err
	}
	defer params.Close()
	trainer, err := train.New(train.Config{
		Model: model.Model, Spec: s, Source: source, Params: params,
		Ownership: assignments{c.store, model.Name, id}, Rate: c.rate, Slow: c.slow, Cache: c.cache,
		Skipped: func(e *worker.Event, reason error) {
			if c.letters != nil {
				if _, err := c.letters.Add(deadletter.Of(e, reason)); err != nil {
					logger.Warn("dead letter not written", "partition", e.Partition, "offset", e.Offset, "error", err)
				}
			}
		},
		Logger: logger,
	})
	if err != nil {
		return err
	}
	gossip, err := joinGossip(ctx, c.gossip, c.store, coordinator.RoleWorker, id, logger)
	if err != nil {
		return err
	}
	defer gossip.close()
	registration, err := c.store.JoinWorker(ctx, coordinator.Worker{ID: id, Model: model.Name, Gossip: gossip.address()})
	if err != nil {
		return err
	}
	logger.Info("worker joined", "model", model.Name)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return registration.Run(ctx) })
	g.Go(func() error { return gossip.run(ctx) })
	g.Go(func() error { return trainer.Run(ctx) })
	g.Go(func() error { return reportPositions(ctx, trainer, registration, logger) })
	return g.Wait()
}

// waitForModel returns a model once it has been applied.
func waitForModel(ctx context.Context, store *meta.Store, name string, logger *slog.Logger) (coordinator.Model, error) {
	for said := false; ; said = true {
		model, err := store.Model(ctx, name)
		if err == nil || !errors.Is(err, ps.ErrUnknownModel) {
			return model, err
		}
		if !said {
			logger.Info("waiting for the model to be applied (freshet model apply SPEC)", "model", name)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return coordinator.Model{}, ctx.Err()
		}
	}
}

// reportPositions tells the store where the trainer is, until ctx ends.
func reportPositions(ctx context.Context, trainer *train.Trainer, registration *meta.WorkerRegistration, logger *slog.Logger) error {
	ticks := time.NewTicker(endsEvery)
	defer ticks.Stop()
	var reported time.Time
	ends := 0
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		report, known := positions(trainer)
		if known == ends && time.Since(reported) < reportEvery {
			continue
		}
		ends, reported = known, time.Now()
		if err := registration.Report(ctx, report); err != nil && ctx.Err() == nil {
			logger.Debug("positions not reported", "error", err)
			ends = -1 // try again
		}
	}
}

// positions returns a trainer's report and how many ends it knows.
func positions(trainer *train.Trainer) (report coordinator.WorkerReport, ends int) {
	events, busy := trainer.Work()
	report.Events, report.BusySeconds = events, busy.Seconds()
	for p, position := range trainer.Positions() {
		report.Partitions = append(report.Partitions, coordinator.PartitionReport{
			Partition: p, Position: position.Acknowledged, End: position.End, EndKnown: position.EndKnown,
			Newest: position.Newest,
		})
		if position.EndKnown {
			ends++
		}
	}
	slices.SortFunc(report.Partitions, func(a, b coordinator.PartitionReport) int { return int(a.Partition) - int(b.Partition) })
	return report, ends
}

// assignments are one worker's part of a model's assignments.
type assignments struct {
	store  *meta.Store
	model  string
	worker string
}

// WatchAssignment implements train.Ownership.
func (a assignments) WatchAssignment(ctx context.Context) <-chan train.Assignment {
	mine := make(chan train.Assignment)
	go func() {
		defer close(mine)
		for all := range a.store.WatchAssignment(ctx, a.model) {
			next := train.Assignment{Generation: all.Generation, Partitions: all.Partitions(a.worker), Workers: all.Workers}
			select {
			case mine <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	return mine
}

// sameStream returns an error unless the stream that was opened is the model's.
func sameStream(model coordinator.Model, opened ps.StreamID) error {
	if opened == model.Stream {
		return nil
	}
	differs := "the file, or how the spec cuts it, is another"
	if !files.SameSecret(opened, model.Stream) {
		differs = otherSecret
	}
	return condition{
		fmt.Sprintf("model %s learns from stream %s, what was opened is %s: %s", model.Name, model.Stream, opened, differs),
		ps.ErrModelMismatch,
	}
}

const otherSecret = "the secret is another: give the cluster's with --secret-file (freshet up keeps it in its --dir)"

// readSecret returns the secret that masks identifiers. No path means no secret.
func readSecret(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == 0 {
		err = fmt.Errorf("%s is empty: %w", path, ps.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	return secret, nil
}

// makeSecret returns the secret in a file, a new one if there is none.
func makeSecret(path string) ([]byte, error) {
	secret, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	secret = []byte(rand.Text() + rand.Text())
	return secret, os.WriteFile(path, secret, 0o600)
}
