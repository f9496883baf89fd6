package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// predictBatch is how many events are pulled for at once.
const predictBatch = 512

func newPredict(t *terminal) *cobra.Command {
	var address, model, events, secretFile string
	var limit int64
	cmd := &cobra.Command{
		Use:   "predict --events URL",
		Short: "Score events with the model as it is now",
		Long: `Reads events of the spec's format from a file and prints one prediction per
event, in the file's order: as text "line prediction", under -o json one
document {"predictions": [{"line", "prediction"}]}. A row that cannot be used
has a reason in place of a prediction. Labels are not looked at.

Identifiers are masked by the cluster's secret, so --secret-file must be the
same file that the workers use; freshet up keeps it in its directory.`,
		Example: `  freshet predict --coordinator 127.0.0.1:7400 \
      --events file:///data/today.csv --secret-file dir/secret --limit 10`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if events == "" {
				return usageError{errors.New("give the events to score with --events file:///path/to/events.csv")}
			}
			if limit < 0 {
				return usageError{fmt.Errorf("--limit %d: want 0, for all, or more", limit)}
			}
			secret, err := readSecret(secretFile)
			if err != nil {
				return err
			}
			c, err := openCluster(ctx, t, address, model)
			if err != nil {
				return err
			}
			defer c.Close()
			s, source, err := openEvents(ctx, t, c.spec, c.model, events, feature.UnlabelledColumns, secret)
			if err != nil {
				return err
			}
			defer source.Close()
			predictor, err := predict.New(predict.Config{Model: c.model.Model, Spec: s, Columns: feature.UnlabelledColumns(s), Shards: c.shards, Params: c.client})
			if err != nil {
				return err
			}
			out := newPredictions(t, c.model)
			if err := predictEvents(ctx, source, predictor, limit, out); err != nil {
				return err
			}
			return out.end()
		},
	}
	addCoordinatorFlag(cmd, &address)
	cmd.Flags().StringVar(&model, "model", "", "model to score with (default: the only one there is)")
	cmd.Flags().StringVar(&events, "events", "", "events to score: file:///path/to/events.csv[.zst]")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the secret that masks identifiers")
	cmd.Flags().Int64Var(&limit, "limit", 0, "score this many events only (0: all)")
	return cmd
}

// openEvents opens events to score, in the order of their file, and returns the spec that
// they are read by: the stream has one partition, is not sorted, and is read once.
func openEvents(ctx context.Context, t *terminal, s *spec.Spec, model coordinator.Model, url string, columns func(*spec.Spec) []string, secret []byte) (*spec.Spec, stream.Source, error) {
	inOrder := *s
	inOrder.Stream.Partitions, inOrder.Stream.PartitionBy, inOrder.Stream.Sort, inOrder.Stream.Passes = 1, "", false, 1
	source, err := openStream(ctx, opening{spec: &inOrder, url: url, columns: columns(&inOrder), secret: secret, logger: t.logger})
	if err != nil {
		return nil, nil, err
	}
	if !files.SameSecret(source.Identity(), model.Stream) {
		err := condition{fmt.Sprintf("model %s: %s", model.Name, otherSecret), ps.ErrModelMismatch}
		return nil, nil, errors.Join(err, source.Close())
	}
	return &inOrder, source, nil
}

// predictEvents scores a source's events in order.
func predictEvents(ctx context.Context, source stream.Source, predictor *predict.Predictor, limit int64, out *predictions) (err error) {
	reader, err := source.Read(ctx, []stream.Start{{}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var event worker.Event
	var lines []int64
	var scored []predict.Prediction
	flush := func() error {
		asking, cancel := context.WithTimeout(ctx, adminMax)
		defer cancel()
		var err error
		if scored, err = predictor.Predict(asking, scored[:0]); err != nil {
			return err
		}
		for i, p := range scored {
			if err := out.add(lines[i], p); err != nil {
				return err
			}
		}
		lines = lines[:0]
		return nil
	}
	for n := int64(0); limit == 0 || n < limit; n++ {
		if err := reader.Next(ctx, &event); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		predictor.Append(&event)
		lines = append(lines, event.Line)
		if len(lines) == predictBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return flush()
}

// predictions writes predictions as they come, so that a large file needs no
// memory.
type predictions struct {
	t     *terminal
	out   *bufio.Writer
	model coordinator.Model
	n     int64
	bad   int64
}

func newPredictions(t *terminal, model coordinator.Model) *predictions {
	return &predictions{t: t, out: bufio.NewWriterSize(t.stdout, 64<<10), model: model}
}

// one is a prediction in JSON.
type one struct {
	Line       int64    `json:"line"`
	Prediction *float64 `json:"prediction"`
	Error      string   `json:"error,omitempty"`
}

func (p *predictions) add(line int64, got predict.Prediction) error {
	p.n++
	o := one{Line: line, Prediction: &got.Value}
	if got.Err != nil {
		p.bad++
		o.Prediction, o.Error = nil, reasonOf(got.Err)
	}
	if !p.t.json {
		if got.Err != nil {
			_, err := fmt.Fprintf(p.out, "%d - %s\n", line, o.Error)
			return err
		}
		_, err := fmt.Fprintf(p.out, "%d %.6f\n", line, got.Value)
		return err
	}
	separator := ",\n  "
	if p.n == 1 {
		separator = "{\"model\": " + quoted(p.model.Name) + ", \"predictions\": [\n  "
	}
	doc, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s%s", separator, doc)
	return err
}

// reasonOf returns why an event cannot be used, without where it is.
func reasonOf(err error) string {
	if u, ok := errors.AsType[*worker.Unreadable](err); ok {
		return u.Reason
	}
	return plain(err)
}

// end finishes the document.
func (p *predictions) end() error {
	if p.t.json {
		if p.n == 0 {
			fmt.Fprintf(p.out, "{\"model\": %s, \"predictions\": [", quoted(p.model.Name))
		}
		fmt.Fprintf(p.out, "\n], \"events\": %d, \"unusable\": %d}\n", p.n, p.bad)
	}
	if err := p.out.Flush(); err != nil {
		return err
	}
	if p.bad > 0 {
		p.t.note("%s of %s rows cannot be used", thousands(p.bad), thousands(p.n))
	}
	return nil
}

func quoted(s string) string {
	doc, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(doc)
}
