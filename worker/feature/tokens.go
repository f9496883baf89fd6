package feature

import (
	"bytes"
	"errors"
)

var (
	errTokenName   = errors.New("a token has a weight and no name")
	errTokenWeight = errors.New("a token's weight is not a finite decimal number")
)

// addTokens adds a value per token of text, in their order; a token that stands
// twice counts twice. Empty tokens, as between two separators, are none. Without
// any token the value is missing.
func (x *Extractor) addTokens(in *input, text []byte) error {
	found := false
	for len(text) > 0 {
		token := text
		if end := bytes.Index(text, in.split); end >= 0 {
			token, text = text[:end], text[end+len(in.split):]
		} else {
			text = nil
		}
		if len(token) == 0 {
			continue
		}
		found = true
		if err := x.addToken(in, token); err != nil {
			return err
		}
	}
	if !found {
		x.add(in, nil, 1)
	}
	return nil
}

// addToken adds one token, which ends in its weight where tokens have one and it
// says so. The last separator counts, so that a name may contain others.
func (x *Extractor) addToken(in *input, token []byte) error {
	at := -1
	if len(in.weight) > 0 {
		at = bytes.LastIndex(token, in.weight)
	}
	if at < 0 {
		x.add(in, token, 1)
		return nil
	}
	if at == 0 {
		return errTokenName
	}
	weight, err := number(token[at+len(in.weight):], 32)
	if err != nil {
		return errTokenWeight
	}
	x.add(in, token[:at], float32(weight))
	return nil
}
