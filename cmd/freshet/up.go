package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/deadletter"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/train"
)

// upSettings are up's flags.
type upSettings struct {
	example   string
	events    int64
	seed      uint64
	data      string
	stream    string
	from      string
	dir       string
	listen    string
	nodes     int
	workers   int
	shards    int
	standbys  int
	moves     int
	inFlight  int
	cache     string
	rate      float64
	killEvery time.Duration
	untilEnd  bool
	metrics   string

	checkpoints epochSettings
	goesOn      bool // an earlier up has learned in the directory
}

func newUp(t *terminal) *cobra.Command {
	var u upSettings
	cmd := &cobra.Command{
		Use:   "up [SPEC]",
		Short: "Run a whole cluster in one process and learn a model",
		Long: `Runs etcd, a coordinator, parameter-server nodes and workers in one process and
learns a model: an example, or your own spec (see "freshet model init").

With --until-end it ends when every shard has applied the end of the stream,
audits that every event was applied exactly once, and prints a report. Without,
it goes on serving until it is interrupted.

Rows that cannot be used are skipped and listed, without their text, in
dead-letters.jsonl in the directory. More than 100 of 10,000 end it.

With --kill-every, nodes and workers are processes of their own, and two nodes,
then a worker, and so on, are killed with SIGKILL and started again. What they
had is learned again from the last epoch; the audit shows that nothing is lost.

With --dir the model outlives the process: epochs are taken while it learns and
when it ends, and the same command goes on from the newest, even after kill -9.
Without, up works in a temporary directory, begins empty and leaves nothing.`,
		Example: `  freshet up --example shop --events 1000000 --until-end
  freshet up --example kuairand --data path/to/kuairand --until-end -o json
  freshet up model.yaml --stream file:///data/events.csv --workers 2 --until-end

  # Members die all the time, and the audit is clean:
  freshet up --example shop --events 200000 --rate 4000 --kill-every 5s \
      --checkpoint-every 5s --until-end`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (u.example != "") {
				return usageError{errors.New("give a SPEC or --example NAME (see freshet data list), one of them")}
			}
			specPath := ""
			if len(args) == 1 {
				specPath = args[0]
			}
			return u.run(cmd.Context(), t, specPath)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&u.example, "example", "", "learn an example: shop or kuairand (see freshet data list)")
	flags.Int64Var(&u.events, "events", 1_000_000, "shop: number of events to simulate")
	flags.Uint64Var(&u.seed, "seed", 1, "shop: seed of the simulation")
	flags.StringVar(&u.data, "data", "", "kuairand: folder with log.csv, users.csv and videos.csv, plain or .zst")
	flags.StringVar(&u.stream, "stream", "", "stream URL, in place of the spec's: file:///path/to/events.csv[.zst]")
	flags.StringVar(&u.from, "from", "", fromUsage)
	flags.StringVar(&u.dir, "dir", "", "directory for etcd, epochs, the secret and dead letters; new, empty or an earlier up's (default: a temporary one)")
	flags.StringVar(&u.listen, "listen", "127.0.0.1:7400", "address of the coordinator, for freshet status, predict and others")
	flags.IntVar(&u.nodes, "nodes", 2, "parameter-server nodes")
	flags.IntVar(&u.workers, "workers", 2, "workers")
	flags.IntVar(&u.shards, "shards", 64, "shards of the cluster, a power of two")
	flags.IntVar(&u.standbys, "standbys", 0, standbysUsage)
	flags.IntVar(&u.moves, "moves", movesDefault, movesUsage)
	flags.StringVar(&u.cache, "cache", "", cacheUsage)
	flags.IntVar(&u.inFlight, "in-flight", 0, "events between pull and push over all workers (default: the spec's)")
	flags.Float64Var(&u.rate, "rate", 0, "events per second, over all workers, that are learned at most (0: as fast as it goes)")
	flags.DurationVar(&u.killEvery, "kill-every", 0, "time between kills of a node or a worker, at least 1s (0: none is killed)")
	flags.StringVar(&u.metrics, "metrics", "", metricsUsage)
	u.checkpoints.add(cmd, 30*time.Second)
	flags.BoolVar(&u.untilEnd, "until-end", false, "end, audit and report when the stream has been learned")
	return cmd
}

