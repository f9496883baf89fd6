package cache_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/cache"
)

var name = cache.Name{Stream: "file:1", Features: [32]byte{1}, Partition: 3}

// examples returns n events; plain ones have values, weights of 1 and no times.
func examples(n int, plain bool) (*worker.Batch, []int64) {
	rng := rand.New(rand.NewPCG(8, 9))
	b, times := new(worker.Batch), make([]int64, n)
	b.Reset(name.Partition, 0, 0)
	for i := range n {
		for range rng.IntN(50) {
			value := float32(1)
			if !plain {
				value = rng.Float32()
			}
			b.AddFeature(ps.Key(rng.Uint64()), value)
			if !plain {
				b.Fields = append(b.Fields, uint16(rng.IntN(1<<16)))
			}
		}
		role, weight := worker.Role(rng.IntN(2)), float32(1)
		if !plain {
			role, weight, times[i] = worker.Role(rng.IntN(3)), rng.Float32(), rng.Int64N(1e12)
		}
		b.Close(role, float32(rng.IntN(2)), weight, times[i])
	}
	return b, times
}

// write writes a cache of examples and returns its file.
func write(t testing.TB, dir string, b *worker.Batch, times []int64) string {
	t.Helper()
	w, err := cache.Create(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	var one worker.Batch
	for i := range b.Len() {
		one.Reset(name.Partition, ps.Offset(i), 0)
		for j := b.Starts[i]; j < b.Starts[i+1]; j++ {
			one.AddFeature(b.Keys[j], b.Values[j])
			if len(b.Fields) > 0 {
				one.Fields = append(one.Fields, b.Fields[j])
			}
		}
		one.Close(b.Roles[i], b.Labels[i], b.Weights[i], times[i])
		if err := w.Add(&one, times[i]); err != nil {
			t.Fatal(err)
		}
	}
	if cache.Exists(dir, name) {
		t.Fatal("a cache is seen before it is committed")
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the directory holds %q, %v: want one file", found, err)
	}
	return found[0]
}

// read returns the examples of a cache from an event on.
func read(dir string, from ps.Offset) (*worker.Batch, error) {
	r, err := cache.Open(dir, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := r.Seek(from); err != nil {
		return nil, err
	}
	b := new(worker.Batch)
	b.Reset(name.Partition, from, 0)
	for {
		if err := r.Append(b); errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return b, err
		}
	}
}

func TestWhatIsCachedIsRead(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 257, 1000} {
		for _, plain := range []bool{true, false} {
			dir := t.TempDir()
			want, times := examples(n, plain)
			write(t, dir, want, times)
			got, err := read(dir, 0)
			if err != nil {
				t.Fatalf("%d events: %v", n, err)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%d events, plain %v (-want +got):\n%s", n, plain, diff)
			}
			for _, from := range []int{n / 3, n / 2, n} {
				got, err := read(dir, ps.Offset(from))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want.Keys[want.Starts[from]:], got.Keys, cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("%d events from %d (-want +got):\n%s", n, from, diff)
				}
			}
		}
	}
}

func TestACacheOfSomethingElseIsNotFound(t *testing.T) {
	dir := t.TempDir()
	b, times := examples(10, true)
	path := write(t, dir, b, times)
	for what, other := range map[string]cache.Name{
		"another stream":    {Stream: "file:2", Features: name.Features, Partition: name.Partition},
		"other features":    {Stream: name.Stream, Features: [32]byte{2}, Partition: name.Partition},
		"another partition": {Stream: name.Stream, Features: name.Features, Partition: 4},
	} {
		if _, err := cache.Open(dir, other); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want ErrNotExist", what, err)
		}
		// Even under the file's name: somebody may have moved it there.
		w, err := cache.Create(dir, other)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		found, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, f := range found {
			if f != path {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(f, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := cache.Open(dir, other); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s under the file's name: %v, want ErrCorrupt", what, err)
		}
		if err := cache.Remove(dir, other); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageIsNeverBelieved(t *testing.T) {
	dir := t.TempDir()
	b, times := examples(300, false)
	path := write(t, dir, b, times)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const seed = 10
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	check := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := read(dir, 0)
		if !errors.Is(err, ps.ErrCorrupt) {
			t.Fatalf("%s: %v, want ErrCorrupt", what, err)
		}
		if got != nil && got.Len() > 0 && !cmp.Equal(got.Keys, b.Keys[:len(got.Keys)]) {
			t.Fatalf("%s: other examples before the error", what)
		}
	}
	for range 500 {
		text := append([]byte(nil), whole...)
		at := rng.IntN(len(text))
		text[at] ^= 1 << rng.IntN(8)
		check("a flipped bit", text)
		check("a torn file", whole[:rng.IntN(len(whole))])
	}
	for at := range 80 {
		text := append([]byte(nil), whole...)
		text[at] ^= 0xff
		check("a flipped byte at the beginning", text)
	}
}

func TestReadingAllocatesNothingPerEvent(t *testing.T) {
	dir := t.TempDir()
	b, times := examples(5000, true)
	write(t, dir, b, times)
	r, err := cache.Open(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got worker.Batch
	pass := func() {
		if err := r.Seek(0); err != nil {
			t.Fatal(err)
		}
		got.Reset(name.Partition, 0, 0)
		for i := range 5000 {
			if i%256 == 0 {
				got.Reset(name.Partition, ps.Offset(i), 0)
			}
			if err := r.Append(&got); err != nil {
				t.Fatal(err)
			}
		}
	}
	pass()
	if n := testing.AllocsPerRun(3, pass); n > 0 {
		t.Errorf("%v allocations for 5000 events, want none per event", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	want, times := examples(20_000, true)
	write(b, dir, want, times)
	r, err := cache.Open(dir, name)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	var got worker.Batch
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		if n%20_000 == 0 {
			if err := r.Seek(0); err != nil {
				b.Fatal(err)
			}
		}
		if n%256 == 0 {
			got.Reset(name.Partition, 0, 0)
		}
		n++
		if err := r.Append(&got); err != nil {
			b.Fatal(err)
		}
	}
}
