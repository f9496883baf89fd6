package model_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/gonum"
	"gonum.org/v1/gonum/diff/fd"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/model/sgemm"
	"github.com/freshet-ml/freshet/worker/spec"
)

const shards = 4

func TestMain(m *testing.M) {
	blas32.Use(sgemm.Implementation{})
	m.Run()
}

// feature is a key and a value.
type feature struct {
	key ps.Key
	x   float32
}

// event is a labelled, weighted example.
type event struct {
	role          worker.Role
	label, weight float32
	features      []feature
}

// fields is how many the networks with layers have. In an event's features they take
// turns, with one that belongs to none.
const fields = 3

func batchOf(events []event) (*worker.Batch, *ps.Group) {
	var b worker.Batch
	b.Reset(0, 0, 0)
	for _, e := range events {
		for i, f := range e.features {
			b.AddFeature(f.key, f.x)
			field := uint16(i % (fields + 1))
			if field == fields {
				field = worker.NoField
			}
			b.Fields = append(b.Fields, field)
		}
		b.Close(e.role, e.label, e.weight, 0)
	}
	var g ps.Group
	g.Fill(b.Keys, shards)
	return &b, &g
}

// network is a network of a spec.
type network struct {
	model.Network
	spec *spec.Spec
}

func specOf(n spec.Network) *spec.Spec {
	return &spec.Spec{Seed: 5, Network: n, Features: []spec.Feature{{Name: "a"}, {Name: "x", CrossOnly: true}, {Name: "b", Kind: spec.Tokens, Fields: fields - 1}}}
}

func newNetwork(t testing.TB, n spec.Network) network {
	t.Helper()
	made := network{spec: specOf(n)}
	var err error
	if made.Network, err = model.New(made.spec); err != nil {
		t.Fatal(err)
	}
	return made
}

// newRows returns rows of zeros, or random ones. The rows of layers are such that every
// unit is far from where it is rectified, whatever the event, on either side: there a
// score has a derivative.
func newRows(n network, keys int, rng *rand.Rand) [][]float32 {
	rows := make([][]float32, len(n.Widths()))
	for t, width := range n.Widths() {
		size, spread := keys, 0.5
		if layer := t - n.spec.FeatureTables(); layer >= 0 {
			size, spread = n.spec.Dense()[layer].Rows, 0.1
		}
		rows[t] = make([]float32, size*width)
		for i := range rows[t] {
			if rng == nil {
				continue
			}
			rows[t][i] = float32(rng.NormFloat64() * spread)
			if n.spec.Network.HasTower() && t == len(rows)-1 { // biases
				rows[t][i] += []float32{2, 1.5, -2}[i%3]
			}
		}
	}
	return rows
}

// learned sets scores to those that the network is learned by.
func (n network) learned(b *worker.Batch, index []int32, rows [][]float32, scores []float32) {
	if !n.Thinned(b, index, rows, scores) {
		n.Scores(b, index, rows, scores)
	}
}

