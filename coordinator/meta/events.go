package meta

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// eventsSlack is how many events there may be beyond coordinator.EventsMax before the oldest
// are deleted, so that not every event costs a deletion.
const eventsSlack = 200

// Record adds events to the cluster's log, which keeps the newest coordinator.EventsMax. At is
// set where it is 0.
func (s *Store) Record(ctx context.Context, events ...coordinator.Event) error {
	puts, err := s.recordOps(events)
	if err != nil || len(puts) == 0 {
		return err
	}
	if _, _, err := s.commit(ctx, "record an event", nil, puts); err != nil {
		return err
	}
	s.forgetEvents(ctx, len(events))
	return nil
}

// recordOps returns what records events as a part of a transaction. Of a long text the
// beginning is kept: an event is no reason for a change to fail.
func (s *Store) recordOps(events []coordinator.Event) ([]clientv3.Op, error) {
	ops := make([]clientv3.Op, 0, len(events))
	for _, e := range events {
		if e.At == 0 {
			e.At = time.Now().UnixMilli()
		}
		e.What, e.Why, e.By = cut(e.What), cut(e.Why), cut(e.By)
		value, err := encode("event", e)
		if err != nil {
			return nil, err
		}
		random := make([]byte, 4)
		if _, err := rand.Read(random); err != nil {
			return nil, fmt.Errorf("name of an event: %w", err)
		}
		// Old ones are found by the time, and those given together are in their order.
		key := fmt.Sprintf("%s%015d-%03d-%s", s.keys.events(), e.At, len(ops), hex.EncodeToString(random))
		ops = append(ops, clientv3.OpPut(key, string(value)))
	}
	return ops, nil
}

// cut bounds a text of an event.
func cut(text string) string {
	const most = coordinator.EventBytesMax / 4
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}

// forgetEvents deletes the oldest events if there are too many, after so many were recorded.
// That it does not succeed is no reason for anything to fail: the next one tries again.
func (s *Store) forgetEvents(ctx context.Context, recorded int) {
	if recorded == 0 {
		return
	}
	if err := s.deleteOldEvents(ctx); err != nil {
		s.cfg.Logger.Debug("old events are kept", "err", err)
	}
}

func (s *Store) deleteOldEvents(ctx context.Context) error {
	request, cancel := s.request(ctx)
	defer cancel()
	prefix := s.keys.events()
	counted, err := s.client.Get(request, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	surplus := counted.Count - coordinator.EventsMax
	if surplus < eventsSlack {
		return nil
	}
	oldest, err := s.client.Get(request, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(surplus+1))
	if err != nil || len(oldest.Kvs) == 0 {
		return err
	}
	_, err = s.client.Delete(request, prefix, clientv3.WithRange(string(oldest.Kvs[len(oldest.Kvs)-1].Key)))
	return err
}

// Events returns the newest events of the cluster's log, at most so many, oldest first.
func (s *Store) Events(ctx context.Context, most int) ([]coordinator.Event, error) {
	if most < 1 || most > coordinator.EventsMax {
		return nil, fmt.Errorf("%d events are asked for: want 1 to %d: %w", most, coordinator.EventsMax, ps.ErrInvalid)
	}
	request, cancel := s.request(ctx)
	defer cancel()
	got, err := s.client.Get(request, s.keys.events(), clientv3.WithPrefix(), clientv3.WithLimit(int64(most)),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend))
	if err != nil {
		return nil, s.explain(ctx, "read events", err)
	}
	// Clocks of several coordinators differ, and a millisecond has room for many; revisions do
	// not lie. Those of one transaction are in the order of their names.
	slices.SortFunc(got.Kvs, func(a, b *mvccpb.KeyValue) int {
		return cmp.Or(cmp.Compare(a.CreateRevision, b.CreateRevision), bytes.Compare(a.Key, b.Key))
	})
	events := make([]coordinator.Event, len(got.Kvs))
	for i, kv := range got.Kvs {
		if err := decode("event", kv.Value, &events[i]); err != nil {
			return nil, err
		}
	}
	return events, nil
}
