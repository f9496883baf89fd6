// Package spec reads a model's spec: the one YAML file that says which stream a
// model learns from, which features it sees, what it predicts, with which network
// and how it is judged. SPEC.md beside this file is its reference, Example a
// complete file. Init writes a first spec from a sample of a CSV file.
//
// The package opens no file and no stream: whether a column exists in the data is
// found out by whoever reads it. It reads the time zone database, and nothing else.
//
// The one idea to keep in mind: a spec is refused as a whole, with every mistake
// in it at once, each with its line and key and with what to do about it; what is
// accepted needs no further checks. Nothing is guessed when a spec is read; only
// Init guesses, and it writes its reasons beside each guess.
//
// Invariants:
//  1. What Parse returns is Valid and complete: defaults are filled in.
//  2. What Init returns can be parsed.
//  3. The same bytes give the same Spec and the same Layout on every machine, given
//     the same time zone database.
package spec

import "github.com/freshet-ml/freshet/ps"

// Spec is a model's spec, complete: what the file leaves out has its default.
type Spec struct {
	// Model names the model: ASCII letters, digits, "-" and "_", at most ModelMax
	// of them, the first a letter or digit.
	Model string
	// Seed decides initial values and which events are held out.
	Seed       uint64
	Stream     Stream
	Label      Label
	Loss       string // Log or Squared
	Features   []Feature
	Network    Network
	Evaluation Evaluation
	Training   Training
}

// Formats of streams.
const (
	CSV = "csv" // a header line, then comma-separated values as in RFC 4180
	VW  = "vw"  // Vowpal Wabbit text
	// JSON is that of a topic of Kafka, whose records are objects.
	JSON = "json"
)

// Stream says where events come from and how they become partitions and offsets.
type Stream struct {
	// Source is a URL such as file:///data/events.csv, plain or ending in .zst.
	// It may be empty in the file and given when the model is applied.
	Source string
	Format string
	// Time is the event time. Its Column is empty if the stream has none.
	Time Time
	// Sort orders a file's rows by event time before they get their offsets.
	Sort bool
	// Partitions is how many partitions a file is cut into. It is part of the
	// stream's identity.
	Partitions int
	// PartitionBy is the column whose hash chooses a row's partition; empty means
	// the hash of the whole line.
	PartitionBy string
	// Passes is how many times a file is read, one after the other.
	Passes int
	// Identifiers are the columns with identifiers of people; they are masked
	// before anything else sees them.
	Identifiers []string
}

// Units of numeric event times; any other unit is a layout of Go's time package.
const (
	Seconds      = "s"
	Milliseconds = "ms"
	Microseconds = "us"
	RFC3339      = "rfc3339"
)

// Time says which column holds the event time, and how.
type Time struct {
	Column string
	Unit   string
}

// Label says what is to be predicted. A Vowpal Wabbit stream brings its own label
// and leaves Column empty.
type Label struct {
	// Column holds a number: under the log loss 1 for yes, 0 or -1 for no.
	Column string
}

// Losses.
const (
	Log     = "log"     // a click or not: logistic loss of a probability
	Squared = "squared" // a quantity: (prediction - label)²
)

// Kind says how a feature is extracted.
type Kind uint8

// The kinds of features.
const (
	Categorical Kind = iota // the column's text
	Tokens                  // the column's text, split into several values
	Buckets                 // a number, by the bucket it falls into
	Clock                   // a part of the event time
	Cross                   // every combination of other features' values
)

// Feature is one named input. Which fields are set follows from its kind.
type Feature struct {
	// Name is unique in the spec: letters, digits, "-", "_" and ".", at most
	// FeatureNameMax bytes. It is part of the keys of the feature's values.
	Name string
	Kind Kind
	// Column is read by Categorical, Tokens and Buckets.
	Column string
	// Split separates tokens; WeightAfter, if not empty, separates a token from
	// its numeric value (default value 1).
	Split, WeightAfter string
	// Fields, if not 0, says that the tokens are so many fields, by their position: a
	// tower sees each by itself.
	Fields int
	// Log, if above 1, is the base of logarithmic buckets; else Edges are the
	// ascending bounds of the buckets.
	Log   float64
	Edges []float64
	// Clock is Hour, Weekday or HourOfWeek, in Zone.
	Clock string
	Zone  string
	// Of are the crossed features' names: two or more different ones, each
	// earlier in the spec and none a cross itself.
	Of []string
	// CrossOnly features are seen by the network inside crosses only. At least
	// one cross has it.
	CrossOnly bool
}

// Parts of the event time.
const (
	Hour       = "hour"
	Weekday    = "weekday"
	HourOfWeek = "hour_of_week"
)

// Networks.
const (
	Logistic = "logistic" // linear in the features, under either loss
	FM       = "fm"       // factorization machine
	DeepFM   = "deepfm"   // fm, and a tower of layers over the same factors
	MLP      = "mlp"      // logistic, and a tower of layers over factors
)

// Network says how a score is computed from rows. Table 0 holds the linear
// weights; table 1 of all but logistic the factors; those behind it the layers, as
// Dense says.
type Network struct {
	Kind string
	// Constant adds a feature that every event has: the bias.
	Constant bool
	// Optimizer is the linear weights'.
	Optimizer ps.Optimizer
	// Factors is how many numbers a key has beside its linear weight, FactorOptimizer
	// their update rule, and FactorInit the standard deviation of their initial values.
	Factors         int
	FactorOptimizer ps.Optimizer
	FactorInit      float64
	// Hidden are the units of a tower's layers, Dropout the share of them that an event
	// is learned without, and HiddenOptimizer the update rule of all layers.
	Hidden          []int
	Dropout         float64
	HiddenOptimizer ps.Optimizer
}

// Evaluation says how the model is judged while it learns.
type Evaluation struct {
	// Holdout is the share of events that are measured and never learned from.
	Holdout float64
	// Window is how many offsets of a partition share one row of figures.
	Window int
}

// Training says how much may be under way at once.
type Training struct {
	// InFlight is how many events are between their pull and their push, over
	// all workers. More is faster and learns worse.
	InFlight int
	// AuditTable adds a table that counts every event's contribution per key; it
	// costs a row per key and is for tests.
	AuditTable bool
}
