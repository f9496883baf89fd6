package predict

import (
	"context"
	"fmt"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/retrieve"
)

// query is the memory that a search needs. It has one owner.
type query struct {
	*rows
	events    *events
	extractor *feature.Extractor // nil: no feature is of the context
	constant  bool
	parts     *model.Parts
	batch     worker.Batch
	own       [1]float32
	vector    []float32
	leftOut   []int32 // items, ascending
	hits      []retrieve.Hit
}

func (it *items) newQuery() (*query, error) {
	q := &query{rows: newRows(it.origin, it.spec), constant: it.spec.Network.Constant, vector: make([]float32, it.width+1)}
	var err error
	if q.parts, err = model.NewParts(it.spec); err != nil {
		return nil, err
	}
	if q.events, err = it.context.newEvents(); err != nil {
		return nil, err
	}
	if it.query != nil {
		q.extractor, err = feature.NewUnlabelled(it.query, it.context.names[:it.context.asked])
	}
	return q, err
}

// Retrieve finds, of all items, those with the largest inner product with a query, exactly.
//
// An item's vector is the sum of the factors of those of the model's features, crosses too,
// that depend on no column but the items'; behind it stands what these features add to a
// score by themselves. A query of context columns is the sum of the factors of the features
// that depend on none of those columns, the constant and the time among them, and behind it
// stands 1. So the order is that of a factorization machine's scores in the context, unless
// a feature crosses columns of both: such crosses count for nothing. Of a deepfm it is that
// of its factorization machine alone. A logistic model has no factors, and its order is the
// same in each context.
//
// A Vector has as many elements as the model has factors, and 0 is put behind them: what
// items add by themselves does not count.
//
// Served is of the query's rows. Items' vectors follow changes within some 100 ms, or, where
// one change is to many items, within seconds; see Run. It returns ps.ErrUnavailable until
// all items have their vectors.
func (s *Scorer) Retrieve(ctx context.Context, r Retrieve) ([]Retrieved, Served, error) {
	if err := s.retrievable(&r); err != nil {
		return nil, Served{}, err
	}
	w, err := s.acquire(ctx)
	if err != nil {
		return nil, Served{}, err
	}
	defer s.release(w)
	q := w.query
	served := s.served()
	if len(r.Vector) > 0 {
		q.vector[copy(q.vector, r.Vector)] = 0
	} else if err := s.context(ctx, q, r.Context); err != nil {
		return nil, Served{}, fmt.Errorf("context: %w", err)
	}
	q.leftOut = q.leftOut[:0]
	for _, name := range r.NotIn {
		if item := s.items.find(name); item >= 0 {
			q.leftOut = append(q.leftOut, int32(item))
		}
	}
	slices.Sort(q.leftOut)
	keep := func(item int) bool { _, found := slices.BinarySearch(q.leftOut, int32(item)); return !found }
	if len(q.leftOut) == 0 {
		keep = nil
	}
	if q.hits, err = s.items.table.Top(q.vector, r.Top, keep, q.hits[:0]); err != nil {
		return nil, Served{}, err
	}
	found := make([]Retrieved, len(q.hits))
	for i, hit := range q.hits {
		found[i] = Retrieved{s.items.nameOf(hit.Item), hit.Score}
	}
	return found, served, nil
}

// retrievable refuses what cannot be answered.
func (s *Scorer) retrievable(r *Retrieve) error {
	it := s.items
	switch {
	case it == nil:
		return fmt.Errorf("there is no list of items to retrieve from: %w", ps.ErrInvalid)
	case r.Top < 1:
		return fmt.Errorf("the best %d items: want 1 or more: %w", r.Top, ps.ErrInvalid)
	case r.Top > s.config.Limits.Events:
		return fmt.Errorf("the best %d items: at most %d are returned: %w", r.Top, s.config.Limits.Events, ps.ErrTooLarge)
	case len(r.Vector) > 0 && len(r.Context) > 0:
		return fmt.Errorf("both a context and a vector: want one of them: %w", ps.ErrInvalid)
	case len(r.Vector) > 0 && it.width == 0:
		return fmt.Errorf("a vector: network %s has none: %w", s.config.Spec.Network.Kind, ps.ErrInvalid)
	case len(r.Vector) > 0 && len(r.Vector) != it.width:
		return fmt.Errorf("a vector of %d elements: want %d, the model's factors: %w", len(r.Vector), it.width, ps.ErrInvalid)
	case !it.stale.loaded.Load():
		return fmt.Errorf("the vectors of %d items are being computed: %w", it.len(), ps.ErrUnavailable)
	}
	return nil
}

// context makes the query's vector of a context's columns.
func (s *Scorer) context(ctx context.Context, q *query, columns []Column) error {
	for i := range columns {
		if c := &columns[i]; len(c.Values) != 1 {
			return fmt.Errorf("column %q has %d values: want one: %w", shortened(c.Name), len(c.Values), ps.ErrInvalid)
		}
	}
	if err := q.events.add(columns, nil); err != nil {
		return err
	}
	if err := s.bounded(q.events); err != nil {
		return err
	}
	q.batch.Reset(0, 0, 0)
	switch {
	case q.extractor != nil:
		if err := q.extractor.Append(&q.batch, q.events.get(0)); err != nil {
			return fmt.Errorf("%w: %w", err, ps.ErrInvalid)
		}
	case q.constant:
		q.batch.AddFeature(feature.ConstantKey(), 1)
		fallthrough
	default:
		q.batch.Close(worker.Train, 0, 1, 0)
	}
	width := q.parts.Width()
	q.vector[width] = 1
	if width == 0 {
		return nil // no context makes a difference
	}
	if err := s.config.Limits.keys(len(q.batch.Keys)); err != nil {
		return err
	}
	if err := q.pull(ctx, q.batch.Keys); err != nil {
		return err
	}
	q.parts.Of(&q.batch, q.group.Index, q.weights, q.own[:], q.vector[:width])
	return nil
}
