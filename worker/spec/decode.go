package spec

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-ml/freshet/ps"
)

// decoder reads a tree of YAML nodes into a Spec that begins as the defaults. It
// looks at each value by itself; how values go together is check's business.
type decoder struct{ *reporter }

// read reads one value into its place. It is called once at most, and reports what
// is wrong with the value under path.
type read func(n *yaml.Node, path string)

// field is a key that a mapping may have.
type field struct {
	name string
	read read
	// required fields are missed if they are not there.
	required bool
	// refusal, if not empty, says why a known key cannot be used here, and advice
	// what to do.
	refusal, advice string
}

// defaults returns what a spec says by saying nothing.
func defaults() *Spec {
	return &Spec{
		Stream:     Stream{Format: CSV, Partitions: 8, Passes: 1},
		Loss:       Log,
		Network:    Network{Kind: Logistic, Constant: true, Optimizer: rules[0].defaults},
		Evaluation: Evaluation{Window: 50_000},
		Training:   Training{InFlight: 512}, // costs AUC .002 on a real click stream, against .007 at 2,048
	}
}

func decode(r *reporter, root *yaml.Node) *Spec {
	d, s := decoder{r}, defaults()
	d.mapping([]field{
		{name: "model", read: d.text(&s.Model), required: true},
		{name: "seed", read: d.seed(&s.Seed)},
		{name: "stream", read: d.mapping([]field{
			{name: "source", read: d.text(&s.Stream.Source)},
			{name: "format", read: d.text(&s.Stream.Format)},
			{name: "time", read: d.time(&s.Stream.Time)},
			{name: "sort", read: d.flag(&s.Stream.Sort)},
			{name: "partitions", read: d.whole(&s.Stream.Partitions)},
			{name: "partition_by", read: d.text(&s.Stream.PartitionBy)},
			{name: "passes", read: d.whole(&s.Stream.Passes)},
			{name: "identifiers", read: d.texts(&s.Stream.Identifiers)},
		})},
		{name: "label", read: d.mapping([]field{
			{name: "column", read: d.text(&s.Label.Column), required: true},
		})},
		{name: "loss", read: d.text(&s.Loss)},
		{name: "features", read: d.features(&s.Features), required: true},
		{name: "network", read: d.network(&s.Network)},
		{name: "evaluation", read: d.mapping([]field{
			{name: "holdout", read: d.number(&s.Evaluation.Holdout)},
			{name: "window", read: d.whole(&s.Evaluation.Window)},
		})},
		{name: "training", read: d.mapping([]field{
			{name: "in_flight", read: d.whole(&s.Training.InFlight)},
			{name: "audit_table", read: d.flag(&s.Training.AuditTable)},
		})},
	})(root, "")
	return s
}

func (d decoder) time(dst *Time) read {
	return func(n *yaml.Node, path string) {
		dst.Unit = Milliseconds
		d.mapping([]field{
			{name: "column", read: d.text(&dst.Column), required: true},
			{name: "unit", read: d.text(&dst.Unit)},
		})(n, path)
	}
}

func (d decoder) features(dst *[]Feature) read {
	return func(n *yaml.Node, path string) {
		if !d.is(n, path, yaml.SequenceNode) {
			return
		}
		*dst = make([]Feature, len(n.Content))
		for i, one := range n.Content {
			d.at(one, item(path, i), d.feature(&(*dst)[i]))
		}
	}
}

// kindKeys are the keys that decide a feature's kind: it has one of them at most.
var kindKeys = []struct {
	name string
	kind Kind
}{{"split", Tokens}, {"log", Buckets}, {"edges", Buckets}, {"clock", Clock}, {"cross", Cross}}

