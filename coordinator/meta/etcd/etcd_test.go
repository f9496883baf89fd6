package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

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

func TestStartRefuses(t *testing.T) {
	for name, cfg := range map[string]etcd.Config{
		"no directory":          {},
		"a URL without a port":  {Dir: t.TempDir(), ClientURL: "http://127.0.0.1"},
		"a URL of another kind": {Dir: t.TempDir(), ClientURL: "unix:///run/etcd.sock"},
		"a negative quota":      {Dir: t.TempDir(), QuotaBytes: -1},
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
