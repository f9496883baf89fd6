package files_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVW(t *testing.T) {
	// Asked for: label, importance, default, f, g, f again.
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"label and features", "1 |f a b:2\n-1 |f c\n", []string{"1 [1][<nil>][<nil>][a b:2][<nil>][a b:2]", "2 [-1][<nil>][<nil>][c][<nil>][c]"}},
		{"no end of the last line", "1 |f a", []string{"1 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"CRLF", "1 |f a\r\n", []string{"1 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"an empty file has no rows", "", nil},
		{"a byte order mark is dropped", "\ufeff1 |f a\n", []string{"1 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"blank lines are no rows", "\n1 |f a\n\r\n\n", []string{"2 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"an importance", "1 2.5 |f a\n", []string{"1 [1][2.5][<nil>][a][<nil>][a]"}},
		{"a base of 0", "1 2 0.0 |f a\n", []string{"1 [1][2][<nil>][a][<nil>][a]"}},
		{"no label", "|f a\n |f a\n", []string{"1 [<nil>][<nil>][<nil>][a][<nil>][a]", "2 [<nil>][<nil>][<nil>][a][<nil>][a]"}},
		{"a tag with a quote", "1 'tag |f a\n1 2 0 'tag|f a\n", []string{"1 [1][<nil>][<nil>][a][<nil>][a]", "2 [1][2][<nil>][a][<nil>][a]"}},
		{"a tag that touches the bar", "1 tag|f a\n", []string{"1 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"a number that touches the bar is a tag", "1|f a\n1 2|f a\n", []string{"1 [<nil>][<nil>][<nil>][a][<nil>][a]", "2 [1][<nil>][<nil>][a][<nil>][a]"}},
		{"the nameless namespace", "1 | a b\n1 |\n", []string{"1 [1][<nil>][a b][<nil>][<nil>][<nil>]", "2 [1][<nil>][][<nil>][<nil>][<nil>]"}},
		{"several namespaces", "1 |g b |other x |f a\n", []string{"1 [1][<nil>][<nil>][a][b][a]"}},
		{"bars without spaces", "1 |g b|f a|\n", []string{"1 [1][<nil>][][a][b][a]"}},
		{"white space around features", "1\t2  |f \t a  b\t|g\t\n", []string{"1 [1][2][<nil>][a  b][][a  b]"}},
		{"repeated namespaces", "1 |f a |g x |f b:2 |f |f c |g y\n", []string{"1 [1][<nil>][<nil>][a b:2 c][x y][a b:2 c]"}},
		{"repeated namespaces, empty first", "1 |f |f b\n", []string{"1 [1][<nil>][<nil>][b][<nil>][b]"}},
		{"a scale of 1", "1 |f:1.0 a |g:1\n", []string{"1 [1][<nil>][<nil>][a][][a]"}},
		{"names are whole words", "1 |ff x |f a\n", []string{"1 [1][<nil>][<nil>][a][<nil>][a]"}},

		{"another scale", "1 |f:2 a\n1 |f b\n", []string{"1 unreadable: a namespace has a scale that is not 1: other values are not supported", "2 [1][<nil>][<nil>][b][<nil>][b]"}},
		{"another scale where nobody looks", "1 |f a |other:0.5 a\n", []string{"1 unreadable: a namespace has a scale that is not 1: other values are not supported"}},
		{"a scale that is none", "1 |f:x a\n1 |f: a\n", []string{"1 unreadable: a namespace has a scale that is not 1: other values are not supported", "2 unreadable: a namespace has a scale that is not 1: other values are not supported"}},
		{"a scale without a name", "1 |:1 a\n", []string{"1 unreadable: a namespace has a scale and no name"}},
		{"no bar", "1 2\n", []string{"1 unreadable: the line has no |"}},
		{"a label that is no number", "x |f a\nnan |f a\n1:2:3 |f a\n", []string{"1 unreadable: the label is no finite number", "2 unreadable: the label is no finite number", "3 unreadable: the label is no finite number"}},
		{"an importance that is no number", "1 x |f a\n1 inf |f\n", []string{"1 unreadable: the importance is no finite number", "2 unreadable: the importance is no finite number"}},
		{"a base", "1 1 0.5 |f a\n1 1 x |f a\n", []string{"1 unreadable: the base (initial prediction) is not 0: other values are not supported", "2 unreadable: the base (initial prediction) is not 0: other values are not supported"}},
		{"four numbers", "1 2 0 4 |f a\n", []string{"1 unreadable: more than label, importance and base stand before the first |"}},
		{"a line of a mebibyte", "1 |f " + strings.Repeat("a", mebibyte-5) + "\r\n1 |f b\n", []string{"1 [1][<nil>][<nil>][" + strings.Repeat("a", mebibyte-5) + "][<nil>][" + strings.Repeat("a", mebibyte-5) + "]", "2 [1][<nil>][<nil>][b][<nil>][b]"}},
		{"a line of more", "1 |f " + strings.Repeat("a", mebibyte-4) + "\n1 |f b\n", []string{"1 " + tooLong, "2 [1][<nil>][<nil>][b][<nil>][b]"}},
		{"a line of much more", "1 |f " + strings.Repeat("a", 3*mebibyte) + "\n1 |f b\n", []string{"1 " + tooLong, "2 [1][<nil>][<nil>][b][<nil>][b]"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := vw(write(t, "a.dat", test.text), "label", "importance", "default", "f", "g", "f")
			for _, buffer := range []int{0, 1, 7} {
				config.Buffer = buffer
				got := append([]string{}, describe(readAll(t, open(t, config)))...)
				if diff := cmp.Diff(append([]string{}, test.want...), got); diff != "" {
					t.Fatalf("buffer of %d bytes: %.300q: (-want +got)\n%.2000s", buffer, test.text, diff)
				}
			}
		})
	}
	t.Run("a line of many short namespaces takes no longer than others", func(t *testing.T) {
		// Quadratic copying would take minutes.
		const n = mebibyte/8 - 1
		text := "1 " + strings.Repeat("|f a|g b", n)
		events := readAll(t, open(t, vw(write(t, "a.dat", text), "f", "g")))
		if got := events[0].Columns; len(events) != 1 || len(got) != 2 ||
			got[0] != strings.TrimSuffix(strings.Repeat("a ", n), " ") || got[1] != strings.TrimSuffix(strings.Repeat("b ", n), " ") {
			t.Fatalf("got %d events, the first with %d columns %.40q", len(events), len(got), got)
		}
	})
}
