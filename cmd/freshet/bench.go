package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/server"
)

func newBench(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure what a cluster can do here",
		Example: "  freshet bench store --rows 1000000 --width 16 --keys 4096",
	}
	cmd.AddCommand(newBenchStore(t), newBenchTrain(t), newBenchMemory(t), newBenchLookup(t), newBenchCheckpoint(t), newBenchRecovery(t), newBenchFreshness(t), newBenchServe(t), newBenchNode(t))
	return cmd
}

// benchStore is the work of "bench store". It travels to the node's process as JSON.
type benchStore struct {
	Rows      int     `json:"rows"`
	Width     int     `json:"width"`
	Keys      int     `json:"keys"`
	InFlight  int     `json:"in_flight"`
	Optimizer string  `json:"optimizer"`
	Shards    int     `json:"shards"`
	Seconds   float64 `json:"seconds"`
	Clients   int     `json:"clients"`
	Nodes     int     `json:"nodes"`
	// EpochSeconds is the time from the end of a checkpoint epoch to the next; 0 is without.
	EpochSeconds float64 `json:"epoch_seconds"`

	profile string // prefix of the files of the nodes' processor profiles
}

// benchResult is one direction's figures.
type benchResult struct {
	Calls                  int     `json:"calls"`
	KeysPerSecond          float64 `json:"keys_per_second"`
	KeysPerServerCPUSecond float64 `json:"keys_per_server_cpu_second"`
	P50                    float64 `json:"p50_us"`
	P99                    float64 `json:"p99_us"`
}

// benchReport is the document of "bench store -o json". Keys may be added and do
// not change.
type benchReport struct {
	benchStore
	BytesPerRow float64     `json:"bytes_per_row"`
	Pull        benchResult `json:"pull"`
	Push        benchResult `json:"push"`
}

// model returns the model whose only table is measured.
func (b benchStore) model() (ps.Model, error) {
	optimizer := ps.Optimizer{Name: b.Optimizer}
	kind := ps.Float32
	switch b.Optimizer {
	case ps.SGD:
		optimizer.LearningRate = 0.01
	case ps.AdaGrad:
		optimizer.LearningRate, optimizer.InitialAccumulator = 0.05, 1
	case ps.FTRL:
		optimizer.LearningRate, optimizer.Beta = 0.1, 1
	default:
		return ps.Model{}, usageError{fmt.Errorf("--optimizer %q: want %s, %s or %s", b.Optimizer, ps.SGD, ps.AdaGrad, ps.FTRL)}
	}
	m := ps.Model{
		Name: "bench", Version: 1, Stream: "bench", Partitions: max(1, b.Clients),
		Layout: ps.Layout{Seed: 1, Tables: []ps.Table{{
			Name: "rows", Kind: kind, Width: b.Width, Optimizer: optimizer, Initializer: ps.Initializer{Name: ps.Uniform, Scale: 0.01},
		}}},
	}
	if err := m.Layout.Validate(); err != nil {
		return ps.Model{}, usageError{err}
	}
	if b.Clients < 0 || b.Nodes < 0 || b.EpochSeconds < 0 {
		return ps.Model{}, usageError{errors.New("--clients, --nodes and --checkpoint-every must not be below 0")}
	}
	if b.Rows < 1 || b.Keys < 1 || b.InFlight < 1 || b.Seconds <= 0 {
		return ps.Model{}, usageError{errors.New("--rows, --keys, --in-flight and --seconds must be above 0")}
	}
	if err := ps.ValidShards(b.Shards); err != nil {
		return ps.Model{}, usageError{fmt.Errorf("--shards: %w", err)}
	}
	return m, nil
}

