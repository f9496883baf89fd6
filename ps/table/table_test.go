package table_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/optim"
	"github.com/freshet-ml/freshet/ps/table"
)

func open(t testing.TB, c table.Config) *table.Table {
	t.Helper()
	tab, err := table.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func apply(t testing.TB, tab *table.Table, seq uint64, keys []ps.Key, values ...float32) {
	t.Helper()
	if err := tab.Apply(ps.Rows{Keys: keys, Values: ps.Bytes(values)}, seq); err != nil {
		t.Fatal(err)
	}
}

func gather(t testing.TB, tab *table.Table, width int, keys ...ps.Key) []float32 {
	t.Helper()
	values := make([]float32, width*len(keys))
	if err := tab.Gather(keys, ps.Bytes(values), nil); err != nil {
		t.Fatal(err)
	}
	return values
}

// dump returns everything that is stored.
func dump(tab *table.Table) string {
	var b strings.Builder
	tab.Range(func(key ps.Key, seq uint64, row []byte) bool {
		fmt.Fprintf(&b, "%#016x seq %d: %x\n", uint64(key), seq, row)
		return true
	})
	return b.String()
}

// plain is a table of pairs that subtracts what it is given.
func plain() ps.Table {
	return ps.Table{
		Name: "item", Kind: ps.Float32, Width: 2,
		Optimizer:   ps.Optimizer{Name: ps.SGD, LearningRate: 1},
		Initializer: ps.Initializer{Name: ps.Uniform, Scale: 1},
	}
}

func TestRows(t *testing.T) {
	t.Run("a pull of a missing row gives its initial value and stores nothing", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain(), Seed: 3})
		want := make([]float32, 2)
		v, err := table.NewInitial(plain(), 3)
		if err != nil {
			t.Fatal(err)
		}
		v.Fill(want, 7)
		if got := gather(t, tab, 2, 7); !slices.Equal(got, want) || tab.Len() != 0 {
			t.Errorf("gathered %v with %d rows stored, want %v with none", got, tab.Len(), want)
		}
	})
	t.Run("the first push begins at the initial value", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain(), Seed: 3})
		before := gather(t, tab, 2, 7)
		apply(t, tab, 1, []ps.Key{7}, 1, 2)
		want := []float32{before[0] - 1, before[1] - 2}
		if got := gather(t, tab, 2, 7); !slices.Equal(got, want) || tab.Len() != 1 {
			t.Errorf("gathered %v with %d rows stored, want %v with one", got, tab.Len(), want)
		}
	})
	t.Run("a key that is there twice is updated twice, even when new", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain(), Seed: 3})
		before := gather(t, tab, 2, 7)
		apply(t, tab, 1, []ps.Key{7, 7}, 1, 2, 10, 20)
		want := []float32{before[0] - 1 - 10, before[1] - 2 - 20}
		if got := gather(t, tab, 2, 7); !slices.Equal(got, want) || tab.Len() != 1 {
			t.Errorf("gathered %v with %d rows stored, want %v with one", got, tab.Len(), want)
		}
	})
	t.Run("the smallest and the largest key are keys like others", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		apply(t, tab, 1, []ps.Key{0, math.MaxUint64}, 1, 1, 2, 2)
		if tab.Len() != 2 || tab.Valid() != nil {
			t.Errorf("%d rows, valid: %v; want 2", tab.Len(), tab.Valid())
		}
	})
	t.Run("range tells each row's last change, oldest row first", func(t *testing.T) {
		desc := plain()
		desc.Initializer = ps.Initializer{Name: ps.Zero}
		tab := open(t, table.Config{Table: desc})
		apply(t, tab, 1, []ps.Key{9, 8}, -1, 0, -2, 0)
		apply(t, tab, 5, []ps.Key{9}, -1, 0)
		want := "0x0000000000000009 seq 5: 0000004000000000\n0x0000000000000008 seq 1: 0000004000000000\n"
		if got := dump(tab); got != want {
			t.Errorf("range gave\n%swant\n%s", got, want)
		}
		calls := 0
		tab.Range(func(ps.Key, uint64, []byte) bool { calls++; return false })
		if calls != 1 {
			t.Errorf("range called %d times after it was told to stop, want once", calls)
		}
	})
	t.Run("an empty table is small", func(t *testing.T) {
		tab := open(t, table.Config{Table: plain()})
		empty := tab.Bytes()
		apply(t, tab, 1, []ps.Key{1}, 0, 0)
		if one := tab.Bytes(); empty > 100 || one > 2500 {
			t.Errorf("%d bytes without and %d with one row, want at most 100 and 2500", empty, one)
		}
	})
	t.Run("sums and counts keep their precision", func(t *testing.T) {
		sums := open(t, table.Config{Table: ps.Table{
			Name: "figures", Kind: ps.Float64, Width: 1,
			Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero},
		}})
		counts := open(t, table.Config{Table: ps.Table{
			Name: "audit", Kind: ps.Uint64, Width: 1,
			Optimizer: ps.Optimizer{Name: ps.Audit}, Initializer: ps.Initializer{Name: ps.Zero},
		}})
		for range 2 {
			if err := sums.Apply(ps.Rows{Keys: []ps.Key{1}, Values: ps.Bytes([]float64{0.1})}, 1); err != nil {
				t.Fatal(err)
			}
			if err := counts.Apply(ps.Rows{Keys: []ps.Key{1}, Values: ps.Bytes([]uint64{1<<53 + 1})}, 1); err != nil {
				t.Fatal(err)
			}
		}
		sum, count := make([]float64, 2), make([]uint64, 2)
		if err := errors.Join(sums.Gather([]ps.Key{1, 2}, ps.Bytes(sum), nil), counts.Gather([]ps.Key{1, 2}, ps.Bytes(count), nil)); err != nil {
			t.Fatal(err)
		}
		if sum[0] != 0.2 || sum[1] != 0 || count[0] != 1<<54+2 || count[1] != 0 {
			t.Errorf("sum %v and count %v, want [0.2 0] and [2^54+2 0]", sum, count)
		}
	})
}

