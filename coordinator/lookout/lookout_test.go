package lookout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-ml/freshet/coordinator"
	"github.com/freshet-ml/freshet/coordinator/lookout"
	"github.com/freshet-ml/freshet/coordinator/membership"
	"github.com/freshet-ml/freshet/ps"
)

// world is a cluster as a lookout at host-l sees it. Time is that of a synctest bubble.
type world struct {
	t     *testing.T
	start time.Time
	watch chan membership.Member

	mu       sync.Mutex
	members  []coordinator.Member         // guarded by mu; registered
	known    map[string]membership.Member // guarded by mu; by ID, of gossip
	behaves  map[string]func(look int) behaviour
	looks    map[string]int           // guarded by mu; by address
	expelled []string                 // guarded by mu; ID and when
	broken   int                      // guarded by mu; so many times the store does not expel
	staying  map[string]chan struct{} // by address: closed when connections to it break
}

// behaviour is what a member does when it is looked at.
type behaviour int

const (
	answering behaviour = iota
	stopped             // takes connections and says nothing
	refusing
	unreachable
)

func newWorld(t *testing.T) *world {
	return &world{
		t: t, start: time.Now(), watch: make(chan membership.Member), known: make(map[string]membership.Member),
		behaves: make(map[string]func(int) behaviour), looks: make(map[string]int),
		staying: make(map[string]chan struct{}),
	}
}

// joins registers a member, whose gossip is alive.
func (w *world) joins(m coordinator.Member, behaves func(look int) behaviour) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.members = append(w.members, m)
	w.known[m.ID] = membership.Member{ID: m.ID, Address: m.Gossip, State: membership.Alive}
	w.behaves[m.Gossip], w.behaves[m.Address] = behaves, behaves
}

// says makes gossip say something of a member.
func (w *world) says(id string, state membership.State) {
	w.mu.Lock()
	m := w.known[id]
	m.ID, m.State = id, state
	w.known[id] = m
	w.mu.Unlock()
	w.watch <- m
}

func (w *world) Members(context.Context) ([]coordinator.Member, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.members), nil
}

func (w *world) Expel(_ context.Context, m coordinator.Member) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken > 0 {
		w.broken--
		return fmt.Errorf("the store is away: %w", ps.ErrUnavailable)
	}
	w.members = slices.DeleteFunc(w.members, func(other coordinator.Member) bool { return other.ID == m.ID })
	w.expelled = append(w.expelled, fmt.Sprintf("%s %v", m.ID, time.Since(w.start)))
	return nil
}

