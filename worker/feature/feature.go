// Package feature makes examples of events: the columns of an event become keys
// with values, and a label.
//
// It reads no clock and keeps nothing from one event to the next: an event gives
// the same features, label and role in whatever batch and process it is extracted.
// The exactly-once claim rests on that, because a replay cuts its batches
// elsewhere.
//
// The one idea to keep in mind: a feature's value is a text, and its key is a hash
// of the feature's name and that text (see Key). Nothing is looked up, so there is
// no vocabulary to build, ship or keep in step. A number is a value by the text of
// the bucket that it falls into, and a missing value is the empty text.
package feature

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

// Names of the columns that a Vowpal Wabbit stream brings beside its namespaces.
const (
	LabelColumn      = "label"
	ImportanceColumn = "importance"
)

// CombinationsMax is how many combinations of values one cross of one event may
// have. Two columns of 64 tokens each reach it; what is beyond is rather a broken
// row than something to learn from.
const CombinationsMax = 4096

// Columns returns the columns to ask a stream of s for: what s reads, and the
// label and importance that a Vowpal Wabbit stream brings.
func Columns(s *spec.Spec) []string {
	columns := s.Columns()
	if s.Stream.Format == spec.VW {
		columns = append(columns, LabelColumn, ImportanceColumn)
	}
	return columns
}

// UnlabelledColumns returns the columns to ask a stream of s for in order to predict:
// those of its features.
func UnlabelledColumns(s *spec.Spec) []string {
	unlabelled := *s
	unlabelled.Label.Column = ""
	return unlabelled.Columns()
}

// Extractor turns events into examples. It owns scratch memory, so it has one user
// at a time; it allocates nothing once it has seen an event of a size, but for
// errors.
type Extractor struct {
	inputs   []input
	labels   *labels // nil: there are none, and none are needed
	constant bool
	fielded  bool // the network sees fields

	// The event at hand: input i has keys and values [ends[i-1]:ends[i]].
	keys   []ps.Key
	values []float32
	ends   []int
	digits []byte
	shared shared // with other events
	words  words
	places []uint16 // of the tokens of features that are fields by position
	// texts are the values' texts, collected only if describing.
	texts      []string
	describing bool
}

// input is one feature of the spec, ready to be extracted.
type input struct {
	spec.Feature
	seed   ps.Key
	column int // position in Event.Columns
	split  []byte
	weight []byte // separates a token from its value; empty: there are none
	log    logBuckets
	zone   *time.Location
	of     []int // positions of the crossed inputs

	padding   []byte // of tokens that are words; else nil
	separator uint64
}

// New returns an extractor of labelled examples from events whose Columns are
// columns, in that order. s is valid, as spec.Parse returns it, and not changed
// afterwards. It returns ps.ErrInvalid if a column that s reads is not there.
func New(s *spec.Spec, columns []string) (*Extractor, error) {
	x, err := NewUnlabelled(s, columns)
	if err != nil {
		return nil, err
	}
	x.labels, err = newLabels(s, columns)
	return x, err
}

// NewUnlabelled is New for predicting: events need no label, and all have the role
// Train, the label 0 and the weight 1.
func NewUnlabelled(s *spec.Spec, columns []string) (*Extractor, error) {
	if err := s.Valid(); err != nil {
		return nil, fmt.Errorf("extract features: %w", err)
	}
	x := &Extractor{constant: s.Network.Constant, fielded: s.Network.HasTower(), ends: make([]int, len(s.Features))}
	for _, f := range s.Features {
		in, err := x.newInput(f, columns)
		if err != nil {
			return nil, fmt.Errorf("feature %q: %w", f.Name, err)
		}
		x.inputs = append(x.inputs, in)
	}
	return x, nil
}

// newInput prepares f; the features that it crosses are among x.inputs.
func (x *Extractor) newInput(f spec.Feature, columns []string) (input, error) {
	in := input{Feature: f, seed: seed(f.Name), split: []byte(f.Split), weight: []byte(f.WeightAfter)}
	var err error
	switch f.Kind {
	case spec.Categorical, spec.Tokens, spec.Buckets:
		in.column, err = position(columns, f.Column)
		if f.Log > 1 {
			in.log = newLogBuckets(f.Log)
		}
		if f.Kind == spec.Tokens && len(in.split) == 1 && len(in.weight) == 0 {
			in.padding, in.separator = newPadding(in.split[0])
		}
	case spec.Clock:
		if in.zone, err = time.LoadLocation(f.Zone); err != nil {
			err = fmt.Errorf("load time zone %q: %w", f.Zone, err)
		}
	case spec.Cross:
		for _, name := range f.Of {
			in.of = append(in.of, slices.IndexFunc(x.inputs, func(in input) bool { return in.Name == name }))
		}
	}
	return in, err
}

func position(columns []string, name string) (int, error) {
	at := slices.Index(columns, name)
	if at < 0 {
		return 0, fmt.Errorf("the stream's columns %q have no %q: %w", columns, name, ps.ErrInvalid)
	}
	return at, nil
}

