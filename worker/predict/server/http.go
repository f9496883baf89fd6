package server

import (
	"bytes"
	"context"
	_ "embed" // the document that says what Handler does
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// deadlineName is the header with the time that an answer is worth waiting for.
const deadlineName = "Freshet-Deadline-Ms"

// openAPI describes what Handler does, in OpenAPI 3.1. A test holds them together.
//
//go:embed openapi.json
var openAPI []byte

// endpoint is what is at a path.
type endpoint struct {
	method string
	handle http.HandlerFunc
}

// Handler returns what answers over HTTP what the gRPC service does, and says how the pod
// is: see openapi.json. A request has TimeMax to arrive. It is for an http.Server with a
// ReadHeaderTimeout and an IdleTimeout.
func (s *Server) Handler() http.Handler {
	endpoints := s.endpoints()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// Before a refusal is sent, net/http reads what there still is of a body.
			arriveBy(w, time.Now().Add(s.config.TimeMax))
		}
		e, ok := endpoints[r.URL.Path]
		switch {
		case !ok:
			refuse(w, http.StatusNotFound, "NOT_FOUND", "there is nothing at this path; GET /openapi.json says what there is")
		case r.Method == e.method, r.Method == http.MethodHead && e.method == http.MethodGet:
			e.handle(w, r)
		default:
			allow := e.method
			if allow == http.MethodGet {
				allow += ", " + http.MethodHead
			}
			w.Header().Set("Allow", allow)
			refuse(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "this path takes "+allow)
		}
	})
}

// endpoints are what there is, by path.
func (s *Server) endpoints() map[string]endpoint {
	return map[string]endpoint{
		"/v1/predict":   {http.MethodPost, post(s, &predicting, predictBody, newPredictReply)},
		"/v1/rank":      {http.MethodPost, post(s, &ranking, rankBody, newRankReply)},
		"/v1/retrieve":  {http.MethodPost, post(s, &retrieving, retrieveBody, newRetrieveReply)},
		"/v1/explain":   {http.MethodPost, post(s, &explaining, explainBody, newExplainReply)},
		"/v1/models":    {http.MethodGet, s.listModels},
		"/healthz":      {http.MethodGet, func(w http.ResponseWriter, _ *http.Request) { reply(w, map[string]bool{"live": true}) }},
		"/readyz":       {http.MethodGet, s.tellReady},
		"/openapi.json": {http.MethodGet, func(w http.ResponseWriter, _ *http.Request) { write(w, "application/json", http.StatusOK, openAPI) }},
	}
}

// listModels says what is served, and how fresh it is.
func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	list := modelsReply{Models: []modelReply{}}
	for _, m := range s.config.Models() {
		one := modelReply{Name: m.Name}
		if from, err := m.Served(); err != nil {
			one.Error = err.Error()
		} else {
			r := servedReply(from)
			one.Served = &r
		}
		list.Models = append(list.Models, one)
	}
	reply(w, &list)
}

// tellReady says whether requests should be sent here.
func (s *Server) tellReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		refuseAs(w, s.config.Status(err))
		return
	}
	reply(w, map[string]bool{"ready": true})
}

// post returns what answers the requests of a method.
func post[Q, A any](
	s *Server, asked *method[Q, A],
	body func(*scan) (model string, question Q, err error), newReply func(A, predict.Served) any,
) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if problem := notJSON(r); problem != "" {
			refuse(w, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", problem)
			return
		}
		ctx, cancel, err := s.bounded(r)
		defer cancel()
		var text []byte
		if err == nil {
			text, err = s.read(ctx, w, r)
		}
		if err != nil {
			ctx = context.WithoutCancel(ctx) // net/http gives a request up whose body cannot be read; here it is told why
		}
		var answered []byte
		err = ask(predict.WithKey(ctx, r.Header.Get(keyName)), s, asked, func() (model string, question Q, _ error) {
			if err != nil {
				return "", question, err
			}
			scan, err := newScan(text)
			if err != nil {
				return "", question, err
			}
			return body(scan)
		}, func(answer A, from predict.Served) (err error) {
			answered, err = document(newReply(answer, from))
			return err
		})
		if err != nil {
			refuseAs(w, err)
			return
		}
		write(w, "application/json", http.StatusOK, answered)
	}
}

// notJSON says what is wrong with a request's body before it is read, or nothing.
func notJSON(r *http.Request) string {
	if kind, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" ||
		parameters["charset"] != "" && !strings.EqualFold(parameters["charset"], "utf-8") {
		return "the body is to be application/json, in UTF-8"
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return "the body is to be sent as it is, without Content-Encoding"
	}
	return ""
}

// bounded returns a context for a request that ends when it, or the time that it sets, does.
func (s *Server) bounded(r *http.Request) (context.Context, context.CancelFunc, error) {
	limit := s.config.TimeMax
	if header := r.Header.Values(deadlineName); header != nil {
		ms, err := strconv.ParseUint(strings.Join(header, ","), 10, 31) // two are none
		if err != nil || ms == 0 {
			return r.Context(), func() {}, fmt.Errorf("%s: want a whole number of milliseconds from 1: %w", deadlineName, ps.ErrInvalid)
		}
		limit = min(limit, time.Duration(ms)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	return ctx, cancel, nil
}

// arriveBy bounds the time that a request's body has; the zero time is no bound.
func arriveBy(w http.ResponseWriter, until time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(until) // where it cannot be set, there is no connection to wait for
}

// roomMax is how much room a body is given because its length says so, before any of it is
// there.
const roomMax = 256 << 10

// read reads a request's body.
func (s *Server) read(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if until, ok := ctx.Deadline(); ok {
		arriveBy(w, until)
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), roomMax)) + bytes.MinRead)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, int64(s.config.BytesMax)))
	if err == nil {
		arriveBy(w, time.Time{}) // what is read from now on is whether the client has hung up
		return body.Bytes(), nil
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fmt.Errorf("the body has more than %d bytes, send less at a time: %w", tooLarge.Limit, ps.ErrTooLarge)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("the body has not arrived: %w", context.DeadlineExceeded)
	}
	return nil, fmt.Errorf("the body ends before its length: %w", ps.ErrInvalid)
}

// retryAfter is when to ask again, in seconds, whom this pod has refused.
const retryAfter = "1"

// refuseAs says over HTTP what a status says.
func refuseAs(w http.ResponseWriter, err error) {
	r := refusalOf(err)
	refuse(w, r.http(), r.reason, r.detail)
}

// refuse says why a request was not answered.
func refuse(w http.ResponseWriter, code int, reason, detail string) {
	if code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", retryAfter)
	}
	title := http.StatusText(code)
	if code == statusGone {
		title = "Client Closed Request"
	}
	text, _ := document(&problem{Type: "about:blank", Title: title, Status: code, Detail: detail, Reason: reason}) // strings and a number
	write(w, "application/problem+json", code, text)
}

// reply answers with a document whose numbers are finite.
func reply(w http.ResponseWriter, what any) {
	text, _ := document(what)
	write(w, "application/json", http.StatusOK, text)
}

func write(w http.ResponseWriter, kind string, code int, text []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(code)
	_, _ = w.Write(text) // whoever has hung up does not read it
}
