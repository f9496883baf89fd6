package membership

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/freshet-ml/freshet/ps"
)

const (
	// gossipInterval is the time between two packets of news to a few members. A
	// member that crashed is known to all within one or two of them after the first.
	gossipInterval = 100 * time.Millisecond
	// exchangeInterval is the time between two exchanges of all that is known with
	// one member, which mends what lost packets have left open.
	exchangeInterval = 10 * time.Second
	// streamTimeout bounds such an exchange, and the attempt to reach a seed.
	streamTimeout = time.Second
	// leaveTimeout bounds how long Run waits for its leaving to spread.
	leaveTimeout = time.Second
	// seedsPerRound bounds how many seeds are tried at a time: each may take
	// streamTimeout, and one that answers tells of all the others.
	seedsPerRound = 3
	// keepGone is how long a member that is gone stays in Members.
	keepGone = 10 * time.Minute
)

// Pool is this process's membership. Its methods are safe for concurrent use.
type Pool struct {
	cfg    Config
	list   *memberlist.Memberlist
	self   Member // as it joined
	lines  *lines
	table  *table
	ending sync.Once
	runs   sync.WaitGroup // of Run
	// conflict holds the address where another process has this one's ID. Capacity 1,
	// filled by memberlist's callback, emptied after each exchange that may have found one.
	conflict chan string
}

// Join starts to listen and tells the seeds that answer. That none does is no error:
// Run goes on trying. It tries up to three, each for up to a second. The caller must call
// Run or Close.
//
// The error wraps ps.ErrInvalid if cfg cannot work, and ps.ErrConflict if a seed knows
// a member with the same ID at another address that has not left.
func Join(ctx context.Context, cfg Config) (*Pool, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("join the gossip pool: %w", err)
	}
	p := &Pool{cfg: cfg, lines: &lines{logger: cfg.Logger}, table: newTable(), conflict: make(chan string, 1)}
	if err := p.listen(ctx); err != nil {
		return nil, fmt.Errorf("join the gossip pool as %s: %w", cfg.ID, err)
	}
	n, err := p.reach(ctx)
	if errors.Is(err, ps.ErrConflict) || ctx.Err() != nil {
		p.Close()
		return nil, fmt.Errorf("join the gossip pool as %s: %w", cfg.ID, errors.Join(err, ctx.Err()))
	}
	p.cfg.Logger.Info("gossip pool joined", "address", p.Address(), "seeds_reached", n)
	if err != nil {
		p.cfg.Logger.Warn("no seed of the gossip pool has answered; it is tried again", "err", err)
	}
	return p, nil
}

// Address returns the host:port that others may use as a seed.
func (p *Pool) Address() string { return p.self.Address }

// Members returns every member that is known, this one among them, ordered by ID.
// While Run runs, those that have been gone for ten minutes are forgotten.
func (p *Pool) Members() []Member { return p.table.all() }

// Watch gives the members as they are, and then each as it is whenever that has
// changed, until ctx or the pool ends; then the channel is closed. The channel has no
// capacity: who is slow gets of each member the latest alone, in the order in which
// they first changed unseen. A member may be given twice in the same state: it was
// in another one in between.
func (p *Pool) Watch(ctx context.Context) <-chan Member { return p.table.watch(ctx) }

// Run keeps reaching for seeds that are not alive here until ctx ends. Then it says
// that this process leaves, ends the pool and returns nil, within about three seconds.
// It returns nil when Close is called. It must be called no more than once.
func (p *Pool) Run(ctx context.Context) error {
	if !p.table.enter(&p.runs) {
		return nil
	}
	left := p.run(ctx)
	p.runs.Done()
	if left {
		p.end(true)
	}
	return nil
}