func (d decoder) feature(f *Feature) read {
	return func(n *yaml.Node, path string) {
		var decided string
		for _, key := range kindKeys {
			value := lookUp(n, key.name)
			switch {
			case value == nil:
			case decided == "":
				decided, f.Kind = key.name, key.kind
			default:
				d.reportAt(place{value.Line, value.Column}, join(path, key.name),
					fmt.Sprintf("a feature with %q cannot have %q too", decided, key.name),
					"keep one of the two, or make two features of it")
			}
		}
		fields := []field{
			{name: "name", read: d.text(&f.Name), required: true},
			{name: "column", read: d.text(&f.Column), required: true},
			{name: "split", read: d.text(&f.Split)},
			{name: "weight_after", read: d.text(&f.WeightAfter)},
			{name: "fields", read: d.whole(&f.Fields)},
			{name: "log", read: d.number(&f.Log)},
			{name: "edges", read: d.numbers(&f.Edges)},
			{name: "clock", read: d.text(&f.Clock)},
			{name: "zone", read: d.text(&f.Zone)},
			{name: "cross", read: d.texts(&f.Of)},
			{name: "cross_only", read: d.flag(&f.CrossOnly)},
		}
		for i := range fields {
			key := &fields[i]
			switch {
			case key.name == "column" && f.Kind == Clock:
				key.required = false
				key.refusal, key.advice = "a clock feature reads the event time, not a column", "remove it; stream.time names the column of the time"
			case key.name == "column" && f.Kind == Cross:
				key.required = false
				key.refusal, key.advice = "a cross reads other features, not a column", "remove it, and list the features' names under cross"
			case key.name == "weight_after" && f.Kind != Tokens:
				key.refusal, key.advice = "only tokens have weights", `remove it, or add split with what separates the tokens, such as split: " "`
			case key.name == "fields" && f.Kind != Tokens:
				key.refusal, key.advice = "only tokens are fields by their position", `remove it, or add split with what separates the tokens, such as split: " "`
			case key.name == "zone" && f.Kind != Clock:
				key.refusal, key.advice = "only a clock has a time zone", "remove it, or add clock: hour"
			}
		}
		if f.Kind == Clock {
			f.Zone = "UTC"
		}
		d.mapping(fields)(n, path)
	}
}

func (d decoder) network(dst *Network) read {
	return func(n *yaml.Node, path string) {
		fields := []field{
			{name: "kind", read: d.text(&dst.Kind)},
			{name: "constant", read: d.flag(&dst.Constant)},
			{name: "optimizer", read: d.optimizer(&dst.Optimizer)},
			{name: "factors", read: d.whole(&dst.Factors)},
			{name: "factor_optimizer", read: d.optimizer(&dst.FactorOptimizer)},
			{name: "factor_init", read: d.number(&dst.FactorInit)},
			{name: "hidden", read: d.wholes(&dst.Hidden)},
			{name: "dropout", read: d.number(&dst.Dropout)},
			{name: "hidden_optimizer", read: d.optimizer(&dst.HiddenOptimizer)},
		}
		refuse := func(fields []field, refusal, advice string) {
			for i := range fields {
				fields[i].refusal, fields[i].advice = refusal, advice
			}
		}
		kind := dst.Kind
		if given := lookUp(n, "kind"); given != nil {
			kind = given.Value
		}
		given := Network{Kind: kind}
		if given.hasFactors() {
			adagrad, _ := ruleOf(ps.AdaGrad)
			dst.Factors, dst.FactorOptimizer, dst.FactorInit = 16, adagrad.defaults, 0.01
		}
		if given.HasTower() {
			adam, _ := ruleOf(ps.Adam)
			dst.Hidden, dst.HiddenOptimizer = []int{128, 64}, adam.defaults
		}
		switch kind {
		case Logistic:
			refuse(fields[3:6], noFactors, adviseFM)
			refuse(fields[6:], "a logistic network"+noHidden, adviseDeepFM)
		case FM:
			refuse(fields[6:], "a factorization machine"+noHidden, adviseDeepFM)
		}
		d.mapping(fields)(n, path)
	}
}

