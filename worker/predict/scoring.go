package predict

import (
	"context"
	"errors"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
)

// origin is where a model's rows come from.
type origin struct {
	model  ps.Model
	layout uint64 // its hash
	shards int
	params Params
}

func newOrigin(m ps.Model, s *spec.Spec, shards int, params Params) (origin, error) {
	if err := ps.ValidShards(shards); err != nil {
		return origin{}, err
	}
	if have, want := len(m.Layout.Tables), s.NetworkTables(); have < want {
		return origin{}, fmt.Errorf("model %q has %d tables, the network of its spec %d: %w", m.Name, have, want, ps.ErrModelMismatch)
	}
	return origin{m, m.Layout.Hash(), shards, params}, nil
}

// rows are the rows of a batch's features. They have one owner.
type rows struct {
	origin
	group   ps.Group
	reads   []ps.Read // the tables of features first
	weights [][]float32
}

func newRows(o origin, s *spec.Spec) *rows {
	r := &rows{origin: o}
	for i, table := range o.model.Layout.Tables[:s.FeatureTables()] {
		r.reads = append(r.reads, ps.Read{Table: ps.TableID(i), RowBytes: table.RowBytes(), Group: &r.group})
	}
	r.weights = make([][]float32, len(r.reads))
	return r
}

// pull fills weights with the rows of keys, whose places are in group.
func (r *rows) pull(ctx context.Context, keys []ps.Key) error {
	r.group.Fill(keys, r.shards)
	if err := r.params.Pull(ctx, r.model.Name, r.layout, r.reads); err != nil {
		return fmt.Errorf("pull %d rows of model %q: %w", len(r.group.Keys), r.model.Name, err)
	}
	for t := range r.weights {
		r.weights[t] = ps.View[float32](r.reads[t].Values)
	}
	return nil
}

// errNotFinite is what is wrong with an event whose score is infinite or NaN.
var errNotFinite = errors.New("the score is no finite number: the model has diverged")

// scoring turns batches into scores. It has one owner.
type scoring struct {
	*rows
	features int          // how many of the tables are of features
	dense    *model.Dense // the tables behind them
	layers   [][]float32  // in the order that the network wants
	network  model.Network
	loss     model.Loss

	batch  worker.Batch
	errs   []error // by event: why it cannot be used
	scores []float32
}

// newScoring returns an empty scoring. The layers' places may be shared by several.
func newScoring(o origin, s *spec.Spec, dense *model.Dense) (*scoring, error) {
	network, err := model.New(s)
	if err != nil {
		return nil, err
	}
	loss, err := model.NewLoss(s.Loss)
	if err != nil {
		return nil, err
	}
	c := &scoring{rows: newRows(o, s), features: s.FeatureTables(), dense: dense, network: network, loss: loss}
	c.reads = dense.AppendReads(c.reads, ps.TableID(c.features))
	c.weights = make([][]float32, len(c.reads))
	c.layers = make([][]float32, dense.Tables())
	for t := range c.layers {
		c.layers[t] = make([]float32, dense.Len(t))
	}
	c.reset()
	return c, nil
}

// reset forgets all events.
func (c *scoring) reset() {
	c.batch.Reset(0, 0, 0)
	c.errs = c.errs[:0]
}

// score pulls what the batch needs, at once, and fills scores.
func (c *scoring) score(ctx context.Context) error {
	if c.batch.Len() == 0 {
		c.scores = c.scores[:0]
		return nil
	}
	if err := c.pull(ctx, c.batch.Keys); err != nil {
		return fmt.Errorf("for %d predictions: %w", c.batch.Len(), err)
	}
	for t, layer := range c.layers {
		c.dense.Order(t, c.weights[c.features+t], layer)
		c.weights[c.features+t] = layer
	}
	if n := c.batch.Len(); cap(c.scores) < n {
		c.scores = make([]float32, n, n+n/4)
	}
	c.scores = c.scores[:c.batch.Len()]
	c.network.Scores(&c.batch, c.group.Index, c.weights, c.scores)
	return nil
}

// prediction returns what was computed of event i.
func (c *scoring) prediction(i int) Prediction {
	if err := c.errs[i]; err != nil {
		return Prediction{Err: err}
	}
	score := c.scores[i]
	if !finite(score) {
		return Prediction{Err: errNotFinite}
	}
	return Prediction{Score: score, Value: c.loss.Prediction(score)}
}

func finite(x float32) bool { return x-x == 0 }
