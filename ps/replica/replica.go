// Package replica keeps a copy of a model's weights in the memory of whoever reads them,
// such as an inference pod, and keeps it fresh: by the deltas that the shards' owners send,
// or, for who wants an epoch and not what is learned just now, from the epoch's files. It
// never writes, and knows neither features nor networks.
//
// The one idea to keep in mind: of each shard there is one copy that is served and at most
// one in its shadow. Whatever happens (a delta is missing, the shard has another owner, the
// model is set back), a whole shard is read into the shadow and takes the place of the
// served one when it may.
//
// Invariants:
//
//  1. What is served of a shard is whole: its rows, of the tables that are kept, as they
//     were at one boundary between two pushes.
//  2. Within a lineage, what is applied of a served shard never decreases, in any partition.
//     A shadow that has less is brought up to date first, however long that takes.
//  3. Another lineage, or another epoch, replaces whole shards.
//  4. At most one shadow of each shard is held. A reader that is too slow is cut off by the
//     owner and begins anew; nothing is queued here.
package replica

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-ml/freshet/ps"
)

// Source brings what changes; ps/client has it, and says when it calls what.
type Source interface {
	Read(ctx context.Context, model string, reading ps.Reading, shards <-chan []ps.ShardID, take func(*ps.Delta) error, current func([]ps.ShardID)) error
}

// Config is what a replica needs.
type Config struct {
	Source Source
	// Model is the one to copy, and Shards the cluster's number of them.
	Model  ps.Model
	Shards int
	// Tables are those to keep. Default: all of weights, which are of kind float32.
	Tables []ps.TableID
	// Encoding is that of weights on their way; what is kept are float32.
	Encoding ps.Encoding
	// Changed, if not nil, is told the keys whose rows have just changed in a table. It is
	// called by whoever brings them, from several goroutines, after they are served, and
	// should not block. The keys are its own.
	Changed func(table ps.TableID, keys []ps.Key)
	// Swapped, if not nil, is told that all rows of a shard may have changed, as Changed is.
	Swapped func(shard ps.ShardID)
	// Metrics, if not nil, is told how fresh the replica is.
	Metrics prometheus.Registerer
	Logger  *slog.Logger
}

func (c *Config) validate() error {
	if c.Source == nil || c.Logger == nil {
		return fmt.Errorf("a replica needs a source and a logger: %w", ps.ErrInvalid)
	}
	if err := ps.ValidShards(c.Shards); err != nil {
		return err
	}
	if len(c.Tables) == 0 {
		for id, t := range c.Model.Layout.Tables {
			if t.Kind == ps.Float32 {
				c.Tables = append(c.Tables, ps.TableID(id))
			}
		}
	}
	for _, id := range c.Tables {
		if int(id) >= len(c.Model.Layout.Tables) {
			return fmt.Errorf("replica of table %d of model %q, which has %d: %w", id, c.Model.Name, len(c.Model.Layout.Tables), ps.ErrInvalid)
		}
	}
	if c.Changed == nil {
		c.Changed = func(ps.TableID, []ps.Key) {}
	}
	if c.Swapped == nil {
		c.Swapped = func(ps.ShardID) {}
	}
	return nil
}

// Replica is a copy of a model. Its methods are safe for concurrent use, but for those that
// fill it: Follow and Pin are called one at a time.
type Replica struct {
	config  Config
	layout  uint64   // of the model
	stored  ps.Model // the model with tables that keep no state
	reading ps.Reading
	slots   []slot
	metrics metrics
	release chan struct{} // capacity 1: a copy was dropped

	filling atomic.Bool
	origin  atomic.Pointer[origin] // of what is taken in

	ready   chan struct{} // closed when every shard is served
	mu      sync.Mutex
	missing int // guarded by mu: shards that are not served yet
}

// origin says where rows come from.
type origin struct {
	// number tells apart, in order, what was taken in one after the other: a replica goes
	// from one origin to the next whatever is applied there.
	number uint64
	// epoch is the one whose rows they are, and created when it was committed; 0 for those
	// of the running cluster.
	epoch   ps.Epoch
	created time.Time
}

