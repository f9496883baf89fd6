package client_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/client"
	"github.com/freshet-ml/freshet/ps/route"
	"github.com/freshet-ml/freshet/ps/server"
)

// rows are those of a node that answers each look-up by the next of its boundaries, and by
// the last from then on.
type rows struct {
	boundaries []ps.Boundary
	asked      atomic.Int64
}

func (r *rows) Tables(string, uint64) ([]ps.Table, error) {
	return []ps.Table{{Name: "t", Width: 1}}, nil
}

func (r *rows) Lookup(_ context.Context, l *ps.Lookup, values [][]byte, fresh []ps.Freshness) error {
	now := r.boundaries[min(int(r.asked.Add(1)), len(r.boundaries))-1]
	for i := range fresh {
		fresh[i] = ps.Freshness{Boundary: now}
		if len(l.Seen) > 0 && now.Behind(l.Seen[i]) {
			return ps.ErrBehind
		}
	}
	copy(ps.View[float32](values[0]), []float32{float32(now.Seq)})
	return nil
}

// serveRows serves rows on loopback until the test ends.
func serveRows(t *testing.T, r *rows) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(server.Options()...)
	if err := server.RegisterLookups(s, r, server.LookupLimits{}); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func dial(t *testing.T, routes client.Routes) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Logger: slog.New(slog.DiscardHandler), Routes: routes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func oneKey() []ps.Read {
	group := new(ps.Group)
	group.Fill([]ps.Key{1}, 1)
	return []ps.Read{{RowBytes: 4, Group: group}}
}

func under(fence ps.Fence, address string) route.Map {
	return route.Map{Version: int64(fence), Shards: []route.Shard{{Owner: "a", Fence: fence}}, Addresses: map[ps.NodeID]string{"a": address}}
}

func TestRowsOfAnOwnerThatWasReplacedAreNotTaken(t *testing.T) {
	node := &rows{boundaries: []ps.Boundary{{Fence: 1, Seq: 90}, {Fence: 2, Seq: 90}, {Fence: 3, Seq: 5}}}
	c := dial(t, always(under(3, serveRows(t, node))))
	reads := oneKey()
	fresh, err := c.Lookup(t.Context(), "m", 1, reads, client.LookupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := ps.View[float32](reads[0].Values)[0]; got != 5 || fresh[0].Boundary != (ps.Boundary{Fence: 3, Seq: 5}) {
		t.Errorf("after %d replies the row is %v of %+v, want 5 of fence 3", node.asked.Load(), got, fresh[0].Boundary)
	}
}

// changing is a shard map that a test replaces.
type changing chan route.Map

func (m changing) WatchMap(ctx context.Context) <-chan route.Map {
	maps := make(chan route.Map)
	go func() {
		defer close(maps)
		for {
			select {
			case next := <-m:
				maps <- next
			case <-ctx.Done():
				return
			}
		}
	}()
	return maps
}

func TestWhoHasSeenANewerOwnerAsksUntilTheMapHasIt(t *testing.T) {
	address := serveRows(t, &rows{boundaries: []ps.Boundary{{Fence: 3, Seq: 1}, {Fence: 2, Seq: 9}, {Fence: 2, Seq: 9}, {Fence: 3, Seq: 2}}})
	maps := make(changing, 1)
	maps <- under(2, address)
	c := dial(t, maps)
	options := client.LookupOptions{Seen: new(client.Seen)}
	reads := oneKey()
	for want := range 2 { // the node knows of fence 3 before the map does, and then somebody else is asked
		fresh, err := c.Lookup(t.Context(), "m", 1, reads, options)
		if err != nil {
			t.Fatal(err)
		}
		if fresh[0].Boundary != (ps.Boundary{Fence: 3, Seq: uint64(want + 1)}) {
			t.Errorf("look-up %d is of %+v, want fence 3, seq %d", want, fresh[0].Boundary, want+1)
		}
	}
}

func TestWhatIsBehindIsSaidAtOnce(t *testing.T) {
	node := &rows{boundaries: []ps.Boundary{{Fence: 1, Seq: 5}, {Fence: 1, Seq: 4}}}
	c := dial(t, always(under(1, serveRows(t, node))))
	options := client.LookupOptions{Seen: new(client.Seen)}
	if _, err := c.Lookup(t.Context(), "m", 1, oneKey(), options); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Lookup(t.Context(), "m", 1, oneKey(), options); !errors.Is(err, ps.ErrBehind) || node.asked.Load() != 2 {
		t.Errorf("seq 4 behind 5 gave %v after %d look-ups, want ps.ErrBehind after 2", err, node.asked.Load())
	}
	if _, err := c.Lookup(t.Context(), "m", 1, oneKey(), client.LookupOptions{Seen: new(client.Seen)}); err != nil {
		t.Errorf("who has seen nothing was refused: %v", err)
	}
}

func TestWeightsComeInTheOrderOfTheKeysWhateverTheyAre(t *testing.T) {
	layout := ps.Layout{Seed: 1, Tables: []ps.Table{
		{Name: "counts", Kind: ps.Uint64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Audit}, Initializer: ps.Initializer{Name: ps.Zero}},
		{Name: "users", Width: 8, Optimizer: ps.Optimizer{Name: ps.SGD, LearningRate: 1}, Initializer: ps.Initializer{Name: ps.Uniform, Scale: 1}},
	}}
	ctx, stop := context.WithCancel(context.Background())
	var tasks errgroup.Group
	t.Cleanup(func() {
		stop()
		if err := tasks.Wait(); err != nil {
			t.Error(err)
		}
	})
	cluster, err := serveAlone(ctx, &tasks, ps.Model{Name: "m", Version: 1, Layout: layout, Stream: "s", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, cluster)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, encoding := range []ps.Encoding{ps.Plain, ps.Int8} {
		r := client.NewReader(c, "m", layout, client.LookupOptions{Encoding: encoding, AgeMax: time.Hour})
		one := make(map[ps.Key][]float32) // each key by itself
		var dst []float32
		for range 20 {
			keys := make([]ps.Key, random.IntN(200))
			for i := range keys {
				keys[i] = ps.Key(ps.Mix(random.Uint64N(50)))
				if one[keys[i]] == nil {
					if one[keys[i]], _, err = r.Weights(t.Context(), "users", keys[i:i+1], nil); err != nil {
						t.Fatal(err)
					}
				}
			}
			var fresh []client.ShardFreshness
			if dst, fresh, err = r.Weights(t.Context(), "users", keys, dst); err != nil {
				t.Fatal(err)
			}
			if len(dst) != 8*len(keys) || len(fresh) > 2 || (len(fresh) == 0) != (len(keys) == 0) {
				t.Fatalf("%d keys gave %d weights and the freshness of %d shards", len(keys), len(dst), len(fresh))
			}
			for i, key := range keys {
				if got := dst[8*i : 8*i+8]; !slices.Equal(got, one[key]) {
					t.Fatalf("%v: key %d of %d has %v, by itself %v", encoding, i, len(keys), got, one[key])
				}
			}
		}
	}
	r := client.NewReader(c, "m", layout, client.LookupOptions{})
	for table, want := range map[string]string{"user": "counts, users", "counts": "uint64", "": "counts, users"} {
		if _, _, err := r.Weights(t.Context(), table, []ps.Key{1}, nil); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("table %q: %v, want ps.ErrInvalid that says %q", table, err, want)
		}
	}
}
