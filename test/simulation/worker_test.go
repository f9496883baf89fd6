package simulation_test

import (
	"context"
	"fmt"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/train"
)

// trainer is one life of a worker. What it sends is the product's decision.
type trainer struct {
	host
	world *world
	// zombie: it hears no more of assignments and goes on.
	zombie   bool
	assigned coordinator.Assignment
	routes   route.Map
	inFlight int // batches
	idle     int // step until which there is nothing to do
}

func (w *world) startWorker() {
	w.lives++
	k := &trainer{host: host{name: fmt.Sprintf("w%d", w.lives), alive: true}, world: w}
	w.workers = append(w.workers, k)
	w.register.set(workersPrefix+k.name, fmt.Appendf(nil, `{"id":%q,"model":%q}`, k.name, modelName))
	w.tracef("worker %s starts", k.name)
	w.spawn(&k.host, k.name, k.run)
}

// run learns in sessions: each asks the shards how far they are, and ends with the
// first thing that goes wrong.
func (k *trainer) run(t *task) {
	for !t.dead {
		why := k.session(t)
		if t.dead {
			return
		}
		k.inFlight = 0
		if why == nil { // the end of the stream; look again later
			k.idle = k.world.steps + 40
		} else {
			k.world.tracef("%s: session ends: %v", k.name, why)
			k.idle = k.world.steps + k.world.random.IntN(10)
		}
		if t.wait(func() bool { return k.world.steps >= k.idle }) != nil {
			return
		}
	}
}

// inFlight is how many batches a worker sends before it waits for the first's answers.
const inFlight = 3

// flight is a batch that was sent.
type flight struct{ calls []*call }

func (k *trainer) session(t *task) error {
	w, a := k.world, k.assigned
	mine := a.Partitions(k.name)
	if len(mine) == 0 {
		return nil
	}
	if !k.zombie || k.routes.Version == 0 {
		routes, err := w.store.Map(context.Background())
		if err != nil {
			return err
		}
		k.routes = routes
	}
	progress, err := k.ask(t)
	if err != nil {
		return err
	}
	cursors := make(map[ps.Partition]*train.Cursor)
	for _, p := range mine {
		at := make([]ps.Offset, shards)
		for s := range at {
			at[s] = progress[s].Partitions[p].Applied
		}
		c := train.NewCursor(at)
		cursors[p] = &c
	}
	counter := contribution.New(shards, window)
	left := append([]ps.Partition(nil), mine...)
	var flights []flight
	for len(left) > 0 {
		if err := t.wait(nil); err != nil {
			return err
		}
		if k.assigned.Generation != a.Generation {
			return fmt.Errorf("assignment %d after %d", k.assigned.Generation, a.Generation)
		}
		i := w.random.IntN(len(left))
		p := left[i]
		f, ended, err := k.batch(t, p, cursors[p], counter, a.Generation)
		if err != nil {
			return err
		}
		if ended {
			left = append(left[:i], left[i+1:]...)
		}
		flights = append(flights, f)
		for k.inFlight = len(flights); len(flights) >= inFlight; k.inFlight = len(flights) {
			if err := k.acknowledged(t, flights[0]); err != nil {
				return err
			}
			flights = flights[1:]
		}
	}
	for _, f := range flights {
		if err := k.acknowledged(t, f); err != nil {
			return err
		}
	}
	return nil
}

// ask returns how far all shards are.
func (k *trainer) ask(t *task) (progress [shards]ps.ShardProgress, err error) {
	var calls []*call
	for s := range ps.ShardID(shards) {
		calls = append(calls, k.call(s, fmt.Sprintf("how far is shard %d?", s), func(n *node, _ delivery) (any, error) {
			h, err := n.shard(s)
			if err != nil {
				return nil, err
			}
			return h.shard.Progress(), nil
		}))
	}
	if err := t.wait(all(calls)); err != nil {
		return progress, err
	}
	for s, c := range calls {
		if c.err != nil {
			return progress, c.err
		}
		progress[s] = c.result.(ps.ShardProgress)
	}
	return progress, nil
}

// call sends a request to the owner of a shard, as far as the worker knows it.
func (k *trainer) call(s ps.ShardID, what string, request func(n *node, how delivery) (any, error)) *call {
	owner := ps.NodeID("nobody")
	if int(s) < len(k.routes.Shards) {
		owner = k.routes.Shards[s].Owner
	}
	return k.world.send(k.name, string(owner), what, request)
}