func TestByHand(t *testing.T) {
	// The distinct keys are 1, 2, 3 in this order: all fall into shard 0.
	b, g := batchOf([]event{
		{features: []feature{{1, 1}, {2, 2}}},
		{features: nil},
		{features: []feature{{3, 0.5}, {3, 0.5}, {1, -1}}},
	})
	dscores := []float32{1, 1, 2}
	for _, c := range []struct {
		name    string
		network spec.Network
		rows    [][]float32
		scores  []float32
		grads   [][]float32
	}{
		{
			name:    "logistic is the sum of weights times values",
			network: spec.Network{Kind: spec.Logistic},
			rows:    [][]float32{{10, 20, 30}},
			scores:  []float32{10 + 2*20, 0, 30 - 10},
			grads:   [][]float32{{1 - 2, 2, 2}},
		},
		{
			name:    "fm adds every pair's product",
			network: spec.Network{Kind: spec.FM, Factors: 2},
			rows:    [][]float32{{10, 20, 30}, {1, 2 /**/, 3, 4 /**/, 5, 6}},
			scores: []float32{
				50 + 2*(1*3+2*4),
				0,
				20 + 0.25*(25+36) - 2*0.5*(5+12), // a key that occurs twice pairs with itself
			},
			grads: [][]float32{
				{-1, 2, 2},
				{
					2*3 - 2*5, 2*4 - 2*6, // from event 0: v_2 x_1 x_2; from event 2: −v_3 x, twice
					2 * 1, 2 * 2,
					2 * (2*0.25*5 - 2*0.5*1), 2 * (2*0.25*6 - 2*0.5*2),
				},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(t, c.network)
			scores := make([]float32, 3)
			n.Scores(b, g.Index, c.rows, scores)
			if diff := cmp.Diff(c.scores, scores); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}
			grads := newRows(n, len(g.Keys), nil)
			n.Gradients(b, g.Index, c.rows, dscores, grads)
			if diff := cmp.Diff(c.grads, grads); diff != "" {
				t.Errorf("gradients (-want +got):\n%s", diff)
			}
		})
	}
}

// networks to try everything with.
var networks = []spec.Network{
	{Kind: spec.Logistic},
	{Kind: spec.FM, Factors: 1},
	{Kind: spec.FM, Factors: 5},
	{Kind: spec.FM, Factors: 16},
	{Kind: spec.DeepFM, Factors: 4, Hidden: []int{5, 7}},
	{Kind: spec.DeepFM, Factors: 8, Hidden: []int{9, 6}, Dropout: 0.4},
	{Kind: spec.MLP, Factors: 3, Hidden: []int{6}},
	{Kind: spec.MLP, Factors: 16, Hidden: []int{4, 3, 5}, Dropout: 0.25},
}

// someEvents has repeated keys, values other than 1, weights other than 1, and
// events without features, held out, and skipped.
func someEvents(rng *rand.Rand, n int) []event {
	events := make([]event, n)
	for i := range events {
		e := &events[i]
		e.label, e.weight = float32(rng.IntN(2)), float32(rng.IntN(4))/2
		e.role = worker.Role(rng.IntN(6))
		if e.role > worker.Skip {
			e.role = worker.Train
		}
		if i%5 == 4 {
			continue
		}
		for range 1 + rng.IntN(5) {
			e.features = append(e.features, feature{ps.Key(rng.IntN(6)) << 62, float32(rng.NormFloat64())})
		}
		e.features = append(e.features, e.features[0], feature{ps.Key(rng.IntN(6)), 1})
	}
	return events
}

func TestGradients(t *testing.T) {
	const seed = 11
	for _, n := range networks {
		for _, loss := range []model.Loss{model.Log, model.Squared} {
			t.Run(fmt.Sprintf("%s with %d factors under %v agrees with differences", n.Kind, n.Factors, loss), func(t *testing.T) {
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, uint64(n.Factors)))
				events := someEvents(rng, 20)
				b, g := batchOf(events)
				network := newNetwork(t, n)
				rows := newRows(network, len(g.Keys), rng)
				scores := make([]float32, len(events))

				// total is the loss to be learned from, as a function of all rows.
				total := func(flat []float64) (sum float64) {
					changed := newRows(network, len(g.Keys), nil)
					for _, table := range changed {
						for i := range table {
							table[i], flat = float32(flat[0]), flat[1:]
						}
					}
					network.learned(b, g.Index, changed, scores)
					for i, s := range scores {
						if b.Roles[i] == worker.Train {
							sum += float64(b.Weights[i]) * loss.Value(s, b.Labels[i])
						}
					}
					return sum
				}
				want := fd.Gradient(nil, total, flatten(rows), &fd.Settings{Formula: fd.Central, Step: 1.0 / 128})

				network.learned(b, g.Index, rows, scores)
				dscores := make([]float32, len(events))
				for i, s := range scores {
					if b.Roles[i] == worker.Train {
						dscores[i] = b.Weights[i] * float32(loss.Gradient(s, b.Labels[i]))
					}
				}
				grads := newRows(network, len(g.Keys), nil)
				network.Gradients(b, g.Index, rows, dscores, grads)
				// Rows and scores are rounded to 2^-24 of their size, the step is
				// 2^-7, and the third derivative is below 0.1 per event.
				if diff := cmp.Diff(want, flatten(grads), cmpopts.EquateApprox(1e-3, 2e-3)); diff != "" {
					t.Errorf("gradients (-by differences +got):\n%s", diff)
				}
			})
		}
	}
}

