package model_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// machine is a protocol as a graph: a state and what may happen in it. A state is
// small and comparable, and holds everything that what happens next depends on,
// budgets for faults included; that bounds the graph.
type machine[S comparable] struct {
	start S
	// steps emits every state that one step leads to, with what happens in it. A
	// step may lead back to s.
	steps func(s S, emit emit[S])
	// wrong names the invariant that the step from one state to the next, or the
	// next state itself, breaks; "" if none.
	wrong func(from, to S) string
	// done reports whether all is applied. If it is set, a state from which no state
	// that is done can be reached is a fault too.
	done func(S) bool
}

// emit takes a step: where it leads, and what happens in it, as for fmt.Sprintf.
type emit[S comparable] func(to S, what string, args ...any)

// verdict is what an exploration found.
type verdict struct {
	states, steps, done int
	// whole: no state was left out.
	whole bool
	// fault says what broke, "" if nothing did; trace is a shortest way there.
	fault string
	trace []string
}

// String returns the fault and the way to it, one step a line.
func (v verdict) String() string {
	if v.fault == "" {
		return fmt.Sprintf("no fault in %d states, %d steps", v.states, v.steps)
	}
	var b strings.Builder
	for i, what := range v.trace {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, what)
	}
	return fmt.Sprintf("%s  => %s", b.String(), v.fault)
}

// explore visits every state that can be reached, breadth first, until one breaks
// an invariant or there are more than statesMax.
func (m machine[S]) explore(statesMax int) (v verdict) {
	g := graph[S]{machine: m, index: map[S]int32{m.start: 0}, order: []S{m.start}, parent: []int32{-1}}
	defer func() { v.states, v.steps = len(g.order), g.nSteps }()
	if v.fault = m.wrong(m.start, m.start); v.fault != "" {
		return v
	}
	for i := 0; i < len(g.order) && v.fault == ""; i++ {
		if len(g.order) > statesMax {
			return v
		}
		from := g.order[i]
		m.steps(from, func(to S, _ string, _ ...any) {
			if v.fault != "" || to == from {
				return
			}
			g.add(int32(i), to)
			if v.fault = m.wrong(from, to); v.fault != "" {
				v.trace = append(g.wayTo(int32(i)), g.what(from, to))
			}
		})
	}
	if v.fault != "" {
		return v
	}
	v.whole = true
	if m.done != nil {
		var stuck int32
		if v.done, stuck = g.stuck(); stuck >= 0 {
			v.fault = "stuck: from here not all can be applied any more"
			v.trace = g.wayTo(stuck)
		}
	}
	return v
}

// graph is what was seen of a machine.
type graph[S comparable] struct {
	machine[S]
	index  map[S]int32
	order  []S
	parent []int32
	nSteps int
	// from and to are the steps; kept only for a machine that knows done.
	from, to []int32
}

func (g *graph[S]) add(from int32, state S) {
	to, known := g.index[state]
	if !known {
		to = int32(len(g.order))
		g.index[state] = to
		g.order = append(g.order, state)
		g.parent = append(g.parent, from)
	}
	g.nSteps++
	if g.done != nil {
		g.from, g.to = append(g.from, from), append(g.to, to)
	}
}

// wayTo returns what happens on the way from the start to a state. Nothing of it is
// kept while exploring; it is found again by taking the steps.
func (g *graph[S]) wayTo(i int32) []string {
	var way []string
	for ; g.parent[i] >= 0; i = g.parent[i] {
		way = append(way, g.what(g.order[g.parent[i]], g.order[i]))
	}
	slices.Reverse(way)
	return way
}

func (g *graph[S]) what(from, to S) (what string) {
	g.steps(from, func(s S, format string, args ...any) {
		if s == to && what == "" {
			what = fmt.Sprintf(format, args...)
		}
	})
	return what
}

