package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// Rows is what readers look up: a node.
type Rows interface {
	Tables(model string, layout uint64) ([]ps.Table, error)
	Lookup(ctx context.Context, l *ps.Lookup, values [][]byte, fresh []ps.Freshness) error
}

// LookupKeysMax is how many keys one look-up has at most unless LookupLimits say otherwise:
// a request of 2 MiB.
const LookupKeysMax = 1 << 18

// LookupLimits says what readers may look up, and how much.
type LookupLimits struct {
	// Tables are the names of those that may be looked up, of whatever model. Default: all
	// of kind float32, which are what a model has learnt. Others count what was learnt from.
	Tables []string
	// KeysMax is the most keys of one request, over all its tables. Default LookupKeysMax.
	KeysMax int
	// KeysPerSecond is how many keys one reader may ask for in a second, in the long run. A
	// request without keys counts as one. Default 0: no bound.
	KeysPerSecond float64
	// KeysBurst is how many a reader who was silent may ask for at once. At least KeysMax,
	// since a request of so many could never be answered otherwise. Default: KeysMax, or
	// KeysPerSecond if that is more.
	KeysBurst int
	// ReadersMax is how many readers are remembered. Who was silent for longest is
	// forgotten for a new one, and then begins with a whole burst. Default 4096: half a
	// megabyte.
	ReadersMax int
}

func (l *LookupLimits) validate() error {
	if l.KeysMax < 0 || l.KeysBurst < 0 || l.ReadersMax < 0 {
		return fmt.Errorf("look-ups of at most %d keys, %d at once, by %d readers: %w", l.KeysMax, l.KeysBurst, l.ReadersMax, ps.ErrInvalid)
	}
	if !(l.KeysPerSecond >= 0) || math.IsInf(l.KeysPerSecond, 0) {
		return fmt.Errorf("look-ups of %v keys per second: want a number, at least 0: %w", l.KeysPerSecond, ps.ErrInvalid)
	}
	if l.KeysMax == 0 {
		l.KeysMax = LookupKeysMax
	}
	if l.KeysBurst == 0 {
		l.KeysBurst = max(l.KeysMax, int(min(l.KeysPerSecond, math.MaxInt32)))
	}
	if l.KeysBurst < l.KeysMax {
		return fmt.Errorf("look-ups of %d keys at once, and of at most %d in a request, which are more: %w", l.KeysBurst, l.KeysMax, ps.ErrInvalid)
	}
	if l.ReadersMax == 0 {
		l.ReadersMax = 4096
	}
	return nil
}

// lookupBytesMax bounds the rows of one look-up as they are stored. The rest of a message
// is for how fresh they are.
const lookupBytesMax = wire.MessageBytesMax / 2

// RegisterLookups puts look-ups of a node's rows on a gRPC server. It wraps ps.ErrInvalid
// if the limits cannot be.
//
// A reader is who its certificate says, by its common name, if the server has verified
// one. Otherwise it is who it says itself, in the metadata "freshet-identity", and if it
// says nothing, all at its address are one. Without TLS, then, nobody is who they say for
// certain: limits keep readers from hurting each other by mistake, not by intent.
func RegisterLookups(s *grpc.Server, rows Rows, limits LookupLimits) error {
	if err := limits.validate(); err != nil {
		return err
	}
	server := &lookups{rows: rows, limits: limits, readers: newReaders(limits)}
	desc := psv1.Lookups_ServiceDesc
	desc.HandlerType = (*any)(nil) // no generated code calls it
	desc.Methods = []grpc.MethodDesc{{MethodName: "Lookup", Handler: server.handle}}
	s.RegisterService(&desc, server)
	return nil
}

type lookups struct {
	rows    Rows
	limits  LookupLimits
	readers *readers
	calls   sync.Pool // of *lookupCall
}

// lookupCall is memory that one look-up after the other uses.
type lookupCall struct {
	request wire.LookupAsked
	reply   wire.Reply
	sizes   []int
	fresh   []ps.Freshness
}

// handle is what the generated code has for Lookup, but that it decodes and encodes without
// that code's messages: see wire.Codec. Of a request whose time is up it does not even look
// at the bytes.
func (s *lookups) handle(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, wire.ToStatus(err)
	}
	call, _ := s.calls.Get().(*lookupCall)
	if call == nil {
		call = new(lookupCall)
	}
	if err := decode(&call.request); err != nil {
		return nil, err
	}
	answer := func(ctx context.Context, _ any) (any, error) {
		m, err := s.lookup(ctx, call)
		if err != nil {
			return nil, wire.ToStatus(err)
		}
		return m, nil
	}
	if interceptor == nil {
		return answer(ctx, &call.request)
	}
	return interceptor(ctx, &call.request, &grpc.UnaryServerInfo{Server: s, FullMethod: psv1.Lookups_Lookup_FullMethodName}, answer)
}

func (s *lookups) lookup(ctx context.Context, call *lookupCall) (*wire.Message, error) {
	l, err := call.request.Words()
	if err != nil {
		return nil, err
	}
	if call.sizes, err = s.admit(ctx, l, call.sizes[:0]); err != nil {
		return nil, err
	}
	defer s.calls.Put(call) // what was not admitted may have taken any memory
	call.reply.Room(call.sizes)
	call.fresh = slices.Grow(call.fresh[:0], len(l.Shards))[:len(l.Shards)]
	if err := s.rows.Lookup(ctx, l, call.reply.Values, call.fresh); err != nil {
		call.reply.Free()
		return nil, err
	}
	return call.reply.LookedUp(call.fresh), nil
}

// admit holds a look-up to the limits, and appends how many bytes the rows of each of its
// tables are as they travel.
func (s *lookups) admit(ctx context.Context, l *ps.Lookup, sizes []int) ([]int, error) {
	keys := 0
	for i := range l.Tables {
		keys += len(l.Tables[i].Keys)
	}
	if keys > s.limits.KeysMax {
		return nil, fmt.Errorf("look-up of %d keys, at most %d: look fewer up at a time: %w", keys, s.limits.KeysMax, ps.ErrTooLarge)
	}
	tables, err := s.rows.Tables(l.Model, l.Layout)
	if err != nil {
		return nil, err
	}
	total := 0
	for i := range l.Tables {
		asked := &l.Tables[i]
		if int64(asked.Table) >= int64(len(tables)) {
			return nil, fmt.Errorf("model %q has %d tables, table %d was asked for: %w", l.Model, len(tables), asked.Table, ps.ErrInvalid)
		}
		table := &tables[asked.Table]
		if !s.open(table) {
			return nil, fmt.Errorf("table %q of model %q, of kind %v, is not one that may be looked up here: %w", table.Name, l.Model, table.Kind, ps.ErrInvalid)
		}
		total += len(asked.Keys) * table.RowBytes()
		sizes = append(sizes, len(asked.Keys)*l.Encoding.RowBytes(*table))
	}
	if total > lookupBytesMax {
		return nil, fmt.Errorf("look-up of %d bytes of rows, at most %d: look fewer keys up at a time: %w", total, lookupBytesMax, ps.ErrTooLarge)
	}
	return sizes, s.readers.admit(ctx, max(1, keys))
}

// open reports whether a table may be looked up.
func (s *lookups) open(t *ps.Table) bool {
	if len(s.limits.Tables) == 0 {
		return t.Kind == ps.Float32
	}
	return slices.Contains(s.limits.Tables, t.Name)
}
