package predict

import (
	"context"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
)

// Explain scores one event, and once more for each of its features without that feature's
// values. A cross is a feature by itself: without its parts it is still there, so that
// contributions say what each set of rows adds. An event that cannot be used has no
// contributions.
func (s *Scorer) Explain(ctx context.Context, columns []Column) (Explanation, Served, error) {
	w, err := s.acquire(ctx)
	if err != nil {
		return Explanation{}, Served{}, err
	}
	defer s.release(w)
	for i := range columns {
		if c := &columns[i]; len(c.Values) != 1 {
			return Explanation{}, Served{}, fmt.Errorf("column %q has %d values: one event is explained at a time: %w", shortened(c.Name), len(c.Values), ps.ErrInvalid)
		}
	}
	if err := s.given(w.events, columns); err != nil {
		return Explanation{}, Served{}, err
	}
	w.extractor.Share(nil, false)
	if err := w.extract(0, &s.config.Limits); err != nil {
		return Explanation{}, Served{}, err
	}
	served := s.served()
	if err := w.errs[0]; err != nil {
		return Explanation{Prediction: Prediction{Err: err}}, served, nil
	}
	w.spans = w.extractor.AppendSpans(w.spans[:0])
	if err := s.config.Limits.keys(len(w.batch.Keys) * (len(w.spans) + 1)); err != nil {
		return Explanation{}, Served{}, fmt.Errorf("without each of %d features: %w", len(w.spans), err)
	}
	w.leaveOut(w.spans)
	if err := w.score(ctx); err != nil {
		return Explanation{}, Served{}, err
	}
	return w.explanation(), served, nil
}

// leaveOut appends to the batch, which has one event, that event without each of its spans.
func (c *scoring) leaveOut(spans []feature.Span) {
	b := &c.batch
	all, from := len(b.Keys), 0
	for _, span := range spans {
		to := from + span.Values
		b.Keys = append(append(b.Keys, b.Keys[:from]...), b.Keys[to:all]...)
		b.Values = append(append(b.Values, b.Values[:from]...), b.Values[to:all]...)
		if len(b.Fields) > 0 {
			b.Fields = append(append(b.Fields, b.Fields[:from]...), b.Fields[to:all]...)
		}
		b.Close(worker.Train, 0, 1, b.EventTime)
		c.errs = append(c.errs, nil)
		from = to
	}
}

func (w *workspace) explanation() Explanation {
	e := Explanation{Prediction: w.prediction(0)}
	if e.Err != nil {
		return e
	}
	for i, span := range w.spans {
		without := w.scores[i+1]
		if !finite(without) {
			return Explanation{Prediction: Prediction{Err: errNotFinite}}
		}
		e.Features = append(e.Features, FeatureContribution{span.Feature, e.Score - without})
	}
	return e
}
