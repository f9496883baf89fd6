package feature

// White-box: hashWord and separators are steps of a form that must agree with a plain one.

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
)

func TestAWordHasTheHashOfItsBytes(t *testing.T) {
	const seed = 5
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		var text [wordMax + 1]byte
		binary.LittleEndian.PutUint64(text[:], rng.Uint64())
		binary.LittleEndian.PutUint64(text[8:], rng.Uint64())
		n := rng.IntN(wordMax + 1)
		got := hashWord(binary.LittleEndian.Uint64(text[:]), binary.LittleEndian.Uint64(text[8:]), uint64(n))
		if want := xxhash.Sum64(text[:n]); got != want {
			t.Fatalf("%d bytes of %x: got %016x, want %016x", n, text, got, want)
		}
	}
}

func TestSeparatorsAreFoundWhereverTheyAre(t *testing.T) {
	const seed = 6
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, separator := range []byte{' ', '|', 0, 0x7f, 0x80, 0xff} {
		_, eight := newPadding(separator)
		for range 2000 {
			var text [block]byte
			want := uint64(0)
			for i := range text {
				// Bytes near the separator are where carries would show.
				if text[i] = separator + byte(rng.IntN(4)-1) ^ byte(rng.IntN(2)<<7); text[i] == separator {
					want |= 1 << i
				}
			}
			if got := separators(&text, eight); got != want {
				t.Fatalf("%q in %x: got %064b, want %064b", separator, text, got, want)
			}
		}
	}
}

// wordSpec has one feature of words.
func wordSpec(t testing.TB) *spec.Spec {
	t.Helper()
	s, err := spec.Parse("words.yaml", []byte("model: words\nstream: {format: vw}\nfeatures:\n  - {name: f, column: f, split: \" \"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWordsAreTheTokensOfTheirText(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	words, err := NewUnlabelled(wordSpec(t), []string{"f"})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := NewUnlabelled(wordSpec(t), []string{"f"})
	if err != nil {
		t.Fatal(err)
	}
	plain.inputs[0].padding = nil
	for n := range 5000 {
		text := make([]byte, rng.IntN(300))
		if n < 200 {
			text = make([]byte, n)
		}
		long := 1 + rng.IntN(30)
		for i := range text {
			if text[i] = byte(rng.IntN(256)); rng.IntN(long) == 0 {
				text[i] = ' '
			}
		}
		if n%100 == 0 {
			text = text[:0:0]
		}
		e := &worker.Event{Columns: [][]byte{text}}
		var got, want worker.Batch
		got.Reset(0, 0, 0)
		want.Reset(0, 0, 0)
		if err := words.Append(&got, e); err != nil {
			t.Fatal(err)
		}
		if err := plain.Append(&want, e); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Keys, want.Keys) || len(got.Values) != len(want.Values) {
			t.Fatalf("%q: got %x with %d values, want %x with %d", text, got.Keys, len(got.Values), want.Keys, len(want.Values))
		}
		for i := range got.Values {
			if got.Values[i] != want.Values[i] {
				t.Fatalf("%q: got %v, want %v", text, got.Values, want.Values)
			}
		}
	}
}

func BenchmarkWords(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	texts := make([][]byte, 1000)
	for i := range texts {
		for j := range 39 {
			texts[i] = append(texts[i], []byte(" 0_")...)
			for range 1 + rng.IntN(1+j/8) {
				texts[i] = append(texts[i], "0123456789abcdef"[rng.IntN(16)])
			}
		}
	}
	for _, c := range []struct {
		name  string
		words bool
	}{{"words", true}, {"tokens", false}} {
		b.Run(c.name, func(b *testing.B) {
			x, err := NewUnlabelled(wordSpec(b), []string{"f"})
			if err != nil {
				b.Fatal(err)
			}
			if !c.words {
				x.inputs[0].padding = nil
			}
			var batch worker.Batch
			e := &worker.Event{Columns: make([][]byte, 1)}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if n++; n%256 == 1 {
					batch.Reset(0, 0, 0)
				}
				e.Columns[0] = texts[n%len(texts)]
				if err := x.Append(&batch, e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestWordsAllocateNothing(t *testing.T) {
	x, err := NewUnlabelled(wordSpec(t), []string{"f"})
	if err != nil {
		t.Fatal(err)
	}
	var b worker.Batch
	e := &worker.Event{Columns: [][]byte{[]byte("0_1 1_23 a-token-of-more-than-fifteen-bytes 2_456")}}
	if n := testing.AllocsPerRun(100, func() {
		b.Reset(0, 0, 0)
		if err := x.Append(&b, e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per event, want 0", n)
	}
}
