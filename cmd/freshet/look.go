package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

func newShards(t *terminal) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:     "shards",
		Short:   "Show who owns each shard, where it moves and what it holds",
		Example: "  freshet shards --coordinator 127.0.0.1:7400 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := ask(cmd.Context(), address, adminMax, func(ctx context.Context, a *admin) (coordinator.ShardList, error) { return a.Shards(ctx) })
			if err != nil {
				return err
			}
			return t.result(list, func(w io.Writer) {
				fmt.Fprintf(w, "%5s %-26s %6s %12s %10s %12s %12s  %s\n", "shard", "owner", "fence", "rows", "MB", "pulled", "pushed", "standbys, target")
				for _, s := range list.Shards {
					beside := names(s.Standbys)
					if s.Target != "" {
						beside = strings.TrimSpace(beside + " -> " + string(s.Target))
					}
					fmt.Fprintf(w, "%5d %-26s %6d %12s %10.1f %12s %12s  %s\n", s.Shard, cmp.Or(string(s.Owner), "-"), s.Fence,
						thousands(int64(s.Rows)), float64(s.Bytes)/1e6, thousands(int64(s.KeysPulled)), thousands(int64(s.KeysPushed)), beside)
				}
				if len(list.Silent) > 0 {
					fmt.Fprintf(w, "these nodes have not told what they hold: %s\n", names(list.Silent))
				}
			})
		},
	}
	addCoordinatorFlag(cmd, &address)
	return cmd
}

func names(ids []ps.NodeID) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = string(id)
	}
	return strings.Join(list, " ")
}

func newPartitions(t *terminal) *cobra.Command {
	var address, model string
	cmd := &cobra.Command{
		Use:     "partitions",
		Short:   "Show how far each partition is, and who reads it",
		Example: "  freshet partitions --model shop --coordinator 127.0.0.1:7400",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := ask(cmd.Context(), address, adminMax, func(ctx context.Context, a *admin) (coordinator.ModelStatus, error) {
				s, err := a.Status(ctx)
				if err != nil {
					return coordinator.ModelStatus{}, err
				}
				return modelIn(s, model)
			})
			if err != nil {
				return err
			}
			return t.result(m.Partitions, func(w io.Writer) { printPartitions(w, m) })
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model (default: the only one there is)")
	return cmd
}

// modelIn returns a model of a status; an empty name means the only one.
func modelIn(s coordinator.Status, name string) (coordinator.ModelStatus, error) {
	var all []string
	for _, m := range s.Models {
		if m.Name == name || name == "" && len(s.Models) == 1 {
			return m, nil
		}
		all = append(all, m.Name)
	}
	if name == "" && len(all) > 1 {
		return coordinator.ModelStatus{}, fmt.Errorf("say which model with --model: there are %s: %w", strings.Join(all, ", "), ps.ErrInvalid)
	}
	return coordinator.ModelStatus{}, fmt.Errorf("model %q is not among %q: %w", name, all, ps.ErrUnknownModel)
}

// printPartitions writes the partitions of a model for people.
func printPartitions(w io.Writer, m coordinator.ModelStatus) {
	if m.ProgressError != "" {
		fmt.Fprintf(w, "  how far it is cannot be read: %s\n", m.ProgressError)
		return
	}
	fmt.Fprintf(w, "  %9s %11s %11s %11s %8s  %s\n", "partition", "applied", "end", "lag", "skipped", "worker")
	for _, p := range m.Partitions {
		end, lag := "-", "-"
		if events, known := p.Lag(); known {
			end, lag = thousands(int64(max(p.End, p.Newest))), thousands(int64(events))
		}
		fmt.Fprintf(w, "  %9d %11s %11s %11s %8d  %s\n", p.Partition, thousands(int64(p.Applied)), end, lag, p.Skipped, cmp.Or(p.Worker, "-"))
	}
}

func newWorkers(t *terminal) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:     "workers",
		Short:   "Show workers, the partitions they read and what they can do",
		Example: "  freshet workers --coordinator 127.0.0.1:7400 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := ask(cmd.Context(), address, adminMax, func(ctx context.Context, a *admin) (coordinator.Status, error) { return a.Status(ctx) })
			if err != nil {
				return err
			}
			return t.result(s.Workers, func(w io.Writer) { printWorkers(w, s) })
		},
	}
	addCoordinatorFlag(cmd, &address)
	return cmd
}

// printWorkers writes workers for people.
func printWorkers(w io.Writer, s coordinator.Status) {
	if len(s.Workers) == 0 {
		fmt.Fprintln(w, "  no workers that have a model (freshet worker)")
		return
	}
	fmt.Fprintf(w, "  %-26s %-16s %12s %16s  %s\n", "worker", "model", "events", "events per busy s", "partitions")
	for _, worker := range s.Workers {
		rate := "-"
		if worker.BusySeconds > 0 {
			rate = thousands(int64(float64(worker.Events) / worker.BusySeconds))
		}
		partitions := fmt.Sprint(worker.Partitions)
		if len(worker.Partitions) == 0 {
			partitions = "none: there are more workers than partitions"
		}
		fmt.Fprintf(w, "  %-26s %-16s %12s %16s  %s\n", worker.ID, worker.Model, thousands(int64(worker.Events)), rate, partitions)
	}
}