func (u *upSettings) validate() error {
	switch {
	case u.nodes < 1:
		return usageError{fmt.Errorf("--nodes %d: want at least 1", u.nodes)}
	case u.workers < 1:
		return usageError{fmt.Errorf("--workers %d: want at least 1", u.workers)}
	case u.standbys < 0:
		return usageError{fmt.Errorf("--standbys %d: want at least 0", u.standbys)}
	case u.moves < 0:
		return usageError{fmt.Errorf("--moves %d: want at least 0", u.moves)}
	case u.events < 1:
		return usageError{fmt.Errorf("--events %d: want at least 1", u.events)}
	case u.inFlight < 0:
		return usageError{fmt.Errorf("--in-flight %d: want at least 1, or 0 for the spec's", u.inFlight)}
	case !validRate(u.rate):
		return usageError{badRate(u.rate)}
	case u.killEvery != 0 && u.killEvery < killEveryMin:
		return usageError{fmt.Errorf("--kill-every %v: want at least %v, in which a killed process is back, or 0 to kill none", u.killEvery, killEveryMin)}
	case u.killEvery != 0 && u.checkpoints.every == 0 && u.checkpoints.events == 0:
		return usageError{errors.New("--kill-every needs epochs to go on from: leave --checkpoint-every or --checkpoint-events above 0")}
	case u.example != "" && u.stream != "":
		return usageError{errors.New("an example brings its own stream; leave --stream out")}
	}
	if err := ps.ValidShards(u.shards); err != nil {
		return usageError{fmt.Errorf("--shards: %w", err)}
	}
	return nil
}

// killEveryMin is the shortest time between kills: a process takes some 0.2 s to be back.
const killEveryMin = time.Second

// validRate reports whether a rate can be meant.
func validRate(rate float64) bool { return rate >= 0 && !math.IsInf(rate, 0) }

func badRate(rate float64) error {
	return fmt.Errorf("--rate %v: want events per second above 0, or 0 for as fast as it goes", rate)
}

// home is where a cluster of up's lives.
type home struct {
	dir      *directory
	etcd     []string // endpoints
	store    *meta.Store
	listener net.Listener // the coordinator's
	letters  *deadletter.List
}

// job is what up is to learn.
type job struct {
	spec   *spec.Spec
	doc    []byte // as its author wrote it
	url    string // of the stream, if not the spec's
	secret []byte
	best   *best
	source stream.Source
	model  ps.Model
}