// stuck counts the states that are done and returns the first from which none of
// them can be reached, or -1.
func (g *graph[S]) stuck() (done int, first int32) {
	// before[ends[i]:ends[i+1]] are the states one step before state i.
	ends := make([]int32, len(g.order)+1)
	for _, to := range g.to {
		ends[to]++
	}
	sum := int32(0)
	for i, n := range ends {
		sum += n
		ends[i] = sum
	}
	before := make([]int32, len(g.to))
	for i, to := range g.to {
		ends[to]--
		before[ends[to]] = g.from[i]
	}
	can := make([]bool, len(g.order))
	var open []int32
	for i, s := range g.order {
		if g.done(s) {
			can[i] = true
			open = append(open, int32(i))
		}
	}
	done = len(open)
	for len(open) > 0 {
		last := open[len(open)-1]
		open = open[:len(open)-1]
		for _, i := range before[ends[last]:ends[last+1]] {
			if !can[i] {
				can[i] = true
				open = append(open, i)
			}
		}
	}
	return done, int32(slices.Index(can, false))
}

// statesMax bounds an exploration: above it, a model has grown out of its budget.
const statesMax = 1_500_000

// holds explores a whole machine and fails unless it is free of faults.
func holds[S comparable](t *testing.T, m machine[S]) {
	t.Helper()
	began := time.Now()
	v := m.explore(statesMax)
	switch {
	case v.fault != "":
		t.Fatalf("a set of rules that should be safe is not:\n%v", v)
	case !v.whole:
		t.Fatalf("more than %d states: nothing is proven; make the budgets smaller", statesMax)
	case m.done != nil && v.done == 0:
		t.Fatal("no state is done: nothing is proven")
	}
	t.Logf("%d states, %d steps, %d of the states done, in %v", v.states, v.steps, v.done, time.Since(began).Round(time.Millisecond))
}

// breaks explores a machine whose rules are broken on purpose and fails unless it
// finds the fault that is expected, which contains want.
func breaks[S comparable](t *testing.T, m machine[S], want string) {
	t.Helper()
	v := m.explore(statesMax)
	if v.fault == "" || !strings.Contains(v.fault, want) {
		t.Fatalf("explored %d states (all: %v) of rules that are broken, got:\n%v\nwant a fault that contains %q", v.states, v.whole, v, want)
	}
	t.Logf("found after %d states:\n%v", v.states, v)
}

func TestTheExplorer(t *testing.T) {
	// counting goes from 0 by +1 and +2, modulo 10.
	counting := machine[uint8]{
		steps: func(s uint8, emit emit[uint8]) {
			emit((s+1)%10, "%d+1", s)
			emit((s+2)%10, "%d+2", s)
		},
		wrong: func(_, _ uint8) string { return "" },
	}
	t.Run("visits every state and every step", func(t *testing.T) {
		if v := counting.explore(100); !v.whole || v.states != 10 || v.steps != 20 || v.fault != "" {
			t.Errorf("got %+v, want all of 10 states and 20 steps without a fault", v)
		}
	})
	t.Run("finds a shortest way to a fault", func(t *testing.T) {
		m := counting
		m.wrong = func(_, to uint8) string {
			if to == 5 {
				return "five"
			}
			return ""
		}
		want := "  1. 0+1\n  2. 1+2\n  3. 3+2\n  => five"
		if v := m.explore(100); v.String() != want {
			t.Errorf("got:\n%v\nwant:\n%v", v, want)
		}
	})
	t.Run("sees a step that is wrong between two states it knows", func(t *testing.T) {
		m := counting
		m.wrong = func(from, to uint8) string {
			if from == 9 && to == 0 {
				return "goes back"
			}
			return ""
		}
		if v := m.explore(100); v.fault != "goes back" || v.trace[len(v.trace)-1] != "9+1" {
			t.Errorf("got:\n%v\nwant the step 9+1 to go back", v)
		}
	})
	t.Run("finds a state from which nothing leads to the end", func(t *testing.T) {
		m := counting
		m.steps = func(s uint8, emit emit[uint8]) {
			if s < 4 {
				emit(s+2, "%d+2", s)
				emit(s+1, "%d+1", s)
			}
		}
		m.done = func(s uint8) bool { return s == 4 }
		if v := m.explore(100); v.fault != "stuck: from here not all can be applied any more" || len(v.trace) != 3 || v.states != 6 {
			t.Errorf("got %d states and:\n%v\nwant 6, and three steps to the state 5", v.states, v)
		}
	})
	t.Run("says when it has not seen everything", func(t *testing.T) {
		if v := counting.explore(5); v.whole {
			t.Errorf("got %+v, want it to stop above 5 states", v)
		}
	})
}
