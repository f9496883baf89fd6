package feature

import (
	"errors"
	"fmt"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

var (
	errLabelMissing = errors.New("no label")
	errLabelBinary  = errors.New("the label is not 1, 0 or -1")
	errImportance   = errors.New("the importance is not a finite decimal number of at least 0")
)

// labels reads what events are learned from for: their label, importance and role.
type labels struct {
	column, importance int // positions; importance is -1 if there is none
	name               string
	binary             bool
	seed               uint64
	holdout            float64
}

func newLabels(s *spec.Spec, columns []string) (*labels, error) {
	l := &labels{
		name: s.Label.Column, importance: -1, binary: s.Loss == spec.Log,
		seed: ps.Mix(s.Seed), holdout: s.Evaluation.Holdout,
	}
	var err error
	if s.Stream.Format == spec.VW {
		l.name = LabelColumn
		if l.importance, err = position(columns, ImportanceColumn); err != nil {
			return nil, fmt.Errorf("importance: %w", err)
		}
	}
	if l.column, err = position(columns, l.name); err != nil {
		return nil, fmt.Errorf("label: %w", err)
	}
	return l, nil
}

// of returns what e is learned from for; if it cannot, it says at what and why.
func (l *labels) of(e *worker.Event) (role worker.Role, label, weight float32, at string, err error) {
	if label, err = l.label(e.Columns[l.column]); err != nil {
		return 0, 0, 0, fmt.Sprintf("column %q", l.name), err
	}
	weight = 1
	if l.importance >= 0 && len(e.Columns[l.importance]) > 0 {
		v, err := number(e.Columns[l.importance], 32)
		if err != nil || v < 0 {
			return 0, 0, 0, fmt.Sprintf("column %q", ImportanceColumn), errImportance
		}
		weight = float32(v)
	}
	if l.held(e) {
		return worker.Hold, label, weight, "", nil
	}
	return worker.Train, label, weight, "", nil
}

func (l *labels) label(text []byte) (float32, error) {
	if len(text) == 0 {
		return 0, errLabelMissing
	}
	v, err := number(text, 32)
	switch {
	case err != nil:
		return 0, err
	case !l.binary:
		return float32(v), nil
	case v == 1:
		return 1, nil
	case v == 0 || v == -1:
		return 0, nil
	}
	return 0, errLabelBinary
}

// held reports whether e is held out: by its row, so that it is so in every pass,
// and by nothing that changes when the stream is read again.
func (l *labels) held(e *worker.Event) bool {
	if l.holdout == 0 {
		return false
	}
	h := ps.Mix(ps.Mix(l.seed^uint64(e.Partition)) ^ uint64(e.Row))
	return float64(h>>11) < l.holdout*(1<<53)
}
