package server

import (
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusal is why a request was not answered, read from the status that says so.
type refusal struct {
	code   codes.Code
	reason string // "OK" of none
	detail string
}

// refusalOf reads a status, or nil. Where a status carries no reason, as of a deadline, its
// code's name is one.
func refusalOf(err error) refusal {
	st := status.Convert(err)
	r := refusal{code: st.Code(), reason: code.Code(st.Code()).String(), detail: st.Message()}
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			r.reason = info.GetReason()
		}
	}
	return r
}

// statusGone is what servers commonly log where the client has hung up; nobody reads it.
const statusGone = 499

// http returns the status for HTTP.
func (r *refusal) http() int {
	switch r.code {
	case codes.InvalidArgument:
		if r.reason == "TOO_LARGE" {
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusBadRequest
	case codes.NotFound:
		return http.StatusNotFound
	case codes.ResourceExhausted:
		if r.reason == "LIMITED" {
			return http.StatusTooManyRequests
		}
		return http.StatusServiceUnavailable
	case codes.Unavailable, codes.FailedPrecondition, codes.Aborted:
		// The request is as it should be, and what the pod needs is on its way: a shard that
		// moves, a model that was changed, a copy that is behind.
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Canceled:
		return statusGone
	}
	return http.StatusInternalServerError
}