// Append adds e to b as one example; e is not kept. Its role is Skip if e.Err is
// set, which is then returned, or if it cannot be extracted; then the error wraps
// worker.ErrUnreadable and says where and why, without any text of the row. Either
// way the event has taken its offset in b, and the caller goes on.
//
// Labelled events come in the order of their offsets: e must be the next of b's
// partition and pass, or Append panics, because a batch with a gap would lose
// events for ever.
func (x *Extractor) Append(b *worker.Batch, e *worker.Event) error {
	if x.labels != nil && (e.Partition != b.Partition || e.Offset != b.To || e.Pass != b.Pass) {
		panic(fmt.Sprintf("feature: event %d of partition %d, pass %d, appended to a batch of partition %d, pass %d, at %v",
			e.Offset, e.Partition, e.Pass, b.Partition, b.Pass, b.Range))
	}
	if e.Err != nil {
		b.Close(worker.Skip, 0, 0, 0)
		return e.Err
	}
	role, label, weight := worker.Train, float32(0), float32(1)
	at, err := x.extract(e)
	if err == nil && x.labels != nil {
		role, label, weight, at, err = x.labels.of(e)
	}
	if err != nil {
		b.Close(worker.Skip, 0, 0, e.Time)
		return unreadable(e, at, err)
	}
	start := 0
	for i := range x.inputs {
		end := x.ends[i]
		if !x.inputs[i].CrossOnly {
			b.Keys = append(b.Keys, x.keys[start:end]...)
			b.Values = append(b.Values, x.values[start:end]...)
		}
		start = end
	}
	if x.constant {
		b.AddFeature(constantKey, 1)
	}
	if x.fielded {
		x.appendFields(b)
	}
	b.Close(role, label, weight, e.Time)
	return nil
}

// unreadable says where an event cannot be extracted, and why.
func unreadable(e *worker.Event, at string, reason error) error {
	if e.File != "" {
		return &worker.Unreadable{File: e.File, Line: e.Line, Reason: fmt.Sprintf("%s: %v", at, reason)}
	}
	line := ""
	if e.Line > 0 {
		line = fmt.Sprintf(", line %d", e.Line)
	}
	return fmt.Errorf("partition %d, offset %d%s: %s: %w: %w", e.Partition, e.Offset, line, at, reason, worker.ErrUnreadable)
}

// errPanicked says that extracting hit a mistake in this program. The value is not told,
// since it may hold text of the row.
var errPanicked = errors.New("extracting it crashed")

// extract fills keys, values and ends from e. If it cannot, it says at what of the
// spec and why. A row that makes it panic is as unusable for everybody who reads it:
// it must not take a worker with it, again and again.
func (x *Extractor) extract(e *worker.Event) (at string, err error) {
	defer func() {
		if recover() != nil {
			at, err = "row", errPanicked
		}
	}()
	x.keys, x.values, x.texts = x.keys[:0], x.values[:0], x.texts[:0]
	x.places = x.places[:0]
	sharing := len(x.shared.fixed) > 0 && !x.describing
	for i := range x.inputs {
		in := &x.inputs[i]
		if fixed := sharing && x.shared.fixed[i]; !fixed || !x.reuse(i) {
			value, place := len(x.keys), len(x.places)
			if err := x.addInput(in, e); err != nil {
				return describeInput(in), err
			}
			if fixed {
				x.keep(i, value, place)
			}
		}
		x.ends[i] = len(x.keys)
	}
	return "", nil
}

// addInput adds the values of one input.
func (x *Extractor) addInput(in *input, e *worker.Event) error {
	switch in.Kind {
	case spec.Categorical:
		x.add(in, e.Columns[in.column], 1)
	case spec.Tokens:
		switch {
		case in.Fields > 0:
			return x.addPlaced(in, e.Columns[in.column])
		case in.padding != nil && !x.describing:
			x.addWords(in, e.Columns[in.column])
		default:
			return x.addTokens(in, e.Columns[in.column])
		}
	case spec.Buckets:
		return x.addBucket(in, e.Columns[in.column])
	case spec.Clock:
		x.addClock(in, e.Time)
	case spec.Cross:
		return x.addCross(in)
	}
	return nil
}

func describeInput(in *input) string {
	if in.Kind == spec.Cross {
		return fmt.Sprintf("cross %q", in.Name)
	}
	return fmt.Sprintf("column %q", in.Column)
}

// add adds a value of in by its text; none is the missing value.
func (x *Extractor) add(in *input, text []byte, value float32) {
	x.keys = append(x.keys, hash(in.seed, text))
	x.values = append(x.values, value)
	if x.describing {
		x.texts = append(x.texts, string(text))
	}
}

// addInteger adds the value whose text is n in decimal.
func (x *Extractor) addInteger(in *input, n int64) {
	x.digits = appendInteger(x.digits[:0], n)
	x.add(in, x.digits, 1)
}
