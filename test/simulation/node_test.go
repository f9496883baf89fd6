package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/delta"
	psnode "github.com/freshet-ml/freshet/ps/node"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/shard"
)

// node is one life of a parameter server. Its shards are the product's, and so is how it
// opens them; when it does what is the simulation's.
type node struct {
	host
	world   *world
	id      ps.NodeID
	address string
	// zombie: it hears no more of the cluster's map and goes on.
	zombie bool
	routes route.Map // as it has heard
	held   [shards]*held
	copies [shards]*standby // of shards it stands by for, or stood
}

// held is a shard that a node believes to own.
type held struct {
	fence ps.Fence
	shard *shard.Shard // nil while it is being opened
	// files are what the shard's rows descend from.
	files []checkpoint.File
	// busy: a snapshot is under way, for an epoch or a copy.
	busy bool
	feed *delta.Feed // nil while nobody follows
	// lineage is the one that it was opened in.
	lineage uint64
}

// startNode begins another life at a place. It joins at once.
func (w *world) startNode(place int) {
	w.lives++
	id := fmt.Sprintf("n%d.%d", place, w.lives)
	n := &node{host: host{name: id, alive: true}, world: w, id: ps.NodeID(id), address: fmt.Sprintf("host%d:1", place)}
	w.nodes[id] = n
	w.places[place] = n
	w.register.set(nodesPrefix+id, fmt.Appendf(nil, `{"id":%q,"address":%q}`, id, n.address))
	w.tracef("node %s starts", id)
}

// learn takes in the newest map, as a watch brings it.
func (n *node) learn(m route.Map) {
	if n.zombie || m.Version <= n.routes.Version {
		return
	}
	n.routes = m
	owned := m.Owned(n.id)
	var missing []ps.ShardID
	for s := range n.held {
		id := ps.ShardID(s)
		fence, owns := owned[id]
		if h := n.held[s]; h != nil && (!owns || h.fence != fence) {
			if h.feed != nil {
				h.feed.Close()
			}
			n.held[s] = nil
		}
		if owns && n.held[s] == nil {
			n.held[s] = &held{fence: fence}
			missing = append(missing, id)
		}
	}
	n.standBy(m.Copies(n.id))
	if len(missing) > 0 {
		n.world.tracef("node %s is given shards %v", n.id, missing)
		n.world.spawn(&n.host, string(n.id)+" opening", func(t *task) { n.open(t, missing, owned) })
	}
}

// open loads shards from the newest epoch, and tries until it can.
func (n *node) open(t *task, missing []ps.ShardID, owned map[ps.ShardID]ps.Fence) {
	w := n.world
	for len(missing) > 0 && !t.dead {
		epoch, err := w.store.Epoch(context.Background(), modelName)
		if err != nil {
			continue
		}
		epoch = w.variant.restored(epoch)
		missing = slices.DeleteFunc(missing, func(id ps.ShardID) bool {
			lineage := w.lineage.number
			restored, files, promoted, err := n.restore(id, owned[id], epoch)
			if err != nil {
				return false
			}
			w.examine(restored)
			if promoted {
				lineage = n.copies[id].lineage
				w.tracef("node %s promotes its copy of shard %d", n.id, id)
			}
			if t.wait(nil) == nil {
				n.install(id, owned[id], &held{fence: owned[id], shard: restored, files: files, lineage: lineage}, promoted)
			}
			return true
		})
	}
}

// restore is the product's way to open a shard.
func (n *node) restore(id ps.ShardID, fence ps.Fence, epoch checkpoint.Epoch) (*shard.Shard, []checkpoint.File, bool, error) {
	w := n.world
	config := shard.Config{Model: w.model, ID: id, Shards: shards, Fence: fence}
	c := n.copies[id]
	if c == nil {
		return psnode.Restore(context.Background(), w.model, config, epoch, w.bucket, nil, slog.New(slog.DiscardHandler))
	}
	if w.variant.promotesAny {
		if s := c.replay(config); s != nil {
			return s, nil, true, nil
		}
	}
	return psnode.Restore(context.Background(), w.model, config, epoch, w.bucket, &c.Standby, slog.New(slog.DiscardHandler))
}

// install takes in a shard that was opened, unless it is owned no more.
func (n *node) install(id ps.ShardID, fence ps.Fence, opened *held, promoted bool) {
	h := n.held[id]
	if h == nil || h.fence != fence || h.shard != nil {
		return
	}
	*h = *opened
	w := n.world
	w.tracef("node %s opens shard %d, fence %d, at %v", n.id, id, fence, applied(h.shard))
	owner := w.shardMap()[id]
	if owner.Owner != n.id || owner.Fence != fence {
		return
	}
	if promoted {
		w.bite(promotion)
		if w.moved[id] == fence {
			w.bite(moving)
		}
		if h.lineage != w.lineage.number {
			w.failf("invariant 13: the copy of shard %d that is promoted is of lineage %d, the model of %d", id, h.lineage, w.lineage.number)
		}
	}
	w.examineFiles(id, h.files, "a shard is restored")
	if m, ok := w.newest(); ok && len(w.disk.damaged) == 0 && h.shard.Progress().Seq < m.Shards[id].Seq {
		w.failf("invariant 7: shard %d is restored at seq %d, the newest epoch has %d, and nothing is damaged", id, h.shard.Progress().Seq, m.Shards[id].Seq)
	}
	for p, o := range applied(h.shard) {
		if o < w.stream.start[p] {
			w.failf("invariant 7: the owner of shard %d has applied partition %d up to %d, the stream was trimmed up to %d", id, p, o, w.stream.start[p])
		}
	}
}

