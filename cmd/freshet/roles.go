package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/coordinator/scaler"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/server"
)

// storeFlags are the flags of every role that talks to etcd.
type storeFlags struct {
	endpoints []string
	cluster   string
	leaseTTL  time.Duration
}

func (f *storeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.endpoints, "etcd", []string{"127.0.0.1:2379"}, "etcd endpoints, comma-separated host:port")
	cmd.Flags().StringVar(&f.cluster, "cluster", "default", "name of the cluster; several can share an etcd")
	cmd.Flags().DurationVar(&f.leaseTTL, "lease-ttl", 5*time.Second, "how long a silent process still counts as there")
}

func (f *storeFlags) dial(ctx context.Context, t *terminal) (*meta.Store, error) {
	store, err := meta.Dial(ctx, meta.Config{Endpoints: f.endpoints, Cluster: f.cluster, LeaseTTL: f.leaseTTL, Logger: t.logger})
	if errors.Is(err, ps.ErrUnavailable) {
		return nil, fmt.Errorf("%w; start etcd or give its endpoints with --etcd", err)
	}
	return store, err
}

// advertised returns what others dial to reach a listener.
func advertised(flag string, listener net.Listener) (string, error) {
	if flag != "" {
		return flag, nil
	}
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "", usageError{fmt.Errorf("listening at all addresses (%s): say with --advertise which host:port others reach it at", listener.Addr())}
	}
	return net.JoinHostPort(host, port), nil
}

// hostName is a process's default name.
func hostName(role string) string {
	if host, err := os.Hostname(); err == nil && host != "" {
		return role + "-" + host
	}
	return role
}

const cacheUsage = "directory where extracted examples are kept, so that other passes, replays and restarts need not read the text again; keys only, made if it is not there (default: none are kept)"

const fromUsage = "where a topic's stream begins: earliest, latest, a time ago such as -24h, or one such as 2026-01-31T00:00:00Z (default: earliest)"

const movesUsage = "shards that may move from node to node at once to keep the nodes evenly loaded (0: only those that freshet move and rebalance say)"

// movesDefault is some eight times what a node sends at once: a shard takes a second at most.
const movesDefault = 8

const metricsUsage = "address of /metrics of the coordinator for Prometheus, such as 127.0.0.1:7401 (empty: none)"

const standbysUsage = "copies of every shard that other nodes keep, to take over within a second"

