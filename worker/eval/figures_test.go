package eval_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/worker/eval"
)

// exactAUC is the definition: over all pairs of a positive and a negative.
func exactAUC(labels, scores []float64) float64 {
	var wins, pairs float64
	for i, y := range labels {
		for j, z := range labels {
			if y == 1 && z == 0 {
				pairs++
				switch {
				case scores[i] > scores[j]:
					wins++
				case scores[i] == scores[j]:
					wins += 0.5
				}
			}
		}
	}
	return wins / pairs
}

// figuresOf is what a cluster would hold after the events were pushed.
func figuresOf(t *testing.T, binary bool, events []eval.Scored) eval.Figures {
	t.Helper()
	c := newCluster(binary)
	c.push(eval.Progressive, 0, events)
	return c.summary(t, 0, len(events)).Figures(eval.Progressive)
}

func TestAUCFromBins(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, c := range []struct {
		name  string
		scale float64 // of the logits
		rate  float64 // shifts them
	}{
		{"of a usual click model", 1.5, -2},
		{"of rare clicks", 1, -4},
		{"of a confident model", 4, 0},
		{"of a model that knows little", 0.5, -1},
	} {
		t.Run("is exact to 1e-4 "+c.name, func(t *testing.T) {
			labels, scores := make([]float64, 100_000), make([]float64, 100_000)
			events := make([]eval.Scored, len(labels))
			for i := range events {
				score := float32(rng.NormFloat64()*c.scale + c.rate)
				if rng.Float64() < 1/(1+math.Exp(-float64(score))) {
					labels[i] = 1
				}
				scores[i] = float64(score)
				events[i] = eval.Scored{Label: float32(labels[i]), Weight: 1, Score: score}
			}
			f := figuresOf(t, true, events)
			got, ok := f.AUC()
			want, _ := eval.AUC(labels, scores)
			if !ok || math.Abs(got-want) > 1e-4 {
				t.Errorf("AUC = %v, %v, want %v within 1e-4", got, ok, want)
			}
		})
	}
}

func TestAUC(t *testing.T) {
	t.Run("agrees with its definition, over all pairs", func(t *testing.T) {
		const seed = 8
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		labels, scores := make([]float64, 1000), make([]float64, 1000)
		for i := range labels {
			scores[i] = float64(rng.IntN(300)) // many are equal
			labels[i] = float64(rng.IntN(2))
		}
		want := exactAUC(labels, scores)
		if got, ok := eval.AUC(labels, scores); !ok || math.Abs(got-want) > 1e-12 {
			t.Errorf("AUC = %v, %v, want %v", got, ok, want)
		}
	})
	for _, c := range []struct {
		name           string
		labels, scores []float64
		want           float64
		ok             bool
	}{
		{"is 1 if every positive is above every negative", []float64{0, 1, 0, 1}, []float64{1, 3, 2, 4}, 1, true},
		{"is 0 if every positive is below", []float64{1, 0}, []float64{1, 2}, 0, true},
		{"counts equal scores half", []float64{0, 1, 0, 1}, []float64{2, 2, 2, 2}, 0.5, true},
		{"counts some equal scores half", []float64{0, 1, 0, 1}, []float64{1, 2, 2, 3}, 0.875, true},
		{"is undefined without negatives", []float64{1, 1}, []float64{1, 2}, 0, false},
		{"is undefined without positives", []float64{0}, []float64{1}, 0, false},
		{"is undefined without events", nil, nil, 0, false},
		{"is undefined if a score is not a number", []float64{0, 1}, []float64{math.NaN(), 1}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := eval.AUC(c.labels, c.scores)
			if math.Abs(got-c.want) > 1e-12 || ok != c.ok {
				t.Errorf("AUC(%v, %v) = %v, %v, want %v, %v", c.labels, c.scores, got, ok, c.want, c.ok)
			}
		})
	}
}