func TestValidate(t *testing.T) {
	tab := open(t, table.Config{Table: plain()})
	inf := float32(math.Inf(1))
	for _, test := range []struct {
		name string
		rows ps.Rows
		says string
	}{
		{"too few bytes", ps.Rows{Keys: []ps.Key{1}, Values: make([]byte, 7)}, "7 bytes of values for 1 keys: want 8 each"},
		{"values without keys", ps.Rows{Values: make([]byte, 8)}, "8 bytes of values for 0 keys"},
		{
			"an infinite value",
			ps.Rows{Keys: []ps.Key{1, 0xabc}, Values: ps.Bytes([]float32{1, 2, 3, inf})},
			`table "item": key 1 (0x0000000000000abc): element 1 is +Inf`,
		},
		{
			"a value that is no number",
			ps.Rows{Keys: []ps.Key{1}, Values: ps.Bytes([]float32{inf - inf, 2})},
			"element 0 is NaN",
		},
		{
			"a value that cannot be squared",
			ps.Rows{Keys: []ps.Key{1}, Values: ps.Bytes([]float32{-1e30, 2})},
			"element 0 is -1e+30",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := tab.Validate(test.rows); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want ps.ErrInvalid that says %q", err, test.says)
			}
		})
	}
	if err := tab.Validate(ps.Rows{}); err != nil {
		t.Errorf("no rows: %v", err)
	}
	if err := tab.Validate(ps.Rows{Keys: []ps.Key{1}, Values: ps.Bytes([]float32{1, -1})}); err != nil {
		t.Errorf("good rows: %v", err)
	}
	if err := tab.Gather([]ps.Key{1}, make([]byte, 4), nil); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("gather into too few bytes: %v, want ps.ErrInvalid", err)
	}
	if err := tab.Apply(ps.Rows{Keys: []ps.Key{1}, Values: make([]byte, 4)}, 1); !errors.Is(err, ps.ErrInvalid) || tab.Len() != 0 {
		t.Errorf("apply of too few bytes: %v with %d rows, want ps.ErrInvalid with none", err, tab.Len())
	}
}

