// Package etcd runs an etcd server inside the process, alone or as a member of
// several, so that a cluster can start without one being installed first. It knows nothing of what is stored; that is
// coordinator/meta's business, which reaches this server like any other.
//
// The one idea to keep in mind: what etcd leaves open by default is decided here.
// It is bound to the loopback unless told otherwise, compacts its history, limits
// its size, refuses a directory in use instead of waiting for it, and is silent
// unless something is wrong.
package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/freshet-ml/freshet/ps"
)

// Config is what a server needs.
type Config struct {
	// Dir holds its data. It is created if it is not there, with access for the
	// owner alone.
	Dir string
	// ClientURL is where it listens. Default: http://127.0.0.1:0, a free port of the
	// loopback; there is no authentication, so anything wider belongs behind one.
	ClientURL string
	// Members are all members of a cluster of several, this one among them: name=URL,
	// where the URL (http://host:port) is how the others reach it. They are the same at
	// every member, and decided when the cluster is first started. Default: this one
	// alone.
	Members []string
	// Name is this member's among Members.
	Name string
	// PeerURL is where this member listens for the others, as http://address:port.
	// Default: its URL in Members.
	PeerURL string
	// Compaction is how much history is kept. Watches re-read what they missed, so
	// nothing needs it to be long. Default: 10 minutes.
	Compaction time.Duration
	// QuotaBytes bounds its data; beyond it, it refuses to write. Default: 1 GiB, a
	// thousand times a large cluster's map.
	QuotaBytes int64
	// UnsafeNoFsync leaves it to the operating system when data reaches the disk.
	// For tests only: a crash of the machine loses what a commit has promised.
	UnsafeNoFsync bool
	// Logger takes etcd's errors as errors and everything else at debug level.
	// Default: discarded.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Dir == "" {
		return fmt.Errorf("etcd without a directory for its data: %w", ps.ErrInvalid)
	}
	if c.ClientURL == "" {
		c.ClientURL = "http://127.0.0.1:0"
	}
	if u, err := url.Parse(c.ClientURL); err != nil || u.Scheme != "http" || u.Port() == "" {
		return fmt.Errorf("etcd client URL %q: want http://host:port: %w", c.ClientURL, ps.ErrInvalid)
	}
	if err := c.validateMembers(); err != nil {
		return err
	}
	if c.Compaction == 0 {
		c.Compaction = 10 * time.Minute
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = 1 << 30
	}
	if c.Compaction < 0 || c.QuotaBytes < 0 {
		return fmt.Errorf("etcd with compaction %v and quota %d: want both positive: %w", c.Compaction, c.QuotaBytes, ps.ErrInvalid)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// validateMembers checks what members need to find each other, which etcd would
// mostly find out by waiting.
func (c *Config) validateMembers() error {
	if len(c.Members) == 0 {
		if c.Name != "" || c.PeerURL != "" {
			return fmt.Errorf("etcd member %q at %q without a list of all members: %w", c.Name, c.PeerURL, ps.ErrInvalid)
		}
		return nil
	}
	seen := make(map[string]bool)
	for _, m := range c.Members {
		name, at, ok := strings.Cut(m, "=")
		if u, err := url.Parse(at); !ok || name == "" || err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || u.Port() == "0" {
			return fmt.Errorf("etcd member %q: want name=http://host:port: %w", m, ps.ErrInvalid)
		}
		if seen[name] || seen[at] {
			return fmt.Errorf("etcd member %q: its name or URL is another's already: %w", m, ps.ErrInvalid)
		}
		seen[name], seen[at] = true, true
	}
	own := c.own()
	switch {
	case c.Name == "":
		return fmt.Errorf("etcd members %s: say which of them this is: %w", strings.Join(c.Members, ","), ps.ErrInvalid)
	case own == "":
		return fmt.Errorf("etcd member %q is none of %s: %w", c.Name, strings.Join(c.Members, ","), ps.ErrInvalid)
	case c.PeerURL == "":
		c.PeerURL = own
	}
	u, err := url.Parse(c.PeerURL)
	if err != nil || u.Scheme != "http" || u.Port() == "" || u.Port() == "0" {
		return fmt.Errorf("etcd peer URL %q: want http://address:port: %w", c.PeerURL, ps.ErrInvalid)
	}
	if u.Hostname() != "localhost" && net.ParseIP(u.Hostname()) == nil {
		return fmt.Errorf("etcd peer URL %q: it has to be an IP address of this machine, such as http://0.0.0.0:%s, and only its entry among the members a name: %w",
			c.PeerURL, u.Port(), ps.ErrInvalid)
	}
	return nil
}

// own returns how others reach this member, or "" if it is none of them.
func (c *Config) own() string {
	for _, m := range c.Members {
		if at, ok := strings.CutPrefix(m, c.Name+"="); ok {
			return at
		}
	}
	return ""
}

// Server is a running etcd server. Its methods are safe for concurrent use.
type Server struct {
	etcd    *embed.Etcd
	lock    *fileutil.LockedFile
	closing atomic.Bool // from then on its errors are no news
	close   sync.Once
}

// Start starts a server and waits until it answers, or until ctx ends. One of several
// members answers when most of them have started. It returns
// ps.ErrConflict if another process serves from the same directory, and
// ps.ErrUnavailable if the server did not come up. The caller closes the server.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's directory: %w", err)
	}
	// etcd itself would wait for its directory's lock without end and unheard.
	lock, err := fileutil.TryLockFile(filepath.Join(cfg.Dir, "lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("etcd's directory %s is in use by another process; stop that one or choose another: %w",
			cfg.Dir, ps.ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("lock etcd's directory %s: %w", cfg.Dir, err)
	}
	s := &Server{lock: lock}
	s.etcd, err = embed.StartEtcd(s.settings(ctx, cfg))
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, errors.Join(err, lock.Close()))
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s, nil
	case err := <-s.etcd.Err():
		s.Close()
		return nil, fmt.Errorf("start etcd in %s: %w: %w", cfg.Dir, ps.ErrUnavailable, err)
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("wait for etcd in %s to be ready: %w: %w", cfg.Dir, ps.ErrUnavailable, ctx.Err())
	}
}

