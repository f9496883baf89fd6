// Package client pulls from and pushes to a cluster of parameter servers. It is
// what workers and inference pods link.
//
// It knows the shard map, cuts every request by node, asks the nodes at the same
// time, and asks again where the map had changed or a node was gone. A pull can
// always be repeated; a push is never repeated here, because only its sender
// knows where to go on (see Push).
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Routes gives the shard map: the current one first, then newer ones; it may skip
// maps that were overtaken. Its channel is closed when ctx ends.
type Routes interface {
	WatchMap(ctx context.Context) <-chan route.Map
}

// Config is what a client needs.
type Config struct {
	// Routes says where shards are; see Addresses for those who have no etcd.
	Routes Routes
	Logger *slog.Logger
	// DialOptions are added to the client's own. Without credentials among them,
	// connections are in clear text.
	DialOptions []grpc.DialOption
	// AttemptMax bounds one attempt at one node, so that a node that hangs is
	// asked again. Default 5 s.
	AttemptMax time.Duration
}

func (c *Config) validate() error {
	if c.Routes == nil || c.Logger == nil {
		return fmt.Errorf("a client needs routes and a logger: %w", ps.ErrInvalid)
	}
	if c.AttemptMax < 0 {
		return fmt.Errorf("a client whose attempts last at most %v: %w", c.AttemptMax, ps.ErrInvalid)
	}
	if c.AttemptMax == 0 {
		c.AttemptMax = 5 * time.Second
	}
	return nil
}

// dialOptions are the settings of every connection. The windows hold the largest
// usual reply whole; a dead node is noticed within keep-alive time plus timeout,
// and one that is back at its address within a second (gRPC by itself would wait
// up to two minutes between attempts to connect).
func dialOptions(more []grpc.DialOption) []grpc.DialOption {
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithReadBufferSize(256 << 10),
		grpc.WithWriteBufferSize(256 << 10),
		grpc.WithInitialWindowSize(8 << 20),
		grpc.WithInitialConnWindowSize(32 << 20),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(wire.MessageBytesMax),
			grpc.MaxCallSendMsgSize(wire.MessageBytesMax),
			grpc.ForceCodecV2(wire.NewCodec()),
		),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
	}, more...)
}

// Client talks to one cluster. It is safe for concurrent use. Pushes keep the
// order in which Push was called.
type Client struct {
	config Config
	cancel context.CancelFunc
	life   context.Context // of the push streams and the watch; ends with Close
	tasks  sync.WaitGroup  // the watch and the push streams; added to under mu, and not once closed

	numbers atomic.Uint64 // of pulls that pushes will follow

	mu      sync.Mutex
	routes  route.Map                   // guarded by mu
	changed chan struct{}               // guarded by mu; closed when routes is replaced
	conns   map[string]*grpc.ClientConn // guarded by mu; by address
	pushes  map[string]*ordered         // guarded by mu; by address; those that have not ended
	pulls   map[string][]*pullStream    // guarded by mu; by address; those that nobody uses
	closed  bool                        // guarded by mu
}

// Dial returns a client once it has a shard map, or ctx's error if there is none
// in time. It must be closed. ctx bounds the wait only.
func Dial(ctx context.Context, config Config) (*Client, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		config: config, cancel: cancel, life: life,
		changed: make(chan struct{}),
		conns:   make(map[string]*grpc.ClientConn),
		pushes:  make(map[string]*ordered),
		pulls:   make(map[string][]*pullStream),
	}
	c.tasks.Add(1)
	go c.follow()
	if _, err := c.Map(ctx, 0); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends all calls and waits for what the client started.
func (c *Client) Close() error {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	conns := c.conns
	c.conns = make(map[string]*grpc.ClientConn)
	c.mu.Unlock()
	var err error
	for _, conn := range conns {
		err = errors.Join(err, conn.Close())
	}
	c.tasks.Wait()
	return err
}

// follow takes in newer maps and closes connections to addresses that are gone.
func (c *Client) follow() {
	defer c.tasks.Done()
	for m := range c.config.Routes.WatchMap(c.life) {
		live := make(map[string]bool, len(m.Addresses))
		for _, address := range m.Addresses {
			live[address] = true
		}
		var gone []*grpc.ClientConn
		c.mu.Lock()
		if m.Version > c.routes.Version {
			c.routes = m
			close(c.changed)
			c.changed = make(chan struct{})
			for address, conn := range c.conns {
				if !live[address] {
					gone = append(gone, conn)
					delete(c.conns, address)
					// It ends with its connection; who comes to this address meanwhile
					// is somebody else.
					delete(c.pushes, address)
					c.dropPullsLocked(address)
				}
			}
		}
		c.mu.Unlock()
		for _, conn := range gone {
			if err := conn.Close(); err != nil {
				c.config.Logger.Debug("connection to a node that is gone", "error", err)
			}
		}
	}
}