// run returns true when ctx has ended and false when Close was called.
func (p *Pool) run(ctx context.Context) bool {
	working, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { // so that Close need not wait for Seeds
		select {
		case <-p.table.done:
			cancel()
		case <-working.Done():
		}
	})
	changes := p.Watch(working)
	retry := time.NewTicker(p.cfg.SeedInterval)
	defer retry.Stop()
	alone := false
	for {
		select {
		case <-ctx.Done():
			return true
		case <-p.table.done:
			return false
		case m, ok := <-changes:
			if ok && m.ID != p.cfg.ID {
				p.cfg.Logger.Info("gossip says a member is "+m.State.String(), "id", m.ID, "role", m.Role, "address", m.Address)
			}
			if !ok {
				changes = nil // ctx or the pool has ended, which is about to be seen
			}
		case now := <-retry.C:
			p.table.forget(now.Add(-keepGone))
			_, err := p.reach(working)
			if err != nil && !alone && working.Err() == nil && p.table.alone(p.cfg.ID) {
				p.cfg.Logger.Warn("this process is alone in the gossip pool", "err", err)
			}
			alone = err != nil && p.table.alone(p.cfg.ID)
		}
	}
}

// Close ends the pool at once and without a word, as a crash would: the others will
// find it dead. Run leaves instead, when its ctx ends. Close waits until nothing of
// the pool is left, which takes up to two seconds, and may be called again.
func (p *Pool) Close() { p.end(false) }

func (p *Pool) end(leave bool) {
	p.ending.Do(func() {
		if leave {
			p.leave()
		}
		p.lines.end()
		p.table.stop()
		if err := p.list.Shutdown(); err != nil {
			p.cfg.Logger.Warn("the gossip pool's sockets did not close", "err", err)
		}
		p.runs.Wait()
		p.table.watching.Wait()
		if !p.quiet() {
			p.cfg.Logger.Warn("goroutines of the gossip pool are left", "waited", quietTimeout)
		}
	})
}

// leave tells every living member itself. memberlist's own message goes on from one
// member to the next, but does not let a listener see that it is about leaving and not
// about a death.
func (p *Pool) leave() {
	for _, m := range p.table.all() {
		if m.State != Alive || m.ID == p.cfg.ID {
			continue
		}
		to := memberlist.Address{Addr: m.Address, Name: m.ID}
		if err := p.list.SendToAddress(to, farewell(p.cfg.ID)); err != nil {
			p.cfg.Logger.Debug("a member was not told of leaving", "id", m.ID, "err", err)
		}
	}
	if err := p.list.Leave(leaveTimeout); err != nil {
		p.cfg.Logger.Debug("leaving the gossip pool has not spread", "err", err)
	}
}

// reach exchanges all that is known with some seeds that are not alive here, and
// returns how many have answered. The error is nil if one has or none was tried, and
// wraps ps.ErrConflict if one knows another process with this one's ID.
func (p *Pool) reach(ctx context.Context) (n int, err error) {
	if p.cfg.Seeds == nil {
		return 0, nil
	}
	seeds, err := p.cfg.Seeds(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for seeds: %w", err)
	}
	alive := map[string]bool{p.self.Address: true}
	for _, m := range p.table.all() {
		alive[m.Address] = alive[m.Address] || m.State == Alive
	}
	seeds = slices.DeleteFunc(slices.Clone(seeds), func(seed string) bool { return alive[seed] })
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })

	var failed error
	for _, seed := range seeds[:min(len(seeds), seedsPerRound)] {
		reached, err := p.reachOne(ctx, seed, alive)
		switch {
		case errors.Is(err, ps.ErrConflict), ctx.Err() != nil:
			return n, err
		case err != nil:
			failed = err
		case reached:
			n++
		}
	}
	if n > 0 {
		return n, nil
	}
	return 0, failed
}

// reachOne returns false without an error for a name that stands for who is alive here.
func (p *Pool) reachOne(ctx context.Context, seed string, alive map[string]bool) (bool, error) {
	found, err := resolve(ctx, seed)
	if err != nil {
		return false, fmt.Errorf("seed %s: %w", seed, err)
	}
	at := found[0].String()
	if alive[at] {
		return false, nil
	}
	_, err = p.list.Join([]string{at})
	select {
	case other := <-p.conflict:
		return false, fmt.Errorf("a member at %s has the ID %s too: %w", other, p.cfg.ID, ps.ErrConflict)
	default:
	}
	if err != nil {
		return false, fmt.Errorf("seed %s: %w", seed, err)
	}
	return true, nil
}

