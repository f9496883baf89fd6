package eval

import "github.com/freshet-ml/freshet/ps"

// The histogram's bins divide the logits from logitMin to logitMax evenly; what is
// outside counts in the outermost bins. A probability below 4e-6 or above 1-4e-6
// is outside. They reach checkpoints and never change.
const (
	// Bins is the number of bins: enough for an AUC that is right to 1e-4, see
	// Figures.AUC.
	Bins     = 1000
	logitMin = -12.5
	logitMax = 12.5
)

// Bin returns the bin of the histogram that a logit belongs to. A score that is
// not a number belongs to bin 0.
func Bin(score float32) int {
	at := (float64(score) - logitMin) * (Bins / (logitMax - logitMin))
	switch {
	case at >= Bins:
		return Bins - 1
	case at > 0:
		return int(at)
	}
	return 0
}

// Scored is an event with what the model said about it before learning from it.
type Scored struct {
	Label  float32
	Weight float32 // the event's importance
	// Score is the network's output: under the log loss the logit.
	Score      float32
	Prediction float64
	Loss       float64 // not weighted
}

// Tally adds up what the events of one batch contribute to the tables of figures.
// Its memory is reused after Reset; it has one owner at a time and allocates
// nothing once it has seen batches of a size.
type Tally struct {
	// Figures and Histogram are the contributions: increments of the rows of the
	// two tables. They are valid until the next Add or Reset.
	Figures   Increments
	Histogram Increments

	binary bool
	open   []*tallied // the series and windows since Reset, then memory for more
	opened int
}

// tallied is one series in one window; a batch has one or two.
type tallied struct {
	series Series
	window Window
	row    int         // in Figures
	bins   [Bins]int32 // row in the histogram plus 1, or 0
}

// NewTally returns an empty tally. A binary model is one under the log loss, whose
// labels are 0 or 1; only such a one has a histogram.
func NewTally(binary bool) *Tally {
	return &Tally{
		Figures:   Increments{width: figuresWidth},
		Histogram: Increments{width: histogramWidth},
		binary:    binary,
	}
}

// Reset empties t.
func (t *Tally) Reset() {
	for _, at := range t.open[:t.opened] {
		clear(at.bins[:])
	}
	t.opened = 0
	t.Figures.reset()
	t.Histogram.reset()
}

// Add adds one event to a series of a window. An event may be added to several
// series.
func (t *Tally) Add(s Series, w Window, e Scored) {
	at := t.at(s, w)
	wt, y := float64(e.Weight), float64(e.Label)
	row := t.Figures.row(at.row)
	row[events]++
	row[weight] += wt
	row[labels] += wt * y
	row[labelSquares] += wt * y * y
	row[predictions] += wt * e.Prediction
	row[losses] += wt * e.Loss
	if !t.binary {
		return
	}
	class := negatives
	if e.Label > 0 {
		class = positives
	}
	bin := &at.bins[Bin(e.Score)]
	if *bin == 0 {
		*bin = int32(t.Histogram.add(BinKey(s, w, Bin(e.Score)))) + 1
	}
	t.Histogram.row(int(*bin - 1))[class] += wt
}

// at returns where a series of a window is added up. Consecutive events mostly share
// it, so that there is little to look through.
func (t *Tally) at(s Series, w Window) *tallied {
	for _, at := range t.open[:t.opened] {
		if at.series == s && at.window == w {
			return at
		}
	}
	if t.opened == len(t.open) {
		t.open = append(t.open, new(tallied))
	}
	at := t.open[t.opened]
	t.opened++
	at.series, at.window, at.row = s, w, t.Figures.add(Key(s, w))
	return at
}

// Increments are what is to be added to some rows of one table.
type Increments struct {
	// Keys are distinct, in order of first appearance.
	Keys []ps.Key
	// Values is (len(Keys), width), row-major.
	Values []float64

	width int
}

func (n *Increments) reset() { n.Keys, n.Values = n.Keys[:0], n.Values[:0] }

// add adds a row of zeros and returns its position.
func (n *Increments) add(key ps.Key) int {
	n.Keys = append(n.Keys, key)
	for range n.width {
		n.Values = append(n.Values, 0)
	}
	return len(n.Keys) - 1
}

func (n *Increments) row(at int) []float64 { return n.Values[at*n.width : (at+1)*n.width] }
