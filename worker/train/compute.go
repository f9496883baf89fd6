package train

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/spec"
)

// computer turns pulled rows into contributions. It has one owner; its memory is
// reused from batch to batch.
type computer struct {
	config  *Config
	shards  int
	network model.Network
	loss    model.Loss
	tally   *eval.Tally

	widths    []int        // of the network's tables that have a row per feature's value
	dense     *model.Dense // those of its layers, which follow them
	figures   ps.TableID
	histogram ps.TableID
	audit     ps.TableID
	audited   bool

	weights   [][]float32 // the flight's pulled rows, by table
	gradients [][]float32 // by table, (unique keys or a layer's rows, width)
	scores    []float32
	slopes    []float32 // dLoss/dScore
	touched   []bool    // unique keys that a trained event has
	counts    []uint64  // unique keys' trained events
	lastEvent []int32   // unique keys' last counted event, plus 1

	figuresGroup, histogramGroup   ps.Group
	figuresValues, histogramValues []float64 // in the groups' order
}

func newComputer(s *session) (*computer, error) {
	config := &s.t.config
	network, err := model.New(config.Spec)
	if err != nil {
		return nil, err
	}
	loss, err := model.NewLoss(config.Spec.Loss)
	if err != nil {
		return nil, err
	}
	c := &computer{config: config, shards: s.shards, network: network, loss: loss, tally: eval.NewTally(loss == model.Log)}
	for _, t := range config.Model.Layout.Tables[:config.Spec.FeatureTables()] {
		c.widths = append(c.widths, t.Width)
	}
	c.dense = s.dense
	c.gradients = make([][]float32, len(c.widths)+c.dense.Tables())
	c.weights = make([][]float32, len(c.gradients))
	for t := range c.dense.Tables() {
		c.weights[len(c.widths)+t] = make([]float32, c.dense.Len(t))
	}
	var ok bool
	if c.figures, _, ok = config.Model.Layout.Table(eval.FiguresTable); !ok {
		return nil, fmt.Errorf("layout has no table %q: %w", eval.FiguresTable, ps.ErrModelMismatch)
	}
	if c.histogram, _, ok = config.Model.Layout.Table(eval.HistogramTable); !ok {
		return nil, fmt.Errorf("layout has no table %q: %w", eval.HistogramTable, ps.ErrModelMismatch)
	}
	c.audit, _, c.audited = config.Model.Layout.Table(spec.AuditTable)
	return c, nil
}

// contribute computes the rows of f's items: score first, then learn.
func (c *computer) contribute(f *flight) error {
	b := &f.batch
	n := b.Len()
	for t, width := range c.widths {
		c.weights[t] = ps.View[float32](f.reads[t].Values)
		c.gradients[t] = zeroed(c.gradients[t], len(f.group.Keys)*width)
	}
	for i := range c.dense.Tables() {
		t := len(c.widths) + i
		c.dense.Order(i, ps.View[float32](f.reads[t].Values), c.weights[t])
		c.gradients[t] = zeroed(c.gradients[t], c.dense.Len(i))
	}
	c.scores = zeroed(c.scores, n)
	c.slopes = zeroed(c.slopes, n)
	c.network.Scores(b, f.group.Index, c.weights, c.scores)
	if err := c.measure(f); err != nil {
		return err
	}
	if c.network.Thinned(b, f.group.Index, c.weights, c.scores) {
		if err := c.slope(b); err != nil {
			return err
		}
	}
	c.network.Gradients(b, f.group.Index, c.weights, c.slopes, c.gradients)
	c.touch(f)
	c.tallyByShard()
	f.contribution.reset()
	for i := range f.items {
		c.fill(&f.items[i], f)
	}
	return nil
}

// slope fills the slopes of trained events anew, by scores other than those measured.
func (c *computer) slope(b *worker.Batch) error {
	for i, role := range b.Roles {
		if role != worker.Train {
			continue
		}
		if err := c.setSlope(b, i, c.loss.Gradient(c.scores[i], b.Labels[i])); err != nil {
			return err
		}
	}
	return nil
}