func near(t *testing.T, what string, got *float64, want float64) {
	t.Helper()
	if got == nil || math.Abs(*got-want) > 1e-9 {
		t.Errorf("%s = %v, want %v", what, show(got), want)
	}
}

func show(v *float64) any {
	if v == nil {
		return nil
	}
	return *v
}

func TestReport(t *testing.T) {
	t.Run("by hand under the log loss, weighted by importance", func(t *testing.T) {
		f := figuresOf(t, true, []eval.Scored{
			{Label: 1, Weight: 3, Score: 1, Prediction: 0.8, Loss: 0.2},
			{Label: 0, Weight: 1, Score: -1, Prediction: 0.4, Loss: 0.6},
		})
		r := f.Report(true)
		if r.Events != 2 || r.SquaredLoss != nil {
			t.Errorf("events %d, squared loss %v, want 2 and none", r.Events, r.SquaredLoss)
		}
		near(t, "log loss", r.LogLoss, (3*0.2+0.6)/4)
		near(t, "calibration", r.Calibration, (3*0.8+0.4)/3)
		near(t, "base loss", r.BaseLoss, -0.75*math.Log(0.75)-0.25*math.Log(0.25))
		near(t, "AUC", r.AUC, 1)
	})
	t.Run("by hand under the squared loss", func(t *testing.T) {
		f := figuresOf(t, false, []eval.Scored{
			{Label: 5, Weight: 1, Score: 4, Prediction: 4, Loss: 1},
			{Label: 1, Weight: 1, Score: 1, Prediction: 1, Loss: 0},
		})
		r := f.Report(false)
		near(t, "squared loss", r.SquaredLoss, 0.5)
		near(t, "base loss", r.BaseLoss, 4)
		near(t, "calibration", r.Calibration, 5.0/6)
		if r.AUC != nil || r.LogLoss != nil {
			t.Errorf("AUC %v, log loss %v, want none", show(r.AUC), show(r.LogLoss))
		}
	})
	t.Run("the base loss of a constant label is 0, not not-a-number", func(t *testing.T) {
		f := figuresOf(t, true, []eval.Scored{{Label: 1, Weight: 1}})
		near(t, "base loss", f.Report(true).BaseLoss, 0)
	})
	t.Run("what is undefined is null", func(t *testing.T) {
		for _, f := range []eval.Figures{{}, figuresOf(t, true, []eval.Scored{{Label: 0, Weight: 0}})} {
			r := f.Report(true)
			if r.LogLoss != nil || r.AUC != nil || r.Calibration != nil || r.BaseLoss != nil {
				t.Errorf("of weight %v: log loss %v, AUC %v, calibration %v, base loss %v, want none",
					f.Weight, show(r.LogLoss), show(r.AUC), show(r.Calibration), show(r.BaseLoss))
			}
		}
		got, _ := json.Marshal(new(eval.Figures).Report(true))
		want := `{"events":0,"log_loss":null,"squared_loss":null,"base_loss":null,"auc":null,"calibration":null}`
		if string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestExact(t *testing.T) {
	t.Run("by hand", func(t *testing.T) {
		r := eval.Exact([]float64{1, 0, 1}, []float64{0.5, 0.25, 0.25})
		near(t, "log loss", r.LogLoss, (math.Log(2)+math.Log(4.0/3)+math.Log(4))/3)
		near(t, "AUC", r.AUC, 0.75)
		near(t, "calibration", r.Calibration, 0.5)
		if r.Events != 3 {
			t.Errorf("events = %d, want 3", r.Events)
		}
	})
	t.Run("a certain probability that was wrong costs much, not infinitely much", func(t *testing.T) {
		r := eval.Exact([]float64{1, 0}, []float64{0, 1})
		if r.LogLoss == nil || *r.LogLoss < 30 || *r.LogLoss > 35 {
			t.Errorf("log loss = %v, want 30 to 35", show(r.LogLoss))
		}
	})
}