func newCoordinator(t *terminal) *cobra.Command {
	var f storeFlags
	var gossip gossipFlags
	var name, address, advertise string
	var embedded etcd.Config
	var shards, nodesMin, workersMin, standbys, moves int
	var checkpoints epochSettings
	var scale scaler.Targets
	var metrics string
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Run a coordinator: who owns which shard, who reads which partition",
		Example: `  freshet coordinator --etcd 10.0.0.1:2379 --listen 0.0.0.0:7400 \
      --advertise coordinator:7400

  # With an etcd of its own:
  freshet coordinator --embed-etcd ./etcd --listen 127.0.0.1:7400

  # One of three whose etcds are one; others have --embed-etcd-name b and c.
  # Nodes and workers take --etcd a:2379,b:2379,c:2379.
  freshet coordinator --listen 0.0.0.0:7400 --advertise a:7400 \
      --embed-etcd ./etcd --embed-etcd-url http://0.0.0.0:2379 \
      --embed-etcd-name a --embed-etcd-peer-url http://0.0.0.0:2380 \
      --embed-etcd-cluster a=http://a:2380,b=http://b:2380,c=http://c:2380`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.talkative(cmd)
			ctx := cmd.Context()
			if err := ps.ValidShards(shards); err != nil {
				return usageError{fmt.Errorf("--shards: %w", err)}
			}
			if standbys < 0 {
				return usageError{fmt.Errorf("--standbys %d: want at least 0", standbys)}
			}
			if moves < 0 {
				return usageError{fmt.Errorf("--moves %d: want at least 0", moves)}
			}
			if scale.CatchUp < time.Second || !(scale.Utilisation > 0 && scale.Utilisation <= 1) {
				return usageError{fmt.Errorf("--scale-catch-up %v, --scale-utilisation %v: want a second or more, and above 0 up to 1", scale.CatchUp, scale.Utilisation)}
			}
			listener, err := listen(ctx, address)
			if err != nil {
				return err
			}
			defer listener.Close()
			reach, err := advertised(advertise, listener)
			if err != nil {
				return err
			}
			gossiping, err := gossip.beside(f.cluster, listener, reach, t.logger)
			if err != nil {
				return err
			}
			var server *etcd.Server
			if embedded.Dir == "" && (embedded.Name != "" || embedded.PeerURL != "" || len(embedded.Members) > 0) {
				return usageError{errors.New("a member of an embedded etcd without a directory for its data: give one with --embed-etcd")}
			}
			if embedded.Dir != "" {
				if server, err = startEtcd(ctx, embedded, t); err != nil {
					return untilStopped(ctx, err)
				}
				defer server.Close()
				f.endpoints = server.Endpoints()
			}
			store, err := f.dial(ctx, t)
			if err != nil {
				return untilStopped(ctx, err)
			}
			defer store.Close()
			g, ctx := errgroup.WithContext(ctx)
			if server != nil {
				g.Go(func() error { return whileServing(ctx, server) })
			}
			g.Go(func() error {
				return runCoordinator(ctx, coordinatorSettings{
					store: store, name: name, listener: listener, advertise: reach,
					shards: shards, nodesMin: nodesMin, workersMin: workersMin, standbys: standbys, moves: moves, checkpoints: checkpoints,
					scale: scale, metrics: metrics,
					gossip: gossiping, logger: t.logger,
				})
			})
			return untilStopped(cmd.Context(), g.Wait())
		},
	}
	f.add(cmd)
	gossip.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&name, "name", hostName("coordinator"), "name of this process")
	flags.StringVar(&address, "listen", "127.0.0.1:7400", "address to serve at")
	flags.StringVar(&advertise, "advertise", "", "host:port that others reach it at (default: the listener's)")
	flags.IntVar(&shards, "shards", 64, "shards of a new cluster, a power of two; fixed from then on")
	flags.IntVar(&nodesMin, "nodes-min", 1, "nodes to wait for before shards are placed for the first time")
	flags.IntVar(&workersMin, "workers-min", 1, "workers to wait for before a model's partitions are assigned for the first time")
	flags.IntVar(&standbys, "standbys", 0, standbysUsage)
	flags.IntVar(&moves, "moves", movesDefault, movesUsage)
	flags.DurationVar(&scale.CatchUp, "scale-catch-up", time.Minute, "time in which as many workers as an autoscaler is told to want work off a backlog")
	flags.Float64Var(&scale.Utilisation, "scale-utilisation", 0.7, "part of the time that they are to be busy")
	flags.StringVar(&metrics, "metrics", "", metricsUsage)
	flags.StringVar(&checkpoints.bucket, "checkpoints", "", "URL of where epochs are written: file:///dir, s3://, gs://, azblob:// (default: none are taken)")
	checkpoints.add(cmd, time.Minute)
	flags.StringVar(&embedded.Dir, "embed-etcd", "", "run an etcd in this process, with its data in this directory")
	flags.StringVar(&embedded.ClientURL, "embed-etcd-url", "http://127.0.0.1:2379", "where the embedded etcd listens")
	flags.StringSliceVar(&embedded.Members, "embed-etcd-cluster", nil, "members of an embedded etcd of several: name=http://host:port of each, the same at all of them")
	flags.StringVar(&embedded.Name, "embed-etcd-name", "", "which of --embed-etcd-cluster this one is")
	flags.StringVar(&embedded.PeerURL, "embed-etcd-peer-url", "", "where the embedded etcd listens for the other members (default: its URL in --embed-etcd-cluster)")
	return cmd
}

// startEtcd starts a coordinator's own etcd.
func startEtcd(ctx context.Context, c etcd.Config, t *terminal) (*etcd.Server, error) {
	c.Logger = t.logger
	if len(c.Members) > 0 {
		t.logger.Info("starting etcd; it answers when most of its members have started", "member", c.Name, "members", c.Members)
	}
	server, err := etcd.Start(ctx, c)
	if errors.Is(err, ps.ErrInvalid) {
		return nil, usageError{fmt.Errorf("%w (see --embed-etcd-url, --embed-etcd-cluster, --embed-etcd-name and --embed-etcd-peer-url)", err)}
	}
	if err != nil {
		return nil, err
	}
	t.logger.Info("etcd embedded", "endpoints", server.Endpoints(), "dir", c.Dir)
	return server, nil
}

// whileServing returns an error if an etcd ends before ctx does.
func whileServing(ctx context.Context, server *etcd.Server) error {
	select {
	case err := <-server.Err():
		return fmt.Errorf("the embedded etcd has ended: %w: %w", ps.ErrUnavailable, err)
	case <-ctx.Done():
		return nil
	}
}

