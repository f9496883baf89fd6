//go:build unix

package membership_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-ml/freshet/coordinator/membership"
	"github.com/freshet-ml/freshet/ps"
)

// Of a pool of up to ten members with the default settings: what DESIGN.md says is
// about half of these, and the other half is for a busy machine.
const (
	deadWithin  = 2 * time.Second
	leftWithin  = time.Second
	aliveWithin = 10 * time.Second
)

var key = []byte("sixteen bytes ok")

// TestMain runs the tests, or one member as a process of its own: ID and seed are its
// arguments, it prints its address, and leaves when its standard input ends.
func TestMain(m *testing.M) {
	if id := os.Getenv("MEMBER_ID"); id != "" {
		if err := process(id, os.Getenv("MEMBER_SEED")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func process(id, seed string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := membership.Join(ctx, membership.Config{ID: id, Role: "ps", Bind: "127.0.0.1:0", SecretKey: key, Seeds: seeds(seed)})
	if err != nil {
		return err
	}
	fmt.Println(p.Address())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	err = p.Run(ctx)
	<-ended
	return err
}

// child is a member that is a process.
type child struct {
	id, address string
	cmd         *exec.Cmd
	stdin       io.Closer
}

func startChild(t *testing.T, id, seed string) *child {
	t.Helper()
	c := &child{id: id, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), "MEMBER_ID="+id, "MEMBER_SEED="+seed)
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	if c.address, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatalf("process %s: %v", id, err)
	}
	c.address = strings.TrimSpace(c.address)
	return c
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s to %s: %v", s, c.id, err)
	}
}

func seeds(addresses ...string) func(context.Context) ([]string, error) {
	return func(context.Context) ([]string, error) { return addresses, nil }
}

// pool is a member in this process, with all that a watch of it has given.
type pool struct {
	*membership.Pool
	id    string
	leave func() // ends Run's ctx

	mu    sync.Mutex
	given []given
	more  chan struct{} // closed and replaced whenever something was given
	ran   chan struct{} // closed when Run has returned
}

type given struct {
	membership.Member
	at time.Time
}

func (g given) String() string { return g.ID + " " + g.State.String() }

func join(t *testing.T, cfg membership.Config) *pool {
	t.Helper()
	cfg = defaults(cfg)
	p, err := membership.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	q := &pool{Pool: p, id: cfg.ID, leave: cancel, more: make(chan struct{}), ran: make(chan struct{})}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for m := range p.Watch(ctx) {
			q.mu.Lock()
			q.given = append(q.given, given{Member: m, at: time.Now()})
			close(q.more)
			q.more = make(chan struct{})
			q.mu.Unlock()
		}
	}()
	go func() {
		defer close(q.ran)
		if err := p.Run(ctx); err != nil {
			t.Errorf("Run of %s returned %v", q.id, err)
		}
	}()
	t.Cleanup(func() {
		p.Close() // without the time that leaving takes
		cancel()
		<-watched
		<-q.ran
	})
	return q
}

func defaults(cfg membership.Config) membership.Config {
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1:0"
	}
	if cfg.SecretKey == nil && !cfg.Insecure {
		cfg.SecretKey = key
	}
	if cfg.Role == "" {
		cfg.Role = "worker"
	}
	return cfg
}

// await returns when the watch gave a state of a member after a time; an earlier
// call's answer is a time to go on from.
func (q *pool) await(t *testing.T, id string, state membership.State, after time.Time, within time.Duration) time.Time {
	t.Helper()
	timeout := time.NewTimer(time.Until(after.Add(within)))
	defer timeout.Stop()
	for {
		q.mu.Lock()
		all, more := q.given, q.more
		q.mu.Unlock()
		for _, g := range all {
			if g.ID == id && g.State == state && g.at.After(after) {
				return g.at
			}
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("%s is not told within %s that %s is %s; it was told %v and lists %v", q.id, within, id, state, all, q.Members())
		}
	}
}

func awaitAll(t *testing.T, pools []*pool, id string, state membership.State, after time.Time, within time.Duration) {
	t.Helper()
	var took []time.Duration
	for _, p := range pools {
		if p.id != id {
			took = append(took, p.await(t, id, state, after, within).Sub(after).Round(time.Millisecond))
		}
	}
	slices.Sort(took)
	t.Logf("%s is %s: known to %d members after %v", id, state, len(took), took)
}

// directory is where members find each other's addresses: what etcd is elsewhere.
type directory struct {
	mu        sync.Mutex
	addresses []string
}

func (d *directory) add(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = append(d.addresses, address)
}

