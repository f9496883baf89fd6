package replica_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/delta"
	"github.com/freshet-ml/freshet/ps/replica"
	"github.com/freshet-ml/freshet/ps/shard"
)

const shards = 4

// model has weights with state, of which rows begin at random, and figures that are not read.
var model = ps.Model{Name: "m", Version: 1, Stream: "s", Partitions: 2, Layout: ps.Layout{Seed: 7, Tables: []ps.Table{
	{Name: "weights", Width: 3, Optimizer: ps.Optimizer{Name: ps.AdaGrad, LearningRate: 1, InitialAccumulator: 1}, Initializer: ps.Initializer{Name: ps.Normal, Scale: 1}},
	{Name: "figures", Kind: ps.Float64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}},
}}}

// owner is the owner of a shard, and what a reader is sent of it.
type owner struct {
	shard   *shard.Shard
	fence   ps.Fence
	lineage uint64
	pushed  uint64
	// saved are earlier states, from which it can be restored.
	saved []saved
}

type saved struct {
	head   shard.Head
	blocks []ps.Block
	pushed uint64
}

func newOwner(t fataler, id ps.ShardID) *owner {
	s, err := shard.New(shard.Config{Model: model, ID: id, Shards: shards, Fence: 1})
	if err != nil {
		t.Fatalf("new shard: %v", err)
	}
	return &owner{shard: s, fence: 1}
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// keyOf returns key n of a shard.
func keyOf(id ps.ShardID, n int) ps.Key { return ps.Key(uint64(id)<<62 | uint64(n)) }

const keysOf = 5 // of a shard

// push applies one more event of a partition.
func (o *owner) push(t fataler, p ps.Partition) {
	progress := o.shard.Progress()
	at := progress.Partitions[p].Applied
	o.pushed++
	key := keyOf(progress.Shard, int(o.pushed)%keysOf)
	gradient := []float32{float32(o.pushed), 1, -1}
	item := ps.Item{
		Shard: progress.Shard, From: at, Trained: 1, EventTime: int64(o.pushed),
		Rows: []ps.Rows{
			{Table: 0, Keys: []ps.Key{key}, Values: ps.Bytes(gradient)},
			{Table: 1, Keys: []ps.Key{key}, Values: ps.Bytes([]float64{1})},
		},
	}
	item.Fingerprint.Add(ps.EventHash(p, at))
	u := &ps.Update{Model: "m", Stream: "s", Layout: model.Layout.Hash(), Version: 1, Partition: p, To: at + 1}
	if a := o.shard.Push(u, &item); a.Outcome != ps.Applied {
		t.Fatalf("push of partition %d at %d: %v %v", p, at, a.Outcome, a.Err)
	}
}

// base returns the shard in parts, as a reader is sent it.
func (o *owner) base(t fataler, r ps.Reading) []*ps.Delta {
	head, blocks := o.snapshot(t)
	var parts []*ps.Delta
	for i := range len(blocks) + 1 {
		d := &ps.Delta{ShardProgress: head.ShardProgress, TableRows: head.TableRows, Lineage: o.lineage, Part: i, More: i < len(blocks)}
		if d.More {
			d.Blocks = blocks[i : i+1]
		}
		parts = append(parts, delta.Read(model.Layout, r, d))
	}
	o.shard.Record()
	return parts
}

func (o *owner) snapshot(t fataler) (shard.Head, []ps.Block) {
	sn, err := o.shard.Snapshot(0)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer sn.Close()
	var blocks []ps.Block
	for {
		b, err := sn.Read(make([]byte, shard.BlockBytes))
		if err != nil {
			return sn.Head(), blocks
		}
		b.Rows = slices.Clone(b.Rows)
		blocks = append(blocks, b)
	}
}

// delta returns what has changed since the last base or delta; nil if nothing has.
func (o *owner) delta(r ps.Reading) *ps.Delta {
	d := o.shard.Delta()
	if d == nil {
		return nil
	}
	d.Lineage = o.lineage
	return delta.Read(model.Layout, r, d)
}

// save keeps the state as it is.
func (o *owner) save(t fataler) {
	head, blocks := o.snapshot(t)
	o.saved = append(o.saved, saved{head, blocks, o.pushed})
}

// restore makes an earlier state the next owner's.
func (o *owner) restore(t fataler, n int) {
	o.fence++
	loader, err := shard.Load(shard.Config{Model: model, ID: o.shard.Progress().Shard, Shards: shards, Fence: o.fence})
	if err == nil {
		err = loader.Begin(o.saved[n].head)
	}
	for _, b := range o.saved[n].blocks {
		if err == nil {
			err = loader.Rows(b)
		}
	}
	var s *shard.Shard
	if err == nil {
		s, err = loader.Shard()
	}
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	o.shard, o.pushed = s, o.saved[n].pushed
	o.saved = o.saved[:n+1]
}

// rows returns the weights of the shard's keys.
func (o *owner) rows(t fataler) []byte {
	id := o.shard.Progress().Shard
	var keys []ps.Key
	for n := range keysOf {
		keys = append(keys, keyOf(id, n))
	}
	rows := make([]byte, len(keys)*12)
	if err := o.shard.Gather(0, keys, rows, nil); err != nil {
		t.Fatalf("gather: %v", err)
	}
	return rows
}

// wire is a source that a test sends by.
type wire struct {
	mu      sync.Mutex
	reading ps.Reading
	take    func(*ps.Delta) error
	current func([]ps.ShardID)
	follows chan struct{}
}

func (w *wire) Read(ctx context.Context, _ string, r ps.Reading, wanted <-chan []ps.ShardID, take func(*ps.Delta) error, current func([]ps.ShardID)) error {
	<-wanted
	w.mu.Lock()
	w.reading, w.take, w.current = r, take, current
	w.mu.Unlock()
	w.follows <- struct{}{}
	<-ctx.Done()
	return nil
}

// follow starts a replica that follows a wire until end is called.
func follow(t fataler, c replica.Config) (r *replica.Replica, w *wire, end func()) {
	w = &wire{follows: make(chan struct{}, 1)}
	c.Source, c.Model, c.Shards, c.Logger = w, model, shards, slog.New(slog.DiscardHandler)
	r, err := replica.New(c)
	if err != nil {
		t.Fatalf("new replica: %v", err)
	}
	w, end = again(t, r, w)
	return r, w, end
}

// again makes a replica follow the wire until end is called.
func again(t fataler, r *replica.Replica, w *wire) (_ *wire, end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Follow(ctx) }()
	<-w.follows
	return w, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Fatalf("following ended with %v", err)
		}
	}
}

