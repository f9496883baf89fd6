package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
)

// pullRows returns a function that pulls rows of a model's tables.
func pullRows(c predict.Params, model ps.Model, shards int) eval.Pull {
	layout := model.Layout.Hash()
	var group ps.Group
	return func(ctx context.Context, table ps.TableID, keys []ps.Key) ([]byte, error) {
		group.Fill(keys, shards)
		width := model.Layout.Tables[table].RowBytes()
		reads := []ps.Read{{Table: table, RowBytes: width, Group: &group}}
		if err := c.Pull(ctx, model.Name, layout, reads); err != nil {
			return nil, err
		}
		values := make([]byte, len(keys)*width)
		for i, at := range group.Index {
			copy(values[i*width:(i+1)*width], reads[0].Values[int(at)*width:])
		}
		return values, nil
	}
}

// newSummary returns a summary of a model's figures, pulled from its shards.
func newSummary(c *client.Client, model ps.Model, s *spec.Spec, shards int) (*eval.Summary, error) {
	return eval.NewSummary(eval.SummaryConfig{
		Layout: model.Layout, Binary: s.Loss == spec.Log, Window: s.Evaluation.Window, Pull: pullRows(c, model, shards),
	})
}

// spread returns, for each partition, the lowest and the highest offset that shards
// have applied up to.
func spread(progress []ps.ShardProgress) []ps.Range {
	if len(progress) == 0 {
		return nil
	}
	ranges := make([]ps.Range, len(progress[0].Partitions))
	for s, shard := range progress {
		for p, at := range shard.Partitions {
			if s == 0 || at.Applied < ranges[p].From {
				ranges[p].From = at.Applied
			}
			ranges[p].To = max(ranges[p].To, at.Applied)
		}
	}
	return ranges
}

// skippedEvents returns how many unusable events the shards have skipped: every
// shard skips each, so the shard that is furthest knows.
func skippedEvents(progress []ps.ShardProgress) int64 {
	var total int64
	if len(progress) == 0 {
		return 0
	}
	for p := range progress[0].Partitions {
		var most uint64
		for _, shard := range progress {
			most = max(most, shard.Partitions[p].Skipped)
		}
		total += int64(most)
	}
	return total
}

// progressive is what a report says of the scores given before learning.
type progressive struct {
	eval.Report
	// Replayed counts events that were scored again after a crash by a model that
	// knew them; they are in none of the other figures.
	Replayed uint64 `json:"replayed"`
}

// best is the best that any model can do, where that is known.
type best struct {
	LogLoss float64 `json:"log_loss"`
	AUC     float64 `json:"auc"`
}

// upReport is the document of "up --until-end -o json". Keys may be added and do
// not change.
type upReport struct {
	Model           string       `json:"model"`
	Events          int64        `json:"events"`
	Seconds         float64      `json:"seconds"`
	EventsPerSecond float64      `json:"events_per_second"`
	Rate            float64      `json:"rate,omitempty"` // as asked for
	Nodes           int          `json:"nodes"`
	Workers         int          `json:"workers"`
	Shards          int          `json:"shards"`
	Partitions      int          `json:"partitions"`
	InFlight        int          `json:"in_flight"`
	Rows            uint64       `json:"rows"`
	Progressive     progressive  `json:"progressive"`
	Holdout         *eval.Report `json:"holdout"`
	Best            *best        `json:"best,omitempty"`
	Audit           audit.Report `json:"audit"`
	Kills           *kills       `json:"kills,omitempty"` // only if members were to be killed
	DeadLetters     string       `json:"dead_letters,omitempty"`

	loss string // its name
}

// figure prints a figure that may be undefined.
func figure(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *v)
}

// lossName names the loss that a spec learns by.
func lossName(s *spec.Spec) string {
	if s.Loss == spec.Log {
		return "log loss"
	}
	return "squared loss"
}

// loss returns the report's loss, whichever it is of.
func loss(r eval.Report) *float64 {
	if r.LogLoss != nil {
		return r.LogLoss
	}
	return r.SquaredLoss
}

