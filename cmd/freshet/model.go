package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

func newModel(t *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "model",
		Short:   "Write, check and apply model specs",
		Example: "  freshet model init --from events.csv --label clicked > model.yaml",
	}
	cmd.AddCommand(newModelInit(t), newModelValidate(t), newModelApply(t))
	return cmd
}

func newModelInit(t *terminal) *cobra.Command {
	var from string
	var options spec.Options
	cmd := &cobra.Command{
		Use:   "init --from FILE --label COLUMN",
		Short: "Write a commented spec from a sample of a CSV file",
		Long: `Looks at the beginning of a CSV file and writes a spec to stdout, with a comment
for every guess. Read it before you use it: only you know which columns are
known before the outcome.`,
		Example: `  freshet model init --from events.csv --time ts --label clicked \
      --user uid --item sku > model.yaml
  freshet model validate model.yaml --show 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || options.Label == "" {
				return usageError{errors.New("give --from FILE and --label COLUMN")}
			}
			sample, err := readSample(from)
			if err != nil {
				return err
			}
			if options.Source, err = fileURL(from); err != nil {
				return err
			}
			options.Name = filepath.Base(from)
			doc, err := spec.Init(sample, options)
			if err != nil {
				return err
			}
			return t.result(map[string]string{"spec": string(doc)}, func(w io.Writer) { fmt.Fprintf(w, "%s", doc) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "CSV file with a header, plain or .zst")
	flags.StringVar(&options.Model, "name", "", "name of the model (default: the file's)")
	flags.StringVar(&options.Time, "time", "", "column with the time of the event")
	flags.StringVar(&options.Label, "label", "", "column to predict, such as clicked")
	flags.StringVar(&options.User, "user", "", "column that identifies a person; it is masked")
	flags.StringVar(&options.Item, "item", "", "column that identifies what is shown or sold")
	return cmd
}

// readSample returns the beginning of a file, decompressed.
func readSample(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("sample: %w", err)
	}
	defer file.Close()
	r, free, err := files.Decompress(path, file)
	if err != nil {
		return nil, fmt.Errorf("sample of %s: %w", path, err)
	}
	defer free()
	sample, err := io.ReadAll(io.LimitReader(r, spec.SampleBytes))
	if err != nil {
		return nil, fmt.Errorf("sample of %s: %w", path, err)
	}
	return sample, nil
}

func newModelValidate(t *terminal) *cobra.Command {
	var show int
	var url, secretFile string
	cmd := &cobra.Command{
		Use:   "validate SPEC",
		Short: "Check a spec, and show events as it extracts them",
		Long: `Checks a spec as a whole and names every mistake with line and key. With the
spec's stream, or --stream, its columns are checked too, and --show N prints the
first N events as the network will see them. Identifiers are masked; without
--secret-file, by a secret made up for the occasion.`,
		Example: "  freshet model validate model.yaml --stream file:///data/events.csv --show 3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if show < 0 {
				return usageError{fmt.Errorf("--show %d: want 0 or more", show)}
			}
			s, _, err := readSpec(args[0])
			if err != nil {
				return err
			}
			result := validation{Model: s.Model, Features: len(s.Features), Tables: s.Layout(eval.Tables()).Tables}
			if url != "" || s.Stream.Source != "" {
				secret, err := readSecret(secretFile)
				if err != nil {
					return err
				}
				if secret == nil {
					secret = []byte(life("secret"))
				}
				source, err := openStream(cmd.Context(), opening{spec: s, url: url, columns: feature.Columns(s), secret: secret, bounded: true, logger: t.logger})
				if err != nil {
					return err
				}
				defer source.Close()
				result.Events = source.Size()
				if result.Shown, err = showEvents(cmd.Context(), s, source, show); err != nil {
					return err
				}
			} else if show > 0 {
				return usageError{errors.New("--show needs a stream: give --stream file:///path/to/events.csv")}
			}
			return t.result(result, result.print)
		},
	}
	cmd.Flags().IntVar(&show, "show", 0, "print this many events as extracted")
	cmd.Flags().StringVar(&url, "stream", "", "stream URL, in place of the spec's")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret that masks identifiers")
	return cmd
}

// readSpec reads and checks a spec file.
func readSpec(path string) (*spec.Spec, []byte, error) {
	doc, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("spec: %w", err)
	}
	s, err := spec.Parse(path, doc)
	return s, doc, err
}

// validation is the result of "model validate".
type validation struct {
	Model    string     `json:"model"`
	Features int        `json:"features"`
	Tables   []ps.Table `json:"tables"`
	// Events estimates how many the stream has; 0 if it was not opened.
	Events int64        `json:"events"`
	Shown  []shownEvent `json:"shown,omitempty"`
}

// shownEvent is an event as extracted.
type shownEvent struct {
	Partition ps.Partition    `json:"partition"`
	Offset    ps.Offset       `json:"offset"`
	Line      int64           `json:"line"`
	Example   feature.Example `json:"example"`
	Error     string          `json:"error,omitempty"`
}

// showEvents returns the stream's first events as extracted.
func showEvents(ctx context.Context, s *spec.Spec, source stream.Source, n int) (shown []shownEvent, err error) {
	if n == 0 {
		return nil, nil
	}
	extractor, err := feature.New(s, feature.Columns(s))
	if err != nil {
		return nil, err
	}
	starts := make([]stream.Start, source.Partitions())
	for p := range starts {
		starts[p].Partition = ps.Partition(p)
	}
	reader, err := source.Read(ctx, starts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var event worker.Event
	for len(shown) < n {
		if err := reader.Next(ctx, &event); errors.Is(err, io.EOF) {
			return shown, nil
		} else if err != nil {
			return nil, err
		}
		example, err := extractor.Describe(&event)
		one := shownEvent{Partition: event.Partition, Offset: event.Offset, Line: event.Line, Example: example}
		if err != nil {
			one.Error = reasonOf(err)
		}
		shown = append(shown, one)
	}
	return shown, nil
}

func newModelApply(t *terminal) *cobra.Command {
	var address, url, from, secretFile string
	cmd := &cobra.Command{
		Use:   "apply SPEC",
		Short: "Store a model in the cluster, so that workers learn it",
		Long: `Checks a spec, opens its stream to learn its identity, and stores both in the
cluster. Applying the same spec again changes nothing. A stored model cannot be
changed yet: give a changed one another name.`,
		Example: `  freshet model apply model.yaml --coordinator 127.0.0.1:7400 \
      --stream file:///data/events.csv --secret-file secret`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			s, doc, err := readSpec(args[0])
			if err != nil {
				return err
			}
			secret, err := readSecret(secretFile)
			if err != nil {
				return err
			}
			source, err := openStream(ctx, opening{spec: s, url: url, columns: feature.Columns(s), secret: secret, from: from, logger: t.logger})
			if err != nil {
				return err
			}
			defer source.Close()
			admin, err := dialAdmin(address)
			if err != nil {
				return err
			}
			defer admin.Close()
			ctx, cancel := context.WithTimeout(ctx, adminMax)
			defer cancel()
			version, changed, err := admin.ApplyModel(ctx, coordinator.Model{
				Model: ps.Model{Name: s.Model, Layout: s.Layout(eval.Tables()), Stream: source.Identity(), Partitions: source.Partitions()},
				Spec:  doc,
			})
			if err != nil {
				return asked(address, err)
			}
			return t.result(map[string]any{"model": s.Model, "version": version, "changed": changed}, func(w io.Writer) {
				if changed {
					fmt.Fprintf(w, "model %s applied, version %d, stream %s in %d partitions\n", s.Model, version, source.Identity(), source.Partitions())
				} else {
					fmt.Fprintf(w, "model %s was applied already, version %d\n", s.Model, version)
				}
			})
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&url, "stream", "", "stream URL, in place of the spec's; workers then need it too")
	cmd.Flags().StringVar(&from, "from", "", fromUsage)
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret that masks identifiers")
	return cmd
}

// print writes the validation for people.
func (v validation) print(w io.Writer) {
	fmt.Fprintf(w, "model %s: %d features, tables", v.Model, v.Features)
	for _, table := range v.Tables {
		fmt.Fprintf(w, " %s[%d]", table.Name, table.Width)
	}
	fmt.Fprintln(w, ": valid")
	if v.Events > 0 {
		fmt.Fprintf(w, "stream: about %s events\n", thousands(v.Events))
	}
	for _, e := range v.Shown {
		fmt.Fprintf(w, "\npartition %d, offset %d, line %d", e.Partition, e.Offset, e.Line)
		if e.Error != "" {
			fmt.Fprintf(w, ": %s\n", e.Error)
			continue
		}
		fmt.Fprintf(w, ": label %g, weight %g\n", e.Example.Label, e.Example.Weight)
		for _, f := range e.Example.Features {
			fmt.Fprintf(w, "  %-24s %-40s %016x  × %g\n", f.Feature, f.Value, uint64(f.Key), f.X)
		}
	}
}