func newEvents(t *terminal) *cobra.Command {
	var address string
	var most int
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what has changed in the cluster, why, and by whom",
		Long: `Every change of who owns a shard or reads a partition is recorded with it; who
came and went, models and drains beside it. The newest 10,000 are kept.`,
		Example: `  freshet events --most 20
  freshet events --follow --coordinator 127.0.0.1:7400`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 1 || most > coordinator.EventsMax {
				return usageError{fmt.Errorf("--most %d: want 1 to %d", most, coordinator.EventsMax)}
			}
			ctx := cmd.Context()
			a, err := dialAdmin(address)
			if err != nil {
				return err
			}
			defer a.Close()
			read := func(most int) ([]coordinator.Event, error) {
				return within(ctx, address, func(ctx context.Context) ([]coordinator.Event, error) { return a.Events(ctx, most) })
			}
			events, err := read(most)
			if err != nil {
				return err
			}
			if err := t.result(events, func(w io.Writer) { printEvents(w, events) }); err != nil || !follow {
				return err
			}
			for {
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil
				}
				newer, err := read(coordinator.EventsMax)
				if err != nil {
					return err
				}
				fresh := after(newer, events)
				if len(fresh) == 0 {
					continue
				}
				events = newer
				if err := t.result(fresh, func(w io.Writer) { printEvents(w, fresh) }); err != nil {
					return err
				}
			}
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().IntVar(&most, "most", 100, "how many of the newest events to show")
	cmd.Flags().BoolVar(&follow, "follow", false, "go on with new ones until interrupted")
	return cmd
}

// after returns the events that were recorded after the last of those known.
func after(events, known []coordinator.Event) []coordinator.Event {
	if len(known) == 0 {
		return events
	}
	for i := len(events) - 1; i >= 0; i-- {
		if events[i] == known[len(known)-1] {
			return events[i+1:]
		}
	}
	return events
}

func printEvents(w io.Writer, events []coordinator.Event) {
	for _, e := range events {
		why := ""
		if e.Why != "" {
			why = " because " + e.Why
		}
		fmt.Fprintf(w, "%s  %-10s %s%s (%s)\n", time.UnixMilli(e.At).Format("2006-01-02 15:04:05.000"), e.Kind, e.What, why, e.By)
	}
}

func newTop(t *terminal) *cobra.Command {
	var address string
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show the cluster live: rates, lag, shards on the move",
		Long: `Draws the cluster again and again until it is interrupted. Where the output is
no terminal it is written once, after one interval.`,
		Example: "  freshet top --every 2s --coordinator 127.0.0.1:7400",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usageError{fmt.Errorf("--every %v: want at least 100ms", every)}
			}
			ctx := cmd.Context()
			a, err := dialAdmin(address)
			if err != nil {
				return err
			}
			defer a.Close()
			before, err := within(ctx, address, a.look)
			if err != nil {
				return err
			}
			for {
				select {
				case <-time.After(every):
				case <-ctx.Done():
					return nil
				}
				now, err := within(ctx, address, a.look)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				top := topOf(before, now)
				before = now
				if !t.live() {
					return t.result(top, func(w io.Writer) { printTop(w, top) })
				}
				var page strings.Builder
				printTop(&page, top)
				t.redraw(page.String())
			}
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().DurationVar(&every, "every", time.Second, "time between two looks; rates are over it")
	return cmd
}

// look is a cluster at one moment.
type look struct {
	at     time.Time
	status coordinator.Status
	shards coordinator.ShardList
	events []coordinator.Event
}

// look looks at the cluster.
func (a *admin) look(ctx context.Context) (l look, err error) {
	l.at = time.Now()
	if l.status, err = a.Status(ctx); err != nil {
		return l, err
	}
	if l.shards, err = a.Shards(ctx); err != nil {
		return l, err
	}
	l.events, err = a.Events(ctx, topEvents)
	return l, err
}

// topEvents is how many events top shows.
const topEvents = 8

// top is what top shows: rates are per second, between two looks.
type top struct {
	Cluster string              `json:"cluster"`
	Shards  int                 `json:"shards"`
	Lost    int                 `json:"shards_without_owner"`
	Nodes   []topNode           `json:"nodes"`
	Models  []topModel          `json:"models"`
	Moving  []coordinator.Move  `json:"moving"`
	Events  []coordinator.Event `json:"events"`
	workers coordinator.Status
}

