package spec

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// fewTexts is up to how many different texts a column is a context to cross
	// users and items with; more make rows that are seen too rarely.
	fewTexts = 50
	// fewNumbers is up to how many different numbers, each coming twice on average,
	// are taken for names of things rather than for quantities.
	fewNumbers = 20
	// contextsMax is how many contexts users, and items, are crossed with.
	contextsMax = 4
)

// guess is what Init makes of a column.
type guess struct {
	feature Feature
	why     string
	// out: the feature is written, but commented out. With warning, because it
	// would do harm.
	out, warning bool
	// values is how many different values the feature has, and worth how much of
	// the label they explain: what crosses are chosen by.
	values int
	worth  float64
	person bool // it identifies people
}

// guesser makes guesses for the columns of one sample.
type guesser struct {
	o      Options
	label  *profile
	answer answer
	timed  bool // the event time is known
	used   map[string]bool
}

// column guesses the feature of a column that is neither time nor label.
func (g *guesser) column(p *profile) guess {
	found := guess{feature: Feature{Name: g.uniqueName(p.name), Column: p.name}, values: p.distinct}
	switch p.name {
	case g.o.User:
		found.why = "the user: " + p.counted()
		return found
	case g.o.Item:
		found.why = "the item: " + p.counted()
		return found
	}
	if why, warning := g.useless(p); why != "" {
		found.out, found.why, found.warning = true, why, warning
		return found
	}
	if p.isPerson() {
		return g.person(p, found)
	}
	if p.isNumeric() {
		return number(p, found)
	}
	if s, ok := p.separated(); ok {
		return tokens(found, s, fmt.Sprintf("%.0f %% of the texts have several values, separated by %q", 100*s.share, s.split))
	}
	return text(p, found)
}

// useless returns why nothing can or should be learned from a column; "" if it may.
func (g *guesser) useless(p *profile) (why string, warning bool) {
	switch {
	case p.filled == 0:
		return "empty in every row of the sample", false
	case p.distinct == 1 && p.missing() == 0:
		return "the same in every row of the sample", false
	}
	if why, leaks := p.leak(g.answer, g.label); leaks {
		return why + ". If it is known only after the event, the model must not see it", true
	}
	if p.soundsLikeOutcome() {
		return "the name sounds like something that is known only after the event, and then the model must not see it. If it is known before, use it", true
	}
	if t, ok := p.guessTime(); ok && (!p.isNumeric() || p.soundsLikeTime()) {
		if g.timed {
			return "it holds " + t.described() + "; the hour and weekday of the event are features already", false
		}
		return "it holds " + t.described() + ". If it is the event's, name it as the time", false
	}
	if p.isJSON() {
		return "it holds JSON, which features cannot look into", false
	}
	return "", false
}

// person guesses a column that identifies people by its name. It is masked, so it
// is text and nothing else.
func (g *guesser) person(p *profile, found guess) guess {
	found.person = true
	found.why = "by its name it identifies people, so it is masked; " + p.counted()
	if p.nearlyUnique() {
		found.out, found.why = true, "by its name it identifies people, and hardly any comes twice: "+p.counted()
	}
	return found
}

// number guesses a column of numbers.
func number(p *profile, found guess) guess {
	switch {
	case p.distinct <= fewNumbers && 2*p.distinct <= p.filled:
		found.why = p.counted() + ": few enough to learn each by itself"
	case p.whole == p.filled && p.distinct == p.filled && p.rising():
		found.out, found.why = true, "it rises from row to row, so it numbers the rows"
	case p.isID() || p.zeroed > 0:
		found.why = "numbers that are names of things: " + p.counted()
		if p.nearlyUnique() {
			found.out, found.why = true, "hardly any comes twice: "+p.counted()
		}
	default:
		found.feature.Kind = Buckets
		buckets(p, &found)
	}
	return found
}

