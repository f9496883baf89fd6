package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figures are what one side of a part measured in one round, by name.
type figures map[string]float64

// part is work that two sides do in turn.
type part struct {
	name string
	// prepare installs and starts what is needed; may be nil.
	prepare func(ctx context.Context) error
	// peer and own are the sides: another system, or another form of Freshet; and
	// Freshet. peer may be nil.
	peer, own func(ctx context.Context) (figures, error)
	// end ends what prepare has started, even if that failed; may be nil.
	end   func() error
	goals []goal
	// once says that the work takes what it takes, however busy the machine is.
	once bool
}

// goal is one line of a part.
type goal struct {
	work      string
	peer, own string // names of figures
	kind      kind
	limit     float64
}

// kind says how a goal's two figures are compared.
type kind int

const (
	moreBy kind = iota // own / peer is at least the limit
	lessBy             // peer / own is at least the limit
	atMost             // own is at most the limit; there is no peer
	noted              // own is for orientation
)

// line is a goal with what came of it. Its JSON keys may be added and do not change.
type line struct {
	Part    string    `json:"part"`
	Work    string    `json:"work"`
	Goal    *float64  `json:"goal"` // of the median; nil if the line is for orientation
	Is      string    `json:"is"`   // what is compared: ratio or value
	Peer    []float64 `json:"peer,omitempty"`
	Freshet []float64 `json:"freshet"`
	Ratios  []float64 `json:"ratios,omitempty"`
	Median  float64   `json:"median"`
	Met     bool      `json:"met"`
	Error   string    `json:"error,omitempty"`

	kind kind
}

// run runs all rounds of a part and returns its lines.
func (p *part) run(ctx context.Context, rounds int, stderr io.Writer) []line {
	lines := make([]line, len(p.goals))
	for i, g := range p.goals {
		lines[i] = line{Part: p.name, Work: g.work, kind: g.kind, Is: "ratio"}
		if g.kind == atMost || g.kind == noted {
			lines[i].Is = "value"
		}
		if g.kind != noted {
			lines[i].Goal = &p.goals[i].limit
		}
	}
	start := time.Now()
	err := p.rounds(ctx, rounds, lines, stderr)
	for i := range lines {
		lines[i].judge(err)
	}
	fmt.Fprintf(stderr, "%s: done in %.0f s\n", p.name, time.Since(start).Seconds())
	return lines
}

// rounds runs the two sides in turn and adds their figures to the lines.
func (p *part) rounds(ctx context.Context, rounds int, lines []line, stderr io.Writer) (err error) {
	if p.end != nil {
		defer func() {
			if endErr := p.end(); err == nil {
				err = endErr
			}
		}()
	}
	if p.prepare != nil {
		fmt.Fprintf(stderr, "%s: preparing\n", p.name)
		if err := p.prepare(ctx); err != nil {
			return err
		}
	}
	if p.once {
		rounds = 1
	}
	for round := range rounds {
		fmt.Fprintf(stderr, "%s: round %d of %d\n", p.name, round+1, rounds)
		peer, own, err := p.round(ctx, round%2 == 0)
		if err != nil {
			return err
		}
		for i, g := range p.goals {
			if err := lines[i].add(g, peer, own); err != nil {
				return err
			}
		}
	}
	return nil
}

// round runs both sides once.
func (p *part) round(ctx context.Context, peerFirst bool) (peer, own figures, err error) {
	if p.peer != nil && peerFirst {
		if peer, err = p.peer(ctx); err != nil {
			return nil, nil, err
		}
	}
	if own, err = p.own(ctx); err != nil {
		return nil, nil, err
	}
	if p.peer != nil && !peerFirst {
		peer, err = p.peer(ctx)
	}
	return peer, own, err
}

// add adds one round's figures.
func (l *line) add(g goal, peer, own figures) error {
	mine, ok := own[g.own]
	if !ok {
		return fmt.Errorf("freshet did not measure %q", g.own)
	}
	l.Freshet = append(l.Freshet, mine)
	if g.kind == atMost || g.kind == noted {
		return nil
	}
	other, ok := peer[g.peer]
	if !ok {
		return fmt.Errorf("the peer did not measure %q", g.peer)
	}
	l.Peer = append(l.Peer, other)
	ratio := mine / other
	if g.kind == lessBy {
		ratio = other / mine
	}
	l.Ratios = append(l.Ratios, ratio)
	return nil
}

// judge sets the median and whether the goal is met. err is why rounds are missing.
func (l *line) judge(err error) {
	judged := l.Ratios
	if l.Is == "value" {
		judged = l.Freshet
	}
	if len(judged) > 0 {
		l.Median = median(judged)
	}
	if err != nil {
		l.Error = err.Error()
		return
	}
	switch {
	case len(judged) == 0 || math.IsNaN(l.Median):
	case l.kind == noted:
		l.Met = true
	case l.kind == atMost:
		l.Met = l.Median <= *l.Goal
	default:
		l.Met = l.Median >= *l.Goal
	}
}

// median returns the middle of a list that is not empty, or the mean of the two in the
// middle.
func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// partNames returns the names of parts, each once.
func partNames(all []*part) []string {
	var names []string
	for _, p := range all {
		if !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return names
}

// document is the report as JSON. Keys may be added and do not change.
type document struct {
	Rounds   int    `json:"rounds"`
	Rows     int    `json:"rows"`
	Keys     int    `json:"keys"`
	Examples int    `json:"examples"`
	Lines    []line `json:"lines"`
}

// met reports whether every goal is met.
func (d *document) met() bool {
	return !slices.ContainsFunc(d.Lines, func(l line) bool { return !l.Met })
}

// print writes the report for people.
func (d *document) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "work\tpeer\tFreshet\tmedian\tgoal\tmet\teach round")
	for _, l := range d.Lines {
		met := "yes"
		if !l.Met {
			met = "NO"
		}
		result, goal, peer := "-", "-", "-"
		switch {
		case len(l.Freshet) == 0:
		case l.Is == "ratio":
			result = fmt.Sprintf("%.2f×", l.Median)
		default:
			result = short(l.Median)
		}
		switch {
		case l.Goal == nil:
		case l.kind == atMost:
			goal = "≤ " + short(*l.Goal)
		default:
			goal = fmt.Sprintf("≥ %.4g×", *l.Goal)
		}
		if len(l.Peer) > 0 {
			peer = short(median(l.Peer))
		}
		own := "-"
		if len(l.Freshet) > 0 {
			own = short(median(l.Freshet))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Work, peer, own, result, goal, met, l.each())
	}
	return t.Flush()
}

// each returns the ratios of each round, or why there are none.
func (l *line) each() string {
	if l.Error != "" {
		first, _, _ := strings.Cut(l.Error, "\n")
		return first
	}
	var texts []string
	for _, r := range l.Ratios {
		texts = append(texts, fmt.Sprintf("%.2f", r))
	}
	return strings.Join(texts, " ")
}

// short prints a figure of any size.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.1f k", v/1e3)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.5f", v)
}