// New returns a replica without rows. It wraps ps.ErrInvalid.
func New(c Config) (*Replica, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	r := &Replica{
		config: c, layout: c.Model.Layout.Hash(), stored: withoutState(c.Model),
		reading: ps.Reading{Layout: c.Model.Layout.Hash(), Encoding: c.Encoding},
		slots:   make([]slot, c.Shards), missing: c.Shards,
		release: make(chan struct{}, 1), ready: make(chan struct{}),
	}
	for _, id := range c.Tables {
		r.reading.Tables.Add(id)
	}
	for i := range r.slots {
		r.slots[i].replica, r.slots[i].id = r, ps.ShardID(i)
	}
	var err error
	r.metrics, err = newMetrics(c.Metrics, c.Model.Name)
	return r, err
}

// withoutState returns the model with tables that store rows as they are read: a rule
// without state in the place of the optimizer's, and the same initial values.
func withoutState(m ps.Model) ps.Model {
	tables := make([]ps.Table, len(m.Layout.Tables))
	for i, t := range m.Layout.Tables {
		if t.Kind == ps.Float32 {
			t.Optimizer = ps.Optimizer{Name: ps.SGD, LearningRate: 1}
		}
		tables[i] = t
	}
	m.Layout.Tables = tables
	return m
}

// releaseEvery is how often memory of dropped copies is given back at most.
const releaseEvery = 250 * time.Millisecond

// Follow brings the replica up to date with the cluster and keeps it so until ctx ends, and
// returns nil then; what is served stays. It can be called again.
func (r *Replica) Follow(ctx context.Context) error {
	end, err := r.begin(0, time.Time{})
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	var releasing sync.WaitGroup
	defer releasing.Wait()
	defer cancel()
	releasing.Go(func() { r.releaseUntil(ctx) })
	all := make([]ps.ShardID, len(r.slots))
	for s := range all {
		all[s] = ps.ShardID(s)
	}
	wanted := make(chan []ps.ShardID, 1)
	wanted <- all
	return r.config.Source.Read(ctx, r.config.Model.Name, r.reading, wanted, r.take, r.current)
}

// begin starts to take in what comes from somewhere else than before.
func (r *Replica) begin(epoch ps.Epoch, created time.Time) (end func(), err error) {
	if !r.filling.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("the replica of model %q is being filled already: %w", r.config.Model.Name, ps.ErrConflict)
	}
	from := &origin{epoch: epoch, created: created}
	if last := r.origin.Load(); last != nil {
		from.number = last.number + 1
		if last.epoch == 0 && epoch == 0 {
			from.number = last.number // the same history goes on
		}
	}
	r.origin.Store(from)
	for i := range r.slots {
		r.slots[i].reset()
	}
	return func() { r.filling.Store(false) }, nil
}

// take takes in a part of a base or of a delta.
func (r *Replica) take(d *ps.Delta) error {
	if int(d.Shard) >= len(r.slots) {
		return fmt.Errorf("a delta of shard %d of %d: %w", d.Shard, len(r.slots), ps.ErrCorrupt)
	}
	return r.slots[d.Shard].take(r.origin.Load(), d)
}

// current notes that of some shards all is here that there is.
func (r *Replica) current(shards []ps.ShardID) {
	now := time.Now()
	for _, id := range shards {
		r.slots[id].isCurrent(now)
	}
}

// first notes that a shard is served that was not before.
func (r *Replica) first() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.missing--; r.missing == 0 {
		close(r.ready)
	}
}

// dropped notes that a copy was dropped.
func (r *Replica) dropped() {
	select {
	case r.release <- struct{}{}:
	default:
	}
}

// releaseUntil gives the memory of dropped copies back until ctx ends. Tables are not on
// the heap, and give theirs back when the collector finds them unreachable, which beside a
// heap as small as a reader's can take minutes: enough for a second copy of everything.
func (r *Replica) releaseUntil(ctx context.Context) {
	for {
		select {
		case <-r.release:
		case <-ctx.Done():
			return
		}
		runtime.GC()
		select {
		case <-time.After(releaseEvery):
		case <-ctx.Done():
			return
		}
	}
}

// Ready is closed once every shard is served.
func (r *Replica) Ready() <-chan struct{} { return r.ready }

