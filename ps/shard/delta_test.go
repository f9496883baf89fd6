package shard_test

import (
	"errors"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/shard"
)

// base begins a base of the shard: a snapshot, whose blocks are to be read into parts,
// and deltas from its boundary on.
func base(t interface{ Fatal(...any) }, s *shard.Shard) *shard.Snapshot {
	s.Record()
	sn, err := s.Snapshot(0)
	if err != nil {
		t.Fatal(err)
	}
	return sn
}

// part reads the next part of a base; the last has no rows.
func part(t interface{ Fatal(...any) }, sn *shard.Snapshot, n int) *ps.Delta {
	head := sn.Head()
	d := &ps.Delta{Since: head.Since, ShardProgress: head.ShardProgress, Part: n, More: true}
	b, err := sn.Read(make([]byte, 30*(16+2*600*4)))
	switch {
	case errors.Is(err, io.EOF):
		d.More = false
	case err != nil:
		t.Fatal(err)
	default:
		d.Blocks = []ps.Block{b}
	}
	return d
}

// TestACopyIsTheShardAtItsLastDelta lets a copy follow a shard while pushes go on, at
// its own pace, and compares the two to the last bit whenever the copy is whole.
func TestACopyIsTheShardAtItsLastDelta(t *testing.T) {
	var deltas, promoted, unfinished int
	rapid.Check(t, func(t *rapid.T) {
		m := wide()
		n := len(m.Layout.Tables)
		live, err := shard.New(config(m, 3))
		if err != nil {
			t.Fatal(err)
		}
		var applied [nPartitions]ps.Offset
		var sn *shard.Snapshot // the base, until it is read
		var parts int
		var loader *shard.Loader
		var queue []*ps.Delta         // sent, not taken
		states := map[uint64]copied{} // of the shard, by the seq of its boundary
		var later []change            // since the last boundary
		boundary := func() {
			states[live.Progress().Seq] = copyOf(t, live, n)
			later = nil
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				c := changed(t, m, applied[:])
				c(t, live)
				later = append(later, c)
			},
			"follow": func(t *rapid.T) {
				if loader != nil && rapid.IntRange(0, 3).Draw(t, "anew") > 0 {
					return
				}
				if sn != nil {
					sn.Close()
				}
				sn, parts, queue = base(t, live), 0, nil
				if loader, err = shard.Load(config(m, 4)); err != nil {
					t.Fatal(err)
				}
				boundary()
			},
			"send the base": func(t *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(t, "parts") {
					if sn == nil {
						return
					}
					d := part(t, sn, parts)
					if queue, parts = append(queue, d), parts+1; !d.More {
						sn = nil
					}
				}
			},
			"send a delta": func(t *rapid.T) {
				if loader == nil || sn != nil { // in one FIFO: after the base
					return
				}
				bytes := live.ChangedBytes()
				d := live.Delta()
				if d == nil {
					return
				}
				if d.Bytes() != bytes {
					t.Fatalf("a delta of %d bytes, %d were announced", d.Bytes(), bytes)
				}
				queue = append(queue, d)
				deltas++
				boundary()
			},
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(t, "parts") {
					if len(queue) == 0 {
						return
					}
					d := queue[0]
					queue = queue[1:]
					if err := loader.Take(d); err != nil {
						t.Fatal(err)
					}
					if loader.Whole() == d.More {
						t.Fatalf("after part %d, more %v: whole is %v", d.Part, d.More, loader.Whole())
					}
				}
			},
			"promote": func(t *rapid.T) {
				if loader == nil || rapid.IntRange(0, 3).Draw(t, "really") > 0 {
					return
				}
				whole, at := loader.Whole(), loader.Progress()
				s, err := loader.Shard()
				if whole != (err == nil) {
					t.Fatalf("whole is %v and the shard: %v", whole, err)
				}
				if loader, queue = nil, nil; sn != nil {
					sn.Close()
					sn = nil
				}
				if err != nil {
					unfinished++
					return
				}
				promoted++
				if d := copyOf(t, s, n).differs(states[at.Seq]); d != "" {
					t.Fatalf("the copy and the shard as it was at seq %d: %s", at.Seq, d)
				}
				if got := s.Progress().Fence; got != 4 {
					t.Fatalf("the copy has fence %d, want its own, 4", got)
				}
				if err := s.Valid(); err != nil {
					t.Fatal(err)
				}
				if at.Seq+uint64(len(later)) != live.Progress().Seq {
					return // it missed the last boundary
				}
				for _, c := range later {
					c(t, s)
				}
				if d := copyOf(t, s, n).differs(copyOf(t, live, n)); d != "" {
					t.Fatalf("the promoted copy after the same %d changes and the shard: %s", len(later), d)
				}
			},
		})
	})
	t.Logf("%d deltas, %d copies promoted, %d that were not whole", deltas, promoted, unfinished)
	if (deltas == 0 || promoted == 0 || unfinished == 0) && !testing.Short() {
		t.Error("the test does not test")
	}
}

