package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/breaker"
	"github.com/freshet-ml/freshet/worker/predict/server"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// serveFlags are what "serve" is told.
type serveFlags struct {
	coordinator, model string
	listen, http       string
	secretFile         string
	pin                string
	beside             []string
	encoding           string
	items, itemName    string
	bounds             breaker.Bounds
	goodAge            time.Duration
	drain              time.Duration
}

func newServe(t *terminal) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run an inference pod: predictions over gRPC and HTTP, fresh",
		Long: `Keeps a copy of a model's weights in memory, follows what the cluster learns,
and answers freshet.predict.v1 (Predict, Rank, Retrieve, Explain) over gRPC, and
the same over HTTP with JSON; GET /openapi.json describes that, /readyz says
when all weights are there, and /metrics is for Prometheus.

What it serves never goes back, but when the model is set back to an older
epoch (freshet rollback), which every pod follows within seconds. --pin serves a
checkpoint epoch instead: one by its number, or the newest, always.

--beside serves more versions: PARAMETERS=SHARE, where PARAMETERS is live,
newest or the number of an epoch, and SHARE a part of the requests, such as 0.1,
or shadow, to be asked and not answered with. Requests with the same routing
key (gRPC metadata freshet-key, HTTP header Freshet-Key) meet the same version.
Each version holds its own copy, and has metrics of its own.

With --mean-max or --loss-max, a version that is not pinned to one epoch stops
following when predictions or the loss leave their bounds, goes back to the
newest epoch that is at least --good-age old, and stays there until the model
is set back. Epochs are read from their bucket, which the pod must reach then.

Identifiers are masked by the cluster's secret, so --secret-file must be the
same file that the workers use.`,
		Example: `  freshet serve --coordinator 127.0.0.1:7400 --secret-file dir/secret
  curl -s 127.0.0.1:7501/v1/predict -H 'content-type: application/json' \
      -d '{"events": [{"uid": "17", "sku": "a4"}]}'

  # A tenth of the requests to the newest epoch, for comparison; items to
  # retrieve; a model that must not promise more than a third:
  freshet serve --beside newest=0.1 --items file:///data/items.csv \
      --item-name sku --mean-max 0.33`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.talkative(cmd)
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(podGCPercent)
			}
			return untilStopped(cmd.Context(), runServe(cmd.Context(), t, f))
		},
	}
	addCoordinatorFlag(cmd, &f.coordinator)
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "model to serve (default: the only one there is)")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:7500", "address of gRPC; port 0 takes a free one")
	flags.StringVar(&f.http, "http", "127.0.0.1:7501", "address of HTTP, metrics and probes (empty: none)")
	flags.StringVar(&f.secretFile, "secret-file", "", "file with the secret that masks identifiers")
	flags.StringVar(&f.pin, "pin", "", "serve an epoch: its number, or newest (default: what is learned, live)")
	flags.StringSliceVar(&f.beside, "beside", nil, "more versions, as PARAMETERS=SHARE (see above)")
	flags.StringVar(&f.encoding, "encoding", ps.Plain.String(), "how weights travel to the pod: plain, float16, bfloat16 or int8")
	flags.StringVar(&f.items, "items", "", "items to retrieve: file:///path/to/items.csv[.zst], with a header")
	flags.StringVar(&f.itemName, "item-name", "", "column of the items that names them")
	flags.Float64Var(&f.bounds.MeanMin, "mean-min", 0, "least mean of predictions, with --mean-max")
	flags.Float64Var(&f.bounds.MeanMax, "mean-max", 0, "greatest mean of predictions (0: no bound)")
	flags.Float64Var(&f.bounds.LossMax, "loss-max", 0, "greatest mean loss of the events that are learned (0: no bound)")
	flags.IntVar(&f.bounds.Run, "bounds-over", 10_000, "predictions, or events, that a mean is taken over")
	flags.DurationVar(&f.goodAge, "good-age", time.Minute, "age of an epoch from which on it is taken to be good")
	flags.DurationVar(&f.drain, "drain", 0, "when interrupted, time to go on serving while /readyz says no")
	profiled(cmd)
	return cmd
}

// podGCPercent is the collector's target in a pod, unless GOGC gives another: weights are not
// on the heap, so that it is small beside what requests leave, and would be collected some
// fifty times a second.
const podGCPercent = 400