// pull reads the keys of all shards.
func pull(t fataler, r *replica.Replica) map[ps.ShardID][]byte {
	var keys []ps.Key
	for s := range ps.ShardID(shards) {
		for n := range keysOf {
			keys = append(keys, keyOf(s, n))
		}
	}
	var g ps.Group
	g.Fill(keys, shards)
	reads := []ps.Read{{Table: 0, RowBytes: 12, Group: &g}}
	if err := r.Pull(context.Background(), "m", model.Layout.Hash(), reads); err != nil {
		t.Fatalf("pull: %v", err)
	}
	rows := make(map[ps.ShardID][]byte)
	for i, at := range g.Index {
		s := ps.ShardOf(keys[i], shards)
		rows[s] = append(rows[s], reads[0].Values[at*12:at*12+12]...)
	}
	return rows
}

func TestAReplicaServesWhatItsOwnersSendAndUntilThenNothing(t *testing.T) {
	r, w, end := follow(t, replica.Config{})
	defer end()
	var owners []*owner
	for s := range ps.ShardID(shards) {
		o := newOwner(t, s)
		o.push(t, 0)
		owners = append(owners, o)
	}
	for s, o := range owners {
		var g ps.Group
		g.Fill([]ps.Key{keyOf(ps.ShardID(s), 1)}, shards)
		err := r.Pull(t.Context(), "m", model.Layout.Hash(), []ps.Read{{Table: 0, RowBytes: 12, Group: &g}})
		if !errors.Is(err, ps.ErrUnavailable) {
			t.Fatalf("a pull before all shards are there gave %v, want ErrUnavailable", err)
		}
		for _, part := range o.base(t, w.reading) {
			if err := w.take(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-r.Ready()
	for s, o := range owners {
		o.push(t, 0)
		o.push(t, 1)
		if err := w.take(o.delta(w.reading)); err != nil {
			t.Fatal(err)
		}
		if got, want := pull(t, r)[ps.ShardID(s)], o.rows(t); !slices.Equal(got, want) {
			t.Errorf("shard %d: %v, want %v", s, ps.View[float32](got), ps.View[float32](want))
		}
	}
	if f := r.Fresh(); !slices.Equal(f.Applied, []ps.Offset{2, 1}) || f.EventTime != 3 || f.Epoch != 0 {
		t.Errorf("fresh %+v, want 2 and 1 applied, event time 3, no epoch", f)
	}
}

// TestWhatIsServedNeverGoesBackWithinALineage sends random histories of owners that push,
// die, are restored from older states, and are set back to another lineage, over wires that
// lose deltas and bring those of owners that are gone.
func TestWhatIsServedNeverGoesBackWithinALineage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, w, end := follow(t, replica.Config{Encoding: rapid.SampledFrom([]ps.Encoding{ps.Plain, ps.Int8}).Draw(t, "encoding")})
		defer end()
		exact := w.reading.Encoding == ps.Plain
		var owners []*owner
		var following [shards]bool
		// What the owners had at every boundary that was sent, by fence and seq.
		had := make(map[string][]byte)
		name := func(s ps.ShardID, b ps.Boundary) string { return fmt.Sprint(s, b) }
		note := func(o *owner) {
			p := o.shard.Progress()
			had[name(p.Shard, ps.Boundary{Fence: p.Fence, Seq: p.Seq})] = o.rows(t)
		}
		sendBase := func(o *owner, upTo int) {
			note(o)
			parts := o.base(t, w.reading)
			whole := upTo >= len(parts)
			for _, part := range parts[:min(upTo, len(parts))] {
				if err := w.take(part); err != nil {
					t.Fatalf("base: %v", err)
				}
			}
			following[o.shard.Progress().Shard] = whole
		}
		for s := range ps.ShardID(shards) {
			o := newOwner(t, s)
			o.save(t)
			owners = append(owners, o)
			sendBase(o, 99)
		}
		last := make([]replica.Standing, shards)
		copy(last, r.Shards())
		var stale []*ps.Delta
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			o := owners[rapid.IntRange(0, shards-1).Draw(t, "shard")]
			id := o.shard.Progress().Shard
			switch rapid.SampledFrom([]string{"push", "push", "push", "send", "send", "lose", "stale", "base", "half base", "save", "fail over", "set back"}).Draw(t, "step") {
			case "push":
				o.push(t, ps.Partition(rapid.IntRange(0, 1).Draw(t, "partition")))
			case "send":
				note(o)
				d := o.delta(w.reading)
				if d == nil {
					break
				}
				stale = append(stale, d)
				if err := w.take(d); (err == nil) != following[id] {
					t.Fatalf("shard %d: taking a delta gave %v; it follows: %v", id, err, following[id])
				}
			case "lose": // the client begins anew then; here the next delta has to be refused
				if o.delta(w.reading) != nil && following[id] {
					o.push(t, 0)
					if err := w.take(o.delta(w.reading)); err == nil {
						t.Fatalf("shard %d: a delta behind a lost one was taken", id)
					}
					following[id] = false
				}
			case "stale":
				if len(stale) > 0 {
					d := stale[rapid.IntRange(0, len(stale)-1).Draw(t, "which")]
					if d.Fence < owners[d.Shard].fence && following[d.Shard] {
						if err := w.take(d); err != nil {
							t.Fatalf("what an earlier owner sends gave %v, want it passed over", err)
						}
					}
				}
			case "base":
				sendBase(o, 99)
			case "half base":
				sendBase(o, 1)
			case "save":
				o.save(t)
			case "fail over":
				o.restore(t, rapid.IntRange(0, len(o.saved)-1).Draw(t, "to"))
				sendBase(o, 99)
			case "set back":
				to := rapid.IntRange(0, len(o.saved)-1).Draw(t, "to")
				o.restore(t, to)
				o.lineage++
				sendBase(o, 99)
			}
			now, rows := r.Shards(), pull(t, r)
			for s := range ps.ShardID(shards) {
				for p, applied := range now[s].Applied {
					if now[s].Lineage == last[s].Lineage && applied < last[s].Applied[p] {
						t.Fatalf("shard %d, partition %d went back from %d to %d in lineage %d", s, p, last[s].Applied[p], applied, now[s].Lineage)
					}
				}
				if now[s].Lineage < last[s].Lineage {
					t.Fatalf("shard %d went from lineage %d to %d", s, last[s].Lineage, now[s].Lineage)
				}
				if want := had[name(s, now[s].Boundary)]; exact && !slices.Equal(rows[s], want) {
					t.Fatalf("shard %d serves %v at %+v, its owner had %v", s, ps.View[float32](rows[s]), now[s].Boundary, ps.View[float32](want))
				}
			}
			copy(last, now)
		}
	})
}

