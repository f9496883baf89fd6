package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/server"
)

// benchLookup is the work of "bench lookup".
type benchLookup struct {
	benchStore
	Encoding string `json:"encoding"`

	encoding ps.Encoding
}

// lookupReport is the document of "bench lookup -o json". Keys may be added and do not
// change.
type lookupReport struct {
	benchLookup
	Lookup lookupResult `json:"lookup"`
}

// lookupResult is the figures of look-ups.
type lookupResult struct {
	Calls                  int     `json:"calls"`
	KeysPerSecond          float64 `json:"keys_per_second"`
	NsPerKey               float64 `json:"ns_per_key"`
	KeysPerServerCPUSecond float64 `json:"keys_per_server_cpu_second"`
	P50                    float64 `json:"p50_us"`
	P99                    float64 `json:"p99_us"`
	// BytesPerKey is a row as it travels. Request and Response are whole messages, divided
	// by the keys.
	BytesPerKey         float64 `json:"bytes_per_key"`
	RequestBytesPerKey  float64 `json:"request_bytes_per_key"`
	ResponseBytesPerKey float64 `json:"response_bytes_per_key"`
}

func newBenchLookup(t *terminal) *cobra.Command {
	b := benchLookup{benchStore: benchStore{Clients: 1, Nodes: 1}}
	cmd := &cobra.Command{
		Use:   "lookup",
		Short: "Measure look-ups of random rows between two processes",
		Long: `Starts a parameter-server node in a process of its own, fills a table, and looks
random keys up over loopback, as an inference pod does that keeps nothing. The
figures include all of the client's work: removing duplicate keys, grouping by
shard, encoding and decoding. p50 and p99 are of one call. Nanoseconds per key
are time that passes, with all calls that are under way at once.`,
		Example: `  freshet bench lookup
  freshet bench lookup --keys 1300 --in-flight 4 --encoding int8 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if b.encoding, err = ps.ParseEncoding(b.Encoding); err != nil {
				return usageError{fmt.Errorf("--encoding %q: want plain, float16, bfloat16 or int8", b.Encoding)}
			}
			report, err := b.run(cmd.Context(), t)
			if err != nil {
				return err
			}
			return t.result(report, report.print)
		},
	}
	flags := cmd.Flags()
	b.addFlags(flags, 1_000_000, 1300, 4)
	flags.StringVar(&b.Encoding, "encoding", ps.Plain.String(), "how rows travel: plain, float16, bfloat16 or int8")
	flags.Float64Var(&b.Seconds, "seconds", 3, "how long to look up")
	flags.StringVar(&b.profile, "cpuprofile", "", "prefix of files to write the node's processor profile to")
	return cmd
}

// print writes the report for people.
func (r lookupReport) print(w io.Writer) {
	l := r.Lookup
	fmt.Fprintf(w, "%s rows × %d floats, %s, %d keys a look-up, %d in flight\n", thousands(int64(r.Rows)), r.Width, r.Encoding, r.Keys, r.InFlight)
	fmt.Fprintf(w, "  %.2f M keys/s: %.0f ns a key; p50 %.0f µs, p99 %.0f µs of %s look-ups\n", l.KeysPerSecond/1e6, l.NsPerKey, l.P50, l.P99, thousands(int64(l.Calls)))
	fmt.Fprintf(w, "  %.2f M keys/server CPU-second\n", l.KeysPerServerCPUSecond/1e6)
	fmt.Fprintf(w, "  bytes a key: a row %.0f; whole requests %.1f, whole responses %.1f\n", l.BytesPerKey, l.RequestBytesPerKey, l.ResponseBytesPerKey)
}

func (b benchLookup) run(ctx context.Context, t *terminal) (report lookupReport, err error) {
	model, err := b.model()
	if err != nil {
		return report, err
	}
	if b.Keys > server.LookupKeysMax {
		return report, usageError{fmt.Errorf("--keys %d: a look-up has at most %d", b.Keys, server.LookupKeysMax)}
	}
	report.benchLookup = b
	nodes, err := startBenchNodes(ctx, b.benchStore)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, nodes.stop()) }()
	c, err := client.Dial(ctx, client.Config{Routes: nodes.routes(b.Shards), Logger: t.logger})
	if err != nil {
		return report, err
	}
	defer c.Close()
	pusher := &benchPusher{b: b.benchStore, c: c, model: model, sent: make([]ps.Offset, b.Shards)}
	if err := pusher.fill(ctx, t); err != nil {
		return report, err
	}
	t.progress("looking up for %.0f s", b.Seconds)
	figures, err := b.measure(nodes, []*benchPusher{pusher}, func(int) ([]time.Duration, error) { return b.lookUpFor(ctx, c, model) })
	if err != nil {
		return report, err
	}
	report.Lookup = lookupResult{
		Calls: figures.Calls, KeysPerSecond: figures.KeysPerSecond, NsPerKey: 1e9 / figures.KeysPerSecond,
		KeysPerServerCPUSecond: figures.KeysPerServerCPUSecond, P50: figures.P50, P99: figures.P99,
		BytesPerKey: float64(b.encoding.RowBytes(model.Layout.Tables[0])),
	}
	return report, b.weigh(ctx, t, nodes, model, &report.Lookup)
}

// looker looks random keys up, one call at a time.
type looker struct {
	b      *benchLookup
	c      *client.Client
	model  string
	layout uint64
	random *rand.Rand
	keys   []ps.Key
	group  ps.Group
	reads  []ps.Read
}

func (b *benchLookup) looker(c *client.Client, model ps.Model, seed int) *looker {
	l := &looker{b: b, c: c, model: model.Name, layout: model.Layout.Hash(), random: rand.New(rand.NewPCG(3, uint64(seed))), keys: make([]ps.Key, b.Keys)}
	l.reads = []ps.Read{{RowBytes: 4 * b.Width, Group: &l.group}}
	return l
}

// lookUp returns how long a call takes.
func (l *looker) lookUp(ctx context.Context) (time.Duration, error) {
	for k := range l.keys {
		l.keys[k] = rowKey(l.random.IntN(l.b.Rows))
	}
	start := time.Now()
	l.group.Fill(l.keys, l.b.Shards)
	_, err := l.c.Lookup(ctx, l.model, l.layout, l.reads, client.LookupOptions{Encoding: l.b.encoding})
	return time.Since(start), err
}

// lookUpFor looks random keys up until the time is up.
func (b *benchLookup) lookUpFor(ctx context.Context, c *client.Client, model ps.Model) ([]time.Duration, error) {
	end := time.Now().Add(time.Duration(b.Seconds * float64(time.Second)))
	times := make([][]time.Duration, b.InFlight)
	g, ctx := errgroup.WithContext(ctx)
	for i := range b.InFlight {
		g.Go(func() error {
			l := b.looker(c, model, i)
			for time.Now().Before(end) {
				took, err := l.lookUp(ctx)
				if err != nil {
					return err
				}
				times[i] = append(times[i], took)
			}
			return nil
		})
	}
	err := g.Wait()
	var all []time.Duration
	for _, some := range times {
		all = append(all, some...)
	}
	return all, err
}

// weigh counts the bytes of the messages of one look-up.
func (b *benchLookup) weigh(ctx context.Context, t *terminal, nodes benchServers, model ps.Model, result *lookupResult) error {
	var scale scale
	c, err := client.Dial(ctx, client.Config{Routes: nodes.routes(b.Shards), Logger: t.logger, DialOptions: []grpc.DialOption{grpc.WithStatsHandler(&scale)}})
	if err != nil {
		return err
	}
	defer c.Close()
	l := b.looker(c, model, b.InFlight)
	if _, err := l.lookUp(ctx); err != nil {
		return err
	}
	keys := float64(len(l.group.Keys))
	result.RequestBytesPerKey = float64(scale.out.Load()) / keys
	result.ResponseBytesPerKey = float64(scale.in.Load()) / keys
	return nil
}

// scale counts the bytes of a connection's messages. It is safe for concurrent use.
type scale struct{ out, in atomic.Int64 }

func (s *scale) HandleRPC(_ context.Context, what stats.RPCStats) {
	switch message := what.(type) {
	case *stats.OutPayload:
		s.out.Add(int64(message.WireLength))
	case *stats.InPayload:
		s.in.Add(int64(message.WireLength))
	}
}

func (s *scale) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *scale) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *scale) HandleConn(context.Context, stats.ConnStats)                       {}
