package spec

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// profile is what a sample shows of one column.
type profile struct {
	name  string
	words []string // of the name, in lower case
	texts []string // one per row
	// filled counts the rows with a text, distinct their different texts.
	filled, distinct int
	groups           []int // per row: which of the distinct texts it has; -1 without
	// numbers has the number of each row, NaN where there is none; numeric counts
	// them, and whole those that are written as whole numbers.
	numbers        []float64
	numeric, whole int
	zeroed         int // whole numbers with leading zeros, which are codes
	min, max       float64
}

func newProfile(name string, texts []string) *profile {
	p := &profile{
		name: name, words: wordsOf(name), texts: texts,
		groups: make([]int, len(texts)), numbers: make([]float64, len(texts)),
		min: math.Inf(1), max: math.Inf(-1),
	}
	seen := make(map[string]int)
	for row, text := range texts {
		p.groups[row], p.numbers[row] = -1, math.NaN()
		if text == "" {
			continue
		}
		p.filled++
		group, ok := seen[text]
		if !ok {
			group = len(seen)
			seen[text] = group
		}
		p.groups[row] = group
		p.addNumber(row, text)
	}
	p.distinct = len(seen)
	return p
}

func (p *profile) addNumber(row int, text string) {
	v, ok := number64(text)
	if !ok {
		return
	}
	p.numbers[row] = v
	p.numeric++
	p.min, p.max = min(p.min, v), max(p.max, v)
	if digits := strings.TrimPrefix(text, "-"); strings.Trim(digits, "0123456789") == "" {
		p.whole++
		if len(digits) > 1 && digits[0] == '0' {
			p.zeroed++
		}
	}
}

// number64 reads a number as those who extract features read it.
func number64(text string) (float64, bool) {
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && finite(v) && !strings.ContainsAny(text, "xX")
}

// isNumeric reports whether every text is a number; otherwise rows with the others
// could not be read.
func (p *profile) isNumeric() bool { return p.numeric == p.filled && p.filled > 0 }

// missing returns how many rows have no text.
func (p *profile) missing() int { return len(p.texts) - p.filled }

// nearlyUnique reports whether hardly any text comes twice, so that nothing can be
// learned from one for another.
func (p *profile) nearlyUnique() bool {
	const rowsMin, share = 20, 0.9
	return p.filled >= rowsMin && float64(p.distinct) >= share*float64(p.filled)
}

// rising reports whether the numbers rise from row to row, as row numbers do.
func (p *profile) rising() bool {
	last := math.Inf(-1)
	for _, v := range p.numbers {
		if math.IsNaN(v) {
			continue
		}
		if v <= last {
			return false
		}
		last = v
	}
	return true
}

// isJSON reports whether the texts are JSON lists or objects.
func (p *profile) isJSON() bool {
	found := 0
	for _, text := range p.texts {
		if text == "" {
			continue
		}
		if text[0] != '[' && text[0] != '{' || !json.Valid([]byte(text)) {
			return false
		}
		found++
	}
	return found > 0
}

// hasWord reports whether the name has one of the words.
func (p *profile) hasWord(words ...string) bool {
	return slices.ContainsFunc(p.words, func(w string) bool { return slices.Contains(words, w) })
}

// isID reports whether the name says that the column holds the names of things.
func (p *profile) isID() bool {
	return p.hasWord("id", "uid", "uuid", "guid", "code", "sku", "zip", "postcode", "isbn", "ean", "hash", "key") ||
		len(p.words) > 0 && strings.HasSuffix(p.words[len(p.words)-1], "id") && p.words[len(p.words)-1] != "paid"
}

// isPerson reports whether the name says that the column identifies people or
// their devices.
func (p *profile) isPerson() bool {
	if p.hasWord("email", "mail", "phone", "msisdn", "imei", "idfa", "gaid", "cookie", "ip", "ssn", "uid", "userid", "customerid", "deviceid", "visitorid") {
		return true
	}
	return p.hasWord("user", "customer", "visitor", "member", "account", "device", "person", "client", "session", "patient", "subscriber") &&
		p.hasWord("id", "uuid", "guid", "hash", "key", "name", "no", "number")
}