func TestWeightsThatCannotBeSet(t *testing.T) {
	nan, beyond := float32(math.NaN()), float32(2e6)
	sums := ps.Table{Name: "sums", Kind: ps.Float64, Width: 1, Optimizer: ps.Optimizer{Name: ps.Sum}, Initializer: ps.Initializer{Name: ps.Zero}}
	for name, test := range map[string]struct {
		desc    ps.Table
		rowsMax int
		keys    []ps.Key
		weights []float32
		is      error
		want    string
	}{
		"not a number":                           {plain(), 0, []ps.Key{1, 2}, []float32{1, 2, 3, nan}, ps.ErrInvalid, "key 1 (0x0000000000000002): element 1 is NaN"},
		"infinite":                               {plain(), 0, []ps.Key{1}, []float32{float32(math.Inf(-1)), 1}, ps.ErrInvalid, "element 0 is -Inf"},
		"too large":                              {plain(), 0, []ps.Key{1}, []float32{0, beyond}, ps.ErrInvalid, "element 1 is 2e+06"},
		"too few":                                {plain(), 0, []ps.Key{1, 2}, []float32{0, 1}, ps.ErrInvalid, "8 bytes of values for 2 keys"},
		"sums of events":                         {sums, 0, []ps.Key{1}, []float32{0, 1}, ps.ErrInvalid, "sums of events"},
		"more than fit":                          {plain(), 2, []ps.Key{1, 3, 4}, make([]float32, 6), ps.ErrOutOfMemory, "2 rows"},
		"during a snapshot of as many mutations": {plain(), 0, []ps.Key{1}, []float32{0, 1}, ps.ErrInvalid, "during a snapshot"},
	} {
		t.Run(name, func(t *testing.T) {
			tab := open(t, table.Config{Table: test.desc, RowsMax: test.rowsMax})
			if test.desc.Kind == ps.Float32 {
				apply(t, tab, 7, []ps.Key{1, 9}, 1, 2, 3, 4)
			}
			seq := uint64(8)
			if strings.HasPrefix(name, "during") {
				snapshot(t, tab, 0, 8)
			}
			before := dump(tab)
			if _, err := tab.Set(test.keys, ps.Bytes(test.weights), seq, false); !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v with %q", err, test.is, test.want)
			}
			if after := dump(tab); after != before {
				t.Errorf("rows were\n%sand are\n%s", before, after)
			}
		})
	}
}

func TestValuesNeedNoAlignment(t *testing.T) {
	tab := open(t, table.Config{Table: plain(), Seed: 1})
	want := gather(t, tab, 2, 7)
	buffer := make([]byte, 9)
	if err := tab.Gather([]ps.Key{7}, buffer[1:], nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buffer[1:], ps.Bytes(want)) {
		t.Errorf("gathered %x, want %x", buffer[1:], ps.Bytes(want))
	}
	copy(buffer[1:], ps.Bytes([]float32{1, 2}))
	if err := tab.Apply(ps.Rows{Keys: []ps.Key{7}, Values: buffer[1:]}, 1); err != nil {
		t.Fatal(err)
	}
	if got := gather(t, tab, 2, 7); got[0] != want[0]-1 || got[1] != want[1]-2 {
		t.Errorf("row is %v, want %v less [1 2]", got, want)
	}
}

func TestMemoryLimit(t *testing.T) {
	tab := open(t, table.Config{Table: plain(), RowsMax: 3})
	apply(t, tab, 1, []ps.Key{1, 2}, 1, 1, 2, 2)
	before := dump(tab)
	t.Run("beyond the limit nothing changes", func(t *testing.T) {
		keys := []ps.Key{1, 3, 4}
		for what, err := range map[string]error{
			"reserve": tab.Reserve(keys),
			"apply":   tab.Apply(ps.Rows{Keys: keys, Values: make([]byte, 24)}, 2),
		} {
			if !errors.Is(err, ps.ErrOutOfMemory) || !strings.Contains(err.Error(), `table "item": 2 rows and 2 new`) {
				t.Errorf("%s: %v, want ps.ErrOutOfMemory with the numbers", what, err)
			}
		}
		if got := dump(tab); got != before {
			t.Errorf("table is\n%swant\n%s", got, before)
		}
	})
	t.Run("a new key that is there often counts once", func(t *testing.T) {
		keys := []ps.Key{3, 3, 1, 2, 3}
		if err := tab.Reserve(keys); err != nil {
			t.Fatal(err)
		}
		apply(t, tab, 2, keys, make([]float32, 10)...)
		if tab.Len() != 3 {
			t.Errorf("%d rows, want 3", tab.Len())
		}
	})
	t.Run("a full table takes updates of its rows", func(t *testing.T) {
		apply(t, tab, 3, []ps.Key{1, 2, 3}, make([]float32, 6)...)
	})
	if err := tab.Valid(); err != nil {
		t.Error(err)
	}
}