// optimizer reads an optimizer. Without a name it is the rule that dst has; the
// settings that are not given are that rule's defaults.
func (d decoder) optimizer(dst *ps.Optimizer) read {
	return func(n *yaml.Node, path string) {
		name := dst.Name
		if given := lookUp(n, "name"); given != nil {
			name = given.Value
		}
		chosen, known := ruleOf(name)
		if known {
			*dst = chosen.defaults
		}
		fields := []field{{name: "name", read: d.text(&dst.Name)}}
		for _, setting := range allSettings {
			f := field{name: setting, read: d.setting(dst, setting)}
			if known && !slices.Contains(chosen.settings, setting) {
				f.refusal, f.advice = name+" has no such setting", "its settings are "+listed(chosen.settings)
			}
			fields = append(fields, f)
		}
		d.mapping(fields)(n, path)
	}
}

func (d decoder) setting(o *ps.Optimizer, name string) read { return d.number(setting(o, name)) }

// mapping returns a reader of a mapping with the given keys.
func (d decoder) mapping(fields []field) read {
	return func(n *yaml.Node, path string) {
		if !d.is(n, path, yaml.MappingNode) {
			return
		}
		d.where[path] = place{n.Line, n.Column}
		lines := make(map[string]int) // of the keys so far
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.entry(n.Content[i], n.Content[i+1], path, fields, lines)
		}
		for _, f := range fields {
			if f.required && lines[f.name] == 0 {
				d.report(join(path, f.name), "missing", "add it"+suchAs(f.name))
			}
		}
	}
}

// entry reads one key and value of the mapping at path. lines remembers the keys.
func (d decoder) entry(key, value *yaml.Node, path string, fields []field, lines map[string]int) {
	at := place{key.Line, key.Column}
	if key.Kind != yaml.ScalarNode {
		d.reportAt(at, path, "a key that is "+described(key), "keys are plain words")
		return
	}
	inner := join(path, key.Value)
	if line := lines[key.Value]; line != 0 {
		d.reportAt(at, inner, "written twice", fmt.Sprintf("keep one; the first is on line %d", line))
		return
	}
	lines[key.Value] = key.Line
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
	if i < 0 {
		d.unknown(at, key.Value, path, fields, lines)
		return
	}
	d.where[inner] = place{value.Line, value.Column}
	switch f := fields[i]; {
	case f.refusal != "":
		d.reportAt(at, inner, f.refusal, f.advice)
	case isNull(value):
		d.report(inner, "no value", "give it one"+suchAs(f.name)+", or remove the key")
	default:
		f.read(value, inner)
	}
}

// unknown reports a key of the mapping at path that is none of fields. The one that
// was probably meant is then not missing as well.
func (d decoder) unknown(at place, key, path string, fields []field, lines map[string]int) {
	var names []string
	for _, f := range fields {
		if f.refusal == "" {
			names = append(names, f.name)
		}
	}
	advice := ""
	if !d.full() { // looking for what was meant takes time
		advice = advise(key, "known here:", names)
		if meant := Nearest(key, names); meant != "" && lines[meant] == 0 {
			lines[meant] = at.line
			d.spoil(join(path, meant))
		}
	}
	d.reportAt(at, join(path, key), "unknown key", advice)
}

// at reads the value of a list at path.
func (d decoder) at(n *yaml.Node, path string, read read) {
	d.where[path] = place{n.Line, n.Column}
	if isNull(n) {
		d.report(path, "no value", "give it one, or remove it from the list")
		return
	}
	read(n, path)
}

func (d decoder) text(dst *string) read {
	return func(n *yaml.Node, path string) {
		switch {
		case n.Kind != yaml.ScalarNode:
			d.report(path, "want text, got "+described(n), "write one word, or text in quotes")
		case n.ShortTag() != "!!str":
			d.report(path, "want text, got "+described(n), "if it is meant as text, put it into quotes: "+quoted(n.Value))
		case n.Value == "":
			d.report(path, "empty", "give it a value"+suchAs(path[len(parent(path)):])+", or remove the key")
		default:
			*dst = n.Value
		}
	}
}

// decimal is how a number is written. YAML knows more ways, of which some mean
// different numbers to different readers, such as 010.
var decimal = regexp.MustCompile(`^[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?$`)

