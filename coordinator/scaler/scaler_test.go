package scaler_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator/scaler"
)

// fleet is a simulated stream and the workers that learn it. Who is wanted comes after a
// while; who is not goes at once.
type fleet struct {
	at         time.Time
	partitions int
	rate       float64 // events a worker learns in a busy second
	starting   []time.Time
	workers    map[string]scaler.Work
	started    int
	startsIn   time.Duration
	grown      float64
	applied    float64
	random     *rand.Rand

	wanted  []int
	backlog []float64
}

const (
	lookEvery = 5 * time.Second
	startsIn  = 15 * time.Second
	rate      = 1000.0
)

var targets = scaler.Targets{CatchUp: time.Minute, Utilisation: 0.7}

func newFleet(workers int) *fleet {
	f := &fleet{
		at: time.UnixMilli(1_700_000_000_000), partitions: 16, rate: rate, startsIn: startsIn,
		workers: make(map[string]scaler.Work), random: rand.New(rand.NewPCG(1, 2)),
	}
	for range workers {
		f.start()
	}
	return f
}

func (f *fleet) start() {
	f.started++
	f.workers[fmt.Sprintf("w%03d", f.started)] = scaler.Work{}
}

// second lets a second pass in which so many events arrive.
func (f *fleet) second(arrive float64) {
	f.at = f.at.Add(time.Second)
	f.grown += arrive
	for len(f.starting) > 0 && !f.starting[0].After(f.at) {
		f.starting = f.starting[1:]
		f.start()
	}
	for id, w := range f.workers {
		can := f.rate * (0.9 + 0.2*f.random.Float64())
		does := min(can, (f.grown-f.applied)/float64(len(f.workers)))
		w.Events += uint64(does)
		w.BusySeconds += does / can
		f.workers[id] = w
		f.applied += does
	}
}

// run lets so many seconds pass, and scales as is wanted.
func (f *fleet) run(m *scaler.Model, seconds int, arrival func(second int) float64) {
	for s := range seconds {
		f.second(arrival(s))
		if s%int(lookEvery.Seconds()) != 0 {
			continue
		}
		l := scaler.Look{At: f.at, Partitions: f.partitions, Grown: uint64(f.grown), Applied: uint64(f.applied), Known: true, Workers: make(map[string]scaler.Work)}
		for id, w := range f.workers {
			l.Workers[id] = w
		}
		if l.Grown > l.Applied+1 {
			l.EventTime = f.at.Add(-time.Second).UnixMilli()
		}
		figures := m.Take(l)
		f.wanted, f.backlog = append(f.wanted, figures.Wanted), append(f.backlog, f.grown-f.applied)
		for len(f.workers)+len(f.starting) < figures.Wanted {
			f.starting = append(f.starting, f.at.Add(f.startsIn))
		}
		for id := range f.workers {
			if len(f.workers)+len(f.starting) > figures.Wanted && len(f.workers) > 1 {
				delete(f.workers, id)
			}
		}
	}
}

// changes returns the numbers of workers that were wanted, one after the other.
func (f *fleet) changes() (steps []int) {
	for _, w := range f.wanted {
		if len(steps) == 0 || steps[len(steps)-1] != w {
			steps = append(steps, w)
		}
	}
	return steps
}

