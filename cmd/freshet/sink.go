package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/sink"
	"github.com/freshet-ml/freshet/ps/sink/redis"
)

func newSink(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "sink",
		Short:   "Keep a copy of a model's weights in another store",
		Example: "  freshet sink redis --redis 127.0.0.1:6379 --key '{model}:{table}:{key}'",
	}
	cmd.AddCommand(newSinkRedis(t))
	return cmd
}

// redisFlags are what "sink redis" is told.
type redisFlags struct {
	coordinator, model string
	url, key, value    string
	positions          string
	tables             []string
	once               bool
	metrics            string
}

func newSinkRedis(t *terminal) *cobra.Command {
	var f redisFlags
	cmd := &cobra.Command{
		Use:   "redis",
		Short: "Write a model's weights to Redis, and go on as they change",
		Long: `Follows a model's shards and sets a key of Redis for every row, first for all
that there are and then for those that change. Rows are never deleted and get no
expiry. Only tables of weights (float32) are written.

The template of --key may hold
    {model}  the model's name
    {table}  the table's name
    {key}    the row's key in decimal digits
    {hex}    the row's key in 16 hexadecimal digits
A value is the row's weights as little-endian float32, or as a list of JSON.

How far each shard is stands in the hash of --positions, so that after a restart
shards that have not changed are not written again. A shard that has is written
from its base: rows are absolute, and writing one twice does no harm. Delete the
hash to have all written again.

While Redis is away, the sink waits for it; if it comes back empty, all is
written again. One server, no Redis Cluster. Of two sinks with the same hash,
the first ends.`,
		Example: `  freshet sink redis --redis 127.0.0.1:6379 --key '{model}:{table}:{key}'

  # Once, as JSON, one table; the address may come from FRESHET_REDIS:
  freshet sink redis --redis rediss://user:password@redis:6379/2 \
      --key 'emb:{hex}' --value json --tables factors --once`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.talkative(cmd)
			return runSinkRedis(cmd.Context(), t, f)
		},
	}
	addCoordinatorFlag(cmd, &f.coordinator)
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "model to write (default: the only one there is)")
	flags.StringVar(&f.url, "redis", "127.0.0.1:6379", "host:port, or redis://[user:password@]host:port[/database], rediss:// with TLS")
	flags.StringVar(&f.key, "key", "{model}:{table}:{key}", "template of a row's key in Redis")
	flags.StringVar(&f.value, "value", "binary", "what a row's value looks like: binary or json")
	flags.StringSliceVar(&f.tables, "tables", nil, "tables to write (default: all with weights)")
	flags.StringVar(&f.positions, "positions", "freshet:sink:{model}", "template of the key of the hash of positions")
	flags.BoolVar(&f.once, "once", false, "write the weights as they are now, and end")
	flags.StringVar(&f.metrics, "metrics", "", "host:port to serve Prometheus metrics at, under /metrics (default: not served)")
	return cmd
}

