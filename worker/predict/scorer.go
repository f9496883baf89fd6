package predict

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// Limits bound a request, so that one cannot take the memory of all. Beyond them it is
// refused with ps.ErrTooLarge. What is 0 has its default.
type Limits struct {
	// Events is how many events, candidates, or items to return, a request may have.
	// Default 10,000: some 50 ms of one core with a small tower.
	Events int
	// Keys is how many features' values all its events may have. Default 1,000,000: with
	// 16 factors 80 MB of rows.
	Keys int
	// Bytes is how much text all its values may be. Default 16 MiB.
	Bytes int
}

// ScorerConfig is what a scorer needs.
type ScorerConfig struct {
	Model ps.Model
	// Spec is the one that the model has at its version. It is not changed.
	Spec *spec.Spec
	// Shards is the number of the cluster's shards.
	Shards     int
	Parameters Parameters
	// Secret masks the spec's identifiers; it is that of the workers, and needed only if
	// there are any.
	Secret []byte
	Limits Limits
	// Concurrent is how many requests are worked on at a time; others wait. Each has memory
	// of its own. Default: four times the processors, since rows may come over a network.
	Concurrent int
	// Items are what Retrieve finds; nil if it is not to be asked.
	Items *Items
	// Now is the clock that says the event time of a request without one. Default time.Now.
	Now func() time.Time
	// Logger receives what an operator should know of the items; nil discards.
	Logger *slog.Logger
}

// validate reports the first thing wrong and fills what is zero.
func (c *ScorerConfig) validate() error {
	for _, limit := range []struct {
		field     *int
		otherwise int
		name      string
	}{
		{&c.Limits.Events, 10_000, "events"},
		{&c.Limits.Keys, 1_000_000, "keys"},
		{&c.Limits.Bytes, 16 << 20, "bytes"},
		{&c.Concurrent, 4 * runtime.GOMAXPROCS(0), "requests at a time"},
	} {
		if *limit.field < 0 {
			return fmt.Errorf("at most %d %s: %w", *limit.field, limit.name, ps.ErrInvalid)
		}
		if *limit.field == 0 {
			*limit.field = limit.otherwise
		}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Spec.Stream.Identifiers) > 0 {
		_, err := mask.New(c.Secret)
		return err
	}
	return nil
}

// Scorer answers requests about one model with one set of parameters. It is safe for
// concurrent use. It starts no goroutine: who gives it items runs Run.
type Scorer struct {
	config ScorerConfig
	origin origin
	schema *schema
	dense  *model.Dense
	items  *items // nil: there are none

	// working has an entry for each request that is worked on; its capacity is how many
	// may be.
	working chan struct{}
	mu      sync.Mutex
	idle    []*workspace // guarded by mu; the last one is the warmest
}

var _ Predictions = (*Scorer)(nil)

// NewScorer returns a scorer. The error wraps ps.ErrInvalid if the configuration cannot be
// meant (no secret, items that no feature reads), and ps.ErrModelMismatch if the model is
// of another spec.
func NewScorer(c ScorerConfig) (*Scorer, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("predict with model %q: %w", c.Model.Name, err)
	}
	s := &Scorer{config: c, working: make(chan struct{}, c.Concurrent)}
	var err error
	if s.origin, err = newOrigin(c.Model, c.Spec, c.Shards, c.Parameters); err != nil {
		return nil, err
	}
	if s.schema, err = newSchema(c.Spec, feature.UnlabelledColumns(c.Spec), &s.config); err != nil {
		return nil, err
	}
	if s.dense, err = model.NewDense(c.Spec, c.Shards); err != nil {
		return nil, err
	}
	if c.Items != nil {
		if s.items, err = newItems(s); err != nil {
			return nil, fmt.Errorf("items of model %q: %w", c.Model.Name, err)
		}
		s.config.Items = nil // they are kept in another form
	}
	w, err := s.newWorkspace() // what cannot be made is told now
	s.idle = append(s.idle, w)
	return s, err
}

// workspace is the memory that a request needs. It has one owner.
type workspace struct {
	*scoring
	events    *events
	extractor *feature.Extractor
	spans     []feature.Span
	chosen    []int32 // candidates, by event
	query     *query  // nil: there are no items
}

