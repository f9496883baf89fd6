package sink_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/sink"
)

func TestABaseAndWhatChangesAfterItAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		deltas := append(inParts(0, 1, 0, 5, rows{1: 10, 2: 20, 3: 30}), part(0, 1, 5, 6, rows{2: 21}), part(0, 1, 6, 9, rows{4: 40, 2: 22}))
		stop := start(t, newSink(t, tells(t, deltas...), m, nil))
		defer stop()
		synctest.Wait()
		if want := (rows{1: 10, 2: 22, 3: 30, 4: 40}); !m.has(want) || m.seq(0) != 9 {
			t.Errorf("target has %v at seq %d, want %v at 9", m.rows, m.seq(0), want)
		}
	})
}

func TestAPositionIsWrittenBehindTheLastPartOnly(t *testing.T) {
	base, delta := inParts(0, 1, 0, 5, rows{1: 10, 2: 20}), inParts(0, 1, 5, 8, rows{1: 11, 2: 21})
	all := slices.Concat(base, delta)
	for n := range len(all) + 1 {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory()
			stop := start(t, newSink(t, tells(t, all[:n]...), m, nil))
			defer stop()
			synctest.Wait()
			want := uint64(0)
			if n >= len(base) {
				want = 5
			}
			if n == len(all) {
				want = 8
			}
			if got := m.seq(0); got != want {
				t.Errorf("after %d of %d parts the position is seq %d, want %d", n, len(all), got, want)
			}
		})
	}
}

func TestWhereSomethingIsMissingOnlyABaseWillDo(t *testing.T) {
	base := part(0, 1, 0, 5, rows{1: 10})
	for name, gap := range map[string]*ps.Delta{
		"a delta is missing":         part(0, 1, 6, 7, rows{1: 11}),
		"the owner has changed":      part(0, 2, 5, 7, rows{1: 11}),
		"the first part is missing":  inParts(0, 1, 5, 7, rows{1: 11})[1],
		"the base's part is missing": inParts(0, 1, 0, 7, rows{1: 11})[1],
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			s := newSink(t, source(func(ctx context.Context, take func(*ps.Delta) error) error {
				for i, d := range []*ps.Delta{base, gap, part(0, 1, 5, 6, rows{1: 12}), part(0, 3, 0, 9, rows{1: 13}), part(0, 3, 9, 10, rows{1: 14})} {
					refused := i == 1 || i == 2
					if err := take(d); refused != errors.Is(err, ps.ErrCorrupt) {
						t.Errorf("take of delta %d: %v, want it refused: %v", i, err, refused)
					}
				}
				return nil
			}), m, nil)
			if err := s.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if want := (rows{1: 14}); !m.has(want) {
				t.Errorf("target has %v, want %v", m.rows, want)
			}
		})
	}
}

