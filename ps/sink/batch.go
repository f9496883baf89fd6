package sink

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// weightsAt is where the weights of a row begin in a block: behind its key and seq.
const weightsAt = 16

// Batch is rows to write, and how far that brings the shards. It is valid until Write
// returns.
type Batch struct {
	layout *ps.Layout
	blocks []ps.Block
	// Positions are to be stored once all rows are.
	Positions map[ps.ShardID]Position
}

// Row is a row to write. Its weights are little-endian float32 and must not be changed.
type Row struct {
	Table   ps.TableID
	Key     ps.Key
	Weights []byte
}

// Rows calls yield with the batch's rows in the order in which they are to be written.
func (b *Batch) Rows(yield func(Row) bool) {
	for _, block := range b.blocks {
		end := weightsAt + b.layout.Tables[block.Table].RowBytes()
		for row := range slices.Chunk(block.Rows, block.Stride) {
			if !yield(Row{block.Table, ps.Key(binary.LittleEndian.Uint64(row)), row[weightsAt:end]}) {
				return
			}
		}
	}
}

// Len returns the number of rows.
func (b *Batch) Len() int {
	n := 0
	for _, block := range b.blocks {
		n += len(block.Rows) / block.Stride
	}
	return n
}

// bytes returns the size of the rows' weights.
func (b *Batch) bytes() int {
	n := 0
	for _, block := range b.blocks {
		n += len(block.Rows) / block.Stride * b.layout.Tables[block.Table].RowBytes()
	}
	return n
}

// writer makes batches of what was queued. It belongs to one goroutine.
type writer struct {
	*Sink
	batch Batch
	size  int
	// fences are the highest that came, by shard: two owners' deltas are queued by two
	// goroutines.
	fences []ps.Fence
	events []time.Time // of deltas of the batch that brought newer events: their largest time
}

// write writes what is queued until there is no more, or with Once until all is written.
func (s *Sink) write(ctx context.Context, queue <-chan work) error {
	w := &writer{Sink: s, fences: make([]ps.Fence, len(s.shards))}
	w.reset()
	for first := range queue {
		w.add(first)
		for more := true; more && w.size < batchBytes; {
			select {
			case next, ok := <-queue:
				if more = ok; ok {
					w.add(next)
				}
			default:
				more = false
			}
		}
		if len(w.batch.blocks)+len(w.batch.Positions) == 0 {
			continue // it is known
		}
		if err := s.insist(ctx, func() error { return s.config.Target.Write(ctx, &w.batch) }); err != nil {
			return err
		}
		w.written()
		if s.config.Once && s.done() {
			return nil
		}
	}
	return nil
}

func (w *writer) reset() {
	w.batch = Batch{layout: &w.config.Model.Layout, blocks: w.batch.blocks[:0], Positions: make(map[ps.ShardID]Position)}
	w.size, w.events = 0, w.events[:0]
}

// add puts a delta into the batch.
func (w *writer) add(next work) {
	d := next.delta
	if d.Fence < w.fences[d.Shard] {
		return
	}
	w.fences[d.Shard] = d.Fence
	if !next.known {
		for _, b := range d.Blocks {
			if slices.Contains(w.config.Tables, b.Table) && len(b.Rows) > 0 {
				w.batch.blocks = append(w.batch.blocks, b)
				w.size += len(b.Rows)
			}
		}
	}
	if d.More {
		return
	}
	at := positionOf(d)
	before, ok := w.batch.Positions[d.Shard]
	if !ok {
		before = w.stored(d.Shard)
	}
	if d.Since > 0 && at.EventTime > before.EventTime {
		w.events = append(w.events, time.UnixMilli(at.EventTime))
	}
	w.batch.Positions[d.Shard] = at
}

// stored returns a shard's position in the target.
func (s *Sink) stored(id ps.ShardID) Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[id].stored
}

// written takes note that the batch is in the target, and begins another.
func (w *writer) written() {
	now := time.Now()
	rows, bytes := w.batch.Len(), w.batch.bytes()
	w.mu.Lock()
	for id, at := range w.batch.Positions {
		w.shards[id].stored, w.shards[id].written = at, true
	}
	w.figures.add(rows, bytes)
	for _, event := range w.events {
		w.figures.fresh(now.Sub(event))
	}
	w.mu.Unlock()
	w.metrics.rows.Add(float64(rows))
	w.metrics.bytes.Add(float64(bytes))
	for _, event := range w.events {
		w.metrics.freshness.Observe(now.Sub(event).Seconds())
	}
	w.reset()
}
