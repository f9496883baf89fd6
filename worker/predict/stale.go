package predict

import (
	"context"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/model"
)

const (
	// roundEvery is the least time between two rounds that recompute items. A change waits
	// for one round and is computed by the next, so that an item is searched by its new
	// vector within twice that.
	roundEvery = 50 * time.Millisecond
	// few is how many items a key may have whose items are recomputed in the round after it
	// changed: an item's own number has one, its seller's some. Others are a category's,
	// which may have all items, and change with every batch.
	few = 64
	// roundItems is how many items of such keys a round recomputes, about half of the time
	// between rounds: a million takes less than two seconds, and half a core.
	roundItems = 1 << 16
	// chunkItems is how many items are pulled for at once.
	chunkItems = 1024
)

// stale says which items' vectors are older than their rows.
type stale struct {
	// keys has a bit for each key whose row changed; all means every one. Whoever sets them
	// does nothing else, so that it costs him little.
	keys []atomic.Uint64
	all  atomic.Bool
	// wake has an entry if there is something to do; its capacity is 1.
	wake   chan struct{}
	loaded atomic.Bool // all items have had vectors

	// Owned by Run. Items to recompute now, and in the course of time.
	soon, late itemSet
}

func newStale(keys, items int) *stale {
	words := func(n int) int { return (n + 63) / 64 }
	return &stale{
		keys: make([]atomic.Uint64, words(keys)), wake: make(chan struct{}, 1),
		soon: make(itemSet, words(items)), late: make(itemSet, words(items)),
	}
}

func (s *stale) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// itemSet is a set of items, a bit for each.
type itemSet []uint64

func (s itemSet) add(item int32) { s[item/64] |= 1 << (item % 64) }

func (s itemSet) remove(items []int32) {
	for _, item := range items {
		s[item/64] &^= 1 << (item % 64)
	}
}

// appendFrom appends items of s from one on, as many as dst has room for.
func (s itemSet) appendFrom(item int, dst []int32) []int32 {
	for w := item / 64; w < len(s); w++ {
		word := s[w]
		if w == item/64 {
			word &= ^uint64(0) << (item % 64)
		}
		for ; word != 0; word &= word - 1 {
			if len(dst) == cap(dst) {
				return dst
			}
			dst = append(dst, int32(w*64+bits.TrailingZeros64(word)))
		}
	}
	return dst
}

// Changed says that rows of a table changed: items that have them get new vectors soon. It is
// to be called after a Pull sees the rows. It costs some 40 ns a key, waits for nothing, and
// is safe for concurrent use; keys are not kept. Without items it does nothing.
func (s *Scorer) Changed(table ps.TableID, keys []ps.Key) {
	it := s.items
	if it == nil || int(table) >= s.config.Spec.FeatureTables() {
		return
	}
	changed := false
	for _, key := range keys {
		from, to := it.keyed.span(uint64(key))
		for k := from; k < to; k++ {
			if it.keys[k] == key {
				it.stale.keys[k/64].Or(1 << (k % 64))
				changed = true
			}
		}
	}
	if changed {
		it.stale.rouse()
	}
}

// Reload says that any row may have changed: all items get new vectors, and are searched by
// those they have until then. As Changed.
func (s *Scorer) Reload() {
	if s.items != nil {
		s.items.stale.all.Store(true)
		s.items.stale.rouse()
	}
}

// Run gives the items their vectors, and new ones when Changed or Reload said so, until ctx
// is done; then it returns nil. It is called once. Without items it only waits.
//
// An item is searched by its new vector within some 100 ms of Changed if at most 64 items
// have the changed key. Where more have it, they follow at a million items in about two
// seconds. While rows cannot be pulled, it says so to the logger, once, and goes on trying.
func (s *Scorer) Run(ctx context.Context) error {
	if s.items == nil {
		<-ctx.Done()
		return nil
	}
	r, err := s.items.newRefresher()
	if err != nil {
		return err
	}
	return r.run(ctx)
}

// refresher recomputes vectors. It has one owner.
type refresher struct {
	*items
	rows    *rows
	parts   *model.Parts
	batch   worker.Batch
	chunk   []int32
	own     []float32
	vectors []float32
	row     []float32 // a vector and what stands behind it
	next    int       // of late, the item to go on with
	failing bool      // rows could not be pulled
	unfit   bool      // a vector had elements that cannot be searched by
}

