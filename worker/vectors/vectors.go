// Package vectors reads vectors that were learned elsewhere, with their identifiers, and
// makes rows of a model's table of them. It reads NumPy's .npy and .npz, and Parquet, and
// knows no cluster.
//
// The one idea to keep in mind: a row's key is the hash of a feature's name and a text (see
// package feature), so an identifier has to be the very text that the stream has, masked
// where the stream's is. What cannot be that text is refused, since its row would never
// be found.
//
// Invariants:
//
//  1. Read returns all rows of its input or none.
//  2. No error holds an identifier: they may be of people. A row is named by its number.
package vectors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// Config says what the rows are to be.
type Config struct {
	// Feature is what the identifiers are values of, as Feature returned it.
	Feature spec.Feature
	// Masker, if not nil, masks them.
	Masker *mask.Masker
	// Width is how many numbers a row of the table has.
	Width int
	// Progress, if not nil, is told now and then how many rows have been read.
	Progress func(rows int64)
}

// Feature returns the feature of a spec whose values can be given by identifiers, and whether
// they have to be masked. It wraps ps.ErrInvalid if there is none of this name, or says why
// this one's values cannot.
func Feature(s *spec.Spec, name string) (f spec.Feature, masked bool, err error) {
	at := slices.IndexFunc(s.Features, func(f spec.Feature) bool { return f.Name == name })
	if at < 0 {
		var names []string
		for _, f := range s.Features {
			names = append(names, f.Name)
		}
		return f, false, fmt.Errorf("model %s has no feature %q: it has %s: %w", s.Model, name, strings.Join(names, ", "), ps.ErrInvalid)
	}
	f = s.Features[at]
	reason := ""
	switch {
	case f.Kind == spec.Cross:
		reason = "is a cross: its values are combinations, which no identifier names"
	case f.Kind == spec.Clock:
		reason = "is a part of the event time, and not of identifiers"
	case f.Kind == spec.Buckets:
		reason = "is a number: its values are buckets, and not identifiers"
	case f.CrossOnly:
		reason = "is seen inside crosses only: the model has no rows of it"
	}
	if reason != "" {
		return f, false, fmt.Errorf("feature %q %s: %w", name, reason, ps.ErrInvalid)
	}
	return f, slices.Contains(s.Stream.Identifiers, f.Column), nil
}

// often is how many rows are read between looks at the context and words about progress.
const often = 8192

// Read returns the rows of an input: their keys, each once, and their weights as float32,
// which all are in memory. The Table field is the caller's to set. It wraps ps.ErrInvalid and
// names the row for an identifier that is empty, that was there before or that no token can
// be, for a vector of another width, and for an element that is not finite or beyond
// ps.WeightMax; ps.ErrCorrupt for a damaged input. The input is not closed.
func Read(ctx context.Context, in *Input, c Config) (ps.Rows, error) {
	if err := in.rows.fits(c.Width); err != nil {
		return ps.Rows{}, err
	}
	r := reader{Config: c, seen: make(map[ps.Key]int64), vector: make([]float64, c.Width)}
	for row := int64(1); ; row++ {
		identifier, err := in.rows.next(r.vector)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = r.add(row, identifier)
		}
		if err == nil && row%often == 0 {
			err = ctx.Err()
			if c.Progress != nil {
				c.Progress(row)
			}
		}
		if err != nil {
			return ps.Rows{}, fmt.Errorf("%s: row %d: %w", in.name, row, err)
		}
	}
	if len(r.keys) == 0 {
		return ps.Rows{}, fmt.Errorf("%s: there are no rows: %w", in.name, ps.ErrInvalid)
	}
	return ps.Rows{Keys: r.keys, Values: ps.Bytes(r.weights)}, nil
}

// reader is a Read under way.
type reader struct {
	Config
	keys    []ps.Key
	weights []float32
	seen    map[ps.Key]int64 // the row that has the key
	vector  []float64
	masked  []byte
}

// add takes a row whose vector was read.
func (r *reader) add(row int64, identifier []byte) error {
	key, err := r.key(identifier)
	if err != nil {
		return err
	}
	if first, there := r.seen[key]; there {
		return fmt.Errorf("has the identifier of row %d: give each once: %w", first, ps.ErrInvalid)
	}
	r.seen[key] = row
	for i, v := range r.vector {
		if v != v {
			return fmt.Errorf("element %d is not a number: %w", i, ps.ErrInvalid)
		}
		if math.Abs(v) > ps.WeightMax {
			return fmt.Errorf("element %d is %g: want at most %g: %w", i, v, float64(ps.WeightMax), ps.ErrInvalid)
		}
		r.weights = append(r.weights, float32(v))
	}
	r.keys = append(r.keys, key)
	return nil
}

// key returns the key of an identifier's row.
func (r *reader) key(identifier []byte) (ps.Key, error) {
	switch {
	case len(identifier) == 0:
		return 0, fmt.Errorf("the identifier is empty: %w", ps.ErrInvalid)
	case r.Feature.Kind == spec.Tokens && strings.Contains(string(identifier), r.Feature.Split):
		return 0, fmt.Errorf("the identifier has %q in it, which separates the tokens of feature %q: no token is so: %w",
			r.Feature.Split, r.Feature.Name, ps.ErrInvalid)
	case r.Masker != nil:
		r.masked = r.Masker.Append(r.masked[:0], identifier)
		identifier = r.masked
	}
	return feature.Key(r.Feature.Name, identifier), nil
}