// batch plans the next batch of a partition, pulls what it needs and pushes.
func (k *trainer) batch(t *task, p ps.Partition, cursor *train.Cursor, counter *contribution.Counter, g ps.Generation) (f flight, ended bool, err error) {
	w := k.world
	from, end := cursor.Next(), w.stream.end(p)
	if from < w.stream.start[p] {
		w.outOfRange++
		return f, false, fmt.Errorf("partition %d begins at %d, offset %d is gone", p, w.stream.start[p], from)
	}
	to := min(from+1+ps.Offset(w.random.IntN(6)), end)
	if cuts := cursor.Cuts(); len(cuts) > 0 && !w.variant.uncut {
		to = min(to, cuts[0])
	}
	batch := w.stream.batch(p, ps.Range{From: from, To: to})
	everybody := from == end || w.random.IntN(10) == 0
	plan := w.variant.plan(cursor, &batch, counter, everybody)
	pulled, err := k.pull(t, &batch, plan)
	if err != nil {
		return f, false, err
	}
	for i := range plan.Items {
		fill(&plan.Items[i], &batch, plan.Replaying, pulled)
	}
	for _, item := range plan.Items {
		u := &ps.Update{
			Model: modelName, Stream: w.model.Stream, Layout: w.layout, Version: w.model.Version,
			Partition: p, Generation: g, To: to, Items: []ps.Item{item},
		}
		c := k.call(item.Shard, fmt.Sprintf("push [%d,%d) of partition %d to shard %d", item.From, to, p, item.Shard),
			func(n *node, how delivery) (any, error) { return n.push(u, &u.Items[0], how, k), nil })
		c.push = fmt.Sprint(item.Shard, p)
		f.calls = append(f.calls, c)
	}
	return f, from == end, nil
}

// pull reads the weights of a batch's keys, if the plan needs them.
func (k *trainer) pull(t *task, b *worker.Batch, plan train.Plan) (map[ps.Key]float32, error) {
	pulled := make(map[ps.Key]float32)
	if !plan.Score {
		return pulled, nil
	}
	var group ps.Group
	group.Fill(b.Keys, shards)
	var calls []*call
	for s := range ps.ShardID(shards) {
		from, to := group.Shard(s)
		keys := append([]ps.Key(nil), group.Keys[from:to]...)
		if len(keys) == 0 {
			continue
		}
		calls = append(calls, k.call(s, fmt.Sprintf("pull %d keys of shard %d", len(keys), s), func(n *node, _ delivery) (any, error) {
			h, err := n.shard(s)
			if err != nil {
				return nil, err
			}
			values := make([]byte, len(keys)*8)
			if err := h.shard.Gather(weights, keys, values, nil); err != nil {
				return nil, err
			}
			for i, key := range keys {
				pulled[key] = ps.View[float32](values)[2*i]
			}
			return nil, nil
		}))
	}
	if err := t.wait(all(calls)); err != nil {
		return nil, err
	}
	for _, c := range calls {
		if c.err != nil {
			return nil, c.err
		}
	}
	return pulled, nil
}

// fill sets an item's rows: gradients, figures, and what the audit counts.
func fill(item *ps.Item, b *worker.Batch, replaying bool, pulled map[ps.Key]float32) {
	series := eval.Progressive
	if replaying {
		series = eval.Replayed
	}
	var keys, figures []ps.Key
	var gradients []float32
	var counts []uint64
	var events []float64
	at := make(map[ps.Key]int)
	for i, role := range b.Roles {
		if role == worker.Skip {
			continue
		}
		o := b.From + ps.Offset(i)
		if key := eval.Key(series, eval.WindowOf(b.Partition, o, window)); ps.ShardOf(key, shards) == item.Shard {
			if len(figures) == 0 || figures[len(figures)-1] != key {
				figures, events = append(figures, key), append(events, 0)
			}
			events[len(events)-1]++
		}
		if role != worker.Train {
			continue
		}
		for _, key := range b.Keys[b.Starts[i]:b.Starts[i+1]] {
			if ps.ShardOf(key, shards) != item.Shard {
				continue
			}
			j, known := at[key]
			if !known {
				j = len(keys)
				at[key] = j
				keys, counts, gradients = append(keys, key), append(counts, 0), append(gradients, 0, 0)
			}
			counts[j]++
			gradients[2*j] += pulled[key] - b.Labels[i]
			gradients[2*j+1] += float32(o%7) / 7
		}
	}
	if len(keys) > 0 {
		item.Rows = append(item.Rows, ps.Rows{Table: weights, Keys: keys, Values: ps.Bytes(gradients)}, ps.Rows{Table: audit, Keys: keys, Values: ps.Bytes(counts)})
	}
	if len(figures) > 0 {
		item.Rows = append(item.Rows, ps.Rows{Table: sums, Keys: figures, Values: ps.Bytes(events)})
	}
}

// acknowledged waits for a batch's answers. Anything but Applied ends the session.
func (k *trainer) acknowledged(t *task, f flight) error {
	if err := t.wait(all(f.calls)); err != nil {
		return err
	}
	for _, c := range f.calls {
		if c.err != nil {
			return c.err
		}
		if a := c.result.(ps.Answer); a.Outcome != ps.Applied {
			return fmt.Errorf("shard %d answers %v: %s", a.Shard, a.Outcome, reason(a.Err))
		}
	}
	return nil
}