func (w *world) dial(ctx context.Context, address string) error {
	w.mu.Lock()
	look := w.looks[address]
	w.looks[address]++
	does := w.behaves[address](look)
	w.mu.Unlock()
	switch does {
	case refusing:
		return fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	case unreachable:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

func (w *world) ask(ctx context.Context, address string) error {
	w.mu.Lock()
	does := w.behaves[address](w.looks[address] - 1)
	w.mu.Unlock()
	if does == stopped {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// WatchNodes gives the nodes as they are at the beginning.
func (w *world) WatchNodes(ctx context.Context) <-chan []coordinator.Node {
	nodes := make(chan []coordinator.Node, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []coordinator.Node
	for _, m := range w.members {
		if m.Role == coordinator.RoleNode {
			all = append(all, coordinator.Node{ID: ps.NodeID(m.ID), Address: m.Address})
		}
	}
	nodes <- all
	context.AfterFunc(ctx, func() { close(nodes) })
	return nodes
}

// stay is connected until the world breaks the connection, which cannot be made again.
func (w *world) stay(ctx context.Context, address string) {
	select {
	case <-w.staying[address]:
	case <-ctx.Done():
	}
}

func TestANodeWhoseConnectionBreaksIsLookedAtWithoutGossip(t *testing.T) {
	for name, test := range map[string]struct {
		behaves func(int) behaviour
		want    []string
	}{
		"nobody listens any more":            {always(refusing), []string{"a 1s"}},
		"its listener closes a moment later": {first(stopped, refusing), []string{"a 1.52s"}}, // a call of half a second, and a pause
		"it answers all the same":            {always(answering), nil},
		"its host is gone":                   {always(unreachable), nil}, // that is for gossip to say
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.joins(node("a"), test.behaves)
				w.joins(node("b"), always(refusing))
				w.staying["host-a:7"] = make(chan struct{})
				w.during(func() {
					time.Sleep(time.Second)
					close(w.staying["host-a:7"])
					time.Sleep(10 * time.Second)
				})
				if !slices.Equal(w.expelled, test.want) {
					t.Errorf("expelled are %v, want %v", w.expelled, test.want)
				}
			})
		})
	}
}

// pool is the world's gossip.
type pool struct{ w *world }

func (p pool) Address() string { return "host-l:1" }

func (p pool) Members() []membership.Member {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	all := []membership.Member{{ID: "l", Address: p.Address(), State: membership.Alive}}
	for _, m := range p.w.known {
		all = append(all, m)
	}
	return all
}

func (p pool) Watch(ctx context.Context) <-chan membership.Member {
	members := make(chan membership.Member)
	go func() {
		defer close(members)
		for {
			select {
			case m := <-p.w.watch:
				select {
				case members <- m:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return members
}

// during runs a lookout while f does things.
func (w *world) during(f func()) {
	w.t.Helper()
	l, err := lookout.New(lookout.Config{Store: w, Pool: pool{w}, Ask: w.ask, Dial: w.dial, Stay: w.stay, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	f()
	cancel()
	if err := <-ended; err != nil {
		w.t.Errorf("Run returned %v", err)
	}
}

func always(b behaviour) func(int) behaviour { return func(int) behaviour { return b } }

// first does the listed things at the first looks and the last of them ever after.
func first(list ...behaviour) func(int) behaviour {
	return func(look int) behaviour { return list[min(look, len(list)-1)] }
}

func node(id string) coordinator.Member {
	return coordinator.Member{Role: coordinator.RoleNode, ID: id, Address: "host-" + id + ":7", Gossip: "host-" + id + ":8"}
}

func worker(id string) coordinator.Member {
	return coordinator.Member{Role: coordinator.RoleWorker, ID: id, Gossip: "host-" + id + ":8"}
}

func TestWhoIsDeadIsExpelledAndWhoAnswersIsNot(t *testing.T) {
	for name, test := range map[string]struct {
		member  coordinator.Member
		behaves func(int) behaviour
		broken  int
		want    []string
	}{
		"a node that nobody listens for":            {node("a"), always(refusing), 0, []string{"a 0s"}},
		"a node that is stopped":                    {node("a"), always(stopped), 0, []string{"a 1s"}},
		"a node whose host is gone":                 {node("a"), always(unreachable), 0, []string{"a 1s"}},
		"a node that answers":                       {node("a"), always(answering), 0, nil},
		"a node that is late now and then":          {node("a"), first(stopped, answering, unreachable, answering), 0, nil},
		"a node that answers first and then dies":   {node("a"), first(answering, answering, refusing), 0, []string{"a 1s"}},
		"a node that is expelled at the third try":  {node("a"), always(refusing), 2, []string{"a 1s"}},
		"a worker that nobody listens for":          {worker("a"), always(refusing), 0, []string{"a 0s"}},
		"a worker that is stopped":                  {worker("a"), always(stopped), 0, nil},
		"a worker whose host is gone":               {worker("a"), always(unreachable), 0, nil},
		"a coordinator that nobody listens for":     {coordinator.Member{Role: coordinator.RoleCoordinator, ID: "a", Address: "host-a:7", Gossip: "host-a:8"}, always(refusing), 0, []string{"a 0s"}},
		"a node at the loopback of another host":    {coordinator.Member{Role: coordinator.RoleNode, ID: "a", Address: "127.0.0.1:7", Gossip: "host-a:8"}, always(refusing), 0, nil},
		"a node whose name is that of another host": {coordinator.Member{Role: coordinator.RoleNode, ID: "a", Address: "localhost:7", Gossip: "host-a:8"}, always(refusing), 0, nil},
		"a worker at the loopback of another host":  {coordinator.Member{Role: coordinator.RoleWorker, ID: "a", Gossip: "[::1]:8"}, always(refusing), 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.joins(test.member, test.behaves)
				w.joins(node("b"), always(answering))
				w.broken = test.broken
				w.during(func() {
					w.says("b", membership.Alive)
					w.says("a", membership.Dead)
					time.Sleep(10 * time.Second) // of the bubble
				})
				if !slices.Equal(w.expelled, test.want) {
					t.Errorf("expelled are %v, want %v", w.expelled, test.want)
				}
			})
		})
	}
}

func TestGossipThatChangesItsMindEndsTheLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.joins(node("a"), first(answering, answering, answering, refusing))
		w.during(func() {
			w.says("a", membership.Dead)
			time.Sleep(1100 * time.Millisecond)
			w.says("a", membership.Alive)
			time.Sleep(time.Minute)
			if got := w.looks["host-a:7"]; got != 3 {
				t.Errorf("it was looked at %d times in 1.1 s, want 3 and no more once it is alive", got)
			}
			w.says("a", membership.Dead)
			synctest.Wait()
		})
		if want := []string{"a 1m1.1s"}; !slices.Equal(w.expelled, want) {
			t.Errorf("expelled are %v, want %v: it has died after all", w.expelled, want)
		}
	})
}

// TestAStormOfFalseAlarmsExpelsNobodyWhoAnswers lets gossip take twenty nodes for dead and for
// alive again, at random, for a minute, while one in thirty looks at them is not answered.
// One node does die on the way.
func TestAStormOfFalseAlarmsExpelsNobodyWhoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		random := rand.New(rand.NewPCG(1, 2))
		looks := rand.New(rand.NewPCG(3, 4)) // under the world's lock, as behaviours are asked for
		var names []string
		for i := range 20 {
			name := fmt.Sprintf("n%02d", i)
			names = append(names, name)
			w.joins(node(name), func(int) behaviour {
				if looks.IntN(30) == 0 {
					return stopped
				}
				return answering
			})
		}
		dies := time.Now().Add(30 * time.Second)
		w.joins(node("victim"), func(int) behaviour {
			if time.Now().After(dies) {
				return refusing
			}
			return answering
		})
		alarms := 0
		w.during(func() {
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond) {
				state := membership.Dead
				if random.IntN(2) == 0 {
					state = membership.Alive
				}
				w.says(names[random.IntN(len(names))], state)
				alarms++
				if time.Now().After(dies) && time.Now().Before(dies.Add(200*time.Millisecond)) {
					w.says("victim", membership.Dead)
				}
			}
			for _, name := range names {
				w.says(name, membership.Alive)
			}
			time.Sleep(5 * time.Second)
		})
		if len(w.expelled) != 1 || !strings.HasPrefix(w.expelled[0], "victim 30.") {
			t.Errorf("after %d alarms %v are expelled, want the victim alone, at once", alarms, w.expelled)
		}
	})
}