// Pull fills the reads' values from memory, as client.Client.Pull does from the nodes. It
// allocates nothing if the values have room. It returns ps.ErrUnavailable before the replica
// is ready, ps.ErrModelMismatch for another model or layout, and ps.ErrInvalid for a table
// that is not kept, or keys that are grouped over another number of shards or are of others.
func (r *Replica) Pull(ctx context.Context, model string, layout uint64, reads []ps.Read) error {
	if err := r.check(ctx, model, layout, reads); err != nil {
		return err
	}
	for i := range reads {
		read := &reads[i]
		if size := len(read.Group.Keys) * read.RowBytes; cap(read.Values) < size {
			read.Values = make([]byte, size)
		} else {
			read.Values = read.Values[:size]
		}
	}
	for s := range r.slots {
		if err := r.slots[s].gather(reads); err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) check(ctx context.Context, model string, layout uint64, reads []ps.Read) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if model != r.config.Model.Name || layout != r.layout {
		return fmt.Errorf("a pull of model %q with layout %016x from a replica of model %q with %016x: %w",
			model, layout, r.config.Model.Name, r.layout, ps.ErrModelMismatch)
	}
	for i := range reads {
		read := &reads[i]
		if !r.reading.Tables.Has(read.Table) || read.RowBytes != r.config.Model.Layout.Tables[read.Table].RowBytes() {
			return fmt.Errorf("a pull of rows of %d bytes of table %d, which the replica of model %q does not keep: %w",
				read.RowBytes, read.Table, model, ps.ErrInvalid)
		}
		if len(read.Group.Ends) != len(r.slots) {
			return fmt.Errorf("a pull of keys grouped over %d shards, the cluster has %d: %w", len(read.Group.Ends), len(r.slots), ps.ErrInvalid)
		}
	}
	select {
	case <-r.ready:
		return nil
	default:
		return fmt.Errorf("the replica of model %q does not have all shards yet: %w", model, ps.ErrUnavailable)
	}
}

// Fresh says how fresh what is served is.
type Fresh struct {
	// Epoch is the one that is served; 0 if it is what the cluster learns. While an epoch
	// takes the place of something else, it is that of the shard that is behind.
	Epoch ps.Epoch
	// Applied is, by partition, the lowest offset that a shard has not applied: all events
	// below it are in.
	Applied []ps.Offset
	// EventTime is the largest that is in, in milliseconds since 1970; 0 if unknown.
	EventTime int64
	// Age is how long ago the shard for which that is longest was last known to be all that
	// there was; of an epoch, how long ago it was committed.
	Age time.Duration
}

// Fresh returns how fresh what is served is, at the least. Before the replica is ready it
// is of the shards that are there.
func (r *Replica) Fresh() Fresh {
	f := Fresh{Applied: make([]ps.Offset, r.config.Model.Partitions)}
	now := time.Now()
	var oldest uint64
	known := false
	for s := range r.slots {
		at, ok := r.slots[s].standing()
		if !ok {
			continue
		}
		for p, applied := range at.applied {
			if !known || applied < f.Applied[p] {
				f.Applied[p] = applied
			}
		}
		if !known || at.origin.number < oldest {
			oldest, f.Epoch = at.origin.number, at.origin.epoch
		}
		f.EventTime = max(f.EventTime, at.eventTime)
		f.Age = max(f.Age, now.Sub(at.currentAt))
		known = true
	}
	return f
}

// Standing is where a shard stands that is served.
type Standing struct {
	// Lineage is the one that the shard belongs to: what is applied in one is not compared
	// with another.
	Lineage uint64
	ps.Freshness
}

// Shards returns where every shard stands; the zero value where none is served yet. The
// caller does not change Applied.
func (r *Replica) Shards() []Standing {
	all := make([]Standing, len(r.slots))
	now := time.Now()
	for s := range r.slots {
		if at, ok := r.slots[s].standing(); ok {
			all[s] = Standing{at.lineage, ps.Freshness{Boundary: at.boundary, Applied: at.applied, EventTime: at.eventTime, Age: now.Sub(at.currentAt)}}
		}
	}
	return all
}
