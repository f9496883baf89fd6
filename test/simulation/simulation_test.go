package simulation_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay this seed alone, with its whole course")
	seedsFlag = flag.Int("seeds", 1000, "how many seeds must say something")
	firstFlag = flag.Uint64("first", 1, "the first seed")
)

// TestMain lets garbage lie for longer: the worlds are small and many.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

// result is what a seed has come to.
type result struct {
	seed    uint64
	failure string
	void    string
	world   *world
}

// simulate runs a seed. What panics has failed.
func simulate(seed uint64, v *variant, course *transcript) (r result) {
	r.seed = seed
	var w *world
	defer func() {
		if p := recover(); p != nil {
			stack := make([]byte, 4<<10)
			r.failure = fmt.Sprintf("panic: %v\n%s", p, stack[:runtime.Stack(stack, false)])
			if course != nil {
				fmt.Fprintln(course.to, r.failure)
			}
		}
	}()
	w = newWorld(seed, v, course)
	w.run()
	r.world, r.failure, r.void = w, w.failure, w.void()
	return r
}

// course returns the last lines of a seed's course.
func course(seed uint64, v *variant, lines int) string {
	var all bytes.Buffer
	simulate(seed, v, &transcript{&all})
	split := strings.Split(strings.TrimRight(all.String(), "\n"), "\n")
	return strings.Join(split[max(0, len(split)-lines):], "\n")
}

// run simulates seeds from first on, on all processors, until stop says so, which is
// called for one result at a time in no particular order.
func run(first uint64, v *variant, stop func(result) bool) {
	var next atomic.Uint64
	next.Store(first)
	var ended atomic.Bool
	var mu sync.Mutex
	var running sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for !ended.Load() {
				r := simulate(next.Add(1)-1, v, nil)
				mu.Lock()
				if !ended.Load() && stop(r) {
					ended.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
}

func report(t *testing.T, r result) {
	t.Helper()
	t.Errorf("seed %d: %s\nits last steps:\n%s\nreplay: go test ./test/simulation -run TestSeeds -seed %d\nkeep it: add the seed to testdata/seeds",
		r.seed, r.failure, course(r.seed, &variant{}, 60), r.seed)
}

// TestSeeds runs as many seeds as it takes for a thousand that say something, and each
// that has failed before.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		r := simulate(*seedFlag, &variant{}, &transcript{os.Stdout})
		if r.failure != "" {
			t.Errorf("seed %d: %s", *seedFlag, r.failure)
		}
		t.Logf("void: %q, %+v", r.void, figuresOf(r.world))
		return
	}
	seeds := *seedsFlag
	if testing.Short() { // as the race detector's run is, which is slow and has one thread here
		seeds = min(seeds, 100)
	}
	for _, seed := range kept(t) {
		if r := simulate(seed, &variant{}, nil); r.failure != "" {
			report(t, r)
		}
	}
	var total figures
	good, failed := 0, 0
	void := make(map[string]int)
	run(*firstFlag, &variant{}, func(r result) bool {
		switch {
		case r.failure != "":
			failed++
			report(t, r)
		case r.void != "":
			void[r.void]++
		default:
			good++
			total.add(r.world)
		}
		return good >= seeds || failed >= 3
	})
	t.Logf("%d seeds, void: %v", good, void)
	t.Logf("%v", total)
	for f, n := range total.bitten {
		if n == 0 {
			t.Errorf("%v never bit: the run does not test it", fault(f))
		}
	}
	nVoid := 0
	for _, n := range void {
		nVoid += n
	}
	if nVoid > good {
		t.Errorf("%d seeds of %d are void: %v", nVoid, nVoid+good, void)
	}
}

// TestASeedAlwaysGoesTheSameWay is what makes replaying worth anything.
func TestASeedAlwaysGoesTheSameWay(t *testing.T) {
	for seed := *firstFlag; seed < *firstFlag+20; seed++ {
		first, second := course(seed, &variant{}, 1<<30), course(seed, &variant{}, 1<<30)
		if first != second {
			a, b := strings.Split(first, "\n"), strings.Split(second, "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Fatalf("seed %d, line %d:\n%s\n%s", seed, i, a[i], b[i])
				}
			}
			t.Fatalf("seed %d: %d lines and %d", seed, len(a), len(b))
		}
	}
}

// seedsToFind is how many seeds a broken variant may take to be found.
const seedsToFind = 1000

// TestEveryBrokenVariantIsFound shows that the simulation has teeth.
func TestEveryBrokenVariantIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this simulates hundreds of clusters")
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			seeds := 0
			var found result
			run(*firstFlag, v, func(r result) bool {
				seeds++
				if r.failure != "" {
					found = r
				}
				return r.failure != "" || seeds >= seedsToFind
			})
			switch {
			case found.failure == "":
				t.Errorf("not found in %d seeds", seeds)
			case !strings.Contains(found.failure, v.finds):
				t.Errorf("seed %d found %q, want %q\n%s", found.seed, found.failure, v.finds, course(found.seed, v, 60))
			default:
				t.Logf("seed %d, the %dth: %s", found.seed, seeds, found.failure)
			}
		})
	}
}

// kept returns the seeds that have failed before.
func kept(t *testing.T) (seeds []uint64) {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", "seeds"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds: %v", err)
		}
		seeds = append(seeds, seed)
	}
	return seeds
}

// figures are what has happened over several seeds.
type figures struct {
	bitten                                                               [nFaults]int
	outcomes                                                             [ps.Overlap + 1]int
	steps, judged, applied, conflicts, deleted, torn, outOfRange, epochs int
}

func figuresOf(w *world) (f figures) {
	if w != nil {
		f.add(w)
	}
	return f
}

func (f *figures) add(w *world) {
	for i, n := range w.bitten {
		f.bitten[i] += n
	}
	for i, n := range w.outcomes {
		f.outcomes[i] += n
	}
	f.steps += w.steps
	f.judged += w.judged
	f.applied += w.applied
	f.conflicts += w.conflicts
	f.deleted += w.deleted
	f.torn += w.torn
	f.outOfRange += w.outOfRange
	f.epochs += w.epochs
}

// String names the figures.
func (f figures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d steps, %d pushes judged, %d offsets applied, %d epochs, %d conflicts, %d objects deleted, %d torn, %d reads before the stream's start\n",
		f.steps, f.judged, f.applied, f.epochs, f.conflicts, f.deleted, f.torn, f.outOfRange)
	for o, n := range f.outcomes {
		fmt.Fprintf(&b, "%v %d, ", ps.Outcome(o), n)
	}
	b.WriteString("\n")
	order := make([]int, nFaults)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return f.bitten[j] - f.bitten[i] })
	for _, i := range order {
		fmt.Fprintf(&b, "%v %d, ", fault(i), f.bitten[i])
	}
	return strings.TrimSuffix(b.String(), ", ")
}
