package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// SizeMax is the size limit of a spec in bytes. It keeps a spec within one value
// of etcd, and what can be made of hostile input small.
const SizeMax = 1 << 20

// Parse reads and checks a spec. name is the file's, for messages; doc is not kept.
//
// If anything is wrong the error is an Errors with every mistake in it, which
// wraps ps.ErrInvalid; mistakes in the YAML itself end the reading, so of those
// there is only the first.
func Parse(name string, doc []byte) (*Spec, error) {
	r := &reporter{file: name, where: make(map[string]place)}
	root := readYAML(r, doc)
	if root == nil {
		return nil, r.err()
	}
	s := decode(r, root)
	check(r, s)
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// readYAML returns the one document's top mapping, or nil after reporting why there
// is none to go on with.
func readYAML(r *reporter, doc []byte) *yaml.Node {
	if len(doc) > SizeMax {
		r.reportAt(place{}, "", fmt.Sprintf("%d bytes", len(doc)), fmt.Sprintf("a spec has at most %d", SizeMax))
		return nil
	}
	if !readableText(r, doc) {
		return nil
	}
	documents := yaml.NewDecoder(bytes.NewReader(doc))
	var first, second yaml.Node
	switch err := documents.Decode(&first); {
	case errors.Is(err, io.EOF):
		r.reportAt(place{1, 1}, "", "the file is empty", `begin with "model:" and the model's name`)
		return nil
	case err != nil:
		reportSyntax(r, doc, err)
		return nil
	}
	switch err := documents.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		reportSyntax(r, doc, err)
		return nil
	default:
		r.reportAt(place{second.Line, second.Column}, "", "a second document begins", `one file holds one spec: put it into a file of its own, or remove the line "---"`)
		return nil
	}
	root := first.Content[0]
	if !(decoder{r}).is(root, "", yaml.MappingNode) || !plain(r, root) {
		return nil
	}
	return root
}

// readableText reports whether doc is UTF-8 without control characters, and where
// it is not.
func readableText(r *reporter, doc []byte) bool {
	at := place{1, 1}
	for rest := doc; len(rest) > 0; {
		c, size := utf8.DecodeRune(rest)
		switch {
		case c == utf8.RuneError && size == 1:
			r.reportAt(at, "", fmt.Sprintf("the byte %#02x is not UTF-8", rest[0]), "save the file as UTF-8")
			return false
		case c == '\n':
			at = place{at.line + 1, 0}
		case unicode.IsControl(c) && c != '\t' && c != '\r' && c != '\u0085':
			r.reportAt(at, "", fmt.Sprintf("the control character %U", c), `remove it, or write it as an escape inside double quotes, such as "\x01"`)
			return false
		}
		at.column++
		rest = rest[size:]
	}
	return true
}

var (
	yamlLine      = regexp.MustCompile(`^line (\d+): `)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// reportSyntax reports an error of the YAML parser, which has the line only in its
// text: counted from 0 if it comes from the grammar, from 1 if from the characters,
// and left out for the first.
func reportSyntax(r *reporter, doc []byte, err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := unknownAnchor.FindStringSubmatch(text); m != nil {
		before, _, _ := strings.Cut(string(doc), "*"+m[1])
		reportAlias(r, place{line: 1 + strings.Count(before, "\n")})
		return
	}
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		line, _ = strconv.Atoi(m[1]) // digits by the pattern
		if strings.HasPrefix(text, "did not find expected") {
			line++
		}
	}
	r.reportAt(place{line: line}, "", "not YAML", text+"; look at the indentation, brackets and quotes here and on the line before")
}

func reportAlias(r *reporter, at place) {
	r.reportAt(at, "", "an anchor or alias (& or *)", "a spec has none: write the value out, or put text that begins with & or * into quotes")
}

// plain reports whether the tree is made of plain values: no aliases, which can
// make a small file expand without end, and no tags, which change what a value is.
func plain(r *reporter, n *yaml.Node) bool {
	ok := true
	switch at := (place{n.Line, n.Column}); {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		reportAlias(r, at)
		ok = false
	case n.Style&yaml.TaggedStyle != 0:
		r.reportAt(at, "", "the tag "+quoted(n.Tag), "a spec has none: remove it")
		ok = false
	}
	for _, inner := range n.Content {
		ok = plain(r, inner) && ok
	}
	return ok
}