func TestWhatAFormerOwnerStillSendsIsPassedOver(t *testing.T) {
	m := newMemory()
	s := newSink(t, source(func(_ context.Context, take func(*ps.Delta) error) error {
		for _, d := range []*ps.Delta{part(0, 1, 0, 5, rows{1: 10}), part(0, 2, 0, 6, rows{1: 11}), part(0, 1, 5, 7, rows{1: 12}), part(0, 2, 6, 7, rows{2: 20})} {
			if err := take(d); err != nil {
				t.Error(err)
			}
		}
		return nil
	}), m, nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := (rows{1: 11, 2: 20}); !m.has(want) {
		t.Errorf("target has %v, want %v", m.rows, want)
	}
}

func TestADeltaOfAnotherLayoutIsRefused(t *testing.T) {
	short := part(0, 1, 0, 5, rows{1: 10})
	short.Blocks[1].Stride = 20
	unknown := part(0, 1, 0, 5, rows{1: 10})
	unknown.Blocks[1].Table = 2
	beyond := part(2, 1, 0, 5, rows{1: 10})
	s := newSink(t, source(func(_ context.Context, take func(*ps.Delta) error) error {
		for i, d := range []*ps.Delta{short, unknown, beyond} {
			if err := take(d); !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("take of delta %d: %v, want ErrCorrupt", i, err)
			}
		}
		return nil
	}), newMemory(), nil)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAShardThatHasNotChangedIsNotWrittenAgain(t *testing.T) {
	m := newMemory()
	first := []*ps.Delta{part(0, 1, 0, 5, rows{1: 10}), part(1, 1, 0, 3, rows{2: 20})}
	if err := newSink(t, tells(t, first...), m, once).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.written = 0
	second := []*ps.Delta{part(0, 1, 0, 5, rows{1: 10}), part(1, 1, 0, 4, rows{2: 21})}
	s := newSink(t, tells(t, second...), m, once)
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := (rows{1: 10, 2: 21}); !m.has(want) || m.written != 1 {
		t.Errorf("the second run has written %d rows, and %v are there; want 1, and %v", m.written, m.rows, want)
	}
	if f := s.Figures(); f.Rows != 1 || f.Bytes != 8 || f.Shards != 2 {
		t.Errorf("figures %+v, want 1 row of 8 bytes and 2 shards", f)
	}
}

func TestWhileTheTargetIsAwayTheSinkWaitsAndHoldsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		m, taken := newMemory(), 0
		var back atomic.Bool
		m.fails = func() error {
			if !back.Load() {
				return fmt.Errorf("no answer: %w", ps.ErrUnavailable)
			}
			return nil
		}
		s := newSink(t, source(func(ctx context.Context, take func(*ps.Delta) error) error {
			for seq := range uint64(n) {
				if take(part(0, 1, seq, seq+1, rows{ps.Key(seq % 7): uint32(seq)})) != nil {
					return nil
				}
				taken++
			}
			<-ctx.Done()
			return nil
		}), m, nil)
		stop := start(t, s)
		defer stop()
		time.Sleep(time.Minute) // of the bubble's clock
		synctest.Wait()
		if taken > 100 {
			t.Errorf("%d deltas were taken while none could be written, want at most 100", taken)
		}
		if f := s.Figures(); f.Retries < 15 || f.Retries > 30 {
			t.Errorf("in a minute the target was asked %d times, want about 18", f.Retries)
		}
		back.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if taken != n || m.seq(0) != n || m.rows[(n-1)%7] != n-1 {
			t.Errorf("%d deltas taken, target at seq %d with %v; want %d", taken, m.seq(0), m.rows, n)
		}
	})
}

func TestAnErrorThatDoesNotPassEndsTheSink(t *testing.T) {
	wrong := errors.New("wrong password")
	m := newMemory()
	m.fails = func() error { return wrong }
	if err := newSink(t, tells(t, part(0, 1, 0, 5, rows{1: 10})), m, nil).Run(t.Context()); !errors.Is(err, wrong) {
		t.Errorf("the sink ended with %v, want %v", err, wrong)
	}
}

func TestATargetThatHasLostItsRowsIsWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, lives := newMemory(), 0
		var wiped atomic.Bool
		m.fails = func() error {
			if !wiped.Swap(false) {
				return nil
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			clear(m.rows)
			clear(m.positions)
			return fmt.Errorf("empty: %w", sink.ErrLost)
		}
		s := newSink(t, source(func(ctx context.Context, take func(*ps.Delta) error) error {
			lives++
			for _, d := range []*ps.Delta{part(0, 1, 0, 5, rows{1: 10, 2: 20}), part(1, 1, 0, 3, rows{3: 30})} {
				if err := take(d); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
			wiped.Store(lives == 1)
			if err := take(part(0, 1, 5, 6, rows{1: 11})); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			return nil
		}), m, nil)
		stop := start(t, s)
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := (rows{1: 11, 2: 20, 3: 30}); !m.has(want) || m.seq(0) != 6 || m.seq(1) != 3 || lives != 2 {
			t.Errorf("after %d lives the target has %v at seq %d and %d, want %v at 6 and 3 after 2", lives, m.rows, m.seq(0), m.seq(1), want)
		}
	})
}

func TestOnceThatWasInterruptedIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSink(t, tells(t, part(0, 1, 0, 5, rows{1: 10})), newMemory(), once) // shard 1 has no owner
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v, want that it was cancelled", err)
		}
	})
}

