package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/kafka"
)

// broker is a Kafka in this process, with a topic.
type broker struct {
	t       *testing.T
	cluster *kfake.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

const topic = "clicks"

func newBroker(t *testing.T, partitions int32) *broker {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &broker{t: t, cluster: c}
	b.client = b.dial()
	b.admin = kadm.NewClient(b.client)
	return b
}

func (b *broker) dial(options ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(b.cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(client.Close)
	return client
}

func (b *broker) send(client *kgo.Client, partition int32, values ...string) {
	b.t.Helper()
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v), Timestamp: time.UnixMilli(1_700_000_000_000)}
		if err := client.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *broker) config() kafka.Config {
	return kafka.Config{
		URL:     "kafka://" + strings.Join(b.cluster.ListenAddrs(), ",") + "/" + topic,
		Stream:  spec.Stream{Format: spec.JSON, Identifiers: []string{"user"}},
		Columns: []string{"user", "item", "price", "clicked"},
		Secret:  []byte("a secret of at least sixteen bytes"),
	}
}

func open(t *testing.T, c kafka.Config) *kafka.Source {
	t.Helper()
	s, err := kafka.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func read(t *testing.T, s stream.Source, starts ...stream.Start) stream.Reader {
	t.Helper()
	r, err := s.Read(t.Context(), starts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func all(n int) (starts []stream.Start) {
	for p := range n {
		starts = append(starts, stream.Start{Partition: ps.Partition(p)})
	}
	return starts
}

// next returns the next n events as texts, and waits for them.
func next(t *testing.T, r stream.Reader, n int) (events []string) {
	t.Helper()
	late := time.Now().Add(20 * time.Second)
	var e worker.Event
	for len(events) < n {
		err := r.Next(t.Context(), &e)
		switch {
		case errors.Is(err, stream.ErrIdle) && time.Now().Before(late):
			continue
		case err != nil:
			t.Fatalf("after %d of %d events: %v", len(events), n, err)
		}
		events = append(events, text(e))
	}
	return events
}

// text is an event as tests compare it.
func text(e worker.Event) string {
	at := fmt.Sprintf("%d@%d", e.Partition, e.Offset)
	switch {
	case errors.Is(e.Err, worker.ErrAbsent):
		return at + " absent"
	case errors.Is(e.Err, worker.ErrUnreadable):
		return at + " unreadable"
	case e.Err != nil:
		return at + " " + e.Err.Error()
	}
	for i, c := range e.Columns {
		if c == nil {
			at += " -"
			continue
		}
		if i == 0 && len(c) == 32 {
			c = []byte("masked")
		}
		at += " " + string(c)
	}
	return at
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRecordsAreEventsInTheOrderOfTheirPartition(t *testing.T) {
	b := newBroker(t, 2)
	b.send(b.client, 0, `{"user":"u1","item":"i1","price":1.50,"clicked":true}`, `{"clicked":0,"item":"\u00e4\n","other":[1]}`, `{"user":"","price":null}`)
	b.send(b.client, 0, `no object`, `{"item":{"a":1}}`, `[1]`, `{"price":-1e3,"item":"last"}`)
	s := open(t, b.config())
	if s.Partitions() != 2 || s.Size() != 7 {
		t.Errorf("%d partitions and %d events, want 2 and 7", s.Partitions(), s.Size())
	}
	r := read(t, s, all(2)...)
	check(t, next(t, r, 7),
		"0@0 masked i1 1.50 1", "0@1 - ä\n - 0", "0@2  - - -", "0@3 unreadable", "0@4 unreadable", "0@5 unreadable", "0@6 - last -1e3 -")
	var e worker.Event
	if err := r.Next(t.Context(), &e); !errors.Is(err, stream.ErrIdle) {
		t.Errorf("behind the last event: %v, want ErrIdle", err)
	}
	b.send(b.client, 1, `{"item":"new"}`)
	check(t, next(t, r, 1), "1@0 - new - -")
	if _, known := r.End(1); known {
		t.Error("a stream that grows has an end")
	}
	// Again, from the middle.
	check(t, next(t, read(t, s, stream.Start{Partition: 0, Offset: 5}), 2), "0@5 unreadable", "0@6 - last -1e3 -")
	newest := read(t, s, all(2)...).(stream.Growing)
	if at, known := newest.Newest(0); !known || at != 7 {
		t.Errorf("partition 0 is known (%v) to go to %d, want 7", known, at)
	}
}

func TestABoundedStreamEndsAtWhatWasThere(t *testing.T) {
	b := newBroker(t, 2)
	b.send(b.client, 1, `{"item":"a"}`, `{"item":"b"}`)
	c := b.config()
	c.Bounded = true
	s := open(t, c)
	r := read(t, s, all(2)...)
	b.send(b.client, 1, `{"item":"too late"}`)
	check(t, next(t, r, 2), "1@0 - a - -", "1@1 - b - -")
	var e worker.Event
	if err := r.Next(t.Context(), &e); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v, want EOF", err)
	}
	for p, want := range []ps.Offset{0, 2} {
		if end, known := r.End(ps.Partition(p)); !known || end != want {
			t.Errorf("partition %d ends at %d (%v), want %d", p, end, known, want)
		}
	}
	// Whoever begins later ends there, too.
	check(t, next(t, read(t, s, stream.Start{Partition: 1, Offset: 1}), 1), "1@1 - b - -")
}

func TestOffsetsWithoutARecordAreEventsThatAreAbsent(t *testing.T) {
	b := newBroker(t, 1)
	b.send(b.client, 0, `{"item":"before"}`)
	producer := b.dial(kgo.TransactionalID("shop"))
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		b.send(producer, 0, `{"item":"x"}`, `{"item":"y"}`)
		if err := producer.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	b.send(b.client, 0, `{"item":"after"}`)
	c := b.config()
	c.Bounded = true
	r := read(t, open(t, c), all(1)...)
	check(t, next(t, r, 8), "0@0 - before - -", "0@1 absent", "0@2 absent", "0@3 absent", "0@4 - x - -", "0@5 - y - -", "0@6 absent", "0@7 - after - -")
	var e worker.Event
	if err := r.Next(t.Context(), &e); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v, want EOF", err)
	}
}

func TestAnOpenTransactionIsNotReadYet(t *testing.T) {
	b := newBroker(t, 1)
	producer := b.dial(kgo.TransactionalID("shop"))
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	b.send(producer, 0, `{"item":"x"}`)
	r := read(t, open(t, b.config()), all(1)...)
	var e worker.Event
	for range 20 {
		if err := r.Next(t.Context(), &e); !errors.Is(err, stream.ErrIdle) {
			t.Fatalf("while the transaction is open: %v and %s, want ErrIdle", err, text(e))
		}
	}
	if err := producer.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	check(t, next(t, r, 1), "0@0 - x - -")
}

func TestAStreamBeginsWhereItIsSaid(t *testing.T) {
	b := newBroker(t, 2)
	b.send(b.client, 0, `{"item":"a"}`, `{"item":"b"}`, `{"item":"c"}`)
	if _, err := b.admin.DeleteRecords(t.Context(), kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 1}}}); err != nil {
		t.Fatal(err)
	}
	c := b.config()
	first := open(t, c) // earliest
	check(t, next(t, read(t, first, all(2)...), 2), "0@0 - b - -", "0@1 - c - -")
	c.From = "latest"
	latest := open(t, c)
	b.send(b.client, 0, `{"item":"d"}`)
	check(t, next(t, read(t, latest, all(2)...), 1), "0@0 - d - -")
	if first.Identity() == latest.Identity() {
		t.Error("streams that begin at other places have the same identity")
	}
	// Whoever knows the identity begins there, whatever From says.
	c.Known = first.Identity()
	again := open(t, c)
	if again.Identity() != first.Identity() {
		t.Errorf("opened again it is %s, want %s", again.Identity(), first.Identity())
	}
	check(t, next(t, read(t, again, stream.Start{Partition: 0, Offset: 1}), 2), "0@1 - c - -", "0@2 - d - -")

	c = b.config()
	for _, from := range []string{"-1h", "2020-01-01T00:00:00Z"} {
		c.From = from // records are of 2023
		s := open(t, c)
		if from == "2020-01-01T00:00:00Z" {
			check(t, next(t, read(t, s, all(2)...), 1), "0@0 - b - -")
		}
	}
	c.From = "yesterday"
	if _, err := kafka.Open(t.Context(), c); !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), "-24h") {
		t.Errorf("from yesterday: %v, want ErrInvalid with what may be given", err)
	}
}

