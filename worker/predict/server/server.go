// Package server puts predictions on gRPC and on HTTP with JSON. It turns messages and
// documents into words and errors into statuses, and decides only whether a request is
// begun at all: what is answered is up to predict.Predictions.
//
// The one idea to keep in mind: both transports turn a request into the same words and go
// through Server.answer, where a request is bounded, timed and counted and where a panic
// ends. So they cannot differ in more than how things are written.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/predict"
)

// Model is one of the models that a pod serves.
type Model struct {
	Name        string
	Predictions predict.Predictions
	// Served says what an answer to a request that comes now would be computed from. Its
	// error, which wraps ps.ErrUnavailable, says what there is to wait for. Whoever asks
	// how the pod is calls it, at any time and several at once; it does not block.
	Served func() (predict.Served, error)
}

// Config is what a Server needs.
type Config struct {
	// Models returns the models that are served at the moment, by ascending name. Every
	// request calls it, several at once; it does not block, and what it has returned does
	// not change any more.
	Models func() []Model
	// Status turns an error that wraps a sentinel of package ps, or a context's, into a gRPC
	// status with the reason that the protocol has for it, and leaves a status as it is: it
	// is ps/wire's ToStatus.
	Status func(error) error
	// UnderWayMax is how many requests may be under way at once, whether they compute or
	// wait for rows or for their turn. One more is refused with ps.ErrUnavailable before
	// anything is done for it. Default: 64 for each processor. At a millisecond of a
	// processor each, the last of them then waits some 64 ms.
	UnderWayMax int
	// BytesMax bounds a request as it is sent. Default: 8 MiB, which is ten thousand
	// candidates with a hundred columns of their own.
	BytesMax int
	// TimeMax bounds a request that sets no deadline, or a later one. Default: 10 s.
	TimeMax time.Duration
	// Metrics is where figures of the requests are registered. Default: nowhere.
	Metrics prometheus.Registerer
	// Logger is told of panics. Default: discarded.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Models == nil || c.Status == nil {
		return fmt.Errorf("server of predictions without models or statuses: %w", ps.ErrInvalid)
	}
	if c.UnderWayMax < 0 || c.BytesMax < 0 || c.TimeMax < 0 {
		return fmt.Errorf("server of predictions with at most %d requests under way, of %d bytes, within %v: want none negative: %w",
			c.UnderWayMax, c.BytesMax, c.TimeMax, ps.ErrInvalid)
	}
	if c.UnderWayMax == 0 {
		c.UnderWayMax = 64 * runtime.GOMAXPROCS(0)
	}
	if c.BytesMax == 0 {
		c.BytesMax = 8 << 20
	}
	if c.TimeMax == 0 {
		c.TimeMax = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Server answers requests for predictions. It is safe for concurrent use, and has no
// goroutine of its own.
type Server struct {
	config   Config
	figures  figures
	underWay atomic.Int64
	draining atomic.Bool
}

// New returns a Server that answers once it is registered on a gRPC server, or its Handler
// is served, or both. The error wraps ps.ErrInvalid if the configuration cannot be meant.
func New(c Config) (*Server, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &Server{config: c}
	var err error
	s.figures, err = newFigures(c.Metrics, &s.underWay)
	return s, err
}

// Drain makes the pod say from now on that it is not ready, so that whoever shares out
// requests sends no more of them. Those that come are answered like any other.
func (s *Server) Drain() { s.draining.Store(true) }

// ready returns nil if every model can be asked, and otherwise what there is to wait for.
func (s *Server) ready() error {
	if s.draining.Load() {
		return fmt.Errorf("this pod is about to end: %w", ps.ErrUnavailable)
	}
	models := s.config.Models()
	if len(models) == 0 {
		return fmt.Errorf("no model is served yet: %w", ps.ErrUnavailable)
	}
	for i := range models {
		if _, err := models[i].Served(); err != nil {
			return fmt.Errorf("model %q: %w", models[i].Name, err)
		}
	}
	return nil
}

// model returns the model of a name, or the only one if the name is empty.
func (s *Server) model(name string) (predict.Predictions, error) {
	models := s.config.Models()
	for i := range models {
		if models[i].Name == name || name == "" && len(models) == 1 {
			return models[i].Predictions, nil
		}
	}
	switch {
	case len(models) == 0:
		return nil, fmt.Errorf("no model is served yet: %w", ps.ErrUnavailable)
	case name == "":
		return nil, fmt.Errorf("several models are served: name one of %s: %w", names(models), ps.ErrInvalid)
	}
	return nil, fmt.Errorf("model %.100q is not served here, only %s: %w", name, names(models), ps.ErrUnknownModel)
}

// names lists models for a message.
func names(models []Model) string {
	var names []string
	for i := range models {
		names = append(names, models[i].Name)
	}
	return strings.Join(names, ", ")
}

// answer does what a request of a method asks for, within bounds. The error is a status.
func (s *Server) answer(ctx context.Context, method string, do func(context.Context) error) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.config.TimeMax)
	defer cancel()
	err := s.config.Status(s.admit(ctx, method, do))
	s.figures.answered(method, refusalOf(err).reason, time.Since(began))
	return err
}

