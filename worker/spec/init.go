package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// Options say what Init is told; the rest it guesses.
type Options struct {
	// Name is the sample's, for messages and for the first line of the spec.
	Name string
	// Model is the model's name. Empty: made from Name.
	Model string
	// Source is the URL of the stream that is written into the spec. It may be
	// empty and given when the model is applied.
	Source string
	// Label is the column with what is to be predicted. It must be given.
	Label string
	// Time, User and Item are the columns with the event time, the user and the
	// item; empty where there is none. The user is masked.
	Time, User, Item string
}

// Init writes a first spec for a CSV file from a sample of its beginning: the header
// line and some rows, of which SampleRows or SampleBytes are enough; the sample may
// end in the middle of a row. Each feature has a comment that says why it is there;
// what is left out is there too, commented out, with the reason, and with a warning
// where a column seems to give the answer away. No text of the sample gets into the
// spec, except for the names of columns and the bounds of numbers and times.
//
// The spec can be parsed. An error is an Errors and wraps ps.ErrInvalid: a column
// that is not there, a label that is no number, a time in no known form, or nothing
// to learn from.
func Init(sample []byte, o Options) ([]byte, error) {
	if o.Name == "" {
		o.Name = "sample"
	}
	r := &reporter{file: o.Name}
	t, ok := readTable(r, sample)
	if !ok || !checkOptions(r, o, t) {
		return nil, r.err()
	}
	d, ok := newDraft(r, o, t)
	if !ok {
		return nil, r.err()
	}
	doc := d.write()
	if _, err := Parse("the spec made from "+o.Name, doc); err != nil {
		return nil, fmt.Errorf("init made a spec that cannot be parsed, please report this: %w", err)
	}
	return doc, nil
}

// checkOptions reports what is wrong with the options for this header.
func checkOptions(r *reporter, o Options, t *table) bool {
	roles := []struct{ role, column string }{{"label", o.Label}, {"time", o.Time}, {"user", o.User}, {"item", o.Item}}
	roleOf := make(map[string]string)
	for _, one := range roles {
		switch {
		case one.column == "" && one.role == "label":
			r.reportAt(place{}, one.role, "not given", "name the column that says what happened: one of "+listed(t.header))
		case one.column == "":
		case !slices.Contains(t.header, one.column):
			advice := "the columns are " + listed(t.header)
			if guess := Nearest(one.column, t.header); guess != "" {
				advice = fmt.Sprintf("did you mean %q? %s", guess, advice)
			}
			r.reportAt(place{line: 1}, one.role, "no column "+quoted(one.column), advice)
		case roleOf[one.column] != "":
			r.reportAt(place{}, one.role, quoted(one.column)+" is given as the "+roleOf[one.column]+" already", "name another column, or leave this out")
		default:
			roleOf[one.column] = one.role
		}
	}
	if o.Model != "" && !validModel(o.Model) {
		r.reportAt(place{}, "model", "the name "+quoted(o.Model), fmt.Sprintf(`use ASCII letters, digits, "-" and "_", at most %d, a letter or digit first`, ModelMax))
	}
	checkSource(r, o.Source)
	if t.rows == 0 && len(r.errs) == 0 {
		r.reportAt(place{line: 1}, "", fmt.Sprintf("no readable rows below the header (%d unreadable ones)", t.unreadable), "give a sample with some")
	}
	return len(r.errs) == 0
}

// draft is a spec in the making.
type draft struct {
	o        Options
	t        *table
	label    *profile
	loss     string
	answer   answer
	time     *timing // nil: there is none
	guesses  []guess
	crosses  []guess
	identify []string // identifiers beside the user
}

func newDraft(r *reporter, o Options, t *table) (*draft, bool) {
	d := &draft{o: o, t: t}
	if !d.readLabel(r) || o.Time != "" && !d.readTime(r) {
		return nil, false
	}
	g := &guesser{o: o, label: d.label, answer: d.answer, timed: d.time != nil, used: make(map[string]bool)}
	for i, name := range t.header {
		if name == "" || name == o.Label || name == o.Time {
			continue
		}
		p := newProfile(name, t.columns[i])
		one := g.column(p)
		one.worth = d.answer.worth(p)
		d.guesses = append(d.guesses, one)
		if p.isPerson() && name != o.User {
			d.identify = append(d.identify, name)
		}
	}
	d.addClock(g)
	if !slices.ContainsFunc(d.guesses, func(one guess) bool { return !one.out }) {
		var reasons []string
		for _, one := range d.guesses {
			reasons = append(reasons, fmt.Sprintf("%s (%s)", one.feature.Column, one.why))
		}
		r.reportAt(place{}, "", "no column is left to learn from: "+listed(reasons), "name the user's or the item's column, or write the spec by hand")
		return nil, false
	}
	d.addCrosses(g)
	return d, true
}

