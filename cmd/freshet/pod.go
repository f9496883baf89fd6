package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/replica"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/predict/breaker"
	"github.com/freshet-ml/freshet/worker/predict/server"
	"github.com/freshet-ml/freshet/worker/predict/traffic"
)

const (
	// podLooks is how often a pod asks for newer epochs, and how well the model does.
	podLooks = 2 * time.Second
	// pinMax bounds the time to read an epoch.
	pinMax = 10 * time.Minute
)

// podConfig is what a pod is made of.
type podConfig struct {
	cluster  *cluster
	choices  []choice // the first one's freshness is the pod's
	encoding ps.Encoding
	secret   []byte
	items    *predict.Items
	bounds   breaker.Bounds
	goodAge  time.Duration
	metrics  prometheus.Registerer
	logger   *slog.Logger
}

// pod serves one model by one or more versions.
type pod struct {
	config   podConfig
	versions []*podVersion
	served   []server.Model
}

// podVersion is one version of the model: its parameters in memory, and who scores by them.
type podVersion struct {
	choice  choice
	cluster *cluster
	logger  *slog.Logger
	goodAge time.Duration
	replica *replica.Replica
	scorer  *predict.Scorer
	breaker *breaker.Breaker
	losses  bool // the breaker is told of them
	frozen  prometheus.Gauge
	pinned  ps.Epoch // owned by run
}

// newPod returns a pod that has no parameters until run.
func newPod(c podConfig) (*pod, error) {
	p := &pod{config: c}
	var shares []traffic.Version
	for _, choice := range c.choices {
		v, err := newPodVersion(c, choice)
		if err != nil {
			return nil, err
		}
		p.versions = append(p.versions, v)
		shares = append(shares, traffic.Version{Name: choice.String(), Predictions: v.scorer, Share: choice.share, Said: v.breaker.Predicted})
	}
	split, err := traffic.New(traffic.Config{Model: c.cluster.model.Name, Versions: shares, Metrics: c.metrics})
	if err != nil {
		return nil, err
	}
	p.served = []server.Model{{Name: c.cluster.model.Name, Predictions: split, Served: p.fresh}}
	return p, nil
}

func newPodVersion(c podConfig, choice choice) (*podVersion, error) {
	model := c.cluster.model
	v := &podVersion{choice: choice, cluster: c.cluster, logger: c.logger.With("version", choice.String()), goodAge: c.goodAge}
	metrics := prometheus.WrapRegistererWith(prometheus.Labels{"version": choice.String()}, c.metrics)
	v.frozen = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "freshet_version_frozen", Help: "1 while a version is kept at a good state because predictions or losses have left their bounds.",
		ConstLabels: prometheus.Labels{"model": model.Name},
	})
	if err := metrics.Register(v.frozen); err != nil {
		return nil, err
	}
	var err error
	if v.breaker, err = breaker.New(c.bounds); err != nil {
		return nil, usageError{err}
	}
	tables, err := chosenTables(model.Model, nil, false)
	if err != nil {
		return nil, err
	}
	if figures, _, ok := model.Layout.Table(eval.FiguresTable); ok && c.bounds.LossMax > 0 && choice.live {
		tables, v.losses = append(tables, figures), true
	}
	if v.replica, err = replica.New(replica.Config{
		Source: c.cluster.client, Model: model.Model, Shards: c.cluster.shards, Tables: tables, Encoding: c.encoding,
		Changed: func(table ps.TableID, keys []ps.Key) { v.scorer.Changed(table, keys) },
		Swapped: func(ps.ShardID) { v.scorer.Reload() },
		Metrics: metrics, Logger: v.logger,
	}); err != nil {
		return nil, err
	}
	v.scorer, err = predict.NewScorer(predict.ScorerConfig{
		Model: model.Model, Spec: c.cluster.spec, Shards: c.cluster.shards, Parameters: parameters{v.replica},
		Secret: c.secret, Items: c.items, Logger: v.logger,
	})
	return v, err
}

