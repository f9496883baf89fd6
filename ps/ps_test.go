package ps_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
)

func TestShardOfReadsTheHighestBits(t *testing.T) {
	for _, c := range []struct {
		key    ps.Key
		shards int
		want   ps.ShardID
	}{
		{1<<64 - 1, 1, 0},
		{1<<64 - 1, 2, 1},
		{1<<63 - 1, 2, 0},
		{0xABCD << 48, 1 << 14, 0xABCD >> 2},
		{5, 64, 0},
	} {
		if got := ps.ShardOf(c.key, c.shards); got != c.want {
			t.Errorf("ShardOf(%x, %d) = %d, want %d", uint64(c.key), c.shards, got, c.want)
		}
	}
}

func TestMixedIntegersSpreadEvenlyOverShards(t *testing.T) {
	const shards, n = 64, 64_000
	var counts [shards]int
	for i := range n {
		counts[ps.ShardOf(ps.Key(ps.Mix(uint64(i))), shards)]++
	}
	for s, count := range counts {
		if count < 850 || count > 1150 { // mean 1,000, standard deviation 31
			t.Errorf("shard %d has %d of %d keys, want about 1,000", s, count, n)
		}
	}
}

func TestMixIsFixedForEver(t *testing.T) {
	// SplitMix64 seeded with 0 gives these first (Vigna's splitmix64.c).
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := ps.Mix(uint64(i) * 0x9e3779b97f4a7c15); got != want {
			t.Errorf("Mix of step %d is %016x, want %016x", i, got, want)
		}
	}
}

func TestTheNumberOfShardsIsAPowerOfTwo(t *testing.T) {
	for _, n := range []int{1, 2, 64, ps.ShardsMax} {
		if err := ps.ValidShards(n); err != nil {
			t.Errorf("%d shards: %v", n, err)
		}
	}
	for _, n := range []int{-1, 0, 3, 100, 2 * ps.ShardsMax} {
		if err := ps.ValidShards(n); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%d shards gave %v, want ErrInvalid", n, err)
		}
	}
}

// TestTheOffsetRuleAppliesEachOffsetOnce pushes ranges in any order at a shard that
// only obeys Judge, and counts.
func TestTheOffsetRuleAppliesEachOffsetOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const end = 20
		var applied ps.Offset
		var counts [end]int
		for range rapid.IntRange(0, 200).Draw(t, "pushes") {
			from := ps.Offset(rapid.IntRange(0, end-1).Draw(t, "from"))
			r := ps.Range{From: from, To: from + ps.Offset(rapid.IntRange(1, int(end-from)).Draw(t, "length"))}
			outcome := ps.Judge(applied, r)
			if (outcome == ps.Applied) != (r.From == applied) {
				t.Fatalf("at %d, %v is %v", applied, r, outcome)
			}
			if outcome == ps.Applied {
				for o := r.From; o < r.To; o++ {
					counts[o]++
				}
				applied = r.To
			}
		}
		for o, n := range counts {
			if want := map[bool]int{true: 1}[ps.Offset(o) < applied]; n != want {
				t.Fatalf("offset %d was applied %d times, want %d (applied up to %d)", o, n, want, applied)
			}
		}
	})
}

func TestAGroupHoldsEveryKeyOnceOrderedByShard(t *testing.T) {
	var g ps.Group // used again, as in a worker
	rapid.Check(t, func(t *rapid.T) {
		shards := 1 << rapid.IntRange(0, 6).Draw(t, "log2 shards")
		keys := rapid.SliceOf(rapid.Custom(func(t *rapid.T) ps.Key {
			// Few distinct keys, at the ends of the shards and close together.
			return ps.Key(rapid.Uint64Range(0, 63).Draw(t, "high")<<58 | rapid.Uint64Range(0, 3).Draw(t, "low"))
		})).Draw(t, "keys")
		g.Fill(keys, shards)
		if len(g.Index) != len(keys) || len(g.Ends) != shards {
			t.Fatalf("%d keys over %d shards gave %d positions and %d ends", len(keys), shards, len(g.Index), len(g.Ends))
		}
		for i, key := range keys {
			if g.Keys[g.Index[i]] != key {
				t.Fatalf("key %d is %x, its position holds %x", i, uint64(key), uint64(g.Keys[g.Index[i]]))
			}
		}
		seen := make(map[ps.Key]bool)
		total := 0
		for s := range ps.ShardID(shards) {
			from, to := g.Shard(s)
			total += to - from
			for _, key := range g.Keys[from:to] {
				if seen[key] || ps.ShardOf(key, shards) != s {
					t.Fatalf("shard %d has key %x: seen before %v, of shard %d", s, uint64(key), seen[key], ps.ShardOf(key, shards))
				}
				seen[key] = true
			}
		}
		if total != len(g.Keys) {
			t.Fatalf("the shards have %d keys, the group %d", total, len(g.Keys))
		}
	})
}

