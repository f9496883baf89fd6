package spec

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/freshet-ml/freshet/ps"
)

// Limits of a spec; beyond them it is refused.
const (
	// ModelMax is the length of a model's name. It becomes part of file names and
	// of Kubernetes labels, which have 63 characters.
	ModelMax = 63
	// FeatureNameMax is the length of a feature's name in bytes.
	FeatureNameMax = 100
	// FeaturesMax is how many features a model has. Each is at least one row per
	// event to pull and push.
	FeaturesMax = 4096
	// PartitionsMax is how many partitions a file is cut into. Every shard stores
	// its progress for each.
	PartitionsMax = 4096
	// PassesMax is how often a file is read.
	PassesMax = 10_000
	// InFlightMax is how many events are between pull and push. Learning has
	// suffered badly long before.
	InFlightMax = 1 << 20
	// FieldsMax is how many fields a tower sees. A batch numbers them in 16 bits.
	FieldsMax = 1 << 14
	// LayersMax is how many hidden layers a tower has.
	LayersMax = 16
	// DenseMax is how many parameters all layers have together: they travel with every
	// batch, so many in 16 MiB.
	DenseMax = 4 << 20
)

// vwNumbers are what a Vowpal Wabbit line begins with. They are columns to those who
// extract labels, and to no feature.
var vwNumbers = []string{"label", "importance"}

// Valid reports everything that is wrong with s, as an Errors without lines; nil
// if nothing is. What Parse returns is valid.
func (s *Spec) Valid() error {
	r := &reporter{}
	check(r, s)
	return r.err()
}

// check reports what is wrong with values and with how they go together.
func check(r *reporter, s *Spec) {
	if !validModel(s.Model) {
		r.report("model", "the name "+quoted(s.Model), fmt.Sprintf(`use ASCII letters, digits, "-" and "_", at most %d, a letter or digit first`, ModelMax))
	}
	checkStream(r, s)
	checkLabel(r, s)
	checkFeatures(r, s)
	checkNetwork(r, s.Network)
	checkFields(r, s)
	if h := s.Evaluation.Holdout; !(h >= 0 && h < 1) {
		r.report("evaluation.holdout", fmt.Sprintf("%v", h), "want the share of events that are held out, from 0 to less than 1, such as 0.01")
	}
	checkRange(r, "evaluation.window", s.Evaluation.Window, 1<<30)
	checkRange(r, "training.in_flight", s.Training.InFlight, InFlightMax)
}

// checkRange checks a number from 1 to most.
func checkRange(r *reporter, path string, n, most int) {
	if n < 1 || n > most {
		r.report(path, fmt.Sprintf("%d", n), fmt.Sprintf("want 1 to %d", most))
	}
}

// checkOneOf checks a word out of a few.
func checkOneOf(r *reporter, path, what, word string, known ...string) bool {
	if slices.Contains(known, word) {
		return true
	}
	r.report(path, "unknown "+what+" "+quoted(word), advise(word, "want one of", known))
	return false
}

func validModel(name string) bool {
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '-' || c == '_'):
		default:
			return false
		}
	}
	return name != "" && len(name) <= ModelMax
}

func checkStream(r *reporter, s *Spec) {
	checkSource(r, s.Stream.Source)
	checkOneOf(r, "stream.format", "format", s.Stream.Format, CSV, VW, JSON)
	if s.Stream.Time.Column != "" {
		checkUnit(r, s.Stream.Time.Unit)
	} else if s.Stream.Sort {
		r.report("stream.sort", "there is no event time to sort by", "add stream.time, or remove sort")
	}
	if s.Stream.Format == JSON {
		for path, given := range map[string]bool{
			"stream.sort": s.Stream.Sort, "stream.passes": s.Stream.Passes > 1, "stream.partition_by": s.Stream.PartitionBy != "",
		} {
			if given {
				r.report(path, "a topic has its own partitions, in its own order, and is read once", "remove it")
			}
		}
	}
	checkRange(r, "stream.partitions", s.Stream.Partitions, PartitionsMax)
	checkRange(r, "stream.passes", s.Stream.Passes, PassesMax)
	checkIdentifiers(r, s)
}