// parameters are a replica, as predict asks of it.
type parameters struct{ *replica.Replica }

// Fresh implements predict.Parameters.
func (p parameters) Fresh() predict.Fresh {
	f := p.Replica.Fresh()
	fresh := predict.Fresh{Parameters: "live", Applied: f.Applied, EventTime: f.EventTime, Age: f.Age}
	if f.Epoch > 0 {
		fresh.Parameters = fmt.Sprintf("epoch %d", f.Epoch)
	}
	return fresh
}

// models returns what is served.
func (p *pod) models() []server.Model { return p.served }

// fresh says how fresh the first version is, or that some version has no parameters yet.
func (p *pod) fresh() (predict.Served, error) {
	for _, v := range p.versions {
		select {
		case <-v.replica.Ready():
		default:
			return predict.Served{}, fmt.Errorf("version %v does not have all weights yet: %w", v.choice, ps.ErrUnavailable)
		}
	}
	return predict.Served{Version: p.config.cluster.model.Version, Fresh: parameters{p.versions[0].replica}.Fresh()}, nil
}

// run keeps all versions fresh until ctx ends.
func (p *pod) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, v := range p.versions {
		g.Go(func() error { return v.run(ctx) })
		g.Go(func() error { return v.scorer.Run(ctx) })
	}
	return g.Wait()
}

// run keeps the version fresh until ctx ends, and at a good state while its breaker is
// tripped. It returns an error if it can never have parameters.
func (v *podVersion) run(ctx context.Context) error {
	for ctx.Err() == nil {
		following, stop := context.WithCancel(ctx)
		g, following := errgroup.WithContext(following)
		g.Go(func() error { return v.follow(following) })
		g.Go(func() error { return v.watchLosses(following) })
		g.Go(func() error {
			select {
			case <-v.breaker.Tripped():
				stop()
			case <-following.Done():
			}
			return nil
		})
		err := g.Wait()
		stop()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("version %v: %w", v.choice, err)
		}
		v.freeze(ctx)
	}
	return nil
}

// follow brings the version up to date and keeps it so until ctx ends.
func (v *podVersion) follow(ctx context.Context) error {
	if v.choice.live {
		return v.replica.Follow(ctx)
	}
	for {
		err := v.pin(ctx, func(e coordinator.EpochStatus) bool { return v.choice.epoch == 0 || e.Epoch == v.choice.epoch })
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !retried(err):
			return err
		case err != nil:
			v.logger.Warn("the epoch is not served yet; trying again", "error", err, "in", podLooks)
		}
		if rest(ctx, podLooks) != nil {
			return nil
		}
	}
}

// retried reports whether asking again later can help: a bucket or coordinator is away, an
// epoch was collected while it was read, or there is none yet.
func retried(err error) bool {
	return isAny(err, ps.ErrUnavailable, ps.ErrCorrupt, context.DeadlineExceeded, errNoEpoch)
}

// errNoEpoch says that there is no epoch that would do.
var errNoEpoch = errors.New("there is no such epoch")

// pin serves the newest epoch that will do, unless it is served already.
func (v *podVersion) pin(ctx context.Context, will func(coordinator.EpochStatus) bool) error {
	asking, cancel := context.WithTimeout(ctx, adminMax)
	defer cancel()
	list, err := v.cluster.admin.Epochs(asking, v.cluster.model.Name)
	if err != nil {
		return err
	}
	for _, e := range list.Epochs {
		if !will(e) {
			continue
		}
		if e.Epoch == v.pinned {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, pinMax)
		defer cancel()
		bucket, err := checkpoint.OpenBucket(ctx, list.Bucket)
		if err != nil {
			return err
		}
		defer bucket.Close()
		m, err := checkpoint.ReadManifest(ctx, bucket, e.Manifest)
		if err != nil {
			return err
		}
		began := time.Now()
		v.pinned = 0 // some shards are of the next from now on
		if err := v.replica.Pin(ctx, bucket, m); err != nil {
			return err
		}
		v.pinned = e.Epoch
		v.logger.Info("an epoch is served", "epoch", e.Epoch, "lineage", e.Lineage, "events", e.Events, "took", time.Since(began).Round(time.Millisecond))
		return nil
	}
	if v.choice.epoch != 0 && v.pinned == v.choice.epoch {
		return nil // it is kept no longer, and served all the same
	}
	return fmt.Errorf("model %s keeps no epoch that is asked for (see freshet epochs): %w", v.cluster.model.Name, errNoEpoch)
}

