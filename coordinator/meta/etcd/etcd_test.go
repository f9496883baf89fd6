package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/freshet-ml/freshet/coordinator/meta/etcd"
	"github.com/freshet-ml/freshet/ps"
)

// lines is a log that goroutines may write to.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func start(t *testing.T, dir string, logger *slog.Logger) *etcd.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := etcd.Start(ctx, etcd.Config{Dir: dir, UnsafeNoFsync: true, Logger: logger})
	if err != nil {
		t.Fatalf("start etcd in %s: %v", dir, err)
	}
	t.Cleanup(s.Close)
	return s
}

func client(t *testing.T, s *etcd.Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatalf("client of %v: %v", s.Endpoints(), err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestServer(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := filepath.Join(t.TempDir(), "etcd")
	var log lines
	t.Run("serves on the port it reports, in a directory that is its owner's alone", func(t *testing.T) {
		s := start(t, dir, slog.New(slog.NewTextHandler(&log, nil)))
		if e := s.Endpoints(); len(e) != 1 || !strings.HasPrefix(e[0], "http://127.0.0.1:") || strings.HasSuffix(e[0], ":0") {
			t.Errorf("endpoints are %v, want one on the loopback with its real port", e)
		}
		if _, err := client(t, s).Put(t.Context(), "k", "v"); err != nil {
			t.Errorf("put: %v", err)
		}
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v (%v), want 0700", dir, info.Mode(), err)
		}
	})
	t.Run("another start in the same directory is refused at once", func(t *testing.T) {
		s := start(t, dir, nil)
		_, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, UnsafeNoFsync: true})
		if !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), dir) {
			t.Errorf("error is %v, want ErrConflict naming %s", err, dir)
		}
		got, err := client(t, s).Get(t.Context(), "k")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
			t.Errorf("k is %v (%v), want what was put before the restart", got, err)
		}
	})
	t.Run("nothing is logged where nothing is wrong, closing included", func(t *testing.T) {
		if got := log.String(); got != "" {
			t.Errorf("logged at level info or above:\n%s", got)
		}
	})
	t.Run("a debug log has all of it", func(t *testing.T) {
		var log lines
		start(t, t.TempDir(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))).Close()
		for _, want := range []string{"level=DEBUG", "from=etcd", "quota-backend-bytes=1073741824", "auto-compaction-retention=10m"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the debug log has no %q:\n%s", want, log.String())
			}
		}
	})
}

// freeURLs returns URLs at which nobody listens.
func freeURLs(t *testing.T, n int) (urls []string) {
	t.Helper()
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		urls = append(urls, "http://"+listener.Addr().String())
	}
	return urls
}

func TestThreeMembers(t *testing.T) {
	names, at := []string{"a", "b", "c"}, freeURLs(t, 3)
	var members []string
	for i, name := range names {
		members = append(members, name+"="+at[i])
	}
	dir := t.TempDir()
	servers := make([]*etcd.Server, 3)
	begin := func(t *testing.T, which ...int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var starts errgroup.Group
		for _, i := range which {
			starts.Go(func() (err error) {
				servers[i], err = etcd.Start(ctx, etcd.Config{
					Dir: filepath.Join(dir, names[i]), Name: names[i], Members: members, UnsafeNoFsync: true,
				})
				return err
			})
		}
		if err := starts.Wait(); err != nil {
			t.Fatalf("start members %v of %v: %v", which, members, err)
		}
	}
	t.Cleanup(func() {
		for _, s := range servers {
			if s != nil {
				s.Close()
			}
		}
	})
	put := func(t *testing.T, through *etcd.Server, value string) {
		t.Helper()
		c := client(t, through)
		defer c.Close()
		if _, err := c.Put(t.Context(), "k", value); err != nil {
			t.Fatalf("put %s: %v", value, err)
		}
	}
	get := func(t *testing.T, through *etcd.Server, want string) {
		t.Helper()
		c := client(t, through)
		defer c.Close()
		got, err := c.Get(t.Context(), "k")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != want {
			t.Errorf("k is %v (%v), want %s", got, err, want)
		}
	}
	t.Run("what is put at one is read at the others", func(t *testing.T) {
		begin(t, 0, 1, 2)
		put(t, servers[0], "first")
		get(t, servers[1], "first")
		get(t, servers[2], "first")
	})
	t.Run("two are enough, and the third learns what it missed", func(t *testing.T) {
		servers[0].Close()
		put(t, servers[1], "second")
		begin(t, 0)
		get(t, servers[0], "second")
	})
	t.Run("one alone waits for another and says that it did", func(t *testing.T) {
		for _, s := range servers {
			s.Close()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := etcd.Start(ctx, etcd.Config{Dir: filepath.Join(dir, "a"), Name: "a", Members: members, UnsafeNoFsync: true})
		if !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("error is %v, want ErrUnavailable", err)
		}
	})
}

func TestStartRefuses(t *testing.T) {
	for name, cfg := range map[string]etcd.Config{
		"no directory":                            {},
		"a URL without a port":                    {Dir: t.TempDir(), ClientURL: "http://127.0.0.1"},
		"a URL of another kind":                   {Dir: t.TempDir(), ClientURL: "unix:///run/etcd.sock"},
		"a negative quota":                        {Dir: t.TempDir(), QuotaBytes: -1},
		"a name without members":                  {Dir: t.TempDir(), Name: "a"},
		"members without a name":                  {Dir: t.TempDir(), Members: []string{"a=http://127.0.0.1:1"}},
		"a name that is none of the members'":     {Dir: t.TempDir(), Name: "b", Members: []string{"a=http://127.0.0.1:1"}},
		"a member without a URL":                  {Dir: t.TempDir(), Name: "a", Members: []string{"a"}},
		"a member without a port":                 {Dir: t.TempDir(), Name: "a", Members: []string{"a=http://127.0.0.1"}},
		"a member at any port":                    {Dir: t.TempDir(), Name: "a", Members: []string{"a=http://127.0.0.1:0"}},
		"two members of one name":                 {Dir: t.TempDir(), Name: "a", Members: []string{"a=http://127.0.0.1:1", "a=http://127.0.0.1:2"}},
		"two members at one URL":                  {Dir: t.TempDir(), Name: "a", Members: []string{"a=http://127.0.0.1:1", "b=http://127.0.0.1:1"}},
		"a host name to listen at for members":    {Dir: t.TempDir(), Name: "a", Members: []string{"a=http://coordinator-0:2380"}},
		"a peer URL of another kind to listen at": {Dir: t.TempDir(), Name: "a", PeerURL: "127.0.0.1:1", Members: []string{"a=http://127.0.0.1:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := etcd.Start(t.Context(), cfg); !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
		})
	}
	t.Run("a port in use", func(t *testing.T) {
		s := start(t, t.TempDir(), nil)
		dir := t.TempDir()
		_, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, ClientURL: s.Endpoints()[0], UnsafeNoFsync: true})
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Fatalf("error is %v, want one that says the address is in use", err)
		}
		start(t, dir, nil) // the directory is free again
	})
}