// runServe is an inference pod until ctx ends.
func runServe(ctx context.Context, t *terminal, f serveFlags) error {
	choices, err := f.versions()
	if err != nil {
		return err
	}
	encoding, err := ps.ParseEncoding(f.encoding)
	if err != nil {
		return usageError{fmt.Errorf("--encoding: %w", err)}
	}
	if (f.items == "") != (f.itemName == "") {
		return usageError{errors.New("--items and --item-name belong together: a file, and the column that names its items")}
	}
	listener, err := listen(ctx, f.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	var web net.Listener // nil: no HTTP
	if f.http != "" {
		if web, err = listenAs(ctx, "--http", f.http); err != nil {
			return err
		}
		defer web.Close()
	}
	c, err := openCluster(ctx, t, f.coordinator, f.model)
	if err != nil {
		return err
	}
	defer c.Close()
	var secret []byte
	if identifiers := c.spec.Stream.Identifiers; len(identifiers) > 0 {
		if _, err := clusterMasker(c.model, f.secretFile, "identifiers ("+strings.Join(identifiers, ", ")+")"); err != nil {
			return err
		}
		if secret, err = readSecret(f.secretFile); err != nil {
			return err
		}
	}
	items, err := f.readItems(c.spec)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p, err := newPod(podConfig{
		cluster: c, choices: choices, encoding: encoding, secret: secret, items: items,
		bounds: f.bounds, goodAge: f.goodAge, metrics: registry, logger: t.logger,
	})
	if err != nil {
		return err
	}
	requests, err := server.New(server.Config{Models: p.models, Status: wire.ToStatus, Metrics: registry, Logger: t.logger})
	if err != nil {
		return err
	}
	s := grpc.NewServer(requests.Options()...)
	requests.Register(s)
	t.logger.Info("serving", "model", c.model.Name, "grpc", listener.Addr().String())
	// Requests are answered for a while longer than ctx, from what is there.
	draining, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, draining := errgroup.WithContext(draining)
	g.Go(func() error { return p.run(draining) })
	g.Go(func() error { return serve(draining, s, listener) })
	if web != nil {
		g.Go(func() error { return serveHTTP(draining, requests, registry, web, t) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			requests.Drain()
			_ = rest(draining, f.drain) // cut short by an error of the others, which is returned
			stop()
		case <-draining.Done():
		}
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// serveHTTP answers HTTP until ctx ends.
func serveHTTP(ctx context.Context, requests *server.Server, registry *prometheus.Registry, listener net.Listener, t *terminal) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/", requests.Handler())
	web := &http.Server{Handler: mux, ReadHeaderTimeout: adminMax, IdleTimeout: 2 * time.Minute}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if web.Shutdown(ending) != nil {
			_ = web.Close()
		}
	}()
	t.logger.Info("serving", "http", "http://"+listener.Addr().String())
	if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP at %s: %w", listener.Addr(), err)
	}
	<-stopped
	return nil
}

// choice is a version that is to be served.
type choice struct {
	// live says that it follows what is learned; else it is the epoch, or the newest if
	// that is 0.
	live  bool
	epoch ps.Epoch
	share float64
}

// String returns the choice as it is given.
func (c choice) String() string {
	switch {
	case c.live:
		return "live"
	case c.epoch == 0:
		return "newest"
	}
	return strconv.FormatUint(uint64(c.epoch), 10)
}

// versions returns what --pin and --beside ask for, first what answers all other requests.
func (f *serveFlags) versions() ([]choice, error) {
	pin := f.pin
	if pin == "" {
		pin = "live"
	}
	first, err := parseChoice(pin)
	if err != nil {
		return nil, usageError{fmt.Errorf("--pin %q: %w", f.pin, err)}
	}
	first.share = 1
	all := []choice{first}
	for _, text := range f.beside {
		parameters, share, _ := strings.Cut(text, "=")
		c, err := parseChoice(parameters)
		if err == nil && share != "shadow" {
			if c.share, err = strconv.ParseFloat(share, 64); err != nil || !(c.share > 0 && c.share < 1) {
				err = errors.New("want a share between 0 and 1, or shadow")
			}
		}
		if err == nil && slices.ContainsFunc(all, func(o choice) bool { return o.String() == c.String() }) {
			err = errors.New("that version is there already")
		}
		if err != nil {
			return nil, usageError{fmt.Errorf("--beside %q: %w; such as newest=0.1 or 12=shadow", text, err)}
		}
		all = append(all, c)
		all[0].share -= c.share
	}
	if all[0].share <= 0 {
		return nil, usageError{fmt.Errorf("--beside: the shares add up to %.4g and leave nothing for %v", 1-all[0].share, all[0])}
	}
	return all, nil
}

func parseChoice(text string) (choice, error) {
	switch text {
	case "live":
		return choice{live: true}, nil
	case "newest":
		return choice{}, nil
	}
	epoch, err := strconv.ParseUint(text, 10, 64)
	if err != nil || epoch == 0 {
		return choice{}, errors.New("want the number of an epoch, newest or live")
	}
	return choice{epoch: ps.Epoch(epoch)}, nil
}

// readItems reads the columns of the items that the spec has, and the one that names them;
// nil if there are no items.
func (f *serveFlags) readItems(s *spec.Spec) (*predict.Items, error) {
	if f.items == "" {
		return nil, nil
	}
	path, ok := strings.CutPrefix(f.items, "file://")
	if !ok {
		return nil, usageError{fmt.Errorf("--items %q: want file:///path/to/items.csv", f.items)}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	defer file.Close()
	contents, free, err := files.Decompress(path, file)
	if err != nil {
		return nil, fmt.Errorf("items in %s: %w: %w", path, ps.ErrCorrupt, err)
	}
	defer free()
	rows := csv.NewReader(contents)
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("items in %s: the header: %w: %w", path, ps.ErrInvalid, err)
	}
	items, places := &predict.Items{Name: f.itemName}, []int{}
	wanted := append(feature.UnlabelledColumns(s), f.itemName)
	for i, name := range header {
		if slices.Contains(wanted, name) {
			items.Columns, places = append(items.Columns, predict.Column{Name: strings.Clone(name)}), append(places, i)
		}
	}
	if !slices.Contains(header, f.itemName) {
		return nil, usageError{fmt.Errorf("--item-name %q: %s has no such column, only %s", f.itemName, path, strings.Join(header, ", "))}
	}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return items, nil
		}
		if err != nil {
			return nil, fmt.Errorf("items in %s: %w: %w", path, ps.ErrInvalid, err)
		}
		for k, i := range places {
			items.Columns[k].Values = append(items.Columns[k].Values, strings.Clone(row[i]))
		}
	}
}
