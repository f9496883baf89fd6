// Package lookout makes a cluster go on without a dead process before its lease runs
// out: it looks at every member that gossip says is dead, and at every node whose
// connection has broken, and takes the registration of those that really are dead. What follows from that is coordinator/control's business,
// whose next view lacks them. It runs beside it, where a coordinator leads.
//
// The one idea to keep in mind: these are reasons to look and never to act. A member
// that answers keeps its registration, whatever gossip says; and one that is
// expelled by mistake finds its registration gone and starts again. So a mistake costs
// time alone: no safety rule knows of this package.
package lookout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/membership"
	"github.com/freshet-ml/freshet/ps"
)

// Store is what is needed of the cluster's store; coordinator/meta has it.
type Store interface {
	// Members returns everybody who is registered.
	Members(ctx context.Context) ([]coordinator.Member, error)
	// WatchNodes gives the nodes that are registered and then whenever that has changed,
	// until ctx ends; then the channel is closed.
	WatchNodes(ctx context.Context) <-chan []coordinator.Node
	// Expel ends the registration of a life of a process, if there is one.
	Expel(ctx context.Context, m coordinator.Member) error
}

// Pool is what is needed of a gossip pool; membership.Pool has it.
type Pool interface {
	// Watch gives all members and then every one that changes, until ctx or the pool
	// ends; then the channel is closed.
	Watch(ctx context.Context) <-chan membership.Member
	// Members returns every member that is known.
	Members() []membership.Member
	// Address is where this process gossips.
	Address() string
}

// Config is what a Lookout needs. Its functions are called by several goroutines.
type Config struct {
	Store Store
	Pool  Pool
	// Ask returns nil if the server at a host:port answers a call, and waits for the
	// answer no longer than ctx.
	Ask func(ctx context.Context, address string) error
	// Dial returns nil if a host:port takes a TCP connection, which it closes; an error
	// that wraps syscall.ECONNREFUSED if the host says that nobody listens there.
	// Default: it tries.
	Dial func(ctx context.Context, address string) error
	// Stay connects to the server at a host:port and returns when the connection breaks,
	// cannot be made, or ctx ends. Default: nobody stays connected.
	Stay func(ctx context.Context, address string)
	// Every is the time between two looks at a member, and the most that one takes.
	// Default: 500 ms, above the pauses of a process that is alive and busy.
	Every  time.Duration
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil || c.Pool == nil || c.Ask == nil || c.Logger == nil {
		return fmt.Errorf("a lookout needs a store, a pool, a way to ask and a logger: %w", ps.ErrInvalid)
	}
	if c.Every < 0 {
		return fmt.Errorf("a lookout that looks every %v: %w", c.Every, ps.ErrInvalid)
	}
	if c.Every == 0 {
		c.Every = 500 * time.Millisecond
	}
	if c.Dial == nil {
		c.Dial = dial
	}
	return nil
}

