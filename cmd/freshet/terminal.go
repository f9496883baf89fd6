package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// terminal is where a command's words go: one result to stdout, logs and progress
// to stderr. On a terminal, progress is one line that is redrawn in place and kept
// below the logs; elsewhere it is a line every plainEvery, so that what is quick
// prints none. It is safe for concurrent use.
type terminal struct {
	stdout io.Writer
	json   bool
	logger *slog.Logger
	level  slog.LevelVar

	mu      sync.Mutex
	stderr  io.Writer // guarded by mu
	redraws bool      // stderr is a terminal
	line    string    // guarded by mu; the progress line on the screen
	last    time.Time // guarded by mu; of the last plain line, or of the start
}

// plainEvery is the time between progress lines where they cannot be redrawn.
const plainEvery = 10 * time.Second

func newTerminal(stdout, stderr io.Writer) *terminal {
	t := &terminal{stdout: stdout, stderr: stderr, last: time.Now()}
	if f, ok := stderr.(*os.File); ok {
		t.redraws = term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	}
	t.level.Set(slog.LevelWarn)
	t.logger = slog.New(slog.NewTextHandler(logWriter{t}, &slog.HandlerOptions{Level: &t.level}))
	return t
}

// configure takes in the flags that all commands have.
func (t *terminal) configure(cmd *cobra.Command) error {
	output, err := cmd.Flags().GetString("output")
	if err != nil {
		return err
	}
	switch output {
	case "text":
	case "json":
		t.json = true
	default:
		return usageError{fmt.Errorf("--output %q: want text or json", output)}
	}
	level, err := cmd.Flags().GetString("log-level")
	if err != nil {
		return err
	}
	if level == "" {
		return nil
	}
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(level)); err != nil {
		return usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", level)}
	}
	t.level.Set(parsed)
	return nil
}

// talkative makes a role log what it does, unless --log-level says otherwise.
func (t *terminal) talkative(cmd *cobra.Command) {
	if !cmd.Flags().Changed("log-level") {
		t.level.Set(slog.LevelInfo)
	}
}

// result prints the command's result, in place of the progress line: doc under
// -o json, else what text writes.
func (t *terminal) result(doc any, text func(io.Writer)) error {
	t.dropLine()
	if !t.json {
		text(t.stdout)
		return nil
	}
	enc := json.NewEncoder(t.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(doc)
}

// live reports whether the result can be drawn again in place.
func (t *terminal) live() bool {
	f, ok := t.stdout.(*os.File)
	return ok && !t.json && t.redraws && term.IsTerminal(int(f.Fd()))
}

// redraw draws a page in place of the one before.
func (t *terminal) redraw(page string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f, ok := t.stdout.(*os.File); ok {
		if width, height, err := term.GetSize(int(f.Fd())); err == nil {
			page = crop(page, width, height)
		}
	}
	// Home, each line with its rest cleared, then all below: nothing flickers.
	fmt.Fprint(t.stdout, "\x1b[H"+strings.ReplaceAll(page, "\n", "\x1b[K\n")+"\x1b[J")
}

// crop returns what of a page fits a screen.
func crop(page string, width, height int) string {
	lines := strings.Split(strings.TrimSuffix(page, "\n"), "\n")
	lines = lines[:min(len(lines), max(height-1, 1))]
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:max(width, 1)])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// note prints a line for people, on stderr.
func (t *terminal) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLocked()
	fmt.Fprintf(t.stderr, format+"\n", args...)
	t.drawLocked()
}

// progress replaces the progress line.
func (t *terminal) progress(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if t.redraws {
		t.clearLocked()
		t.line = line
		t.drawLocked()
		return
	}
	if now := time.Now(); now.Sub(t.last) >= plainEvery {
		t.last = now
		fmt.Fprintln(t.stderr, line)
	}
}

// endLine leaves the progress line as it is and goes on below it.
func (t *terminal) endLine() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line != "" {
		fmt.Fprintln(t.stderr)
		t.line = ""
	}
}

// dropLine removes the progress line.
func (t *terminal) dropLine() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLocked()
	t.line = ""
}

func (t *terminal) clearLocked() {
	if t.line != "" {
		fmt.Fprint(t.stderr, "\r\x1b[K")
	}
}

func (t *terminal) drawLocked() {
	if t.line == "" {
		return
	}
	line := []rune(t.line)
	if f, ok := t.stderr.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && len(line) >= width && width > 1 {
			line = line[:width-1] // a wrapped line cannot be redrawn
		}
	}
	fmt.Fprint(t.stderr, string(line))
}

// logWriter writes whole log lines above the progress line.
type logWriter struct{ t *terminal }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.mu.Lock()
	defer w.t.mu.Unlock()
	w.t.clearLocked()
	n, err := w.t.stderr.Write(p)
	w.t.drawLocked()
	return n, err
}

// thousands returns n with separators: 1,234,567.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
