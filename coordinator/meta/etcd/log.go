package etcd

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// core hands what etcd logs to a slog.Logger. etcd tells much at "info" and warns of
// things nobody here can act on, so that everything below an error is debug; and
// what goes wrong while closing, or because a client has left, is a consequence of it.
type core struct {
	logger  *slog.Logger
	debug   bool // the logger takes debug entries
	closing *atomic.Bool
}

func newLogger(ctx context.Context, logger *slog.Logger, closing *atomic.Bool) *zap.Logger {
	return zap.New(&core{
		logger:  logger.With("from", "etcd"),
		debug:   logger.Enabled(ctx, slog.LevelDebug),
		closing: closing,
	})
}

// Enabled is asked before fields are made.
func (c *core) Enabled(l zapcore.Level) bool {
	return c.debug || c.serious(l)
}

func (c *core) serious(l zapcore.Level) bool {
	return l >= zapcore.ErrorLevel && !c.closing.Load()
}

// With returns a core that adds fields to every entry.
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{logger: c.logger.With(values(fields)...), debug: c.debug, closing: c.closing}
}

// Check adds the core to those that write the entry.
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write logs an entry.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if c.serious(e.Level) && !cancelled(fields) {
		c.logger.Error(e.Message, values(fields)...)
	} else {
		c.logger.Debug(e.Message, values(fields)...)
	}
	return nil
}

// cancelled reports whether an entry is of a request that its client gave up.
func cancelled(fields []zapcore.Field) bool {
	return slices.ContainsFunc(fields, func(f zapcore.Field) bool {
		err, ok := f.Interface.(error)
		return ok && errors.Is(err, context.Canceled)
	})
}

// Sync has nothing to do: a slog.Logger keeps nothing back.
func (c *core) Sync() error { return nil }

// values returns zap's fields as slog's arguments.
func values(fields []zapcore.Field) []any {
	m := zapcore.NewMapObjectEncoder()
	var args []any
	for _, f := range fields {
		f.AddTo(m)
		if v, ok := m.Fields[f.Key]; ok {
			args = append(args, slog.Any(f.Key, v))
		}
	}
	return args
}