func (d decoder) number(dst *float64) read {
	return func(n *yaml.Node, path string) {
		if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
			d.report(path, "want a number, got "+described(n), "write digits without quotes, such as 0.1")
			return
		}
		v, err := strconv.ParseFloat(n.Value, 64)
		switch {
		case strings.HasSuffix(strings.ToLower(n.Value), "inf"), strings.EqualFold(n.Value, ".nan"), decimal.MatchString(n.Value) && err != nil:
			d.report(path, "the number "+quoted(n.Value)+" is not finite", "write a number such as 0.1")
		case err != nil || !decimal.MatchString(n.Value):
			d.report(path, "the number "+quoted(n.Value)+" is not in plain decimal form", "write it such as 1200, 0.05 or 5e-2")
		default:
			*dst = v
		}
	}
}

func (d decoder) numbers(dst *[]float64) read {
	return list(d, dst, "a list of numbers", "[18, 25, 35]", decoder.number)
}

func (d decoder) wholes(dst *[]int) read {
	return list(d, dst, "a list of whole numbers", "[128, 64]", decoder.whole)
}

func (d decoder) texts(dst *[]string) read {
	return list(d, dst, "a list of names", "[user, item]", decoder.text)
}

// list returns a reader of a list. If an item cannot be read the whole is spoilt,
// because the order of the rest says nothing.
func list[T any](d decoder, dst *[]T, want, such string, one func(decoder, *T) read) read {
	return func(n *yaml.Node, path string) {
		if n.Kind != yaml.SequenceNode {
			d.report(path, "want "+want+", got "+described(n), "write it in brackets, such as "+such)
			return
		}
		values := make([]T, len(n.Content))
		before := len(d.errs) + d.unsaid
		for i, inner := range n.Content {
			d.at(inner, item(path, i), one(d, &values[i]))
		}
		if len(d.errs)+d.unsaid > before {
			d.spoil(path)
			return
		}
		*dst = values
	}
}

var wholeNumber = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

func (d decoder) whole(dst *int) read {
	return func(n *yaml.Node, path string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" || !wholeNumber.MatchString(n.Value) {
			d.report(path, "want a whole number, got "+described(n), "write digits alone, such as 8")
			return
		}
		v, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil || v > math.MaxInt32 || v < math.MinInt32 {
			d.report(path, "the number "+quoted(n.Value)+" is out of range", "write a smaller one")
			return
		}
		*dst = int(v)
	}
}

func (d decoder) seed(dst *uint64) read {
	return func(n *yaml.Node, path string) {
		v, err := strconv.ParseUint(n.Value, 10, 64)
		if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!str" || !wholeNumber.MatchString(n.Value) || err != nil {
			d.report(path, "want a whole number, got "+described(n), "write digits alone, from 0 to 18446744073709551615")
			return
		}
		*dst = v
	}
}

func (d decoder) flag(dst *bool) read {
	return func(n *yaml.Node, path string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.report(path, "want true or false, got "+described(n), "write true or false, without quotes")
			return
		}
		*dst = n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
	}
}

// is reports whether n is of the kind, a mapping or a list, that path has.
func (d decoder) is(n *yaml.Node, path string, kind yaml.Kind) bool {
	if n.Kind == kind {
		return true
	}
	want, advice := "keys with values", "write \"key: value\" lines, or {key: value}"
	if kind == yaml.SequenceNode {
		want, advice = "a list", `begin each of its items with "- "`
	}
	d.where[path] = place{n.Line, n.Column}
	d.report(path, "want "+want+", got "+described(n), advice)
	return false
}

// lookUp returns the value of a key of a mapping, or nil.
func lookUp(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind == yaml.ScalarNode && n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// described says what n is, for messages.
func described(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return n.Value
	case "!!int", "!!float":
		return "the number " + quoted(n.Value)
	case "!!timestamp":
		return "the date " + quoted(n.Value)
	}
	return "the text " + quoted(n.Value)
}

// suchAs returns an example of the value of a key, for messages about a value
// that is not there; empty for a key whose value speaks for itself.
func suchAs(key string) string {
	switch key {
	case "model":
		return ", such as model: shop"
	case "features":
		return ", a list such as features: [{name: user, column: uid}]"
	case "name":
		return ", such as name: user"
	case "column":
		return ", the name of a column of the stream"
	}
	return ""
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
