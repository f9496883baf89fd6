package meta_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator/meta"
	"github.com/freshet-ml/freshet/ps"
)

func TestDial(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + listener.Addr().String()
	listener.Close()

	t.Run("where nobody listens, an error within the deadline names the endpoints", func(t *testing.T) {
		start := time.Now()
		_, err := meta.Dial(t.Context(), meta.Config{Endpoints: []string{nobody}, DialTimeout: 300 * time.Millisecond})
		if !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), nobody) {
			t.Errorf("error is %v, want ErrUnavailable naming %s", err, nobody)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %v with a timeout of 300ms", took)
		}
		t.Log(err)
	})
	t.Run("a context that ends is the error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := meta.Dial(ctx, meta.Config{Endpoints: []string{nobody}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want context.Canceled", err)
		}
	})
	for name, cfg := range map[string]meta.Config{
		"no endpoints":            {},
		"a cluster with a slash":  {Endpoints: endpoints, Cluster: "a/b"},
		"a lease under a second":  {Endpoints: endpoints, LeaseTTL: time.Millisecond},
		"a negative dial timeout": {Endpoints: endpoints, DialTimeout: -1},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			s, err := meta.Dial(t.Context(), cfg)
			if !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("error is %v, want ErrInvalid", err)
			}
			if s != nil {
				s.Close()
			}
		})
	}
}

func TestClose(t *testing.T) {
	t.Run("ends every watch, and a watch after it has ended already", func(t *testing.T) {
		s := dial(t)
		create(t, s, 4)
		before := s.WatchMap(t.Context())
		next(t, before)
		s.Close()
		s.Close()
		if _, ok := <-before; ok {
			t.Error("a watch gave another map instead of ending")
		}
		if _, ok := <-s.WatchModels(t.Context()); ok {
			t.Error("a watch of a closed store gives something")
		}
	})
	t.Run("a request of a closed store is an error", func(t *testing.T) {
		s := dial(t)
		s.Close()
		if _, err := s.Models(t.Context()); err == nil {
			t.Error("want an error")
		}
	})
}

func TestUnavailable(t *testing.T) {
	l := newLink(t)
	s := dial(t, func(c *meta.Config) {
		c.Endpoints = []string{l.endpoint()}
		c.RequestTimeout = 200 * time.Millisecond
	})
	create(t, s, 4)
	l.Cut()
	t.Run("a request without an answer is ErrUnavailable", func(t *testing.T) {
		if _, err := s.View(t.Context()); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("error is %v, want ErrUnavailable", err)
		}
	})
	t.Run("a request whose caller gave up is the caller's error", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := s.View(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("error is %v, want the context's", err)
		}
	})
	t.Run("close does not wait for an answer", func(t *testing.T) {
		maps := s.WatchMap(t.Context())
		s.Close()
		if _, ok := <-maps; ok {
			t.Error("the watch gave a map")
		}
	})
}
