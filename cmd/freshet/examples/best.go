package examples

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/freshet-ml/freshet/ps"
)

// Best is what the true probabilities of a shop's events reach on the clicks that
// came of them. No model does better, but by luck.
type Best struct {
	Events, Clicks int64
	// Average is the log loss of always predicting the click rate.
	Average float64
	// LogLoss is the log loss of the true probabilities.
	LogLoss float64
	// AUC is the probability that a clicked event has a higher true probability
	// than another, equal ones counting half; NaN without events of both kinds.
	AUC float64
}

// ReadBest computes Best from events that Shop.Write wrote. It takes memory that
// does not grow with their number.
//
// A missing column and a value that Write does not write are ps.ErrCorrupt, with
// the line; else an error is ctx's or r's.
func ReadBest(ctx context.Context, r io.Reader) (Best, error) {
	rows := csv.NewReader(r)
	rows.ReuseRecord = true
	header, err := rows.Read()
	if err != nil {
		return Best{}, fmt.Errorf("read the header of a shop's events: %w", corrupt(err))
	}
	label, probability := column(header, "clicked"), column(header, "click_probability")
	if label < 0 || probability < 0 {
		return Best{}, fmt.Errorf("a shop's events have the columns clicked and click_probability, but here are %q: %w", header, ps.ErrCorrupt)
	}
	best := newTally()
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return best.result(), nil
		}
		if err != nil {
			return Best{}, fmt.Errorf("read a shop's events: %w", corrupt(err))
		}
		if err := best.parse(row[label], row[probability]); err != nil {
			line, _ := rows.FieldPos(probability)
			return Best{}, fmt.Errorf("read a shop's events, line %d: %w", line, err)
		}
		if best.events%checkEvery == 0 && ctx.Err() != nil {
			return Best{}, fmt.Errorf("read a shop's events, %d read: %w", best.events, ctx.Err())
		}
	}
}

// checkEvery is how many rows may pass before a cancelled context is seen.
const checkEvery = 1 << 14

// column returns the position of a name in a header, or -1.
func column(header []string, name string) int {
	for i, c := range header {
		if c == name {
			return i
		}
	}
	return -1
}

// corrupt marks an error that is about the text of a CSV file, and no other.
func corrupt(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ps.ErrCorrupt, err)
	}
	return err
}

// tally counts events by their probability. Probabilities are whole millionths, so
// that counts lose nothing: loss and AUC are exact, and the order of the events
// cannot change a digit. A bin overflows after four thousand million events of one
// probability.
type tally struct {
	events int64
	bins   [][2]uint32 // by millionths: not clicked, clicked
}

func newTally() *tally { return &tally{bins: make([][2]uint32, million)} }

func (t *tally) add(probability int, clicked bool) {
	t.events++
	if clicked {
		t.bins[probability][1]++
	} else {
		t.bins[probability][0]++
	}
}

func (t *tally) parse(label, probability string) error {
	p, err := strconv.ParseFloat(probability, 64)
	if err != nil || !(p > 0 && p < 1) {
		return fmt.Errorf("p is %q, want a probability between 0 and 1: %w", probability, ps.ErrCorrupt)
	}
	if label != "0" && label != "1" {
		return fmt.Errorf("clicked is %q, want 0 or 1: %w", label, ps.ErrCorrupt)
	}
	bin := int(math.Round(p * million))
	t.add(min(max(bin, 1), million-1), label == "1")
	return nil
}

func (t *tally) result() Best {
	b := Best{Events: t.events, AUC: math.NaN()}
	var loss, ordered, not float64 // ordered: pairs of not clicked and clicked in the right order
	for i, n := range t.bins {
		if n == [2]uint32{} {
			continue
		}
		p := float64(i) / million
		no, yes := float64(n[0]), float64(n[1])
		loss -= yes*math.Log(p) + no*math.Log1p(-p)
		ordered += yes * (not + no/2)
		not += no
		b.Clicks += int64(n[1])
	}
	if b.Events == 0 {
		return b
	}
	b.LogLoss = loss / float64(b.Events)
	if clicked := float64(b.Clicks); b.Clicks > 0 && not > 0 {
		rate := clicked / float64(b.Events)
		b.Average = -rate*math.Log(rate) - (1-rate)*math.Log1p(-rate)
		b.AUC = ordered / (clicked * not)
	}
	return b
}
