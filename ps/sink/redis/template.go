package redis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// placeholder is what stands for something else in a template.
type placeholder string

const (
	model       placeholder = "model"
	table       placeholder = "table"
	decimal     placeholder = "key" // the row's key in decimal digits
	hexadecimal placeholder = "hex" // the row's key in 16 hexadecimal digits
)

var placeholders = []placeholder{model, table, decimal, hexadecimal}

// Template makes keys of Redis from rows' names.
type Template struct {
	source string
	parts  []part
}

// part is text and the placeholder behind it, which the last part lacks.
type part struct {
	text string
	is   placeholder
}

// ParseTemplate reads a template such as "{model}:{table}:{key}": text with {model},
// {table}, {key} (the row's key in decimal digits) and {hex} (in 16 hexadecimal digits).
// It wraps ps.ErrInvalid, naming what is wrong and where.
func ParseTemplate(source string) (*Template, error) {
	t := &Template{source: source}
	if source == "" {
		return nil, fmt.Errorf("an empty template: want text such as {model}:{table}:{key}: %w", ps.ErrInvalid)
	}
	for rest := source; rest != ""; {
		text, behind, found := strings.Cut(rest, "{")
		at := len(source) - len(rest) + len(text)
		if strings.Contains(text, "}") {
			return nil, fmt.Errorf("template %q: a } at position %d that nothing opens: %w",
				source, at-len(text)+strings.Index(text, "}")+1, ps.ErrInvalid)
		}
		if !found {
			t.parts = append(t.parts, part{text: text})
			break
		}
		name, after, closed := strings.Cut(behind, "}")
		if !closed {
			return nil, fmt.Errorf("template %q: the { at position %d is not closed: %w", source, at+1, ps.ErrInvalid)
		}
		is := placeholder(name)
		if !slices.Contains(placeholders, is) {
			return nil, fmt.Errorf("template %q: {%s} at position %d stands for nothing: want {model}, {table}, {key} or {hex}: %w",
				source, name, at+1, ps.ErrInvalid)
		}
		t.parts = append(t.parts, part{text, is})
		rest = after
	}
	return t, nil
}

func (t *Template) has(p placeholder) bool {
	return slices.ContainsFunc(t.parts, func(q part) bool { return q.is == p })
}

// distinguishes reports whether rows of so many tables get keys of their own.
func (t *Template) distinguishes(tables int) error {
	if !t.has(decimal) && !t.has(hexadecimal) {
		return fmt.Errorf("template %q: all rows would have the same key: put {key} or {hex} into it: %w", t.source, ps.ErrInvalid)
	}
	if tables > 1 && !t.has(table) {
		return fmt.Errorf("template %q: rows of %d tables would have the same keys: put {table} into it, or write one table: %w",
			t.source, tables, ps.ErrInvalid)
	}
	return nil
}

// append appends the key of a row.
func (t *Template) append(to []byte, modelName, tableName string, key ps.Key) []byte {
	for _, p := range t.parts {
		to = append(to, p.text...)
		switch p.is {
		case model:
			to = append(to, modelName...)
		case table:
			to = append(to, tableName...)
		case decimal:
			to = strconv.AppendUint(to, uint64(key), 10)
		case hexadecimal:
			to = appendHex(to, uint64(key))
		}
	}
	return to
}

// appendHex appends 16 digits.
func appendHex(to []byte, key uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		to = append(to, digits[key>>shift&15])
	}
	return to
}