// runSinkRedis writes until ctx ends or, if once, all is written.
func runSinkRedis(ctx context.Context, t *terminal, f redisFlags) error {
	value, err := redis.ParseValue(f.value)
	if err != nil {
		return usageError{fmt.Errorf("--value: %w", err)}
	}
	if _, err := redis.ParseTemplate(f.key); err != nil {
		return usageError{fmt.Errorf("--key: %w", err)}
	}
	c, err := openCluster(ctx, t, f.coordinator, f.model)
	if err != nil {
		return err
	}
	defer c.Close()
	tables, err := chosenTables(c.model.Model, f.tables, false)
	if err != nil {
		return err
	}
	target, err := redis.New(redis.Config{
		URL: f.url, Key: f.key, Value: value, Positions: f.positions, Model: c.model.Model, Tables: tables, Shards: c.shards,
	})
	if err != nil {
		return err
	}
	defer target.Close()
	registry := prometheus.NewRegistry()
	s, err := sink.New(sink.Config{
		Source: allShards{c.client, c.model.Name, c.shards}, Target: target,
		Model: c.model.Model, Tables: tables, Shards: c.shards, Once: f.once, Metrics: registry, Logger: t.logger,
	})
	if err != nil {
		return err
	}
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	working, end := context.WithCancel(ctx)
	g.Go(func() error { return serveMetrics(working, f.metrics, registry, t.logger) })
	g.Go(func() error { return showSink(working, t, s, c.shards) })
	g.Go(func() error {
		defer end()
		return s.Run(ctx)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	report := newSinkReport(c.model.Name, s.Figures(), time.Since(start))
	return t.result(report, func(w io.Writer) { report.print(w, target.PositionsKey()) })
}

// chosenTables returns the tables of the given names, or all with weights if there are no
// names. Only if others may be is a table chosen by name that has none.
func chosenTables(model ps.Model, names []string, others bool) ([]ps.TableID, error) {
	var ids []ps.TableID
	if len(names) == 0 {
		for i, table := range model.Layout.Tables {
			if table.Kind == ps.Float32 {
				ids = append(ids, ps.TableID(i))
			}
		}
		return ids, nil
	}
	for _, name := range names {
		id, table, ok := model.Layout.Table(name)
		if !ok {
			return nil, usageError{fmt.Errorf("--tables: model %s has no table %q, only %s", model.Name, name, tableNames(model.Layout))}
		}
		if table.Kind != ps.Float32 && !others {
			return nil, usageError{fmt.Errorf("--tables: table %s holds %v, no weights", name, table.Kind)}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// tableNames lists the tables of a layout.
func tableNames(layout ps.Layout) string {
	var names []string
	for _, table := range layout.Tables {
		names = append(names, table.Name)
	}
	return strings.Join(names, ", ")
}

// allShards is what a sink follows.
type allShards struct {
	client *client.Client
	model  string
	shards int
}

// Follow is what sink.Source says.
func (a allShards) Follow(ctx context.Context, take func(*ps.Delta) error) error {
	all := make([]ps.ShardID, a.shards)
	for id := range all {
		all[id] = ps.ShardID(id)
	}
	wanted := make(chan []ps.ShardID, 1)
	wanted <- all
	return a.client.Follow(ctx, a.model, wanted, take)
}

// serveMetrics serves metrics at an address, if there is one, until ctx ends.
func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry, logger *slog.Logger) error {
	if address == "" {
		return nil
	}
	listener, err := listenAs(ctx, "--metrics", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: adminMax}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // whoever asks just then asks again
	logger.Info("metrics are served", "at", "http://"+listener.Addr().String()+"/metrics")
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics at %s: %w", listener.Addr(), err)
	}
	return nil
}

// showSink shows what a sink does until ctx ends.
func showSink(ctx context.Context, t *terminal, s *sink.Sink, shards int) error {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	var before int64
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		f := s.Figures()
		line := fmt.Sprintf("%s rows written, %s/s; %d of %d shards", thousands(f.Rows), thousands(f.Rows-before), f.Shards, shards)
		before = f.Rows
		if f.FreshP50 != 0 {
			line += fmt.Sprintf("; event to Redis p50 %v, p99 %v", f.FreshP50.Round(time.Millisecond), f.FreshP99.Round(time.Millisecond))
		}
		t.progress("%s", line)
	}
}

// sinkReport is the document of "sink redis". Keys may be added and do not change.
type sinkReport struct {
	Model string `json:"model"`
	sink.Figures
	Seconds float64 `json:"seconds"`
	// Freshness is of the last deltas that brought newer events; none if there were none.
	Freshness *sinkFreshness `json:"freshness"`
}

type sinkFreshness struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

func newSinkReport(model string, f sink.Figures, took time.Duration) sinkReport {
	r := sinkReport{Model: model, Figures: f, Seconds: took.Seconds()}
	if f.FreshP50 != 0 {
		r.Freshness = &sinkFreshness{P50: f.FreshP50.Seconds() * 1e3, P99: f.FreshP99.Seconds() * 1e3}
	}
	return r
}

func (r sinkReport) print(w io.Writer, positions string) {
	fmt.Fprintf(w, "%s: %s rows written in %.1f s, %s bytes of weights; %s whole in Redis, see %s\n",
		r.Model, thousands(r.Rows), r.Seconds, thousands(r.Bytes), count(r.Shards, "shard"), positions)
	if r.Freshness != nil {
		fmt.Fprintf(w, "  event to Redis: p50 %.0f ms, p99 %.0f ms\n", r.Freshness.P50, r.Freshness.P99)
	}
}