// Map returns a shard map newer than the given version, waiting for it until ctx
// ends.
func (c *Client) Map(ctx context.Context, after int64) (route.Map, error) {
	for {
		c.mu.Lock()
		m, changed := c.routes, c.changed
		c.mu.Unlock()
		if m.Version > after && len(m.Shards) > 0 {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return route.Map{}, fmt.Errorf("waiting for a shard map: %w: %w", ps.ErrUnavailable, ctx.Err())
		case <-c.life.Done():
			return route.Map{}, fmt.Errorf("client closed: %w", ps.ErrUnavailable)
		}
	}
}

// conn returns the connection to an address; it is made by its first call.
func (c *Client) conn(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connLocked(address)
}

func (c *Client) connLocked(address string) (*grpc.ClientConn, error) {
	if c.closed {
		return nil, fmt.Errorf("client closed: %w", ps.ErrUnavailable)
	}
	if conn := c.conns[address]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient(address, dialOptions(c.config.DialOptions)...)
	if err != nil {
		return nil, fmt.Errorf("node at %s: %w", address, err)
	}
	c.conns[address] = conn
	return conn, nil
}

// retryable reports whether asking again, perhaps elsewhere, can help.
func retryable(err error) bool {
	return errors.Is(err, ps.ErrUnavailable) || errors.Is(err, ps.ErrNotOwner) || errors.Is(err, ps.ErrNoOwner) ||
		errors.Is(err, context.DeadlineExceeded)
}

// Bounds of the pause before shards are asked again without a newer map.
const (
	pauseMin = 2 * time.Millisecond // a shard that moves is somewhere else within a few
	pauseMax = 500 * time.Millisecond
)

// eachShard calls ask for every node that owns some of the wanted shards, at the
// same time, and again for what failed in a retryable way, until all have
// succeeded, one has failed for good, or ctx ends. ask is called from several
// goroutines, for disjoint shards in ascending order.
func (c *Client) eachShard(ctx context.Context, wanted []ps.ShardID, ask func(ctx context.Context, address string, shards []ps.ShardID) error) error {
	pause := pauseMin
	var version int64
	for {
		m, err := c.Map(ctx, 0)
		if err != nil {
			return err
		}
		if m.Version != version { // a new owner may need a moment more, and not half a second
			version, pause = m.Version, pauseMin
		}
		var missing []ps.ShardID
		var trouble error
		byAddress := make(map[string][]ps.ShardID)
		for _, s := range wanted {
			address, err := m.Address(s)
			if err != nil {
				if !retryable(err) {
					return err
				}
				missing, trouble = append(missing, s), err
				continue
			}
			byAddress[address] = append(byAddress[address], s)
		}
		var mu sync.Mutex // guards missing, trouble and fatal
		var fatal error
		attempt := func(address string, shards []ps.ShardID) {
			if err := c.attempt(ctx, address, shards, ask); err != nil {
				mu.Lock()
				defer mu.Unlock()
				missing, trouble = append(missing, shards...), err
				if !retryable(err) {
					fatal = err
				}
			}
		}
		var calls sync.WaitGroup
		for address, shards := range byAddress {
			if len(byAddress) == 1 {
				attempt(address, shards)
				break
			}
			calls.Go(func() { attempt(address, shards) })
		}
		calls.Wait()
		switch {
		case fatal != nil:
			return fatal
		case len(missing) == 0:
			return nil
		}
		if err := c.waitForChange(ctx, m.Version, pause); err != nil {
			return fmt.Errorf("%w (%w)", trouble, err)
		}
		pause = min(2*pause, pauseMax)
		slices.Sort(missing) // several nodes failed in any order
		wanted = missing
	}
}

// attempt asks one node once.
func (c *Client) attempt(ctx context.Context, address string, shards []ps.ShardID, ask func(context.Context, string, []ps.ShardID) error) error {
	bounded, cancel := context.WithTimeout(ctx, c.config.AttemptMax)
	defer cancel()
	err := wire.FromStatus(ask(bounded, address, shards))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled) && ctx.Err() == nil: // follow closed the connection: the node is gone
		err = ps.ErrUnavailable
	}
	return fmt.Errorf("node at %s: %w", address, err)
}

// waitForChange returns nil after pause or as soon as there is a newer map, and
// an error when ctx or the client ends.
func (c *Client) waitForChange(ctx context.Context, version int64, pause time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	_, _ = c.Map(wait, version) // only ctx and the pause end this wait
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.life.Err()
}