// worth returns how much of the label a column explains.
func (a answer) worth(p *profile) float64 {
	if !a.enough() {
		return 0
	}
	groups, k := p.bins(fewTexts)
	return a.explained(groups, k)
}

func (d *draft) readLabel(r *reporter) bool {
	p := newProfile(d.o.Label, d.t.columns[slices.Index(d.t.header, d.o.Label)])
	if bad := p.filled - p.numeric; p.numeric == 0 || 20*bad > p.filled {
		r.reportAt(place{}, "label", fmt.Sprintf("%s of the %s rows in column %s hold no number", grouped(bad+p.missing()), grouped(d.t.rows), quoted(p.name)),
			"write 1 for yes and 0 for no, or a quantity, or name another column")
		return false
	}
	d.label, d.loss = p, Log
	for _, v := range p.numbers {
		if v > 1 || v < 1 && v != 0 && v != -1 {
			d.loss = Squared
		}
	}
	d.answer = answerOf(p, d.loss)
	return true
}

func (d *draft) readTime(r *reporter) bool {
	p := newProfile(d.o.Time, d.t.columns[slices.Index(d.t.header, d.o.Time)])
	t, ok := p.guessTime()
	if !ok {
		r.reportAt(place{}, "time", fmt.Sprintf("the texts in column %s are times in no form that is known here", quoted(p.name)),
			"want seconds, milliseconds or microseconds since 1970, RFC 3339 or another date with year, month and day; or leave the time out and write stream.time by hand")
		return false
	}
	d.time = &t
	return true
}

func (d *draft) addClock(g *guesser) {
	if d.time == nil {
		return
	}
	add := func(part, why string, values int) {
		d.guesses = append(d.guesses, guess{
			feature: Feature{Name: g.uniqueName(part), Kind: Clock, Clock: part, Zone: "UTC"},
			why:     why, values: values,
		})
	}
	if d.time.hours {
		add(Hour, "from the event time; write the zone of most users instead of UTC", 24)
	}
	add(Weekday, "from the event time, in the same zone", 7)
}

// addCrosses crosses the user and the item with the contexts.
func (d *draft) addCrosses(g *guesser) {
	contexts := g.contexts(d.guesses)
	for _, column := range []string{d.o.User, d.o.Item} {
		at := slices.IndexFunc(d.guesses, func(one guess) bool { return column != "" && one.feature.Column == column })
		if at < 0 {
			continue
		}
		name := d.guesses[at].feature.Name
		for _, context := range contexts {
			d.crosses = append(d.crosses, guess{feature: Feature{
				Name: g.uniqueName(name + "_x_" + context.feature.Name), Kind: Cross,
				Of: []string{name, context.feature.Name},
			}})
		}
	}
}

