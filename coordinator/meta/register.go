package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// Registration is a process's entry among those who are there. It lasts for
// Config.LeaseTTL after Join, and from then on for as long as Run keeps it.
type Registration struct {
	store *Store
	what  string // for messages, such as "node ps-0"
	lease clientv3.LeaseID
	ttl   time.Duration
}

// JoinNode registers a parameter-server node. n.Joined is not read. The error wraps
// ps.ErrConflict if a node with its ID is there already, and ps.ErrInvalid if its ID
// or address cannot be one.
func (s *Store) JoinNode(ctx context.Context, n coordinator.Node) (*Registration, error) {
	if err := coordinator.ValidID("node", string(n.ID)); err != nil {
		return nil, err
	}
	if n.Address == "" {
		return nil, fmt.Errorf("node %s without an address to reach it at: %w", n.ID, ps.ErrInvalid)
	}
	return s.join(ctx, "node "+string(n.ID), s.keys.node(n.ID), n)
}

// JoinCoordinator registers a coordinator, as JoinNode does a node. It does not make
// it the leader; see Lead.
func (s *Store) JoinCoordinator(ctx context.Context, c coordinator.Coordinator) (*Registration, error) {
	if err := coordinator.ValidID("coordinator", c.ID); err != nil {
		return nil, err
	}
	return s.join(ctx, "coordinator "+c.ID, s.keys.coordinator(c.ID), c)
}

// WorkerRegistration is a worker's Registration, with what it reports.
type WorkerRegistration struct {
	*Registration
	report string // key
}

// JoinWorker registers a worker, as JoinNode does a node. w.Report is not read.
func (s *Store) JoinWorker(ctx context.Context, w coordinator.Worker) (*WorkerRegistration, error) {
	if err := coordinator.ValidID("worker", w.ID); err != nil {
		return nil, err
	}
	if err := coordinator.ValidModelName(w.Model); err != nil {
		return nil, fmt.Errorf("worker %s: %w", w.ID, err)
	}
	r, err := s.join(ctx, "worker "+w.ID, s.keys.worker(w.ID), w)
	if err != nil {
		return nil, err
	}
	return &WorkerRegistration{Registration: r, report: s.keys.report(w.ID)}, nil
}

// Report replaces what the worker has reported. It wakes no watch, so it may be
// called every second. The error wraps ps.ErrReplaced if the registration has run
// out, and ps.ErrTooLarge above some 20,000 partitions.
func (r *WorkerRegistration) Report(ctx context.Context, report coordinator.WorkerReport) error {
	value, err := encode("report of "+r.what, report)
	if err != nil {
		return err
	}
	request, cancel := r.store.request(ctx)
	defer cancel()
	_, err = r.store.client.Put(request, r.report, string(value), clientv3.WithLease(r.lease))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("report of %s: its registration has run out: %w", r.what, ps.ErrReplaced)
	}
	if err != nil {
		return r.store.explain(ctx, "report of "+r.what, err)
	}
	return nil
}

// join puts v at key, under a lease of its own, unless the key is there.
func (s *Store) join(ctx context.Context, what, key string, v any) (*Registration, error) {
	value, err := encode(what, v)
	if err != nil {
		return nil, err
	}
	r, err := s.grant(ctx, what)
	if err != nil {
		return nil, err
	}
	joined, _, err := s.commit(ctx, "register "+what, []clientv3.Cmp{absent(key)},
		[]clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(r.lease))})
	switch {
	case err != nil:
		r.revoke(ctx)
		return nil, err
	case !joined:
		r.revoke(ctx)
		return nil, fmt.Errorf("%s is there already; give every process an ID of its own, a restarted one too: %w", what, ps.ErrConflict)
	}
	return r, nil
}

// grant returns a registration that is a lease and no key yet.
func (s *Store) grant(ctx context.Context, what string) (*Registration, error) {
	request, cancel := s.request(ctx)
	defer cancel()
	seconds := int64((s.cfg.LeaseTTL + time.Second - 1) / time.Second)
	granted, err := s.client.Grant(request, seconds)
	if err != nil {
		return nil, s.explain(ctx, "lease for "+what, err)
	}
	return &Registration{store: s, what: what, lease: granted.ID, ttl: time.Duration(granted.TTL) * time.Second}, nil
}

// Run keeps the registration until ctx ends; then it takes it back, so that others
// see at once that the process has left, and returns nil. If the registration is gone
// (etcd did not hear of the process for a lease's time and told others so, or an
// operator removed it), Run returns an error that wraps ps.ErrUnavailable: others take
// the process for dead and it should end, or join again under another ID. Run is called
// once.
//
// While etcd does not answer, Run goes on asking. An etcd without a quorum tells nobody
// that a process has died, and gives every lease its full time again when it is back; a
// process that ended by a clock of its own would end the training that goes on
// meanwhile. One that was replaced without hearing of it does no harm: no safety rule
// reads a lease.
func (r *Registration) Run(ctx context.Context) error { return r.keep(ctx, 0) }

// keep is Run, which also ends if etcd is not heard of for silenceMax, unless that is 0.
func (r *Registration) keep(ctx context.Context, silenceMax time.Duration) error {
	every := r.ttl / 3
	heard, silent := time.Now(), false
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		asked := time.Now()
		err := r.renew(ctx, every)
		if err == nil {
			heard = asked
		}
		switch quiet := time.Since(heard); {
		case ctx.Err() != nil:
			r.revoke(ctx)
			return nil
		case errors.Is(err, rpctypes.ErrLeaseNotFound), silenceMax > 0 && quiet >= silenceMax:
			return fmt.Errorf("registration of %s is lost: etcd did not hear of it for %v, or it was removed: %w",
				r.what, r.ttl, ps.ErrUnavailable)
		case quiet >= r.ttl && !silent:
			r.store.cfg.Logger.Warn("etcd does not answer; what is known is kept", "registration", r.what, "for", quiet, "err", err)
			silent = true
		case err == nil && silent:
			r.store.cfg.Logger.Info("etcd answers again", "registration", r.what)
			silent = false
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
		}
	}
}

// renew renews the lease once, in at most so long. Each attempt may go to another of
// etcd's members, so that one that hangs does not cost the lease.
func (r *Registration) renew(ctx context.Context, most time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	_, err := r.store.client.KeepAliveOnce(bounded, r.lease)
	return err
}

// revoke takes the registration back. Where that does not work it runs out by itself,
// only later, so an error is nobody's concern.
func (r *Registration) revoke(ctx context.Context) {
	request, cancel := r.store.request(context.WithoutCancel(ctx))
	defer cancel()
	if _, err := r.store.client.Revoke(request, r.lease); err != nil {
		r.store.cfg.Logger.Debug("a registration is left to run out", "of", r.what, "after", r.ttl, "err", err)
	}
}