type topNode struct {
	ID         ps.NodeID `json:"id"`
	Zone       string    `json:"zone"`
	Draining   bool      `json:"draining"`
	Shards     int       `json:"shards"`
	Copies     int       `json:"copies"`
	Arriving   int       `json:"arriving"`
	Rows       uint64    `json:"rows"`
	Bytes      uint64    `json:"bytes"`
	KeysPulled float64   `json:"keys_pulled_per_second"`
	KeysPushed float64   `json:"keys_pushed_per_second"`
}

type topModel struct {
	Name    string  `json:"name"`
	Rows    uint64  `json:"rows"`
	Events  float64 `json:"events_per_second"`
	Lag     int64   `json:"lag"` // -1 where an end is not known
	Workers int     `json:"workers"`
	Error   string  `json:"progress_error,omitempty"`
}

// topOf works out what top shows.
func topOf(before, now look) top {
	seconds := now.at.Sub(before.at).Seconds()
	t := top{
		Cluster: now.status.Cluster, Shards: now.status.Shards, Lost: now.status.ShardsWithoutOwner,
		Nodes: []topNode{}, Models: []topModel{}, Moving: []coordinator.Move{}, Events: now.events, workers: now.status,
	}
	at := make(map[ps.NodeID]int)
	for _, n := range now.status.Nodes {
		at[n.ID] = len(t.Nodes)
		t.Nodes = append(t.Nodes, topNode{ID: n.ID, Zone: n.Zone, Draining: n.Draining, Shards: n.Shards, Copies: n.Copies, Arriving: n.Arriving})
	}
	for i, s := range now.shards.Shards {
		if s.Target != "" {
			t.Moving = append(t.Moving, coordinator.Move{Shard: s.Shard, From: s.Owner, To: s.Target})
		}
		node, known := at[s.Owner]
		if !known {
			continue
		}
		n := &t.Nodes[node]
		n.Rows, n.Bytes = n.Rows+s.Rows, n.Bytes+s.Bytes
		var was coordinator.ShardStatus // of a shard that has come since, all was counted since
		if i < len(before.shards.Shards) && before.shards.Shards[i].Fence == s.Fence {
			was = before.shards.Shards[i]
		}
		n.KeysPulled += float64(s.KeysPulled-min(was.KeysPulled, s.KeysPulled)) / seconds
		n.KeysPushed += float64(s.KeysPushed-min(was.KeysPushed, s.KeysPushed)) / seconds
	}
	for _, m := range now.status.Models {
		shown := topModel{Name: m.Name, Rows: m.Rows, Error: m.ProgressError}
		was, err := modelIn(before.status, m.Name)
		for i, p := range m.Partitions {
			if err == nil && i < len(was.Partitions) && m.ProgressError == "" && was.ProgressError == "" {
				shown.Events += (float64(p.Applied) - float64(was.Partitions[i].Applied)) / seconds
			}
			switch events, known := p.Lag(); {
			case !known:
				shown.Lag = -1
			case shown.Lag >= 0:
				shown.Lag += int64(events)
			}
		}
		shown.Workers = countOf(now.status.Workers, func(w coordinator.WorkerStatus) bool { return w.Model == m.Name })
		t.Models = append(t.Models, shown)
	}
	return t
}

func printTop(w io.Writer, t top) {
	fmt.Fprintf(w, "cluster %s: %d shards, %d without an owner, %d on the move\n\n", t.Cluster, t.Shards, t.Lost, len(t.Moving))
	fmt.Fprintf(w, "  %-26s %-8s %6s %7s %8s %12s %8s %12s %12s\n", "node", "zone", "shards", "copies", "arriving", "rows", "MB", "pulled/s", "pushed/s")
	for _, n := range t.Nodes {
		note := ""
		if n.Draining {
			note = "  draining"
		}
		fmt.Fprintf(w, "  %-26s %-8s %6d %7d %8d %12s %8.1f %12s %12s%s\n", n.ID, cmp.Or(n.Zone, "-"), n.Shards, n.Copies, n.Arriving,
			thousands(int64(n.Rows)), float64(n.Bytes)/1e6, thousands(int64(n.KeysPulled)), thousands(int64(n.KeysPushed)), note)
	}
	fmt.Fprintf(w, "\n  %-26s %12s %12s %12s %8s\n", "model", "rows", "events/s", "lag", "workers")
	for _, m := range t.Models {
		lag := "-"
		if m.Lag >= 0 && m.Error == "" {
			lag = thousands(m.Lag)
		}
		fmt.Fprintf(w, "  %-26s %12s %12s %12s %8d  %s\n", m.Name, thousands(int64(m.Rows)), thousands(int64(m.Events)), lag, m.Workers, m.Error)
	}
	fmt.Fprintln(w)
	printWorkers(w, t.workers)
	fmt.Fprintln(w)
	printEvents(w, t.Events)
}
