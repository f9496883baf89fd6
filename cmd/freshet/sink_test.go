package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/sink"
	"github.com/freshet-ml/freshet/worker/feature"
)

// redisServer is a redis-server of a test's own, which comes and goes.
type redisServer struct {
	t       *testing.T
	dir     string
	address string
	process *exec.Cmd
	client  *goredis.Client
}

// startRedisServer starts one, or skips the test.
func startRedisServer(t *testing.T) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("skipped: there is no redis-server")
	}
	free, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &redisServer{t: t, dir: t.TempDir(), address: free.Addr().String()}
	free.Close()
	r.client = goredis.NewClient(&goredis.Options{Addr: r.address, MaxRetries: -1, Protocol: 2})
	t.Cleanup(func() { r.client.Close() })
	r.start()
	t.Cleanup(r.stop)
	return r
}

// start starts the server, with what it had saved when it was stopped.
func (r *redisServer) start() {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.process = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", r.dir, "--save", "3600 1000000")
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	await(r.t, "redis-server answers", func() bool { return r.client.Ping(context.Background()).Err() == nil })
}

// stop ends the server in order: it saves what it has.
func (r *redisServer) stop() {
	r.client.Shutdown(context.Background())
	_ = r.process.Wait()
}

// positions returns how far the shards are in Redis.
func (r *redisServer) positions(key string) map[string]sink.Position {
	positions := make(map[string]sink.Position)
	for field, doc := range r.client.HGetAll(context.Background(), key).Val() {
		var p sink.Position
		if json.Unmarshal([]byte(doc), &p) == nil && p.Fence != 0 {
			positions[field] = p
		}
	}
	return positions
}

// at reports whether Redis is where the shards are.
func (r *redisServer) at(progress []ps.ShardProgress) bool {
	positions := r.positions("freshet:sink:clicks")
	for _, shard := range progress {
		if p := positions[fmt.Sprint(shard.Shard)]; p.Seq != shard.Seq || p.Fence != shard.Fence {
			return false
		}
	}
	return true
}

// clickKeys are all keys that writeClicks' events can have.
func clickKeys() []ps.Key {
	keys := []ps.Key{feature.ConstantKey()}
	for i := range 30 {
		keys = append(keys, feature.Key("item", fmt.Appendf(nil, "i%d", i)))
	}
	return keys
}

// compare looks whether every row of clicks in Redis is that of the cluster, and every row
// that items must have is there.
func (r *redisServer) compare(c *testCluster) (rows int) {
	r.t.Helper()
	ctx := context.Background()
	pull := pullRows(c.client, c.model, c.shards)
	all := make(map[ps.TableID][]ps.Key)
	for found := r.client.Scan(ctx, 0, "clicks:*", 1000).Iterator(); found.Next(ctx); {
		parts := strings.Split(found.Val(), ":")
		id, _, ok := c.model.Layout.Table(parts[1])
		key, err := strconv.ParseUint(parts[2], 10, 64)
		if !ok || err != nil {
			r.t.Fatalf("key %q in Redis: %v", found.Val(), err)
		}
		all[id] = append(all[id], ps.Key(key))
	}
	for id, keys := range all {
		table := c.model.Layout.Tables[id]
		values, err := pull(ctx, id, keys)
		if err != nil {
			r.t.Fatal(err)
		}
		for i, key := range keys {
			want := string(values[i*table.RowBytes() : (i+1)*table.RowBytes()])
			if got := r.client.Get(ctx, fmt.Sprintf("clicks:%s:%d", table.Name, key)).Val(); got != want {
				r.t.Fatalf("row %d of %s is %x in Redis, want %x", key, table.Name, got, want)
			}
		}
		rows += len(keys)
	}
	for _, key := range clickKeys() {
		if n := r.client.Exists(ctx, fmt.Sprintf("clicks:linear:%d", key)).Val(); n == 0 {
			r.t.Errorf("row %d of linear, which every item has, is not in Redis", key)
		}
	}
	return rows
}