// checkSource checks the form of a source's URL. Whether there is such a source is
// found out by whoever opens it.
func checkSource(r *reporter, source string) {
	if source == "" {
		return
	}
	const path = "stream.source"
	u, err := url.Parse(source)
	switch {
	case err != nil || u.Scheme == "":
		r.report(path, quoted(source)+" is not a URL", "write file:// and the whole path, such as file:///data/events.csv")
	case u.User != nil:
		r.report(path, "the URL has a user or password in it", "remove it: specs are stored where many can read them")
	case u.Scheme == "file" && (u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/")):
		r.report(path, quoted(source)+" is not a whole path", "write three slashes and the path from the root, such as file:///data/events.csv")
	}
}

// checkUnit checks the unit of the event time. A layout of package time is known by
// what it does: a time that it writes is, read again, on the same day, and in the
// same hour if it writes hours at all.
func checkUnit(r *reporter, unit string) {
	switch unit {
	case Seconds, Milliseconds, Microseconds, RFC3339:
		return
	}
	then := time.Date(2021, time.November, 23, 13, 47, 58, 0, time.UTC)
	again, err := time.Parse(unit, then.Format(unit))
	sameDay := err == nil && again.Year() == then.Year() && again.YearDay() == then.YearDay()
	hasHour := then.Format(unit) != then.Add(time.Hour).Format(unit)
	switch {
	case !sameDay:
		r.report("stream.time.unit", "unknown unit "+quoted(unit), `want s, ms, us, rfc3339, or a layout of Go's time package with year, month and day, such as "2006-01-02 15:04:05"`)
	case hasHour && again.Hour() != then.Hour():
		r.report("stream.time.unit", "the layout "+quoted(unit)+" does not tell morning from evening", "write the hour as 15, or add PM")
	}
}

// checkIdentifiers checks that masking an identifier leaves nothing that needs its
// plain text.
func checkIdentifiers(r *reporter, s *Spec) {
	at := make(map[string]int, len(s.Stream.Identifiers))
	for i, column := range s.Stream.Identifiers {
		path := item("stream.identifiers", i)
		first, twice := at[column]
		switch {
		case column == "":
			r.report(path, "empty", "name a column, or remove it")
		case twice:
			r.report(path, quoted(column)+" is listed twice", fmt.Sprintf("remove it here; it is item %d already", first))
		case column == s.Label.Column:
			r.report(path, quoted(column)+" is the label's column", "remove it: a masked label cannot be learned")
		case s.Stream.Format == VW && slices.Contains(vwNumbers, column):
			r.report(path, quoted(column)+" is a number that every vw line begins with", "remove it: masked, it could not be read")
		case column == s.Stream.Time.Column:
			r.report(path, quoted(column)+" is the event time's column", "remove it: a masked time cannot be read")
		}
		if !twice {
			at[column] = i
		}
	}
	for i, f := range s.Features {
		if _, masked := at[f.Column]; masked && f.Column != "" && (f.Kind == Buckets || f.Kind == Tokens) {
			r.report(item("features", i)+".column", quoted(f.Column)+" is an identifier and masked as a whole, so it has neither number nor tokens",
				"remove split, log or edges, or remove the column from stream.identifiers")
		}
	}
}

func checkLabel(r *reporter, s *Spec) {
	checkOneOf(r, "loss", "loss", s.Loss, Log, Squared)
	switch {
	case s.Stream.Format == VW && s.Label.Column != "":
		r.report("label", "a vw stream brings its own label", "remove label")
	case s.Stream.Format != VW && s.Label.Column == "":
		r.report("label.column", "missing", "add it, such as label: {column: clicked}")
	}
}

func checkFeatures(r *reporter, s *Spec) {
	if len(s.Features) == 0 || len(s.Features) > FeaturesMax {
		r.report("features", fmt.Sprintf("%d features", len(s.Features)), fmt.Sprintf("want 1 to %d", FeaturesMax))
		return
	}
	crossed := make(map[string]bool)
	first := make(map[string]int) // of the features of a name
	for i, f := range s.Features {
		for _, name := range f.Of {
			crossed[name] = true
		}
		if _, twice := first[f.Name]; !twice {
			first[f.Name] = i
		}
	}
	for i, f := range s.Features {
		path := item("features", i)
		switch {
		case !validFeatureName(f.Name):
			r.report(path+".name", "the name "+quoted(f.Name), fmt.Sprintf(`use letters, digits, "-", "_" and ".", at most %d bytes, a letter or digit first`, FeatureNameMax))
		case first[f.Name] < i:
			r.report(path+".name", "a second feature "+quoted(f.Name), "give it another name; "+item("features", first[f.Name])+" has this one")
		}
		checkFeature(r, s, i, first)
		switch {
		case f.CrossOnly && f.Kind == Cross:
			r.report(path+".cross_only", "a cross cannot be in another cross, so nothing would see it", "remove cross_only, or the feature")
		case f.CrossOnly && !crossed[f.Name]:
			r.report(path+".cross_only", "no cross has "+quoted(f.Name)+", so nothing would see it", "add a cross of it, or remove cross_only")
		}
	}
}

func validFeatureName(name string) bool {
	for i, c := range name {
		inside := i > 0 && (c == '-' || c == '_' || c == '.' || unicode.IsMark(c))
		if !inside && !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			return false
		}
	}
	return name != "" && len(name) <= FeatureNameMax
}

