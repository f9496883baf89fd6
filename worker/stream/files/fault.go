package files

import "fmt"

// fault says why a row cannot be used. It is a small value, so that rows nobody
// asked for cost no error; and it has no room for a row's text.
type fault struct {
	kind      faultKind
	got, want int   // of wrongFields
	time      error // of badTime; it holds nothing of the text either
}

type faultKind uint8

const (
	readable faultKind = iota
	tooLong
	strayQuote
	openQuote
	wrongFields
	badTime
	noBar
	manyLabels
	badLabel
	badImportance
	badBase
	badNamespace
	badScale
)

var reasons = [...]string{
	tooLong:       fmt.Sprintf("the row has more than %d bytes: is a quote never closed", rowMax),
	strayQuote:    `a quote stands inside a field: quote the whole field and double the quotes in it`,
	openQuote:     "a quote is never closed",
	noBar:         "the line has no |",
	manyLabels:    "more than label, importance and base stand before the first |",
	badLabel:      "the label is no finite number",
	badImportance: "the importance is no finite number",
	badBase:       "the base (initial prediction) is not 0: other values are not supported",
	badNamespace:  "a namespace has a scale and no name",
	badScale:      "a namespace has a scale that is not 1: other values are not supported",
}

// String returns the reason as people read it.
func (f fault) String() string {
	switch f.kind {
	case wrongFields:
		return fmt.Sprintf("the row has %d fields, the header has %d", f.got, f.want)
	case badTime:
		return f.time.Error()
	}
	return reasons[f.kind]
}