func (u *upSettings) run(ctx context.Context, t *terminal, specPath string) (err error) {
	if err := u.validate(); err != nil {
		return err
	}
	// The port first: it is the cheapest thing to be wrong.
	listener, err := listen(ctx, u.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	dir, err := openDirectory(u.dir)
	if err != nil {
		return err
	}
	began := false
	var keep []string
	defer func() {
		if !began {
			err = errors.Join(err, dir.undo())
			return
		}
		err = errors.Join(err, dir.end(keep...))
	}()
	j, err := u.prepare(ctx, t, specPath, dir)
	if err != nil {
		return err
	}
	defer j.source.Close()
	letters, closeLetters, err := openLetters(dir.file(lettersName))
	if err != nil {
		return err
	}
	defer closeLetters()

	etcdServer, err := etcd.Start(ctx, etcd.Config{Dir: dir.file(etcdName), Logger: t.logger})
	if err != nil {
		return err
	}
	defer etcdServer.Close()
	store, err := meta.Dial(ctx, meta.Config{Endpoints: etcdServer.Endpoints(), Logger: t.logger})
	if err != nil {
		return err
	}
	defer store.Close()
	began = true
	t.note("serving at %s (freshet status --coordinator %s)", listener.Addr(), listener.Addr())
	removed := ""
	if dir.temporary {
		removed = " (removed at the end)"
	}
	t.note("secret and dead letters are in %s%s", dir.path, removed)
	if !dir.temporary || u.killEvery > 0 {
		url, err := fileURL(dir.file(epochsName))
		if err != nil {
			return err
		}
		u.checkpoints.bucket = url
	}
	if u.goesOn = dir.goesOn; u.goesOn {
		t.note("going on from what an earlier up has left in %s", dir.path)
	} else {
		t.note("learning begins with an empty model")
	}
	report, err := u.cluster(ctx, t, j, &home{dir, etcdServer.Endpoints(), store, listener, letters})
	switch {
	case ctx.Err() != nil && u.untilEnd && report == nil:
		return ctx.Err() // cut short
	case ctx.Err() != nil && report == nil:
		t.endLine()
		if dir.temporary {
			t.note("interrupted: the model is gone")
		} else {
			t.note("interrupted: the same command goes on from here")
		}
		return nil
	case errors.Is(err, train.ErrTooManySkips):
		keep = []string{lettersName}
		return condition{fmt.Sprintf("%s; all are listed, without their text, in %s", plain(err), dir.file(lettersName)), err}
	case err != nil:
		keep = []string{membersName}
		return err
	}
	if report.Audit.Skipped > 0 {
		report.DeadLetters, keep = dir.file(lettersName), []string{lettersName}
	}
	if err := t.result(report, report.print); err != nil {
		return err
	}
	if !report.Audit.Clean() {
		keep = append(keep, membersName)
		if u.killEvery > 0 {
			t.note("the members' logs are in %s", dir.file(membersName))
		}
		return errNotClean
	}
	return nil
}

// cluster runs all members until the stream has been learned, if up is to end then,
// and returns the report; else until ctx ends.
func (u *upSettings) cluster(ctx context.Context, t *terminal, j *job, h *home) (*upReport, error) {
	// The members outlive an interruption, until the last epoch is taken.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, life := errgroup.WithContext(life)
	var gossip gossipSettings // members in one process die together
	if u.killEvery > 0 {
		gossip = localGossip("default")
	}
	g.Go(func() error {
		return runCoordinator(life, coordinatorSettings{
			store: h.store, name: "coordinator", listener: h.listener, advertise: h.listener.Addr().String(),
			shards: u.shards, nodesMin: u.nodes, workersMin: u.workers, standbys: u.standbys, moves: u.moves, checkpoints: u.checkpoints,
			gossip: gossip, metrics: u.metrics, logger: t.logger,
		})
	})
	start := u.startMembers
	if u.killEvery > 0 {
		start = u.startChildren
	}
	k, err := start(life, g, t, j, h)
	if err != nil {
		stop()
		return nil, errors.Join(err, g.Wait())
	}
	var report *upReport
	g.Go(func() error {
		defer stop()
		looking, cancel := context.WithCancel(life)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		var err error
		if report, err = u.follow(looking, t, j, h, k); err != nil {
			return err
		}
		return u.lastEpoch(life, t, h.listener.Addr().String(), j.model.Name)
	})
	err = g.Wait()
	if report != nil && errors.Is(err, context.Canceled) {
		err = nil // that is how the members end
	}
	if err == nil && k != nil {
		err = h.children().gatherLetters(h.letters, u.workers)
	}
	return report, err
}

// startMembers runs nodes and workers in this process; nobody kills them.
func (u *upSettings) startMembers(ctx context.Context, g *errgroup.Group, t *terminal, j *job, h *home) (*killer, error) {
	for i := range u.nodes {
		listener, err := listen(ctx, "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		g.Go(func() error {
			return runNode(ctx, nodeSettings{
				store: h.store, name: fmt.Sprintf("ps-%d", i), listener: listener, advertise: listener.Addr().String(), logger: t.logger,
			})
		})
	}
	g.Go(func() error {
		// Apply first, so that every worker finds the model when it starts.
		if err := j.apply(ctx, h.store); err != nil {
			return err
		}
		workers, ctx := errgroup.WithContext(ctx)
		for i := range u.workers {
			workers.Go(func() error {
				return runWorker(ctx, workerSettings{
					store: h.store, name: workerName(i), model: j.spec.Model, source: j.source,
					inFlight: u.inFlight, rate: u.rate, cache: u.cache, secret: j.secret, letters: h.letters, logger: t.logger,
				})
			})
		}
		return workers.Wait()
	})
	return nil, nil
}

