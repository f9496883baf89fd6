package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-ml/freshet/worker/deadletter"
)

const (
	childEndMax = 10 * time.Second       // for a child to end after SIGTERM, before it is killed
	childPause  = 500 * time.Millisecond // before a child that could not reach others starts again
	// childLease is short, since children are killed: a worker's partitions wait for
	// it. It is long enough for a busy machine; a false alarm only costs a replay.
	childLease = 2 * time.Second
)

// child is a role in a process of its own, that can be killed and is then started
// again. It is safe for concurrent use.
type child struct {
	name string
	args []string
	log  string // the file that its stdout and stderr are appended to
	// address is where it serves, if it is a node.
	address string
	// again, if not nil, says when a child that was killed is started again; else that
	// is at once.
	again chan struct{}

	mu      sync.Mutex
	process *os.Process // guarded by mu; nil while there is none
	killed  bool        // guarded by mu; process was
}

// childError says that a child has ended though nobody wanted it to.
type childError struct{ text string }

func (e *childError) Error() string { return e.text }

// run keeps the child running until ctx ends. Then, or if the child ends by itself and
// to start it again cannot help, it is gone when run returns.
func (c *child) run(ctx context.Context) error {
	for {
		killed, err := c.live(ctx)
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return nil
		case killed && c.again != nil:
			select {
			case <-c.again:
			case <-ctx.Done():
				return nil
			}
		case killed:
		case errors.As(err, &exit) && exit.ExitCode() == exitUnavailable:
			select { // its lease ran out, or its port was taken: that passes
			case <-time.After(childPause):
			case <-ctx.Done():
				return nil
			}
		default:
			return &childError{fmt.Sprintf("%s has ended (%v): %s; its log is %s", c.name, cmp.Or(err, errors.New("by itself")), lastLine(c.log), c.log)}
		}
	}
}

// live is one life of the child, and reports whether it was killed.
func (c *child) live(ctx context.Context) (killed bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false, err
	}
	defer log.Close()
	command := exec.CommandContext(ctx, self, c.args...)
	command.Env = withoutSettings(os.Environ())
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = childAttributes()
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = childEndMax
	if err := command.Start(); err != nil {
		return false, err
	}
	c.mu.Lock()
	c.process, c.killed = command.Process, false
	c.mu.Unlock()
	err = command.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.process = nil
	return c.killed, err
}

// kill kills the child with SIGKILL and reports whether there was one to kill.
func (c *child) kill() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil || c.killed || c.process.Kill() != nil {
		return false
	}
	c.killed = true
	return true
}

// pid returns the process of the child, or 0 while there is none.
func (c *child) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.Pid
}

// restart starts a child again that was killed, and whose again is set.
func (c *child) restart(ctx context.Context) error {
	select {
	case c.again <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withoutSettings returns an environment without settings of Freshet: a child has its
// flags, and an address or a name would be everybody's.
func withoutSettings(environment []string) []string {
	var kept []string
	for _, entry := range environment {
		if !strings.HasPrefix(entry, "FRESHET_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// lastLine returns what a log ends with.
func lastLine(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	last := "it has said nothing"
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" {
			last = strings.TrimPrefix(line, "freshet: ")
		}
	}
	return last
}

// childHome is what all children of one process share.
type childHome struct {
	endpoints []string // of etcd
	file      func(name string) string
	profiles  string // directory for processor profiles; empty for none
}

func (h childHome) child(role, name string, flags ...string) *child {
	args := append([]string{
		role, "--name", name, "--etcd", strings.Join(h.endpoints, ","), "--cluster", "default", "--lease-ttl", childLease.String(),
	}, flags...)
	if h.profiles != "" {
		args = append(args, "--cpuprofile", filepath.Join(h.profiles, name+".pprof"))
	}
	return &child{name: name, args: args, log: h.file(name + ".log")}
}

// node returns the child that is a node. All its lives have one address: so a new life
// tells the cluster that the one before is over.
func (h childHome) node(ctx context.Context, name string) (*child, error) {
	free, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer free.Close()
	node := h.child("ps", name, "--listen", free.Addr().String())
	node.address = free.Addr().String()
	return node, nil
}

// worker returns the child that is a worker.
func (h childHome) worker(name, model, url, secretFile string, inFlight int, rate float64, cache string) *child {
	return h.child("worker", name, "--model", model, "--stream", url, "--secret-file", secretFile,
		"--in-flight", fmt.Sprint(inFlight), "--rate", fmt.Sprint(rate), "--cache", cache, "--dead-letters", h.letters(name))
}

// letters returns the file of a worker's dead letters.
func (h childHome) letters(worker string) string { return h.file(worker + ".jsonl") }

// gatherLetters adds the dead letters of up's workers to a list; what several have
// found is listed once.
func (h childHome) gatherLetters(to *deadletter.List, workers int) error {
	for i := range workers {
		from, err := deadletter.Open(deadletter.Config{Path: h.letters(workerName(i)), Keep: 1 << 16})
		if err != nil {
			return err
		}
		for _, letter := range from.Letters() {
			if _, err := to.Add(letter); err != nil {
				return errors.Join(err, from.Close())
			}
		}
		if err := from.Close(); err != nil {
			return err
		}
	}
	return nil
}