func applied(s *shard.Shard) []ps.Offset {
	var offsets []ps.Offset
	for _, p := range s.Progress().Partitions {
		offsets = append(offsets, p.Applied)
	}
	return offsets
}

// shard returns a shard that the node believes to own.
func (n *node) shard(id ps.ShardID) (*held, error) {
	h := n.held[id]
	switch {
	case h == nil:
		return nil, fmt.Errorf("shard %d: %w", id, ps.ErrNotOwner)
	case h.shard == nil:
		return nil, fmt.Errorf("shard %d is being opened: %w", id, ps.ErrNoOwner)
	}
	return h, nil
}

// push judges an item, and notes which faults have bitten by what became of it.
func (n *node) push(u *ps.Update, item *ps.Item, how delivery, by *trainer) ps.Answer {
	h, err := n.shard(item.Shard)
	if err != nil {
		return ps.Answer{Shard: item.Shard, Outcome: ps.Refused, Err: err}
	}
	w := n.world
	a := w.variant.push(h.shard, u, item)
	w.judged++
	w.outcomes[a.Outcome]++
	w.tracef("  shard %d at %s: [%d,%d) of partition %d: %v, applied %d %s", item.Shard, n.id, item.From, u.To, u.Partition, a.Outcome, a.Applied, reason(a.Err))
	if a.Outcome == ps.Applied {
		w.applied += int(u.To - item.From)
		w.examine(h.shard)
		if owner := w.shardMap()[item.Shard]; owner.Owner != n.id || owner.Fence != h.fence {
			w.bite(zombieNode)
		}
	}
	switch {
	case how.duplicate && a.Outcome == ps.Duplicate:
		w.bite(duplicate)
	case how.overtook && a.Outcome == ps.Gap:
		w.bite(reorder)
	case how.late:
		w.bite(late)
	}
	if by.zombie && (a.Outcome != ps.Refused || errors.Is(a.Err, ps.ErrReplaced)) {
		w.bite(zombieWorker)
	}
	return a
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// takeSnapshots writes the wanted shards, one after the other.
func (n *node) takeSnapshots(t *task, wants []checkpoint.Want) []checkpoint.Taken {
	var all []checkpoint.Taken
	for _, want := range wants {
		taken, err := n.takeSnapshot(t, want)
		if taken.Err = err; err != nil {
			n.world.tracef("node %s: no snapshot of shard %d: %v", n.id, want.Shard, err)
		}
		all = append(all, taken)
	}
	return all
}

// takeSnapshot does what the product's node does, while pushes go on between blocks.
func (n *node) takeSnapshot(t *task, want checkpoint.Want) (checkpoint.Taken, error) {
	taken := checkpoint.Taken{Shard: want.Shard}
	h, err := n.shard(want.Shard)
	if err != nil {
		return taken, err
	}
	if err := t.wait(func() bool { return !h.busy || n.held[want.Shard] != h }); err != nil {
		return taken, err
	}
	if n.held[want.Shard] != h {
		return taken, fmt.Errorf("shard %d was opened anew: %w", want.Shard, ps.ErrNoOwner)
	}
	progress := h.shard.Progress()
	taken.Fence, taken.Seq, taken.Applied = progress.Fence, progress.Seq, applied(h.shard)
	parent, descends := checkpoint.File{}, false
	for _, f := range h.files {
		if f.Hash == want.Parent && want.Parent != (checkpoint.Hash{}) {
			parent, descends = f, true
		}
	}
	if descends && parent.Seq == progress.Seq || progress.Seq == 0 {
		return taken, nil
	}
	snapshot, err := h.shard.Snapshot(parent.Seq)
	if err != nil {
		return taken, err
	}
	h.busy = true
	defer func() { h.busy = false }()
	defer snapshot.Close()
	if taken.File, err = n.write(t, h, snapshot, parent); err == nil {
		h.files = append(h.files, taken.File)
	}
	return taken, err
}

func (n *node) write(t *task, h *held, snapshot *shard.Snapshot, parent checkpoint.File) (checkpoint.File, error) {
	w, of := n.world, snapshot.Head()
	head := checkpoint.Head{
		Model: modelName, Version: w.model.Version, Layout: w.model.Layout.Hash(), Stream: w.model.Stream,
		Shard: of.Shard, Shards: shards, Fence: of.Fence, Seq: of.Seq, Stored: of.Rows,
		Parent: parent.Ref, Since: of.Since, Partitions: of.Partitions,
	}
	for i, stride := range h.shard.Strides() {
		head.Tables = append(head.Tables, checkpoint.Table{Kind: w.model.Layout.Tables[i].Kind, Stride: stride})
	}
	writer, err := checkpoint.Create(context.Background(), w.bucket, checkpoint.Name(&head, w.random.Uint64()), head)
	if err != nil {
		return checkpoint.File{}, err
	}
	defer writer.Abort()
	buffer := make([]byte, 4<<10)
	for {
		block, err := snapshot.Read(buffer)
		if errors.Is(err, io.EOF) {
			return writer.Close()
		}
		if err == nil && len(block.Rows) > 0 {
			err = writer.Rows(block.Table, block.Stride, block.Rows)
		}
		if err == nil {
			err = t.wait(nil)
		}
		if err != nil {
			return checkpoint.File{}, err
		}
	}
}