func dial(ctx context.Context, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Lookout looks at members that gossip says are dead.
type Lookout struct{ cfg Config }

// New returns a Lookout that does nothing until Run.
func New(cfg Config) (*Lookout, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Lookout{cfg: cfg}, nil
}

// Run looks until ctx ends, and returns nil then.
func (l *Lookout) Run(ctx context.Context) error {
	inquiries := make(map[string]context.CancelFunc) // by ID, of members that are dead
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if l.cfg.Stay != nil {
		work.Go(func() { l.attend(ctx) })
	}
	for m := range l.cfg.Pool.Watch(ctx) {
		if stop := inquiries[m.ID]; stop != nil {
			stop()
			delete(inquiries, m.ID)
		}
		if m.State == membership.Dead {
			inquiry, stop := context.WithCancel(ctx)
			inquiries[m.ID] = stop
			work.Go(func() { l.inquire(inquiry, m.ID) })
		}
	}
	<-ctx.Done() // the pool may end first
	return nil
}

// attend stays connected to every node that is registered. A process that dies closes its
// connections, which is known long before gossip can be sure.
func (l *Lookout) attend(ctx context.Context) {
	attended := make(map[ps.NodeID]context.CancelFunc)
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for nodes := range l.cfg.Store.WatchNodes(ctx) {
		registered := make(map[ps.NodeID]bool, len(nodes))
		for _, n := range nodes {
			registered[n.ID] = true
			if attended[n.ID] == nil {
				staying, stop := context.WithCancel(ctx)
				attended[n.ID] = stop
				work.Go(func() { l.stay(staying, n) })
			}
		}
		for id, stop := range attended {
			if !registered[id] {
				stop()
				delete(attended, id)
			}
		}
	}
}

// lookAgainMin is how soon a node is looked at again whose connection has broken: its
// last sockets may close a moment after the first.
const lookAgainMin = 20 * time.Millisecond

// stay stays connected to a node until ctx ends, and looks at it when it is not.
func (l *Lookout) stay(ctx context.Context, n coordinator.Node) {
	pause := lookAgainMin
	for {
		connected := time.Now()
		l.cfg.Stay(ctx, n.Address)
		if time.Since(connected) > l.cfg.Every {
			pause = lookAgainMin
		}
		if ctx.Err() != nil {
			return
		}
		all, err := l.cfg.Store.Members(ctx)
		if m, registered := find(all, string(n.ID)); err == nil && registered && l.look(ctx, m) == gone {
			l.expel(ctx, m, gone)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, l.cfg.Every)
	}
}

// silencesMax is how often in a row a member may be silent before it is expelled: one
// answer that is late is no death.
const silencesMax = 2

// inquire looks at a member until it is registered no more or ctx ends, which it does
// when gossip changes its mind.
func (l *Lookout) inquire(ctx context.Context, id string) {
	looks := time.NewTicker(l.cfg.Every)
	defer looks.Stop()
	silences, warned := 0, false
	for ctx.Err() == nil {
		all, err := l.cfg.Store.Members(ctx)
		m, registered := find(all, id)
		found := undecided
		switch {
		case err == nil && !registered:
			return
		case err == nil:
			found = l.look(ctx, m)
		case ctx.Err() == nil:
			l.cfg.Logger.Warn("gossip says a member is dead; the store cannot say whether it is registered", "id", id, "err", err)
		}
		if found == silent {
			silences++
		} else {
			silences = 0
		}
		if found == answers && !warned {
			warned = true
			l.cfg.Logger.Info("gossip says a member is dead, and its address answers", "role", m.Role, "id", id)
		}
		if ctx.Err() == nil && (found == gone || silences >= silencesMax && l.silenceCounts(id, all)) {
			l.expel(ctx, m, found)
		}
		select {
		case <-looks.C:
		case <-ctx.Done():
		}
	}
}

// find returns a member of a list.
func find(all []coordinator.Member, id string) (m coordinator.Member, found bool) {
	for _, m := range all {
		if m.ID == id {
			return m, true
		}
	}
	return m, false
}

// finding is what a look at a member comes to.
type finding string

const (
	gone      finding = "nobody listens at its address"
	silent    finding = "it does not answer"
	answers   finding = "it answers"
	undecided finding = "it cannot be told" // its lease will
)

// look finds out about a member. A node is asked: a process that is stopped still takes
// connections, and as long as it owns shards nobody else serves them. Of others it is
// enough to know when their host says that they are gone.
func (l *Lookout) look(ctx context.Context, m coordinator.Member) finding {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Every)
	defer cancel()
	address := m.Gossip
	if m.Role == coordinator.RoleNode {
		address = m.Address
	}
	if address == "" || loopback(address) && !loopback(l.cfg.Pool.Address()) {
		return undecided // what listens at this host's loopback is another process
	}
	err := l.cfg.Dial(ctx, address)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return gone
	case m.Role != coordinator.RoleNode:
		return undecided
	case err == nil:
		err = l.cfg.Ask(ctx, address)
	}
	if err != nil {
		return silent
	}
	return answers
}

// loopback reports whether an address is one of this host alone. Other names are taken
// for addresses that others reach.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// silenceCounts reports whether gossip has a member for dead, still, and at least as
// many of the registered others alive as dead with it. If not, it is more likely this
// process that is cut off, and silence says nothing.
func (l *Lookout) silenceCounts(id string, registered []coordinator.Member) bool {
	states := make(map[string]membership.State)
	for _, m := range l.cfg.Pool.Members() {
		if m.Address != l.cfg.Pool.Address() {
			states[m.ID] = m.State
		}
	}
	alive, dead := 0, 0
	for _, m := range registered {
		switch states[m.ID] {
		case membership.Alive:
			alive++
		case membership.Dead:
			dead++
		}
	}
	return states[id] == membership.Dead && alive >= dead
}

// expel takes a member's registration. If that fails, the next look tries again.
func (l *Lookout) expel(ctx context.Context, m coordinator.Member, because finding) {
	if err := l.cfg.Store.Expel(ctx, m); err != nil {
		if ctx.Err() == nil {
			l.cfg.Logger.Warn("a dead member is still registered; trying again", "role", m.Role, "id", m.ID, "err", err)
		}
		return
	}
	l.cfg.Logger.Info("a dead member is expelled", "role", m.Role, "id", m.ID, "because", string(because))
}