// plot draws wanted workers over time, and the backlog beside.
func (f *fleet) plot(t *testing.T, what string) {
	t.Helper()
	const columns = 90
	var b strings.Builder
	fmt.Fprintf(&b, "%s: workers wanted, over %d s; steps %v\n", what, len(f.wanted)*int(lookEvery.Seconds()), f.changes())
	most := 1
	for _, w := range f.wanted {
		most = max(most, w)
	}
	at := func(x int) int { return x * len(f.wanted) / columns }
	for level := most; level >= 1; level-- {
		fmt.Fprintf(&b, "%3d |", level)
		for x := range columns {
			if f.wanted[at(x)] >= level {
				b.WriteByte('#')
			} else {
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	highest := 0.0
	for _, n := range f.backlog {
		highest = max(highest, n)
	}
	b.WriteString("lag |")
	for x := range columns {
		b.WriteByte(" .:-=+*#%@"[int(9*f.backlog[at(x)]/max(highest, 1))])
	}
	fmt.Fprintf(&b, "| at most %.0f events", highest)
	t.Log(b.String())
}

// turns counts where steps go from up to down, or back.
func turns(steps []int) (n int) {
	for i := 2; i < len(steps); i++ {
		if (steps[i]-steps[i-1])*(steps[i-1]-steps[i-2]) < 0 {
			n++
		}
	}
	return n
}

func TestAStepIsAnsweredOnceAndWorkedOff(t *testing.T) {
	for _, starts := range []time.Duration{5 * time.Second, startsIn, 20 * time.Second} {
		f, m := newFleet(1), scaler.NewModel(targets)
		f.startsIn = starts
		f.run(m, 900, func(s int) float64 {
			if s < 200 {
				return 500
			}
			return 4000
		})
		f.plot(t, fmt.Sprintf("a step from 500 to 4,000 events a second, workers start in %v", starts))
		steps := f.changes()
		if steps[0] != 1 || steps[len(steps)-1] != 6 { // 4,000 / (1,000 × 0.7)
			t.Errorf("wanted goes %v, want from 1 to 6 in the end", steps)
		}
		if n := turns(steps); n > 1 {
			t.Errorf("wanted goes %v: it turns %d times, want at most one way up and one back to what is enough", steps, n)
		}
		// The backlog that has come while workers started is gone within the catch-up time and some.
		for i, n := range f.backlog {
			if second := i * int(lookEvery.Seconds()); second > 200+int(starts.Seconds())+5+90 && n > 4000*3 {
				t.Errorf("%.0f events are not learned %d s after the step", n, second-200)
				break
			}
		}
	}
}

func TestARampIsFollowedWithoutTurningBack(t *testing.T) {
	f, m := newFleet(1), scaler.NewModel(targets)
	f.run(m, 1200, func(s int) float64 { return 500 + 5*float64(min(s, 1000)) })
	f.plot(t, "a ramp from 500 to 5,500 events a second")
	for i := 1; i < len(f.wanted)-30; i++ {
		if f.wanted[i] < f.wanted[i-1] {
			t.Errorf("wanted goes back from %d to %d while the load rises", f.wanted[i-1], f.wanted[i])
		}
	}
	if last := f.wanted[len(f.wanted)-1]; last < 8 || last > 9 {
		t.Errorf("%d workers are wanted for 5,500 events a second, want 8", last)
	}
}

func TestNoiseMovesNothing(t *testing.T) {
	// 700 events a second are one worker's: among the loads are those that need a whole number
	// of workers, where noise goes over it and back all the time.
	const settled = 24 // looks: two minutes
	seeds := uint64(20)
	if testing.Short() { // as the race detector's run is, which is slow
		seeds = 1
	}
	for load := 700.0; load <= 5600; load += 50 {
		for seed := range seeds {
			f, m := newFleet(int(load/700)+1), scaler.NewModel(targets)
			f.random = rand.New(rand.NewPCG(seed, 1))
			random := rand.New(rand.NewPCG(seed, 2))
			f.run(m, 1800, func(int) float64 { return load * (0.8 + 0.4*random.Float64()) })
			if load == 2100 && seed == 0 {
				f.plot(t, "2,100 events a second, give or take a fifth")
			}
			needed := load / (rate * targets.Utilisation)
			if last := f.wanted[len(f.wanted)-1]; float64(last) < needed/1.1 || float64(last) > needed+1.1 {
				t.Errorf("%.0f events a second, seed %d: %d workers are wanted for a need of %.2f", load, seed, last, needed)
			}
			f.wanted = f.wanted[settled:]
			if steps := f.changes(); len(steps) > 2 {
				t.Errorf("%.0f events a second, seed %d: wanted goes %v, want at most one change", load, seed, steps)
			}
		}
	}
}

func TestADayComesAndGoes(t *testing.T) {
	f, m := newFleet(2), scaler.NewModel(targets)
	f.run(m, 3600, func(s int) float64 { return 3000 - 2500*math.Cos(2*math.Pi*float64(s)/1800) })
	f.plot(t, "a day of half an hour, twice")
	steps := f.changes()
	if n := turns(steps); n > 4 {
		t.Errorf("wanted goes %v: %d turns in two days", steps, n)
	}
}

func TestWhatIsNotKnownChangesNothing(t *testing.T) {
	m := scaler.NewModel(targets)
	at := time.UnixMilli(1_700_000_000_000)
	three := map[string]scaler.Work{"a": {}, "b": {}, "c": {}}
	for range 100 {
		at = at.Add(lookEvery)
		f := m.Take(scaler.Look{At: at, Partitions: 8, Workers: three})
		if f.Wanted != 3 || !f.Active || f.Backlog != 0 || f.Rate != 0 {
			t.Fatalf("of a stream of which nothing is known: %+v, want the 3 workers there are, active", f)
		}
	}
	// Never more than partitions, never none.
	few := scaler.NewModel(targets)
	for i := range uint64(50) {
		at = at.Add(lookEvery)
		f := few.Take(scaler.Look{
			At: at, Partitions: 2, Grown: 1e9 * (i + 1), Known: true, EventTime: at.Add(-time.Hour).UnixMilli(),
			Workers: map[string]scaler.Work{"a": {Events: 1000 * i, BusySeconds: float64(i)}},
		})
		if f.Wanted > 2 || i > 2 && (f.Wanted != 2 || f.Lag != time.Hour) {
			t.Fatalf("of an endless backlog in 2 partitions: %+v", f)
		}
	}
	idle := scaler.NewModel(targets)
	var last scaler.Figures
	for range 50 {
		at = at.Add(lookEvery)
		last = idle.Take(scaler.Look{At: at, Partitions: 8, Grown: 5, Applied: 5, Known: true, Workers: map[string]scaler.Work{"a": {Events: 5, BusySeconds: 2}, "b": {}}})
	}
	if last.Active || last.Wanted != 1 || last.Lag != 0 {
		t.Errorf("of a stream that is learned to its end: %+v, want inactive and 1", last)
	}
}
