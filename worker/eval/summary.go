package eval

import (
	"context"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// windowsPerPull bounds a pull: 10 windows are at most 30,000 rows of the
// histogram, whose answer is below half a mebibyte.
const windowsPerPull = 10

// Pull returns the weights of the rows of a table, in the order of keys, as they
// travel: little endian, row-major. A row that was never pushed to is all zeros.
// Neither side keeps the other's memory.
type Pull func(ctx context.Context, table ps.TableID, keys []ps.Key) ([]byte, error)

// Summary follows the figures of one model over all partitions and windows. A
// window that every shard has applied to its end cannot change any more and is
// pulled once, so that keeping a long stream's figures up to date costs no more
// than its newest windows. It has one owner at a time.
type Summary struct {
	pull      Pull
	figures   ps.TableID
	histogram ps.TableID
	binary    bool
	size      int // offsets of a window

	// next has, per partition, the first window that is not in final.
	next  []uint64
	final perSeries
	shown perSeries

	keys []ps.Key
}

type perSeries [seriesCount]Figures

// SummaryConfig says whose figures a Summary follows.
type SummaryConfig struct {
	// Layout is the model's; it holds the tables of Tables.
	Layout ps.Layout
	// Binary says that the model is (see NewTally), so that it has a histogram.
	Binary bool
	// Window is the number of offsets of a window, at least 1.
	Window int
	// Pull is called by Update, on its goroutine, and may block.
	Pull Pull
}

// NewSummary returns a summary of no events. It returns ps.ErrInvalid if the
// layout does not measure its model as this package does.
func NewSummary(c SummaryConfig) (*Summary, error) {
	s := &Summary{pull: c.Pull, size: c.Window, binary: c.Binary}
	if c.Window < 1 {
		return nil, fmt.Errorf("windows of %d offsets: want at least 1: %w", c.Window, ps.ErrInvalid)
	}
	for i, want := range Tables() {
		id, got, ok := c.Layout.Table(want.Name)
		if !ok || got.Width != want.Width || got.Kind != want.Kind {
			return nil, fmt.Errorf("layout has no table %q of %d %v, so its model is not measured: %w",
				want.Name, want.Width, want.Kind, ps.ErrInvalid)
		}
		if i == 0 {
			s.figures = id
		} else {
			s.histogram = id
		}
	}
	return s, nil
}

// Update pulls what may have changed. For each partition, applied[p].From is the
// offset that all shards have applied up to, and applied[p].To the furthest that
// any shard has. Where From went back, as after a restore, everything is pulled
// again; a restore that was caught up with between two calls is not noticed.
//
// After an error, which wraps the pull's, the figures are those of before; what
// was pulled of finished windows is kept, so that trying again gets further.
func (s *Summary) Update(ctx context.Context, applied []ps.Range) error {
	s.startOverIfBack(applied)
	var live perSeries
	for p, r := range applied {
		finished := uint64(r.From) / uint64(s.size)
		begun := (uint64(max(r.From, r.To)) + uint64(s.size) - 1) / uint64(s.size)
		for from := s.next[p]; from < begun; {
			to := min(from+windowsPerPull, begun)
			if from < finished {
				to = min(to, finished)
			}
			var read perSeries
			if err := s.read(ctx, ps.Partition(p), from, to, &read); err != nil {
				return fmt.Errorf("figures of partition %d, windows %d to %d: %w", p, from, to-1, err)
			}
			if to <= finished {
				s.final.merge(&read)
				s.next[p] = to
			} else {
				live.merge(&read)
			}
			from = to
		}
	}
	s.shown = perSeries{}
	s.shown.merge(&s.final)
	s.shown.merge(&live)
	return nil
}

// Figures returns the figures of a series as of the last Update. They stay as
// they are; the caller does not change them.
func (s *Summary) Figures(series Series) Figures { return s.shown[series] }

func (s *Summary) startOverIfBack(applied []ps.Range) {
	back := len(applied) != len(s.next)
	for p := 0; p < len(applied) && !back; p++ {
		back = uint64(applied[p].From)/uint64(s.size) < s.next[p]
	}
	if back {
		s.next = make([]uint64, len(applied))
		s.final = perSeries{}
	}
}

// read adds the windows [from, to) of a partition, at most windowsPerPull, to sums.
func (s *Summary) read(ctx context.Context, p ps.Partition, from, to uint64, sums *perSeries) error {
	s.keys = s.keys[:0]
	for n := from; n < to; n++ {
		for series := range seriesCount {
			s.keys = append(s.keys, Key(series, Window{p, n}))
		}
	}
	values, err := s.rows(ctx, s.figures, figuresWidth)
	if err != nil {
		return err
	}
	// Most windows have one series only, so the histograms of the others, which
	// are a thousand times as large, are not asked for.
	var present []Series
	s.keys = s.keys[:0]
	for i := 0; i < len(values); i += figuresWidth {
		row := values[i : i+figuresWidth]
		if row[events] == 0 {
			continue
		}
		n, series := i/figuresWidth/int(seriesCount), Series(i/figuresWidth%int(seriesCount))
		sums[series].AddRow(row)
		if s.binary {
			present = append(present, series)
			for bin := range Bins {
				s.keys = append(s.keys, BinKey(series, Window{p, from + uint64(n)}, bin))
			}
		}
	}
	if len(s.keys) == 0 {
		return nil
	}
	values, err = s.rows(ctx, s.histogram, histogramWidth)
	if err != nil {
		return err
	}
	const size = Bins * histogramWidth
	for i, series := range present {
		sums[series].addBins(values[i*size : (i+1)*size])
	}
	return nil
}

// rows pulls the rows of s.keys.
func (s *Summary) rows(ctx context.Context, table ps.TableID, width int) ([]float64, error) {
	b, err := s.pull(ctx, table, s.keys)
	if err != nil {
		return nil, err
	}
	if want := len(s.keys) * width * ps.Float64.Size(); len(b) != want {
		return nil, fmt.Errorf("%d bytes for %d rows of %d float64: want %d: %w", len(b), len(s.keys), width, want, ps.ErrCorrupt)
	}
	return ps.View[float64](b), nil
}

func (f *perSeries) merge(g *perSeries) {
	for i := range f {
		f[i].Merge(g[i])
	}
}
