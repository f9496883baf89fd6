package redis_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/sink"
	"github.com/freshet-ml/freshet/ps/sink/redis"
)

var model = ps.Model{Name: "shop", Version: 1, Stream: "s", Partitions: 1, Layout: ps.Layout{Tables: []ps.Table{
	{Name: "linear", Kind: ps.Float32, Width: 1},
	{Name: "factors", Kind: ps.Float32, Width: 3},
}}}

// server is a redis-server of the test's own, which comes and goes.
type server struct {
	t       *testing.T
	address string
	process *exec.Cmd
	*goredis.Client
}

// newServer starts a server, or skips the test.
func newServer(t *testing.T) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("skipped: there is no redis-server")
	}
	var config net.ListenConfig
	free, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, address: free.Addr().String()}
	free.Close()
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *server) start() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", s.t.TempDir())
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.Client = goredis.NewClient(&goredis.Options{Addr: s.address, MaxRetries: -1, Protocol: 2, DisableIdentity: true})
	deadline := time.Now().Add(20 * time.Second)
	for ticks := time.NewTicker(5 * time.Millisecond); s.Ping(context.Background()).Err() != nil; <-ticks.C {
		if time.Now().After(deadline) {
			s.t.Fatal("redis-server does not answer")
		}
	}
}

func (s *server) stop() {
	s.Close()
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// config is that of a target at the server.
func (s *server) config() redis.Config {
	return redis.Config{
		URL: s.address, Key: "{model}:{table}:{key}", Positions: "freshet:sink:{model}",
		Model: model, Tables: []ps.TableID{0, 1}, Shards: 1,
	}
}

func newTarget(t *testing.T, c redis.Config) *redis.Target {
	t.Helper()
	target, err := redis.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

// row encodes a row without state.
func row(key ps.Key, weights ...float32) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(key))
	b = append(b, make([]byte, 8)...)
	return append(b, ps.Bytes(weights)...)
}

// base is all of a shard.
func base(seq uint64, linear, factors []byte) *ps.Delta {
	d := &ps.Delta{ShardProgress: ps.ShardProgress{Fence: 7, Seq: seq, Rows: 2, Partitions: []ps.Progress{{Applied: 100, EventTime: 5}}}}
	d.Blocks = []ps.Block{{Table: 0, Stride: 20, Rows: linear}, {Table: 1, Stride: 28, Rows: factors}}
	return d
}

type source []*ps.Delta

