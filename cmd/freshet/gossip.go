package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/lookout"
	"github.com/freshet-ml/freshet/coordinator/membership"
	"github.com/freshet-ml/freshet/coordinator/meta"
)

// gossipFlags are the flags of every role about finding the dead.
type gossipFlags struct {
	bind      string
	advertise string
	keyFile   string
	insecure  bool
}

// gossipOff is the value of --gossip that keeps a role from it.
const gossipOff = "off"

func (f *gossipFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.bind, "gossip", "", "host:port to gossip at, TCP and UDP, by which the dead are found in about a second, or off (default: the host of --listen, a free port)")
	flags.StringVar(&f.advertise, "gossip-advertise", "", "host:port that others gossip with it at (default: the host of --advertise)")
	flags.StringVar(&f.keyFile, "gossip-key-file", "", "file with a key of 16, 24 or 32 bytes that encrypts gossip; the same for all roles")
	flags.BoolVar(&f.insecure, "gossip-insecure", false, "gossip without a key: then whoever reaches the port can say that processes are dead")
}

// gossipSettings are how a process gossips. The zero value does not.
type gossipSettings struct {
	cluster   string
	bind      string
	advertise string
	key       []byte
}

// localGossip is gossip among processes of this host.
func localGossip(cluster string) gossipSettings {
	return gossipSettings{cluster: cluster, bind: "127.0.0.1:0"}
}

// beside returns how a role gossips that also serves at a listener, which others reach
// at a host:port.
func (f *gossipFlags) beside(cluster string, listener net.Listener, reach string, logger *slog.Logger) (gossipSettings, error) {
	host, _, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return gossipSettings{}, err
	}
	reachHost, _, err := net.SplitHostPort(reach)
	if err != nil {
		return gossipSettings{}, usageError{fmt.Errorf("--advertise %q: want host:port", reach)}
	}
	return f.settings(cluster, host, reachHost, logger)
}

// settings returns how a role gossips whose other addresses are of the given hosts.
// Without a key it does so on this host alone, unless it was asked to.
func (f *gossipFlags) settings(cluster, listenHost, advertiseHost string, logger *slog.Logger) (gossipSettings, error) {
	s := gossipSettings{cluster: cluster, bind: f.bind, advertise: f.advertise}
	if f.bind == gossipOff {
		return gossipSettings{}, nil
	}
	if f.keyFile != "" {
		if f.insecure {
			return s, usageError{fmt.Errorf("--gossip-key-file and --gossip-insecure: choose one")}
		}
		var err error
		if s.key, err = readGossipKey(f.keyFile); err != nil {
			return s, err
		}
	}
	if s.bind == "" {
		s.bind = net.JoinHostPort(listenHost, "0")
	}
	host, _, err := net.SplitHostPort(s.bind)
	if err != nil {
		return s, usageError{fmt.Errorf("--gossip %q: want host:port, or off", f.bind)}
	}
	if ownHost(host) {
		return s, nil
	}
	if s.advertise == "" && advertiseHost != "" {
		s.advertise = net.JoinHostPort(advertiseHost, "0")
	}
	if s.key != nil || f.insecure {
		if ip := net.ParseIP(host); s.advertise == "" && (host == "" || ip != nil && ip.IsUnspecified()) {
			return s, usageError{fmt.Errorf("gossiping at all addresses (%s): say with --gossip-advertise which host:port others reach it at", s.bind)}
		}
		return s, nil
	}
	if f.bind != "" || f.advertise != "" {
		return s, usageError{fmt.Errorf("--gossip %s: give the cluster's key with --gossip-key-file, or --gossip-insecure to do without", s.bind)}
	}
	logger.Info("no gossip beyond this host without --gossip-key-file or --gossip-insecure; a process that dies is missed when its lease ends")
	return gossipSettings{}, nil
}

// readGossipKey returns the key in a file, without white space around it.
func readGossipKey(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	key := []byte(strings.TrimSpace(string(content)))
	switch len(key) {
	case 16, 24, 32:
		return key, nil
	}
	return nil, usageError{fmt.Errorf("--gossip-key-file %s: a key of %d bytes, want 16, 24 or 32", path, len(key))}
}

// ownHost reports whether a host is this one's loopback.
func ownHost(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// gossipHost returns where a process gossips that listens nowhere: the loopback if its
// etcd is there too, else all addresses.
func gossipHost(endpoints []string) string {
	for _, endpoint := range endpoints {
		address := endpoint
		if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
			address = u.Host
		}
		if host, _, err := net.SplitHostPort(address); err != nil || !ownHost(host) {
			return "0.0.0.0"
		}
	}
	return "127.0.0.1"
}

// gossip is a process's membership, or nothing.
type gossip struct{ pool *membership.Pool }

// joinGossip makes a life of a process a member of the pool, unless it does not gossip.
// The caller runs and closes it.
func joinGossip(ctx context.Context, c gossipSettings, store *meta.Store, role coordinator.Role, id string, logger *slog.Logger) (gossip, error) {
	if c.bind == "" {
		return gossip{}, nil
	}
	pool, err := membership.Join(ctx, membership.Config{
		ID: id, Role: string(role), Cluster: c.cluster, Bind: c.bind, Advertise: c.advertise,
		SecretKey: c.key, Insecure: c.key == nil, Logger: logger,
		Seeds: func(ctx context.Context) ([]string, error) {
			all, err := store.Members(ctx)
			var seeds []string
			for _, m := range all {
				if m.Gossip != "" {
					seeds = append(seeds, m.Gossip)
				}
			}
			return seeds, err
		},
	})
	return gossip{pool}, err
}

// address is where others gossip with this process; empty if it does not.
func (g gossip) address() string {
	if g.pool == nil {
		return ""
	}
	return g.pool.Address()
}

// run keeps up membership until ctx ends.
func (g gossip) run(ctx context.Context) error {
	if g.pool == nil {
		return nil
	}
	return g.pool.Run(ctx)
}

// close gives membership up at once, if run has not ended it.
func (g gossip) close() {
	if g.pool != nil {
		g.pool.Close()
	}
}

// lookOut looks at members that gossip says are dead, until ctx ends.
func (g gossip) lookOut(ctx context.Context, store *meta.Store, logger *slog.Logger) error {
	if g.pool == nil {
		<-ctx.Done()
		return nil
	}
	l, err := lookout.New(lookout.Config{Store: store, Pool: g.pool, Ask: askHealth, Stay: watchHealth, Logger: logger})
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

// askHealth returns nil if the server at an address says anything at all.
func askHealth(ctx context.Context, address string) error {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled {
		return err
	}
	return nil
}

// watchHealth returns when the connection to the server at an address breaks, or cannot
// be made, or ctx ends.
func watchHealth(ctx context.Context, address string) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return
	}
	defer conn.Close()
	watch, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	for err == nil {
		_, err = watch.Recv()
	}
}