func TestNothingIsEverPassedOver(t *testing.T) {
	b := newBroker(t, 1)
	b.send(b.client, 0, `{"item":"a"}`, `{"item":"b"}`, `{"item":"c"}`)
	s := open(t, b.config())
	t.Run("what retention has removed", func(t *testing.T) {
		if _, err := b.admin.DeleteRecords(t.Context(), kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 2}}}); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read(t.Context(), []stream.Start{{Partition: 0, Offset: 1}})
		if !errors.Is(err, ps.ErrModelMismatch) || !strings.Contains(err.Error(), "begins at 2 and ends at 3") || !strings.Contains(err.Error(), "retention") {
			t.Errorf("a read of what is gone: %v, want where the log begins and what to do", err)
		}
		check(t, next(t, read(t, s, stream.Start{Partition: 0, Offset: 2}), 1), "0@2 - c - -")
	})
	t.Run("a log that ends before what was learned", func(t *testing.T) {
		_, err := s.Read(t.Context(), []stream.Start{{Partition: 0, Offset: 9}})
		if !errors.Is(err, ps.ErrModelMismatch) || !strings.Contains(err.Error(), "truncated") {
			t.Errorf("a read behind the end: %v, want ErrModelMismatch", err)
		}
	})
	t.Run("a topic that has grown is read as it was", func(t *testing.T) {
		if _, err := b.admin.UpdatePartitions(t.Context(), 3, topic); err != nil {
			t.Fatal(err)
		}
		c := b.config()
		c.Known = s.Identity()
		if grown := open(t, c); grown.Partitions() != 1 {
			t.Errorf("%d partitions are read, want the 1 that the model has", grown.Partitions())
		}
	})
	t.Run("a topic that was made anew", func(t *testing.T) {
		r := read(t, s, stream.Start{Partition: 0, Offset: 3})
		if _, err := b.admin.DeleteTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		if _, err := b.admin.CreateTopics(t.Context(), 3, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		b.send(b.dial(), 0, `{"item":"other"}`, `{"item":"other"}`, `{"item":"other"}`, `{"item":"other"}`, `{"item":"other"}`)
		c := b.config()
		c.Known = s.Identity()
		if _, err := kafka.Open(t.Context(), c); !errors.Is(err, ps.ErrModelMismatch) || !strings.Contains(err.Error(), "made anew") {
			t.Errorf("opened again: %v, want ErrModelMismatch", err)
		}
		var e worker.Event
		late := time.Now().Add(20 * time.Second)
		for {
			err := r.Next(t.Context(), &e)
			if errors.Is(err, stream.ErrIdle) && time.Now().Before(late) {
				continue
			}
			if err == nil {
				t.Fatalf("an event of the new topic is taken for one of the old: %s", text(e))
			}
			if errors.Is(err, stream.ErrIdle) {
				t.Fatal("a reader does not see that the topic was made anew")
			}
			break
		}
	})
}