// modelName returns the name of the model: the given one, or one made of the
// sample's.
func (d *draft) modelName() string {
	if d.o.Model != "" {
		return d.o.Model
	}
	name := d.o.Name[strings.LastIndexAny(d.o.Name, `/\`)+1:]
	name, _, _ = strings.Cut(name, ".")
	name = strings.Map(func(c rune) rune {
		if validModel("x" + string(c)) {
			return c
		}
		return '-'
	}, name)
	name = strings.Trim(name, "-_")
	if len(name) > ModelMax {
		name = name[:ModelMax]
	}
	if name == "" {
		return "model"
	}
	return name
}

// write returns the spec as YAML.
func (d *draft) write() []byte {
	y := &writer{}
	made := fmt.Sprintf("A first guess, made from %s rows of %s, to be read and mended. Each line says why it is there; what is commented out is left out for the reason given. SPEC.md explains every key.",
		grouped(d.t.rows), printable(d.o.Name))
	y.comment("", made)
	if n := d.t.unreadable; n > 0 {
		y.comment("", fmt.Sprintf("%s more rows could not be read, for a wrong number of fields or stray quotes; in training such rows are skipped.", grouped(n)))
	}
	y.line("model: " + word(d.modelName()))
	y.line("seed: 1")
	y.line("")
	d.writeStream(y)
	d.writeLabel(y)
	d.writeFeatures(y)
	ftrl, adagrad := rules[0].defaults, rules[1].defaults
	y.line("")
	y.comment("", "Linear in the features above: the place to begin. kind: fm adds factors, which find combinations that no cross names.")
	y.line("network:")
	y.line("  kind: logistic")
	y.line("  optimizer: " + optimizerText(ftrl))
	y.line("  # factors: 16")
	y.line("  # factor_optimizer: " + optimizerText(adagrad))
	y.line("")
	y.comment("", "Every event is scored before it is learned from, so nothing need be held out to judge the model.")
	y.line("evaluation: {holdout: 0, window: 50000}")
	y.comment("", "More events in flight train faster and learn worse.")
	y.line("training: {in_flight: 512}")
	return []byte(y.String())
}

func (d *draft) writeStream(y *writer) {
	y.line("stream:")
	if d.o.Source != "" {
		y.line("  source: " + word(d.o.Source))
	} else {
		y.comment("  ", "source: file:///data/events.csv, or given when the model is applied")
	}
	y.line("  format: csv")
	if t := d.time; t != nil {
		y.comment("  ", fmt.Sprintf("By %s: %s, here from %s to %s.", t.why, t.described(), t.from.Format(time.DateTime), t.to.Format(time.DateTime)))
		if t.twin != "" {
			y.comment("  ", fmt.Sprintf("WARNING: day and month may be the other way round, which would be %q.", t.twin))
		}
		if bad := d.t.rows - t.fits; bad > 0 {
			y.comment("  ", fmt.Sprintf("%s rows of the sample hold no such time; they would be skipped.", grouped(bad)))
		}
		y.line("  time: {column: " + word(d.o.Time) + ", unit: " + word(t.unit) + "}")
		if t.sorted {
			y.comment("  ", "The sample is in the order of its times; add sort: true if the rest of the file is not.")
		} else {
			y.comment("  ", "The sample is not in the order of its times.")
			y.line("  sort: true")
		}
	} else {
		y.comment("  ", "No column of event times was named, so rows count as being in order.")
	}
	y.comment("  ", "How many parts can be read at the same time. It cannot be changed later.")
	y.line("  partitions: 8")
	if d.o.User != "" {
		y.comment("  ", "A user's events stay in one partition, and so in order.")
		y.line("  partition_by: " + word(d.o.User))
	}
	d.writeIdentifiers(y)
	y.line("")
}

func (d *draft) writeIdentifiers(y *writer) {
	var columns []string
	var why []string
	if d.o.User != "" {
		columns = append(columns, word(d.o.User))
		why = append(why, "The user")
	}
	if len(d.identify) > 0 {
		for _, name := range d.identify {
			columns = append(columns, word(name))
		}
		why = append(why, "what by its name identifies people")
	}
	if len(columns) == 0 {
		y.comment("  ", "identifiers: list the columns that identify people; none was named, and no name sounds like it.")
		return
	}
	reason := strings.Join(why, ", and ")
	y.comment("  ", strings.ToUpper(reason[:1])+reason[1:]+": masked before anything else sees it.")
	y.line("  identifiers: [" + strings.Join(columns, ", ") + "]")
}

func (d *draft) writeLabel(y *writer) {
	p, a := d.label, d.answer
	if bad := len(p.texts) - p.numeric; bad > 0 {
		y.comment("", fmt.Sprintf("%s rows of the sample have no number here; they would be skipped.", grouped(bad)))
	}
	y.line("label: {column: " + word(p.name) + "}")
	switch {
	case d.loss == Log && (a.share == 0 || a.share == 1):
		y.comment("", "WARNING: all labels of the sample are the same, so nothing was compared with them. Yes or no is a guess.")
	case d.loss == Log:
		y.comment("", fmt.Sprintf("Yes or no: %.1f %% of the sample are yes.", 100*a.share))
	case p.min == p.max:
		y.comment("", "WARNING: all labels of the sample are the same, so nothing was compared with them.")
	default:
		y.comment("", fmt.Sprintf("A quantity: the labels of the sample are from %s to %s.", short(p.min), short(p.max)))
	}
	y.line("loss: " + d.loss)
	if !a.enough() {
		y.comment("", "There are too few answers of one kind to find columns that give the answer away: look for them yourself.")
	}
	y.line("")
}

func (d *draft) writeFeatures(y *writer) {
	y.line("features:")
	if slices.Contains(d.t.header, "") {
		y.comment("  ", "A column without a name is left out: a feature could not name it.")
	}
	for _, one := range d.guesses {
		name := printable(cmp.Or(one.feature.Column, one.feature.Name))
		switch {
		case one.warning:
			y.comment("  ", "WARNING: "+name+" is left out: "+one.why+".")
		case one.out:
			y.comment("  ", name+" is left out: "+one.why+".")
		default:
			y.comment("  ", name+": "+one.why+".")
		}
		mark := ""
		if one.out {
			mark = "# "
		}
		y.line("  " + mark + "- " + featureText(one.feature))
	}
	if len(d.crosses) > 0 {
		y.comment("  ", fmt.Sprintf("Crosses of the user and the item with what has few values, at most %d each: those that say most about the label by themselves.", contextsMax))
	}
	for _, one := range d.crosses {
		y.line("  - " + featureText(one.feature))
	}
}

// optimizerText returns an optimizer as YAML.
func optimizerText(o ps.Optimizer) string {
	chosen, _ := ruleOf(o.Name)
	text := "{name: " + o.Name
	for _, name := range chosen.settings {
		text += fmt.Sprintf(", %s: %v", name, *setting(&o, name))
	}
	return text + "}"
}
