package deadletter_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/deadletter"
)

func open(t *testing.T, c deadletter.Config) *deadletter.List {
	t.Helper()
	l, err := deadletter.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t *testing.T, l *deadletter.List, letter deadletter.Letter, want bool) {
	t.Helper()
	got, err := l.Add(letter)
	if err != nil || got != want {
		t.Fatalf("add %+v: got %v %v, want %v", letter, got, err, want)
	}
}

func at(p ps.Partition, o ps.Offset) deadletter.Letter {
	return deadletter.Letter{File: "a.csv", Line: int64(o) + 2, Partition: p, Offset: o, Reason: "the event time is empty"}
}

func TestList(t *testing.T) {
	t.Run("a letter is listed once", func(t *testing.T) {
		l := open(t, deadletter.Config{})
		add(t, l, at(0, 5), true)
		add(t, l, at(1, 5), true)
		add(t, l, at(0, 5), false)
		add(t, l, at(0, 3), true) // a replay from further back
		add(t, l, at(0, 5), false)
		want := []deadletter.Letter{at(0, 5), at(1, 5), at(0, 3)}
		if diff := cmp.Diff(want, l.Letters()); diff != "" || l.Total() != 3 {
			t.Fatalf("total %d, want 3 (-want +got)\n%s", l.Total(), diff)
		}
	})
	t.Run("the newest are kept and all are counted", func(t *testing.T) {
		l := open(t, deadletter.Config{Keep: 2})
		for o := range ps.Offset(5) {
			add(t, l, at(0, o), true)
		}
		if diff := cmp.Diff([]deadletter.Letter{at(0, 3), at(0, 4)}, l.Letters()); diff != "" || l.Total() != 5 {
			t.Fatalf("total %d, want 5 (-want +got)\n%s", l.Total(), diff)
		}
		add(t, l, at(0, 0), false)
	})
	t.Run("beyond what is remembered only higher offsets are new", func(t *testing.T) {
		l := open(t, deadletter.Config{Remember: 2})
		add(t, l, at(0, 5), true)
		add(t, l, at(0, 7), true)
		add(t, l, at(0, 6), false)
		add(t, l, at(0, 9), true)
		add(t, l, at(0, 9), false)
		add(t, l, at(1, 0), true)
		add(t, l, at(1, 0), false)
	})
	t.Run("the file has a line for each, and a new list goes on with it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "letters.jsonl")
		l := open(t, deadletter.Config{Path: path})
		add(t, l, at(0, 5), true)
		add(t, l, at(0, 5), false)
		add(t, l, at(3, 0), true)
		l.Close()
		crash(t, path, `{"file":"a.csv","li`)

		l = open(t, deadletter.Config{Path: path})
		if diff := cmp.Diff([]deadletter.Letter{at(0, 5), at(3, 0)}, l.Letters()); diff != "" || l.Total() != 2 {
			t.Fatalf("total %d, want 2 (-want +got)\n%s", l.Total(), diff)
		}
		add(t, l, at(3, 0), false)
		add(t, l, at(3, 1), true)
		got, err := os.ReadFile(path)
		want := `{"file":"a.csv","line":7,"partition":0,"offset":5,"reason":"the event time is empty"}
{"file":"a.csv","line":2,"partition":3,"offset":0,"reason":"the event time is empty"}
{"file":"a.csv","line":3,"partition":3,"offset":1,"reason":"the event time is empty"}
`
		if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
			t.Fatalf("%v (-want +got)\n%s", err, diff)
		}
		if stat, err := os.Stat(path); err != nil || stat.Mode().Perm() != 0o600 {
			t.Fatalf("got mode %v %v, want 0600", stat.Mode(), err)
		}
	})
	t.Run("a file of something else is refused and left alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notes.txt")
		for _, text := range []string{"my notes\n", "my notes", strings.Repeat("x", 1<<17) + "\n"} {
			crash(t, path, text)
			before, _ := os.ReadFile(path)
			_, err := deadletter.Open(deadletter.Config{Path: path})
			after, _ := os.ReadFile(path)
			if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), path+":1") || string(before) != string(after) {
				t.Fatalf("got %v, file unchanged %v", err, string(before) == string(after))
			}
			os.Remove(path)
		}
	})
	t.Run("long reasons are cut", func(t *testing.T) {
		l := open(t, deadletter.Config{})
		letter := at(0, 1)
		letter.Reason = strings.Repeat("é", 400)
		add(t, l, letter, true)
		if got := l.Letters()[0].Reason; got != strings.Repeat("é", 250)+"…" {
			t.Fatalf("got %q", got)
		}
	})
	t.Run("a letter that cannot be written is listed with an error", func(t *testing.T) {
		l := open(t, deadletter.Config{Path: filepath.Join(t.TempDir(), "letters.jsonl")})
		l.Close()
		if added, err := l.Add(at(0, 1)); !added || !errors.Is(err, os.ErrClosed) || l.Total() != 1 {
			t.Fatalf("got %v %v, total %d", added, err, l.Total())
		}
	})
	t.Run("many may add at once", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "letters.jsonl")
		l := open(t, deadletter.Config{Path: path})
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for o := range ps.Offset(100) {
					if _, err := l.Add(at(0, o)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if again := open(t, deadletter.Config{Path: path}); l.Total() != 100 || again.Total() != 100 {
			t.Fatalf("got %d, in the file %d, want 100", l.Total(), again.Total())
		}
	})
}

// crash appends text to a file as a writer does that is killed.
func crash(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestOf(t *testing.T) {
	e := &worker.Event{Partition: 2, Offset: 7, Line: 9}
	unreadable := &worker.Unreadable{File: "a.csv", Line: 9, Reason: "the event time is empty"}
	for _, test := range []struct {
		err  error
		want deadletter.Letter
	}{
		{fmt.Errorf("read: %w", unreadable), deadletter.Letter{File: "a.csv", Line: 9, Partition: 2, Offset: 7, Reason: "the event time is empty"}},
		{fmt.Errorf("label is no number: %w", worker.ErrUnreadable), deadletter.Letter{Line: 9, Partition: 2, Offset: 7, Reason: "label is no number: unreadable row"}},
	} {
		if diff := cmp.Diff(test.want, deadletter.Of(e, test.err)); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", test.err, diff)
		}
	}
}