// freeze keeps the version at a good state until the model is set back: an epoch from before
// the breaker tripped, or what is served if there is none or it cannot be read.
func (v *podVersion) freeze(ctx context.Context) {
	v.frozen.Set(1)
	defer v.frozen.Set(0)
	v.logger.Error("the circuit breaker has tripped: the version does not follow until the model is set back (freshet rollback)", "because", v.breaker.Reason())
	lineage := v.lineage()
	before := time.Now().Add(-v.goodAge).UnixMilli()
	settled := v.choice.epoch != 0 // it is one epoch's, and whoever pinned that decides
	for first := true; ; first = false {
		if !settled {
			err := v.pin(ctx, func(e coordinator.EpochStatus) bool { return e.Created <= before && e.Lineage <= lineage })
			settled = err == nil || !retried(err) || errors.Is(err, errNoEpoch)
			if err != nil && (first || settled) {
				v.logger.Warn("what is served stays as it is", "because", err)
			}
		}
		if rest(ctx, podLooks) != nil {
			return
		}
		asking, cancel := context.WithTimeout(ctx, adminMax)
		list, err := v.cluster.admin.Epochs(asking, v.cluster.model.Name)
		cancel()
		if err == nil && len(list.Epochs) > 0 && list.Epochs[0].Lineage > lineage {
			v.logger.Info("the model was set back: the version follows again", "lineage", list.Epochs[0].Lineage)
			v.pinned = 0
			v.breaker.Reset()
			return
		}
	}
}

// lineage returns the newest of the lineages that are served.
func (v *podVersion) lineage() (newest uint64) {
	for _, s := range v.replica.Shards() {
		newest = max(newest, s.Lineage)
	}
	return newest
}

// watchLosses tells the breaker how well the model does, until ctx ends.
func (v *podVersion) watchLosses(ctx context.Context) error {
	if !v.losses {
		return nil
	}
	select {
	case <-v.replica.Ready():
	case <-ctx.Done():
		return nil
	}
	summary, err := eval.NewSummary(eval.SummaryConfig{
		// Without the histogram: losses are all that is looked at.
		Layout: v.cluster.model.Layout, Window: v.cluster.spec.Evaluation.Window, Pull: pullRows(v.replica, v.cluster.model.Model, v.cluster.shards),
	})
	if err != nil {
		return err
	}
	for rest(ctx, podLooks) == nil {
		if err := summary.Update(ctx, v.applied()); err != nil {
			v.logger.Debug("how well the model does is not known", "error", err)
			continue
		}
		figures := summary.Figures(eval.Progressive)
		v.breaker.Learned(figures.Losses, figures.Weight)
	}
	return nil
}

// applied returns, by partition, what all shards of the replica have applied and what the
// furthest has.
func (v *podVersion) applied() []ps.Range {
	ranges := make([]ps.Range, v.cluster.model.Partitions)
	for p := range ranges {
		ranges[p].From = math.MaxUint64
	}
	for _, s := range v.replica.Shards() {
		for p, applied := range s.Applied {
			ranges[p].From, ranges[p].To = min(ranges[p].From, applied), max(ranges[p].To, applied)
		}
	}
	return ranges
}
