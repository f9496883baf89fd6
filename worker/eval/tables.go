// Package eval measures a model while it learns, and afterwards.
//
// While it learns, every event is scored before it is learned from. What that
// score was worth is not counted in the worker, where a crash would lose it and a
// replay would double it: it is added to rows of two tables under the optimizer
// "sum", in the very update that carries the event's gradients. Figures are
// therefore counted exactly once, by the offset rule alone. Whoever wants to see
// them pulls those rows; Summary does so, and keeps what cannot change any more.
//
// The package reads no clock and does no I/O but the pulls it is handed.
package eval

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// Names of the tables. They reach layouts and checkpoints: append only.
const (
	FiguresTable   = "figures"
	HistogramTable = "histogram"
)

// Elements of a row of figures. Their order reaches checkpoints: append only.
const (
	events       = iota // number of events, whatever their weight
	weight              // Σ w: importances; all that follows is weighted by them
	labels              // Σ w y
	labelSquares        // Σ w y²
	predictions         // Σ w p
	losses              // Σ w loss
	figuresWidth
)

// Elements of a row of the histogram. Their order reaches checkpoints: append only.
const (
	negatives = iota // Σ w of the events labelled 0 whose score is in the bin
	positives        // Σ w of the events labelled 1
	histogramWidth
)

// Tables returns the two tables that a model which measures itself has in its
// layout, in this order: figures, one row per series and window, and histogram,
// one row per series, window and bin of scores.
func Tables() []ps.Table {
	return []ps.Table{
		{
			Name: FiguresTable, Kind: ps.Float64, Width: figuresWidth,
			Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero},
		},
		{
			Name: HistogramTable, Kind: ps.Float64, Width: histogramWidth,
			Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero},
		},
	}
}

// Series says what the score of an event is worth. Its numbers reach keys:
// append only.
type Series uint8

// The series of figures.
const (
	// Progressive: scored by a model that has not learned from the event at any
	// shard. Only these figures may be believed of a model that learns.
	Progressive Series = iota
	// Replayed: scored again after a crash, when some shard had already learned
	// from the event. The score knows the answer.
	Replayed
	// HeldOut: never learned from.
	HeldOut

	seriesCount
)

// String returns the name of the series, as in JSON keys.
func (s Series) String() string {
	switch s {
	case Progressive:
		return "progressive"
	case Replayed:
		return "replayed"
	case HeldOut:
		return "holdout"
	}
	return fmt.Sprintf("series(%d)", uint8(s))
}

// Window is a run of consecutive offsets of one partition whose events share
// their rows of figures: those whose offset, divided by the number of offsets in
// a window, is Number.
type Window struct {
	Partition ps.Partition
	Number    uint64
}

// WindowOf returns the window of an offset. size is the number of offsets in a
// window, at least 1.
func WindowOf(p ps.Partition, o ps.Offset, size int) Window {
	return Window{Partition: p, Number: uint64(o) / uint64(size)}
}

// Bits of a key of this package, from the highest: the place of the window,
// the series, the bin. They reach checkpoints and never change.
//
//	 63                                 20 19      10 9        0
//	┌─────────────────────────────────────┬──────────┬──────────┐
//	│ place(window)                       │ series   │ bin      │
//	└─────────────────────────────────────┴──────────┴──────────┘
//
// Shards are chosen by the highest bits (at most 14), so all rows of a window
// share a shard, and measuring a batch adds one or two shards to its push, not
// hundreds.
const (
	placeBits     = 44
	partitionBits = 14
	windowBits    = placeBits - partitionBits
	binBits       = 10
	seriesShift   = binBits
	placeShift    = 64 - placeBits
)

// Key returns the key of the row of figures of a series in a window.
func Key(s Series, w Window) ps.Key {
	return ps.Key(place(w)<<placeShift | uint64(s)<<seriesShift)
}

// BinKey returns the key of the row of the histogram of a series, window and bin.
// Bin is below Bins.
func BinKey(s Series, w Window, bin int) ps.Key {
	return Key(s, w) | ps.Key(bin)
}

// place is a bijection from (partition, window) to 44 bits, for up to 2^14
// partitions of 2^30 windows, which is 10^13 events of one partition in windows
// of 10,000. A hash of 44 bits would now and then put two windows into one row,
// and so be wrong for ever; a bijection spreads as well and cannot.
func place(w Window) uint64 {
	const mask = 1<<placeBits - 1
	x := (uint64(w.Partition)<<windowBits + w.Number) & mask
	for range 3 { // each step is invertible modulo 2^44: odd factor, shift by half
		x = x * 0x9e3779b97f4a7c15 & mask
		x ^= x >> (placeBits / 2)
	}
	return x
}