func TestReserveStoresNothing(t *testing.T) {
	tab := open(t, table.Config{Table: plain()})
	keys := make([]ps.Key, 100_000)
	for i := range keys {
		keys[i] = ps.Key(i)
	}
	if err := tab.Reserve(keys); err != nil {
		t.Fatal(err)
	}
	if tab.Len() != 0 || tab.Valid() != nil {
		t.Errorf("%d rows, valid: %v; want none", tab.Len(), tab.Valid())
	}
	size := tab.Bytes()
	apply(t, tab, 1, keys, make([]float32, 2*len(keys))...)
	if tab.Len() != len(keys) || tab.Bytes() != size {
		t.Errorf("%d rows in %d bytes, want %d in the %d that were reserved", tab.Len(), tab.Bytes(), len(keys), size)
	}
}

// TestKeysThatCollide makes keys whose hashes agree in all bits that the index
// looks at, so that every look-up compares keys along one long probe.
func TestKeysThatCollide(t *testing.T) {
	tab := open(t, table.Config{Table: plain()})
	var keys []ps.Key
	for i := range uint64(100) {
		keys = append(keys, unmix(0xabcdef<<40|i<<20|0x54321))
	}
	for _, key := range keys {
		if ps.Mix(uint64(key))&0xfffff != 0x54321 {
			t.Fatalf("key %#x has hash %#x", uint64(key), ps.Mix(uint64(key)))
		}
	}
	var values []float32
	for i := range keys[:50] {
		values = append(values, float32(i), 0)
	}
	before := gather(t, tab, 2, keys...)
	apply(t, tab, 1, keys[:50], values...)
	if err := tab.Valid(); err != nil {
		t.Fatal(err)
	}
	after := gather(t, tab, 2, keys...)
	for i := range keys {
		want := before[2*i]
		if i < 50 {
			want -= float32(i)
		}
		if after[2*i] != want {
			t.Errorf("key %d is %v, want %v", i, after[2*i], want)
		}
	}
}

// unmix is the inverse of ps.Mix.
func unmix(x uint64) ps.Key {
	unshift := func(x uint64, n uint) uint64 {
		y := x
		for range 64 / n {
			y = x ^ y>>n
		}
		return y
	}
	inverse := func(a uint64) uint64 { // modulo 2^64, by Newton's method
		b := a
		for range 6 {
			b *= 2 - a*b
		}
		return b
	}
	x = unshift(x, 31) * inverse(0x94d049bb133111eb)
	x = unshift(x, 27) * inverse(0xbf58476d1ce4e5b9)
	return ps.Key(unshift(x, 30) - 0x9e3779b97f4a7c15)
}

// TestKeysOfOneShard stores keys that agree in their high bits and differ in the
// lowest only, as those of one shard may. Were they not mixed, look-ups in such
// a table would take its length: the test would not end.
func TestKeysOfOneShard(t *testing.T) {
	tab := open(t, table.Config{Table: plain()})
	const n = 300_000
	keys := make([]ps.Key, n)
	for i := range keys {
		keys[i] = ps.Key(0x5a<<56 | uint64(i)*16)
	}
	apply(t, tab, 1, keys, make([]float32, 2*n)...)
	if err := tab.Valid(); err != nil || tab.Len() != n {
		t.Errorf("%d rows, valid: %v; want %d", tab.Len(), err, n)
	}
}

