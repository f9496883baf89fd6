package spec

import (
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// writer writes YAML line by line. The zero value is ready.
type writer struct{ strings.Builder }

// line writes one line.
func (w *writer) line(text string) { w.WriteString(text + "\n") }

// comment writes text as comment lines of a readable width.
func (w *writer) comment(indent, text string) {
	const width = 96
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width && line != indent+"#" {
			w.line(line)
			line = indent + "#"
		}
		line += " " + word
	}
	w.line(line)
}

// featureText returns a feature as YAML on one line.
func featureText(f Feature) string {
	text := "{name: " + word(f.Name)
	add := func(key, value string) { text += ", " + key + ": " + value }
	if f.Column != "" {
		add("column", word(f.Column))
	}
	if f.Split != "" {
		add("split", strconv.Quote(f.Split))
	}
	if f.WeightAfter != "" {
		add("weight_after", strconv.Quote(f.WeightAfter))
	}
	if f.Fields != 0 {
		add("fields", strconv.Itoa(f.Fields))
	}
	if f.Log != 0 {
		add("log", decimalText(f.Log))
	}
	if len(f.Edges) > 0 {
		edges := make([]string, len(f.Edges))
		for i, edge := range f.Edges {
			edges[i] = decimalText(edge)
		}
		add("edges", "["+strings.Join(edges, ", ")+"]")
	}
	if f.Clock != "" {
		add("clock", f.Clock)
		add("zone", word(f.Zone))
	}
	if len(f.Of) > 0 {
		names := make([]string, len(f.Of))
		for i, name := range f.Of {
			names[i] = word(name)
		}
		add("cross", "["+strings.Join(names, ", ")+"]")
	}
	return text + "}"
}

func decimalText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// bare are texts that may be read as YAML text without quotes, if they do not mean
// something else.
var bare = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_./-]*$`)

// word returns text as a YAML scalar on one line: quoted, unless it is read as the
// same text without. Go's escapes are among those of YAML's double quotes.
func word(text string) string {
	if bare.MatchString(text) {
		var back any
		if err := yaml.Unmarshal([]byte(text), &back); err == nil && back == text && !strings.EqualFold(text, "on") && !strings.EqualFold(text, "off") &&
			!strings.EqualFold(text, "yes") && !strings.EqualFold(text, "no") && !strings.EqualFold(text, "y") && !strings.EqualFold(text, "n") {
			return text
		}
	}
	return strconv.Quote(text)
}

// printable returns a name for a comment, quoted if it is more than one word or not
// printable.
func printable(name string) string {
	if short := quoted(name); short != `"`+name+`"` || strings.ContainsAny(name, " \t#") || !utf8.ValidString(name) {
		return short
	}
	return name
}
