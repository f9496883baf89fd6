// Package predict turns events into predictions with pulled rows. Features are
// extracted by the spec, with the code that the trainer uses, so that learning and
// serving cannot differ.
package predict

import (
	"context"
	"fmt"

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
	// Err wraps worker.ErrUnreadable if the event cannot be used.
	Err error
}

// Predictor predicts batches of events. It has one owner at a time.
type Predictor struct {
	config    Config
	layout    uint64
	extractor *feature.Extractor
	network   model.Network
	dense     *model.Dense
	loss      model.Loss

	batch   worker.Batch
	group   ps.Group
	reads   []ps.Read
	weights [][]float32
	scores  []float32
	errs    []error
}

// New returns a predictor. It returns ps.ErrInvalid if the columns lack one that
// the spec needs.
func New(c Config) (*Predictor, error) {
	if err := ps.ValidShards(c.Shards); err != nil {
		return nil, err
	}
	extractor, err := feature.NewUnlabelled(c.Spec, c.Columns)
	if err != nil {
		return nil, err
	}
	network, err := model.New(c.Spec)
	if err != nil {
		return nil, err
	}
	loss, err := model.NewLoss(c.Spec.Loss)
	if err != nil {
		return nil, err
	}
	p := &Predictor{config: c, layout: c.Model.Layout.Hash(), extractor: extractor, network: network, loss: loss}
	features := c.Spec.FeatureTables()
	for i, table := range c.Model.Layout.Tables[:features] {
		p.reads = append(p.reads, ps.Read{Table: ps.TableID(i), RowBytes: table.RowBytes(), Group: &p.group})
	}
	if p.dense, err = model.NewDense(c.Spec, c.Shards); err != nil {
		return nil, err
	}
	p.reads = p.dense.AppendReads(p.reads, ps.TableID(features))
	p.weights = make([][]float32, len(p.reads))
	for t := range p.dense.Tables() {
		p.weights[features+t] = make([]float32, p.dense.Len(t))
	}
	p.batch.Reset(0, 0, 0)
	return p, nil
}

// Append adds an event to those that Predict will score. The event's memory is the
// caller's again when it returns.
func (p *Predictor) Append(e *worker.Event) {
	p.errs = append(p.errs, p.extractor.Append(&p.batch, e))
}

// Predict pulls the rows of the appended events at once, appends one prediction per
// event to into, in order, and forgets the events. After an error of the pull the
// events are forgotten too.
func (p *Predictor) Predict(ctx context.Context, into []Prediction) ([]Prediction, error) {
	defer func() {
		p.batch.Reset(0, 0, 0)
		p.errs = p.errs[:0]
	}()
	p.group.Fill(p.batch.Keys, p.config.Shards)
	if err := p.config.Params.Pull(ctx, p.config.Model.Name, p.layout, p.reads); err != nil {
		return into, fmt.Errorf("pull for %d predictions of model %q: %w", len(p.errs), p.config.Model.Name, err)
	}
	features := len(p.reads) - p.dense.Tables()
	for t := range features {
		p.weights[t] = ps.View[float32](p.reads[t].Values)
	}
	for t := range p.dense.Tables() {
		p.dense.Order(t, ps.View[float32](p.reads[features+t].Values), p.weights[features+t])
	}
	if cap(p.scores) < p.batch.Len() {
		p.scores = make([]float32, p.batch.Len())
	}
	p.scores = p.scores[:p.batch.Len()]
	p.network.Scores(&p.batch, p.group.Index, p.weights, p.scores)
	for i, score := range p.scores {
		if p.errs[i] != nil {
			into = append(into, Prediction{Err: p.errs[i]})
			continue
		}
		into = append(into, Prediction{Score: score, Value: p.loss.Prediction(score)})
	}
	return into, nil
}