func (it *items) newRefresher() (*refresher, error) {
	parts, err := model.NewParts(it.spec)
	return &refresher{
		items: it, rows: newRows(it.origin, it.spec), parts: parts,
		chunk: make([]int32, 0, chunkItems), own: make([]float32, chunkItems),
		vectors: make([]float32, chunkItems*it.width), row: make([]float32, it.width+1),
	}, err
}

func (r *refresher) run(ctx context.Context) error {
	r.stale.all.Store(true)
	r.stale.rouse()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for busy := false; ; {
		if !busy {
			select {
			case <-ctx.Done():
				return nil
			case <-r.stale.wake:
			}
		}
		var err error
		busy, err = r.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.report(err)
		pause.Reset(roundEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// round recomputes what is due, and reports whether there is more.
func (r *refresher) round(ctx context.Context) (busy bool, err error) {
	r.collect()
	if _, err := r.recompute(ctx, r.stale.soon, 0, math.MaxInt); err != nil {
		return true, err
	}
	most := roundItems
	if !r.stale.loaded.Load() {
		most = math.MaxInt // nobody is served before
	}
	if r.next, err = r.recompute(ctx, r.stale.late, r.next, most); err != nil {
		return true, err
	}
	if r.next == 0 && r.stale.loaded.CompareAndSwap(false, true) {
		r.config.Logger.Info("items can be retrieved", "items", r.table.Len())
	}
	return r.next > 0, nil
}

// collect moves what changed to the sets of items.
func (r *refresher) collect() {
	if r.stale.all.Swap(false) {
		for item := range r.len() {
			r.stale.late.add(int32(item))
		}
	}
	for w := range r.stale.keys {
		if r.stale.keys[w].Load() == 0 {
			continue
		}
		for word := r.stale.keys[w].Swap(0); word != 0; word &= word - 1 {
			k := w*64 + bits.TrailingZeros64(word)
			having := r.having[r.havings[k]:r.havings[k+1]]
			set := r.stale.late
			if len(having) <= few {
				set = r.stale.soon
			}
			for _, item := range having {
				set.add(item)
			}
		}
	}
}

// recompute gives as many as most items of a set new vectors, from an item on and then from
// the first, and takes them out. It returns the item to go on with; 0 if none is left.
func (r *refresher) recompute(ctx context.Context, set itemSet, from, most int) (next int, err error) {
	for done := 0; done < most; {
		chunk := set.appendFrom(from, r.chunk[:0:min(chunkItems, most-done)])
		if len(chunk) == 0 && from == 0 {
			return 0, nil
		}
		if len(chunk) == 0 {
			from = 0
			continue
		}
		if err := r.compute(ctx, chunk); err != nil {
			return from, err
		}
		set.remove(chunk)
		done += len(chunk)
		from = int(chunk[len(chunk)-1]) + 1
	}
	return from, nil
}

// compute gives items new vectors.
func (r *refresher) compute(ctx context.Context, items []int32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b := &r.batch
	b.Reset(0, 0, 0)
	for _, item := range items {
		from, to := r.starts[item], r.starts[item+1]
		for _, k := range r.of[from:to] {
			b.Keys = append(b.Keys, r.keys[k])
		}
		if r.values != nil {
			b.Values = append(b.Values, r.values[from:to]...)
		} else {
			for range to - from {
				b.Values = append(b.Values, 1)
			}
		}
		b.Close(worker.Train, 0, 1, 0)
	}
	if err := r.rows.pull(ctx, b.Keys); err != nil {
		return err
	}
	r.parts.Of(b, r.rows.group.Index, r.rows.weights, r.own[:len(items)], r.vectors[:len(items)*r.width])
	for i, item := range items {
		if b.Starts[i] < b.Starts[i+1] { // else it cannot be used
			r.put(int(item), append(append(r.row[:0], r.vectors[i*r.width:(i+1)*r.width]...), r.own[i]))
		}
	}
	return nil
}

// put gives an item a vector. One that is not finite takes it out until the next.
func (r *refresher) put(item int, vector []float32) {
	err := r.table.Update(item, vector)
	if err == nil {
		return
	}
	r.table.Remove(item)
	if !r.unfit {
		r.config.Logger.Warn("items whose vectors are not finite are not retrieved: the model has diverged", "item", item, "err", err)
		r.unfit = true
	}
}

// report says when rows begin to fail, and when they are there again.
func (r *refresher) report(err error) {
	switch {
	case err != nil && !r.failing:
		r.config.Logger.Warn("items keep the vectors they have", "err", err)
	case err == nil && r.failing:
		r.config.Logger.Info("items get new vectors again")
	}
	r.failing = err != nil
}
