package ps

import (
	"errors"
	"time"
)

// Conditions a caller can act on. ps/wire carries each across the network with
// the reason given here, so errors.Is works on both sides.
var (
	// ErrInvalid: the request can never succeed as it is (a bad width, a value
	// that is not finite, an unknown table). Do not retry.
	ErrInvalid = errors.New("invalid argument")
	// ErrTooLarge: a request is over a documented limit. Send less at a time.
	ErrTooLarge = errors.New("request too large")
	// ErrUnknownModel: the cluster, or this node so far, has no such model.
	ErrUnknownModel = errors.New("unknown model")
	// ErrModelMismatch: stream, layout or spec version differ from the model's.
	// Read the model again before going on.
	ErrModelMismatch = errors.New("stream, layout or spec version is not the model's")
	// ErrNotOwner: this node does not own the shard. Read the routes again.
	ErrNotOwner = errors.New("not the owner of the shard")
	// ErrNoOwner: no node owns the shard at this moment. Retry with patience.
	ErrNoOwner = errors.New("shard has no owner")
	// ErrReplaced: a newer generation of the partition's assignment exists; this
	// worker must stop working on it.
	ErrReplaced = errors.New("replaced by a newer assignment")
	// ErrUnavailable: the other side cannot be reached or is shutting down. Retry.
	ErrUnavailable = errors.New("unavailable")
	// ErrOutOfMemory: a row could not be stored. State is untouched; retry later.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrCorrupt: bytes from disk or wire do not decode to what they claim to be.
	ErrCorrupt = errors.New("corrupt data")
	// ErrKeysUnknown: a push refers to keys of a pull that the node does not have. State is
	// untouched. Pull again.
	ErrKeysUnknown = errors.New("the keys of that pull are not known")
	// ErrBehind: a shard has less than the reader has seen of it already, or was not changed
	// for longer than the reader accepts. Look again later, or ask for less.
	ErrBehind = errors.New("behind what the reader asks for")
	// ErrLimited: whoever asks has asked for more in a second than it may. Ask more slowly.
	ErrLimited = errors.New("more than this reader may ask for")
	// ErrConflict: somebody else changed what this change was based on. Read again.
	ErrConflict = errors.New("changed by somebody else")
)

// LimitedError is an ErrLimited that says how long to wait.
type LimitedError struct {
	Message string
	// Wait is how long to wait before what was asked for can be asked for again. Others who
	// ask by the same name meanwhile make it longer.
	Wait time.Duration
}

func (e *LimitedError) Error() string { return e.Message }
func (e *LimitedError) Unwrap() error { return ErrLimited }
