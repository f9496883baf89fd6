// Package predicttest has a model that is small enough to be worked out by hand, for tests
// of what stands between predict.Predictions and those who ask. It learns nothing: the
// weight of a value is a function of its column and its text.
package predicttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Columns are those that the model reads. Hour has to be a number.
var Columns = []string{"uid", "item", "hour", "price"}

// Items are what Retrieve finds.
var Items = []string{"a4", "b2", "c9", "d5", "e1", "f7"}

// Width is that of the vectors that Retrieve takes.
const Width = 4

// EventsMax is how many events a request may have.
const EventsMax = 10_000

// Model is linear in its columns' values. It is safe for concurrent use.
type Model struct {
	// Served is what it says that it answers from.
	Served predict.Served
	// Before, if not nil, is called by every request before anything else; its error is the
	// request's. It may block and panic.
	Before func(context.Context) error
}

var _ predict.Predictions = (*Model)(nil)

// Weight is what a value adds to a score, in eighths. A missing value adds nothing.
func Weight(column, value string) float32 {
	if value == "" {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(column + "=" + value))
	return float32(h.Sum32()%17)/8 - 1
}

// begin does what every request does first.
func (m *Model) begin(ctx context.Context) error {
	if m.Before != nil {
		if err := m.Before(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// events are columns whose lengths fit.
type events struct {
	n       int
	columns []predict.Column
}

// read checks columns. Those of others are not the model's, but are there for filters.
func read(columns []predict.Column, others ...string) (events, error) {
	e := events{n: 1, columns: columns}
	var names []string
	for _, c := range columns {
		switch {
		case !slices.Contains(Columns, c.Name) && !slices.Contains(others, c.Name):
			return e, fmt.Errorf("unknown column %.100q, the model reads %v: %w", c.Name, Columns, ps.ErrInvalid)
		case slices.Contains(names, c.Name):
			return e, fmt.Errorf("column %q is there twice: %w", c.Name, ps.ErrInvalid)
		case len(c.Values) != 1 && e.n == 1:
			e.n = len(c.Values)
		case len(c.Values) != 1 && len(c.Values) != e.n:
			return e, fmt.Errorf("column %q has %d values, want 1 or %d: %w", c.Name, len(c.Values), e.n, ps.ErrInvalid)
		}
		names = append(names, c.Name)
	}
	if e.n > EventsMax {
		return e, fmt.Errorf("%d events, at most %d: %w", e.n, EventsMax, ps.ErrTooLarge)
	}
	if len(columns) == 0 {
		return e, fmt.Errorf("no columns: %w", ps.ErrInvalid)
	}
	return e, nil
}

// single refuses columns that have not one value each.
func single(columns []predict.Column) error {
	for _, c := range columns {
		if len(c.Values) != 1 {
			return fmt.Errorf("column %.100q has %d values, want 1: %w", c.Name, len(c.Values), ps.ErrInvalid)
		}
	}
	return nil
}

// value returns event i's value in a column.
func value(c *predict.Column, i int) string {
	if len(c.Values) == 1 {
		i = 0
	}
	return c.Values[i]
}

var errHour = errors.New("the hour is no number")

// predict scores event i without one of the columns.
func (e events) predict(i int, without string) predict.Prediction {
	var p predict.Prediction
	for j := range e.columns {
		c := &e.columns[j]
		if c.Name == without || !slices.Contains(Columns, c.Name) {
			continue
		}
		text := value(c, i)
		if c.Name == "hour" && text != "" {
			if _, err := strconv.ParseFloat(text, 64); err != nil {
				return predict.Prediction{Err: errHour}
			}
		}
		p.Score += Weight(c.Name, text)
	}
	p.Value = 1 / (1 + math.Exp(-float64(p.Score)))
	return p
}

// Predict scores events, in order.
func (m *Model) Predict(ctx context.Context, columns []predict.Column) ([]predict.Prediction, predict.Served, error) {
	if err := m.begin(ctx); err != nil {
		return nil, predict.Served{}, err
	}
	e, err := read(columns)
	if err != nil {
		return nil, predict.Served{}, err
	}
	predictions := make([]predict.Prediction, e.n)
	for i := range predictions {
		predictions[i] = e.predict(i, "")
	}
	return predictions, m.Served, nil
}

// Rank returns the best candidates, best first.
func (m *Model) Rank(ctx context.Context, r predict.Rank) (predict.Ranking, predict.Served, error) {
	var ranking predict.Ranking
	if err := m.begin(ctx); err != nil {
		return ranking, predict.Served{}, err
	}
	if err := single(r.Context); err != nil {
		return ranking, predict.Served{}, fmt.Errorf("context: %w", err)
	}
	if len(r.Candidates) == 0 {
		return ranking, predict.Served{}, fmt.Errorf("no candidates: %w", ps.ErrInvalid)
	}
	var filtered []string
	for _, f := range r.Filters {
		filtered = append(filtered, f.Column)
		if !slices.ContainsFunc(r.Candidates, func(c predict.Column) bool { return c.Name == f.Column }) {
			return ranking, predict.Served{}, fmt.Errorf("filter on %.100q, which the candidates do not have: %w", f.Column, ps.ErrInvalid)
		}
	}
	e, err := read(append(r.Context[:len(r.Context):len(r.Context)], r.Candidates...), filtered...)
	if err != nil {
		return ranking, predict.Served{}, err
	}
	for i := range e.n {
		if slices.ContainsFunc(r.Filters, func(f predict.Filter) bool { return !e.kept(i, f) }) {
			ranking.Filtered++
			continue
		}
		p := e.predict(i, "")
		if p.Err != nil {
			ranking.Unusable++
			continue
		}
		ranking.Ranked = append(ranking.Ranked, predict.Ranked{Candidate: i, Score: p.Score, Value: p.Value})
	}
	slices.SortStableFunc(ranking.Ranked, func(a, b predict.Ranked) int { return cmp.Compare(b.Score, a.Score) })
	if r.Top > 0 && r.Top < len(ranking.Ranked) {
		ranking.Ranked = ranking.Ranked[:r.Top]
	}
	return ranking, m.Served, nil
}

// kept reports whether a filter keeps candidate i.
func (e events) kept(i int, f predict.Filter) bool {
	c := &e.columns[slices.IndexFunc(e.columns, func(c predict.Column) bool { return c.Name == f.Column })]
	text := value(c, i)
	number, err := strconv.ParseFloat(text, 64)
	switch {
	case f.In != nil:
		return slices.Contains(f.In, text)
	case f.NotIn != nil:
		return !slices.Contains(f.NotIn, text)
	case f.AtLeast != nil:
		return err == nil && number >= *f.AtLeast
	}
	return err == nil && number <= *f.AtMost
}

// Retrieve returns the items with the largest inner product with a query.
func (m *Model) Retrieve(ctx context.Context, r predict.Retrieve) ([]predict.Retrieved, predict.Served, error) {
	if err := m.begin(ctx); err != nil {
		return nil, predict.Served{}, err
	}
	query := r.Vector
	if query == nil {
		query = make([]float32, Width)
		if err := single(r.Context); err != nil {
			return nil, predict.Served{}, fmt.Errorf("context: %w", err)
		}
		if len(r.Context) > 0 {
			if _, err := read(r.Context); err != nil {
				return nil, predict.Served{}, fmt.Errorf("context: %w", err)
			}
		}
		for i, c := range r.Context {
			query[i] = Weight(c.Name, c.Values[0])
		}
	}
	if len(query) != Width {
		return nil, predict.Served{}, fmt.Errorf("a vector of %d elements, want %d: %w", len(query), Width, ps.ErrInvalid)
	}
	var found []predict.Retrieved
	for _, item := range Items {
		if slices.Contains(r.NotIn, item) {
			continue
		}
		var score float64
		for i, x := range query {
			if math.Abs(float64(x)) > 1<<50 {
				return nil, predict.Served{}, fmt.Errorf("element %d of the vector is beyond 2^50: %w", i, ps.ErrInvalid)
			}
			score += float64(x) * float64(Weight(strconv.Itoa(i), item))
		}
		found = append(found, predict.Retrieved{Item: item, Score: float32(score)})
	}
	slices.SortStableFunc(found, func(a, b predict.Retrieved) int { return cmp.Compare(b.Score, a.Score) })
	return found[:min(r.Top, len(found))], m.Served, nil
}

// Explain tells what each column adds to the score of an event.
func (m *Model) Explain(ctx context.Context, columns []predict.Column) (predict.Explanation, predict.Served, error) {
	var explanation predict.Explanation
	if err := m.begin(ctx); err != nil {
		return explanation, predict.Served{}, err
	}
	if err := single(columns); err != nil {
		return explanation, predict.Served{}, err
	}
	e, err := read(columns)
	if err != nil {
		return explanation, predict.Served{}, err
	}
	explanation.Prediction = e.predict(0, "")
	if explanation.Err == nil {
		for _, c := range columns {
			explanation.Features = append(explanation.Features, predict.FeatureContribution{
				Feature: c.Name, Contribution: explanation.Score - e.predict(0, c.Name).Score,
			})
		}
	}
	return explanation, m.Served, nil
}