// model is a table as a map, updated row by row.
type model struct {
	rule    optim.RuleOf[float32]
	initial table.Initial
	width   int
	rows    map[ps.Key][]float32
	seqs    map[ps.Key]uint64
}

func (m *model) row(key ps.Key) []float32 {
	if row, ok := m.rows[key]; ok {
		return row
	}
	row := make([]float32, m.width+m.rule.StateWidth(m.width))
	m.initial.Fill(row[:m.width], key)
	m.rule.Init(row[:m.width], row[m.width:])
	return row
}

func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desc := ps.Table{
			Name: "item", Kind: ps.Float32,
			Width:       rapid.SampledFrom([]int{1, 2, 3, 7, 16, 1024}).Draw(t, "width"),
			Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.5},
			Optimizer: rapid.SampledFrom([]ps.Optimizer{
				{Name: ps.SGD, LearningRate: 0.5},
				{Name: ps.AdaGrad, LearningRate: 0.5, InitialAccumulator: 1},
				{Name: ps.FTRL, LearningRate: 0.5, Beta: 1, L1: 0.1},
			}).Draw(t, "optimizer"),
		}
		seed := rapid.Uint64().Draw(t, "seed")
		tab, err := table.New(table.Config{Table: desc, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		rule, err := optim.New(desc.Optimizer, desc.Kind)
		if err != nil {
			t.Fatal(err)
		}
		initial, err := table.NewInitial(desc, seed)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{rule.(optim.RuleOf[float32]), initial, desc.Width, map[ps.Key][]float32{}, map[ps.Key]uint64{}}
		// Few distinct keys, so that they meet again; more than one chunk of them.
		keys := rapid.SliceOfN(rapid.Map(rapid.Uint64Range(0, 400), func(i uint64) ps.Key {
			return ps.Key(0x42<<56 | i)
		}), 0, 150)
		gathered := make(map[ps.Key]ps.Hint)
		seq := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				seq++
				batch := keys.Draw(t, "keys")
				rng := rapid.Uint64().Draw(t, "gradients")
				grads := make([]float32, len(batch)*desc.Width)
				for i := range grads {
					grads[i] = float32(int64(ps.Mix(rng+uint64(i)))) * 0x1p-62
				}
				var hints []ps.Hint
				switch rapid.SampledFrom([]string{"none", "as gathered", "wrong"}).Draw(t, "hints") {
				case "as gathered":
					for _, key := range batch {
						hints = append(hints, gathered[key])
					}
				case "wrong":
					for i := range batch {
						hints = append(hints, ps.Hint(ps.Mix(rng-uint64(i))%uint64(2*len(m.rows)+2)))
					}
				}
				if err := tab.Apply(ps.Rows{Keys: batch, Values: ps.Bytes(grads), Hints: hints}, seq); err != nil {
					t.Fatal(err)
				}
				for i, key := range batch {
					row := m.row(key)
					m.rule.Apply(row[:m.width], row[m.width:], grads[i*m.width:(i+1)*m.width])
					m.rows[key], m.seqs[key] = row, seq
				}
			},
			"set": func(t *rapid.T) {
				seq++
				batch := rapid.SliceOfNDistinct(rapid.Map(rapid.Uint64Range(0, 400), func(i uint64) ps.Key {
					return ps.Key(0x42<<56 | i)
				}), 0, 100, rapid.ID[ps.Key]).Draw(t, "keys")
				rng, fresh := rapid.Uint64().Draw(t, "weights"), rapid.Bool().Draw(t, "fresh")
				weights := make([]float32, len(batch)*desc.Width)
				for i := range weights {
					weights[i] = float32(int64(ps.Mix(rng+uint64(i)))) * 0x1p-63
				}
				before := len(m.rows)
				for i, key := range batch {
					row := slices.Clone(m.row(key))
					copy(row, weights[i*m.width:(i+1)*m.width])
					if m.seqs[key] == 0 || fresh {
						m.rule.Init(row[:m.width], row[m.width:])
					} else {
						m.rule.Rebase(row[:m.width], row[m.width:])
					}
					m.rows[key], m.seqs[key] = row, seq
				}
				born, err := tab.Set(batch, ps.Bytes(weights), seq, fresh)
				if err != nil || born != len(m.rows)-before {
					t.Fatalf("%d rows were born, %v: want %d", born, err, len(m.rows)-before)
				}
			},
			"reserve": func(t *rapid.T) {
				if err := tab.Reserve(keys.Draw(t, "keys")); err != nil {
					t.Fatal(err)
				}
			},
			"gather": func(t *rapid.T) {
				batch := keys.Draw(t, "keys")
				got := make([]float32, len(batch)*desc.Width)
				hints := make([]ps.Hint, len(batch))
				if err := tab.Gather(batch, ps.Bytes(got), hints); err != nil {
					t.Fatal(err)
				}
				for i, key := range batch {
					gathered[key] = hints[i]
					if (hints[i] != 0) != (m.seqs[key] != 0) {
						t.Fatalf("key %#x: hint %d, last changed by seq %d", uint64(key), hints[i], m.seqs[key])
					}
					if want := m.row(key)[:m.width]; !slices.Equal(got[i*m.width:(i+1)*m.width], want) {
						t.Fatalf("key %#x: got %v, want %v", uint64(key), got[i*m.width:(i+1)*m.width], want)
					}
				}
			},
			"": func(t *rapid.T) {
				if err := tab.Valid(); err != nil {
					t.Fatal(err)
				}
				if tab.Len() != len(m.rows) {
					t.Fatalf("%d rows, want %d", tab.Len(), len(m.rows))
				}
				tab.Range(func(key ps.Key, seq uint64, row []byte) bool {
					if !bytes.Equal(row, ps.Bytes(m.rows[key])) || seq != m.seqs[key] {
						t.Fatalf("key %#x: row %x of seq %d, want %x of %d", uint64(key), row, seq, ps.Bytes(m.rows[key]), m.seqs[key])
					}
					return true
				})
			},
		})
	})
}