func newPS(t *terminal) *cobra.Command {
	var f storeFlags
	var gossip gossipFlags
	var name, address, advertise, zone string
	var capacity float64
	var rowsMax int
	var lookups server.LookupLimits
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Run a parameter-server node",
		Example: `  freshet ps --etcd 10.0.0.1:2379 --listen 0.0.0.0:7500 --advertise ps-0:7500

  # Readers may look up two tables, a million keys a second each:
  freshet ps --lookup-tables users,items --lookup-rate 1000000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.talkative(cmd)
			if lookups.KeysMax < 1 {
				return usageError{fmt.Errorf("--lookup-keys-max %d: want at least 1", lookups.KeysMax)}
			}
			if !validRate(lookups.KeysPerSecond) {
				return usageError{fmt.Errorf("--lookup-rate %v: want keys per second above 0, or 0 for no bound", lookups.KeysPerSecond)}
			}
			if !(capacity > 0) || math.IsInf(capacity, 0) {
				return usageError{fmt.Errorf("--capacity %v: want a number above 0; 2 takes twice as many shards as 1", capacity)}
			}
			ctx := cmd.Context()
			listener, err := listen(ctx, address)
			if err != nil {
				return err
			}
			defer listener.Close()
			reach, err := advertised(advertise, listener)
			if err != nil {
				return err
			}
			gossiping, err := gossip.beside(f.cluster, listener, reach, t.logger)
			if err != nil {
				return err
			}
			store, err := f.dial(ctx, t)
			if err != nil {
				return err
			}
			defer store.Close()
			return untilStopped(ctx, runNode(ctx, nodeSettings{
				store: store, name: name, listener: listener, advertise: reach, zone: zone, capacity: capacity, rowsMax: rowsMax, lookups: lookups,
				gossip: gossiping, logger: t.logger,
			}))
		},
	}
	f.add(cmd)
	gossip.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&name, "name", hostName("ps"), "name of this process")
	flags.StringVar(&address, "listen", "127.0.0.1:0", "address to serve at; port 0 takes a free one")
	flags.StringVar(&advertise, "advertise", "", "host:port that others reach it at (default: the listener's)")
	flags.StringVar(&zone, "zone", "", "what fails together with this node, such as a rack; standbys are kept in other zones")
	flags.Float64Var(&capacity, "capacity", 1, "how much this node takes, next to others: 2 is twice as many shards as 1")
	flags.IntVar(&rowsMax, "rows-max", 0, "rows that one table may have in one shard; a push beyond is refused (0: no bound)")
	flags.StringSliceVar(&lookups.Tables, "lookup-tables", nil, "tables that readers may look up, by name (default: all of kind float32)")
	flags.IntVar(&lookups.KeysMax, "lookup-keys-max", server.LookupKeysMax, "keys of one look-up, over all its tables; more are refused")
	flags.Float64Var(&lookups.KeysPerSecond, "lookup-rate", 0, "keys per second that each reader may look up at this node (0: no bound)")
	profiled(cmd)
	return cmd
}

func newWorker(t *terminal) *cobra.Command {
	var f storeFlags
	var gossip gossipFlags
	var name, model, stream, secretFile, lettersPath, cache, product string
	var inFlight int
	var rate, slow float64
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run a worker: read a model's stream and learn from it",
		Long: `Reads the partitions that it is given of a file or a topic of Kafka, and learns.
Workers may come and go at any time; more than partitions have nothing to do.

` + kafkaHelp,
		Example: `  freshet worker --etcd 10.0.0.1:2379 --model shop --secret-file secret
  freshet worker --stream kafka://b1:9092,b2:9092/clicks --secret-file secret
  freshet worker --stream file:///data/events.csv --dead-letters dead.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.talkative(cmd)
			if !validRate(rate) {
				return usageError{badRate(rate)}
			}
			if !validRate(slow) {
				return usageError{fmt.Errorf("--slow %v: want events per second above 0, or 0 for no bound", slow)}
			}
			if !validProduct(product) {
				return usageError{badProduct(product)}
			}
			useProduct(product)
			ctx := cmd.Context()
			gossiping, err := gossip.settings(f.cluster, gossipHost(f.endpoints), "", t.logger)
			if err != nil {
				return err
			}
			secret, err := readSecret(secretFile)
			if err != nil {
				return err
			}
			letters, closeLetters, err := openLetters(lettersPath)
			if err != nil {
				return err
			}
			defer closeLetters()
			store, err := f.dial(ctx, t)
			if err != nil {
				return err
			}
			defer store.Close()
			return untilStopped(ctx, runWorker(ctx, workerSettings{
				store: store, name: name, model: model, stream: stream, inFlight: inFlight,
				rate: rate, slow: slow, cache: cache, secret: secret, letters: letters, gossip: gossiping, logger: t.logger,
			}))
		},
	}
	f.add(cmd)
	gossip.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&name, "name", hostName("worker"), "name of this process")
	flags.StringVar(&model, "model", "", "model to learn (default: the only one there is)")
	flags.StringVar(&stream, "stream", "", "stream URL, in place of the spec's")
	flags.StringVar(&secretFile, "secret-file", "", "file with the secret that masks identifiers; the same for all workers")
	flags.StringVar(&lettersPath, "dead-letters", filepath.Join(os.TempDir(), "freshet-dead-letters.jsonl"), "file that lists rows that cannot be used, without their text")
	flags.Float64Var(&slow, "slow", 0, "learn no more than so many events in a second of work, to try out autoscaling on a small machine (0: no bound)")
	flags.StringVar(&cache, "cache", "", cacheUsage)
	flags.IntVar(&inFlight, "in-flight", 0, "events between pull and push over all workers (default: the spec's)")
	flags.Float64Var(&rate, "rate", 0, "events per second, over all workers, that are learned at most; give all workers the same (0: as fast as it goes)")
	flags.StringVar(&product, "product", productFreshet, productUsage)
	profiled(cmd)
	return cmd
}
