// Package meta keeps what a cluster agrees on in etcd: who is there, who owns which
// shard, which models exist and who reads their partitions. Nobody else sees a key,
// a lease or a transaction. It plans nothing and decides nothing; coordinator/control
// does. The keys are drawn in DESIGN.md.
//
// The one idea to keep in mind: a watch is a read that is repeated. Whatever happened
// (an event, a compaction, a broken connection), the answer is to read again at one
// revision and to go on from there, so there is one code path and the latest wins.
//
// Invariants: the number of shards never changes; a fence never falls, and rises with
// every change of owner; a generation rises by one with every assignment.
package meta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/ps"
)

// Config is what a Store needs.
type Config struct {
	// Endpoints are etcd's, as http://host:port, https://host:port or host:port.
	Endpoints []string
	// TLS is used for https endpoints.
	TLS *tls.Config
	// Cluster names the cluster. Several may share an etcd. Default: "default".
	Cluster string
	// LeaseTTL is how long a process that has gone silent is still taken to be there;
	// etcd counts whole seconds and no fewer than 1. Shorter notices a crash sooner,
	// and a pause for one by mistake. Default: 5 s.
	LeaseTTL time.Duration
	// DialTimeout bounds Dial. Default: 5 s.
	DialTimeout time.Duration
	// RequestTimeout bounds every request after it. Default: 5 s, in which etcd has
	// elected a new leader if it lost one.
	RequestTimeout time.Duration
	// Logger is told when etcd goes away and comes back. Default: discarded.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Cluster == "" {
		c.Cluster = "default"
	}
	if err := coordinator.ValidID("cluster", c.Cluster); err != nil {
		return err
	}
	if len(c.Endpoints) == 0 {
		return fmt.Errorf("no etcd endpoints: %w", ps.ErrInvalid)
	}
	for _, d := range []*time.Duration{&c.LeaseTTL, &c.DialTimeout, &c.RequestTimeout} {
		if *d == 0 {
			*d = 5 * time.Second
		}
	}
	if c.LeaseTTL < time.Second || c.DialTimeout < 0 || c.RequestTimeout < 0 {
		return fmt.Errorf("lease of %v, dial timeout %v, request timeout %v: want at least 1s and nothing negative: %w",
			c.LeaseTTL, c.DialTimeout, c.RequestTimeout, ps.ErrInvalid)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is one process's connection to what a cluster has stored. It is safe for
// concurrent use.
//
// Errors of its methods wrap ps.ErrUnavailable if etcd could not be reached or did
// not answer in time (whether a change was made is then not known; all changes may
// be tried again), and the error of ctx if that is what ended the call.
//
// What a watch gives may not be written to: the watch compares the next value with it.
type Store struct {
	cfg    Config
	keys   keys
	client *clientv3.Client

	watches sync.WaitGroup // goroutines that feed a watch's channel

	mu     sync.Mutex
	closed bool
	ends   map[*watchEnd]bool // of the watches that run
}

// watchEnd ends a watch. Its address names it.
type watchEnd struct{ cancel context.CancelFunc }

// Dial connects to etcd and makes sure that it answers. If it does not within
// DialTimeout, the error wraps ps.ErrUnavailable and names the endpoints. The caller
// closes the Store.
func Dial(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: cfg.Endpoints,
		TLS:       cfg.TLS,
		// A server that vanished without a word is noticed within a lease.
		DialKeepAliveTime:    10 * time.Second, // etcd refuses pings below 5 s
		DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream:  true,
		Logger:               zap.NewNop(), // errors are returned, and logged by who gets them
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %s: %w: %w", strings.Join(cfg.Endpoints, ", "), ps.ErrInvalid, err)
	}
	s := newStore(cfg, client)

	// Creating a client contacts nobody, so the first request does it.
	first, cancel := context.WithTimeout(ctx, cfg.DialTimeout)
	defer cancel()
	if _, err := client.Get(first, s.keys.cluster(), clientv3.WithKeysOnly()); err != nil {
		_ = client.Close() // err says more
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v", cfg.DialTimeout)
		}
		return nil, s.explain(ctx, "reach etcd at "+strings.Join(cfg.Endpoints, ", "), err)
	}
	return s, nil
}

// New returns a Store that speaks through a client that is there already, such as one
// to an etcd within the process. It contacts nobody. Endpoints and TLS are not read.
// Closing the Store closes the client.
func New(cfg Config, client *clientv3.Client) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = []string{"within the process"}
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return newStore(cfg, client), nil
}

func newStore(cfg Config, client *clientv3.Client) *Store {
	return &Store{cfg: cfg, keys: keys("/freshet/" + cfg.Cluster + "/"), client: client, ends: make(map[*watchEnd]bool)}
}

// Close ends every watch, waits for their goroutines and closes the connection. It
// does not end registrations or leadership: those end with their own contexts, which
// should be before.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	for end := range s.ends {
		end.cancel()
	}
	s.mu.Unlock()
	s.watches.Wait()
	_ = s.client.Close() // nothing is under way that it could tell of
}

// begin counts a watch in and returns its context and what it calls at its end; false
// if the Store is closed.
func (s *Store) begin(ctx context.Context) (context.Context, func(), bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ctx, nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	end := &watchEnd{cancel}
	s.ends[end] = true
	s.watches.Add(1)
	return ctx, func() {
		cancel()
		s.mu.Lock()
		delete(s.ends, end)
		s.mu.Unlock()
		s.watches.Done()
	}, true
}

// request returns the context of one request of ctx.
func (s *Store) request(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.cfg.RequestTimeout)
}

// explain says what etcd's client returned while something was being done for ctx. It
// quotes that error and does not wrap it: whether it is a status of gRPC or a deadline
// of ours, it means nothing to who gets it, and must not pass for the answer to them.
func (s *Store) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	refused := rpctypes.Error(err)
	condition := ps.ErrUnavailable
	if errors.Is(refused, rpctypes.ErrRequestTooLarge) {
		condition = ps.ErrTooLarge
	}
	for _, lasting := range []error{
		rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrUserEmpty,
	} {
		if errors.Is(refused, lasting) {
			condition = ps.ErrInvalid
		}
	}
	return fmt.Errorf("%s: %w: %v", doing, condition, err) //nolint:errorlint // err may be of a context of ours
}

// read performs gets at one revision. The answers are in the order of the gets.
func (s *Store) read(ctx context.Context, doing string, gets ...clientv3.Op) (*reading, error) {
	_, now, err := s.commit(ctx, doing, nil, gets)
	return now, err
}

// commit performs the first operations if all conditions hold, and the others if not.
// It tells which, and what their gets found.
func (s *Store) commit(ctx context.Context, doing string, conditions []clientv3.Cmp, then []clientv3.Op, otherwise ...clientv3.Op) (bool, *reading, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed { // etcd's client would try for seconds
		return false, nil, fmt.Errorf("%s: the connection to etcd is closed: %w", doing, ps.ErrUnavailable)
	}
	request, cancel := s.request(ctx)
	defer cancel()
	got, err := s.client.Txn(request).If(conditions...).Then(then...).Else(otherwise...).Commit()
	if err != nil {
		return false, nil, s.explain(ctx, doing, err)
	}
	return got.Succeeded, newReading(got), nil
}