// startChildren runs nodes and workers as processes of their own, and returns who
// kills them.
func (u *upSettings) startChildren(ctx context.Context, g *errgroup.Group, t *terminal, j *job, h *home) (*killer, error) {
	if err := os.MkdirAll(h.dir.file(membersName), 0o700); err != nil {
		return nil, err
	}
	children := h.children()
	t.note("the members' logs are in %s while it runs, and kept if something fails", h.dir.file(membersName))
	k := &killer{every: u.killEvery, begin: make(chan struct{})}
	for i := range u.nodes {
		node, err := children.node(ctx, fmt.Sprintf("ps-%d", i))
		if err != nil {
			return nil, err
		}
		k.nodes = append(k.nodes, node)
		g.Go(func() error { return node.run(ctx) })
	}
	for i := range u.workers {
		worker := children.worker(workerName(i), j.spec.Model, j.url, h.dir.file(secretName), u.inFlight, u.rate, u.cache)
		k.workers = append(k.workers, worker)
		g.Go(func() error { return worker.run(ctx) })
	}
	g.Go(func() error { return j.apply(ctx, h.store) })
	g.Go(func() error { return k.run(ctx) })
	return k, nil
}

// workerName returns the name of up's worker number i.
func workerName(i int) string { return fmt.Sprintf("worker-%d", i) }

// apply makes the job's model one of the cluster's.
func (j *job) apply(ctx context.Context, store *meta.Store) error {
	_, _, err := store.ApplyModel(ctx, coordinator.Model{Model: j.model, Spec: j.doc})
	return err
}

// children returns what children share.
func (h *home) children() childHome {
	return childHome{endpoints: h.etcd, file: func(name string) string { return filepath.Join(h.dir.file(membersName), name) }}
}

// lastEpochMax bounds the wait for the epoch that up ends with.
const lastEpochMax = 2 * time.Minute

// lastEpoch takes an epoch, if the directory stays, so that the next up goes on from here.
func (u *upSettings) lastEpoch(ctx context.Context, t *terminal, address, model string) error {
	if u.checkpoints.bucket == "" || u.dir == "" || ctx.Err() != nil {
		return nil
	}
	admin, err := dialAdmin(address)
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, lastEpochMax)
	defer cancel()
	for {
		taken, err := admin.TakeEpoch(ctx, model)
		if errors.Is(err, ps.ErrConflict) && ctx.Err() == nil {
			continue // an automatic one came in between
		}
		if errors.Is(err, ps.ErrNoOwner) {
			return nil // it has not begun to learn
		}
		if err != nil {
			return fmt.Errorf("the last epoch was not taken, so the next up begins from the one before: %w", err)
		}
		t.note("epoch %d holds the model after %s events", taken.Epoch, thousands(int64(taken.Events)))
		return nil
	}
}