func TestAFilledGroupAllocatesNothing(t *testing.T) {
	keys := make([]ps.Key, 4096)
	for i := range keys {
		keys[i] = ps.Key(ps.Mix(uint64(i % 3000)))
	}
	var g ps.Group
	g.Fill(keys, 64)
	if n := testing.AllocsPerRun(20, func() { g.Fill(keys, 64) }); n != 0 {
		t.Errorf("filling again allocates %v times, want 0", n)
	}
}

func BenchmarkGroupFill(b *testing.B) {
	keys := make([]ps.Key, 4096)
	for i := range keys {
		keys[i] = ps.Key(ps.Mix(uint64(i)))
	}
	var g ps.Group
	b.Run("keys=4096/shards=64", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g.Fill(keys, 64)
		}
		b.ReportMetric(float64(b.N)*4096/b.Elapsed().Seconds()/1e6, "Mkeys/s")
	})
}

func TestViewsShareMemoryAndSurviveMisalignment(t *testing.T) {
	floats := []float32{1, -2.5, 3}
	bytes := ps.Bytes(floats)
	bytes[3] = 0x40 // 0x3f800000 -> 0x40800000
	if floats[0] != 4 {
		t.Errorf("writing to the bytes made the float %v, want 4", floats[0])
	}
	if back := ps.View[float32](bytes); &back[0] != &floats[0] {
		t.Error("an aligned view is a copy")
	}
	shifted := append(make([]byte, 1, 13), bytes...)[1:]
	if uintptr(unsafe.Pointer(&shifted[0]))%4 == 0 {
		shifted = append(make([]byte, 2, 14), bytes...)[2:]
	}
	if got := ps.View[float32](shifted); got[0] != 4 || got[1] != -2.5 || got[2] != 3 {
		t.Errorf("a misaligned view reads %v, want [4 -2.5 3]", got)
	}
	if ps.View[uint64](nil) != nil || ps.Bytes[float64](nil) != nil {
		t.Error("nothing is not nil")
	}
	if got := ps.Bytes([]ps.Key{0x0102030405060708})[0]; got != 8 {
		t.Errorf("the first byte of a key is %d, want the lowest, 8", got)
	}
}

func TestTheLayoutHashSeesEverySetting(t *testing.T) {
	layout := func() ps.Layout {
		return ps.Layout{Seed: 1, Tables: []ps.Table{{
			Name: "linear", Width: 1, Optimizer: ps.Optimizer{Name: ps.FTRL, LearningRate: 0.1, Beta: 1, L2: 0.1},
			Initializer: ps.Initializer{Name: ps.Zero},
		}}}
	}
	// Golden: it is stored in etcd and checkpoints, so it may never change.
	if got, want := layout().Hash(), uint64(0xb82ddabf246cab69); got != want {
		t.Errorf("hash %016x, want %016x", got, want)
	}
	for name, change := range map[string]func(*ps.Layout){
		"the seed":        func(l *ps.Layout) { l.Seed++ },
		"a name":          func(l *ps.Layout) { l.Tables[0].Name = "x" },
		"the kind":        func(l *ps.Layout) { l.Tables[0].Kind = ps.Uint64 },
		"the width":       func(l *ps.Layout) { l.Tables[0].Width = 2 },
		"a learning rate": func(l *ps.Layout) { l.Tables[0].Optimizer.LearningRate = 0.2 },
		"an initializer":  func(l *ps.Layout) { l.Tables[0].Initializer = ps.Initializer{Name: ps.Normal, Scale: 1} },
		"another table":   func(l *ps.Layout) { l.Tables = append(l.Tables, ps.Table{Name: "y"}) },
	} {
		changed := layout()
		change(&changed)
		if changed.Hash() == layout().Hash() {
			t.Errorf("changing %s leaves the hash as it is", name)
		}
	}
}

