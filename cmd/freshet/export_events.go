package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/table"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
)

// evaluation is what encoding and pruning do to the scores of some events.
type evaluation struct {
	// Before is of the epoch's weights, After of those in the files, where a row that is
	// not there counts as zeros.
	Before eval.Report `json:"before"`
	After  eval.Report `json:"after"`
	// AUCChange is after minus before; null without events of both kinds.
	AUCChange *float64 `json:"auc_change"`
}

// evaluator scores events with an epoch's weights and with what an export makes of them.
type evaluator struct {
	model  ps.Model
	spec   *spec.Spec
	source stream.Source
	limit  int64
	rows   exportedRows
}

// newEvaluator opens the events and looks which rows they need. It must be closed.
func newEvaluator(ctx context.Context, t *terminal, model coordinator.Model, s *spec.Spec, f exportFlags) (*evaluator, error) {
	if len(f.tables) > 0 {
		return nil, usageError{errors.New("--events needs all tables with weights: leave --tables out")}
	}
	if s.Loss != spec.Log {
		return nil, usageError{fmt.Errorf("--events: model %s predicts no probability, so there is no AUC to compare", model.Name)}
	}
	secret, err := readSecret(f.secretFile)
	if err != nil {
		return nil, err
	}
	inOrder, source, err := openEvents(ctx, t, s, model, f.events, feature.Columns, secret)
	if err != nil {
		return nil, err
	}
	e := &evaluator{model: model.Model, spec: inOrder, source: source, limit: f.limit}
	e.rows, err = newExportedRows(model.Layout)
	if err == nil {
		_, _, err = e.score(ctx, rowsOf{&e.rows, noting})
	}
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	return e, nil
}

// evaluate scores the events, once the export has said what its rows are.
func (e *evaluator) evaluate(ctx context.Context) (*evaluation, error) {
	labels, before, err := e.score(ctx, rowsOf{&e.rows, asTheyWere})
	if err != nil {
		return nil, err
	}
	_, after, err := e.score(ctx, rowsOf{&e.rows, asExported})
	if err != nil {
		return nil, err
	}
	r := &evaluation{Before: eval.Exact(labels, before), After: eval.Exact(labels, after)}
	if r.Before.AUC != nil && r.After.AUC != nil {
		change := *r.After.AUC - *r.Before.AUC
		r.AUCChange = &change
	}
	return r, nil
}

// score returns the labels and predictions of the events that can be used.
func (e *evaluator) score(ctx context.Context, params predict.Params) (labels, values []float64, err error) {
	columns := feature.Columns(e.spec)
	predictor, err := predict.New(predict.Config{Model: e.model, Spec: e.spec, Columns: columns, Shards: 1, Params: params})
	if err != nil {
		return nil, nil, err
	}
	extractor, err := feature.New(e.spec, columns)
	if err != nil {
		return nil, nil, err
	}
	reader, err := e.source.Read(ctx, []stream.Start{{}})
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var predictions []predict.Prediction
	flush := func() error {
		var err error
		predictions, err = predictor.Predict(ctx, predictions[:0])
		for _, p := range predictions {
			values = append(values, p.Value)
		}
		return err
	}
	var event worker.Event
	var example worker.Batch
	for n := int64(0); e.limit == 0 || n < e.limit; n++ {
		if err := reader.Next(ctx, &event); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, err
		}
		example.Reset(event.Partition, event.Offset, event.Pass)
		if extractor.Append(&example, &event) != nil {
			continue // it would be skipped in learning, too
		}
		labels = append(labels, float64(example.Labels[0]))
		predictor.Append(&event)
		if len(labels)%predictBatch == 0 {
			if err := flush(); err != nil {
				return nil, nil, err
			}
		}
	}
	return labels, values, flush()
}

// exportedRows are the rows that some events need.
type exportedRows struct {
	initial []table.Initial // by table
	tables  []map[ps.Key]*exportedRow
}

// exportedRow is a row before and after; nil where it is not there.
type exportedRow struct{ before, after []byte }

func newExportedRows(layout ps.Layout) (exportedRows, error) {
	var r exportedRows
	for _, t := range layout.Tables {
		initial, err := table.NewInitial(t, layout.Seed)
		if err != nil {
			return r, err
		}
		r.initial = append(r.initial, initial)
		r.tables = append(r.tables, make(map[ps.Key]*exportedRow))
	}
	return r, nil
}

// seen takes note of a row of the export.
func (r *exportedRows) seen(id ps.TableID, key ps.Key, before, after []byte) {
	if row := r.tables[id][key]; row != nil {
		row.before = append([]byte{}, before...)
		if after != nil {
			row.after = append([]byte{}, after...)
		}
	}
}

// view says which of a row's weights are pulled.
type view int

const (
	noting     view = iota // none: it is noted that the row is needed
	asTheyWere             // the epoch's
	asExported
)

// rowsOf are rows as predict.Params.
type rowsOf struct {
	*exportedRows
	view view
}

// Pull is what predict.Params says.
func (r rowsOf) Pull(_ context.Context, _ string, _ uint64, reads []ps.Read) error {
	for i := range reads {
		read := &reads[i]
		rows := r.tables[read.Table]
		read.Values = make([]byte, len(read.Group.Keys)*read.RowBytes)
		for k, key := range read.Group.Keys {
			into := read.Values[k*read.RowBytes : (k+1)*read.RowBytes]
			row := rows[key]
			switch {
			case row == nil && r.view == noting:
				rows[key] = &exportedRow{}
			case row == nil:
				return fmt.Errorf("an event that was not there before: the events have changed while they were read: %w", ps.ErrInvalid)
			case r.view == asTheyWere && row.before != nil:
				copy(into, row.before)
			case r.view == asTheyWere:
				r.initial[read.Table].Fill(ps.View[float32](into), key)
			case r.view == asExported:
				copy(into, row.after)
			}
		}
	}
	return nil
}