func (d *directory) seeds(context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.addresses), nil
}

// together starts members that find each other in the directory, and waits until
// everyone knows everyone.
func together(t *testing.T, n int, d *directory) []*pool {
	t.Helper()
	var pools []*pool
	start := time.Now()
	for i := range n {
		p := join(t, membership.Config{ID: fmt.Sprintf("m%d", i), Seeds: d.seeds})
		d.add(p.Address())
		pools = append(pools, p)
	}
	for i := range n {
		awaitAll(t, pools, fmt.Sprintf("m%d", i), membership.Alive, start, aliveWithin)
	}
	return pools
}

func TestMembersKnowWhoIsAlive(t *testing.T) {
	pools := together(t, 5, &directory{})

	t.Run("a member is listed with its role and address", func(t *testing.T) {
		for _, p := range pools {
			got := p.Members()
			if len(got) != len(pools) {
				t.Fatalf("%s lists %v, want %d members", p.id, got, len(pools))
			}
			for i, q := range pools {
				want := membership.Member{ID: q.id, Role: "worker", Address: q.Address(), State: membership.Alive}
				if got[i] != want {
					t.Errorf("%s lists %v, want %v", p.id, got[i], want)
				}
			}
		}
	})

	t.Run("a crash is known to all others", func(t *testing.T) {
		crashed := time.Now()
		pools[4].Close()
		t.Logf("Close took %s", time.Since(crashed).Round(time.Millisecond))
		pools = pools[:4]
		awaitAll(t, pools, "m4", membership.Dead, crashed, deadWithin)
	})

	t.Run("who leaves is not taken for dead", func(t *testing.T) {
		began := time.Now()
		left := pools[3]
		left.leave()
		pools = pools[:3]
		awaitAll(t, pools, "m3", membership.Left, began, leftWithin)
		if gone := pools[0].Members()[3]; gone.ID != "m3" || gone.State != membership.Left {
			t.Errorf("%v is listed for m3, want it as left", gone)
		}
		<-left.ran
		t.Logf("Run returned %s after its ctx had ended", time.Since(began).Round(time.Millisecond))
	})

	t.Run("a killed process is known, and its successor at the same address at once", func(t *testing.T) {
		began := time.Now()
		first := startChild(t, "first life", pools[0].Address())
		awaitAll(t, pools, first.id, membership.Alive, began, aliveWithin)
		killed := time.Now()
		first.signal(t, syscall.SIGKILL)
		_ = first.cmd.Wait()
		second := join(t, membership.Config{ID: "second life", Bind: first.address, Seeds: seeds(pools[0].Address())})
		awaitAll(t, pools, second.id, membership.Alive, killed, time.Second)
		awaitAll(t, pools, first.id, membership.Dead, killed, deadWithin)
	})
}

func TestAFalseAlarmIsTakenBack(t *testing.T) {
	for name, fault := range map[string]func(t *testing.T, d *directory) (id string, on func(bool)){
		"a process that is stopped": func(t *testing.T, d *directory) (string, func(bool)) {
			c := startChild(t, "stopped", d.addresses[0])
			d.add(c.address)
			return c.id, func(on bool) {
				if on {
					c.signal(t, syscall.SIGSTOP)
				} else {
					c.signal(t, syscall.SIGCONT)
				}
			}
		},
		"a member that is cut off": func(t *testing.T, d *directory) (string, func(bool)) {
			var cable membership.Cable
			cfg := membership.Config{ID: "cut off", Seeds: d.seeds}
			cable.Through(&cfg)
			d.add(join(t, cfg).Address())
			return cfg.ID, cable.Pull
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			var d directory
			pools := together(t, 4, &d)
			slow := pools[1].Watch(t.Context()) // which nobody reads
			began := time.Now()
			id, on := fault(t, &d)
			awaitAll(t, pools, id, membership.Alive, began, aliveWithin)
			broken := time.Now()
			on(true)
			awaitAll(t, pools, id, membership.Dead, broken, deadWithin)
			<-time.After(time.Until(broken.Add(3 * time.Second))) // so long the fault lasts
			mended := time.Now()
			on(false)
			awaitAll(t, pools, id, membership.Alive, mended, aliveWithin)

			// All of that is one entry for who was slow.
			seen := map[string]int{}
			for range 5 {
				m := <-slow
				seen[m.ID]++
				if m.ID == id && m.State != membership.Alive {
					t.Errorf("a slow watch is given %v, want the latest", m)
				}
			}
			if len(seen) != 5 {
				t.Errorf("a slow watch is given %v, want each member once", seen)
			}
		})
	}
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	pools := together(t, 2, &directory{})
	pools[0].Close()
	<-time.After(300 * time.Millisecond) // from then on the other one waits for an answer nearly all the time
	pools[1].Close()
	for _, p := range pools {
		<-p.ran
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "hashicorp/memberlist") {
			t.Errorf("after Close there is\n%s", stack)
		}
	}
}