// prepare makes the stream of an example, reads the spec and opens the stream.
func (u *upSettings) prepare(ctx context.Context, t *terminal, specPath string, dir *directory) (j *job, err error) {
	j = &job{url: u.stream}
	name := specPath
	if u.example != "" {
		name = "example " + u.example
		if j.doc, err = examples.Spec(u.example); err != nil {
			return nil, usageError{err}
		}
		if j.url, j.best, err = u.prepareExample(ctx, t, dir); err != nil {
			return nil, err
		}
	} else if j.doc, err = os.ReadFile(specPath); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	if j.spec, err = spec.Parse(name, j.doc); err != nil {
		return nil, err
	}
	if u.inFlight > 0 {
		j.spec.Training.InFlight = u.inFlight
	}
	if j.secret, err = makeSecret(dir.file(secretName)); err != nil {
		return nil, err
	}
	known, err := os.ReadFile(dir.file(streamName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if j.source, err = openStream(ctx, opening{
		spec: j.spec, url: j.url, columns: feature.Columns(j.spec), secret: j.secret, known: ps.StreamID(known), from: u.from, bounded: u.untilEnd,
		logger: t.logger,
	}); err != nil {
		return nil, err
	}
	// Where a topic's stream begins is worked out once: its log may begin elsewhere by now.
	if err := os.WriteFile(dir.file(streamName), []byte(j.source.Identity()), 0o600); err != nil {
		return nil, err
	}
	j.model = ps.Model{
		Name: j.spec.Model, Version: 1, Layout: j.spec.Layout(eval.Tables()),
		Stream: j.source.Identity(), Partitions: j.source.Partitions(),
	}
	return j, nil
}

// prepareExample writes an example's events and returns their URL.
func (u *upSettings) prepareExample(ctx context.Context, t *terminal, dir *directory) (url string, known *best, err error) {
	path := dir.file(u.example + ".csv")
	file, err := os.Create(path)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	switch u.example {
	case examples.ShopName:
		shop := examples.Shop{Events: u.events, Seed: u.seed}
		b, err := shop.Write(ctx, file, func(events int64) {
			t.progress("simulating the shop: %s of %s events", thousands(events), thousands(u.events))
		})
		if err != nil {
			return "", nil, err
		}
		known = &best{LogLoss: b.LogLoss, AUC: b.AUC}
	case examples.KuairandName:
		if u.data == "" {
			return "", nil, usageError{errors.New("example kuairand needs --data DIR, the folder with log.csv, users.csv and videos.csv (plain or .zst)")}
		}
		t.progress("joining log, users and videos in %s", u.data)
		out := bufio.NewWriterSize(file, 1<<20)
		if _, err := (examples.Kuairand{Dir: u.data}).Write(ctx, out); err != nil {
			return "", nil, err
		}
		if err := out.Flush(); err != nil {
			return "", nil, err
		}
	}
	url, err = fileURL(path)
	return url, known, err
}

// ends are the ends of a stream's partitions, as workers come upon them.
type ends struct {
	model ps.Model
	of    map[ps.Partition]ps.Offset
}

// look asks the store, as long as an end is not known, and reports whether all are.
func (e *ends) look(ctx context.Context, store *meta.Store) (known bool, err error) {
	if len(e.of) == e.model.Partitions {
		return true, nil
	}
	workers, err := store.Workers(ctx)
	if err != nil {
		return false, err
	}
	for _, w := range workers {
		for _, p := range w.Report.Partitions {
			if w.Model == e.model.Name && p.EndKnown {
				e.of[p.Partition] = p.End
			}
		}
	}
	return len(e.of) == e.model.Partitions, nil
}

// reached reports whether every shard has applied every partition to its end.
func (e *ends) reached(progress []ps.ShardProgress) bool {
	for p, r := range spread(progress) {
		end, known := e.of[ps.Partition(p)]
		if !known || r.From < end {
			return false
		}
	}
	return len(progress) > 0
}

// How often up looks at the cluster.
const (
	lookEvery = 50 * time.Millisecond
	showEvery = 500 * time.Millisecond
)

// follow shows progress until the stream has been learned, if up is to end then,
// and returns the report; else until ctx ends. k, if not nil, kills members meanwhile.
func (u *upSettings) follow(ctx context.Context, t *terminal, j *job, h *home, k *killer) (*upReport, error) {
	c, err := client.Dial(ctx, client.Config{Routes: h.store, Logger: t.logger})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	summary, err := newSummary(c, j.model, j.spec, u.shards)
	if err != nil {
		return nil, err
	}
	end := &ends{model: j.model, of: make(map[ps.Partition]ps.Offset)}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	start := time.Now()
	var shown time.Time
	var before, first int64
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, nil
		}
		now := time.Now()
		known := false
		if u.untilEnd {
			known, err = end.look(ctx, h.store)
		}
		if err == nil && !known && now.Sub(shown) < showEvery {
			continue
		}
		var progress []ps.ShardProgress
		if err == nil {
			progress, err = c.Applied(ctx, j.model.Name)
		}
		finished := err == nil && known && end.reached(progress)
		if err == nil && !finished && now.Sub(shown) < showEvery {
			continue
		}
		if finished && k != nil && k.stop() {
			continue // what the last kill has taken must be there again
		}
		if err == nil {
			err = summary.Update(ctx, spread(progress))
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if err != nil {
			t.logger.Warn("figures cannot be read", "error", err)
			shown, err = now, nil
			continue
		}
		learned := summary.Figures(eval.Progressive)
		replayed := summary.Figures(eval.Replayed)
		events := int64(learned.Events+replayed.Events) + skippedEvents(progress)
		if shown.IsZero() && u.goesOn {
			first = events
		}
		rate, lag := "-", int64(0)
		if !shown.IsZero() {
			rate = thousands(int64(float64(events-before) / now.Sub(shown).Seconds()))
		}
		if !finished {
			lag = max(0, j.source.Size()-events) // the size is an estimate until the end is read
		}
		before, shown = events, now
		r := learned.Report(j.spec.Loss == spec.Log)
		killed := ""
		if k != nil {
			if events > first {
				k.start()
			}
			killed = "  " + k.kills().String()
		}
		t.progress("%s events  %s/s  %s %s  AUC %s  lag %s%s", thousands(events), rate,
			lossName(j.spec), figure(loss(r)), figure(r.AUC), thousands(lag), killed)
		if finished {
			report, err := u.report(ctx, t, j, progress, summary, learning{events, events - first, now.Sub(start)})
			if err == nil && k != nil {
				killed := k.kills()
				report.Kills = &killed
			}
			return report, err
		}
	}
}

// learning is how many events the model has learned, how many of them this up has seen
// it learn, and how long that took.
type learning struct {
	events, here int64
	took         time.Duration
}

// report audits and sums up.
func (u *upSettings) report(ctx context.Context, t *terminal, j *job, progress []ps.ShardProgress, summary *eval.Summary, l learning) (*upReport, error) {
	audited, err := audit.Run(ctx, audit.Config{
		Spec: j.spec, Source: j.source, Progress: progress,
		Read: func(n int64) { t.progress("auditing: %s of %s events", thousands(n), thousands(l.events)) },
	})
	if err != nil {
		return nil, err
	}
	binary := j.spec.Loss == spec.Log
	learned, held, replayed := summary.Figures(eval.Progressive), summary.Figures(eval.HeldOut), summary.Figures(eval.Replayed)
	r := &upReport{
		Model: j.spec.Model, Events: l.events, Seconds: l.took.Seconds(), EventsPerSecond: float64(l.here) / l.took.Seconds(),
		Rate: u.rate, Nodes: u.nodes, Workers: u.workers, Shards: u.shards, Partitions: j.model.Partitions, InFlight: j.spec.Training.InFlight,
		Progressive: progressive{Report: learned.Report(binary), Replayed: uint64(replayed.Events)},
		Best:        j.best, Audit: audited, loss: lossName(j.spec),
	}
	heldOut := held.Report(binary)
	r.Holdout = &heldOut
	for _, shard := range progress {
		r.Rows += shard.Rows
	}
	return r, nil
}

// openLetters opens the list of dead letters in a file.
func openLetters(path string) (*deadletter.List, func(), error) {
	list, err := deadletter.Open(deadletter.Config{Path: path})
	if err != nil {
		return nil, nil, fmt.Errorf("dead letters: %w", err)
	}
	return list, func() { _ = list.Close() }, nil // every letter was one write
}
