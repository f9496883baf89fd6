package predict_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
)

// memory holds a model's rows in memory. A row that was not put is normal, by a hash of
// its table and key. It is safe for concurrent use.
type memory struct {
	layout ps.Layout
	scale  []float32 // by table: the standard deviation of rows that were not put
	// forget makes rows that were not put anew for each pull, the same ones.
	forget bool

	mu    sync.RWMutex
	rows  []map[ps.Key][]float32 // by table
	pulls int
	spent time.Duration // in Pull
	err   error         // of Pull
}

func newMemory(layout ps.Layout) *memory {
	m := &memory{layout: layout}
	for _, table := range layout.Tables {
		m.rows = append(m.rows, make(map[ps.Key][]float32))
		scale := table.Initializer.Scale
		if table.Width == 1 || table.Name == spec.BiasesTable {
			scale = 0.3
		}
		if table.Name == spec.FactorsTable {
			scale = 0.2
		}
		m.scale = append(m.scale, float32(scale))
	}
	return m
}

// row returns a row; it is made if it is not there.
func (m *memory) row(table ps.TableID, key ps.Key) []float32 {
	m.mu.RLock()
	row := m.rows[table][key]
	m.mu.RUnlock()
	if row != nil {
		return row
	}
	normal := rand.New(rand.NewPCG(uint64(key), uint64(table)))
	row = make([]float32, m.layout.Tables[table].Width)
	for i := range row {
		row[i] = m.scale[table] * float32(normal.NormFloat64())
	}
	if !m.forget {
		m.put(table, key, row)
	}
	return row
}

// put keeps the row.
func (m *memory) put(table ps.TableID, key ps.Key, row []float32) {
	m.mu.Lock()
	m.rows[table][key] = row
	m.mu.Unlock()
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
}

func (m *memory) Pull(ctx context.Context, _ string, layout uint64, reads []ps.Read) error {
	if layout != m.layout.Hash() {
		return ps.ErrModelMismatch
	}
	began := time.Now()
	for i := range reads {
		r := &reads[i]
		if n := len(r.Group.Keys) * r.RowBytes; cap(r.Values) < n {
			r.Values = make([]byte, n, n+n/4)
		} else {
			r.Values = r.Values[:n]
		}
		to := ps.View[float32](r.Values)
		for _, key := range r.Group.Keys {
			to = to[copy(to, m.row(r.Table, key)):]
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pulls++
	m.spent += time.Since(began)
	if m.err != nil {
		return m.err
	}
	return ctx.Err()
}

func (m *memory) Fresh() predict.Fresh {
	return predict.Fresh{Parameters: "live", Applied: []ps.Offset{712}, EventTime: 1_700_000_000_000, Age: time.Second}
}

func parsed(t testing.TB, doc string) *spec.Spec {
	t.Helper()
	s, err := spec.Parse("test.yaml", []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scorer returns a scorer with rows in memory. more may change its configuration.
func scorer(t testing.TB, s *spec.Spec, more func(*predict.ScorerConfig)) (*predict.Scorer, *memory) {
	t.Helper()
	scorer, rows, err := tryScorer(s, more)
	if err != nil {
		t.Fatal(err)
	}
	return scorer, rows
}

func tryScorer(s *spec.Spec, more func(*predict.ScorerConfig)) (*predict.Scorer, *memory, error) {
	layout := s.Layout(eval.Tables())
	rows := newMemory(layout)
	c := predict.ScorerConfig{Model: ps.Model{Name: s.Model, Version: 3, Layout: layout}, Spec: s, Shards: shards, Parameters: rows}
	if more != nil {
		more(&c)
	}
	scorer, err := predict.NewScorer(c)
	return scorer, rows, err
}

// column is a column of the same name as in the spec.
func column(name string, values ...string) predict.Column {
	return predict.Column{Name: name, Values: values}
}