func TestNothingIsAllocatedPerRow(t *testing.T) {
	for _, name := range []string{ps.Zero, ps.Normal} {
		desc := plain()
		desc.Initializer = ps.Initializer{Name: name}
		if name != ps.Zero {
			desc.Initializer.Scale = 1
		}
		tab := open(t, table.Config{Table: desc})
		// 24 rows fill the index of 32 cells, so that Reserve has to count.
		keys, absent := make([]ps.Key, 24), make([]ps.Key, 100)
		for i := range keys {
			keys[i] = ps.Key(i)
		}
		for i := range absent {
			absent[i] = ps.Key(i + 1000)
		}
		values, dst := make([]byte, len(keys)*8), make([]byte, len(absent)*8)
		if err := tab.Apply(ps.Rows{Keys: keys, Values: values}, 1); err != nil {
			t.Fatal(err)
		}
		for what, call := range map[string]func() error{
			"gather of rows":           func() error { return tab.Gather(keys, dst[:len(keys)*8], nil) },
			"gather of initial values": func() error { return tab.Gather(absent, dst, nil) },
			"apply to existing rows":   func() error { return tab.Apply(ps.Rows{Keys: keys, Values: values}, 2) },
			"validate":                 func() error { return tab.Validate(ps.Rows{Keys: keys, Values: values}) },
		} {
			if n := testing.AllocsPerRun(100, func() {
				if err := call(); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s, %s: %v allocations, want none", what, name, n)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	change := func(f func(*table.Config)) table.Config {
		c := table.Config{Table: plain()}
		f(&c)
		return c
	}
	for _, test := range []struct {
		name   string
		config table.Config
		says   string
	}{
		{"no width", change(func(c *table.Config) { c.Table.Width = 0 }), `"item" has width 0`},
		{"a bad optimizer", change(func(c *table.Config) { c.Table.Optimizer.LearningRate = 0 }), `table "item": optimizer sgd: learning_rate`},
		{"a bad initializer", change(func(c *table.Config) { c.Table.Initializer.Name = "" }), `table "item": initializer name ""`},
		{"a negative limit", change(func(c *table.Config) { c.RowsMax = -1 }), `table "item": at most -1 rows`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := table.New(test.config); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want ps.ErrInvalid that says %q", err, test.says)
			}
		})
	}
}