func (s *Scorer) newWorkspace() (*workspace, error) {
	w := new(workspace)
	var err error
	if w.scoring, err = newScoring(s.origin, s.config.Spec, s.dense); err != nil {
		return nil, err
	}
	if w.events, err = s.schema.newEvents(); err != nil {
		return nil, err
	}
	if w.extractor, err = feature.NewUnlabelled(s.config.Spec, s.schema.names[:s.schema.asked]); err != nil {
		return nil, err
	}
	if s.items != nil {
		w.query, err = s.items.newQuery()
	}
	return w, err
}

// acquire returns a workspace for one request, to be released. It waits while as many are
// worked on as may be.
func (s *Scorer) acquire(ctx context.Context) (*workspace, error) {
	select {
	case s.working <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%d requests are being worked on: %w", cap(s.working), ctx.Err())
	}
	s.mu.Lock()
	var w *workspace
	if last := len(s.idle) - 1; last >= 0 {
		w, s.idle = s.idle[last], s.idle[:last]
	}
	s.mu.Unlock()
	if w != nil {
		return w, nil
	}
	w, err := s.newWorkspace()
	if err != nil {
		<-s.working
	}
	return w, err
}

// keysKept is how large a batch may have been whose memory is kept for another request:
// with 16 factors at most 10 MB. Larger ones are rare, and would hold the memory for ever.
const keysKept = 1 << 17

func (s *Scorer) release(w *workspace) {
	w.events.clear()
	w.reset()
	if w.query != nil {
		w.query.events.clear()
	}
	if cap(w.batch.Keys) <= keysKept {
		s.mu.Lock()
		s.idle = append(s.idle, w)
		s.mu.Unlock()
	}
	<-s.working
}

// served says what the pulls that follow will be computed from.
func (s *Scorer) served() Served {
	return Served{Version: s.config.Model.Version, Fresh: s.config.Parameters.Fresh()}
}

// Predict scores events, in order. It is refused as a whole only for what is wrong with its
// columns.
func (s *Scorer) Predict(ctx context.Context, columns []Column) ([]Prediction, Served, error) {
	w, err := s.acquire(ctx)
	if err != nil {
		return nil, Served{}, err
	}
	defer s.release(w)
	if err := s.given(w.events, columns); err != nil {
		return nil, Served{}, err
	}
	w.share()
	for i := range w.events.n {
		if err := w.extract(i, &s.config.Limits); err != nil {
			return nil, Served{}, err
		}
	}
	served := s.served()
	if err := w.score(ctx); err != nil {
		return nil, Served{}, err
	}
	predictions := make([]Prediction, w.events.n)
	for i := range predictions {
		predictions[i] = w.prediction(i)
	}
	return predictions, served, nil
}

// given makes events of a request's columns.
func (s *Scorer) given(v *events, columns []Column) error {
	if len(columns) == 0 {
		return fmt.Errorf("no columns, so no event: give at least one of %s: %w", listed(s.schema.names), ps.ErrInvalid)
	}
	if err := v.add(columns, nil); err != nil {
		return err
	}
	return s.bounded(v)
}

// bounded ends adding columns, and refuses what is too much.
func (s *Scorer) bounded(v *events) error {
	v.begin()
	limits := &s.config.Limits
	switch {
	case v.n > limits.Events:
		return fmt.Errorf("%d events, at most %d are scored at a time: %w", v.n, limits.Events, ps.ErrTooLarge)
	case v.bytes > limits.Bytes:
		return fmt.Errorf("%d bytes of values, a request has at most %d: %w", v.bytes, limits.Bytes, ps.ErrTooLarge)
	}
	return nil
}

// share lets what all events have in common be extracted once.
func (w *workspace) share() {
	w.extractor.Share(w.events.shared[:w.events.asked], w.events.sharedClock())
}

// extract appends event i to the batch.
func (w *workspace) extract(i int, limits *Limits) error {
	w.errs = append(w.errs, w.extractor.Append(&w.batch, w.events.get(i)))
	return limits.keys(len(w.batch.Keys))
}

// keys refuses more keys than a request may have.
func (l *Limits) keys(n int) error {
	if n > l.Keys {
		return fmt.Errorf("its events have more than %d values of features: %w", l.Keys, ps.ErrTooLarge)
	}
	return nil
}
