package eval

import "math"

// Figures are sums over the events of one series, and what follows from them. The
// zero value is of no events. All but Events are weighted by importance.
type Figures struct {
	Events       float64 // a whole number
	Weight       float64
	Labels       float64
	LabelSquares float64
	Predictions  float64
	Losses       float64
	// Histogram is (Bins, 2): the weights of the negative and of the positive
	// events per bin of scores. It is nil where none was counted.
	Histogram []float64
}

// AddRow adds a row of the table of figures.
func (f *Figures) AddRow(row []float64) {
	f.Events += row[events]
	f.Weight += row[weight]
	f.Labels += row[labels]
	f.LabelSquares += row[labelSquares]
	f.Predictions += row[predictions]
	f.Losses += row[losses]
}

// addBins adds consecutive rows of the histogram from bin 0.
func (f *Figures) addBins(rows []float64) {
	if f.Histogram == nil {
		f.Histogram = make([]float64, Bins*histogramWidth)
	}
	for i, v := range rows {
		f.Histogram[i] += v
	}
}

// Merge adds the events of g, which stays as it is.
func (f *Figures) Merge(g Figures) {
	f.Events += g.Events
	f.Weight += g.Weight
	f.Labels += g.Labels
	f.LabelSquares += g.LabelSquares
	f.Predictions += g.Predictions
	f.Losses += g.Losses
	if g.Histogram != nil {
		f.addBins(g.Histogram)
	}
}

// Loss returns the mean loss; ok is false without events.
func (f *Figures) Loss() (mean float64, ok bool) { return ratio(f.Losses, f.Weight) }

// Calibration returns the mean prediction divided by the mean label: above 1 the
// model promises too much. ok is false where the labels sum to 0.
func (f *Figures) Calibration() (ratioToLabels float64, ok bool) {
	return ratio(f.Predictions, f.Labels)
}

// Base returns the mean loss of always predicting the mean label, which a useful
// model is below: the entropy of the labels of a binary model (see NewTally), else
// their variance. ok is false without events.
func (f *Figures) Base(binary bool) (mean float64, ok bool) {
	y, ok := ratio(f.Labels, f.Weight)
	if !ok {
		return 0, false
	}
	if binary {
		return entropy(y), true
	}
	return max(0, f.LabelSquares/f.Weight-y*y), true
}

// AUC returns the probability that a positive event has a higher score than a
// negative one, equal scores counting half, where scores in one bin count as
// equal. Among n positive events that is about 0.003/√n off, which is within 1e-4
// from a thousand on. ok is false without events of both kinds.
func (f *Figures) AUC() (auc float64, ok bool) {
	var below, pairs, positive float64
	for i := 0; i < len(f.Histogram); i += histogramWidth {
		n, p := f.Histogram[i+negatives], f.Histogram[i+positives]
		pairs += p * (below + n/2)
		below += n
		positive += p
	}
	return ratio(pairs, below*positive)
}

// Report is figures as they are shown, with the keys that commands promise. What
// is not defined is null, never NaN.
type Report struct {
	Events      uint64   `json:"events"`
	LogLoss     *float64 `json:"log_loss"`
	SquaredLoss *float64 `json:"squared_loss"`
	// BaseLoss is the loss of always predicting the mean label.
	BaseLoss *float64 `json:"base_loss"`
	AUC      *float64 `json:"auc"`
	// Calibration is the mean prediction divided by the mean label.
	Calibration *float64 `json:"calibration"`
}

// Report returns what f says of a model, binary (see NewTally) or not.
func (f *Figures) Report(binary bool) Report {
	r := Report{
		Events:      uint64(f.Events),
		BaseLoss:    defined(f.Base(binary)),
		AUC:         defined(f.AUC()),
		Calibration: defined(f.Calibration()),
	}
	if binary {
		r.LogLoss = defined(f.Loss())
	} else {
		r.SquaredLoss = defined(f.Loss())
	}
	return r
}

func defined(v float64, ok bool) *float64 {
	if !ok {
		return nil
	}
	return &v
}

// ratio returns a/b; ok is false where that is not a finite number.
func ratio(a, b float64) (float64, bool) {
	q := a / b
	if math.IsNaN(q) || math.IsInf(q, 0) {
		return 0, false
	}
	return q, true
}

// entropy returns the log loss of always predicting y when the mean label is y.
func entropy(y float64) float64 {
	if y <= 0 || y >= 1 {
		return 0
	}
	return -y*math.Log(y) - (1-y)*math.Log1p(-y)
}