// checkFeature checks what is particular to the kind of feature i. named has the
// position of every feature's name.
func checkFeature(r *reporter, s *Spec, i int, named map[string]int) {
	f, path := s.Features[i], item("features", i)
	switch f.Kind {
	case Categorical, Tokens, Buckets:
		checkColumn(r, s, f, path)
	case Clock:
		checkClock(r, s, f, path)
	case Cross:
		checkCross(r, s, i, named)
	default:
		r.report(path, fmt.Sprintf("unknown kind %d", f.Kind), "use one of the kinds of this package")
	}
	switch f.Kind {
	case Tokens:
		checkTokens(r, f, path)
	case Buckets:
		checkBuckets(r, f, path)
	}
}

func checkColumn(r *reporter, s *Spec, f Feature, path string) {
	switch {
	case f.Column == "":
		r.report(path+".column", "missing", "add it"+suchAs("column"))
	case f.Column == s.Label.Column:
		r.report(path+".column", quoted(f.Column)+" is the label's column: the model would see the answer", "remove the feature")
	case s.Stream.Format == VW && slices.Contains(vwNumbers, f.Column):
		r.report(path+".column", quoted(f.Column)+" is no namespace but a number that every vw line begins with", "remove the feature; a namespace of that name has to be renamed")
	}
}

func checkTokens(r *reporter, f Feature, path string) {
	switch {
	case f.Split == "":
		r.report(path+".split", "empty", `write what separates the tokens, such as split: " "`)
	case f.WeightAfter == f.Split:
		r.report(path+".weight_after", quoted(f.WeightAfter)+" separates the tokens already", "use what stands between a token and its weight, or remove it")
	case f.WeightAfter != "" && strings.Contains(f.WeightAfter, f.Split):
		r.report(path+".weight_after", quoted(f.WeightAfter)+" contains what separates the tokens, so it is never found", "use what stands between a token and its weight, or remove it")
	}
}

func checkBuckets(r *reporter, f Feature, path string) {
	if r.spoilt[path+".log"] || r.spoilt[path+".edges"] {
		return // neither is there because the one that is could not be read
	}
	switch {
	case f.Log != 0 && len(f.Edges) > 0:
		r.report(path+".edges", `a feature with "log" cannot have "edges" too`, "keep one of the two, or make two features of it")
	case len(f.Edges) == 0:
		if f.Edges != nil && f.Log == 0 {
			r.report(path+".edges", "no edges", "list at least one bound between buckets, such as edges: [18, 25, 35]")
		} else if !(f.Log > 1 && finite(f.Log)) {
			r.report(path+".log", fmt.Sprintf("the base %v", f.Log), "want a number above 1, such as 2: each bucket is so many times as wide as the one before")
		}
	}
	for j, edge := range f.Edges {
		switch {
		case !finite(edge):
			r.report(item(path+".edges", j), fmt.Sprintf("the edge %v is not finite", edge), "remove it: the first and the last bucket have no bound anyway")
		case j > 0 && !(edge > f.Edges[j-1]):
			r.report(item(path+".edges", j), fmt.Sprintf("%v after %v", edge, f.Edges[j-1]), "list the edges in ascending order, each once")
		}
	}
}

func checkClock(r *reporter, s *Spec, f Feature, path string) {
	if checkOneOf(r, path+".clock", "part of the time", f.Clock, Hour, Weekday, HourOfWeek) && s.Stream.Time.Column == "" {
		r.report(path+".clock", "the stream has no event time", "add stream.time, or remove the feature")
	}
	if _, err := zone(f.Zone); err != nil {
		r.report(path+".zone", "the time zone "+quoted(f.Zone)+" cannot be loaded", `want a name of the IANA database, such as Europe/London, or UTC; if it is one, this machine lacks the database`)
	}
}

// zone loads a time zone. "Local" and "" are none: they would make features depend
// on the machine or be forgotten.
func zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("time zone %q: %w", name, ps.ErrInvalid)
	}
	return time.LoadLocation(name)
}

func checkCross(r *reporter, s *Spec, i int, named map[string]int) {
	f, path := s.Features[i], item("features", i)+".cross"
	if len(f.Of) < 2 {
		r.report(path, fmt.Sprintf("a cross of %d", len(f.Of)), "list two or more features")
		return
	}
	in := make(map[string]bool, len(f.Of))
	for j, name := range f.Of {
		at := item(path, j)
		if in[name] {
			r.report(at, quoted(name)+" is in the cross twice", "list each feature once")
			continue
		}
		in[name] = true
		switch k, ok := named[name]; {
		case !ok:
			reportUnknown(r, s, at, name)
		case s.Features[k].Kind == Cross:
			r.report(at, quoted(name)+" is a cross itself", "list the features that it is made of: "+listed(s.Features[k].Of))
		case k > i:
			r.report(at, quoted(name)+" stands below this cross", "move the cross below "+item("features", k))
		}
	}
}

