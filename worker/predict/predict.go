// Package predict turns events into what the model says of them, with pulled rows: it is
// all that an inference pod computes, and knows neither networks nor protocols.
//
// A Scorer answers requests (Predictions) and is safe for concurrent use; a Predictor
// scores events that are read from a stream. The words of requests are in request.go.
//
// The one idea to keep in mind: learning and serving cannot differ, because there is one
// code for both. The text of a request's columns is masked, its time parsed and its
// features extracted by what the trainer uses, and its score is the trainer's network's.
// So the same event has the same score to the last bit, whether it stands in a stream or
// in a request.
//
// Invariants:
//
//  1. A request pulls once, after it asked how fresh the rows are. Only the vectors of
//     items are older than what it says; see Retrieve.
//  2. What is wrong with one event is said of it alone; the others of its request have the
//     scores that they would have without it.
//  3. A request leaves nothing behind that the next could see.
//  4. Reasons hold nothing of an event's text.
//
// See DESIGN.md for why.
package predict

import (
	"context"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Params is where rows come from.
type Params interface {
	// Pull fills the reads' values, as ps/client does.
	Pull(ctx context.Context, model string, layout uint64, reads []ps.Read) error
}

// Config is what a predictor needs.
type Config struct {
	Model ps.Model
	Spec  *spec.Spec
	// Columns are the events' columns, in order; those that the spec needs must be
	// among them.
	Columns []string
	// Shards is the number of the cluster's shards.
	Shards int
	Params Params
}

// Prediction is what the model says about one event.
type Prediction struct {
	// Score is the network's output; Value is what it predicts: a probability
	// under the log loss, the score itself under the squared loss.
	Score float32
	Value float64
	// Err wraps worker.ErrUnreadable if the event cannot be used, or says that its score is
	// no finite number.
	Err error
}

// Predictor predicts batches of events. It has one owner at a time.
type Predictor struct {
	extractor *feature.Extractor
	scoring   *scoring
}

// New returns a predictor. It returns ps.ErrInvalid if the columns lack one that
// the spec needs, and ps.ErrModelMismatch if the model is of another spec.
func New(c Config) (*Predictor, error) {
	from, err := newOrigin(c.Model, c.Spec, c.Shards, c.Params)
	if err != nil {
		return nil, err
	}
	extractor, err := feature.NewUnlabelled(c.Spec, c.Columns)
	if err != nil {
		return nil, err
	}
	dense, err := model.NewDense(c.Spec, c.Shards)
	if err != nil {
		return nil, err
	}
	scoring, err := newScoring(from, c.Spec, dense)
	return &Predictor{extractor: extractor, scoring: scoring}, err
}

// Append adds an event to those that Predict will score. The event's memory is the
// caller's again when it returns.
func (p *Predictor) Append(e *worker.Event) {
	p.scoring.errs = append(p.scoring.errs, p.extractor.Append(&p.scoring.batch, e))
}

// Predict pulls the rows of the appended events at once, appends one prediction per
// event to into, in order, and forgets the events. After an error of the pull the
// events are forgotten too.
func (p *Predictor) Predict(ctx context.Context, into []Prediction) ([]Prediction, error) {
	defer p.scoring.reset()
	if err := p.scoring.score(ctx); err != nil {
		return into, err
	}
	for i := range p.scoring.scores {
		into = append(into, p.scoring.prediction(i))
	}
	return into, nil
}