func TestMalformedLayoutsAreRefused(t *testing.T) {
	good := ps.Table{Name: "a", Width: 1}
	for name, l := range map[string]ps.Layout{
		"no tables":          {},
		"too many tables":    {Tables: make([]ps.Table, ps.TablesMax+1)},
		"a nameless table":   {Tables: []ps.Table{{Width: 1}}},
		"two of a name":      {Tables: []ps.Table{good, good}},
		"no width":           {Tables: []ps.Table{{Name: "a"}}},
		"a giant width":      {Tables: []ps.Table{{Name: "a", Width: ps.WidthMax + 1}}},
		"an unknown kind":    {Tables: []ps.Table{{Name: "a", Width: 1, Kind: 9}}},
		"a negative width":   {Tables: []ps.Table{{Name: "a", Width: -1}}},
		"a bad second table": {Tables: []ps.Table{good, {Name: "b"}}},
	} {
		if err := l.Validate(); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("a layout with %s gave %v, want ErrInvalid", name, err)
		}
	}
}

func TestSettingsThatAreNotFiniteAreRefused(t *testing.T) {
	for name, setting := range map[string]func(*ps.Table) *float64{
		"learning rate":       func(t *ps.Table) *float64 { return &t.Optimizer.LearningRate },
		"initial accumulator": func(t *ps.Table) *float64 { return &t.Optimizer.InitialAccumulator },
		"beta":                func(t *ps.Table) *float64 { return &t.Optimizer.Beta },
		"l1":                  func(t *ps.Table) *float64 { return &t.Optimizer.L1 },
		"l2":                  func(t *ps.Table) *float64 { return &t.Optimizer.L2 },
		"beta1":               func(t *ps.Table) *float64 { return &t.Optimizer.Beta1 },
		"beta2":               func(t *ps.Table) *float64 { return &t.Optimizer.Beta2 },
		"epsilon":             func(t *ps.Table) *float64 { return &t.Optimizer.Epsilon },
		"weight decay":        func(t *ps.Table) *float64 { return &t.Optimizer.WeightDecay },
		"scale":               func(t *ps.Table) *float64 { return &t.Initializer.Scale },
	} {
		for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			l := ps.Layout{Tables: []ps.Table{{Name: "a", Width: 1}}}
			*setting(&l.Tables[0]) = value
			if err := l.Validate(); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("a layout with %s %v gave %v, want ErrInvalid that names it", name, value, err)
			}
		}
	}
	l := ps.Layout{Tables: []ps.Table{{Name: "a", Width: 1, Optimizer: ps.Optimizer{LearningRate: math.MaxFloat64}}}}
	if err := l.Validate(); err != nil {
		t.Errorf("the largest finite learning rate gave %v, want nil: it is for ps/optim to judge", err)
	}
}

func TestAFingerprintNoticesOneLostAndOneDoubled(t *testing.T) {
	var once, swapped ps.Fingerprint
	for o := range ps.Offset(100) {
		once.Add(ps.EventHash(3, o))
		if o == 41 {
			o = 42 // 41 lost, 42 doubled
		}
		swapped.Add(ps.EventHash(3, o))
	}
	if once.Count != swapped.Count || once == swapped {
		t.Errorf("fingerprints %+v and %+v: want the same count and another sum", once, swapped)
	}
	var a, b ps.Fingerprint
	for o := range ps.Offset(100) {
		if o < 30 {
			a.Add(ps.EventHash(3, o))
		} else {
			b.Add(ps.EventHash(3, o))
		}
	}
	a.Merge(b)
	if a != once {
		t.Errorf("merged in two parts %+v, in one %+v", a, once)
	}
}