// setSlope sets the slope of trained event i by the loss's gradient.
func (c *computer) setSlope(b *worker.Batch, i int, gradient float64) error {
	c.slopes[i] = float32(gradient) * b.Weights[i]
	if !finite(c.slopes[i]) {
		return fmt.Errorf("%w: gradient %v at partition %d, offset %d: the label or the importance is too large", ErrDiverged, c.slopes[i], b.Partition, b.From+ps.Offset(i))
	}
	return nil
}

// measure fills the slopes of trained events and tallies the figures.
func (c *computer) measure(f *flight) error {
	b := &f.batch
	series := eval.Progressive
	if f.replaying {
		series = eval.Replayed
	}
	c.tally.Reset()
	measured := contribution.Figures(b)
	for i, role := range b.Roles {
		if role == worker.Skip || role == worker.Drop {
			continue
		}
		score := c.scores[i]
		if !finite(score) {
			return fmt.Errorf("%w: score %v at partition %d, offset %d: lower the learning rate", ErrDiverged, score, b.Partition, b.From+ps.Offset(i))
		}
		prediction, loss, gradient := c.loss.Judge(score, b.Labels[i])
		if role == worker.Train {
			if err := c.setSlope(b, i, gradient); err != nil {
				return err
			}
		}
		if !measured {
			continue
		}
		scored := eval.Scored{Label: b.Labels[i], Weight: b.Weights[i], Score: score, Prediction: prediction, Loss: loss}
		window := eval.WindowOf(b.Partition, b.From+ps.Offset(i), c.config.Spec.Evaluation.Window)
		c.tally.Add(series, window, scored)
		if role == worker.Hold {
			c.tally.Add(eval.HeldOut, window, scored)
		}
	}
	return nil
}

func finite(x float32) bool { return x-x == 0 }

// touch notes the keys that trained events have, and for the audit how many of these.
func (c *computer) touch(f *flight) {
	b := &f.batch
	c.touched = zeroed(c.touched, len(f.group.Keys))
	for i, role := range b.Roles {
		if role != worker.Train {
			continue
		}
		for _, at := range f.group.Index[b.Starts[i]:b.Starts[i+1]] {
			c.touched[at] = true
		}
	}
	if c.audited {
		c.count(f)
	}
}

// count counts the trained events of each key.
func (c *computer) count(f *flight) {
	b := &f.batch
	c.counts = zeroed(c.counts, len(f.group.Keys))
	c.lastEvent = zeroed(c.lastEvent, len(f.group.Keys))
	for i, role := range b.Roles {
		if role != worker.Train {
			continue
		}
		for _, at := range f.group.Index[b.Starts[i]:b.Starts[i+1]] {
			if c.lastEvent[at] != int32(i+1) {
				c.lastEvent[at] = int32(i + 1)
				c.counts[at]++
			}
		}
	}
}

// tallyByShard groups the tallied figures by shard.
func (c *computer) tallyByShard() {
	c.figuresValues = regroup(&c.figuresGroup, &c.tally.Figures, c.figuresValues, c.shards)
	c.histogramValues = regroup(&c.histogramGroup, &c.tally.Histogram, c.histogramValues, c.shards)
}

// regroup makes group the group of the increments' keys and returns their values
// in its order.
func regroup(group *ps.Group, from *eval.Increments, values []float64, shards int) []float64 {
	group.Fill(from.Keys, shards)
	values = zeroed(values, len(from.Values))
	if len(from.Keys) == 0 {
		return values
	}
	width := len(from.Values) / len(from.Keys)
	for i, at := range group.Index {
		copy(values[int(at)*width:(int(at)+1)*width], from.Values[i*width:(i+1)*width])
	}
	return values
}