// soundsLikeTime reports whether the name says that numbers are times. Without it
// they may as well be the names of things, which have as many digits.
func (p *profile) soundsLikeTime() bool {
	return p.hasWord("time", "timestamp", "ts", "date", "datetime", "dt", "day", "hour", "at", "created", "updated", "since", "until", "when", "ms", "utc")
}

// wordsOf returns the words that a column's name is made of, as in play_time,
// "Play time" and playTime.
func wordsOf(name string) []string {
	var words []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, strings.ToLower(string(word)))
			word = word[:0]
		}
	}
	var last rune
	for _, c := range name {
		switch {
		case !unicode.IsLetter(c) && !unicode.IsDigit(c):
			end()
		case unicode.IsUpper(c) && unicode.IsLower(last):
			end()
			word = append(word, c)
		default:
			word = append(word, c)
		}
		last = c
	}
	end()
	return words
}

// separator says how texts hold several values.
type separator struct {
	split, weightAfter string
	share              float64 // of the texts that have it
	tokens             int     // different ones
	perText            float64
}

// separated returns how the texts hold several values, if they do.
func (p *profile) separated() (separator, bool) {
	for _, split := range []string{"|", ";", ", ", ","} {
		if p.hasIntervals() && split != "|" && split != ";" {
			break
		}
		s := p.splitBy(split)
		// What separates values makes few out of many texts. A comma is also a part
		// of sentences and names, so more is asked of it.
		share, texts := 0.05, p.distinct
		if split == "," || split == ", " {
			share, texts = 0.2, p.distinct/2
		}
		if s.share >= share && s.tokens <= texts && !(split == "," && p.isGrouped()) {
			return s, true
		}
	}
	return separator{}, false
}

// prose returns how texts split into words, if they look like sentences or titles.
func (p *profile) prose() (separator, bool) {
	s := p.splitBy(" ")
	return s, s.perText >= 3 && s.share >= 0.8 && p.distinct > 50
}

func (p *profile) splitBy(split string) separator {
	s := separator{split: split}
	var with, total, weighted int
	different := make(map[string]bool)
	for _, text := range p.texts {
		if text == "" {
			continue
		}
		if strings.Contains(text, split) {
			with++
		}
		for token := range strings.SplitSeq(text, split) {
			if token == "" {
				continue
			}
			total++
			name, weight, found := cutLast(token, ":")
			if _, ok := number64(weight); found && name != "" && ok {
				weighted++
				token = name
			}
			different[token] = true
		}
	}
	s.tokens = len(different)
	s.share = float64(with) / float64(max(p.filled, 1))
	s.perText = float64(total) / float64(max(p.filled, 1))
	if weighted == total && total > 0 {
		s.weightAfter = ":" // all of them, or some rows could not be read
	}
	return s
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

// hasIntervals reports whether texts look like intervals, as in [100,1k).
func (p *profile) hasIntervals() bool {
	return slices.ContainsFunc(p.texts, func(text string) bool {
		return len(text) > 1 && strings.ContainsRune("[(", rune(text[0])) && strings.ContainsRune("])", rune(text[len(text)-1]))
	})
}

// isGrouped reports whether the texts are numbers with commas between thousands, as
// in 1,234, which are no numbers to those who extract features.
func (p *profile) isGrouped() bool {
	found := false
	for _, text := range p.texts {
		whole, _, _ := strings.Cut(text, ".")
		for i, digits := range strings.Split(whole, ",") {
			if strings.Trim(digits, "0123456789") != "" || i > 0 && len(digits) != 3 {
				return false
			}
			found = found || i > 0
		}
	}
	return found
}