// TestACopyThatMissesSomethingIsNone loses, repeats and swaps what a follower is sent.
func TestACopyThatMissesSomethingIsNone(t *testing.T) {
	s := learnt(t)
	sn := base(t, s)
	var sent []*ps.Delta
	for sn != nil {
		d := part(t, sn, len(sent))
		if sent = append(sent, d); !d.More {
			sn = nil
		}
	}
	bases := len(sent)
	for i := range ps.Offset(2) {
		item := &ps.Item{Shard: 1, From: 2 + i, Trained: 1, Fingerprint: ps.Fingerprint{Count: 1}, Rows: []ps.Rows{
			{Table: 0, Keys: []ps.Key{keyOf(1, nShards, 1)}, Values: ps.Bytes([]float32{1})},
		}}
		if a := s.Push(update(3+i), item); a.Outcome != ps.Applied {
			t.Fatal(a)
		}
		sent = append(sent, s.Delta())
	}
	if bases < 3 {
		t.Fatalf("a base of %d parts: want more, so that one can be missed", bases)
	}
	for i := range sent {
		without := append(append([]*ps.Delta(nil), sent[:i]...), sent[i+1:]...)
		twice := append(append([]*ps.Delta(nil), sent[:i+1]...), sent[i:]...)
		for name, list := range map[string][]*ps.Delta{"without": without, "twice": twice} {
			if name == "without" && i == len(sent)-1 {
				continue // that is only an older copy
			}
			loader, err := shard.Load(config(model(nPartitions), 4))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range list {
				if err = loader.Take(d); err != nil {
					break
				}
			}
			if !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("message %d of %d %s: %v, want ps.ErrCorrupt", i, len(sent), name, err)
			}
			if _, err := loader.Shard(); err == nil || loader.Whole() {
				t.Errorf("message %d of %d %s: a shard was made of it", i, len(sent), name)
			}
		}
	}
}

func TestNothingIsRecordedThatNobodyFollows(t *testing.T) {
	s := learnt(t)
	if d := s.Delta(); d != nil || s.ChangedBytes() != 0 {
		t.Errorf("without Record: delta %+v, %d bytes", d, s.ChangedBytes())
	}
	before := s.Bytes()
	s.Record()
	more(t, s)
	if s.ChangedBytes() == 0 {
		t.Error("with Record: nothing has changed")
	}
	s.Forget()
	if d := s.Delta(); d != nil || s.ChangedBytes() != 0 {
		t.Errorf("after Forget: delta %+v, %d bytes", d, s.ChangedBytes())
	}
	s.Record()
	if d := s.Delta(); d != nil {
		t.Errorf("nothing was pushed since Record: delta %+v", d)
	}
	if s.Bytes() < before {
		t.Errorf("%d bytes, before %d", s.Bytes(), before)
	}
}