func TestASinkThatIsKilledAgainAndAgainLeavesRedisAsTheModelIs(t *testing.T) {
	const events = 60_000
	redis := startRedisServer(t)
	c := newTestCluster(t, 2, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	leave := c.startNode("b")
	c.startWorker("v")
	c.dial()
	child := &child{
		name: "sink", log: filepath.Join(t.TempDir(), "log"), again: make(chan struct{}),
		args: []string{"sink", "redis", "--coordinator", c.coordinator, "--redis", redis.address},
	}
	c.start("the sink", child.run)
	kills := 0
	for share := range 6 {
		c.waitFor(int64(share+1) * events / 12)
		before := redis.client.DBSize(t.Context()).Val()
		await(t, "the sink writes", func() bool {
			return redis.client.DBSize(t.Context()).Val() > before || len(redis.positions("freshet:sink:clicks")) == c.shards
		})
		if child.kill() {
			kills++
		}
		switch share {
		case 2:
			leave() // its shards begin anew elsewhere
		case 4:
			redis.stop()
		}
		if err := child.restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if share == 4 {
			await(t, "the sink says that Redis is away", func() bool { return strings.Contains(readLog(t, child.log), "cannot be reached; trying again") })
			redis.start()
			await(t, "the sink says that Redis is back", func() bool { return strings.Contains(readLog(t, child.log), "is back") })
		}
	}
	progress := c.waitFor(events)
	await(t, "all is in Redis", func() bool { return redis.at(progress) })
	if n := redis.compare(c); n < 1500 || kills < 5 {
		t.Errorf("%d rows are in Redis, and the sink was killed %d times; want at least 1500 rows and 5 times", n, kills)
	}
}

// readLog returns what a child has said so far.
func readLog(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestASinkOnceWritesWhatThereIsAndEnds(t *testing.T) {
	const events = 5_000
	redis := startRedisServer(t)
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, events))
	c.startNode("a")
	c.startWorker("v")
	c.dial()
	progress := c.waitFor(events)
	var reports [2]sinkReport
	for i := range reports {
		code, stdout, stderr := freshet(t, "sink", "redis", "--once", "--coordinator", c.coordinator, "--redis", redis.address, "-o", "json")
		if err := json.Unmarshal([]byte(stdout), &reports[i]); code != 0 || err != nil {
			t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
		}
	}
	if !redis.at(progress) {
		t.Errorf("positions %v, want those of %v", redis.positions("freshet:sink:clicks"), progress)
	}
	if n := redis.compare(c); int64(n) != reports[0].Rows || reports[0].Shards != c.shards || reports[1].Rows != 0 {
		t.Errorf("%d rows are in Redis; reports %+v; want as many rows at first, and none again", n, reports)
	}
}

func TestASinkThatCannotBeMeantSaysWhy(t *testing.T) {
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, 10))
	c.startNode("a")
	c.dial()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a wrong template":    {[]string{"--key", "{model}:{tabel}:{key}"}, "{tabel} at position 9"},
		"a wrong value":       {[]string{"--value", "yaml"}, "want binary or json"},
		"a table that is not": {[]string{"--tables", "embeddings"}, `no table "embeddings", only linear`},
		"a table of counts":   {[]string{"--tables", "audit"}, "no weights"},
		"a wrong address":     {[]string{"--redis", "http://x"}, "want redis://"},
		"metrics nowhere":     {[]string{"--metrics", "nowhere:x"}, "--metrics"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"sink", "redis", "--coordinator", c.coordinator, "--redis", "127.0.0.1:1"}, test.args...)
			if code, _, stderr := freshet(t, args...); code != exitUsage || !strings.Contains(stderr, test.want) {
				t.Errorf("exit code %d: %s; want %d and %q", code, stderr, exitUsage, test.want)
			}
		})
	}
}

func TestMetricsOfASinkAreServed(t *testing.T) {
	redis := startRedisServer(t)
	c := newTestCluster(t, 1, 1)
	c.apply(clusterSpec, writeClicks(t, 1000))
	c.startNode("a")
	c.startWorker("v")
	c.dial()
	c.waitFor(1000)
	free := c.listen()
	address := free.Addr().String()
	free.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	var stdout, stderr syncBuffer
	go func() {
		ended <- runContext(ctx, []string{"sink", "redis", "--coordinator", c.coordinator, "--redis", redis.address, "--metrics", address}, &stdout, &stderr)
	}()
	client := &http.Client{Timeout: 5 * time.Second}
	await(t, "metrics say that rows were written", func() bool {
		answer, err := client.Get("http://" + address + "/metrics")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		return err == nil && strings.Contains(string(text), "\nfreshet_sink_rows_total{model=\"clicks\"} ") && !strings.Contains(string(text), "rows_total{model=\"clicks\"} 0\n")
	})
	interrupt()
	if code := <-ended; code != 0 || !strings.Contains(stdout.String(), "rows written") {
		t.Errorf("interrupted, it ended with exit code %d: %s%s; want 0 and a summary", code, &stdout, &stderr)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("metrics are still served")
	}
}
