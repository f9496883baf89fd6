package predict

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Rank scores those candidates that the filters keep, in one context, and returns the best:
// by descending score, of equal ones the first candidate first.
//
// A column of the candidates that the model does not have is refused unless a filter is on
// it: it would be a misspelt one whose feature is missing.
func (s *Scorer) Rank(ctx context.Context, r Rank) (Ranking, Served, error) {
	w, err := s.acquire(ctx)
	if err != nil {
		return Ranking{}, Served{}, err
	}
	defer s.release(w)
	if err := s.candidates(w, &r); err != nil {
		return Ranking{}, Served{}, err
	}
	w.share()
	for _, candidate := range w.chosen {
		if err := w.extract(int(candidate), &s.config.Limits); err != nil {
			return Ranking{}, Served{}, err
		}
	}
	ranking, served := Ranking{Filtered: w.events.n - len(w.chosen)}, s.served()
	if err := w.score(ctx); err != nil {
		return Ranking{}, Served{}, err
	}
	ranking.Ranked = make([]Ranked, 0, len(w.chosen))
	for i, candidate := range w.chosen {
		p := w.prediction(i)
		if p.Err != nil {
			ranking.Unusable++
			continue
		}
		ranking.Ranked = append(ranking.Ranked, Ranked{int(candidate), p.Score, p.Value})
	}
	slices.SortFunc(ranking.Ranked, func(a, b Ranked) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Candidate, b.Candidate))
	})
	if r.Top > 0 && r.Top < len(ranking.Ranked) {
		ranking.Ranked = ranking.Ranked[:r.Top]
	}
	return ranking, served, nil
}

// candidates makes events of the request, and chooses those that the filters keep.
func (s *Scorer) candidates(w *workspace, r *Rank) error {
	if r.Top < 0 {
		return fmt.Errorf("the best %d candidates: want 0, for all, or more: %w", r.Top, ps.ErrInvalid)
	}
	if len(r.Candidates) == 0 {
		return fmt.Errorf("no column of candidates: %w", ps.ErrInvalid)
	}
	for i := range r.Context {
		if c := &r.Context[i]; len(c.Values) != 1 {
			return fmt.Errorf("column %q of the context has %d values: want one, which all candidates share: %w", shortened(c.Name), len(c.Values), ps.ErrInvalid)
		}
	}
	if err := w.events.add(r.Context, nil); err != nil {
		return fmt.Errorf("context: %w", err)
	}
	if err := w.events.add(r.Candidates, r.Filters); err != nil {
		return fmt.Errorf("candidates: %w", err)
	}
	for i := range r.Filters {
		w.events.count(r.Filters[i].In)
		w.events.count(r.Filters[i].NotIn)
	}
	if err := s.bounded(w.events); err != nil {
		return err
	}
	w.chosen = w.chosen[:0]
	for i := range w.events.n {
		w.chosen = append(w.chosen, int32(i))
	}
	for i := range r.Filters {
		if err := w.filter(&r.Filters[i], r.Candidates); err != nil {
			return fmt.Errorf("filter on column %q: %w", shortened(r.Filters[i].Column), err)
		}
	}
	return nil
}

// filter takes candidates out of chosen.
func (w *workspace) filter(f *Filter, candidates []Column) error {
	keeps, err := f.test()
	if err != nil {
		return err
	}
	values, err := f.values(candidates)
	if err != nil {
		return err
	}
	w.chosen = slices.DeleteFunc(w.chosen, func(candidate int32) bool {
		if len(values) == 1 {
			candidate = 0
		}
		return !keeps(values[candidate])
	})
	return nil
}

// values returns the values of the column that the filter is on.
func (f *Filter) values(candidates []Column) ([]string, error) {
	var values []string
	found := 0
	for i := range candidates {
		if candidates[i].Name == f.Column {
			values = candidates[i].Values
			found++
		}
	}
	switch {
	case found > 1:
		return nil, fmt.Errorf("the candidates have the column twice: %w", ps.ErrInvalid)
	case found == 1:
		return values, nil
	}
	var names []string
	for i := range candidates {
		names = append(names, shortened(candidates[i].Name))
	}
	near := ""
	if meant := spec.Nearest(f.Column, names); meant != "" {
		near = fmt.Sprintf("did you mean %q? ", meant)
	}
	return nil, fmt.Errorf("it is no column of the candidates: %sthey have %s: %w", near, listed(names), ps.ErrInvalid)
}

// test returns what says of a value whether the filter keeps it.
func (f *Filter) test() (keeps func(string) bool, err error) {
	tests := 0
	if f.In != nil {
		tests++
		in := set(f.In)
		keeps = func(value string) bool { _, ok := in[value]; return ok }
	}
	if f.NotIn != nil {
		tests++
		in := set(f.NotIn)
		keeps = func(value string) bool { _, ok := in[value]; return !ok }
	}
	if f.AtLeast != nil {
		tests++
		keeps = func(value string) bool { x, ok := feature.Number(bytesOf(value)); return ok && x >= *f.AtLeast }
	}
	if f.AtMost != nil {
		tests++
		keeps = func(value string) bool { x, ok := feature.Number(bytesOf(value)); return ok && x <= *f.AtMost }
	}
	switch {
	case tests != 1:
		return nil, fmt.Errorf("it has %d tests: want one of in, not in, at least and at most: %w", tests, ps.ErrInvalid)
	case f.AtLeast != nil && math.IsNaN(*f.AtLeast) || f.AtMost != nil && math.IsNaN(*f.AtMost):
		return nil, fmt.Errorf("its bound is no number: %w", ps.ErrInvalid)
	}
	return keeps, nil
}

func set(values []string) map[string]struct{} {
	in := make(map[string]struct{}, len(values))
	for _, value := range values {
		in[value] = struct{}{}
	}
	return in
}