// listen opens the sockets and starts memberlist on them.
func (p *Pool) listen(ctx context.Context) error {
	said, err := about{Role: p.cfg.Role}.encode()
	if err != nil {
		return err
	}
	bind, advertise, err := p.addresses(ctx)
	if err != nil {
		return err
	}
	logger := p.lines.standard()
	opened, port, err := open(bind, logger)
	if err != nil {
		return err
	}
	if advertise.Port() == 0 {
		advertise = netip.AddrPortFrom(advertise.Addr(), port)
	}
	p.self = Member{ID: p.cfg.ID, Role: p.cfg.Role, Address: advertise.String(), State: Alive}
	if p.cfg.wrap != nil {
		opened = p.cfg.wrap(opened)
	}

	cfg := memberlist.DefaultLANConfig()
	cfg.Name = p.cfg.ID
	cfg.Label = p.cfg.Cluster
	cfg.Transport = opened
	cfg.AdvertiseAddr, cfg.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	cfg.SecretKey = slices.Clone(p.cfg.SecretKey)
	cfg.ProbeInterval, cfg.ProbeTimeout = p.cfg.ProbeInterval, p.cfg.ProbeTimeout
	cfg.RetransmitMult = 8 // the default of 4 leaves few packets for the living where some have just died
	cfg.SuspicionMult = p.cfg.Suspicion
	cfg.SuspicionMaxTimeoutMult = 2 // when nobody is left to confirm, do not wait for it much longer
	cfg.GossipInterval, cfg.PushPullInterval = gossipInterval, exchangeInterval
	cfg.TCPTimeout = streamTimeout
	cfg.EnableCompression = false // what is sent is small, and mostly encrypted
	cfg.Logger = logger
	heard := &heard{pool: p, about: said}
	cfg.Delegate, cfg.Events, cfg.Conflict, cfg.Merge = heard, heard, heard, heard
	if err := p.start(ctx, cfg); err != nil {
		return errors.Join(err, opened.Shutdown())
	}
	return nil
}

// addresses returns where to listen and what to tell the others, with port 0 where the
// port that is listened at is to be told.
func (p *Pool) addresses(ctx context.Context) (bind, advertise netip.AddrPort, err error) {
	at, err := resolve(ctx, p.cfg.Bind)
	if err != nil {
		return bind, advertise, fmt.Errorf("address to listen at: %w", err)
	}
	bind = at[0]
	if p.cfg.Advertise == "" {
		if bind.Addr().IsUnspecified() {
			return bind, advertise, fmt.Errorf("listening at all addresses (%s) without one to advertise: say which host:port others reach it at: %w", p.cfg.Bind, ps.ErrInvalid)
		}
		return bind, bind, nil
	}
	at, err = resolve(ctx, p.cfg.Advertise)
	if err != nil {
		return bind, advertise, fmt.Errorf("address to advertise: %w", err)
	}
	if at[0].Addr().IsUnspecified() {
		return bind, advertise, fmt.Errorf("address to advertise %s: nobody can reach all addresses: %w", p.cfg.Advertise, ps.ErrInvalid)
	}
	return bind, at[0], nil
}

// sockets is what memberlist needs of a network.
type sockets = memberlist.NodeAwareTransport

// open listens with TCP and UDP at the same port.
func open(bind netip.AddrPort, logger *log.Logger) (sockets, uint16, error) {
	attempts := 1
	if bind.Port() == 0 {
		attempts = 10 // a port that is free with TCP may be in use with UDP
	}
	var err error
	for range attempts {
		var opened *memberlist.NetTransport
		opened, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()}, BindPort: int(bind.Port()), Logger: logger,
		})
		if err == nil {
			return opened, uint16(opened.GetAutoBindPort()), nil
		}
	}
	return nil, 0, fmt.Errorf("listen at %s: %w", bind, err)
}

// resolve returns the addresses of a host:port, at least one. Left to memberlist, a
// name would be looked up without a ctx, and one to listen at would be taken to mean
// all addresses. The error wraps ps.ErrInvalid if it is not a host:port.
func resolve(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ps.ErrInvalid)
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w: %w", address, err, ps.ErrInvalid)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", address, err)
	}
	found := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		found = append(found, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return found, nil
}
