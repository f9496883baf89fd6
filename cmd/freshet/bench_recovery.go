package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/audit"
)

// benchRecovery are the flags of "bench recovery".
type benchRecovery struct {
	kills        int
	bytes        int64
	standbyBytes int64
	standbys     int
	nodes        int
	workers      int
	shards       int
	rate         float64
	every        time.Duration
	pause        time.Duration
	dir          string
}

// recoveryReport is the document of "bench recovery -o json". Keys may be added and
// do not change.
type recoveryReport struct {
	// Kills is how many processes were killed.
	Kills   int              `json:"kills"`
	Standby *standbyRecovery `json:"standby,omitempty"`
	Epoch   *epochRecovery   `json:"epoch,omitempty"`
	Audit   audit.Report     `json:"audit"`
}

// standbyRecovery is how long it takes from a kill until every shard of the killed
// node has learned more.
type standbyRecovery struct {
	Kills int     `json:"kills"`
	P50   float64 `json:"p50_s"`
	P99   float64 `json:"p99_s"`
}

// epochRecovery is how long it takes after a kill of all nodes until all shards are
// served again, and from then on until they are where they were.
type epochRecovery struct {
	Kills      int     `json:"kills"`
	Bytes      int64   `json:"bytes"` // the smallest epoch that was restored
	RestoreP50 float64 `json:"restore_p50_s"`
	RestoreP99 float64 `json:"restore_p99_s"`
	ReplayP50  float64 `json:"replay_p50_s"`
	ReplayP99  float64 `json:"replay_p99_s"`
}

