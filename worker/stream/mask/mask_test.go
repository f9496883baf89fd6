package mask_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

func newMasker(t testing.TB, secret string) *mask.Masker {
	t.Helper()
	m, err := mask.New([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMask(t *testing.T) {
	t.Run("is the beginning of HMAC-SHA-256 in hexadecimal", func(t *testing.T) {
		// RFC 4231, test case 2.
		m := newMasker(t, "Jefe")
		got := string(m.Append(nil, []byte("what do ya want for nothing?")))
		if want := "5bdcc146bf60754e6a042426089575c7"; got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
	t.Run("never changes", func(t *testing.T) {
		// Masks are in rows of trained models: a change here orphans all of them.
		m := newMasker(t, "a secret of the test")
		for range 3 { // the state is reused
			for identifier, want := range map[string]string{"712": golden712, "": ""} {
				if got := string(m.Append(nil, []byte(identifier))); got != want {
					t.Fatalf("%q: got %q, want %q", identifier, got, want)
				}
			}
		}
		if got := m.Check(); got != goldenCheck {
			t.Fatalf("check: got %q, want %q", got, goldenCheck)
		}
	})
	t.Run("differs by secret", func(t *testing.T) {
		a, b := newMasker(t, "a"), newMasker(t, "b")
		if string(a.Append(nil, []byte("712"))) == string(b.Append(nil, []byte("712"))) || a.Check() == b.Check() {
			t.Fatal("two secrets give one mask")
		}
	})
	t.Run("agrees with the textbook on identifiers of every length", func(t *testing.T) {
		m := newMasker(t, "s")
		for n := 1; n < 300; n++ {
			identifier := make([]byte, n)
			for i := range identifier {
				identifier[i] = byte(i * n)
			}
			mac := hmac.New(sha256.New, []byte("s"))
			mac.Write(identifier)
			want := hex.EncodeToString(mac.Sum(nil))[:mask.Len]
			if got := string(m.Append([]byte("x"), identifier)); got != "x"+want {
				t.Fatalf("%d bytes: got %s, want x%s", n, got, want)
			}
		}
	})
	t.Run("is refused without a secret", func(t *testing.T) {
		if _, err := mask.New(nil); !errors.Is(err, ps.ErrInvalid) {
			t.Fatalf("got %v, want %v", err, ps.ErrInvalid)
		}
	})
	t.Run("allocates nothing", func(t *testing.T) {
		m := newMasker(t, "s")
		buf, identifier := make([]byte, 0, mask.Len), []byte("user-712")
		if n := testing.AllocsPerRun(1000, func() { buf = m.Append(buf[:0], identifier) }); n != 0 {
			t.Fatalf("%v allocations, want 0", n)
		}
	})
}

const (
	golden712   = "9342db947efe8b98785de1c55f8845c8" // printf 712 | openssl dgst -sha256 -hmac 'a secret of the test'
	goldenCheck = "764bc0064bd2845fa1a738393d36d127"
)

func BenchmarkAppend(b *testing.B) {
	m := newMasker(b, "a secret of the benchmark")
	buf, identifier := make([]byte, 0, mask.Len), []byte("user-712")
	b.ReportAllocs()
	for b.Loop() {
		buf = m.Append(buf[:0], identifier)
	}
}