func flatten(rows [][]float32) (flat []float64) {
	for _, table := range rows {
		for _, v := range table {
			flat = append(flat, float64(v))
		}
	}
	return flat
}

func TestFMAgainstItsDefinition(t *testing.T) {
	const seed, k = 3, 8
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	events := someEvents(rng, 50)
	b, g := batchOf(events)
	n := newNetwork(t, spec.Network{Kind: spec.FM, Factors: k})
	rows := newRows(n, len(g.Keys), rng)
	scores := make([]float32, len(events))
	n.Scores(b, g.Index, rows, scores)
	for i, got := range scores {
		var want, size float64 // of the score and of its terms
		add := func(v float64) { want, size = want+v, size+math.Abs(v) }
		from, to := b.Starts[i], b.Starts[i+1]
		for j := from; j < to; j++ {
			add(float64(rows[0][g.Index[j]]) * float64(b.Values[j]))
			for l := from; l < j; l++ {
				for f := range int32(k) {
					add(float64(rows[1][g.Index[j]*k+f]) * float64(rows[1][g.Index[l]*k+f]) * float64(b.Values[j]) * float64(b.Values[l]))
				}
			}
		}
		// The score is rounded once, to float32.
		if math.Abs(float64(got)-want) > 1e-7*size {
			t.Errorf("event %d: score %v, want %v", i, got, want)
		}
	}
}

func TestGradientsAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	b, g := batchOf(someEvents(rng, 20))
	for _, n := range networks {
		t.Run(n.Kind+" of halves of the events", func(t *testing.T) {
			network := newNetwork(t, n)
			rows := newRows(network, len(g.Keys), rng)
			all, even, odd := make([]float32, 20), make([]float32, 20), make([]float32, 20)
			for i := range all {
				all[i] = float32(rng.NormFloat64())
				if i%2 == 0 {
					even[i] = all[i]
				} else {
					odd[i] = all[i]
				}
			}
			want, got := newRows(network, len(g.Keys), nil), newRows(network, len(g.Keys), nil)
			network.learned(b, g.Index, rows, make([]float32, len(all)))
			network.Gradients(b, g.Index, rows, all, want)
			network.Gradients(b, g.Index, rows, even, got)
			network.Gradients(b, g.Index, rows, odd, got)
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-4, 1e-5)); diff != "" {
				t.Errorf("(-at once +in halves):\n%s", diff)
			}
		})
	}
}

func TestNewRefusals(t *testing.T) {
	for _, n := range []spec.Network{
		{Kind: "deep"},
		{Kind: spec.FM},
		{Kind: spec.FM, Factors: ps.WidthMax + 1},
		{Kind: spec.DeepFM, Hidden: []int{3}},
		{Kind: spec.DeepFM, Factors: 3},
		{Kind: spec.MLP, Factors: 3, Hidden: []int{0}},
		{Kind: spec.MLP, Factors: 3, Hidden: []int{3}, Dropout: 1},
	} {
		if _, err := model.New(specOf(n)); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("New(%+v): %v, want %v", n, err, ps.ErrInvalid)
		}
	}
}

// naive is a product that allocates nothing, which gonum's does.
type naive struct{ gonum.Implementation }

func (naive) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	at := func(data []float32, t blas.Transpose, stride, i, j int) float32 {
		if t != blas.NoTrans {
			i, j = j, i
		}
		return data[i*stride+j]
	}
	for i := range m {
		for j := range n {
			sum := beta * c[i*ldc+j]
			for l := range k {
				sum += alpha * at(a, tA, lda, i, l) * at(b, tB, ldb, l, j)
			}
			c[i*ldc+j] = sum
		}
	}
}