func TestFreshnessIsFromTheEventToItsRowsInTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m := newMemory()
		m.fails = func() error {
			time.Sleep(30 * time.Millisecond)
			return nil
		}
		event := time.Now()
		base, delta, idle := part(0, 1, 0, 5, rows{1: 10}), part(0, 1, 5, 6, rows{1: 11}), part(0, 1, 6, 7, rows{1: 12})
		base.Partitions[0].EventTime = event.Add(-time.Hour).UnixMilli()
		delta.Partitions[0].EventTime = event.UnixMilli()
		idle.Partitions[0].EventTime = event.UnixMilli() // it brings no newer event
		s := newSink(t, source(func(ctx context.Context, take func(*ps.Delta) error) error {
			for _, d := range []*ps.Delta{base, delta, idle} {
				time.Sleep(50 * time.Millisecond)
				if err := take(d); err != nil {
					t.Error(err)
				}
			}
			<-ctx.Done()
			return nil
		}), m, func(c *sink.Config) { c.Metrics = registry })
		stop := start(t, s)
		defer stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if f := s.Figures(); f.FreshP50 != 130*time.Millisecond || f.FreshP99 != f.FreshP50 {
			t.Errorf("p50 %v, p99 %v, want 130ms: it was taken after 100 ms and written within 30", f.FreshP50, f.FreshP99)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, family := range families {
			fmt.Fprintln(&text, family)
		}
		if got := text.String(); !strings.Contains(got, "sample_count:1 ") || !strings.Contains(got, "freshet_sink_rows_total") {
			t.Errorf("metrics\n%s\nwant one sample of freshness, and rows", got)
		}
	})
}

// TestWhateverHappensTheTargetComesToHaveTheModel lets a shard change hands, be set back
// to an older state, its follower be cut off, the sink be killed and the target be away,
// at random, and looks whether all is there once it has been quiet.
func TestWhateverHappensTheTargetComesToHaveTheModel(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			h := &history{random: random, fence: 1, rows: rows{}}
			m := newMemory()
			quiet, trouble := false, rand.New(rand.NewPCG(seed, 1))
			m.fails = func() error {
				time.Sleep(time.Duration(trouble.IntN(3)) * time.Millisecond)
				if !quiet && trouble.IntN(4) == 0 {
					return ps.ErrUnavailable
				}
				return nil
			}
			for range 1 + seed%4 { // lives of the sink
				life := time.Duration(random.IntN(200)) * time.Millisecond
				stop := start(t, newSink(t, h, m, nil))
				time.Sleep(life)
				stop()
			}
			quiet, h.quiet = true, true
			other := part(1, 1, 0, 1, nil)
			h.others = []*ps.Delta{other}
			if err := newSink(t, h, m, once).Run(t.Context()); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for key, want := range h.rows {
				if got := m.rows[key]; got != want {
					t.Fatalf("seed %d: row %d is %d in the target, want %d", seed, key, got, want)
				}
			}
			if m.seq(0) != h.seq {
				t.Fatalf("seed %d: the position is seq %d, want %d", seed, m.seq(0), h.seq)
			}
		})
	}
}

// history is a shard that changes at random, and is followed.
type history struct {
	random *rand.Rand
	fence  ps.Fence
	seq    uint64
	rows   rows
	quiet  bool // nothing changes any more
	others []*ps.Delta
}

// change is a push.
func (h *history) change() (changed rows) {
	changed = rows{}
	h.seq++
	for range h.random.IntN(4) {
		changed[ps.Key(h.random.IntN(20))] = h.random.Uint32()
	}
	maps.Copy(h.rows, changed)
	return changed
}

// Follow is what sink.Source says. Between the parts of a base the shard goes on, as
// deltas behind it will say.
func (h *history) Follow(ctx context.Context, take func(*ps.Delta) error) error {
	for _, d := range h.others {
		if err := take(d); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		h.follow(ctx, take)
		time.Sleep(time.Millisecond)
	}
	return nil
}

// follow brings a base and deltas, until take fails or the shard is lost.
func (h *history) follow(ctx context.Context, take func(*ps.Delta) error) {
	switch {
	case h.quiet:
	case h.random.IntN(3) == 0: // restored from an epoch
		h.fence++
		h.seq -= min(h.seq, uint64(h.random.IntN(5)))
		for key := range h.rows {
			h.rows[key] = h.random.Uint32()
		}
	}
	for _, d := range inParts(0, h.fence, 0, h.seq, h.rows) {
		if !h.quiet && h.random.IntN(30) == 0 || take(d) != nil {
			return
		}
	}
	for ctx.Err() == nil && (h.quiet || h.random.IntN(20) > 0) {
		time.Sleep(time.Millisecond)
		if h.quiet {
			continue
		}
		since := h.seq
		for _, d := range inParts(0, h.fence, since, since+1, h.change()) {
			if h.random.IntN(100) == 0 {
				continue // it is lost on the way, which the sink has to notice
			}
			if take(d) != nil {
				return
			}
		}
	}
}