// print writes the report for people.
func (r upReport) print(w io.Writer) {
	paced := ""
	if r.Rate > 0 {
		paced = fmt.Sprintf(" (at most %g)", r.Rate)
	}
	fmt.Fprintf(w, "\n%s: %s events in %.1f s, %s/s%s; %s rows\n%s, %s, %s, %s, %d events in flight\n\n",
		r.Model, thousands(r.Events), r.Seconds, thousands(int64(r.EventsPerSecond)), paced, thousands(int64(r.Rows)),
		count(r.Nodes, "node"), count(r.Workers, "worker"), count(r.Shards, "shard"), count(r.Partitions, "partition"), r.InFlight)
	if r.Events == 0 {
		fmt.Fprintf(w, "  The stream has no events: there was nothing to learn.\n\n")
	} else {
		r.printTable(w)
	}
	if r.Progressive.Replayed > 0 {
		fmt.Fprintf(w, "  %s events were scored again after a crash and are in none of these figures.\n", thousands(int64(r.Progressive.Replayed)))
	}
	if r.Kills != nil {
		r.Kills.print(w)
	}
	printAudit(w, r.Audit)
	if r.DeadLetters != "" {
		fmt.Fprintf(w, "skipped rows are listed, without their text, in\n  %s\n", r.DeadLetters)
	}
}

// printTable writes what was learned beside what could have been.
func (r upReport) printTable(w io.Writer) {
	fmt.Fprintf(w, "  %-22s %12s %8s %12s %12s\n", "", r.loss, "AUC", "calibration", "events")
	if r.Best != nil {
		fmt.Fprintf(w, "  %-22s %12.4f %8.4f %12s\n", "best possible", r.Best.LogLoss, r.Best.AUC, "1")
	}
	line := func(name string, f eval.Report) {
		fmt.Fprintf(w, "  %-22s %12s %8s %12s %12s\n", name, figure(loss(f)), figure(f.AUC), figure(f.Calibration), thousands(int64(f.Events)))
	}
	line("learned, while it came", r.Progressive.Report)
	if r.Holdout != nil && r.Holdout.Events > 0 {
		line("held out", *r.Holdout)
	}
	base, auc := r.Progressive.BaseLoss, "-"
	if r.Progressive.AUC != nil {
		auc = "0.5000"
	}
	fmt.Fprintf(w, "  %-22s %12s %8s %12s\n\n", "always the average", figure(base), auc, "1")
	if r.Best == nil || r.Progressive.LogLoss == nil || base == nil {
		return
	}
	if *r.Progressive.LogLoss > *base {
		fmt.Fprintf(w, "  The learner is worse than the average yet: it began with nothing.\n\n")
		return
	}
	closed := (*base - *r.Progressive.LogLoss) / (*base - r.Best.LogLoss)
	fmt.Fprintf(w, "  The learner went %.0f %% of the way from the average to the best possible, each\n  event scored before it was learned from, beginning with nothing.\n\n", 100*closed)
}

// count returns a number with what it counts: 1 node, 2 nodes.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// errNotClean: an audit found events that were lost or doubled.
var errNotClean = errors.New("the audit is not clean")

// printAudit writes an audit's result for people.
func printAudit(w io.Writer, a audit.Report) {
	verdict := "every event was applied exactly once"
	switch {
	case !a.Clean():
		verdict = "NOT every event was applied exactly once"
	case a.Events == 0:
		verdict = "no event has been applied yet"
	case a.Skipped > 0:
		verdict = "every event that can be used was applied exactly once"
	}
	fmt.Fprintf(w, "audit: %s\n  %d lost, %d doubled, %d skipped of %s events at %s × %s\n",
		verdict, a.Lost, a.Doubled, a.Skipped, thousands(a.Events), count(a.Shards, "shard"), count(a.Partitions, "partition"))
	for _, finding := range a.Findings {
		fmt.Fprintf(w, "  %s\n", finding)
	}
}
