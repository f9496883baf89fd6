package train

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
)

// errCrashed says that working on some events panicked.
var errCrashed = errors.New("working on these events crashed")

// crashesMax is how often an event may crash the work on it before it is given up.
const crashesMax = 3

// crashes remembers, for the life of a trainer, the events on which the work crashed.
// A batch that did is cut into its events, so that the culprit shows.
type crashes struct {
	mu     sync.Mutex
	alone  map[ps.Partition]ps.Range // guarded by mu; the latest batch that crashed
	counts map[place]int             // guarded by mu; crashes of a batch of one event
}

type place struct {
	ps.Partition
	ps.Offset
}

// note remembers that the work on a batch crashed.
func (c *crashes) note(b *worker.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Len() == 1 {
		c.counts[place{b.Partition, b.From}]++
		return
	}
	c.alone[b.Partition] = b.Range
}

// isAlone reports whether an event is to be a batch by itself.
func (c *crashes) isAlone(p ps.Partition, o ps.Offset) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.alone[p]
	return ok && r.From <= o && o < r.To
}

// isDropped reports whether an event has crashed the work too often.
func (c *crashes) isDropped(p ps.Partition, o ps.Offset) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[place{p, o}] >= crashesMax
}

// guarded does work, and returns a panic in it as an error that wraps errCrashed and
// says where that was. What was panicked with is not told unless it is the runtime's:
// it may hold text of a row.
func guarded(work func() error) (err error) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		err = fmt.Errorf("%w at %s", errCrashed, culprit())
		if known, ok := cause.(runtime.Error); ok {
			err = fmt.Errorf("%w: %w", err, known)
		}
	}()
	return work()
}

// culprit returns the line that panicked; it is called while panicking.
func culprit() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])]) // not this function and its caller
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			return fmt.Sprintf("%s:%d", filepath.Base(frame.File), frame.Line)
		}
		if !more {
			return "an unknown place"
		}
	}
}
