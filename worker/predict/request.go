package predict

import (
	"context"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// Column is one column of some events, named as in the stream that the model learns from.
// It has one value for each event, or one that all share. An empty value is a missing one.
type Column struct {
	Name   string
	Values []string
}

// Parameters are the rows that a pod scores with: a copy that follows the cluster, or an
// epoch's.
type Parameters interface {
	Params
	// Fresh says how fresh the rows are, at the least, that a Pull which begins now fills in.
	// The caller does not change Applied.
	Fresh() Fresh
}

// Fresh says how fresh parameters are.
type Fresh struct {
	// Parameters names them: "live", or "epoch N".
	Parameters string
	// Applied is, by partition of the model's stream, the offset below which all events are
	// in. More may be in.
	Applied []ps.Offset
	// EventTime is the largest event time that is in, in milliseconds since 1970; 0 if
	// unknown.
	EventTime int64
	// Age is how long ago the rows were last known to be all that there was, of the shard
	// for which that is longest.
	Age time.Duration
}

// Served says what an answer was computed from.
type Served struct {
	// Version is that of the model's spec.
	Version uint64
	Fresh
}

// Rank asks for the best of some candidates in one context.
type Rank struct {
	// Context is what all candidates share, one value each, and Candidates what they
	// differ in, one value for each candidate.
	Context, Candidates []Column
	// Top is how many to return at most; 0 for all.
	Top     int
	Filters []Filter
}

// Filter leaves candidates out by a column of theirs, which need not be one of the spec's.
// One of the tests is set.
type Filter struct {
	Column string
	// In keeps those whose value is one of these, if it is not nil; NotIn leaves those out.
	In, NotIn []string
	// AtLeast and AtMost keep those whose value is a number of at least, or at most, this.
	AtLeast, AtMost *float64
}

// Ranking is what a Rank asks for, best first.
type Ranking struct {
	Ranked []Ranked
	// Filtered candidates were left out, Unusable ones could not be scored.
	Filtered, Unusable int
}

// Ranked is a candidate with what the model says about it.
type Ranked struct {
	// Candidate is its place in the request, from 0.
	Candidate int
	Score     float32
	Value     float64
}

// Retrieve asks for the items with the largest inner product with a query.
type Retrieve struct {
	Top int
	// Context are the columns that the query is made of, one value each; or Vector is the
	// query by itself.
	Context []Column
	Vector  []float32
	// NotIn are names of items to leave out.
	NotIn []string
}

// Retrieved is an item that was asked for.
type Retrieved struct {
	Item  string
	Score float32
}

// Explanation is a prediction and what each feature adds to it.
type Explanation struct {
	Prediction
	// Features are in the order of the spec.
	Features []FeatureContribution
}

// FeatureContribution is the score less what it would be without the feature.
type FeatureContribution struct {
	Feature      string
	Contribution float32
}

// Predictions answers what a pod is asked about one model. It is safe for concurrent use.
//
// Errors wrap ps.ErrInvalid (an unknown column, a filter or vector that cannot be meant, no
// list of items), ps.ErrTooLarge (more events, keys or items than a request may have),
// ps.ErrUnavailable (no parameters yet) and those of Parameters and the context. What is
// wrong with one event alone is in its Prediction.
type Predictions interface {
	// Predict scores events, in order.
	Predict(ctx context.Context, columns []Column) ([]Prediction, Served, error)
	Rank(ctx context.Context, r Rank) (Ranking, Served, error)
	Retrieve(ctx context.Context, r Retrieve) ([]Retrieved, Served, error)
	Explain(ctx context.Context, columns []Column) (Explanation, Served, error)
}
