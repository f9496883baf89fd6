package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/graft"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
	"github.com/freshet-ml/freshet/worker/stream/mask"
	"github.com/freshet-ml/freshet/worker/vectors"
)

// importFlags are what "import" is told.
type importFlags struct {
	coordinator, model string
	feature, table     string
	source             vectors.Source
	secretFile         string
	fresh, dryRun      bool
}

func newImport(t *terminal) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import --feature NAME",
		Short: "Give a model rows that were learned elsewhere",
		Long: `Reads identifiers and vectors and makes them rows of a model's table: those of
the feature's values that the identifiers are. Rows that are there are replaced;
they keep their optimizer state unless --reset-state is given. The input:

--from F.npz             the arrays --ids and --vectors (default ids, vectors)
--from F.parquet         the columns of these names; vectors are lists of float
--ids A.npy --vectors B.npy   two files of NumPy; n identifiers and (n, width)

An identifier is a text as the stream has it, or an integer, which counts as its
decimal digits. Where the stream masks identifiers, these are masked, too.

Rows come into a running cluster as "freshet rollback" takes it back: an epoch
is taken, the rows are put into a copy of it, and with that a new lineage
begins. Workers learn again what came meanwhile; no event is lost or doubled.
The whole input is checked, and held in memory, before anything is written. This
process must reach the bucket.`,
		Example: `  freshet import --feature item --from vectors.npz
  freshet import --feature item --from vectors.parquet --ids sku --vectors emb
  freshet import --feature user --ids users.npy --vectors vectors.npy \
      --secret-file dir/secret --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := importVectors(cmd.Context(), t, f)
			if err != nil {
				return err
			}
			return t.result(r, r.print)
		},
	}
	addCoordinatorFlag(cmd, &f.coordinator)
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "model that gets the rows (default: the only one there is)")
	flags.StringVar(&f.feature, "feature", "", "feature whose values the identifiers are")
	flags.StringVar(&f.table, "table", "", "factors or linear (default: factors, if the model has them)")
	flags.StringVar(&f.source.From, "from", "", ".npz or Parquet file with identifiers and vectors")
	flags.StringVar(&f.source.IDs, "ids", "", "array or column of the identifiers, or their .npy file")
	flags.StringVar(&f.source.Vectors, "vectors", "", "array or column of the vectors, or their .npy file")
	flags.StringVar(&f.secretFile, "secret-file", "", "file with the secret that masks identifiers")
	flags.BoolVar(&f.fresh, "reset-state", false, "give replaced rows the optimizer state of new ones")
	flags.BoolVar(&f.dryRun, "dry-run", false, "check and count, and write nothing")
	return cmd
}

// importReport is the document of "import". Keys may be added and do not change.
type importReport struct {
	Model   string `json:"model"`
	Feature string `json:"feature"`
	Table   string `json:"table"`
	// Rows are Born, not there before, and Replaced.
	Rows     int64 `json:"rows"`
	Born     int64 `json:"born"`
	Replaced int64 `json:"replaced"`
	// Epoch is the one that has the rows, the first of Lineage; after a dry run the one
	// they were compared with.
	Epoch   ps.Epoch `json:"epoch"`
	Lineage uint64   `json:"lineage"`
	// Bytes were written, in a file for each of Shards.
	Bytes   int64   `json:"bytes"`
	Shards  int     `json:"shards"`
	Seconds float64 `json:"seconds"`
	DryRun  bool    `json:"dry_run"`
}

// print writes the report for people.
func (r importReport) print(w io.Writer) {
	what := "rows"
	if r.Rows == 1 {
		what = "row"
	}
	fmt.Fprintf(w, "%s %s of %s for feature %s of model %s: %s new, %s replaced\n",
		thousands(r.Rows), what, r.Table, r.Feature, r.Model, thousands(r.Born), thousands(r.Replaced))
	if r.DryRun {
		fmt.Fprintln(w, "nothing was written")
		return
	}
	fmt.Fprintf(w, "epoch %d, with which lineage %d begins; %s bytes written in %s\n", r.Epoch, r.Lineage, thousands(r.Bytes), count(r.Shards, "file"))
}

// importAttempts is how often an import begins again because an epoch that it was made of
// was not kept until it was done, or owners changed; importPause is between them.
const (
	importAttempts = 5
	importPause    = time.Second
)

// importVectors reads the input whole and makes an epoch of it.
func importVectors(ctx context.Context, t *terminal, f importFlags) (r importReport, err error) {
	start := time.Now()
	model, err := ask(ctx, f.coordinator, adminMax, func(ctx context.Context, a *admin) (coordinator.Model, error) {
		return a.Model(ctx, f.model)
	})
	if err != nil {
		return r, err
	}
	rows, err := readVectors(ctx, t, model, f)
	if err != nil {
		return r, err
	}
	r = importReport{
		Model: model.Name, Feature: f.feature, Table: model.Layout.Tables[rows.Table].Name, Rows: int64(len(rows.Keys)), DryRun: f.dryRun,
	}
	for attempt := 1; ; attempt++ {
		epochs, err := epochToImport(ctx, t, model.Name, f)
		if err != nil {
			return r, err
		}
		err = graftRows(ctx, t, model.Model, rows, epochs, f, &r)
		r.Seconds = time.Since(start).Seconds()
		if err == nil || !errors.Is(err, ps.ErrConflict) {
			return r, err
		}
		if attempt == importAttempts {
			return r, fmt.Errorf("something came in between each of %d attempts; if an import takes longer than an epoch is kept, raise --checkpoint-keep: %w", attempt, err)
		}
		t.logger.Info("the import begins again", "because", err)
		select {
		case <-time.After(importPause):
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// readVectors returns the rows that the input is.
func readVectors(ctx context.Context, t *terminal, model coordinator.Model, f importFlags) (rows ps.Rows, err error) {
	if f.feature == "" {
		return rows, usageError{errors.New("say with --feature what the identifiers are values of")}
	}
	s, err := spec.Parse("spec of model "+model.Name, model.Spec)
	if err != nil {
		return rows, err
	}
	config := vectors.Config{Progress: func(n int64) { t.progress("%s rows read", thousands(n)) }}
	var masked bool
	if config.Feature, masked, err = vectors.Feature(s, f.feature); err != nil {
		return rows, usageError{fmt.Errorf("--feature: %w", err)}
	}
	if masked {
		if config.Masker, err = clusterMasker(model, f.secretFile, "the identifiers of feature "+f.feature); err != nil {
			return rows, err
		}
	}
	tables := ps.Layout{Tables: model.Layout.Tables[:s.FeatureTables()]}
	id, table, ok := tables.Table(cmp.Or(f.table, tables.Tables[len(tables.Tables)-1].Name))
	if !ok {
		return rows, usageError{fmt.Errorf("--table %s: model %s has no such table with rows of features, only %s", f.table, model.Name, tableNames(tables))}
	}
	config.Width = table.Width
	in, err := vectors.Open(f.source)
	if err != nil {
		return rows, err
	}
	defer in.Close()
	rows, err = vectors.Read(ctx, in, config)
	rows.Table = id
	return rows, err
}

// clusterMasker returns what masks identifiers as the cluster does; masked says which need it.
func clusterMasker(model coordinator.Model, secretFile, masked string) (*mask.Masker, error) {
	secret, err := readSecret(secretFile)
	if err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, usageError{fmt.Errorf("model %s masks %s: give the secret of the cluster with --secret-file (freshet up keeps it in its --dir)",
			model.Name, masked)}
	}
	m, err := mask.New(secret)
	if err == nil && !files.MaskedBy(m, model.Stream) {
		err = condition{fmt.Sprintf("model %s: %s", model.Name, otherSecret), ps.ErrModelMismatch}
	}
	return m, err
}

// epochToImport takes an epoch, but for a dry run, and returns those there are.
func epochToImport(ctx context.Context, t *terminal, model string, f importFlags) (coordinator.EpochList, error) {
	var takeErr error
	if !f.dryRun {
		t.progress("taking an epoch")
		_, takeErr = ask(ctx, f.coordinator, epochMax, func(ctx context.Context, a *admin) (coordinator.EpochTaken, error) {
			return a.TakeEpoch(ctx, model)
		})
	}
	if takeErr != nil && !errors.Is(takeErr, ps.ErrConflict) {
		return coordinator.EpochList{}, takeErr
	}
	list, err := listEpochs(ctx, f.coordinator, model)
	if err == nil && len(list.Epochs) == 0 {
		err = takeErr // where there is one, it will do: who came in between has just taken it
	}
	return list, err
}

// graftRows makes an epoch with rows, of the newest there is, and has it adopted.
func graftRows(ctx context.Context, t *terminal, model ps.Model, rows ps.Rows, list coordinator.EpochList, f importFlags, r *importReport) error {
	if len(list.Epochs) == 0 { // in a dry run before the first one
		r.Born = r.Rows
		return nil
	}
	base := list.Epochs[0]
	bucket, err := checkpoint.OpenBucket(ctx, list.Bucket)
	if err != nil {
		return err
	}
	defer bucket.Close()
	var made graft.Result
	manifest, err := checkpoint.ReadManifest(ctx, bucket, base.Manifest)
	if err == nil {
		made, err = graft.Run(ctx, graft.Config{
			Bucket: bucket, Base: manifest, Model: model, Rows: rows, Fresh: f.fresh, DryRun: f.dryRun, Created: time.Now(),
			Progress: func(n int) { t.progress("%d of %d shards have their rows", n, len(manifest.Shards)) },
		})
	}
	if err != nil {
		return notKept(ctx, f.coordinator, model.Name, base, err)
	}
	r.Born, r.Replaced, r.Shards, r.Bytes, r.Epoch, r.Lineage = made.Born, made.Replaced, made.Shards, made.Bytes, base.Epoch, base.Lineage
	if f.dryRun {
		return nil
	}
	t.progress("the coordinator checks epoch %d with the rows", base.Epoch)
	adopted, err := ask(ctx, f.coordinator, epochMax, func(ctx context.Context, a *admin) (coordinator.EpochStatus, error) {
		return a.Adopt(ctx, model.Name, made.Manifest)
	})
	r.Epoch, r.Lineage = adopted.Epoch, adopted.Lineage
	return err
}

// notKept returns why an epoch could not be read, which is ps.ErrConflict if what looks
// damaged was collected: newer epochs have pushed the one that was read out.
func notKept(ctx context.Context, address, model string, base coordinator.EpochStatus, because error) error {
	if !errors.Is(because, ps.ErrCorrupt) {
		return because
	}
	list, err := listEpochs(ctx, address, model)
	if err != nil {
		return err
	}
	for _, e := range list.Epochs {
		if e.Epoch == base.Epoch {
			return because
		}
	}
	return fmt.Errorf("epoch %d is not kept any more: %w", base.Epoch, ps.ErrConflict)
}
