package sink

import (
	"testing"

	"github.com/freshet-ml/freshet/ps"
)

// Two owners' deltas are queued by two goroutines, so that one which was admitted first
// may come behind: an order that no test can bring about from outside.
func TestADeltaThatWasQueuedTooLateIsNotWritten(t *testing.T) {
	layout := ps.Layout{Tables: []ps.Table{{Name: "t", Kind: ps.Float32, Width: 1}}}
	s := &Sink{config: Config{Tables: []ps.TableID{0}, Model: ps.Model{Layout: layout}}, shards: make([]shard, 1)}
	w := &writer{Sink: s, fences: make([]ps.Fence, 1)}
	w.reset()
	for _, fence := range []ps.Fence{6, 5} {
		w.add(work{delta: &ps.Delta{
			ShardProgress: ps.ShardProgress{Fence: fence, Seq: uint64(fence)},
			Blocks:        []ps.Block{{Stride: 20, Rows: make([]byte, 20)}},
		}})
	}
	if w.batch.Len() != 1 || w.batch.Positions[0].Fence != 6 {
		t.Errorf("%d rows and position %+v, want those of fence 6 only", w.batch.Len(), w.batch.Positions[0])
	}
}