func TestWhoSeesMostOthersDeadIsCutOffItselfPerhaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.joins(node("a"), always(unreachable))
		w.joins(node("b"), always(unreachable))
		w.joins(node("c"), always(answering))
		w.known["long-gone"] = membership.Member{ID: "long-gone", State: membership.Dead} // and registered no more
		w.during(func() {
			w.says("a", membership.Dead)
			w.says("b", membership.Dead)
			time.Sleep(10 * time.Second)
			if len(w.expelled) > 0 {
				t.Errorf("expelled are %v although two of three are silent, want nobody", w.expelled)
			}
			w.says("b", membership.Alive)
			time.Sleep(10 * time.Second)
		})
		if len(w.expelled) != 1 || w.expelled[0][:2] != "a " {
			t.Errorf("expelled are %v, want a once the others are alive", w.expelled)
		}
	})
}

func TestWhoIsNotRegisteredIsNotLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.during(func() {
			w.says("stranger", membership.Dead)
			w.says("leaver", membership.Left)
			time.Sleep(time.Minute)
		})
		if len(w.looks) > 0 || len(w.expelled) > 0 {
			t.Errorf("looks at %v, expelled %v, want none", w.looks, w.expelled)
		}
	})
}

func TestALookoutNeedsItsEyes(t *testing.T) {
	if _, err := lookout.New(lookout.Config{}); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("error is %v, want ErrInvalid", err)
	}
}
