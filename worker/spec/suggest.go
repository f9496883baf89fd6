package spec

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Nearest returns the known word that was probably meant by word: the one with the
// fewest single-character edits, if they are at most a third of it. It returns ""
// if there is none.
func Nearest(word string, known []string) string {
	const longest = 64 // longer words are nobody's slip of the pen, and cost time
	if len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, fewest := "", max(utf8.RuneCountInString(word)/3, 1)+1
	for _, candidate := range known {
		if len(candidate) > longest {
			continue
		}
		if n := edits([]rune(word), []rune(strings.ToLower(candidate))); n < fewest {
			best, fewest = candidate, n
		}
	}
	return best
}

// edits returns the number of insertions, deletions, substitutions and swaps of
// neighbours that turn a into b, no character being edited twice.
//
// Source: the optimal string alignment form of Damerau 1964, A technique for
// computer detection and correction of spelling errors (doi:10.1145/363958.363994).
func edits(a, b []rune) int {
	before := make([]int, len(b)+1) // row i-2
	last := make([]int, len(b)+1)   // row i-1
	row := make([]int, len(b)+1)    // row i: edits from a[:i] to b[:j]
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// advise returns what to do about an unknown word: the known one that was probably
// meant, or else the list of all, introduced by intro.
func advise(word, intro string, known []string) string {
	if guess := Nearest(word, known); guess != "" {
		return "did you mean " + strconv.Quote(guess) + "?"
	}
	return intro + " " + listed(known)
}

// listed joins words for a message. A long list is cut.
func listed(words []string) string {
	const most = 40
	if len(words) > most {
		return strings.Join(words[:most], ", ") + ", … (" + strconv.Itoa(len(words)) + " in all)"
	}
	return strings.Join(words, ", ")
}

// quoted returns text for a message: quoted, and cut where it is long.
func quoted(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most]) + "…"
	}
	return strconv.Quote(text)
}
