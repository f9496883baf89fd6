package predict_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
)

const shards = 8

// rows are parameters that say of every key half its lowest three bits.
type rows struct {
	pulls int
	err   error
}

func weight(key ps.Key) float32 { return float32(key&7) / 2 }

func (r *rows) Pull(_ context.Context, _ string, _ uint64, reads []ps.Read) error {
	r.pulls++
	for i := range reads {
		weights := make([]float32, len(reads[i].Group.Keys))
		for k, key := range reads[i].Group.Keys {
			weights[k] = weight(key)
		}
		reads[i].Values = ps.Bytes(weights)
	}
	return r.err
}

func newPredictor(t *testing.T, params predict.Params, columns ...string) (*predict.Predictor, error) {
	t.Helper()
	s, err := spec.Parse("test.yaml", []byte(`
model: test
stream: {format: csv}
label: {column: clicked}
features: [{name: item, column: item}, {name: price, column: price, log: 2}]
network: {kind: logistic, constant: false}
`))
	if err != nil {
		t.Fatal(err)
	}
	return predict.New(predict.Config{
		Model: ps.Model{Name: "test", Version: 1, Layout: s.Layout(eval.Tables())}, Spec: s, Columns: columns, Shards: shards, Params: params,
	})
}

func event(item, price string) *worker.Event {
	return &worker.Event{Columns: [][]byte{[]byte(item), []byte(price)}}
}

func TestPredictionsAreTheNetworksScoresInOrder(t *testing.T) {
	params := &rows{}
	p, err := newPredictor(t, params, "item", "price")
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // the predictor is used again
		p.Append(event("a", "3"))
		p.Append(event("b", "not a number"))
		p.Append(event("c", "100"))
		got, err := p.Predict(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 || params.pulls != round+1 {
			t.Fatalf("%d predictions with %d pulls, want 3 with one pull a round", len(got), params.pulls)
		}
		for i, want := range map[int]float32{
			0: weight(feature.Key("item", []byte("a"))) + weight(feature.Key("price", []byte("2"))), // floor(log2(1+3))
			2: weight(feature.Key("item", []byte("c"))) + weight(feature.Key("price", []byte("6"))), // floor(log2(1+100))
		} {
			if got[i].Err != nil || math.Abs(float64(got[i].Score-want)) > 1e-6 {
				t.Errorf("event %d has score %v (%v), want %v", i, got[i].Score, got[i].Err, want)
			}
			if p := 1 / (1 + math.Exp(-float64(want))); math.Abs(got[i].Value-p) > 1e-6 {
				t.Errorf("event %d has probability %v, want %v", i, got[i].Value, p)
			}
		}
		if !errors.Is(got[1].Err, worker.ErrUnreadable) {
			t.Errorf("an event whose price is no number gave %+v, want ErrUnreadable", got[1])
		}
	}
}

func TestAFailedPullForgetsItsEvents(t *testing.T) {
	params := &rows{err: ps.ErrUnavailable}
	p, err := newPredictor(t, params, "item", "price")
	if err != nil {
		t.Fatal(err)
	}
	p.Append(event("a", "3"))
	if _, err := p.Predict(t.Context(), nil); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	params.err = nil
	p.Append(event("b", "4"))
	if got, err := p.Predict(t.Context(), nil); err != nil || len(got) != 1 {
		t.Errorf("after a failed pull the next gave %d predictions (%v), want 1", len(got), err)
	}
}

func TestAMissingColumnIsNamed(t *testing.T) {
	if _, err := newPredictor(t, &rows{}, "item"); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("without the column price: %v, want ErrInvalid", err)
	}
}

func TestLayersArePulledWithTheFeatures(t *testing.T) {
	s, err := spec.Parse("test.yaml", []byte(`
model: test
stream: {format: csv}
label: {column: clicked}
features: [{name: item, column: item}, {name: price, column: price, log: 2}]
network: {kind: deepfm, factors: 2, hidden: [3, 2], dropout: 0.5}
`))
	if err != nil {
		t.Fatal(err)
	}
	layout := s.Layout(eval.Tables())
	p, err := predict.New(predict.Config{
		Model: ps.Model{Name: "test", Version: 1, Layout: layout}, Spec: s, Columns: []string{"item", "price"}, Shards: shards, Params: initial{t, layout},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Append(event("a", "3"))
	got, err := p.Predict(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// By hand, with every row i of every layer i+1, biases 1, and factors and linear weights 1.
	pairs := float32(2 * 3) // three features, the constant too, of two factors
	hidden1 := float32((1+2+3+4)*1 + 1)
	hidden2 := hidden1*(1+2+3) + 1
	if want := 3 + pairs + 2*hidden2; math.Abs(float64(got[0].Score-want)) > 1e-3 {
		t.Errorf("score %v, want %v", got[0].Score, want)
	}
}

// initial are parameters whose rows of layers are all of their number, from 1, and whose
// other weights are 1.
type initial struct {
	t      *testing.T
	layout ps.Layout
}

func (p initial) Pull(_ context.Context, _ string, _ uint64, reads []ps.Read) error {
	for i := range reads {
		table := p.layout.Tables[reads[i].Table]
		var weights []float32
		for _, key := range reads[i].Group.Keys {
			value := float32(1)
			for row := range 4 {
				if table.Name != spec.LinearTable && table.Name != spec.FactorsTable && table.Name != spec.BiasesTable && (spec.Dense{Table: table}).Key(row) == key {
					value = float32(row + 1)
				}
			}
			for range table.Width {
				weights = append(weights, value)
			}
		}
		reads[i].Values = ps.Bytes(weights)
	}
	return nil
}
