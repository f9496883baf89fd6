package eval

import (
	"math"

	"gonum.org/v1/gonum/integrate"
	"gonum.org/v1/gonum/stat"
)

// probabilityMin bounds probabilities away from 0 and 1 in Exact, so that one
// event cannot make a log loss infinite. It costs an event at most 34.5.
const probabilityMin = 1e-15

// Exact returns the figures, without bins, of probabilities that some events were
// given beforehand: of the best possible predictions of a simulated stream, say.
// labels are 0 or 1; both slices have one entry per event and stay as they are.
func Exact(labels, probabilities []float64) Report {
	var f Figures
	for i, y := range labels {
		p := min(max(probabilities[i], probabilityMin), 1-probabilityMin)
		f.Events++
		f.Weight++
		f.Labels += y
		f.LabelSquares += y * y
		f.Predictions += p
		f.Losses -= y*math.Log(p) + (1-y)*math.Log1p(-p)
	}
	r := f.Report(true)
	r.AUC = defined(AUC(labels, probabilities))
	return r
}

// AUC returns the probability that a positive event (label above 0) has a higher
// score than another, equal scores counting half. ok is false without events of
// both kinds or where a score is not a number. Both slices have one entry per
// event and stay as they are. It allocates, and takes time as sorting does.
func AUC(labels, scores []float64) (auc float64, ok bool) {
	positive := make([]bool, len(labels))
	n := 0
	for i, y := range labels {
		if math.IsNaN(scores[i]) {
			return 0, false
		}
		positive[i] = y > 0
		if positive[i] {
			n++
		}
	}
	if n == 0 || n == len(labels) {
		return 0, false
	}
	sorted := append([]float64(nil), scores...)
	stat.SortWeightedLabeled(sorted, positive, nil)
	tpr, fpr, _ := stat.ROC(nil, sorted, positive, nil)
	return integrate.Trapezoidal(fpr, tpr), true
}
