package meta_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/freshet-ml/freshet/coordinator"
)

func TestEventsAreReadInTheOrderOfTheirMaking(t *testing.T) {
	s := dial(t)
	v := create(t, s, 4)
	want := []coordinator.Event{
		{Kind: coordinator.EventMember, What: "node a joined", By: "c"},
		{Kind: coordinator.EventMember, What: "node b joined", By: "c"},
	}
	if err := s.Record(t.Context(), want...); err != nil { // mostly in the millisecond of what follows
		t.Fatal(err)
	}
	moved := coordinator.Event{Kind: coordinator.EventShards, What: "4 shards have the owner a", Why: "they had none", By: "c"}
	if _, err := s.SetMap(t.Context(), v.Read(), owned(4, "a", 1), moved); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetMap(t.Context(), v.Read(), owned(4, "b", 2), coordinator.Event{What: "of a change that is not made"}); err == nil {
		t.Fatal("a map was changed that had changed already")
	}
	got, err := s.Events(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(want, moved), got, cmpopts.IgnoreFields(coordinator.Event{}, "At")); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	newest, err := s.Events(t.Context(), 1)
	if err != nil || len(newest) != 1 || newest[0].What != moved.What {
		t.Errorf("the newest event is %+v (%v), want %+v", newest, err, moved)
	}
}

func TestOldEventsAreForgotten(t *testing.T) {
	s := dial(t)
	create(t, s, 4)
	const more = 300
	at := int64(1)
	for at <= coordinator.EventsMax+more {
		var events []coordinator.Event
		for range 100 {
			events = append(events, coordinator.Event{At: at, What: fmt.Sprint(at)})
			at++
		}
		if err := s.Record(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Events(t.Context(), coordinator.EventsMax)
	if err != nil {
		t.Fatal(err)
	}
	if first, last := got[0], got[len(got)-1]; len(got) != coordinator.EventsMax || last.At != at-1 || first.At != at-coordinator.EventsMax {
		t.Errorf("%d events of %d to %d are kept, want the newest %d of %d", len(got), first.At, last.At, coordinator.EventsMax, at-1)
	}
}
