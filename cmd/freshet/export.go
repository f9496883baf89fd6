package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/export"
	"github.com/freshet-ml/freshet/worker/spec"
)

// exportFlags are what "export" is told.
type exportFlags struct {
	coordinator, model string
	epoch              uint64
	format, encoding   string
	tables             []string
	prune              float64
	out                string
	events, secretFile string
	limit              int64
}

func newExport(t *terminal) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export --out DIR",
		Short: "Write an epoch's weights as safetensors, NumPy or JSON Lines",
		Long: `Reads a checkpoint epoch and writes the rows of its tables of weights, without
optimizer state, to files in a new directory. Nodes are not asked; this process
must reach the bucket. Formats:

safetensors  weights.safetensors with the tensors TABLE.keys (U64, one for each
             row) and TABLE.weights (rows, width)
npy          the same, each in a file for numpy.load; bfloat16 as uint16
jsonl        TABLE.jsonl, lines {"key":"17","weights":[0.5,-1]}

--encoding makes rows of float32 smaller; int8 adds TABLE.scales, by which a
row's numbers are multiplied. --prune-below leaves out rows whose Euclidean norm
is below it, but none of a network's layers: what is not there then counts as
zeros. A row that was never learned is not there either.

With --events, events with labels are scored by the epoch's weights and by those
that were written, and both AUCs are reported.

export.json describes the files. It is written last.`,
		Example: `  freshet export --out weights
  freshet export --epoch 12 --format npy --encoding int8 --prune-below 0.01 \
      --tables linear,factors --out weights-12

  # What int8 costs in AUC:
  freshet export --encoding int8 --out weights-int8 --secret-file dir/secret \
      --events file:///data/yesterday.csv --limit 100000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := exportEpoch(cmd.Context(), t, f)
			if err != nil {
				return err
			}
			return t.result(r, func(w io.Writer) { r.print(w, f.out) })
		},
	}
	addCoordinatorFlag(cmd, &f.coordinator)
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "model to export (default: the only one there is)")
	flags.Uint64Var(&f.epoch, "epoch", 0, "the epoch to read (default: the newest)")
	flags.StringVar(&f.format, "format", string(export.Safetensors), "safetensors, npy or jsonl")
	flags.StringVar(&f.encoding, "encoding", ps.Plain.String(), "plain, float16, bfloat16 or int8")
	flags.StringSliceVar(&f.tables, "tables", nil, "tables to write, of any kind (default: all with weights)")
	flags.Float64Var(&f.prune, "prune-below", 0, "leave out rows with a smaller norm (0: none)")
	flags.StringVar(&f.out, "out", "", "directory to write to, new or empty")
	flags.StringVar(&f.events, "events", "", "events to compare scores on: file:///path/to/events.csv[.zst]")
	flags.StringVar(&f.secretFile, "secret-file", "", "file with the secret that masks the events' identifiers")
	flags.Int64Var(&f.limit, "limit", 0, "score this many events only (0: all)")
	return cmd
}

// exportReport is the document of "export". Keys may be added and do not change.
type exportReport struct {
	export.Description
	Evaluation *evaluation `json:"evaluation,omitempty"` // only if there were events
}

// exportEpoch writes an epoch's files.
func exportEpoch(ctx context.Context, t *terminal, f exportFlags) (r exportReport, err error) {
	if f.limit < 0 {
		return r, usageError{fmt.Errorf("--limit %d: want 0, for all, or more", f.limit)}
	}
	if f.out == "" {
		return r, usageError{errors.New("give the directory to write to with --out")}
	}
	format, err := export.ParseFormat(f.format)
	if err != nil {
		return r, usageError{fmt.Errorf("--format: %w", err)}
	}
	encoding, err := ps.ParseEncoding(f.encoding)
	if err != nil {
		return r, usageError{fmt.Errorf("--encoding: %w", err)}
	}
	list, err := listEpochs(ctx, f.coordinator, f.model)
	if err != nil {
		return r, err
	}
	epoch, err := chosenEpoch(list, ps.Epoch(f.epoch))
	if err != nil {
		return r, err
	}
	model, err := ask(ctx, f.coordinator, adminMax, func(ctx context.Context, a *admin) (coordinator.Model, error) {
		return a.Model(ctx, list.Model)
	})
	if err != nil {
		return r, err
	}
	s, err := spec.Parse("spec of model "+model.Name, model.Spec)
	if err != nil {
		return r, err
	}
	tables, err := chosenTables(model.Model, f.tables, true)
	if err != nil {
		return r, err
	}
	bucket, err := checkpoint.OpenBucket(ctx, list.Bucket)
	if err != nil {
		return r, err
	}
	defer bucket.Close()
	manifest, err := checkpoint.ReadManifest(ctx, bucket, epoch.Manifest)
	if err != nil {
		return r, err
	}
	config := export.Config{
		Bucket: bucket, Manifest: manifest, Model: model.Model, Tables: tables, Format: format, Encoding: encoding,
		PruneBelow: f.prune, Layers: layersOf(s, model.Layout), Dir: f.out,
		Progress: func(n int) { t.progress("epoch %d: %d of %d shards written", epoch.Epoch, n, len(manifest.Shards)) },
	}
	if f.events == "" {
		r.Description, err = export.Run(ctx, config)
		return r, err
	}
	e, err := newEvaluator(ctx, t, model, s, f)
	if err != nil {
		return r, err
	}
	defer e.source.Close()
	config.Seen = e.rows.seen
	if r.Description, err = export.Run(ctx, config); err != nil {
		return r, err
	}
	r.Evaluation, err = e.evaluate(ctx)
	return r, err
}

// chosenEpoch returns the epoch of the given number, or the newest if it is 0.
func chosenEpoch(list coordinator.EpochList, number ps.Epoch) (coordinator.EpochStatus, error) {
	for _, e := range list.Epochs {
		if number == 0 || e.Epoch == number {
			return e, nil
		}
	}
	if number == 0 {
		return coordinator.EpochStatus{}, usageError{fmt.Errorf("model %s has no epoch yet (freshet checkpoint takes one)", list.Model)}
	}
	return coordinator.EpochStatus{}, usageError{fmt.Errorf("model %s keeps no epoch %d (see freshet epochs)", list.Model, number)}
}

// layersOf returns the keys of the rows of a network's layers, in order, by table.
func layersOf(s *spec.Spec, layout ps.Layout) map[ps.TableID][]ps.Key {
	layers := make(map[ps.TableID][]ps.Key)
	for _, dense := range s.Dense() {
		id, _, ok := layout.Table(dense.Table.Name)
		if !ok {
			continue // the layout is of another version of the spec
		}
		for row := range dense.Rows {
			layers[id] = append(layers[id], dense.Key(row))
		}
	}
	return layers
}

// print writes the report for people.
func (r exportReport) print(w io.Writer, dir string) {
	fmt.Fprintf(w, "epoch %d of %s, in %s\n", r.Epoch, r.Model, dir)
	for _, table := range r.Tables {
		fmt.Fprintf(w, "  %-12s %14s rows × %d as %s", table.Name, thousands(table.Rows), table.Width, table.Encoding)
		if r.PruneBelow > 0 {
			fmt.Fprintf(w, ", %s pruned", thousands(table.Pruned))
		}
		fmt.Fprintln(w)
	}
	share := ""
	if r.BytesBefore > 0 {
		share = fmt.Sprintf(" (%.1f %%)", 100*float64(r.BytesAfter)/float64(r.BytesBefore))
	}
	fmt.Fprintf(w, "%s bytes of keys and weights are %s bytes in %s%s\n",
		thousands(r.BytesBefore), thousands(r.BytesAfter), count(len(r.Files), "file"), share)
	if e := r.Evaluation; e != nil {
		fmt.Fprintf(w, "%s events scored with what was written and with the epoch:\n  AUC %s, was %s", thousands(int64(e.Before.Events)), figure(e.After.AUC), figure(e.Before.AUC))
		if e.AUCChange != nil {
			fmt.Fprintf(w, " (%+.6f)", *e.AUCChange)
		}
		fmt.Fprintf(w, "; log loss %s, was %s\n", figure(e.After.LogLoss), figure(e.Before.LogLoss))
	}
}
