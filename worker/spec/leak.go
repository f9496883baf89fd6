package spec

import (
	"fmt"
	"math"
	"slices"
)

// outcomes are words in the names of columns that are known only after the event:
// a model that sees them learns from what it will not have when it predicts.
var outcomes = []string{
	"click", "clicks", "clicked", "like", "liked", "follow", "followed", "comment", "commented", "forward", "forwarded",
	"share", "shared", "hate", "dislike", "disliked", "purchase", "purchased", "bought", "convert", "converted",
	"conversion", "conversions", "revenue", "spend", "spent", "visit", "visited", "rating", "rated", "play", "played", "playtime",
	"watch", "watched", "watchtime", "dwell", "viewed", "view", "stay", "outcome", "result", "label", "target", "response",
	"reward", "booked", "installed", "subscribed", "churn", "churned", "completed", "completion", "skipped", "finished",
	"enter", "entered",
}

// known are words that say the contrary: counts and properties of what the rest of
// the name is about.
var known = []string{
	"num", "count", "cnt", "total", "avg", "mean", "rate", "range", "ratio", "id", "name", "type", "category", "kind",
	"previous", "prev", "past", "last", "history", "hist",
}

// soundsLikeOutcome reports whether the column's name says that it is known only
// after the event.
func (p *profile) soundsLikeOutcome() bool { return p.hasWord(outcomes...) && !p.hasWord(known...) }

// answer is the label column as a yes or no per row.
type answer struct {
	yes   []bool
	known []bool // the row has a label
	rows  int    // of known
	share float64
	loss  string
}

// answerOf returns the label as yes or no: above 0 under the log loss, above the
// mean under the squared one.
func answerOf(label *profile, loss string) answer {
	a := answer{loss: loss, yes: make([]bool, len(label.texts)), known: make([]bool, len(label.texts))}
	var sum float64
	for _, v := range label.numbers {
		if !math.IsNaN(v) {
			a.rows++
			sum += v
		}
	}
	bound := 0.0
	if loss == Squared {
		bound = sum / float64(max(a.rows, 1))
	}
	count := 0
	for row, v := range label.numbers {
		if math.IsNaN(v) {
			continue
		}
		a.known[row] = true
		if v > bound {
			a.yes[row] = true
			count++
		}
	}
	a.share = float64(count) / float64(max(a.rows, 1))
	return a
}

// enough reports whether there is enough of either answer to compare columns with.
func (a answer) enough() bool {
	const least = 10
	n := a.share * float64(a.rows)
	return n >= least && float64(a.rows)-n >= least
}

// leak says why a column gives the answer away, if it does.
func (p *profile) leak(a answer, label *profile) (string, bool) {
	if !a.enough() {
		return "", false
	}
	if slices.Equal(p.texts, label.texts) {
		return "it is equal to the label in every row", true
	}
	groups, k := p.bins(fewTexts)
	if share := a.explained(groups, k); share >= 0.5 {
		return fmt.Sprintf("it says %.0f %% of what there is to know about the label", 100*share), true
	}
	if n := a.pure(groups, k); n > 0 && p.distinct <= fewTexts {
		return fmt.Sprintf("one of its values comes in %s rows, and the label is yes in all of them", grouped(n)), true
	}
	return "", false
}

// bins puts the rows into groups: by text where texts come often, by quantile where
// they are many numbers. Group 0 is that of the rows without a text, and of rare
// ones. The groups are numbered below k.
func (p *profile) bins(most int) (groups []int, k int) {
	groups = make([]int, len(p.texts))
	if p.isNumeric() && p.distinct > most {
		return p.quantiles(most)
	}
	const rare = 5
	count := make([]int, p.distinct)
	for _, g := range p.groups {
		if g >= 0 {
			count[g]++
		}
	}
	number := make([]int, p.distinct)
	k = 1
	for g, n := range count {
		if n >= rare {
			number[g] = k
			k++
		}
	}
	for row, g := range p.groups {
		if g >= 0 {
			groups[row] = number[g]
		}
	}
	return groups, k
}

// quantiles puts rows with a number into at most most groups of about the same
// size, equal numbers into the same.
func (p *profile) quantiles(most int) (groups []int, k int) {
	groups = make([]int, len(p.texts))
	edges := p.quantileEdges(min(most, max(p.filled/20, 1)))
	for row, v := range p.numbers {
		if !math.IsNaN(v) {
			at, found := slices.BinarySearch(edges, v)
			if found {
				at++ // an edge begins the upper bin
			}
			groups[row] = 1 + at
		}
	}
	return groups, len(edges) + 2
}

// quantileEdges returns the ascending bounds that cut the numbers into about n
// equal parts.
func (p *profile) quantileEdges(n int) []float64 {
	var sorted, edges []float64
	for _, v := range p.numbers {
		if !math.IsNaN(v) {
			sorted = append(sorted, v)
		}
	}
	slices.Sort(sorted)
	for i := 1; i < n; i++ {
		edge := sorted[i*len(sorted)/n]
		if edge > sorted[0] && (len(edges) == 0 || edge > edges[len(edges)-1]) {
			edges = append(edges, edge)
		}
	}
	return edges
}

// explained returns which share of the answer's entropy the groups explain: the
// mutual information, less what groups explain by chance, over the entropy.
//
// Source: Miller 1955, Note on the bias of information estimates.
func (a answer) explained(groups []int, k int) float64 {
	count, yes := a.tally(groups, k)
	within, used := 0.0, 0
	for g, n := range count {
		if n > 0 {
			used++
			within += n / float64(a.rows) * entropy(yes[g]/n)
		}
	}
	whole := entropy(a.share)
	if whole == 0 {
		return 0
	}
	chance := float64(used-1) / (2 * float64(a.rows))
	return max((whole-within-chance)/whole, 0)
}

// pure returns the size of the largest group in which every answer is yes, if that
// cannot be chance; else 0. A quantity has no answers of which that could be said.
func (a answer) pure(groups []int, k int) int {
	if a.loss == Squared {
		return 0
	}
	const chance = 1e-6 // for the largest of some dozens of groups
	count, yes := a.tally(groups, k)
	most := 0.0
	for g, n := range count {
		if g > 0 && n == yes[g] && math.Pow(a.share, n) < chance {
			most = max(most, n)
		}
	}
	return int(most)
}

// tally counts, per group, rows with a label and those with the answer yes.
func (a answer) tally(groups []int, k int) (count, yes []float64) {
	count, yes = make([]float64, k), make([]float64, k)
	for row, g := range groups {
		if a.known[row] {
			count[g]++
			if a.yes[row] {
				yes[g]++
			}
		}
	}
	return count, yes
}

// entropy returns the entropy of a yes or no in nats.
func entropy(p float64) float64 {
	if p <= 0 || p >= 1 {
		return 0
	}
	return -p*math.Log(p) - (1-p)*math.Log(1-p)
}
