package worker

import "fmt"

// Unreadable says why a row of a file cannot be used. It wraps ErrUnreadable.
//
// Invariant: Reason holds nothing of the row's text, because it goes to logs and
// to the list of dead letters, where an identifier must never be.
type Unreadable struct {
	File   string
	Line   int64 // 1-based; where the row begins
	Reason string
}

// Error returns "file:line: reason: unreadable row".
func (u *Unreadable) Error() string {
	return fmt.Sprintf("%s:%d: %s: %v", u.File, u.Line, u.Reason, ErrUnreadable)
}

// Unwrap returns ErrUnreadable.
func (u *Unreadable) Unwrap() error { return ErrUnreadable }
