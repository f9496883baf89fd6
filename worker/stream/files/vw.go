package files

import (
	"bytes"
	"math"
	"slices"
	"strconv"
)

// vw cuts lines of Vowpal Wabbit text:
//
//	[label [importance [base]]] [tag]|[namespace[:scale]] feature[:value] … |…
//
// A cell is the text of a namespace's features as it stands, without the white
// space around it; a namespace that stands in the line several times has its
// texts joined by a space. The nameless namespace is called "default". As in
// Vowpal Wabbit, what touches the first | or begins with ' is the tag, so the
// label needs a space behind it; tags are ignored.
//
// A scale or a base that changes something is refused, because the text of
// features cannot carry it on.
type vw struct {
	// cells says which cell a namespace's text goes to, and has -1 for those that
	// only repeat another cell's name.
	cells      map[string]int
	copies     []cellCopy
	label      int // cell, or -1
	importance int
	repeats    []repeat
	joined     []byte // texts of namespaces that stand in a line several times
	sizes      []int  // by cell, while they are joined
}

// cellCopy says that a cell holds the same as an earlier one.
type cellCopy struct{ to, from int }

// repeat is a text of a namespace that stood in the line before.
type repeat struct {
	cell     int
	from, to int32 // in the line
}

// defaultNamespace is what the nameless namespace is called.
const defaultNamespace = "default"

func newVW(names []string) *vw {
	v := &vw{cells: make(map[string]int), label: -1, importance: -1, sizes: make([]int, len(names))}
	for i, name := range names {
		first := slices.Index(names, name)
		switch {
		case first < i:
			v.copies = append(v.copies, cellCopy{to: i, from: first})
		case name == Label:
			v.label = i
		case name == Importance:
			v.importance = i
		default:
			v.cells[name] = i
		}
	}
	return v
}

// cut finds a row; see format.
func (v *vw) cut(text []byte, last bool, cells [][]byte) (n, size int, f fault) {
	if n, size = line(text, last); n == 0 {
		return 0, 0, fault{}
	}
	text = text[:size]
	clear(cells)
	bar := bytes.IndexByte(text, '|')
	if bar < 0 {
		return n, size, fault{kind: noBar}
	}
	if f = v.head(text[:bar], cells); f.kind != readable {
		return n, size, f
	}
	v.repeats = v.repeats[:0]
	for bar < size {
		from := bar + 1
		if bar = bytes.IndexByte(text[from:], '|') + from; bar < from {
			bar = size
		}
		if f = v.namespace(text, from, bar, cells); f.kind != readable {
			return n, size, f
		}
	}
	if len(v.repeats) > 0 {
		v.join(text, cells)
	}
	for _, c := range v.copies {
		cells[c.to] = cells[c.from]
	}
	return n, size, fault{}
}

// head reads what stands before the first bar.
func (v *vw) head(text []byte, cells [][]byte) fault {
	var words [3][]byte
	count := 0
	for at := 0; ; count++ {
		for at < len(text) && isSpace(text[at]) {
			at++
		}
		if at == len(text) {
			break
		}
		from := at
		for at < len(text) && !isSpace(text[at]) {
			at++
		}
		if at == len(text) || text[from] == '\'' && len(trim(text[at:])) == 0 {
			break // the tag
		}
		if count == len(words) {
			return fault{kind: manyLabels}
		}
		words[count] = text[from:at]
	}
	if count > 0 && !isNumber(words[0]) {
		return fault{kind: badLabel}
	}
	if count > 1 && !isNumber(words[1]) {
		return fault{kind: badImportance}
	}
	if count > 2 && !equals(words[2], 0) {
		return fault{kind: badBase}
	}
	if v.label >= 0 {
		cells[v.label] = words[0]
	}
	if v.importance >= 0 {
		cells[v.importance] = words[1]
	}
	return fault{}
}

// namespace reads text[from:to], which begins behind a bar and has none.
func (v *vw) namespace(text []byte, from, to int, cells [][]byte) fault {
	at := from
	for at < to && text[at] != ':' && !isSpace(text[at]) {
		at++
	}
	name := text[from:at]
	if at < to && text[at] == ':' {
		scale := at + 1
		for at < to && !isSpace(text[at]) {
			at++
		}
		switch {
		case len(name) == 0:
			return fault{kind: badNamespace}
		case !equals(text[scale:at], 1):
			return fault{kind: badScale}
		}
	}
	for at < to && isSpace(text[at]) {
		at++
	}
	for at < to && isSpace(text[to-1]) {
		to--
	}
	cell, ok := v.cells[string(name)]
	if len(name) == 0 {
		cell, ok = v.cells[defaultNamespace]
	}
	switch {
	case !ok:
	case len(cells[cell]) == 0:
		cells[cell] = text[at:to:to]
	case at < to:
		v.repeats = append(v.repeats, repeat{cell, int32(at), int32(to)})
	}
	return fault{}
}

// join puts together the texts of repeated namespaces. The size of each is known
// before any is copied, so that a line of many short ones costs no more than its
// length.
func (v *vw) join(line []byte, cells [][]byte) {
	clear(v.sizes)
	total := 0
	for _, r := range v.repeats {
		if v.sizes[r.cell] == 0 {
			v.sizes[r.cell] = len(cells[r.cell])
			total += len(cells[r.cell])
		}
		v.sizes[r.cell] += 1 + int(r.to-r.from)
		total += 1 + int(r.to-r.from)
	}
	v.joined = slices.Grow(v.joined[:0], total)
	for cell, size := range v.sizes {
		if size > 0 {
			from := len(v.joined)
			v.joined = append(v.joined, cells[cell]...)
			cells[cell] = v.joined[from : len(v.joined) : from+size]
			v.joined = v.joined[:from+size]
		}
	}
	for _, r := range v.repeats { // every cell has just the room it needs
		cells[r.cell] = append(append(cells[r.cell], ' '), line[r.from:r.to]...)
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\t' }

func trim(text []byte) []byte { return bytes.TrimLeft(text, " \t") }

// isNumber reports whether text is a finite number. The conversion to a string
// stays on the stack.
func isNumber(text []byte) bool {
	if n := len(text); n == 1 && text[0]-'0' < 10 || n == 2 && text[0] == '-' && text[1]-'0' < 10 {
		return true // nearly all are 1, 0 or -1
	}
	x, err := strconv.ParseFloat(string(text), 64)
	return err == nil && !math.IsInf(x, 0) && !math.IsNaN(x)
}

// equals reports whether text is the number want.
func equals(text []byte, want float64) bool {
	x, err := strconv.ParseFloat(string(text), 64)
	return err == nil && x == want
}
