package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// kills is how many processes were killed.
type kills struct {
	Nodes   int `json:"nodes"`
	Workers int `json:"workers"`
}

func (k kills) String() string {
	return fmt.Sprintf("%s and %s killed", count(k.Nodes, "node"), count(k.Workers, "worker"))
}

// print writes for people what the kills prove.
func (k kills) print(w io.Writer) {
	if k == (kills{}) {
		fmt.Fprintln(w, "kills: NONE: the run was over before the first, and shows nothing;\n  give a lower --rate or a shorter --kill-every")
		return
	}
	fmt.Fprintf(w, "kills: %s with SIGKILL, and started again\n", k)
}

// killable is what a killer kills: a child.
type killable interface {
	// kill reports whether there was something to kill.
	kill() bool
}

// killer kills members in turn: two nodes, then a worker, and so on.
type killer struct {
	every   time.Duration
	nodes   []killable
	workers []killable
	begin   chan struct{} // closed by start

	mu    sync.Mutex
	begun bool  // guarded by mu
	ended bool  // guarded by mu
	count kills // guarded by mu
}

// start begins the time to the first kill. A second call does nothing.
func (k *killer) start() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.begun {
		k.begun = true
		close(k.begin)
	}
}

// stop ends the killing and reports whether it had not ended before.
func (k *killer) stop() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	ended := k.ended
	k.ended = true
	return !ended
}

// kills returns how many were killed so far.
func (k *killer) kills() kills {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

// run kills from start to stop, or until ctx ends.
func (k *killer) run(ctx context.Context) error {
	select {
	case <-k.begin:
	case <-ctx.Done():
		return nil
	}
	ticks := time.NewTicker(k.every)
	defer ticks.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
		if !k.kill(turn) {
			return nil
		}
	}
}

// kill kills whose turn it is, unless the killing has ended. A member that is not yet
// back from the time before is left alone.
func (k *killer) kill(turn int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return false
	}
	round, step := turn/3, turn%3
	if step == 2 {
		if k.workers[round%len(k.workers)].kill() {
			k.count.Workers++
		}
		return true
	}
	if k.nodes[(2*round+step)%len(k.nodes)].kill() {
		k.count.Nodes++
	}
	return true
}