// settings returns etcd's own configuration for cfg.
func (s *Server) settings(ctx context.Context, cfg Config) *embed.Config {
	e := embed.NewConfig()
	e.Dir = filepath.Join(cfg.Dir, "data")
	client, _ := url.Parse(cfg.ClientURL) // validate has seen it
	e.ListenClientUrls, e.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	// A single member talks to nobody, but insists on listening.
	e.Name, cfg.PeerURL = cmp.Or(cfg.Name, e.Name), cmp.Or(cfg.PeerURL, "http://127.0.0.1:0")
	listen, _ := url.Parse(cfg.PeerURL) // validate has seen them
	reach, _ := url.Parse(cmp.Or(cfg.own(), cfg.PeerURL))
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{*listen}, []url.URL{*reach}
	e.InitialCluster = cmp.Or(strings.Join(cfg.Members, ","), e.InitialClusterFromName(e.Name))
	e.AutoCompactionMode = embed.CompactorModePeriodic
	e.AutoCompactionRetention = cfg.Compaction.String()
	e.QuotaBackendBytes = cfg.QuotaBytes
	e.UnsafeNoFsync = cfg.UnsafeNoFsync
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(ctx, cfg.Logger, &s.closing))
	return e
}

// Endpoints returns where clients reach the server, with the port it really has.
func (s *Server) Endpoints() []string {
	return []string{"http://" + s.etcd.Clients[0].Addr().String()}
}

// Err is sent what ends the server other than Close; the caller should then stop.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server and waits for it. Clients should be closed before: etcd
// gives those that are connected several seconds to leave.
func (s *Server) Close() {
	s.close.Do(func() {
		s.closing.Store(true)
		select {
		case <-s.etcd.Server.ReadyNotify():
		default: // a member without a quorum; etcd would wait for what it never began to serve
			s.etcd.Server.HardStop()
		}
		s.etcd.Close()
		_ = s.lock.Close() // the end of the process would release it just as well
	})
}