func newBenchStore(t *terminal) *cobra.Command {
	var b benchStore
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Measure pulls and pushes of random rows between two processes",
		Long: `Starts a parameter-server node in a process of its own, fills a table, and pulls
and pushes random keys over loopback. Every push moves the offsets of the shards
it touches, as in learning. The figures include all of the client's work:
removing duplicate keys, grouping by shard, encoding and decoding. p50 and p99
are of one call. Checkpoint epochs are taken meanwhile, to a temporary
directory.

With --nodes the shards are dealt out to several processes; with --clients as
many clients, each with connections of its own, have --in-flight calls under
way.`,
		Example: `  freshet bench store
  freshet bench store --rows 10000000 --keys 16384 --in-flight 4 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.EpochSeconds = every.Seconds()
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			return t.result(report, report.print)
		},
	}
	flags := cmd.Flags()
	b.addFlags(flags, 1_000_000, 4096, 1)
	flags.Float64Var(&b.Seconds, "seconds", 3, "how long to pull and then to push")
	flags.IntVar(&b.Clients, "clients", 1, "clients")
	flags.IntVar(&b.Nodes, "nodes", 1, "parameter-server nodes")
	flags.DurationVar(&every, "checkpoint-every", 5*time.Second, "time between checkpoint epochs; 0 takes none")
	flags.StringVar(&b.profile, "cpuprofile", "", "prefix of files to write the nodes' processor profiles to")
	return cmd
}

// addFlags adds what every bench of a table can be told.
func (b *benchStore) addFlags(flags *pflag.FlagSet, rows, keys, inFlight int) {
	flags.IntVar(&b.Rows, "rows", rows, "rows in the table")
	flags.IntVar(&b.Width, "width", 16, "floats of a row")
	flags.IntVar(&b.Keys, "keys", keys, "random keys of a call")
	flags.IntVar(&b.InFlight, "in-flight", inFlight, "calls under way at once")
	flags.StringVar(&b.Optimizer, "optimizer", ps.AdaGrad, "update rule: sgd, adagrad or ftrl")
	flags.IntVar(&b.Shards, "shards", 64, "shards, a power of two")
}

// print writes the report for people.
func (r benchReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s rows × %d floats, %s, %d keys a call, %d in flight: %.0f bytes a row\n",
		thousands(int64(r.Rows)), r.Width, r.Optimizer, r.Keys, r.InFlight, r.BytesPerRow)
	fmt.Fprintf(w, "       %10s %26s %9s %9s %10s\n", "M keys/s", "M keys/server CPU-second", "p50 µs", "p99 µs", "calls")
	for _, line := range []struct {
		name string
		benchResult
	}{{"pull", r.Pull}, {"push", r.Push}} {
		fmt.Fprintf(w, "  %s %10.2f %26.2f %9.0f %9.0f %10s\n",
			line.name, line.KeysPerSecond/1e6, line.KeysPerServerCPUSecond/1e6, line.P50, line.P99, thousands(int64(line.Calls)))
	}
}

func (b benchStore) run(ctx context.Context, t *terminal) (report benchReport, err error) {
	model, err := b.model()
	if err != nil {
		return report, err
	}
	report.benchStore = b
	nodes, err := startBenchNodes(ctx, b)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, nodes.stop()) }()
	before, err := nodes.usage()
	if err != nil {
		return report, err
	}
	var clients []*benchPusher
	for i := range b.Clients {
		c, err := client.Dial(ctx, client.Config{Routes: nodes.routes(b.Shards), Logger: t.logger})
		if err != nil {
			return report, err
		}
		defer c.Close()
		clients = append(clients, &benchPusher{b: b, c: c, model: model, partition: ps.Partition(i), sent: make([]ps.Offset, b.Shards)})
	}
	if err := clients[0].fill(ctx, t); err != nil {
		return report, err
	}
	after, err := nodes.usage()
	if err != nil {
		return report, err
	}
	report.BytesPerRow = float64(after.Resident-before.Resident) / float64(b.Rows)
	stop, err := b.epochs(ctx, clients[0].c, model, nodes.routes(b.Shards).routes)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	t.progress("pulling for %.0f s", b.Seconds)
	if report.Pull, err = b.measure(nodes, clients, func(i int) ([]time.Duration, error) { return b.pullFor(ctx, clients[i].c, model, i) }); err != nil {
		return report, err
	}
	t.progress("pushing for %.0f s", b.Seconds)
	report.Push, err = b.measure(nodes, clients, func(i int) ([]time.Duration, error) { return clients[i].pushFor(ctx) })
	return report, err
}

// epochs takes epochs, as a coordinator does by itself, until stop.
func (b benchStore) epochs(ctx context.Context, c *client.Client, model ps.Model, routes route.Map) (stop func() error, err error) {
	if b.EpochSeconds == 0 {
		return func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "freshet-bench-")
	if err != nil {
		return nil, err
	}
	bucket, err := fileURL(dir)
	if err != nil {
		return nil, err
	}
	keeper, err := epochs.Open(ctx, epochs.Config{Store: &benchStoreOfEpochs{model: model, routes: routes}, Nodes: c, Bucket: bucket, Logger: slog.New(slog.DiscardHandler)}) // the end cuts off the last, which is no news
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for {
			result, err := keeper.Take(ctx, model.Name)
			if err == nil && result.ShardsKept > 0 {
				err = fmt.Errorf("%d shards are not in an epoch: run bench checkpoint with --log-level warn", result.ShardsKept)
			}
			if ctx.Err() != nil {
				done <- nil // the end has cut it off
				return
			}
			if err != nil {
				done <- err
				return
			}
			select {
			case <-time.After(time.Duration(b.EpochSeconds * float64(time.Second))):
			case <-ctx.Done():
				done <- nil
				return
			}
		}
	}()
	return func() error {
		cancel()
		return errors.Join(<-done, keeper.Close(), os.RemoveAll(dir))
	}, nil
}

// rowKey returns the key of a row: a hash, as keys are.
func rowKey(row int) ps.Key { return ps.Key(ps.Mix(uint64(row))) }

// measure runs work for each client and returns its figures; work returns the time of
// each call.
func (b benchStore) measure(nodes benchServers, clients []*benchPusher, work func(client int) ([]time.Duration, error)) (benchResult, error) {
	before, err := nodes.usage()
	if err != nil {
		return benchResult{}, err
	}
	start := time.Now()
	times := make([][]time.Duration, len(clients))
	var g errgroup.Group
	for i := range clients {
		g.Go(func() (err error) {
			times[i], err = work(i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return benchResult{}, err
	}
	calls := slices.Concat(times...)
	took := time.Since(start).Seconds()
	after, err := nodes.usage()
	if err != nil {
		return benchResult{}, err
	}
	slices.Sort(calls)
	keys := float64(len(calls) * b.Keys)
	at := func(share float64) float64 {
		return float64(calls[int(share*float64(len(calls)-1))].Nanoseconds()) / 1e3
	}
	return benchResult{
		Calls: len(calls), KeysPerSecond: keys / took, KeysPerServerCPUSecond: keys / (after.CPU - before.CPU),
		P50: at(0.5), P99: at(0.99),
	}, nil
}

// pullFor pulls random keys until the time is up.
func (b benchStore) pullFor(ctx context.Context, c *client.Client, model ps.Model, of int) ([]time.Duration, error) {
	end := time.Now().Add(time.Duration(b.Seconds * float64(time.Second)))
	times := make([][]time.Duration, b.InFlight)
	var g errgroup.Group
	for i := range b.InFlight {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(1+of), uint64(i)))
			keys := make([]ps.Key, b.Keys)
			var group ps.Group
			reads := []ps.Read{{RowBytes: 4 * b.Width, Group: &group}}
			for time.Now().Before(end) {
				for k := range keys {
					keys[k] = rowKey(random.IntN(b.Rows))
				}
				start := time.Now()
				group.Fill(keys, b.Shards)
				if err := c.Pull(ctx, model.Name, model.Layout.Hash(), reads); err != nil {
					return err
				}
				times[i] = append(times[i], time.Since(start))
			}
			return nil
		})
	}
	err := g.Wait()
	return slices.Concat(times...), err
}

// benchPusher pushes, moving the shards' offsets by one per call.
type benchPusher struct {
	b         benchStore
	c         *client.Client
	model     ps.Model
	partition ps.Partition
	sent      []ps.Offset
	to        ps.Offset
	group     ps.Group
	gradients []float32
}

// fill pushes every row of the table once.
func (p *benchPusher) fill(ctx context.Context, t *terminal) error {
	return p.pushRows(ctx, p.b.Rows, func(done int) {
		t.progress("filling the table: %s of %s rows", thousands(int64(done)), thousands(int64(p.b.Rows)))
	})
}

// pushRows pushes so many rows once, from the first, and tells after each call how
// many it has pushed.
func (p *benchPusher) pushRows(ctx context.Context, rows int, pushed func(int)) error {
	keys := make([]ps.Key, 0, p.b.Keys)
	for row := range rows {
		keys = append(keys, rowKey(row))
		if len(keys) < p.b.Keys && row < rows-1 {
			continue
		}
		wait, err := p.push(ctx, keys)
		if err == nil {
			err = wait(ctx)
		}
		if err != nil {
			return err
		}
		pushed(row + 1)
		keys = keys[:0]
	}
	return nil
}

// push pushes one call's keys and returns what waits for the answers.
func (p *benchPusher) push(ctx context.Context, keys []ps.Key) (func(context.Context) error, error) {
	p.group.Fill(keys, p.b.Shards)
	for len(p.gradients) < len(keys)*p.b.Width {
		p.gradients = append(p.gradients, float32(len(p.gradients)%7)/100-0.03)
	}
	return p.send(ctx, &p.group, p.gradients)
}

// send pushes the (keys, width) gradients of a group and returns what waits for the
// answers.
func (p *benchPusher) send(ctx context.Context, group *ps.Group, gradients []float32) (func(context.Context) error, error) {
	p.to++
	u := &ps.Update{Model: p.model.Name, Stream: p.model.Stream, Layout: p.model.Layout.Hash(), Version: p.model.Version, Partition: p.partition, To: p.to}
	var event ps.Fingerprint // a call is one event
	event.Add(ps.EventHash(p.partition, p.to-1))
	for s := range p.sent {
		from, to := group.Shard(ps.ShardID(s))
		if to == from {
			continue
		}
		u.Items = append(u.Items, ps.Item{
			Shard: ps.ShardID(s), From: p.sent[s], Trained: 1, Fingerprint: event,
			Rows: []ps.Rows{{Keys: group.Keys[from:to], Values: ps.Bytes(gradients[from*p.b.Width : to*p.b.Width])}},
		})
		p.sent[s] = p.to
	}
	wait, err := p.c.Push(ctx, u)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		answers, err := wait(ctx)
		if err != nil {
			return err
		}
		for _, a := range answers {
			if a.Outcome != ps.Applied {
				return fmt.Errorf("shard %d answered %v (%w)", a.Shard, a.Outcome, a.Err)
			}
		}
		return nil
	}, nil
}

// pushFor pushes random keys until the time is up, with InFlight calls under way.
func (p *benchPusher) pushFor(ctx context.Context) ([]time.Duration, error) {
	end := time.Now().Add(time.Duration(p.b.Seconds * float64(time.Second)))
	random := rand.New(rand.NewPCG(2, uint64(p.partition)))
	keys := make([]ps.Key, p.b.Keys)
	type call struct {
		start time.Time
		wait  func(context.Context) error
	}
	calls := make(chan call, p.b.InFlight)
	tokens := make(chan struct{}, p.b.InFlight)
	var times []time.Duration
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(calls)
		for time.Now().Before(end) {
			for k := range keys {
				keys[k] = rowKey(random.IntN(p.b.Rows))
			}
			select {
			case tokens <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			start := time.Now()
			wait, err := p.push(ctx, keys)
			if err != nil {
				return err
			}
			calls <- call{start, wait}
		}
		return nil
	})
	g.Go(func() error {
		for c := range calls {
			if err := c.wait(ctx); err != nil {
				return err
			}
			times = append(times, time.Since(c.start))
			<-tokens
		}
		return nil
	})
	err := g.Wait()
	return times, err
}

// fixed is a shard map, or a list of models, that never changes.
type fixed struct {
	routes route.Map
	models []ps.Model
}

// staticRoutes gives all shards to one node.
func staticRoutes(shards int, address string) fixed {
	m := route.Map{Version: 1, Shards: make([]route.Shard, shards), Addresses: map[ps.NodeID]string{benchNodeID: address}}
	for s := range m.Shards {
		m.Shards[s] = route.Shard{Owner: benchNodeID, Fence: 1}
	}
	return fixed{routes: m}
}

const benchNodeID = "bench"

func once[T any](ctx context.Context, value T) <-chan T {
	values := make(chan T, 1)
	values <- value
	go func() {
		<-ctx.Done()
		close(values)
	}()
	return values
}

func (f fixed) WatchMap(ctx context.Context) <-chan route.Map     { return once(ctx, f.routes) }
func (f fixed) WatchModels(ctx context.Context) <-chan []ps.Model { return once(ctx, f.models) }

// Epoch says that nothing was ever committed.
func (f fixed) Epoch(context.Context, string) (checkpoint.Epoch, error) {
	return checkpoint.Epoch{}, nil
}

// usage is what a process has used.
type usage struct {
	CPU      float64 `json:"cpu_seconds"`
	Resident int64   `json:"resident_bytes"`
}

// benchServer is a node in another process. It answers each line on its stdin with
// its usage, and ends when stdin does.
type benchServer struct {
	process *exec.Cmd
	stdin   io.WriteCloser
	lines   *bufio.Scanner
	address string
	mu      sync.Mutex // one question at a time
}

func startBenchNode(ctx context.Context, b benchStore, i int) (*benchServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	work, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "node", string(work)}
	if b.profile != "" {
		args = append(args, "--cpuprofile", fmt.Sprintf("%s.%d", b.profile, i))
	}
	s := &benchServer{process: exec.CommandContext(ctx, self, args...)}
	s.process.Stderr = os.Stderr
	if s.stdin, err = s.process.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, fmt.Errorf("start the node's process: %w", err)
	}
	s.lines = bufio.NewScanner(stdout)
	if !s.lines.Scan() {
		return nil, errors.Join(errors.New("the node's process did not start"), s.process.Wait())
	}
	s.address = s.lines.Text()
	return s, nil
}

// benchServers are several, between which the shards are dealt out. Each believes that it
// has all, and is asked for its own only.
type benchServers []*benchServer

func startBenchNodes(ctx context.Context, b benchStore) (servers benchServers, err error) {
	for i := range max(1, b.Nodes) {
		server, err := startBenchNode(ctx, b, i)
		if err != nil {
			return nil, errors.Join(err, servers.stop())
		}
		servers = append(servers, server)
	}
	return servers, nil
}

func (s benchServers) stop() (err error) {
	for _, server := range s {
		err = errors.Join(err, server.stop())
	}
	return err
}

// usage is the sum of all.
func (s benchServers) usage() (sum usage, err error) {
	for _, server := range s {
		u, err := server.usage()
		if err != nil {
			return sum, err
		}
		sum.CPU, sum.Resident = sum.CPU+u.CPU, sum.Resident+u.Resident
	}
	return sum, nil
}

// routes deals the shards out.
func (s benchServers) routes(shards int) fixed {
	m := route.Map{Version: 1, Shards: make([]route.Shard, shards), Addresses: make(map[ps.NodeID]string)}
	for i, server := range s {
		m.Addresses[ps.NodeID(fmt.Sprintf("%s-%d", benchNodeID, i))] = server.address
	}
	for i := range m.Shards {
		m.Shards[i] = route.Shard{Owner: ps.NodeID(fmt.Sprintf("%s-%d", benchNodeID, i*len(s)/shards)), Fence: 1}
	}
	return fixed{routes: m}
}

func (s *benchServer) usage() (usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var u usage
	if _, err := io.WriteString(s.stdin, "usage\n"); err != nil {
		return u, fmt.Errorf("ask the node's process: %w", err)
	}
	if !s.lines.Scan() {
		return u, errors.New("the node's process has ended")
	}
	return u, json.Unmarshal(s.lines.Bytes(), &u)
}

func (s *benchServer) stop() error {
	if err := s.stdin.Close(); err != nil {
		return err
	}
	return s.process.Wait()
}

// newBenchNode is the other process of bench store and bench checkpoint.
func newBenchNode(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "node WORK",
		Short:  "Serve rows to another process of bench",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var b benchStore
			if err := json.Unmarshal([]byte(args[0]), &b); err != nil {
				return usageError{err}
			}
			model, err := b.model()
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			listener, err := listen(ctx, "127.0.0.1:0")
			if err != nil {
				return err
			}
			owned := staticRoutes(b.Shards, listener.Addr().String())
			owned.models = []ps.Model{model}
			n, err := node.New(node.Config{ID: benchNodeID, Ownership: owned, Logger: t.logger})
			if err != nil {
				return err
			}
			s := grpc.NewServer(server.Options()...)
			server.Register(s, n, owned)
			if err := server.RegisterLookups(s, n, server.LookupLimits{}); err != nil {
				return err
			}
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return n.Run(ctx) })
			g.Go(func() error { return serve(ctx, s, listener) })
			<-n.Ready()
			fmt.Fprintln(t.stdout, listener.Addr())
			questions := bufio.NewScanner(os.Stdin)
			for questions.Scan() {
				u, err := ownUsage()
				if err != nil {
					return err
				}
				if err := json.NewEncoder(t.stdout).Encode(u); err != nil {
					return err
				}
			}
			stop()
			return g.Wait()
		},
	}
	profiled(cmd)
	return cmd
}

// ownUsage returns what this process has used.
func ownUsage() (usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return usage{}, err
	}
	u := usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()}
	if u.Resident = residentBytes(os.Getpid()); u.Resident == 0 {
		u.Resident = r.Maxrss << 10 // where there is no /proc: the largest so far
	}
	return u, nil
}

// residentBytes returns the memory that a process has; 0 if that is not known.
func residentBytes(pid int) int64 {
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(doc), &size, &resident); err != nil {
		return 0
	}
	return resident * int64(os.Getpagesize())
}
