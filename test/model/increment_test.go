package model_test

import (
	"fmt"
	"testing"
)

const (
	chainEvents = 3
	chainFiles  = 5 // at most; names are never used again
)

// chainFile is a checkpoint file of one shard: all rows, or those that have changed
// since its parent. Files are named by their number, from 1; 0 is none.
type chainFile struct {
	There, Full  bool
	Parent       uint8
	Has          [copyRows]bool
	Rows         learned
	Applied, Seq uint8
}

type chainState struct {
	Applied, Seq uint8
	Rows         learned
	Changed      [copyRows]uint8 // seq of the row's last change
	Dirty        [copyRows]bool  // changed since it was last written anywhere
	Files        [chainFiles]chainFile
	Written      uint8 // files so far; the last one's name
	LastWritten  uint8 // by this process
	// Tip and Retained are named by the last manifest and the one before.
	Tip, Retained uint8
	Pending       uint8 // written, and no manifest names it yet
	// Budgets.
	Crashes, Failures uint8
}

// chainRules are the rules of incremental files.
type chainRules struct {
	parent  func(committed, lastWritten uint8) uint8
	collect func(file, tip uint8, reached bool) bool
	// clears: a row is in an increment if it has changed since any file was written,
	// rather than since the parent.
	clears bool
	// restarts: seq begins at 0 in a restored shard, rather than at its file's.
	restarts bool
	// latestOnly: collection looks at the last manifest only.
	latestOnly bool

	files uint8
}

func safeChain() chainRules { return chainRules{parent: parentOf, collect: mayCollect, files: 4} }

// chaining is the machine of one shard's checkpoint files: written in full or over a
// parent, uploaded or torn, committed or given up, collected, and loaded after a crash.
func (r chainRules) chaining() machine[chainState] {
	return machine[chainState]{
		start: chainState{Crashes: 1, Failures: 2},
		steps: func(s chainState, emit emit[chainState]) {
			if s.Applied < chainEvents {
				emit(s.apply(), "event %d is applied", s.Applied)
			}
			if s.Pending == 0 && s.Written < r.files {
				r.writeSteps(s, emit)
			}
			if s.Pending != 0 {
				pendingSteps(s, emit)
			}
			if n := r.collected(s); n != s {
				emit(n, "files that may be collected are removed")
			}
			if s.Crashes > 0 {
				r.crashStep(s, emit)
			}
		},
		wrong: func(_, s chainState) string {
			for _, tip := range []uint8{s.Tip, s.Retained} {
				if applied, rows, err := s.load(tip); err != nil {
					return err.Error()
				} else if rows != at(applied) {
					return fmt.Sprintf("invariant 11: file %d restores applied %d, learned from %08b", tip, applied, rows)
				}
			}
			return ""
		},
	}
}

func (s chainState) apply() chainState {
	s.Seq++
	s.Rows.learn(s.Applied)
	for row := range s.Rows {
		if changes[s.Applied][row] {
			s.Changed[row], s.Dirty[row] = s.Seq, true
		}
	}
	s.Applied++
	return s
}

func (r chainRules) writeSteps(s chainState, emit emit[chainState]) {
	write := func(f chainFile, since uint8) chainState {
		n := s
		f.There, f.Applied, f.Seq = true, s.Applied, s.Seq
		for row := range s.Rows {
			changed := s.Changed[row] > since
			if r.clears {
				changed = s.Dirty[row]
			}
			if f.Full || changed {
				f.Has[row], f.Rows[row] = true, s.Rows[row]
			}
		}
		n.Files[s.Written] = f
		n.Written++
		n.Pending, n.LastWritten = n.Written, n.Written
		n.Dirty = [copyRows]bool{}
		return n
	}
	emit(write(chainFile{Full: true}, 0), "file %d is written in full at applied %d", s.Written+1, s.Applied)
	if parent := r.parent(s.Tip, s.LastWritten); parent != 0 {
		n := write(chainFile{Parent: parent}, s.Files[parent-1].Seq)
		emit(n, "file %d is written over file %d at applied %d with the rows %v", n.Written, parent, s.Applied, n.Files[s.Written].Has)
	}
}

