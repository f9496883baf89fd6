package membership

import "testing"

// The moment between giving a change and taking it back is not to be hit from outside.
func TestAChangeWhileAnOlderOneIsGivenIsNotLost(t *testing.T) {
	table := newTable()
	w := &watch{unseen: map[string]Member{}, wake: make(chan struct{}, 1)}
	table.watches[w] = struct{}{}
	table.set(Member{ID: "a", State: Alive})
	table.set(Member{ID: "b", State: Alive})
	given, _ := table.next(w)
	table.set(Member{ID: "a", State: Dead})
	table.given(w, given)
	for _, want := range []Member{{ID: "b", State: Alive}, {ID: "a", State: Dead}} {
		got, ok := table.next(w)
		if got != want {
			t.Fatalf("next gives %v (%t), want %v", got, ok, want)
		}
		table.given(w, got)
	}
	if got, ok := table.next(w); ok {
		t.Errorf("next gives %v after everything was given", got)
	}
}