func TestABrokerThatIsAwayForAWhileIsWaitedFor(t *testing.T) {
	b := newBroker(t, 1)
	b.send(b.client, 0, `{"item":"a"}`)
	r := read(t, open(t, b.config()), all(1)...)
	check(t, next(t, r, 1), "0@0 - a - -")
	var away atomic.Bool
	away.Store(true)
	b.cluster.ControlKey(1, func(req kmsg.Request) (kmsg.Response, error, bool) { // fetches
		b.cluster.KeepControl()
		if !away.Load() {
			return nil, nil, false
		}
		return nil, errors.New("broken pipe"), true
	})
	var e worker.Event
	for range 50 {
		if err := r.Next(t.Context(), &e); !errors.Is(err, stream.ErrIdle) {
			t.Fatalf("while the broker is away: %v, want ErrIdle", err)
		}
	}
	away.Store(false)
	b.send(b.client, 0, `{"item":"b"}`)
	check(t, next(t, r, 1), "0@1 - b - -")
}

func TestWhatCannotBeAStreamIsRefused(t *testing.T) {
	b := newBroker(t, 1)
	for what, change := range map[string]func(*kafka.Config){
		"no topic":                  func(c *kafka.Config) { c.URL = "kafka://127.0.0.1:9092" },
		"another scheme":            func(c *kafka.Config) { c.URL = "file:///a" },
		"a password in the URL":     func(c *kafka.Config) { c.URL = "kafka://me:secret@127.0.0.1:9092/t" },
		"another format":            func(c *kafka.Config) { c.Stream.Format = spec.CSV },
		"identifiers and no secret": func(c *kafka.Config) { c.Secret = nil },
		"a mechanism nobody knows":  func(c *kafka.Config) { c.Auth = kafka.Auth{Mechanism: "trust", PasswordFile: "/dev/null"} },
	} {
		c := b.config()
		change(&c)
		if _, err := kafka.Open(t.Context(), c); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", what, err)
		}
	}
	c := b.config()
	c.URL = strings.Replace(c.URL, topic, "nobodys", 1)
	if _, err := kafka.Open(t.Context(), c); !errors.Is(err, ps.ErrUnavailable) || !strings.Contains(err.Error(), "nobodys") {
		t.Errorf("a topic that is not there: %v, want ErrUnavailable with its name", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c.URL = "kafka://127.0.0.1:1/clicks"
	if _, err := kafka.Open(ctx, c); !errors.Is(err, ps.ErrUnavailable) {
		t.Errorf("no broker: %v, want ErrUnavailable", err)
	}
	s := open(t, b.config())
	known := b.config()
	known.Known, known.Secret = s.Identity(), []byte("another secret of sixteen bytes")
	if _, err := kafka.Open(t.Context(), known); !errors.Is(err, ps.ErrModelMismatch) || !strings.Contains(err.Error(), "secret") {
		t.Errorf("another secret: %v, want ErrModelMismatch", err)
	}
}