// fill sets an item's rows: the gradients of its shard's touched keys, its windows'
// figures, and the audit's counts.
func (c *computer) fill(item *ps.Item, f *flight) {
	r := &f.contribution
	start := len(r.rows)
	from, to := f.group.Shard(item.Shard)
	pulled := r.bitmap(c.touched[from:to])
	for t, width := range c.widths {
		keys, values := len(r.keys), len(r.float32s)
		for at := from; at < to; at++ {
			if c.touched[at] {
				r.keys = append(r.keys, f.group.Keys[at])
				r.float32s = append(r.float32s, c.gradients[t][at*width:(at+1)*width]...)
			}
		}
		if len(r.keys) > keys {
			r.add(ps.TableID(t), r.keys[keys:], ps.Bytes(r.float32s[values:]))
			r.rows[len(r.rows)-1].Pulled = pulled
		}
	}
	if item.Trained > 0 {
		c.fillDense(r, item.Shard)
	}
	c.fillFigures(r, c.figures, item.Shard, &c.figuresGroup, c.figuresValues)
	c.fillFigures(r, c.histogram, item.Shard, &c.histogramGroup, c.histogramValues)
	if c.audited {
		keys, values := len(r.keys), len(r.uint64s)
		for at := from; at < to; at++ {
			if c.touched[at] {
				r.keys = append(r.keys, f.group.Keys[at])
				r.uint64s = append(r.uint64s, c.counts[at])
			}
		}
		if len(r.keys) > keys {
			r.add(c.audit, r.keys[keys:], ps.Bytes(r.uint64s[values:]))
		}
	}
	item.Rows = r.rows[start:len(r.rows):len(r.rows)]
}

// fillDense adds the gradients of the layers' rows that a shard has: every trained event
// touches them all.
func (c *computer) fillDense(r *rows, shard ps.ShardID) {
	for i := range c.dense.Tables() {
		t, keys, values := len(c.widths)+i, len(r.keys), len(r.float32s)
		r.keys, r.float32s = c.dense.AppendShard(i, shard, c.gradients[t], r.keys, r.float32s)
		if len(r.keys) > keys {
			r.add(ps.TableID(t), r.keys[keys:], ps.Bytes(r.float32s[values:]))
		}
	}
}

func (c *computer) fillFigures(r *rows, table ps.TableID, shard ps.ShardID, group *ps.Group, values []float64) {
	from, to := group.Shard(shard)
	if to == from {
		return
	}
	width := len(values) / len(group.Keys)
	keys, start := len(r.keys), len(r.float64s)
	r.keys = append(r.keys, group.Keys[from:to]...)
	r.float64s = append(r.float64s, values[from*width:to*width]...)
	r.add(table, r.keys[keys:], ps.Bytes(r.float64s[start:]))
}

// rows is the memory of one flight's rows. Slices handed out stay valid when it
// grows, since growing leaves the old memory as it is.
type rows struct {
	rows     []ps.Rows
	keys     []ps.Key
	float32s []float32
	float64s []float64
	uint64s  []uint64
	bits     []byte
}

// bitmap returns which of some keys are touched, as Rows.Pulled wants it.
func (r *rows) bitmap(touched []bool) []byte {
	start := len(r.bits)
	for i, is := range touched {
		if i%8 == 0 {
			r.bits = append(r.bits, 0)
		}
		if is {
			r.bits[len(r.bits)-1] |= 1 << (i % 8)
		}
	}
	return r.bits[start:len(r.bits):len(r.bits)]
}

func (r *rows) reset() {
	r.rows, r.keys, r.bits = r.rows[:0], r.keys[:0], r.bits[:0]
	r.float32s, r.float64s, r.uint64s = r.float32s[:0], r.float64s[:0], r.uint64s[:0]
}

func (r *rows) add(table ps.TableID, keys []ps.Key, values []byte) {
	r.rows = append(r.rows, ps.Rows{Table: table, Keys: keys, Values: values})
}

// zeroed returns s with length n and all elements zero, reusing its memory where
// it can.
func zeroed[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	s = s[:n]
	clear(s)
	return s
}