func TestAllocations(t *testing.T) {
	defer blas32.Use(blas32.Implementation())
	blas32.Use(naive{})
	b, g, dscores := largeBatch()
	for _, n := range networks {
		t.Run(n.Kind+" allocates nothing", func(t *testing.T) {
			network := newNetwork(t, n)
			rows, grads := newRows(network, len(g.Keys), nil), newRows(network, len(g.Keys), nil)
			scores := make([]float32, len(dscores))
			if got := testing.AllocsPerRun(5, func() {
				network.learned(b, g.Index, rows, scores)
				network.Gradients(b, g.Index, rows, dscores, grads)
			}); got != 0 {
				t.Errorf("%v allocations per batch, want 0", got)
			}
		})
	}
}

// largeBatch has 256 events of 20 features.
func largeBatch() (*worker.Batch, *ps.Group, []float32) {
	rng := rand.New(rand.NewPCG(1, 0))
	events := make([]event, 256)
	for i := range events {
		for range 20 {
			events[i].features = append(events[i].features, feature{ps.Key(ps.Mix(uint64(rng.IntN(10000)))), 1})
		}
	}
	b, g := batchOf(events)
	dscores := make([]float32, len(events))
	for i := range dscores {
		dscores[i] = 0.25
	}
	return b, g, dscores
}

func BenchmarkDeepFM(b *testing.B) {
	const events, columns, factors = 512, 39, 16
	s := &spec.Spec{
		Seed:     1,
		Features: []spec.Feature{{Name: "f", Kind: spec.Tokens, Fields: columns}},
		Network:  spec.Network{Kind: spec.DeepFM, Factors: factors, Hidden: []int{512, 256, 128}},
	}
	rng := rand.New(rand.NewPCG(1, 0))
	made := make([]event, events)
	for i := range made {
		for range columns {
			made[i].features = append(made[i].features, feature{ps.Key(ps.Mix(rng.Uint64() % 6000)), 1})
		}
	}
	batch, g := batchOf(made)
	for i := range batch.Fields {
		batch.Fields[i] = uint16(i % columns)
	}
	scores, dscores := make([]float32, events), make([]float32, events)
	for i := range dscores {
		dscores[i] = 0.25
	}
	defer blas32.Use(blas32.Implementation())
	for _, product := range []struct {
		name string
		of   blas.Float32
	}{{"freshet", sgemm.Implementation{}}, {"gonum", gonum.Implementation{}}} {
		b.Run(fmt.Sprintf("product=%s/shape=624-512-256-128-1/batch=%d", product.name, events), func(b *testing.B) {
			blas32.Use(product.of)
			made := network{spec: s}
			var err error
			if made.Network, err = model.New(s); err != nil {
				b.Fatal(err)
			}
			rows, grads := newRows(made, len(g.Keys), rng), newRows(made, len(g.Keys), nil)
			for b.Loop() {
				made.Scores(batch, g.Index, rows, scores)
				made.Gradients(batch, g.Index, rows, dscores, grads)
			}
			b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkNetwork(b *testing.B) {
	batch, g, dscores := largeBatch()
	for _, n := range []spec.Network{{Kind: spec.Logistic}, {Kind: spec.FM, Factors: 8}, {Kind: spec.FM, Factors: 16}} {
		b.Run(fmt.Sprintf("%s/factors=%d/features=20", n.Kind, n.Factors), func(b *testing.B) {
			network := newNetwork(b, n)
			rows, grads := newRows(network, len(g.Keys), nil), newRows(network, len(g.Keys), nil)
			scores := make([]float32, len(dscores))
			for b.Loop() {
				network.Scores(batch, g.Index, rows, scores)
				network.Gradients(batch, g.Index, rows, dscores, grads)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(dscores)), "ns/event")
		})
	}
}
