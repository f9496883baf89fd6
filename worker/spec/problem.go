package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// Error is one mistake in a spec. It wraps ps.ErrInvalid.
type Error struct {
	// File is the name that Parse was given; empty for a Spec made in code.
	File string `json:"file,omitempty"`
	// Line and Column count from 1, columns in characters. They are 0 where there
	// is no place to point at; Column alone is 0 where only the line is known.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Path is the key, such as "features[3].edges"; empty for the file as a whole.
	Path string `json:"path,omitempty"`
	// Problem says what is wrong, Advice what to do about it.
	Problem string `json:"problem"`
	Advice  string `json:"advice"`
}

// Error returns the mistake in one line: file:line:column: path: problem: advice.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	for _, n := range []int{e.Line, e.Column} {
		if n > 0 {
			b.WriteString(":" + strconv.Itoa(n))
		}
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	for _, part := range []string{e.Path, e.Problem} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(e.Advice)
	return b.String()
}

// Unwrap returns ps.ErrInvalid.
func (e *Error) Unwrap() error { return ps.ErrInvalid }

// Errors are all the mistakes of a spec, in the order of its lines; there is at
// least one. After ErrorsMax a last one without a place says how many more there are.
type Errors []*Error

// Error returns the mistakes, one per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mistakes, so that errors.Is finds ps.ErrInvalid and errors.As
// the first *Error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, one := range e {
		errs[i] = one
	}
	return errs
}

// ErrorsMax is how many mistakes are described; a file with more is probably not a
// spec, and nobody reads on.
const ErrorsMax = 100

// place is a position in a file, counted from 1.
type place struct{ line, column int }

// reporter collects mistakes. It is owned by one Parse or Valid.
type reporter struct {
	file string
	// where has the place of the value of every path read from a file; nil for a
	// Spec made in code.
	where map[string]place
	// spoilt are the paths whose values could not be read. What is said about
	// them, or about anything below them, would be about a value nobody wrote.
	spoilt map[string]bool
	errs   Errors
	unsaid int // mistakes beyond ErrorsMax
}

// full reports whether another mistake would only be counted.
func (r *reporter) full() bool { return len(r.errs) >= ErrorsMax }

// report adds a mistake about the value at path, unless that is spoilt, and spoils
// it. Without a place of its own it is put where the nearest key around it is.
func (r *reporter) report(path, problem, advice string) {
	at := path
	for {
		if r.spoilt[at] {
			return
		}
		if at == "" {
			break
		}
		at = parent(at)
	}
	found, ok := r.where[path]
	for at = path; !ok && at != ""; {
		at = parent(at)
		found, ok = r.where[at]
	}
	r.reportAt(found, path, problem, advice)
}

// reportAt adds a mistake at a place of its own, and spoils the path.
func (r *reporter) reportAt(at place, path, problem, advice string) {
	r.spoil(path)
	if r.full() {
		r.unsaid++
		return
	}
	r.errs = append(r.errs, &Error{File: r.file, Line: at.line, Column: at.column, Path: readable(path), Problem: problem, Advice: advice})
}

// spoil marks the value at path as unusable. The whole file is spoilt only by a
// mistake that ends the reading anyway.
func (r *reporter) spoil(path string) {
	if path == "" {
		return
	}
	if r.spoilt == nil {
		r.spoilt = make(map[string]bool)
	}
	r.spoilt[path] = true
}

// err returns the mistakes in the order of their places, or nil.
func (r *reporter) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.unsaid > 0 {
		r.errs = append(r.errs, &Error{File: r.file, Problem: fmt.Sprintf("%d more mistakes", r.unsaid), Advice: "mend these first"})
		r.unsaid = 0
	}
	return r.errs
}

// readable returns a path as it is, or quoted and cut if a key in it is not the
// kind of word that anybody writes.
func readable(path string) string {
	if short := quoted(path); short != `"`+path+`"` {
		return short
	}
	return path
}

// parent returns the path that path is in: of "a[3].b" it is "a[3]", of that "a",
// of that "".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// join returns the path of a key in the mapping at path.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// item returns the path of an item of the list at path.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
