package contribution_test

import (
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
)

const shards, window = 8, 100

// batch returns a batch of one event of the given role with keys in shards 1, 1 and 5.
func batch(role worker.Role, pass uint32) *worker.Batch {
	var b worker.Batch
	b.Reset(2, 40, pass)
	for _, key := range []ps.Key{1<<61 | 7, 1<<61 | 8, 5<<61 | 7} {
		b.AddFeature(key, 1)
	}
	b.Close(role, 1, 1, 0)
	return &b
}

// counted returns the shards where an event counts, and checks that it counts once.
func counted(t *testing.T, c *contribution.Counter) map[ps.ShardID]contribution.Count {
	t.Helper()
	at := make(map[ps.ShardID]contribution.Count)
	for s, count := range c.Counts() {
		if count == (contribution.Count{}) {
			continue
		}
		at[ps.ShardID(s)] = count
		if count.Trained+count.Held+count.Skipped != 1 || count.Fingerprint.Count != 1 || count.Fingerprint.Sum != ps.EventHash(2, 40) {
			t.Errorf("shard %d counts %+v, want the event once", s, count)
		}
	}
	return at
}

func TestAnEventCountsOncePerShardByItsRole(t *testing.T) {
	figures := contribution.New(shards, window).FiguresShard(2, 40)
	for name, c := range map[string]struct {
		role worker.Role
		pass uint32
		want []ps.ShardID
	}{
		"trained, at its keys and its figures":              {worker.Train, 0, []ps.ShardID{1, 5, figures}},
		"trained in a later pass, at its keys":              {worker.Train, 1, []ps.ShardID{1, 5}},
		"held out, at its figures":                          {worker.Hold, 0, []ps.ShardID{figures}},
		"held out in a later pass, nowhere":                 {worker.Hold, 1, nil},
		"skipped, everywhere":                               {worker.Skip, 0, []ps.ShardID{0, 1, 2, 3, 4, 5, 6, 7}},
		"skipped in a later pass, everywhere, as any other": {worker.Skip, 1, []ps.ShardID{0, 1, 2, 3, 4, 5, 6, 7}},
	} {
		t.Run(name, func(t *testing.T) {
			counter := contribution.New(shards, window)
			counter.Add(batch(c.role, c.pass), 0, nil)
			at := counted(t, counter)
			distinct := make(map[ps.ShardID]bool)
			for _, s := range c.want {
				distinct[s] = true
				if _, ok := at[s]; !ok {
					t.Errorf("shard %d does not count it", s)
				}
			}
			if len(at) != len(distinct) {
				t.Errorf("%d shards count it, want %d", len(at), len(distinct))
			}
		})
	}
}

func TestWhatIsTrainedCountsWhereTheLayersAre(t *testing.T) {
	figures := contribution.New(shards, window).FiguresShard(2, 40)
	layers := []ps.Key{3 << 61, 1 << 61, 3<<61 | 5}
	for name, c := range map[string]struct {
		role worker.Role
		want map[ps.ShardID]contribution.Count
	}{
		"trained":  {worker.Train, map[ps.ShardID]contribution.Count{1: {Trained: 1}, 3: {Trained: 1}, 5: {Trained: 1}}},
		"dropped":  {worker.Drop, map[ps.ShardID]contribution.Count{1: {Skipped: 1}, 3: {Skipped: 1}, 5: {Skipped: 1}}},
		"held out": {worker.Hold, map[ps.ShardID]contribution.Count{}},
	} {
		t.Run(name, func(t *testing.T) {
			counter := contribution.New(shards, window, layers...)
			counter.Add(batch(c.role, 0), 0, nil)
			at := counted(t, counter)
			delete(at, figures)
			delete(c.want, figures)
			for s, want := range c.want {
				if got := at[s]; got.Trained != want.Trained || got.Skipped != want.Skipped {
					t.Errorf("shard %d counts %+v, want %+v", s, got, want)
				}
			}
			if len(at) != len(c.want) {
				t.Errorf("counted at %v, want %v", at, c.want)
			}
		})
	}
}

func TestOnlyShardsThatWantAnEventCountIt(t *testing.T) {
	counter := contribution.New(shards, window)
	counter.Add(batch(worker.Skip, 0), 0, func(s ps.ShardID) bool { return s == 3 })
	if at := counted(t, counter); len(at) != 1 || at[3].Skipped != 1 {
		t.Errorf("counted at %v, want one skip at shard 3", at)
	}
	counter.Reset()
	if at := counted(t, counter); len(at) != 0 {
		t.Errorf("after Reset counted at %v", at)
	}
	counter.Add(batch(worker.Train, 1), 0, nil)
	if at := counted(t, counter); len(at) != 2 {
		t.Errorf("after Reset an event counts at %v, want shards 1 and 5", at)
	}
}

// TestManyShardsCountAsTheRuleSays compares the counter with the rule written out, over
// clusters of few and of many shards.
func TestManyShardsCountAsTheRuleSays(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, shards := range []int{1, 2, 64, 128, 1024} {
		var b worker.Batch
		b.Reset(1, 90, 0) // the window ends at 100
		for range 50 {
			for range rng.IntN(60) {
				b.AddFeature(ps.Key(rng.Uint64()), 1)
			}
			b.Close(worker.Role(rng.IntN(4)), 1, 1, 0)
		}
		counter := contribution.New(shards, window)
		counter.AddAll(&b)
		want := make([]contribution.Count, shards)
		for i, role := range b.Roles {
			at := make(map[ps.ShardID]bool)
			if role != worker.Skip {
				at[counter.FiguresShard(1, b.From+ps.Offset(i))] = true
			}
			for s := range shards {
				if role == worker.Skip {
					at[ps.ShardID(s)] = true
				}
			}
			if role == worker.Train || role == worker.Drop {
				for _, key := range b.Keys[b.Starts[i]:b.Starts[i+1]] {
					at[ps.ShardOf(key, shards)] = true
				}
			}
			for s := range at {
				n := &want[s]
				n.Fingerprint.Add(ps.EventHash(1, b.From+ps.Offset(i)))
				switch role {
				case worker.Train:
					n.Trained++
				case worker.Hold:
					n.Held++
				default:
					n.Skipped++
				}
			}
		}
		for s, got := range counter.Counts() {
			if got != want[s] {
				t.Fatalf("shard %d of %d counts %+v, want %+v", s, shards, got, want[s])
			}
		}
	}
}