func TestAShardIsSwappedOnlyWhenItHasWhatWasServed(t *testing.T) {
	swapped := 0
	r, w, end := follow(t, replica.Config{Swapped: func(ps.ShardID) { swapped++ }})
	defer end()
	var owners []*owner
	send := func(parts ...*ps.Delta) {
		t.Helper()
		for _, part := range parts {
			if err := w.take(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	for s := range ps.ShardID(shards) {
		o := newOwner(t, s)
		o.save(t)
		for range 3 {
			o.push(t, 0)
		}
		owners = append(owners, o)
		send(o.base(t, w.reading)...)
	}
	o := owners[2]
	served := pull(t, r)[2]
	w.current([]ps.ShardID{2})
	o.restore(t, 0)
	send(o.base(t, w.reading)...)
	for applied := range 3 {
		if got := pull(t, r)[2]; !slices.Equal(got, served) {
			t.Fatalf("with %d of 3 events applied again the shard is served from its shadow", applied)
		}
		o.push(t, 0)
		send(o.delta(w.reading))
	}
	if at := r.Shards()[2]; at.Fence != 2 || at.Applied[0] != 3 || swapped != shards+1 {
		t.Errorf("with all applied it serves %+v after %d swaps, want fence 2 and %d swaps", at, swapped, shards+1)
	}
	o.restore(t, 0)
	o.lineage = 1
	send(o.base(t, w.reading)...)
	if at := r.Shards()[2]; at.Lineage != 1 || at.Applied[0] != 0 {
		t.Errorf("of another lineage it serves %+v, want lineage 1 with nothing applied", at)
	}
}

func TestWhoAsksIsToldWhichKeysHaveChanged(t *testing.T) {
	changed := make(map[ps.Key]int)
	_, w, end := follow(t, replica.Config{Changed: func(table ps.TableID, keys []ps.Key) {
		if table != 0 {
			t.Errorf("table %d has changed, which is not kept", table)
		}
		for _, key := range keys {
			changed[key]++
		}
	}})
	defer end()
	o := newOwner(t, 1)
	o.push(t, 0) // since nothing a delta is a base
	for _, part := range o.base(t, w.reading) {
		if err := w.take(part); err != nil {
			t.Fatal(err)
		}
	}
	o.push(t, 0)
	o.push(t, 0)
	if err := w.take(o.delta(w.reading)); err != nil {
		t.Fatal(err)
	}
	if len(changed) != 2 || changed[keyOf(1, 2)] != 1 || changed[keyOf(1, 3)] != 1 {
		t.Errorf("changed %v, want the two keys that were pushed, once each", changed)
	}
}

func TestPullsThatAReplicaCannotAnswerAreRefused(t *testing.T) {
	r, w, end := follow(t, replica.Config{})
	defer end()
	for s := range ps.ShardID(shards) {
		for _, part := range newOwner(t, s).base(t, w.reading) {
			if err := w.take(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	hash := model.Layout.Hash()
	group := func(keys []ps.Key, shards int) *ps.Group {
		g := new(ps.Group)
		g.Fill(keys, shards)
		return g
	}
	key := []ps.Key{keyOf(1, 1)}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		model  string
		layout uint64
		read   ps.Read
		want   error
	}{
		"another model":            {t.Context(), "x", hash, ps.Read{Table: 0, RowBytes: 12, Group: group(key, shards)}, ps.ErrModelMismatch},
		"another layout":           {t.Context(), "m", hash + 1, ps.Read{Table: 0, RowBytes: 12, Group: group(key, shards)}, ps.ErrModelMismatch},
		"a table that is not read": {t.Context(), "m", hash, ps.Read{Table: 1, RowBytes: 8, Group: group(key, shards)}, ps.ErrInvalid},
		"no such table":            {t.Context(), "m", hash, ps.Read{Table: 300, RowBytes: 8, Group: group(key, shards)}, ps.ErrInvalid},
		"another width":            {t.Context(), "m", hash, ps.Read{Table: 0, RowBytes: 8, Group: group(key, shards)}, ps.ErrInvalid},
		"more shards":              {t.Context(), "m", hash, ps.Read{Table: 0, RowBytes: 12, Group: group(key, 2*shards)}, ps.ErrInvalid},
		"an ended context":         {ended, "m", hash, ps.Read{Table: 0, RowBytes: 12, Group: group(key, shards)}, context.Canceled},
	} {
		if err := r.Pull(c.ctx, c.model, c.layout, []ps.Read{c.read}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestDamagedDeltasAreRefusedAndWhatIsServedStays(t *testing.T) {
	r, w, end := follow(t, replica.Config{})
	defer end()
	var owners []*owner
	for s := range ps.ShardID(shards) {
		o := newOwner(t, s)
		owners = append(owners, o)
		for _, part := range o.base(t, w.reading) {
			if err := w.take(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := pull(t, r)[1]
	for name, damage := range map[string]func(d *ps.Delta){
		"of no shard":           func(d *ps.Delta) { d.Shard = shards },
		"a torn row":            func(d *ps.Delta) { d.Blocks[0].Rows = d.Blocks[0].Rows[1:] },
		"a weight that is NaN":  func(d *ps.Delta) { binary.LittleEndian.PutUint32(d.Blocks[0].Rows[8:], 0x7fc00000) },
		"another shard's key":   func(d *ps.Delta) { d.Blocks[0].Rows[7] = 0xff },
		"a table not asked for": func(d *ps.Delta) { d.Blocks[0].Table = 1 },
		"a table of no layout":  func(d *ps.Delta) { d.Blocks[0].Table = 77 },
		"fewer partitions":      func(d *ps.Delta) { d.Partitions = d.Partitions[:1] },
	} {
		o := owners[1]
		o.push(t, 0)
		d := o.delta(w.reading)
		damage(d)
		if err := w.take(d); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
		if got := pull(t, r)[1]; name != "another shard's key" && !slices.Equal(got, before) {
			t.Errorf("%s: what is served has changed", name)
		}
		for _, part := range o.base(t, w.reading) {
			if err := w.take(part); err != nil {
				t.Fatalf("%s: the base after it: %v", name, err)
			}
		}
		if before = pull(t, r)[1]; !slices.Equal(before, o.rows(t)) {
			t.Errorf("%s: after another base it serves something else", name)
		}
	}
}