func newBenchRecovery(t *terminal) *cobra.Command {
	var b benchRecovery
	cmd := &cobra.Command{
		Use:   "recovery",
		Short: "Measure how long learning stands still when nodes are killed",
		Long: `Kills nodes with SIGKILL while workers learn, and measures twice:

standby  One of several nodes is killed, the one with the most shards, and comes
         back only when its standbys have taken over: from the kill until every
         shard that it had has learned more than when it was first seen again.
epoch    All nodes are killed at once and start again: from the kill until every
         shard is restored from the epoch and served, and then until every shard
         is where it was before the kill.

At the end of each the audit must be clean; exit code 1 if it is not.`,
		Example: `  freshet bench recovery -o json
  freshet bench recovery --kills 5 --bytes 100000000 --standbys 0`,
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
	flags.IntVar(&b.kills, "kills", 20, "times that a node, or all nodes, are killed, for each of the two")
	flags.Int64Var(&b.bytes, "bytes", 1_000_000_000, "bytes that the epoch has at least (0: leave the epoch out)")
	flags.Int64Var(&b.standbyBytes, "standby-bytes", 32_000_000, "bytes of the model that has standbys")
	flags.IntVar(&b.standbys, "standbys", 1, standbysUsage+" (0: leave standbys out)")
	flags.IntVar(&b.nodes, "nodes", 2, "parameter-server nodes")
	flags.IntVar(&b.workers, "workers", 2, "workers")
	flags.IntVar(&b.shards, "shards", 64, "shards, a power of two")
	flags.Float64Var(&b.rate, "rate", 2000, "events per second, of 16 keys each, that are learned meanwhile")
	flags.DurationVar(&b.every, "checkpoint-every", 5*time.Second, "time between epochs")
	flags.DurationVar(&b.pause, "pause", 3*time.Second, "time from recovery to the next kill, at least")
	flags.StringVar(&b.dir, "dir", "", "new or empty directory to work in, kept (default: a temporary one)")
	return cmd
}

func (b *benchRecovery) validate() error {
	switch {
	case b.kills < 1:
		return usageError{fmt.Errorf("--kills %d: want at least 1", b.kills)}
	case b.bytes < 0 || b.standbyBytes < 1:
		return usageError{fmt.Errorf("--bytes %d, --standby-bytes %d: want 0 or more and at least 1", b.bytes, b.standbyBytes)}
	case b.standbys < 0:
		return usageError{fmt.Errorf("--standbys %d: want at least 0", b.standbys)}
	case b.bytes == 0 && b.standbys == 0:
		return usageError{errors.New("--bytes 0 and --standbys 0 leave nothing to measure")}
	case b.nodes <= b.standbys:
		return usageError{fmt.Errorf("--nodes %d: want more than --standbys %d, each copy of a shard is on another", b.nodes, b.standbys)}
	case b.nodes < 1 || b.workers < 1:
		return usageError{fmt.Errorf("--nodes %d, --workers %d: want at least 1", b.nodes, b.workers)}
	case !validRate(b.rate) || b.rate < 1:
		return usageError{fmt.Errorf("--rate %v: want at least 1 event per second", b.rate)}
	case b.every <= 0 || b.pause < 0:
		return usageError{fmt.Errorf("--checkpoint-every %v, --pause %v: want above 0, and 0 or more", b.every, b.pause)}
	}
	if err := ps.ValidShards(b.shards); err != nil {
		return usageError{fmt.Errorf("--shards: %w", err)}
	}
	return nil
}

func (b *benchRecovery) run(ctx context.Context, t *terminal) (report recoveryReport, err error) {
	if err := b.validate(); err != nil {
		return report, err
	}
	dir, err := openDirectory(b.dir)
	if err != nil {
		return report, err
	}
	defer func() {
		var keep []string
		if err != nil || !report.Audit.Clean() {
			keep = []string{"standby", "epoch"}
			t.note("what is left, the members' logs among it, is in %s", dir.path)
		}
		err = errors.Join(err, dir.end(keep...))
	}()
	if b.standbys > 0 {
		report.Standby = &standbyRecovery{Kills: b.kills}
		c := b.cluster(t, dir.file("standby"), b.standbyBytes, b.pause+slowRound)
		c.standbys = b.standbys
		if err := c.run(ctx, func(ctx context.Context) error { return b.killStandbys(ctx, c, &report) }); err != nil {
			return report, err
		}
	}
	if b.bytes > 0 {
		report.Epoch = &epochRecovery{Kills: b.kills * b.nodes}
		c := b.cluster(t, dir.file("epoch"), b.bytes, b.pause+2*b.every+slowRound)
		if err := c.run(ctx, func(ctx context.Context) error { return b.killAll(ctx, c, &report) }); err != nil {
			return report, err
		}
	}
	return report, nil
}

// slowRound is how long a kill and the recovery from it may take, for which events are
// made ready.
const slowRound = 10 * time.Second

// cluster returns what a cluster is started with that learns for all rounds.
func (b *benchRecovery) cluster(t *terminal, dir string, bytes int64, round time.Duration) *recoveryCluster {
	load := b.rate * (time.Duration(b.kills)*round + slowRound).Seconds()
	return &recoveryCluster{
		terminal: t, dir: dir, nodes: b.nodes, workers: b.workers, shards: b.shards, rate: b.rate, every: b.every,
		keys: (bytes + recoveryRowBytes - 1) / recoveryRowBytes, load: int64(load),
	}
}

// killStandbys kills the node with the most shards, time and again.
func (b *benchRecovery) killStandbys(ctx context.Context, c *recoveryCluster, report *recoveryReport) error {
	var took []time.Duration
	for i := range b.kills {
		if err := c.ready(ctx, b.pause, 0); err != nil {
			return err
		}
		c.terminal.progress("standbys: kill %d of %d", i+1, b.kills)
		victim, shards, err := c.fullest(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		if !victim.kill() {
			return fmt.Errorf("%s was not there to be killed; its log is %s", victim.name, victim.log)
		}
		back, err := c.sample(ctx)
		if err != nil {
			return err
		}
		if err := c.until(ctx, func(now []ps.ShardProgress) bool {
			return !slices.ContainsFunc(shards, func(s ps.ShardID) bool { return learned(now[s]) <= learned(back[s]) })
		}); err != nil {
			return err
		}
		took = append(took, time.Since(start))
		c.terminal.logger.Info("taken over", "from", victim.name, "shards", len(shards), "after", took[i])
		if err := victim.restart(ctx); err != nil {
			return err
		}
	}
	report.Kills += len(took)
	report.Standby.P50, report.Standby.P99 = quantile(took, 0.5), quantile(took, 0.99)
	return c.audit(ctx, &report.Audit)
}

// killAll kills all nodes at once, time and again.
func (b *benchRecovery) killAll(ctx context.Context, c *recoveryCluster, report *recoveryReport) error {
	var restores, replays []time.Duration
	for i := range b.kills {
		epochs := ps.Epoch(1)
		if i == 0 {
			epochs = 2 // the first began when the model did not have its size
		}
		if err := c.ready(ctx, b.pause, epochs); err != nil {
			return err
		}
		// From right after an epoch to right before the next: what is replayed differs.
		if err := rest(ctx, b.every*time.Duration(i+1)/time.Duration(b.kills)); err != nil {
			return err
		}
		bytes, err := c.epochBytes(ctx)
		if err != nil {
			return err
		}
		if i == 0 || bytes < report.Epoch.Bytes {
			report.Epoch.Bytes = bytes
		}
		c.terminal.progress("epoch of %s bytes: kill %d of %d", thousands(bytes), i+1, b.kills)
		before, err := c.sample(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		for _, n := range c.children {
			if !n.kill() {
				return fmt.Errorf("%s was not there to be killed; its log is %s", n.name, n.log)
			}
		}
		for _, n := range c.children {
			if err := n.restart(ctx); err != nil {
				return err
			}
		}
		if _, err := c.sample(ctx); err != nil {
			return err
		}
		restored := time.Now()
		if err := c.until(ctx, func(now []ps.ShardProgress) bool { return allReached(now, before) }); err != nil {
			return err
		}
		restores, replays = append(restores, restored.Sub(start)), append(replays, time.Since(restored))
		c.terminal.logger.Info("recovered", "restored after", restores[i], "replayed after", replays[i])
	}
	report.Kills += b.kills * b.nodes
	report.Epoch.RestoreP50, report.Epoch.RestoreP99 = quantile(restores, 0.5), quantile(restores, 0.99)
	report.Epoch.ReplayP50, report.Epoch.ReplayP99 = quantile(replays, 0.5), quantile(replays, 0.99)
	return c.audit(ctx, &report.Audit)
}

// learned returns how many events a shard has behind it.
func learned(s ps.ShardProgress) (events ps.Offset) {
	for _, p := range s.Partitions {
		events += p.Applied
	}
	return events
}

// allReached reports whether every shard has got as far as before in every partition.
func allReached(now, before []ps.ShardProgress) bool {
	for s, shard := range before {
		for p, at := range shard.Partitions {
			if now[s].Partitions[p].Applied < at.Applied {
				return false
			}
		}
	}
	return true
}

// quantile returns the smallest time that a share of the times does not exceed, in
// seconds: of few times, the 99th percentile is the longest.
func quantile(times []time.Duration, share float64) float64 {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)].Seconds()
}

// print writes the report for people.
func (r recoveryReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s killed with SIGKILL while workers learned\n", count(r.Kills, "node"))
	if s := r.Standby; s != nil {
		fmt.Fprintf(w, "  standby  learning goes on   p50 %6.2f s   p99 %6.2f s\n", s.P50, s.P99)
	}
	if e := r.Epoch; e != nil {
		fmt.Fprintf(w, "  epoch    restored           p50 %6.2f s   p99 %6.2f s   at least %s bytes\n", e.RestoreP50, e.RestoreP99, thousands(e.Bytes))
		fmt.Fprintf(w, "           then replayed      p50 %6.2f s   p99 %6.2f s\n", e.ReplayP50, e.ReplayP99)
	}
	printAudit(w, r.Audit)
}
