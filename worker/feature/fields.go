package feature

import (
	"bytes"
	"errors"

	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

var errTokenFields = errors.New("more tokens than the feature has fields")

// addPlaced is addTokens of a feature whose tokens are fields by their position: an empty
// token leaves its field empty. Without any token the first field has the missing value.
func (x *Extractor) addPlaced(in *input, text []byte) error {
	found := false
	for place := 0; len(text) > 0; place++ {
		token := text
		if end := bytes.Index(text, in.split); end >= 0 {
			token, text = text[:end], text[end+len(in.split):]
		} else {
			text = nil
		}
		if len(token) == 0 {
			continue
		}
		if place >= in.Fields {
			return errTokenFields
		}
		found = true
		if err := x.addToken(in, token); err != nil {
			return err
		}
		x.places = append(x.places, uint16(place))
	}
	if !found {
		x.add(in, nil, 1)
		x.places = append(x.places, 0)
	}
	return nil
}

// appendFields appends the fields of the features that Append makes of the event at hand.
func (x *Extractor) appendFields(b *worker.Batch) {
	field, start, places := 0, 0, x.places
	for i := range x.inputs {
		in, end := &x.inputs[i], x.ends[i]
		placed := in.Kind == spec.Tokens && in.Fields > 0
		for at := start; at < end && !in.CrossOnly; at++ {
			place := 0
			if placed {
				place = int(places[at-start])
			}
			b.Fields = append(b.Fields, uint16(field+place))
		}
		if placed {
			places = places[end-start:]
		}
		if !in.CrossOnly {
			field += max(1, in.Fields)
		}
		start = end
	}
	if x.constant {
		b.Fields = append(b.Fields, worker.NoField)
	}
}
