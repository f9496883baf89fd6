// Package stream says what a behaviour stream is: partitions of events that can be
// read again from any offset. Where they come from is the business of the packages
// below it.
package stream

import (
	"context"
	"errors"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// Start is where reading a partition begins.
type Start struct {
	Partition ps.Partition
	Offset    ps.Offset
}

// Source is a behaviour stream. It is safe for concurrent use.
//
// Invariant: the event at (partition, offset) is the same whenever it is read.
type Source interface {
	// Identity names the contents and how they are cut into partitions.
	Identity() ps.StreamID
	Partitions() int
	// Size estimates how many events the stream has over all partitions and
	// passes; 0 if unknown. It is for progress only.
	Size() int64
	// Read begins reading the given partitions, each from its offset. The reader
	// yields a partition's events in order, and interleaves partitions in the
	// order of the stream.
	Read(ctx context.Context, starts []Start) (Reader, error)
	Close() error
}

// ErrIdle says that no event is there just now: the reader has all that there is of a stream
// that still grows.
var ErrIdle = errors.New("no event is there just now")

// Reader reads events. It has one owner; it is not safe for concurrent use.
type Reader interface {
	// Next fills e with the next event, whose Columns stay valid until the next
	// call. It returns io.EOF after the last event of all its partitions. A row
	// that cannot be used is an event with Err set, not an error of Next; an
	// error of Next is about the stream itself and names the file and the place.
	//
	// Of a stream that grows it returns ErrIdle when there is nothing more just now. Calling
	// it again waits, for a few milliseconds at most, and then returns ErrIdle again.
	Next(ctx context.Context, e *worker.Event) error
	// End returns the end of a partition once it is known, that is at the latest
	// when Next has returned io.EOF.
	End(p ps.Partition) (ps.Offset, bool)
	Close() error
}

// Growing is a Reader of a stream that grows, which also knows how far it has grown.
type Growing interface {
	Reader
	// Newest returns the end of what was in a partition when the reader heard of it last,
	// and whether it has heard of it. It may be called by others than the reader's owner.
	Newest(p ps.Partition) (ps.Offset, bool)
}
