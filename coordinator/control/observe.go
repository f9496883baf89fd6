package control

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// Nodes tells what nodes hold; ps/client does.
type Nodes interface {
	// Holdings returns what the node at an address owns, and its whole copies.
	Holdings(ctx context.Context, address string) ([]ps.Holding, error)
}

// How often nodes are asked, and what of.
const (
	// arrivalEvery is how often the targets of shards that move are asked whether they have
	// arrived: a good part of what a small shard takes to move.
	arrivalEvery = 20 * time.Millisecond
	// loadEvery is how often all nodes are asked how much their shards are used.
	loadEvery = 5 * time.Second
	// askTimeout bounds what one node is waited for, and askedAtOnce how many are asked at once.
	askTimeout  = time.Second
	askedAtOnce = 32
)

// loadKept is how much of the load that was known stays each time that a newer one is: what
// is planned by is the last half minute, about, so that a burst moves nothing.
const loadKept = 0.85

// observer asks nodes what they hold.
type observer struct {
	nodes   Nodes
	workers interface {
		Workers(ctx context.Context) ([]coordinator.Worker, error)
	}
	logger *slog.Logger
	views  chan coordinator.View // capacity 1: the latest
	found  chan known            // capacity 1: the latest

	loads loads
	rates map[string]float64
}

func newObserver(nodes Nodes, store Store, logger *slog.Logger) *observer {
	return &observer{nodes: nodes, workers: store, logger: logger, views: make(chan coordinator.View, 1), found: make(chan known, 1)}
}

// latest replaces what a channel of capacity 1 holds. There is one sender.
func latest[T any](to chan T, value T) {
	select {
	case <-to:
	default:
	}
	to <- value
}

// run asks the nodes of the latest view until ctx ends.
func (o *observer) run(ctx context.Context) error {
	var v coordinator.View
	loadDue := time.Now()
	next := time.NewTimer(loadEvery)
	defer next.Stop()
	for {
		select {
		case v = <-o.views:
		case <-next.C:
		case <-ctx.Done():
			return nil
		}
		asked := targets(v)
		moving, all := len(asked) > 0, !time.Now().Before(loadDue)
		if all {
			asked, loadDue = v.Nodes, time.Now().Add(loadEvery)
		}
		if len(asked) > 0 {
			holdings := o.ask(ctx, asked)
			if all {
				o.loads.take(holdings, len(v.Shards), time.Now())
				o.rates = o.workerRates(ctx)
			}
			latest(o.found, known{whole: whole(v, holdings), loads: o.loads.perShard, rates: o.rates})
		}
		if moving {
			next.Reset(arrivalEvery)
		} else {
			next.Reset(time.Until(loadDue))
		}
	}
}

// targets returns the nodes that shards move to.
func targets(v coordinator.View) (nodes []coordinator.Node) {
	is := make(map[ps.NodeID]bool)
	for _, s := range v.Shards {
		is[s.Target] = true
	}
	for _, n := range v.Nodes {
		if is[n.ID] {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// ask returns what nodes hold. One that does not answer in time is left out.
func (o *observer) ask(ctx context.Context, nodes []coordinator.Node) map[ps.NodeID][]ps.Holding {
	var mu sync.Mutex
	answers := make(map[ps.NodeID][]ps.Holding, len(nodes))
	var g errgroup.Group
	g.SetLimit(askedAtOnce)
	for _, n := range nodes {
		g.Go(func() error {
			bounded, cancel := context.WithTimeout(ctx, askTimeout)
			defer cancel()
			holdings, err := o.nodes.Holdings(bounded, n.Address)
			if err != nil {
				o.logger.Debug("a node does not tell what it holds", "node", n.ID, "err", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			answers[n.ID] = holdings
			return nil
		})
	}
	_ = g.Wait() // nobody returns an error
	return answers
}

// busyMin is how long a worker must have been busy for what it has done to say what it can
// do: a difference between workers is to be a lasting one.
const busyMin = 30.0

// workerRates returns how many events each worker learns in a second in which it has any,
// over its life; workers that have been busy for too short a time are left out.
func (o *observer) workerRates(ctx context.Context) map[string]float64 {
	workers, err := o.workers.Workers(ctx)
	if err != nil {
		o.logger.Debug("what workers can do is not known", "err", err)
		return o.rates
	}
	rates := make(map[string]float64)
	for _, w := range workers {
		if w.Report.BusySeconds >= busyMin {
			rates[w.ID] = float64(w.Report.Events) / w.Report.BusySeconds
		}
	}
	return rates
}

// whole returns the shards whose target has a whole copy of every model, of the ownership
// that there is.
func whole(v coordinator.View, holdings map[ps.NodeID][]ps.Holding) map[ps.ShardID]copied {
	models := make(map[ps.ShardID]int)
	for target, held := range holdings {
		for _, h := range held {
			if h.Copy && int(h.Shard) < len(v.Shards) && v.Shards[h.Shard].Target == target && v.Shards[h.Shard].Fence == h.Fence {
				models[h.Shard]++
			}
		}
	}
	arrived := make(map[ps.ShardID]copied)
	for id, s := range v.Shards {
		_, answered := holdings[s.Target]
		if s.Target != "" && answered && models[ps.ShardID(id)] == len(v.Models) {
			arrived[ps.ShardID(id)] = copied{s.Target, s.Fence}
		}
	}
	return arrived
}

// loads are how much shards are used.
type loads struct {
	// perShard is in keys a second, pulled and pushed, averaged over the last while; nil
	// before there are two looks. It is replaced and never changed.
	perShard []float64
	at       time.Time
	counted  map[counter]uint64
}

// counter names what was counted: the keys of a shard of a model in one life of it at a node.
type counter struct {
	node  ps.NodeID
	model string
	shard ps.ShardID
	fence ps.Fence
}

// take takes in what all nodes hold now. Of a shard that was opened since the last look, or
// whose node did not answer, nothing is learned: it is taken to be used as before, or as
// others are.
func (l *loads) take(holdings map[ps.NodeID][]ps.Holding, shards int, now time.Time) {
	counted := make(map[counter]uint64)
	grown, seen := make([]float64, shards), make([]bool, shards)
	for node, held := range holdings {
		for _, h := range held {
			if h.Copy || int(h.Shard) >= shards {
				continue
			}
			c := counter{node, h.Model, h.Shard, h.Fence}
			counted[c] = h.KeysPulled + h.KeysPushed
			if before, known := l.counted[c]; known {
				grown[h.Shard] += float64(counted[c] - min(before, counted[c]))
				seen[h.Shard] = true
			}
		}
	}
	if seconds := now.Sub(l.at).Seconds(); l.counted != nil && seconds > 0 {
		sum, n := 0.0, 0.0
		for s := range grown {
			if seen[s] {
				sum, n = sum+grown[s]/seconds, n+1
			}
		}
		next := make([]float64, shards)
		for s := range next {
			next[s] = sum / max(n, 1)
			if s < len(l.perShard) {
				next[s] = l.perShard[s]
			}
			if seen[s] {
				next[s] = loadKept*next[s] + (1-loadKept)*grown[s]/seconds
			}
		}
		l.perShard = next
	}
	l.at, l.counted = now, counted
}
