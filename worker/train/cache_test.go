package train_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/train"
)

// counted counts how many events are read from a stream.
type counted struct {
	stream.Source
	events *int
}

func (c counted) Read(ctx context.Context, starts []stream.Start) (stream.Reader, error) {
	reader, err := c.Source.Read(ctx, starts)
	return countedReader{reader, c.events}, err
}

type countedReader struct {
	stream.Reader
	events *int
}

func (r countedReader) Next(ctx context.Context, e *worker.Event) error {
	err := r.Reader.Next(ctx, e)
	if err == nil {
		*r.events++
	}
	return err
}

// learnCached learns with a cache, and returns how many events were read from the stream
// and how many were skipped.
func learnCached(t *testing.T, f *fixture, dir string) (read, skipped int) {
	t.Helper()
	ownership := make(assigned, 1)
	ownership <- all(1, 1)
	trainer, err := train.New(train.Config{
		Model: f.model, Spec: f.spec, Source: counted{f.source, &read}, Params: f.params, Ownership: ownership, Cache: dir,
		Skipped: func(_ *worker.Event, reason error) {
			if !errors.Is(reason, worker.ErrUnreadable) {
				t.Errorf("skipped because of %v, want ErrUnreadable", reason)
			}
			skipped++
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := until(t, trainer, func() bool { return finished(trainer) == f.model.Partitions }); err != nil {
		t.Fatal(err)
	}
	return read, skipped
}

// caches returns the files of a cache.
func caches(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestOtherPassesAreReadFromTheCache(t *testing.T) {
	f := newFixture(t, strings.Replace(testSpec, "partitions: 3", "partitions: 3, passes: 3", 1), 2000)
	dir := t.TempDir()
	read, _ := learnCached(t, f, dir)
	if read != f.events+1 { // and the first of the second pass
		t.Errorf("%d events were read from the stream of %d", read, f.events)
	}
	f.events, f.bad = 3*f.events, 3*f.bad
	f.check(t)
	if found := caches(t, dir); len(found) != 3 {
		t.Errorf("the directory holds %q, want a file per partition", found)
	}
}

func TestAnotherModelOfTheSameFeaturesReadsTheCache(t *testing.T) {
	f, dir := newFixture(t, testSpec, 2000), t.TempDir()
	if read, skipped := learnCached(t, f, dir); read != f.events || skipped != f.bad {
		t.Errorf("first: %d events read and %d skipped, want %d and %d", read, skipped, f.events, f.bad)
	}
	f.check(t)
	f.params = newMemory(t, f.model)
	if read, skipped := learnCached(t, f, dir); read != 0 || skipped != f.bad {
		t.Errorf("again: %d events read and %d skipped, want 0 and %d", read, skipped, f.bad)
	}
	f.check(t)
	for s := range f.params.shards { // a shard that begins anew is taught from the cache
		if s%2 == 1 {
			f.params.restart(ps.ShardID(s))
		}
	}
	if read, _ := learnCached(t, f, dir); read != 0 {
		t.Errorf("replay: %d events read, want 0", read)
	}
	f.check(t)
}

func TestADamagedCacheIsRemovedAndTheStreamIsRead(t *testing.T) {
	for name, damage := range map[string]func(text []byte) []byte{
		"within":           func(text []byte) []byte { text[len(text)/2] ^= 1; return text },
		"at the beginning": func(text []byte) []byte { text[20] ^= 1; return text },
		"torn":             func(text []byte) []byte { return text[:len(text)/3] },
		"empty":            func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f, dir := newFixture(t, testSpec, 3000), t.TempDir()
			learnCached(t, f, dir)
			path := caches(t, dir)[1]
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f.params = newMemory(t, f.model)
			if read, _ := learnCached(t, f, dir); read == 0 {
				t.Error("the stream was not read")
			}
			f.check(t)
		})
	}
}

func TestACacheThatCannotBeWrittenIsDoneWithout(t *testing.T) {
	f := newFixture(t, testSpec, 500)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	learnCached(t, f, path) // it is no directory
	f.check(t)
}
