package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/freshet-ml/freshet/ps"
)

// Internal: who asks and when come from connections and the clock, which a test would have
// to own, certificates and all; and a request whose time is up does not get here by a client.

// by returns a context of a request from an address, with what it says of itself.
func by(address, said string) context.Context {
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 40000}})
	if said != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs(identityKey, said))
	}
	return ctx
}

// certified returns a context of a request with a certificate.
func certified(name string, verified bool, said string) context.Context {
	certificate := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
	if verified {
		state.VerifiedChains = [][]*x509.Certificate{{certificate}}
	}
	ctx := by("10.0.0.1", said)
	from, _ := peer.FromContext(ctx)
	from.AuthInfo = credentials.TLSInfo{State: state}
	return ctx
}

func TestAReaderIsWhoItsCertificateSaysThenWhoItSaysThenWhereItIs(t *testing.T) {
	for _, c := range []struct {
		what string
		ctx  context.Context
		want string
	}{
		{"a certificate", certified("pod-1", true, "pod-2"), `the reader with the certificate of "pod-1"`},
		{"a certificate that nobody has verified", certified("pod-1", false, "pod-2"), `the reader "pod-2"`},
		{"a certificate without a name", certified("", true, ""), "the reader at 10.0.0.1"},
		{"a name", by("10.0.0.1", "pod-2"), `the reader "pod-2"`},
		{"a name like a certificate's", by("10.0.0.1", `with the certificate of "pod-1"`), `the reader "with the certificate of \"pod-1\""`},
		{"a name that is long", by("10.0.0.1", strings.Repeat("x", 1<<16)), `the reader "` + strings.Repeat("x", identityMax) + `"`},
		{"an address", by("10.0.0.1", ""), "the reader at 10.0.0.1"},
		{"an address of version 6", by("fd00::1", ""), "the reader at fd00::1"},
		{"nothing", context.Background(), "the reader at an unknown address"},
	} {
		if got := identity(c.ctx); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func TestAReaderMayAskAgainWhenItHasWaitedAsLongAsItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := LookupLimits{KeysMax: 100, KeysPerSecond: 1000, KeysBurst: 200}
		if err := limits.validate(); err != nil {
			t.Fatal(err)
		}
		r := newReaders(limits)
		pod, other := by("10.0.0.1", ""), by("10.0.0.2", "")
		for range 2 {
			if err := r.admit(pod, 100); err != nil {
				t.Fatalf("a burst of 200 was refused: %v", err)
			}
		}
		for range 5 { // a refusal costs nothing
			err := r.admit(pod, 50)
			limited, ok := errors.AsType[*ps.LimitedError](err)
			if !ok || limited.Wait != 50*time.Millisecond || !strings.Contains(err.Error(), "10.0.0.1") || !strings.Contains(err.Error(), "50ms") {
				t.Fatalf("50 keys more gave %v, want ps.LimitedError of 50 ms", err)
			}
		}
		if err := r.admit(other, 100); err != nil {
			t.Errorf("another reader was refused: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
		if err := r.admit(pod, 50); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		if err := r.admit(pod, 1); !errors.Is(err, ps.ErrLimited) {
			t.Errorf("and at once again: %v, want ps.ErrLimited", err)
		}
	})
}

func TestHowManyReadersAreRememberedIsBounded(t *testing.T) {
	limits := LookupLimits{KeysMax: 10, KeysPerSecond: 1, KeysBurst: 10, ReadersMax: 3}
	r := newReaders(limits)
	regular := by("10.0.0.1", "regular")
	if err := r.admit(regular, 10); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := r.admit(by("10.0.0.1", fmt.Sprint("new ", i)), 10); err != nil {
			t.Fatal(err)
		}
		if err := r.admit(regular, 10); !errors.Is(err, ps.ErrLimited) {
			t.Fatalf("who asks all the time was forgotten for %d others: %v", i+1, err)
		}
	}
	if len(r.byName) != 3 || r.recent.Len() != 3 {
		t.Errorf("%d readers are remembered in %d places, want 3", len(r.byName), r.recent.Len())
	}
}

func TestARequestWhoseTimeIsUpIsNotEvenDecoded(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	s := &lookups{}
	_, err := s.handle(nil, ctx, func(any) error {
		t.Error("it was decoded")
		return nil
	}, nil)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("it was answered with %v, want DEADLINE_EXCEEDED", err)
	}
}

func TestLimitsThatCannotBeAreRefused(t *testing.T) {
	for name, limits := range map[string]LookupLimits{
		"a negative rate":               {KeysPerSecond: -1},
		"a rate that is none":           {KeysPerSecond: math.NaN()},
		"a rate without end":            {KeysPerSecond: math.Inf(1)},
		"a request that is never given": {KeysMax: 100, KeysBurst: 99, KeysPerSecond: 1},
		"fewer keys than none":          {KeysMax: -1},
		"fewer readers than none":       {ReadersMax: -1},
	} {
		if err := limits.validate(); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: %v, want ps.ErrInvalid", name, err)
		}
	}
	slow := LookupLimits{KeysPerSecond: 10}
	if err := slow.validate(); err != nil || slow.KeysBurst != LookupKeysMax {
		t.Errorf("a slow reader may ask for %d keys at once (%v), want those of one request, %d", slow.KeysBurst, err, LookupKeysMax)
	}
}