func TestWhoDoesNotBelongIsNotHeard(t *testing.T) {
	for name, stranger := range map[string]membership.Config{
		"another key":     {SecretKey: []byte("sixteen bytes no")},
		"no key":          {Insecure: true},
		"another cluster": {Cluster: "another"},
	} {
		t.Run(name, func(t *testing.T) {
			home := join(t, membership.Config{ID: "home"})
			var logged safeBuffer
			stranger.ID = "stranger"
			stranger.Seeds = seeds(home.Address())
			stranger.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			s := join(t, stranger)
			if got := s.Members(); len(got) != 1 {
				t.Errorf("the stranger lists %v, want itself alone", got)
			}
			if got := home.Members(); len(got) != 1 {
				t.Errorf("a member lists %v, want itself alone", got)
			}
			if want := "no seed of the gossip pool has answered"; !strings.Contains(logged.String(), want) {
				t.Errorf("the stranger logs\n%swant %q", logged.String(), want)
			}
		})
	}
}

func TestAnIDNamesOneProcess(t *testing.T) {
	var logged safeBuffer
	began := time.Now()
	home := join(t, membership.Config{ID: "home", Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	first := join(t, membership.Config{ID: "twin", Seeds: seeds(home.Address())})
	home.await(t, "twin", membership.Alive, began, aliveWithin)

	second, err := membership.Join(t.Context(), defaults(membership.Config{ID: "twin", Seeds: seeds(home.Address())}))
	if !errors.Is(err, ps.ErrConflict) {
		if second != nil {
			second.Close()
		}
		t.Fatalf("a second process with the ID of a first: error %v, want ps.ErrConflict", err)
	}
	if !strings.Contains(err.Error(), first.Address()) {
		t.Errorf("%q does not name the first at %s", err, first.Address())
	}
	if got := home.Members()[1]; got.Address != first.Address() || got.State != membership.Alive {
		t.Errorf("after that %v is listed, want the first at %s", got, first.Address())
	}
	t.Logf("refused: %v", err)
	t.Logf("logged elsewhere:\n%s", logged.String())
	if want := "two processes have the same ID"; !strings.Contains(logged.String(), want) {
		t.Errorf("a third member logs\n%swant %q", logged.String(), want)
	}
}

func TestMembersFindEachOtherLate(t *testing.T) {
	var mu sync.Mutex
	var address string
	a := join(t, membership.Config{ID: "a", SeedInterval: 20 * time.Millisecond, Seeds: func(context.Context) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		if address == "" {
			return nil, errors.New("the store does not answer yet")
		}
		return []string{"127.0.0.1:1", address}, nil
	}})
	b := join(t, membership.Config{ID: "b"})
	began := time.Now()
	mu.Lock()
	address = b.Address()
	mu.Unlock()
	a.await(t, "b", membership.Alive, began, aliveWithin)
	b.await(t, "a", membership.Alive, began, aliveWithin)
}

func TestCloseDoesNotWaitForSeeds(t *testing.T) {
	calls := make(chan struct{}, 1)
	first := true
	p := join(t, membership.Config{ID: "patient", SeedInterval: time.Millisecond, Seeds: func(ctx context.Context) ([]string, error) {
		if first { // in Join
			first = false
			return nil, nil
		}
		calls <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	<-calls
	p.Close()
	<-p.ran
}

func TestWatch(t *testing.T) {
	p, err := membership.Join(t.Context(), defaults(membership.Config{ID: "self"}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	flap := membership.Member{ID: "flap", State: membership.Alive}

	t.Run("a member that flaps is one entry, the latest", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		changes := p.Watch(ctx)
		const n = 10_001
		for i := range n {
			flap.State = membership.Alive + membership.State(i%2)
			p.Set(flap)
		}
		for _, want := range []membership.Member{p.Members()[1], flap} {
			if got := <-changes; got != want {
				t.Errorf("the watch gives %v, want %v", got, want)
			}
		}
		select {
		case got := <-changes:
			t.Errorf("the watch gives %v after the latest of everyone", got)
		default:
		}
		cancel()
		if got, ok := <-changes; ok {
			t.Errorf("the watch gives %v after its ctx has ended", got)
		}
	})

	t.Run("who reads at once sees the last state", func(t *testing.T) {
		changes := p.Watch(t.Context())
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			for i := range 10_000 {
				p.Set(membership.Member{ID: "flap", Address: fmt.Sprint(i), State: membership.Alive})
			}
			p.Set(membership.Member{ID: "flap", Address: "last", State: membership.Alive})
		}()
		reads := 0
		for m := range changes {
			if reads++; m.Address == "last" {
				break
			}
		}
		<-wrote
		t.Logf("10,001 changes were %d reads", reads)
	})

	t.Run("who has left does not come back", func(t *testing.T) {
		for _, state := range []membership.State{membership.Left, membership.Dead, membership.Alive} {
			p.Set(membership.Member{ID: "left", State: state})
		}
		if got := p.Members()[1]; got.ID != "left" || got.State != membership.Left {
			t.Errorf("%v is listed, want it as left", got)
		}
	})

	t.Run("who is gone for long is forgotten, and nobody else", func(t *testing.T) {
		p.Forget(time.Now().Add(time.Second))
		var got []string
		for _, m := range p.Members() {
			got = append(got, m.ID)
		}
		if want := []string{"flap", "self"}; !slices.Equal(got, want) {
			t.Errorf("%v are listed, want %v", got, want)
		}
	})

	t.Run("the end of the pool ends its watches", func(t *testing.T) {
		before := p.Watch(t.Context())
		p.Close()
		for range before {
		}
		if m, ok := <-p.Watch(t.Context()); ok {
			t.Errorf("a watch after the end gives %v", m)
		}
		if err := p.Run(t.Context()); err != nil {
			t.Errorf("Run after the end returns %v", err)
		}
	})
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for name, change := range map[string]func(*membership.Config){
		"no ID":                       func(c *membership.Config) { c.ID = "" },
		"a long ID":                   func(c *membership.Config) { c.ID = strings.Repeat("x", 129) },
		"a long role":                 func(c *membership.Config) { c.Role = strings.Repeat("x", 65) },
		"a long cluster":              func(c *membership.Config) { c.Cluster = strings.Repeat("x", 256) },
		"no key":                      func(c *membership.Config) { c.SecretKey = nil },
		"a short key":                 func(c *membership.Config) { c.SecretKey = key[:15] },
		"a key and none":              func(c *membership.Config) { c.Insecure = true },
		"no address":                  func(c *membership.Config) { c.Bind = "" },
		"an address without port":     func(c *membership.Config) { c.Bind = "127.0.0.1" },
		"all addresses":               func(c *membership.Config) { c.Bind = "0.0.0.0:0" },
		"all addresses, without host": func(c *membership.Config) { c.Bind = ":0" },
		"all addresses to others":     func(c *membership.Config) { c.Advertise = "[::]:7" },
		"a timeout above the interval": func(c *membership.Config) {
			c.ProbeInterval, c.ProbeTimeout = time.Second, time.Second
		},
		"a negative interval": func(c *membership.Config) { c.SeedInterval = -1 },
		"much suspicion":      func(c *membership.Config) { c.Suspicion = 101 },
		"little suspicion":    func(c *membership.Config) { c.Suspicion = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := membership.Config{ID: "x", Bind: "127.0.0.1:0", SecretKey: key}
			change(&cfg)
			p, err := membership.Join(t.Context(), cfg)
			if p != nil {
				p.Close()
			}
			if !errors.Is(err, ps.ErrInvalid) {
				t.Errorf("error %v, want ps.ErrInvalid", err)
			}
		})
	}
	t.Run("but all addresses with one to advertise, and a name, are fine", func(t *testing.T) {
		began := time.Now()
		p := join(t, membership.Config{ID: "x", Bind: "0.0.0.0:0", Advertise: "127.0.0.1:0"})
		q := join(t, membership.Config{ID: "y", Bind: "localhost:0", Seeds: seeds(strings.Replace(p.Address(), "127.0.0.1", "localhost", 1))})
		q.await(t, "x", membership.Alive, began, aliveWithin)
	})
}

func TestMemberlistsWarningsAreFew(t *testing.T) {
	var logged safeBuffer
	home := join(t, membership.Config{ID: "home", Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	for i := range 5 {
		join(t, membership.Config{ID: fmt.Sprint(i), SecretKey: []byte("sixteen bytes no"), Seeds: seeds(home.Address())})
	}
	if n := strings.Count(logged.String(), "level=WARN"); n != 1 {
		t.Errorf("five strangers are %d warnings, want 1:\n%s", n, logged.String())
	}
	t.Log(logged.String())
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
