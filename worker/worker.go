// Package worker holds the words of learning: an event as it is read from the
// behaviour stream, and a batch of extracted examples. It does no I/O, starts no
// goroutine and reads no clock.
package worker

import (
	"errors"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// ErrUnreadable says that a row of the stream cannot be used. It takes its offset
// and is skipped by every shard. The wrapping error says where and why, and never
// holds the row's text.
var ErrUnreadable = errors.New("unreadable row")

// ErrAbsent says that an offset of the stream has no row, and never will: it wraps
// ErrUnreadable, since such an offset is skipped, too, but nothing is wrong.
var ErrAbsent = fmt.Errorf("no row: %w", ErrUnreadable)

// Event is one row of the behaviour stream. Identifiers in it are masked already.
type Event struct {
	Partition ps.Partition
	// Offset is the event's offset in its partition. Over several passes of a
	// file, Offset = Pass · length + Row.
	Offset ps.Offset
	// Pass numbers the passes over a file from 0; 0 elsewhere.
	Pass uint32
	// Row is the offset within the pass.
	Row ps.Offset
	// File is the file that the row is in; empty if the stream has none.
	File string
	// Line is the 1-based line of the file that the row begins at; 0 if the
	// stream has no lines.
	Line int64
	// Time is the event time in milliseconds since 1970, or 0 if the stream
	// declares none.
	Time int64
	// Columns holds the text of the columns that were asked for, in that order;
	// nil where the row has no such column. They are valid until the next event
	// is read.
	Columns [][]byte
	// Err is not nil if the row cannot be used; it wraps ErrUnreadable, and
	// Columns are then undefined.
	Err error
}

// Role says what an event of a batch is used for.
type Role uint8

// The roles of events.
const (
	Train Role = iota // learned from and measured
	Hold              // measured only
	Skip              // unusable: takes its offset, nothing else
	Drop              // given up while it was learned: counts as skipped where it would have counted as trained
)

// Batch is the extracted examples of consecutive events of one partition. Its
// memory is reused after Reset; it has one owner at a time.
//
// Invariant: len(Roles) = len(Labels) = len(Weights) = Range.Len(), len(Starts)
// is one more, and len(Keys) = len(Values) = Starts[Range.Len()]; len(Fields) is that
// too, or 0.
type Batch struct {
	Partition ps.Partition
	ps.Range
	// Pass is the pass that all events of the batch belong to.
	Pass uint32
	// EventTime is the largest event time, in milliseconds since 1970.
	EventTime int64

	Roles  []Role
	Labels []float32
	// Weights are importances; 1 where the stream declares none.
	Weights []float32

	// Event i has the features Keys[Starts[i]:Starts[i+1]] with their Values; a
	// skipped event has none.
	Starts []int32
	Keys   []ps.Key
	Values []float32
	// Fields says which field of the model's input each feature belongs to, or that it
	// is NoField; it is empty if the network does not look at fields.
	Fields []uint16
}

// NoField is the field of features that belong to none: the constant.
const NoField = 1<<16 - 1

// Reset empties b and sets the partition, first offset and pass of what is
// appended to it next.
func (b *Batch) Reset(p ps.Partition, from ps.Offset, pass uint32) {
	b.Partition, b.Range, b.Pass, b.EventTime = p, ps.Range{From: from, To: from}, pass, 0
	b.Roles, b.Labels, b.Weights = b.Roles[:0], b.Labels[:0], b.Weights[:0]
	b.Starts = append(b.Starts[:0], 0)
	b.Keys, b.Values, b.Fields = b.Keys[:0], b.Values[:0], b.Fields[:0]
}

// AddFeature adds a feature to the event that Close will end.
func (b *Batch) AddFeature(key ps.Key, value float32) {
	b.Keys = append(b.Keys, key)
	b.Values = append(b.Values, value)
}

// Close ends the event whose features were added since the last Close. A skipped
// event's features are dropped.
func (b *Batch) Close(role Role, label, weight float32, eventTime int64) {
	if role == Skip {
		start := b.Starts[len(b.Starts)-1]
		b.Keys, b.Values = b.Keys[:start], b.Values[:start]
		b.Fields = b.Fields[:min(len(b.Fields), int(start))]
	}
	b.Roles = append(b.Roles, role)
	b.Labels = append(b.Labels, label)
	b.Weights = append(b.Weights, weight)
	b.Starts = append(b.Starts, int32(len(b.Keys)))
	b.EventTime = max(b.EventTime, eventTime)
	b.To++
}