// pendingSteps decide about a file that no manifest names yet.
func pendingSteps(s chainState, emit emit[chainState]) {
	n := s
	n.Retained, n.Tip, n.Pending = s.Tip, s.Pending, 0
	emit(n, "a manifest with file %d is committed", s.Pending)
	if s.Failures > 0 {
		n := s
		n.Failures--
		n.Pending = 0
		emit(n, "the epoch with file %d is given up", s.Pending)
		n.Files[s.Pending-1] = chainFile{}
		emit(n, "file %d does not arrive, and its epoch is given up", s.Pending)
	}
}

// collected returns s without the files that may be removed.
func (r chainRules) collected(s chainState) chainState {
	var reached [chainFiles + 1]bool
	for _, tip := range []uint8{s.Tip, s.Retained} {
		if r.latestOnly && tip != s.Tip {
			continue
		}
		for tip != 0 && !reached[tip] {
			reached[tip] = true
			tip = s.Files[tip-1].Parent
		}
	}
	for i := range s.Files {
		if name := uint8(i + 1); r.collect(name, s.Tip, reached[name]) {
			s.Files[i] = chainFile{}
		}
	}
	return s
}

func (r chainRules) crashStep(s chainState, emit emit[chainState]) {
	applied, rows, err := s.load(s.Tip)
	if err != nil {
		return
	}
	n := s
	n.Crashes--
	n.Applied, n.Rows, n.Seq = applied, rows, 0
	n.Changed, n.Dirty = [copyRows]uint8{}, [copyRows]bool{}
	n.Pending, n.LastWritten = 0, s.Tip
	if s.Tip != 0 && !r.restarts {
		n.Seq = s.Files[s.Tip-1].Seq // and no row has changed since
	}
	emit(n, "the process is lost; the shard is restored from file %d at applied %d", s.Tip, applied)
}

// load restores what a chain of files holds; without a file, the initial values.
func (s chainState) load(tip uint8) (applied uint8, rows learned, err error) {
	if tip == 0 {
		return 0, rows, nil
	}
	applied = s.Files[tip-1].Applied
	var got [copyRows]bool
	for name := tip; name != 0; {
		f := s.Files[name-1]
		if !f.There {
			return 0, rows, fmt.Errorf("invariant 10: file %d, which a retained manifest reaches, is not there", name)
		}
		for row := range rows {
			if f.Has[row] && !got[row] {
				rows[row], got[row] = f.Rows[row], true
			}
		}
		name = f.Parent
	}
	return applied, rows, nil
}

// TestChainsOfIncrementalFiles explores how checkpoints are written over each other
// (invariants 9, 10 and 11). What it protects: every retained manifest restores the
// pair of rows and applied that its shard had, whatever became of the files between.
func TestChainsOfIncrementalFiles(t *testing.T) {
	t.Run("over the committed tip, collected behind it", func(t *testing.T) {
		r := safeChain()
		if !testing.Short() {
			r.files = chainFiles
		}
		holds(t, r.chaining())
	})
	// An epoch that is given up leaves a file that may be torn or may not be there.
	t.Run("over the last file written", func(t *testing.T) {
		r := safeChain()
		r.parent = func(_, lastWritten uint8) uint8 { return lastWritten }
		breaks(t, r.chaining(), "invariant 1")
	})
	// That file has rows which no later one would have.
	t.Run("with what has changed since the last file written", func(t *testing.T) {
		r := safeChain()
		r.clears = true
		breaks(t, r.chaining(), "invariant 11")
	})
	// "Above the parent's seq" compares numbers of one count.
	t.Run("with a seq that begins anew in a restored shard", func(t *testing.T) {
		r := safeChain()
		r.restarts = true
		breaks(t, r.chaining(), "invariant 11")
	})
	// The file of an attempt that still runs is named by no manifest yet.
	t.Run("collected before its manifest is committed", func(t *testing.T) {
		r := safeChain()
		r.collect = func(_, _ uint8, reached bool) bool { return !reached }
		breaks(t, r.chaining(), "invariant 10")
	})
	t.Run("collected although an older manifest that is kept reaches it", func(t *testing.T) {
		r := safeChain()
		r.latestOnly = true
		breaks(t, r.chaining(), "invariant 10")
	})
}
