package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
)

// Sizes of what is simulated: small, so that faults meet.
const (
	shards     = 4
	partitions = 2
	window     = 20 // offsets per row of figures
	keysInUse  = 12
)

// Tables of the model.
const (
	weights ps.TableID = iota
	sums
	audit
)

const modelName = "shop"

func layout() ps.Layout {
	return ps.Layout{Seed: 7, Tables: []ps.Table{
		{
			Name: "weights", Kind: ps.Float32, Width: 2, Optimizer: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 0.1, InitialAccumulator: 1},
			Initializer: ps.Initializer{Name: ps.Uniform, Scale: 0.1},
		},
		{Name: "sums", Kind: ps.Float64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}},
		{Name: "audit", Kind: ps.Uint64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Audit}, Initializer: ps.Initializer{Name: ps.Zero}},
	}}
}

// event is one of the stream: what it is used for and its distinct keys.
type event struct {
	role worker.Role
	keys []ps.Key
}

// behaviour is the stream, and what any prefix of it contributes to each shard.
type behaviour struct {
	events [partitions][]event
	start  [partitions]ps.Offset // what is before was trimmed

	// counts[p][o][s] is what events below o of partition p contribute to shard s.
	counts [partitions][][shards]contribution.Count
	// keys are all of them; seen[k][p][o] is how many trained events below o have key k.
	keys []ps.Key
	seen map[ps.Key]*[partitions][]uint64
}

func newBehaviour(random *rand.Rand, length int) *behaviour {
	b := &behaviour{seen: make(map[ps.Key]*[partitions][]uint64)}
	for k := range keysInUse {
		key := ps.Key(ps.Mix(uint64(k) + 100))
		b.keys = append(b.keys, key)
		b.seen[key] = new([partitions][]uint64)
	}
	for p := range partitions {
		counter := contribution.New(shards, window)
		b.counts[p] = make([][shards]contribution.Count, 1, length+1)
		for _, seen := range b.seen {
			seen[p] = make([]uint64, 1, length+1)
		}
		for o := range length {
			e := event{role: worker.Train}
			switch {
			case random.IntN(12) == 0:
				e.role = worker.Skip
			case random.IntN(8) == 0:
				e.role = worker.Hold
			}
			if e.role != worker.Skip {
				for range 1 + random.IntN(2) {
					if key := oneOf(random, b.keys); !slices.Contains(e.keys, key) {
						e.keys = append(e.keys, key)
					}
				}
			}
			b.events[p] = append(b.events[p], e)
			one := b.batch(ps.Partition(p), ps.Range{From: ps.Offset(o), To: ps.Offset(o + 1)})
			counter.Add(&one, 0, nil)
			b.counts[p] = append(b.counts[p], [shards]contribution.Count(counter.Counts()))
			for _, key := range b.keys {
				seen := b.seen[key]
				n := seen[p][o]
				if e.role == worker.Train && slices.Contains(e.keys, key) {
					n++
				}
				seen[p] = append(seen[p], n)
			}
		}
	}
	return b
}

func (b *behaviour) end(p ps.Partition) ps.Offset { return ps.Offset(len(b.events[p])) }

// batch returns a range of the stream as a worker extracts it.
func (b *behaviour) batch(p ps.Partition, r ps.Range) worker.Batch {
	var batch worker.Batch
	batch.Reset(p, r.From, 0)
	for o := r.From; o < r.To; o++ {
		e := b.events[p][o]
		for _, key := range e.keys {
			batch.AddFeature(key, 1)
		}
		batch.Close(e.role, float32(o%2), 1, int64(o)+1)
	}
	return batch
}

// wrong says how a shard differs from the prefix of the stream that it says it has
// applied, or nothing: invariants 1, 2 and 15.
func (b *behaviour) wrong(s *shard.Shard) string {
	progress := s.Progress()
	for p, got := range progress.Partitions {
		if got.Applied > b.end(ps.Partition(p)) {
			return fmt.Sprintf("invariant 4: shard %d has applied partition %d up to %d, it ends at %d", progress.Shard, p, got.Applied, b.end(ps.Partition(p)))
		}
		want := b.counts[p][got.Applied][progress.Shard]
		if got.Fingerprint != want.Fingerprint || got.Trained != want.Trained || got.Held != want.Held || got.Skipped != want.Skipped {
			return fmt.Sprintf("invariant 1: shard %d, fence %d, has applied partition %d up to %d with %d trained, %d held, %d skipped, fingerprint %x; want %d, %d, %d, %x",
				progress.Shard, progress.Fence, p, got.Applied, got.Trained, got.Held, got.Skipped, got.Fingerprint,
				want.Trained, want.Held, want.Skipped, want.Fingerprint)
		}
	}
	return b.wrongKeys(s, progress)
}

// wrongKeys compares the audit table, which has a row per key, and names the key.
func (b *behaviour) wrongKeys(s *shard.Shard, progress ps.ShardProgress) (wrong string) {
	rows := 0
	_ = s.Range(audit, func(key ps.Key, _ uint64, row []byte) bool {
		rows++
		want := uint64(0)
		if seen := b.seen[key]; seen != nil {
			for p, got := range progress.Partitions {
				want += seen[p][got.Applied]
			}
		}
		if got := ps.View[uint64](row)[0]; got != want {
			wrong = fmt.Sprintf("invariant 1: shard %d, fence %d, has counted %d events with key %016x, want %d", progress.Shard, progress.Fence, got, uint64(key), want)
		}
		return wrong == ""
	})
	if wrong != "" {
		return wrong
	}
	want := 0
	for _, key := range b.keys {
		if ps.ShardOf(key, shards) != progress.Shard {
			continue
		}
		for p, got := range progress.Partitions {
			if b.seen[key][p][got.Applied] > 0 {
				want++
				break
			}
		}
	}
	if rows != want {
		return fmt.Sprintf("invariant 1: shard %d, fence %d, has counted %d keys, want %d", progress.Shard, progress.Fence, rows, want)
	}
	return ""
}