func (s source) Follow(ctx context.Context, take func(*ps.Delta) error) error {
	for _, d := range s {
		if err := take(d); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// write writes a base once, and returns how many rows that took.
func write(t *testing.T, c redis.Config, d *ps.Delta) (int64, error) {
	t.Helper()
	s, err := sink.New(sink.Config{
		Source: source{d}, Target: newTarget(t, c), Model: c.Model, Tables: c.Tables, Shards: c.Shards, Once: true,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	return s.Figures().Rows, err
}

func TestRowsAreWrittenInTheFormThatWasAskedFor(t *testing.T) {
	server := newServer(t)
	third := float32(1) / 3
	d := base(3, row(1<<63, third), row(255, 1, -2.5, float32(math.Inf(1))))
	for name, test := range map[string]struct {
		change          func(*redis.Config)
		linear, factors string // keys
		one, three      string // values
	}{
		"binary": {
			func(*redis.Config) {},
			"shop:linear:9223372036854775808", "shop:factors:255",
			string(ps.Bytes([]float32{third})), string(ps.Bytes([]float32{1, -2.5, float32(math.Inf(1))})),
		},
		"JSON and hexadecimal keys": {
			func(c *redis.Config) { c.Key, c.Value = "{table}/{hex}/x", redis.JSON },
			"linear/8000000000000000/x", "factors/00000000000000ff/x",
			"[0.33333334]", "[1,-2.5,null]",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := server.config()
			test.change(&c)
			if _, err := write(t, c, d); err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]string{test.linear: test.one, test.factors: test.three} {
				if got, err := server.Get(t.Context(), key).Result(); err != nil || got != want {
					t.Errorf("%s is %q, %v; want %q", key, got, err, want)
				}
			}
		})
	}
}

func TestPositionsCountForRowsOfTheirFormOnly(t *testing.T) {
	server := newServer(t)
	c := server.config()
	d := base(3, row(1, 1), row(2, 2, 2, 2))
	first, err := write(t, c, d)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := server.HGet(t.Context(), "freshet:sink:shop", "0").Val(), `{"fence":7,"seq":3,"rows":2,"applied":[100],"event_time":5}`; got != want {
		t.Errorf("the position is %s, want %s", got, want)
	}
	again, err := write(t, c, d)
	if err != nil {
		t.Fatal(err)
	}
	c.Value = redis.JSON
	other, err := write(t, c, d)
	if err != nil {
		t.Fatal(err)
	}
	if first != 2 || again != 0 || other != 2 {
		t.Errorf("%d rows were written, then %d of the same, then %d in another form; want 2, 0 and 2", first, again, other)
	}
	server.HSet(t.Context(), "freshet:sink:shop", "0", "{")
	if _, err := write(t, c, d); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "delete the key") {
		t.Errorf("with a position that is none: %v, want ErrInvalid and what to do", err)
	}
}

// follower brings a base at once and a delta whenever it is told to.
type follower struct {
	more  chan *ps.Delta
	bases chan struct{}
}

func (f follower) Follow(ctx context.Context, take func(*ps.Delta) error) error {
	if err := take(base(3, row(1, 1), row(2, 2, 2, 2))); err != nil {
		return err
	}
	f.bases <- struct{}{}
	for {
		select {
		case d := <-f.more:
			if err := take(d); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// begun waits until it is followed from the base.
func (f follower) begun(t *testing.T) {
	t.Helper()
	select {
	case <-f.bases:
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for the sink to begin with the base")
	}
}

func TestARedisThatWasEmptiedIsWrittenFromTheBaseAgain(t *testing.T) {
	for name, empty := range map[string]func(*server){
		"by a command":                         func(s *server) { s.FlushAll(context.Background()) },
		"by a restart that nobody has noticed": func(s *server) { s.stop(); s.start() },
		"by being set back to before the base": func(s *server) {
			ctx := context.Background()
			name, _, _ := strings.Cut(s.HGet(ctx, "freshet:sink:shop", "sink").Val(), " ")
			s.Del(ctx, "shop:linear:1")
			s.HDel(ctx, "freshet:sink:shop", "0")
			s.HSet(ctx, "freshet:sink:shop", "sink", name+" 0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := newServer(t)
			c := server.config()
			f := follower{make(chan *ps.Delta), make(chan struct{})}
			s, err := sink.New(sink.Config{
				Source: f, Target: newTarget(t, c), Model: c.Model, Tables: c.Tables, Shards: c.Shards, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			f.begun(t)
			await(t, "the base is written", func() bool { return s.Figures().Shards == 1 })
			empty(server)
			delta := base(4, nil, row(2, 3, 3, 3))
			delta.Since = 3
			f.more <- delta
			f.begun(t) // anew
			await(t, "the base is written again", func() bool { return server.Exists(ctx, "shop:linear:1", "shop:factors:2").Val() == 2 })
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheFirstOfTwoSinksEnds(t *testing.T) {
	server := newServer(t)
	c := server.config()
	f := follower{make(chan *ps.Delta), make(chan struct{})}
	s, err := sink.New(sink.Config{
		Source: f, Target: newTarget(t, c), Model: c.Model, Tables: c.Tables, Shards: c.Shards, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	f.begun(t)
	await(t, "the base is written", func() bool { return s.Figures().Shards == 1 })
	if _, err := write(t, c, base(3, row(1, 1), row(2, 2, 2, 2))); err != nil {
		t.Fatal(err)
	}
	delta := base(4, row(1, 5), nil)
	delta.Since = 3
	f.more <- delta
	select {
	case err := <-ended:
		if !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), "another sink") {
			t.Errorf("the first sink ended with %v, want ErrConflict and that there is another", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the first sink goes on")
	}
}

// await waits until what is said is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for ticks := time.NewTicker(5 * time.Millisecond); !so(); <-ticks.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestWhatPassesIsUnavailableAndNothingElseIs(t *testing.T) {
	server := newServer(t)
	c := server.config()
	d := base(3, row(1, 1), row(2, 2, 2, 2))
	ctx := t.Context()
	t.Run("a full server", func(t *testing.T) {
		target := newTarget(t, c)
		server.ConfigSet(ctx, "maxmemory", "1")
		defer server.ConfigSet(ctx, "maxmemory", "0")
		if _, err := target.Positions(ctx); !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
			t.Errorf("%v, want ErrUnavailable and OOM", err)
		}
	})
	t.Run("another thing under the positions' key", func(t *testing.T) {
		c := c
		c.Positions = "taken"
		server.Set(ctx, "taken", "x", 0)
		if _, err := write(t, c, d); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "WRONGTYPE") || !strings.Contains(err.Error(), "taken") {
			t.Errorf("%v, want ErrInvalid, WRONGTYPE and the key", err)
		}
	})
	t.Run("a password that is wrong", func(t *testing.T) {
		c := c
		c.URL = "redis://:hunter2@" + server.address
		server.ConfigSet(ctx, "requirepass", "another")
		defer server.ConfigSet(ctx, "requirepass", "")
		if _, err := write(t, c, d); !errors.Is(err, ps.ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want ErrInvalid, without the password", err)
		}
	})
	t.Run("a server that is gone and comes back", func(t *testing.T) {
		target := newTarget(t, c)
		server.stop()
		if _, err := target.Positions(ctx); !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), server.address) {
			t.Errorf("%v, want ErrUnavailable and the address", err)
		}
		server.start()
		deadline := time.Now().Add(20 * time.Second)
		for ticks := time.NewTicker(5 * time.Millisecond); ; <-ticks.C { // the library dials once a second
			if _, err := target.Positions(ctx); err == nil {
				break
			} else if time.Now().After(deadline) || !errors.Is(err, ps.ErrUnavailable) {
				t.Fatal(err)
			}
		}
	})
}

func TestAConfigThatCannotBeMeantIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*redis.Config)
		want   string
	}{
		"an empty template":        {func(c *redis.Config) { c.Key = "" }, "empty template"},
		"an unknown placeholder":   {func(c *redis.Config) { c.Key = "x:{kye}" }, "{kye} at position 3"},
		"a brace that stays open":  {func(c *redis.Config) { c.Key = "x{key" }, "{ at position 2 is not closed"},
		"a brace that none opens":  {func(c *redis.Config) { c.Key = "{key}ab}" }, "} at position 8"},
		"one key for all rows":     {func(c *redis.Config) { c.Key = "{model}:{table}" }, "put {key} or {hex}"},
		"one key for two tables":   {func(c *redis.Config) { c.Key = "{hex}" }, "put {table}"},
		"positions of a row":       {func(c *redis.Config) { c.Positions = "p:{key}" }, "only {model}"},
		"an address that is none":  {func(c *redis.Config) { c.URL = "http://hunter2@x" }, "want redis://"},
		"an address with a secret": {func(c *redis.Config) { c.URL = "redis://:hunter2@[::1" }, "want redis://"},
	} {
		t.Run(name, func(t *testing.T) {
			c := redis.Config{
				URL: "127.0.0.1:1", Key: "{table}:{key}", Positions: "p", Model: model, Tables: []ps.TableID{0, 1}, Shards: 1,
			}
			test.change(&c)
			_, err := redis.New(c)
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v, want ErrInvalid and %q, and no password", err, test.want)
			}
		})
	}
	if _, err := redis.ParseValue("yaml"); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("value yaml: %v, want ErrInvalid", err)
	}
}
