package predict

import (
	"slices"

	"github.com/freshet-ml/freshet/worker"
)

// White-box because the keys and values that a request becomes are compared with those of a
// stream; from outside only scores can be seen.

// BatchOf returns what s makes of the columns of a request.
func BatchOf(s *Scorer, columns []Column) (*worker.Batch, error) {
	w, err := s.newWorkspace()
	if err != nil {
		return nil, err
	}
	if err := s.given(w.events, columns); err != nil {
		return nil, err
	}
	w.share()
	for i := range w.events.n {
		if err := w.extract(i, &s.config.Limits); err != nil {
			return nil, err
		}
	}
	b := w.batch
	b.Keys, b.Values, b.Fields, b.Starts = slices.Clone(b.Keys), slices.Clone(b.Values), slices.Clone(b.Fields), slices.Clone(b.Starts)
	return &b, nil
}
