package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/audit"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

const (
	shards = 4
	events = 300
	bad    = 3
)

// open writes a stream of 300 events, three of which cannot be used.
func open(t *testing.T) (*spec.Spec, stream.Source) {
	t.Helper()
	s, err := spec.Parse("test.yaml", []byte(`
model: test
stream: {format: csv, partitions: 2}
label: {column: clicked}
features: [{name: item, column: item}]
evaluation: {holdout: 0.2, window: 40}
`))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("item,clicked\n")
	for i := range events {
		label := fmt.Sprint(i % 2)
		if i%100 == 50 {
			label = "maybe"
		}
		fmt.Fprintf(&b, "i%d,%s\n", i%37, label)
	}
	path := filepath.Join(t.TempDir(), "events.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := files.Open(t.Context(), files.Config{URL: "file://" + path, Stream: s.Stream, Columns: feature.Columns(s)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return s, source
}

// honest returns the progress of shards that applied what they should, up to
// limits of their own.
func honest(t *testing.T, s *spec.Spec, source stream.Source, upTo func(s ps.ShardID, p ps.Partition) ps.Offset) []ps.ShardProgress {
	t.Helper()
	extractor, err := feature.New(s, feature.Columns(s))
	if err != nil {
		t.Fatal(err)
	}
	progress := make([]ps.ShardProgress, shards)
	for i := range progress {
		progress[i] = ps.ShardProgress{Shard: ps.ShardID(i), Partitions: make([]ps.Progress, source.Partitions())}
	}
	reader, err := source.Read(t.Context(), []stream.Start{{Partition: 0}, {Partition: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var event worker.Event
	for reader.Next(t.Context(), &event) == nil {
		var b worker.Batch
		b.Reset(event.Partition, event.Offset, event.Pass)
		_ = extractor.Append(&b, &event)
		counter := contribution.New(shards, s.Evaluation.Window)
		counter.Add(&b, 0, nil)
		for i, count := range counter.Counts() {
			at := &progress[i].Partitions[event.Partition]
			if event.Offset >= upTo(ps.ShardID(i), event.Partition) {
				continue
			}
			at.Applied = event.Offset + 1
			at.Trained += count.Trained
			at.Held += count.Held
			at.Skipped += count.Skipped
			at.Fingerprint.Merge(count.Fingerprint)
		}
	}
	return progress
}

func all(ps.ShardID, ps.Partition) ps.Offset { return events }

func TestWhatWasAppliedOnceIsClean(t *testing.T) {
	s, source := open(t)
	for name, upTo := range map[string]func(ps.ShardID, ps.Partition) ps.Offset{
		"at the end":                        all,
		"with shards at different offsets":  func(s ps.ShardID, p ps.Partition) ps.Offset { return ps.Offset(30*int(s) + 10*int(p)) },
		"before anything has been applied":  func(ps.ShardID, ps.Partition) ps.Offset { return 0 },
		"with one shard that has just come": func(s ps.ShardID, _ ps.Partition) ps.Offset { return ps.Offset(min(int(s), 1) * events) },
	} {
		t.Run(name, func(t *testing.T) {
			report, err := audit.Run(t.Context(), audit.Config{Spec: s, Source: source, Progress: honest(t, s, source, upTo)})
			if err != nil {
				t.Fatal(err)
			}
			if !report.Clean() || len(report.Findings) > 0 {
				t.Errorf("report %+v, want it clean", report)
			}
			if name == "at the end" && (report.Events != events || report.Skipped != bad || report.Shards != shards || report.Partitions != 2) {
				t.Errorf("report %+v, want %d events, %d skipped, %d shards, 2 partitions", report, events, bad, shards)
			}
		})
	}
}

func TestEveryKindOfMistakeIsFound(t *testing.T) {
	s, source := open(t)
	hash := func(o ps.Offset) uint64 { return ps.EventHash(1, o) }
	for name, c := range map[string]struct {
		change        func(*ps.Progress)
		lost, doubled int64
	}{
		"an event lost": {func(p *ps.Progress) {
			p.Trained--
			p.Fingerprint.Count--
			p.Fingerprint.Sum -= hash(7)
			p.Fingerprint.Xor ^= hash(7)
		}, 1, 0},
		"an event doubled": {func(p *ps.Progress) {
			p.Trained++
			p.Fingerprint.Add(hash(7))
		}, 0, 1},
		"one lost and another doubled": {func(p *ps.Progress) {
			p.Fingerprint.Sum += hash(9) - hash(7)
			p.Fingerprint.Xor ^= hash(9) ^ hash(7)
		}, 1, 1},
		"an event applied three times": {func(p *ps.Progress) {
			p.Fingerprint.Add(hash(7))
			p.Fingerprint.Add(hash(7))
		}, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			progress := honest(t, s, source, all)
			c.change(&progress[2].Partitions[1])
			report, err := audit.Run(t.Context(), audit.Config{Spec: s, Source: source, Progress: progress})
			if err != nil {
				t.Fatal(err)
			}
			if report.Lost != c.lost || report.Doubled != c.doubled || report.Clean() {
				t.Errorf("report %+v, want %d lost and %d doubled", report, c.lost, c.doubled)
			}
			if len(report.Findings) != 1 || !strings.HasPrefix(report.Findings[0], "shard 2, partition 1") {
				t.Errorf("findings %q, want one about shard 2, partition 1", report.Findings)
			}
		})
	}
}

func TestAnotherStreamIsRefused(t *testing.T) {
	s, source := open(t)
	t.Run("one that is shorter than what was applied", func(t *testing.T) {
		progress := honest(t, s, source, all)
		progress[0].Partitions[0].Applied = 10 * events
		if _, err := audit.Run(t.Context(), audit.Config{Spec: s, Source: source, Progress: progress}); !errors.Is(err, ps.ErrModelMismatch) {
			t.Errorf("got %v, want ErrModelMismatch", err)
		}
	})
	t.Run("one of another number of partitions", func(t *testing.T) {
		progress := honest(t, s, source, all)
		progress[1].Partitions = progress[1].Partitions[:1]
		if _, err := audit.Run(t.Context(), audit.Config{Spec: s, Source: source, Progress: progress}); !errors.Is(err, ps.ErrModelMismatch) {
			t.Errorf("got %v, want ErrModelMismatch", err)
		}
	})
}

// leaky is a stream that leaves out one event of partition 1.
type leaky struct {
	stream.Source
	offset ps.Offset
}

func (l leaky) Read(ctx context.Context, starts []stream.Start) (stream.Reader, error) {
	reader, err := l.Source.Read(ctx, starts)
	return leakyReader{reader, l.offset}, err
}

type leakyReader struct {
	stream.Reader
	offset ps.Offset
}

func (r leakyReader) Next(ctx context.Context, e *worker.Event) error {
	err := r.Reader.Next(ctx, e)
	if err == nil && e.Partition == 1 && e.Offset == r.offset {
		return r.Reader.Next(ctx, e)
	}
	return err
}

func TestAStreamThatLeavesOutAnEventIsNoWitness(t *testing.T) {
	s, source := open(t)
	progress := honest(t, s, source, all)
	for _, offset := range []ps.Offset{0, 17} {
		_, err := audit.Run(t.Context(), audit.Config{Spec: s, Source: leaky{source, offset}, Progress: progress})
		if !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("without offset %d the audit said %v, want ErrCorrupt", offset, err)
		}
	}
}
