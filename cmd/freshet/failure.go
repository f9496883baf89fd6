package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// Exit codes, documented in the help of the root command.
const (
	exitFailure      = 1   // the work failed, or an audit is not clean
	exitUsage        = 2   // a flag, a spec or other input is wrong or damaged
	exitUnavailable  = 3   // etcd, a node or a port cannot be had right now
	exitPrecondition = 4   // the cluster is not in the state that this needs
	exitInterrupted  = 130 // interrupted before it was done, as shells count SIGINT
)

// usageError is a command line, or input, that cannot be meant.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// condition is an error that reads as text alone and is a sentinel to errors.Is.
type condition struct {
	text     string
	sentinel error
}

func (e condition) Error() string { return e.text }
func (e condition) Unwrap() error { return e.sentinel }

// exitCode returns the documented exit code of an error.
func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), isAny(err, ps.ErrInvalid, ps.ErrTooLarge, ps.ErrCorrupt,
		os.ErrNotExist, os.ErrPermission, syscall.EISDIR, syscall.ENOTDIR):
		return exitUsage
	case isAny(err, ps.ErrConflict, ps.ErrModelMismatch, ps.ErrUnknownModel):
		return exitPrecondition
	case isAny(err, ps.ErrUnavailable, ps.ErrNoOwner, syscall.EADDRINUSE, context.DeadlineExceeded):
		return exitUnavailable
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// plain returns an error's text for people: without the sentinel at its end, which
// says less than the words before it and no more than the exit code.
func plain(err error) string {
	text := err.Error()
	for _, sentinel := range []error{
		worker.ErrUnreadable, ps.ErrInvalid, ps.ErrTooLarge, ps.ErrCorrupt, ps.ErrConflict, ps.ErrModelMismatch,
	} {
		text = strings.TrimSuffix(text, ": "+sentinel.Error())
	}
	return text
}

// flagError says in plain words what a flag's value should have been.
func flagError(err error) error {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	kinds := map[string]string{
		"int": "a whole number", "int64": "a whole number", "uint64": "a whole number from 0 up", "float64": "a number",
		"bool": "true or false", "duration": "a duration such as 5s or 500ms", "stringSlice": "values with commas between them",
	}
	f := invalid.GetFlag()
	kind, ok := kinds[f.Value.Type()]
	if !ok {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		kind += " that is not as large"
	}
	return fmt.Errorf("--%s %q: want %s", f.Name, invalid.GetValue(), kind)
}
