package wire

import (
	"fmt"
	"math"
	"time"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
)

// LookupRequest returns l as a message.
func LookupRequest(l *ps.Lookup) *psv1.LookupRequest {
	req := &psv1.LookupRequest{
		Model:    l.Model,
		Layout:   l.Layout,
		Shards:   shardNumbers(l.Shards),
		Tables:   tableKeysMessages(l.Tables),
		Encoding: psv1.Encoding(l.Encoding),
		Seen:     make([]*psv1.Boundary, len(l.Seen)),
		MaxAgeMs: milliseconds(l.AgeMax),
	}
	for i, b := range l.Seen {
		req.Seen[i] = boundaryMessage(b)
	}
	return req
}

// Lookup returns the look-up that a message holds. Its counts add up to its keys, and
// there are as many boundaries as shards, or none.
func Lookup(req *psv1.LookupRequest) (*ps.Lookup, error) {
	tables, err := tableKeys(req.GetTables())
	if err != nil {
		return nil, err
	}
	if err := checkEncoding(req.GetEncoding()); err != nil {
		return nil, err
	}
	l := &ps.Lookup{
		Pull:     ps.Pull{Model: req.GetModel(), Layout: req.GetLayout(), Shards: shardIDs(req.GetShards()), Tables: tables},
		Encoding: ps.Encoding(req.GetEncoding()),
		Seen:     make([]ps.Boundary, len(req.GetSeen())),
	}
	for i, b := range req.GetSeen() {
		l.Seen[i] = boundary(b)
	}
	if l.AgeMax, err = ageMaxOf(req.GetMaxAgeMs()); err != nil {
		return nil, err
	}
	return l, checkLookup(l)
}

// checkLookup reports a shape that no look-up has.
func checkLookup(l *ps.Lookup) error {
	if len(l.Seen) > 0 && len(l.Seen) != len(l.Shards) {
		return fmt.Errorf("look-up of %d shards by who has seen boundaries of %d: %w", len(l.Shards), len(l.Seen), ps.ErrInvalid)
	}
	return checkPull(&l.Pull)
}

func ageMaxOf(ms float64) (time.Duration, error) {
	age, err := duration(ms)
	if err != nil {
		return 0, fmt.Errorf("the greatest age that a look-up accepts: %w", err)
	}
	return age, nil
}

// checkEncoding refuses an encoding that is not known.
func checkEncoding(e psv1.Encoding) error {
	if e < 0 || e > psv1.Encoding(ps.Int8) {
		return fmt.Errorf("encoding %d of a reader: want at most %d: %w", e, ps.Int8, ps.ErrInvalid)
	}
	return nil
}

// LookupResponse returns the rows of each table, and how fresh they are, as a message,
// which shares the rows.
func LookupResponse(values [][]byte, fresh []ps.Freshness) *psv1.LookupResponse {
	resp := &psv1.LookupResponse{Values: values, Shards: make([]*psv1.ShardFreshness, len(fresh))}
	for i := range fresh {
		f := &fresh[i]
		m := &psv1.ShardFreshness{Boundary: boundaryMessage(f.Boundary), Applied: make([]uint64, len(f.Applied)), EventTime: f.EventTime, AgeMs: milliseconds(f.Age)}
		for p, offset := range f.Applied {
			m.Applied[p] = uint64(offset)
		}
		resp.Shards[i] = m
	}
	return resp
}

// Freshness returns how fresh the rows are that a message holds.
func Freshness(resp *psv1.LookupResponse) ([]ps.Freshness, error) {
	fresh := make([]ps.Freshness, len(resp.GetShards()))
	for i, m := range resp.GetShards() {
		f := &fresh[i]
		*f = ps.Freshness{Boundary: boundary(m.GetBoundary()), Applied: make([]ps.Offset, len(m.GetApplied())), EventTime: m.GetEventTime()}
		for p, offset := range m.GetApplied() {
			f.Applied[p] = ps.Offset(offset)
		}
		var err error
		if f.Age, err = duration(m.GetAgeMs()); err != nil {
			return nil, fmt.Errorf("age of the rows of a shard: %w", err)
		}
	}
	return fresh, nil
}

func boundaryMessage(b ps.Boundary) *psv1.Boundary {
	return &psv1.Boundary{Fence: uint64(b.Fence), Seq: b.Seq}
}

func boundary(m *psv1.Boundary) ps.Boundary {
	return ps.Boundary{Fence: ps.Fence(m.GetFence()), Seq: m.GetSeq()}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// durationMax is below what a time.Duration holds, and a float64 has it exactly.
const durationMax = float64(1 << 62)

// duration returns a number of milliseconds as a duration, to the nanosecond where it is of
// weeks and not of years; what is above 0 stays above it.
func duration(ms float64) (time.Duration, error) {
	ns := math.Round(ms * float64(time.Millisecond))
	if !(ms >= 0 && ns <= durationMax) {
		return 0, fmt.Errorf("%v milliseconds: want a number from 0 to %.3g: %w", ms, durationMax/float64(time.Millisecond), ps.ErrInvalid)
	}
	if ms > 0 {
		ns = max(ns, 1)
	}
	return time.Duration(ns), nil
}
