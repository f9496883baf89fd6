package membership

import (
	"bytes"
	"log"
	"log/slog"
	"sync"
	"time"
)

// warnInterval is the least time between two warnings that are memberlist's: one
// process with a wrong key causes some with every packet it sends.
const warnInterval = 10 * time.Second

// lines takes what memberlist logs, line by line. What it warns of is a warning, but
// not more often than warnInterval; all else is there for who debugs.
type lines struct {
	logger *slog.Logger

	mu     sync.Mutex
	ended  bool      // the pool ends: what goes wrong from now on was to be expected
	warned time.Time // when it last warned
	unsaid int       // warnings since
}

// standard returns the lines as a logger of the standard library's.
func (l *lines) standard() *log.Logger { return log.New(l, "", 0) }

// Write takes one line such as "[WARN] memberlist: text\n".
func (l *lines) Write(line []byte) (int, error) {
	text := bytes.TrimSpace(line)
	level := slog.LevelDebug
	if rest, ok := bytes.CutPrefix(text, []byte("[")); ok {
		if kind, rest, ok := bytes.Cut(rest, []byte("] ")); ok {
			text = rest
			switch string(kind) {
			case "WARN", "ERR", "ERROR":
				level = slog.LevelWarn
			}
		}
	}
	unsaid := 0
	if level == slog.LevelWarn {
		level, unsaid = l.limit(time.Now())
	}
	text = bytes.TrimPrefix(text, []byte("memberlist: "))
	if level == slog.LevelDebug {
		l.logger.Debug("gossip: " + string(text))
	} else {
		l.logger.Warn("gossip: "+string(text), "warnings_unsaid", unsaid)
	}
	return len(line), nil
}

// limit returns the level of a warning at a time, and how many were not said before it.
func (l *lines) limit(now time.Time) (level slog.Level, unsaid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || !l.warned.IsZero() && now.Sub(l.warned) < warnInterval {
		l.unsaid++
		return slog.LevelDebug, 0
	}
	unsaid = l.unsaid
	l.warned, l.unsaid = now, 0
	return slog.LevelWarn, unsaid
}

// end makes what is still said a matter for who debugs.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
}
