package wire

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/freshet-ml/freshet/ps"
)

// Domain is the ErrorInfo domain of every error Freshet sends.
const Domain = "freshet"

// conditions is the one table between the sentinels of package ps and what goes
// over the network. Reasons are part of the protocol: append only.
var conditions = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{ps.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{ps.ErrTooLarge, codes.InvalidArgument, "TOO_LARGE"},
	{ps.ErrUnknownModel, codes.NotFound, "UNKNOWN_MODEL"},
	{ps.ErrModelMismatch, codes.FailedPrecondition, "MODEL_MISMATCH"},
	{ps.ErrNotOwner, codes.FailedPrecondition, "NOT_OWNER"},
	{ps.ErrNoOwner, codes.Unavailable, "NO_OWNER"},
	{ps.ErrReplaced, codes.Aborted, "REPLACED"},
	{ps.ErrConflict, codes.Aborted, "CONFLICT"},
	{ps.ErrUnavailable, codes.Unavailable, "UNAVAILABLE"},
	{ps.ErrOutOfMemory, codes.ResourceExhausted, "OUT_OF_MEMORY"},
	{ps.ErrCorrupt, codes.DataLoss, "CORRUPT"},
	{ps.ErrKeysUnknown, codes.FailedPrecondition, "KEYS_UNKNOWN"},
	{ps.ErrBehind, codes.FailedPrecondition, "BEHIND"},
	{ps.ErrLimited, codes.ResourceExhausted, "LIMITED"},
}

// Reason returns the protocol's name for a condition, or "INTERNAL" for an error
// that wraps no sentinel of package ps.
func Reason(err error) string {
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			return c.reason
		}
	}
	return "INTERNAL"
}

// Refusal is the inverse of Reason: an error that reads as message and wraps the
// condition of that name.
func Refusal(reason, message string) error {
	for _, c := range conditions {
		if c.reason == reason {
			return &remote{message: message, condition: c.err}
		}
	}
	return fmt.Errorf("%s (%s)", message, reason)
}

// remote is an error from the other side: its text already names the condition.
type remote struct {
	message   string
	condition error
}

func (e *remote) Error() string { return e.message }
func (e *remote) Unwrap() error { return e.condition }

// ToStatus returns err as a gRPC status error that carries the condition's reason, and of a
// ps.LimitedError how long to wait.
// A nil error stays nil, and an error that is a status already stays as it is.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	code, reason := codes.Internal, "INTERNAL"
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			code, reason = c.code, c.reason
			break
		}
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: Domain, Reason: reason}}
	if limited, ok := errors.AsType[*ps.LimitedError](err); ok {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(limited.Wait)})
	}
	st, detailErr := status.New(code, err.Error()).WithDetails(details...)
	if detailErr != nil {
		return status.Error(code, err.Error())
	}
	return st.Err()
}

// FromStatus returns what a gRPC call returned as an error that wraps the
// condition it carries. A connection that cannot be made or broke is
// ps.ErrUnavailable; a deadline or cancellation is the context's error. Other
// errors, and nil, stay as they are.
func FromStatus(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	var refusal error
	for _, detail := range st.Details() {
		switch info := detail.(type) {
		case *errdetails.ErrorInfo:
			if info.GetDomain() == Domain {
				refusal = Refusal(info.GetReason(), st.Message())
			}
		case *errdetails.RetryInfo: // behind the reason
			if errors.Is(refusal, ps.ErrLimited) {
				refusal = &ps.LimitedError{Message: st.Message(), Wait: info.GetRetryDelay().AsDuration()}
			}
		}
	}
	if refusal != nil {
		return refusal
	}
	switch st.Code() {
	case codes.Unavailable:
		return &remote{message: "not reached: " + cause(st.Message()), condition: ps.ErrUnavailable}
	case codes.Canceled:
		return &remote{message: st.Message(), condition: context.Canceled}
	case codes.DeadlineExceeded:
		return &remote{message: st.Message(), condition: context.DeadlineExceeded}
	}
	return err
}

// cause returns what gRPC says of a broken connection without the words around it:
// of `connection error: desc = "transport: Error while dialing: dial tcp …"` the
// part from dial. Whatever else it says stays as it is.
func cause(message string) string {
	const quotes = `connection error: desc = "`
	if inner, ok := strings.CutPrefix(message, quotes); ok {
		message = strings.TrimSuffix(inner, `"`)
	}
	return strings.TrimPrefix(message, "transport: Error while dialing: ")
}
