package server

import (
	"container/list"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/freshet-ml/freshet/ps"
)

// identityKey is the metadata in which a reader says who it is.
const identityKey = "freshet-identity"

// identityMax is the most that is read of it, in bytes: what is remembered has a bound.
const identityMax = 128

// readers are those who have looked something up lately, and what each may still ask for.
type readers struct {
	limits LookupLimits

	mu     sync.Mutex
	byName map[string]*list.Element // guarded by mu; of recent
	recent list.List                // guarded by mu; of *reader, who has asked last first
}

// reader is who asks. One with a bucket of tokens, of which each key takes one.
type reader struct {
	name   string
	bucket *rate.Limiter
}

func newReaders(limits LookupLimits) *readers {
	return &readers{limits: limits, byName: make(map[string]*list.Element)}
}

// admit wraps ps.ErrLimited, and says how long to wait, if who asks has asked for too many
// keys to be given so many more now.
func (r *readers) admit(ctx context.Context, keys int) error {
	if r.limits.KeysPerSecond == 0 {
		return nil
	}
	name, now := identity(ctx), time.Now()
	taken := r.bucket(name).ReserveN(now, keys)
	wait := taken.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	taken.CancelAt(now)
	return &ps.LimitedError{
		Message: fmt.Sprintf("%s may look up %.6g keys a second: these %d in %v: %v", name, r.limits.KeysPerSecond, keys, wait.Round(time.Millisecond), ps.ErrLimited),
		Wait:    wait,
	}
}

// bucket returns that of a reader.
func (r *readers) bucket(name string) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byName[name]; e != nil {
		r.recent.MoveToFront(e)
		return e.Value.(*reader).bucket
	}
	if r.recent.Len() >= r.limits.ReadersMax {
		last := r.recent.Back()
		delete(r.byName, last.Value.(*reader).name)
		r.recent.Remove(last)
	}
	bucket := rate.NewLimiter(rate.Limit(r.limits.KeysPerSecond), r.limits.KeysBurst)
	r.byName[name] = r.recent.PushFront(&reader{name: name, bucket: bucket})
	return bucket
}

// identity says who asks: see RegisterLookups. What a certificate says cannot be said
// without one.
func identity(ctx context.Context) string {
	from, known := peer.FromContext(ctx)
	if known {
		if tls, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(tls.State.VerifiedChains) > 0 {
			if name := tls.State.VerifiedChains[0][0].Subject.CommonName; name != "" {
				return fmt.Sprintf("the reader with the certificate of %q", cut(name))
			}
		}
	}
	if said := metadata.ValueFromIncomingContext(ctx, identityKey); len(said) > 0 && said[0] != "" {
		return fmt.Sprintf("the reader %q", cut(said[0]))
	}
	if !known {
		return "the reader at an unknown address"
	}
	host, _, err := net.SplitHostPort(from.Addr.String())
	if err != nil {
		host = from.Addr.String()
	}
	return "the reader at " + host
}

func cut(name string) string { return name[:min(len(name), identityMax)] }
