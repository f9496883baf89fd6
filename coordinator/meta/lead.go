package meta

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
)

// Lead waits until no other coordinator leads, then runs lead, whose context ends
// when ctx does or when leadership is lost. id names the coordinator to people.
//
// It returns what lead returned; if leadership was lost, an error that wraps
// ps.ErrUnavailable; if ctx ended while waiting, ctx's error. The next leader may begin
// while lead is still ending, as with every lease. Leadership saves work and makes
// logs readable; that two leaders do no harm is the transactions' doing.
func (s *Store) Lead(ctx context.Context, id string, lead func(ctx context.Context) error) error {
	if err := coordinator.ValidID("coordinator", id); err != nil {
		return err
	}
	for {
		r, err := s.takeLead(ctx, id)
		if err != nil {
			return err
		}
		if r != nil {
			return r.during(ctx, lead)
		}
	}
}

// takeLead returns a registration as the leader, or nil after waiting for another
// leader to go.
func (s *Store) takeLead(ctx context.Context, id string) (*Registration, error) {
	key := s.keys.leader()
	now, err := s.read(ctx, "look for a leader", get(key))
	if err != nil {
		return nil, err
	}
	if kv := now.key(key); kv != nil {
		s.cfg.Logger.Info("another coordinator leads; waiting", "leader", string(kv.Value))
		s.follow(ctx, now.revision, key)
		return nil, context.Cause(ctx)
	}
	r, err := s.grant(ctx, "leader "+id)
	if err != nil {
		return nil, err
	}
	won, _, err := s.commit(ctx, "become the leader", []clientv3.Cmp{absent(key)},
		[]clientv3.Op{clientv3.OpPut(key, id, clientv3.WithLease(r.lease))})
	if err != nil || !won {
		r.revoke(ctx)
		return nil, err
	}
	return r, nil
}

// during runs f for as long as the registration can be kept, and then gives it up. A
// leader that has not heard of etcd for a lease's time takes its lead for lost.
func (r *Registration) during(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	kept := make(chan error, 1) // sent once
	go func() {
		err := r.keep(ctx, r.ttl)
		if err != nil {
			cancel(fmt.Errorf("leadership is over: %w", err))
		}
		kept <- err
	}()
	err := f(ctx)
	cancel(nil)
	if lost := <-kept; lost != nil {
		return lost
	}
	return err
}
