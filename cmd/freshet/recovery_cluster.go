package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// recoverySpec is a model with large rows. Little is in flight, so that every shard is
// pushed to many times a second.
const recoverySpec = `model: recovery
stream: {format: csv, partitions: 8, partition_by: user}
label: {column: clicked}
features:
  - {name: items, column: items, split: " "}
network: {kind: fm, factors: 64, factor_optimizer: {name: adagrad, learning_rate: 0.01}}
training: {in_flight: 64}
`

const (
	recoveryRowBytes = 64 * 2 * 4 // of a key: its factors and what AdaGrad remembers of them, at least
	recoveryItems    = 16         // keys of an event
	fillInFlight     = 2048       // nobody judges the model, so it is filled fast
	sampleMax        = 200 * time.Millisecond
	sampleEvery      = 10 * time.Millisecond
	recoverMax       = 2 * time.Minute
)

// writeRecoveryEvents writes events of 16 keys: each key once, so that the model has its
// size, then load events with any of them. It returns how many events are the first.
func writeRecoveryEvents(path string, keys, load int64) (fill int64, err error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriterSize(file, 1<<20)
	fmt.Fprintln(w, "user,clicked,items")
	fill = (keys + recoveryItems - 1) / recoveryItems
	for i := range fill + load {
		random := ps.Mix(uint64(i))
		fmt.Fprintf(w, "u%d,%d", random%1000, random>>32%4/3)
		between := byte(',')
		for k := range int64(recoveryItems) {
			key := i*recoveryItems + k
			if i >= fill {
				key = int64(ps.Mix(uint64(key)) % uint64(fill*recoveryItems))
			}
			fmt.Fprintf(w, "%ci%d", between, key)
			between = ' '
		}
		fmt.Fprintln(w)
	}
	return fill, w.Flush()
}

// recoveryCluster is a cluster whose nodes and workers are processes, and that learns a
// stream made for it.
type recoveryCluster struct {
	terminal *terminal
	dir      string
	nodes    int
	workers  int
	shards   int
	standbys int
	rate     float64
	every    time.Duration
	keys     int64  // that the model has before the first kill
	load     int64  // events that are learned after that
	profiles string // directory that members write processor profiles to, or empty

	job      *job
	events   int64 // all of the stream's
	store    *meta.Store
	client   *client.Client
	children []*child // the nodes
	// coordinator is where it serves.
	coordinator string
}

func (c *recoveryCluster) file(name string) string { return filepath.Join(c.dir, name) }

// run starts the cluster, fills the model, calls body while it learns, and ends it.
func (c *recoveryCluster) run(ctx context.Context, body func(context.Context) error) error {
	fill, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	defer c.job.source.Close()
	return c.live(ctx, func(ctx context.Context, g *errgroup.Group, home childHome) error {
		if err := c.fill(ctx, home, fill); err != nil {
			return err
		}
		for i := range c.workers {
			worker := home.worker(workerName(i), c.job.spec.Model, c.job.url, "", 0, c.rate, "")
			g.Go(func() error { return worker.run(ctx) })
		}
		return body(ctx)
	})
}