// reportUnknown reports a feature in a cross that is not there, unless it may be
// the one whose name could not be read.
func reportUnknown(r *reporter, s *Spec, path, name string) {
	if r.full() {
		r.report(path, "", "")
		return // looking for what was meant takes time
	}
	var names []string
	for k, f := range s.Features {
		if f.Name == "" || r.spoilt[item("features", k)+".name"] {
			return
		}
		if f.Kind != Cross {
			names = append(names, f.Name)
		}
	}
	r.report(path, "unknown feature "+quoted(name), advise(name, "the features that can be crossed are", names))
}

func checkNetwork(r *reporter, n Network) {
	checkOptimizer(r, "network.optimizer", n.Optimizer, ruleNames(), "")
	if !checkOneOf(r, "network.kind", "network", n.Kind, Logistic, FM, DeepFM, MLP) {
		return
	}
	if n.hasFactors() {
		checkRange(r, "network.factors", n.Factors, ps.WidthMax)
		checkOptimizer(r, "network.factor_optimizer", n.FactorOptimizer, fromAnywhere,
			"ftrl begins at 0 whatever the initial values, and factors that are 0 never learn")
		checkPositive(r, "network.factor_init", n.FactorInit)
	} else if n.Factors != 0 || n.FactorOptimizer != (ps.Optimizer{}) || n.FactorInit != 0 {
		r.report("network.factors", noFactors, "remove them, or write kind: fm")
	}
	if n.HasTower() {
		checkTower(r, n)
	} else if len(n.Hidden) > 0 || n.Dropout != 0 || n.HiddenOptimizer != (ps.Optimizer{}) {
		r.report("network.hidden", "this network"+noHidden, adviseDeepFM)
	}
}

// What is said of keys of a network that has no use for them.
const (
	noFactors    = "a logistic network has no factors"
	adviseFM     = "remove it, or write kind: fm"
	noHidden     = " has no hidden layers"
	adviseDeepFM = "remove it, or write kind: deepfm"
)

// fromAnywhere are the rules that begin at a row's initial values.
var fromAnywhere = []string{ps.AdaGrad, ps.Adam, ps.AdamW, ps.SGD}

func checkTower(r *reporter, n Network) {
	if len(n.Hidden) == 0 || len(n.Hidden) > LayersMax {
		r.report("network.hidden", fmt.Sprintf("%d layers", len(n.Hidden)), fmt.Sprintf("list the units of 1 to %d layers, such as [128, 64]", LayersMax))
	}
	for i, units := range n.Hidden {
		checkRange(r, item("network.hidden", i), units, ps.WidthMax)
	}
	if !(n.Dropout >= 0 && n.Dropout < 1) {
		r.report("network.dropout", fmt.Sprintf("%v", n.Dropout), "want the share of units that are left out, from 0 to less than 1, such as 0.2")
	}
	checkOptimizer(r, "network.hidden_optimizer", n.HiddenOptimizer, fromAnywhere,
		"ftrl begins at 0 whatever the initial values, and layers that are 0 never learn")
}

// checkFields checks what a tower makes of the features, and that nobody else is told of
// fields.
func checkFields(r *reporter, s *Spec) {
	for i, f := range s.Features {
		path := item("features", i) + ".fields"
		switch {
		case f.Fields == 0:
		case !s.Network.HasTower():
			r.report(path, "only networks with hidden layers see fields", adviseDeepFM)
		default:
			checkRange(r, path, f.Fields, FieldsMax)
		}
	}
	if !s.Network.HasTower() || s.Network.Factors < 1 || s.Network.Factors > ps.WidthMax {
		return
	}
	if n := s.Fields(); n < 1 || n > FieldsMax {
		r.report("features", fmt.Sprintf("%d fields", n), fmt.Sprintf("a network with hidden layers sees 1 to %d", FieldsMax))
		return
	}
	total := 0
	for _, d := range s.Dense() {
		if d.Table.Width > ps.WidthMax {
			return // reported already
		}
		total += d.Rows * d.Table.Width
	}
	if total > DenseMax {
		r.report("network.hidden", fmt.Sprintf("%d parameters in all layers", total),
			fmt.Sprintf("want at most %d: make the first layer smaller, or factors fewer", DenseMax))
	}
}