// buckets chooses the buckets of a quantity: logarithmic ones if they tell enough
// apart, else bounds from the sample.
func buckets(p *profile, found *guess) {
	const enough = 8
	between := fmt.Sprintf("a quantity: %s different numbers from %s to %s", grouped(p.distinct), short(p.min), short(p.max))
	for _, base := range []float64{2, 1.5} {
		if n := p.logBuckets(base); n >= enough {
			found.feature.Log, found.values = base, n
			found.why = fmt.Sprintf("%s, in %d buckets of which each is %s times as wide as the one before", between, n, short(base))
			return
		}
	}
	edges := rounded(p.quantileEdges(10))
	if len(edges) == 0 {
		found.feature.Log = 2
		found.why = between + ", nearly all of them equal"
		return
	}
	found.feature.Edges, found.values = edges, len(edges)+1
	found.why = between + ", too close together for logarithms; the bounds cut the sample into about equal parts"
}

// logBuckets returns how many logarithmic buckets the numbers fall into.
func (p *profile) logBuckets(base float64) int {
	seen := make(map[float64]bool)
	for _, v := range p.numbers {
		if !math.IsNaN(v) {
			seen[math.Copysign(math.Floor(math.Log1p(math.Abs(v))/math.Log(base)), v)] = true
		}
	}
	return len(seen)
}

// text guesses a column of text.
func text(p *profile, found guess) guess {
	switch s, prose := p.prose(); {
	case 10*p.numeric >= 9*p.filled && p.distinct > fewTexts:
		found.out, found.feature.Kind, found.feature.Log = true, Buckets, 2
		found.why = fmt.Sprintf("numbers, but for %s texts that are none, and such rows would be skipped; mend the file, or read it as text", grouped(p.filled-p.numeric))
	case p.isGrouped():
		found.out, found.why = true, "numbers with commas between thousands, which are not read as numbers; write them without"
	case prose:
		return tokens(found, s, fmt.Sprintf("sentences or titles: %.1f words each", s.perText))
	case p.nearlyUnique():
		found.out, found.why = true, "hardly any text comes twice: "+p.counted()
	default:
		found.why = p.counted()
	}
	return found
}

// tokens makes found a feature of several values.
func tokens(found guess, s separator, why string) guess {
	found.feature.Kind, found.feature.Split, found.feature.WeightAfter = Tokens, s.split, s.weightAfter
	found.values = s.tokens
	found.why = fmt.Sprintf("%s; %s different ones", why, grouped(s.tokens))
	if s.weightAfter != "" {
		found.why += ", each with a weight"
	}
	return found
}

// counted says how many different texts a column has.
func (p *profile) counted() string {
	s := fmt.Sprintf("%s different in %s rows", grouped(p.distinct), grouped(len(p.texts)))
	if n := p.missing(); n > 0 {
		s += fmt.Sprintf(", missing in %s", grouped(n))
	}
	return s
}

// contexts returns the guesses to cross users and items with, those first that say
// most about the label.
func (g *guesser) contexts(guesses []guess) []guess {
	var contexts []guess
	for _, one := range guesses {
		role := one.feature.Column != "" && (one.feature.Column == g.o.User || one.feature.Column == g.o.Item)
		if !one.out && !role && !one.person && one.values >= 2 && one.values <= fewTexts {
			contexts = append(contexts, one)
		}
	}
	slices.SortStableFunc(contexts, func(a, b guess) int { return cmp.Compare(b.worth, a.worth) })
	return contexts[:min(len(contexts), contextsMax)]
}

// uniqueName returns a feature's name that is like wanted and not used before.
func (g *guesser) uniqueName(wanted string) string {
	parts := strings.FieldsFunc(wanted, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) && !strings.ContainsRune("-_.", c)
	})
	name := strings.TrimLeftFunc(strings.Join(parts, "_"), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
	if name == "" {
		name = "feature"
	}
	const room = FeatureNameMax - 10 // for a number behind it
	for len(name) > room {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	unique := name
	for n := 2; g.used[unique]; n++ {
		unique = name + "_" + strconv.Itoa(n)
	}
	g.used[unique] = true
	return unique
}

// rounded returns bounds with three digits each, still ascending.
func rounded(edges []float64) []float64 {
	var out []float64
	for _, edge := range edges {
		v, _ := strconv.ParseFloat(strconv.FormatFloat(edge, 'g', 3, 64), 64) // rounding a finite number
		if finite(v) && (len(out) == 0 || v > out[len(out)-1]) {
			out = append(out, v)
		}
	}
	return out
}

// short returns a number for a comment.
func short(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return grouped(int(v))
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// grouped returns n with commas between thousands.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