// live starts the coordinator and the nodes, calls body, which may start workers in the
// group, and ends them all.
func (c *recoveryCluster) live(ctx context.Context, body func(context.Context, *errgroup.Group, childHome) error) error {
	etcdServer, err := etcd.Start(ctx, etcd.Config{Dir: c.file(etcdName), Logger: c.terminal.logger})
	if err != nil {
		return err
	}
	defer etcdServer.Close()
	if c.store, err = meta.Dial(ctx, meta.Config{Endpoints: etcdServer.Endpoints(), Logger: c.terminal.logger}); err != nil {
		return err
	}
	defer c.store.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	home := childHome{endpoints: etcdServer.Endpoints(), file: c.file, profiles: c.profiles}
	if err := c.start(ctx, g, home); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	finished := false
	g.Go(func() error {
		defer stop()
		if c.client, err = client.Dial(ctx, client.Config{Routes: c.store, Logger: c.terminal.logger}); err != nil {
			return err
		}
		defer c.client.Close()
		if err := body(ctx, g, home); err != nil {
			return err
		}
		finished = true
		return nil
	})
	if err := g.Wait(); err != nil && !(finished && errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

// prepare writes the stream and opens it.
func (c *recoveryCluster) prepare(ctx context.Context) (fill int64, err error) {
	c.terminal.progress("writing a stream of %s events", thousands(c.keys/recoveryItems+c.load))
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return 0, err
	}
	if fill, err = writeRecoveryEvents(c.file("events.csv"), c.keys, c.load); err != nil {
		return 0, err
	}
	c.events = fill + c.load
	c.job = &job{doc: []byte(recoverySpec)}
	if c.job.url, err = fileURL(c.file("events.csv")); err != nil {
		return 0, err
	}
	if c.job.spec, err = spec.Parse("bench recovery", c.job.doc); err != nil {
		return 0, err
	}
	if c.job.source, err = openStream(ctx, opening{spec: c.job.spec, url: c.job.url, columns: feature.Columns(c.job.spec), logger: c.terminal.logger}); err != nil {
		return 0, err
	}
	c.job.model = ps.Model{
		Name: c.job.spec.Model, Version: 1, Layout: c.job.spec.Layout(eval.Tables()),
		Stream: c.job.source.Identity(), Partitions: c.job.source.Partitions(),
	}
	return fill, nil
}

// start starts the coordinator and the nodes.
func (c *recoveryCluster) start(ctx context.Context, g *errgroup.Group, home childHome) error {
	listener, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.coordinator = listener.Addr().String()
	checkpoints := epochSettings{every: c.every}
	if checkpoints.bucket, err = fileURL(c.file(epochsName)); err != nil {
		return errors.Join(err, listener.Close())
	}
	g.Go(func() error {
		return runCoordinator(ctx, coordinatorSettings{
			store: c.store, name: "coordinator", listener: listener, advertise: listener.Addr().String(),
			shards: c.shards, nodesMin: c.nodes, workersMin: c.workers, standbys: c.standbys,
			checkpoints: checkpoints, gossip: localGossip("default"), logger: c.terminal.logger,
		})
	})
	for i := range c.nodes {
		node, err := home.node(ctx, fmt.Sprintf("ps-%d", i))
		if err != nil {
			return err
		}
		node.again = make(chan struct{})
		c.children = append(c.children, node)
		g.Go(func() error { return node.run(ctx) })
	}
	return c.job.apply(ctx, c.store)
}

// fill learns the first events as fast as it goes.
func (c *recoveryCluster) fill(ctx context.Context, home childHome, events int64) error {
	filling, stop := context.WithCancel(ctx)
	defer stop()
	g, filling := errgroup.WithContext(filling)
	for i := range c.workers {
		worker := home.worker(fmt.Sprintf("filler-%d", i), c.job.spec.Model, c.job.url, "", fillInFlight, 0, "")
		g.Go(func() error { return worker.run(filling) })
	}
	g.Go(func() error {
		defer stop()
		for filling.Err() == nil {
			progress, err := c.client.Applied(filling, c.job.model.Name)
			if err != nil {
				return err
			}
			at := applied(progress)
			c.terminal.progress("filling the model: %s of %s events", thousands(at), thousands(events))
			if at >= events {
				return nil
			}
			if err := rest(filling, lookEvery); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil && (ctx.Err() != nil || !errors.Is(err, context.Canceled)) {
		return err
	}
	return nil
}

// applied returns how many events every shard has behind it.
func applied(progress []ps.ShardProgress) (events int64) {
	for _, r := range spread(progress) {
		events += int64(r.From)
	}
	return events
}

// rest waits for a while, or until ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sample returns how far every shard is, as soon as all are served.
func (c *recoveryCluster) sample(ctx context.Context) (progress []ps.ShardProgress, err error) {
	err = c.until(ctx, func(now []ps.ShardProgress) bool {
		progress = now
		return true
	})
	return progress, err
}

// until waits until so says that the shards are where they should be. It asks anew
// rather than let the client wait, whose pauses become longer than what is measured.
func (c *recoveryCluster) until(ctx context.Context, so func([]ps.ShardProgress) bool) error {
	bounded, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	for {
		asking, cancel := context.WithTimeout(bounded, sampleMax)
		progress, err := c.client.Applied(asking, c.job.model.Name)
		cancel()
		if err == nil && so(progress) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rest(bounded, sampleEvery) != nil && ctx.Err() == nil {
			return fmt.Errorf("the cluster has not recovered within %v; its logs are in %s: %w", recoverMax, c.dir, errors.Join(err, ps.ErrUnavailable))
		}
	}
}

// ready waits until the cluster has learned for a while, every shard has the standbys
// it should have, and so many epochs were committed meanwhile.
func (c *recoveryCluster) ready(ctx context.Context, pause time.Duration, epochs ps.Epoch) error {
	bounded, cancel := context.WithTimeout(ctx, recoverMax)
	defer cancel()
	before, err := c.store.Epoch(bounded, c.job.model.Name)
	if err != nil {
		return err
	}
	if err := rest(bounded, pause); err != nil {
		return err
	}
	for {
		epoch, err := c.store.Epoch(bounded, c.job.model.Name)
		if err != nil {
			return err
		}
		m, err := c.client.Map(bounded, 0)
		if err != nil {
			return err
		}
		if epoch.Number >= before.Number+epochs && stoodBy(m, c.standbys) {
			break
		}
		if rest(bounded, lookEvery) != nil && ctx.Err() == nil {
			return fmt.Errorf("after %v there is no new epoch, or not %d copies of each shard; the logs are in %s: %w",
				recoverMax, c.standbys, c.dir, ps.ErrUnavailable)
		}
	}
	progress, err := c.sample(ctx)
	if err != nil {
		return err
	}
	if left := c.events - applied(progress); float64(left) < c.rate*slowRound.Seconds() {
		return fmt.Errorf("the events are used up: recovering took longer than they were made for; give a lower --rate or --pause: %w", ps.ErrConflict)
	}
	return nil
}

// stoodBy reports whether every shard has so many standbys.
func stoodBy(m route.Map, standbys int) bool {
	for _, s := range m.Shards {
		if len(s.Standbys) < standbys {
			return false
		}
	}
	return true
}

// fullest returns the node that owns the most shards, and which these are.
func (c *recoveryCluster) fullest(ctx context.Context) (fullest *child, shards []ps.ShardID, err error) {
	m, err := c.client.Map(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range c.children {
		var owned []ps.ShardID
		for s := range m.Shards {
			if address, err := m.Address(ps.ShardID(s)); err == nil && address == n.address {
				owned = append(owned, ps.ShardID(s))
			}
		}
		if fullest == nil || len(owned) > len(shards) {
			fullest, shards = n, owned
		}
	}
	return fullest, shards, nil
}

// epochBytes returns the size of the newest epoch.
func (c *recoveryCluster) epochBytes(ctx context.Context) (bytes int64, err error) {
	epoch, err := c.store.Epoch(ctx, c.job.model.Name)
	if err != nil {
		return 0, err
	}
	bucket, err := checkpoint.OpenBucket(ctx, epoch.Bucket)
	if err != nil {
		return 0, err
	}
	defer bucket.Close()
	m, err := checkpoint.ReadManifest(ctx, bucket, epoch.Retained[0].Manifest)
	if err != nil {
		return 0, err
	}
	for _, s := range m.Shards {
		for _, f := range s.Files {
			bytes += f.Bytes
		}
	}
	return bytes, nil
}

// audit proves that what was learned up to now was learned exactly once, and adds the
// result to sum.
func (c *recoveryCluster) audit(ctx context.Context, sum *audit.Report) error {
	progress, err := c.sample(ctx)
	if err != nil {
		return err
	}
	r, err := audit.Run(ctx, audit.Config{
		Spec: c.job.spec, Source: c.job.source, Progress: progress,
		Read: func(n int64) {
			c.terminal.progress("auditing: %s of about %s events", thousands(n), thousands(applied(progress)))
		},
	})
	if err != nil {
		return err
	}
	r.Events, r.Lost, r.Doubled, r.Skipped = r.Events+sum.Events, r.Lost+sum.Lost, r.Doubled+sum.Doubled, r.Skipped+sum.Skipped
	r.Findings = append(sum.Findings, r.Findings...)
	*sum = r
	return nil
}
