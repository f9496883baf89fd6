//go:build unix

package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary builds cmd/freshet once, static as it is shipped, and returns its path.
var binary = sync.OnceValues(func() (path string, err error) {
	dir, err := os.MkdirTemp("", "freshet-test-*")
	if err != nil {
		return "", err
	}
	builtIn = dir
	path = filepath.Join(dir, "freshet")
	// -trimpath shares what `make build` has compiled.
	build := exec.Command("go", "build", "-trimpath", "-o", path, "./cmd/freshet")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, out)
	}
	return path, nil
})

// builtIn is the directory that binary made, if it did.
var builtIn string

func TestMain(m *testing.M) {
	m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
}

const (
	awaitMax = 20 * time.Second // for a process to say something; it takes well below one
	endMax   = 5 * time.Second  // for a process to end after SIGTERM; calls get one second
)

// host runs processes for one test, shows their logs if it fails, and ends with
// it those that still run: each must end cleanly on SIGTERM.
type host struct {
	t         *testing.T
	path      string // of the binary
	mu        sync.Mutex
	processes []*process // guarded by mu
}

func newHost(t *testing.T) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: -short, and this starts processes")
	}
	start := time.Now()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Logf("built the binary in %.1f s", took.Seconds())
	}
	h := &host{t: t, path: path}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, p := range h.processes {
			t.Logf("log of %s (process %d):\n%s", p.name, p.command.Process.Pid, p.log)
		}
	})
	return h
}

// command returns a command line of the binary. The settings of whoever runs the
// test are kept from it.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, h.path, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FRESHET_") {
			command.Env = append(command.Env, v)
		}
	}
	return command
}

// run executes a command to its end.
func (h *host) run(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	command := h.command(ctx, args...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := command.Run(); err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("freshet %s: %v", strings.Join(args, " "), err)
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

// process is a running role.
type process struct {
	t       *testing.T
	name    string
	command *exec.Cmd
	log     *processLog
	ended   chan struct{} // closed once it has
}

// start starts a role that has to end cleanly when the test does. The name is for
// messages.
func (h *host) start(name string, args ...string) *process {
	h.t.Helper()
	p := h.launch(name, args...)
	h.t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			p.terminate()
		}
	})
	return p
}

// launch starts a role that its caller ends.
func (h *host) launch(name string, args ...string) *process {
	h.t.Helper()
	p := &process{
		t: h.t, name: name, command: h.command(context.Background(), args...),
		log: &processLog{grown: make(chan struct{})}, ended: make(chan struct{}),
	}
	p.command.Stdout, p.command.Stderr = p.log, p.log
	if err := p.command.Start(); err != nil {
		h.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.ended)
		p.command.Wait() // what it returns is in ProcessState
	}()
	h.mu.Lock()
	h.processes = append(h.processes, p)
	h.mu.Unlock()
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Errorf("send %v to %s: %v", s, p.name, err)
	}
}

// kill is the fault: the process gets no chance to do anything.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// exitCode waits for the process to end by itself.
func (p *process) exitCode(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(within):
		p.t.Errorf("%s still runs after %v", p.name, within)
		p.kill()
	}
	return p.command.ProcessState.ExitCode()
}

// terminate asks the process to end, which it must do cleanly and soon.
func (p *process) terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exitCode(endMax); code != 0 {
		p.t.Errorf("%s ended on SIGTERM with %v, want exit code 0", p.name, p.command.ProcessState)
	}
}

// await waits until the process has logged a line that matches, and returns the
// match and its groups.
func (p *process) await(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(awaitMax)
	for {
		text, grown := p.log.read()
		if match := re.FindStringSubmatch(text); match != nil {
			return match
		}
		select {
		case <-grown:
		case <-p.ended:
			if match := re.FindStringSubmatch(p.log.String()); match != nil {
				return match
			}
			p.t.Fatalf("%s ended (%v) without a line that matches %q", p.name, p.command.ProcessState, pattern)
		case <-deadline:
			p.t.Fatalf("%s has logged nothing that matches %q for %v", p.name, pattern, awaitMax)
		}
	}
}

// processLog holds what a process has written.
type processLog struct {
	mu    sync.Mutex
	text  []byte        // guarded by mu
	grown chan struct{} // guarded by mu; closed and replaced by every write
}

func (l *processLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	close(l.grown)
	l.grown = make(chan struct{})
	return len(b), nil
}

// read returns the text, and what is closed when there is more.
func (l *processLog) read() (text string, grown <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text), l.grown
}

func (l *processLog) String() string {
	text, _ := l.read()
	return text
}
