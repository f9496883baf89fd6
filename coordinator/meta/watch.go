package meta

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// watching says what a watch gives.
type watching[T any] struct {
	what string // for messages
	// prefixes of the keys whose changes matter.
	prefixes []string
	// read returns the value and the revision it is of; ok is false while there is
	// none to give.
	read func(ctx context.Context) (value T, revision int64, ok bool, err error)
	// same reports whether a value read again need not be given again.
	same func(given, now T) bool
}

// Waits between attempts to read while etcd does not answer.
const (
	retryMin = 100 * time.Millisecond
	retryMax = 2 * time.Second
)

// watch gives the value as it is and then whenever it has changed, until ctx or the
// Store ends; then the channel is closed. The channel holds one value, the latest:
// who is slow misses those between and never the last.
func watch[T any](ctx context.Context, s *Store, w watching[T]) <-chan T {
	values := make(chan T, 1)
	ctx, end, ok := s.begin(ctx)
	if !ok {
		close(values)
		return values
	}
	go func() {
		defer end()
		defer close(values)
		feed(ctx, s, w, values)
	}()
	return values
}

// feed reads, gives, and waits for a change, again and again. Whatever went wrong in
// between, reading again puts it right.
func feed[T any](ctx context.Context, s *Store, w watching[T], values chan T) {
	var given *T
	retry := time.Duration(0)
	for {
		value, revision, ok, err := w.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if retry == 0 {
				s.cfg.Logger.Warn("a watch cannot be read; what is known is kept, and it is tried again", "for", w.what, "err", err)
			}
			retry = min(max(2*retry, retryMin), retryMax)
			pause(ctx, retry)
			continue
		}
		if retry > 0 {
			s.cfg.Logger.Info("a watch is read again", "for", w.what, "revision", revision)
			retry = 0
		}
		if ok && (given == nil || !w.same(*given, value)) {
			given = &value
			offer(values, value)
		}
		s.follow(ctx, revision, w.prefixes...)
	}
}

// offer puts a value in place of one that was not taken. Only one goroutine may offer.
func offer[T any](values chan T, value T) {
	select {
	case <-values:
	default:
	}
	values <- value // there is room: nobody else puts anything in
}

// follow returns when a key below one of prefixes has changed after the revision, or
// may have: when the connection was lost, history was compacted, or ctx has ended. Where etcd refuses to tell, it waits a moment, so that its caller may read
// again at once in any case.
func (s *Store) follow(ctx context.Context, revision int64, prefixes ...string) {
	// A member that has lost its leader would keep silent otherwise.
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changed := make(chan bool, len(prefixes)) // one for each goroutine
	for _, prefix := range prefixes {
		go func() {
			events := s.client.Watch(watching, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
			select {
			case event, ok := <-events:
				changed <- ok && event.Err() == nil
			case <-watching.Done():
				changed <- false
			}
		}()
	}
	told := <-changed
	cancel()
	for range len(prefixes) - 1 {
		<-changed
	}
	if !told {
		pause(ctx, retryMin)
	}
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
