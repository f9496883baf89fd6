package kafka

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/freshet-ml/freshet/ps"
)

// SendConfig says what is sent where.
type SendConfig struct {
	// URL is the topic's, which has to be there, and Auth how its brokers are reached.
	URL  string
	Auth Auth
	// Key is the column whose text chooses a row's partition, as Kafka hashes keys; empty
	// spreads rows in turn.
	Key string
	// Sent, if not nil, is told now and then how many rows brokers have.
	Sent func(rows int64)
}

// deliverMax is how long brokers may be away before what waits for them is given up.
const deliverMax = time.Minute

// sentEvery is how many rows are between two calls of Sent.
const sentEvery = 10_000

// Send sends the rows of a CSV file with a header as JSON objects of texts; empty ones are
// left out. Rows of one partition are in their order, once each, also where brokers fail
// meanwhile. It returns how many brokers have acknowledged. The error wraps ps.ErrInvalid for
// a configuration or a file that cannot be one, else ps.ErrUnavailable.
func Send(ctx context.Context, c SendConfig, from io.Reader) (rows int64, err error) {
	brokers, topic, err := parse(c.URL)
	if err != nil {
		return 0, err
	}
	options, err := c.Auth.options()
	if err != nil {
		return 0, err
	}
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers...), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(5*time.Millisecond), kgo.RecordDeliveryTimeout(deliverMax))...)
	if err != nil {
		return 0, fmt.Errorf("send to %s: %w: %w", c.URL, ps.ErrInvalid, err)
	}
	defer client.Close()
	asking, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	if err := client.Ping(asking); err != nil {
		return 0, fmt.Errorf("send to %s: no broker answers: %w: %w", c.URL, ps.ErrUnavailable, err)
	}
	table := csv.NewReader(from)
	table.ReuseRecord = true
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the file is empty: a header with the names of the columns has to be its first line: %w", ps.ErrInvalid)
	}
	if err != nil {
		return 0, fmt.Errorf("header: %w: %w", ps.ErrInvalid, err)
	}
	header = slices.Clone(header)
	key := slices.Index(header, c.Key)
	if c.Key != "" && key < 0 {
		return 0, fmt.Errorf("there is no column %q: the header has %s: %w", c.Key, strings.Join(header, ", "), ps.ErrInvalid)
	}
	var sent atomic.Int64
	var once sync.Once
	var failed error // the first; read behind Flush
	for line := 2; ; line++ {
		row, err := table.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sent.Load(), errors.Join(fmt.Errorf("%w: %w", ps.ErrInvalid, err), client.Flush(ctx))
		}
		object := make(map[string]string, len(row))
		for i, text := range row {
			if text != "" {
				object[header[i]] = text
			}
		}
		value, err := json.Marshal(object)
		if err != nil {
			return sent.Load(), fmt.Errorf("line %d: %w", line, err)
		}
		record := &kgo.Record{Value: value}
		if key >= 0 {
			record.Key = []byte(row[key])
		}
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
				return
			}
			if n := sent.Add(1); c.Sent != nil && n%sentEvery == 0 {
				c.Sent(n)
			}
		})
		if err := ctx.Err(); err != nil {
			return sent.Load(), err
		}
	}
	if err := client.Flush(ctx); err != nil {
		return sent.Load(), err
	}
	if failed != nil {
		return sent.Load(), fmt.Errorf("send to %s: %w: %w", c.URL, ps.ErrUnavailable, failed)
	}
	return sent.Load(), nil
}