// Pull fills the values of every read with weights: (len(Group.Keys), width)
// elements in the order of the group. The groups must have been filled for the
// cluster's number of shards. Rows that were never pushed to have their initial
// value.
//
// It asks again, until ctx ends, while shards are moving or nodes are gone. It
// returns ps.ErrUnknownModel, ps.ErrModelMismatch, ps.ErrInvalid, ps.ErrTooLarge,
// and what kept it from succeeding when ctx ended.
func (c *Client) Pull(ctx context.Context, model string, layout uint64, reads []ps.Read) error {
	m, err := c.Map(ctx, 0)
	if err != nil {
		return err
	}
	wanted, err := prepare(m, reads)
	if err != nil {
		return err
	}
	return c.pull(ctx, model, layout, 0, wanted, reads)
}

func (c *Client) pull(ctx context.Context, model string, layout, number uint64, wanted []ps.ShardID, reads []ps.Read) error {
	return c.eachShard(ctx, wanted, func(ctx context.Context, address string, shards []ps.ShardID) error {
		return c.pullFrom(ctx, address, model, layout, number, shards, reads)
	})
}

// prepare makes room for the reads' values, and returns the shards that they need, ascending.
func prepare(m route.Map, reads []ps.Read) (wanted []ps.ShardID, err error) {
	for i := range reads {
		r := &reads[i]
		if len(r.Group.Ends) != len(m.Shards) {
			return nil, fmt.Errorf("pull of keys grouped over %d shards, the cluster has %d: %w", len(r.Group.Ends), len(m.Shards), ps.ErrInvalid)
		}
		if size := len(r.Group.Keys) * r.RowBytes; cap(r.Values) < size {
			r.Values = make([]byte, size)
		} else {
			r.Values = r.Values[:size]
		}
	}
	for s := range m.Shards {
		if slices.ContainsFunc(reads, func(r ps.Read) bool {
			from, to := r.Group.Shard(ps.ShardID(s))
			return to > from
		}) {
			wanted = append(wanted, ps.ShardID(s))
		}
	}
	return wanted, nil
}

// Applied returns how far every shard has applied a model's stream, indexed by
// shard. It asks again, until ctx ends, while shards have no owner. It returns
// ps.ErrUnknownModel, and what kept it from succeeding when ctx ended.
func (c *Client) Applied(ctx context.Context, model string) ([]ps.ShardProgress, error) {
	m, err := c.Map(ctx, 0)
	if err != nil {
		return nil, err
	}
	progress := make([]ps.ShardProgress, len(m.Shards))
	wanted := make([]ps.ShardID, len(m.Shards))
	for s := range wanted {
		wanted[s] = ps.ShardID(s)
	}
	err = c.eachShard(ctx, wanted, func(ctx context.Context, address string, shards []ps.ShardID) error {
		conn, err := c.conn(address)
		if err != nil {
			return err
		}
		req := &psv1.AppliedRequest{Model: model, Shards: make([]uint32, len(shards))}
		for i, s := range shards {
			req.Shards[i] = uint32(s)
		}
		resp, err := psv1.NewParametersClient(conn).Applied(ctx, req)
		if err != nil {
			return err
		}
		got := wire.ShardProgress(resp)
		if len(got) != len(shards) {
			return fmt.Errorf("reply about %d shards, asked about %d: %w", len(got), len(shards), ps.ErrCorrupt)
		}
		known, err := c.Map(ctx, 0)
		if err != nil {
			return err
		}
		for i, s := range shards {
			if got[i].Shard != s {
				return fmt.Errorf("reply about shard %d, asked about %d: %w", got[i].Shard, s, ps.ErrCorrupt)
			}
			// A node that has not heard that it lost the shard, and has it again by now,
			// would tell of what is gone.
			if fence := known.Shards[s].Fence; got[i].Fence < fence {
				return fmt.Errorf("shard %d: reply under fence %d, it is %d now: %w", s, got[i].Fence, fence, ps.ErrNotOwner)
			}
			progress[s] = got[i]
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("how far shards have applied model %q: %w", model, err)
	}
	return progress, nil
}

// Holdings returns what the node at an address has of shards of all models. It asks once;
// the error is the node's, or ps.ErrUnavailable.
func (c *Client) Holdings(ctx context.Context, address string) ([]ps.Holding, error) {
	conn, err := c.conn(address)
	if err != nil {
		return nil, err
	}
	resp, err := psv1.NewParametersClient(conn).Holdings(ctx, &psv1.HoldingsRequest{})
	if err != nil {
		return nil, fmt.Errorf("what the node at %s holds: %w", address, wire.FromStatus(err))
	}
	return wire.Holdings(resp), nil
}