// errPanicked is all that the other side is told of a panic.
var errPanicked = errors.New("a fault in the pod's code, which its log has")

// admit does what a request asks for unless it is too late or too much is under way.
func (s *Server) admit(ctx context.Context, method string, do func(context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not begun: %w", err)
	}
	defer s.underWay.Add(-1)
	if n := s.underWay.Add(1); n > int64(s.config.UnderWayMax) {
		return fmt.Errorf("%d requests are under way in this pod, which is all that it takes: ask again later, or another: %w",
			s.config.UnderWayMax, ps.ErrUnavailable)
	}
	defer func() {
		if fault := recover(); fault != nil {
			s.figures.panics.Inc()
			s.config.Logger.Error("a request has panicked; the others go on", "method", method, "panic", fault, "stack", string(debug.Stack()))
			err = errPanicked
		}
	}()
	return do(ctx)
}

// method is one of those of predict.Predictions: a question Q has an answer A.
type method[Q, A any] struct {
	name string
	ask  func(p predict.Predictions, ctx context.Context, question Q) (A, predict.Served, error)
	// candidates is how many events or items a question is about, to be counted.
	candidates func(question *Q) int
}

var (
	predicting = method[[]predict.Column, []predict.Prediction]{
		"predict", predict.Predictions.Predict, func(columns *[]predict.Column) int { return events(*columns) },
	}
	ranking = method[predict.Rank, predict.Ranking]{
		"rank", predict.Predictions.Rank, func(r *predict.Rank) int { return events(r.Candidates) },
	}
	retrieving = method[predict.Retrieve, []predict.Retrieved]{
		"retrieve", predict.Predictions.Retrieve, func(r *predict.Retrieve) int { return r.Top },
	}
	explaining = method[[]predict.Column, predict.Explanation]{
		"explain", predict.Predictions.Explain, func(*[]predict.Column) int { return 1 },
	}
)

// events returns how many events columns are of, if their lengths fit.
func events(columns []predict.Column) int {
	n := 0
	for i := range columns {
		n = max(n, len(columns[i].Values))
	}
	return n
}

// ask answers a request that read turns into words, for write to turn the answer back. The
// error is a status.
func ask[Q, A any](
	ctx context.Context, s *Server, m *method[Q, A],
	read func() (model string, question Q, err error), write func(A, predict.Served) error,
) error {
	return s.answer(ctx, m.name, func(ctx context.Context) error {
		name, question, err := read()
		if err != nil {
			return err
		}
		model, err := s.model(name)
		if err != nil {
			return err
		}
		s.figures.asked(m.name, m.candidates(&question))
		answer, served, err := m.ask(model, ctx, question)
		if err != nil {
			return err
		}
		return write(answer, served)
	})
}
