// Package membership tells by gossip which processes of a cluster are alive. Every
// process is a member of one pool, probes the others and hears from them what they
// have found, so that a crash is known in about one second and nobody asks etcd for
// it. It is the only package that sees memberlist.
//
// The one idea to keep in mind: what it says is a hint and never a decision. A member
// that is dead here may be alive (paused, or cut off from the one that asks), and two
// members may say different things at the same moment. A hint may start work, such as
// a look at the leases; no safety rule reads it, and whatever is wrong in it costs
// time alone.
//
// Invariants:
//  1. Of every member, the latest that is known reaches every watch, or the watch ends.
//  2. A member that has left stays so: an ID names one life of a process.
//  3. A watch that nobody reads holds one entry for each member, however often that
//     has changed.
//  4. After Close no goroutine, timer or socket of a pool does anything.
package membership

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

// Limits of what a member says of itself: it travels in packets of 1,400 bytes.
const (
	idBytesMax      = 128
	roleBytesMax    = 64
	clusterBytesMax = 255 // one byte holds the length on the wire
)

// State is what is known of a member.
type State uint8

// States of a member.
const (
	// Alive: it answers, or has not failed to for long enough.
	Alive State = iota + 1
	// Dead: it has stopped answering without a word. It may come back: then it was
	// paused or cut off.
	Dead
	// Left: it has said that it ends.
	Left
)

func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Dead:
		return "dead"
	case Left:
		return "left"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Member is one life of a process, as another sees it. Members are comparable.
type Member struct {
	// ID names the life of the process: the ID of its coordinator.Node,
	// coordinator.Worker or coordinator.Coordinator.
	ID string
	// Role is what the process does, such as "ps", "worker" or "coordinator". It is
	// empty if the member has said it in a way that is not understood here.
	Role string
	// Address is the host:port where it gossips.
	Address string
	State   State
}

// Config is what a Pool needs. Everybody in a pool must have the same Cluster, key
// and timing.
type Config struct {
	// ID names this life of the process: 1 to 128 bytes, another one after a restart.
	ID string
	// Role is what this process does: at most 64 bytes.
	Role string
	// Cluster names the cluster: at most 255 bytes. What members of another one send
	// is dropped, so that an address that went from one to the other joins nothing.
	// Default: "default".
	Cluster string

	// Bind is the host:port to listen at, with TCP and UDP. Port 0 takes a free one.
	Bind string
	// Advertise is the host:port that others reach Bind at; port 0 stands for Bind's.
	// A name is looked up once. Default: Bind, which then must name one address.
	Advertise string
	// Seeds returns addresses where members may listen, such as those that etcd has;
	// its own and those that answer no longer do no harm. Join calls it once and Run
	// every SeedInterval, never two at a time; it may block as long as ctx lasts. Nil
	// means that others find this process, or nobody does.
	Seeds func(ctx context.Context) ([]string, error)

	// SecretKey of 16, 24 or 32 bytes encrypts and authenticates with AES-GCM all that
	// members say to each other; who has another key is not heard.
	SecretKey []byte
	// Insecure must be set to do without SecretKey: then whoever reaches the port
	// can read the pool, and say that members are dead.
	Insecure bool

	// ProbeInterval is the time between two probes that a member makes, each of one
	// other member, in turn. Default: 200 ms. DESIGN.md has what that detects.
	ProbeInterval time.Duration
	// ProbeTimeout is how long the answer to a probe may take before others are asked
	// to try, for the rest of ProbeInterval. Less than ProbeInterval. Default: half of it.
	ProbeTimeout time.Duration
	// Suspicion is how many ProbeIntervals a member that has not answered has to
	// object, times the decimal logarithm of the pool's size above 10; and twice that
	// as long as fewer than Suspicion-2 others have found the same. From 2 to 100.
	// Default: 2, with which one member's word is enough.
	Suspicion int
	// SeedInterval is the time between two attempts to reach seeds that are not alive
	// here. It bounds how long a pool that was split stays so. Default: 1 s.
	SeedInterval time.Duration

	// Logger takes what is worth telling. Default: nothing is logged.
	Logger *slog.Logger

	// wrap stands between a pool and its sockets in tests that cut a network.
	wrap func(sockets) sockets
}

// validate rejects what cannot work and fills in what was not given.
func (c *Config) validate() error {
	switch {
	case c.ID == "" || len(c.ID) > idBytesMax:
		return fmt.Errorf("an ID of %d bytes: want 1 to %d: %w", len(c.ID), idBytesMax, ps.ErrInvalid)
	case len(c.Role) > roleBytesMax:
		return fmt.Errorf("a role of %d bytes: want at most %d: %w", len(c.Role), roleBytesMax, ps.ErrInvalid)
	case len(c.Cluster) > clusterBytesMax:
		return fmt.Errorf("a cluster's name of %d bytes: want at most %d: %w", len(c.Cluster), clusterBytesMax, ps.ErrInvalid)
	case c.Insecure && len(c.SecretKey) > 0:
		return fmt.Errorf("a secret key and the wish to do without: choose one: %w", ps.ErrInvalid)
	case !c.Insecure && len(c.SecretKey) != 16 && len(c.SecretKey) != 24 && len(c.SecretKey) != 32:
		return fmt.Errorf("a secret key of %d bytes: want 16, 24 or 32: %w", len(c.SecretKey), ps.ErrInvalid)
	case c.ProbeInterval < 0 || c.ProbeTimeout < 0 || c.SeedInterval < 0:
		return fmt.Errorf("a negative interval (probe %s, its timeout %s, seeds %s): %w", c.ProbeInterval, c.ProbeTimeout, c.SeedInterval, ps.ErrInvalid)
	case c.Suspicion != 0 && (c.Suspicion < 2 || c.Suspicion > 100):
		return fmt.Errorf("suspicion of %d probe intervals: want 2 to 100: %w", c.Suspicion, ps.ErrInvalid)
	}
	if c.Cluster == "" {
		c.Cluster = "default"
	}
	if c.ProbeInterval == 0 {
		c.ProbeInterval = 200 * time.Millisecond
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = c.ProbeInterval / 2
	}
	if c.ProbeTimeout >= c.ProbeInterval {
		return fmt.Errorf("a probe's timeout of %s: want less than the %s between probes: %w", c.ProbeTimeout, c.ProbeInterval, ps.ErrInvalid)
	}
	if c.Suspicion == 0 {
		c.Suspicion = 2
	}
	if c.SeedInterval == 0 {
		c.SeedInterval = time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// about is what a member says of itself, as JSON in memberlist's metadata. Fields that
// are not known are passed over, so that there may be more.
type about struct {
	Role string `json:"role,omitempty"`
}

func (a about) encode() ([]byte, error) {
	said, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode what a member says of itself: %w", err)
	}
	return said, nil
}

// decodeAbout returns nothing known where it does not understand: a member is alive
// whatever it says of itself.
func decodeAbout(said []byte) about {
	var a about
	if json.Unmarshal(said, &a) != nil || len(a.Role) > roleBytesMax {
		return about{}
	}
	return a
}
