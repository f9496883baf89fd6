package sink_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/sink"
)

// model has a table of sums, which is not written, and one of weights with state.
var model = ps.Model{Name: "m", Version: 1, Stream: "s", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{
	{Name: "sums", Kind: ps.Float64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Sum}},
	{Name: "weights", Kind: ps.Float32, Width: 2, Optimizer: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 1, InitialAccumulator: 1}},
}}}

const (
	weights = ps.TableID(1)
	stride  = 16 + 2*4 + 2*4 // key, seq, weights, state
)

// row encodes a row whose two weights are the value.
func row(key ps.Key, value uint32) []byte {
	b := make([]byte, stride)
	binary.LittleEndian.PutUint64(b, uint64(key))
	binary.LittleEndian.PutUint32(b[16:], value)
	binary.LittleEndian.PutUint32(b[20:], value)
	return b
}

// rows are the values of keys.
type rows map[ps.Key]uint32

// part returns a delta in one part.
func part(shard ps.ShardID, fence ps.Fence, since, seq uint64, changed rows) *ps.Delta {
	sums := ps.Block{Table: 0, Stride: 24, Rows: make([]byte, 24)}
	block := ps.Block{Table: weights, Stride: stride}
	for key, value := range changed {
		block.Rows = append(block.Rows, row(key, value)...)
	}
	return &ps.Delta{
		Since:         since,
		ShardProgress: ps.ShardProgress{Shard: shard, Fence: fence, Seq: seq, Partitions: []ps.Progress{{Applied: ps.Offset(seq)}}},
		Blocks:        []ps.Block{sums, block},
	}
}

// inParts cuts a delta into parts of one row each, and one at the end without.
func inParts(shard ps.ShardID, fence ps.Fence, since, seq uint64, changed rows) []*ps.Delta {
	var parts []*ps.Delta
	for key, value := range changed {
		parts = append(parts, part(shard, fence, since, seq, rows{key: value}))
	}
	parts = append(parts, part(shard, fence, since, seq, nil))
	for i, p := range parts {
		p.Part, p.More = i, i < len(parts)-1
	}
	return parts
}

// source is followed as a test says.
type source func(ctx context.Context, take func(*ps.Delta) error) error

func (s source) Follow(ctx context.Context, take func(*ps.Delta) error) error { return s(ctx, take) }

// tells is a source that brings deltas and then nothing; an error of take fails the test.
func tells(t *testing.T, deltas ...*ps.Delta) source {
	return func(ctx context.Context, take func(*ps.Delta) error) error {
		for _, d := range deltas {
			if err := take(d); err != nil && ctx.Err() == nil {
				t.Errorf("take of seq %d to %d, part %d: %v", d.Since, d.Seq, d.Part, err)
			}
		}
		<-ctx.Done()
		return nil
	}
}

// memory is a target.
type memory struct {
	mu        sync.Mutex
	rows      rows                         // guarded by mu
	positions map[ps.ShardID]sink.Position // guarded by mu
	written   int                          // guarded by mu; rows
	// fails, if not nil, says what the next Write fails with, when half of its rows are
	// there.
	fails func() error
}

func newMemory() *memory {
	return &memory{rows: rows{}, positions: map[ps.ShardID]sink.Position{}}
}

func (m *memory) Positions(context.Context) (map[ps.ShardID]sink.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.positions), nil
}

func (m *memory) Write(_ context.Context, b *sink.Batch) error {
	var failed error
	if m.fails != nil {
		failed = m.fails()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, half := 0, b.Len()/2
	for r := range b.Rows {
		if n++; failed != nil && n > half {
			return failed
		}
		value := binary.LittleEndian.Uint32(r.Weights)
		if r.Table != weights || len(r.Weights) != 8 || value != binary.LittleEndian.Uint32(r.Weights[4:]) {
			return fmt.Errorf("row %v of table %d: %x", r.Key, r.Table, r.Weights)
		}
		m.rows[r.Key] = value
		m.written++
	}
	if failed == nil {
		maps.Copy(m.positions, b.Positions)
	}
	return failed
}

func (m *memory) seq(shard ps.ShardID) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.positions[shard].Seq
}

func (m *memory) has(want rows) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Equal(m.rows, want)
}

func newSink(t *testing.T, from sink.Source, to sink.Target, change func(*sink.Config)) *sink.Sink {
	t.Helper()
	c := sink.Config{
		Source: from, Target: to, Model: model, Tables: []ps.TableID{weights}, Shards: 2,
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	s, err := sink.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func once(c *sink.Config) { c.Once = true }

// start runs a sink until stop is called.
func start(t *testing.T, s *sink.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the sink ended with %v", err)
		}
	}
}
