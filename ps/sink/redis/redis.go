// Package redis writes a model's rows to a Redis server, as a sink's target.
//
// A row is a string: its key made by a template, its value the weights as bytes or as
// JSON. Beside them there is one hash for each model, the positions: how far each shard
// is, and in which form its rows were written. Rows that are there are set, never
// deleted, and get no expiry.
//
// Redis may be emptied or set back at any time, as where it does not persist: a mark in that
// hash shows it, and the sink begins anew. It shows a second sink as well.
//
// The one idea to keep in mind: rows are set first, and positions when Redis has
// confirmed all of them. Nothing is in a transaction, so no large one ever holds other
// clients up; what a crash leaves half written is written again.
//
// One server is written to, or what behaves as one: in a Redis Cluster the keys of one
// MSET would be on several.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/sink"
)

// Config is what a target needs.
type Config struct {
	// URL is redis://[user:password@]host:port[/database], rediss:// with TLS, or
	// host:port.
	URL string
	// Key is the template of a row's key (see ParseTemplate).
	Key string
	// Value is what a row's value looks like.
	Value Value
	// Positions is the template of the key of the positions; only {model} may be in it.
	Positions string
	// Model, Tables and Shards are the sink's.
	Model  ps.Model
	Tables []ps.TableID
	Shards int
}

const (
	// A MSET sets about this many bytes: enough for the cost of a command to vanish, and
	// for other clients to have their turn within a fraction of a millisecond.
	commandBytes = 32 << 10
	// replyMax bounds the wait for Redis to take or answer a megabyte of commands.
	replyMax = 10 * time.Second
)

// Target is a sink.Target. It must be closed.
type Target struct {
	config Config
	client *goredis.Client
	row    *Template
	at     string // key of the positions
	form   string

	// Of mark: who writes, and how often it has written positions.
	name   string
	writes uint64

	keys   []byte // of the commands of one Write
	values []byte
}

// mark is the value of markField as this target has left it.
func (t *Target) mark() string { return fmt.Sprintf("%s %d", t.name, t.writes) }

// New returns a target; its first call connects. It wraps ps.ErrInvalid, naming what is
// wrong.
func New(config Config) (*Target, error) {
	options, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	t := &Target{config: config, name: rand.Text()}
	if t.row, err = ParseTemplate(config.Key); err != nil {
		return nil, err
	}
	if err := t.row.distinguishes(len(config.Tables)); err != nil {
		return nil, err
	}
	positions, err := ParseTemplate(config.Positions)
	if err != nil {
		return nil, err
	}
	if positions.has(table) || positions.has(decimal) || positions.has(hexadecimal) {
		return nil, fmt.Errorf("template %q of the positions' key: only {model} may be in it: %w", config.Positions, ps.ErrInvalid)
	}
	t.at = string(positions.append(nil, config.Model.Name, "", 0))
	if t.form, err = formOf(config); err != nil {
		return nil, err
	}
	logging.Disable() // of the library, which writes to stderr what its errors say too
	t.client = goredis.NewClient(options)
	return t, nil
}

// parseURL returns how to connect. The address may hold a password, so it is in no error.
func parseURL(address string) (*goredis.Options, error) {
	if !strings.Contains(address, "://") {
		address = "redis://" + address
	}
	options, err := goredis.ParseURL(address)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("address of Redis: %w: want redis://[user:password@]host:port[/database], rediss:// for TLS, or host:port: %w", err, ps.ErrInvalid)
	}
	// Whoever calls tries again, and says so; nothing is asked of the server but commands
	// that every version of it knows.
	options.MaxRetries, options.DialerRetries = -1, 1
	options.Protocol, options.DisableIdentity = 2, true
	options.PoolSize = 1 // a sink writes one batch at a time
	options.ReadTimeout, options.WriteTimeout = replyMax, replyMax
	options.ContextTimeoutEnabled = true
	return options, nil
}

// formOf describes everything that rows written earlier have to share with those written
// now for their positions to count.
func formOf(c Config) (string, error) {
	var names []string
	for _, id := range c.Tables {
		names = append(names, c.Model.Layout.Tables[id].Name)
	}
	doc, err := json.Marshal(struct {
		Key    string      `json:"key"`
		Value  string      `json:"value"`
		Tables []string    `json:"tables"`
		Layout string      `json:"layout"`
		Stream ps.StreamID `json:"stream"`
		Shards int         `json:"shards"`
	}{c.Key, c.Value.String(), names, strconv.FormatUint(c.Model.Layout.Hash(), 16), c.Model.Stream, c.Shards})
	return string(doc), err
}

// Fields of the positions' hash; the others are numbers of shards.
const (
	formField = "form" // of the rows
	// markField changes with every write of positions. If it is not what was written last,
	// Redis was emptied or set back to an older state, or somebody else writes.
	markField = "sink"
)

// PositionsKey returns the key of the positions, whose deletion makes the next sink write
// every row.
func (t *Target) PositionsKey() string { return t.at }

// Close ends the connection.
func (t *Target) Close() error { return t.client.Close() }

// Positions is what sink.Target says.
func (t *Target) Positions(ctx context.Context) (map[ps.ShardID]sink.Position, error) {
	fields, err := t.client.HGetAll(ctx, t.at).Result()
	if err != nil {
		return nil, t.failed("read "+t.at, err)
	}
	t.writes = 0
	known := fields[formField] == t.form
	_, err = t.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		if !known {
			p.Del(ctx, t.at)
		}
		p.HSet(ctx, t.at, formField, t.form, markField, t.mark())
		return nil
	})
	if err != nil {
		return nil, t.failed("begin "+t.at, err)
	}
	if !known {
		return nil, nil
	}
	delete(fields, markField)
	delete(fields, formField)
	positions := make(map[ps.ShardID]sink.Position, len(fields))
	for field, value := range fields {
		shard, err := strconv.ParseUint(field, 10, 32)
		var at sink.Position
		if err == nil {
			err = json.Unmarshal([]byte(value), &at)
		}
		if err != nil {
			return nil, fmt.Errorf("position %q of shard %q in %s of Redis at %s: %w: delete the key to have all rows written again: %w",
				value, field, t.at, t.client.Options().Addr, err, ps.ErrInvalid)
		}
		positions[ps.ShardID(shard)] = at
	}
	return positions, nil
}

// Write is what sink.Target says.
func (t *Target) Write(ctx context.Context, b *sink.Batch) error {
	if err := t.writeRows(ctx, b); err != nil {
		return err
	}
	if len(b.Positions) == 0 {
		return nil
	}
	t.writes++ // also if it fails: it may have been done
	fields := append(make([]any, 0, 2*len(b.Positions)+2), markField, t.mark())
	for shard, at := range b.Positions {
		doc, err := json.Marshal(at)
		if err != nil {
			return err
		}
		fields = append(fields, strconv.FormatUint(uint64(shard), 10), doc)
	}
	if err := t.client.HSet(ctx, t.at, fields...).Err(); err != nil {
		return t.failed("write positions to "+t.at, err)
	}
	return nil
}

// writeRows sets the batch's rows and waits until Redis has confirmed all of them, and
// that it is where it was left.
func (t *Target) writeRows(ctx context.Context, b *sink.Batch) error {
	t.keys, t.values = t.keys[:0], t.values[:0]
	pipeline := t.client.Pipeline()
	found := pipeline.HGet(ctx, t.at, markField)
	var set []any
	size := 0
	end := func() {
		if len(set) > 0 {
			pipeline.MSet(ctx, set...)
			set, size = make([]any, 0, len(set)), 0
		}
	}
	for row := range b.Rows {
		at := len(t.keys)
		t.keys = t.row.append(t.keys, t.config.Model.Name, t.config.Model.Layout.Tables[row.Table].Name, row.Key)
		value := row.Weights
		if t.config.Value == JSON {
			at := len(t.values)
			t.values = appendJSON(t.values, row.Weights)
			value = t.values[at:]
		}
		set = append(set, t.keys[at:], value)
		if size += len(t.keys) - at + len(value); size >= commandBytes {
			end()
		}
	}
	end()
	if _, err := pipeline.Exec(ctx); err != nil && !errors.Is(err, goredis.Nil) {
		return t.failed("write rows", err)
	}
	return t.left(found.Val())
}

// left reports a mark that is not the one which was written last.
func (t *Target) left(mark string) error {
	name, _, _ := strings.Cut(mark, " ")
	switch {
	case mark == t.mark():
		return nil
	case mark == "" || name == t.name:
		return fmt.Errorf("the mark in %s of Redis at %s is %q, not %q: %w", t.at, t.client.Options().Addr, mark, t.mark(), sink.ErrLost)
	}
	return fmt.Errorf("another sink writes to %s of Redis at %s, or Redis was set back to before this one: stop one of them, or start this one again: %w",
		t.at, t.client.Options().Addr, ps.ErrConflict)
}

// passing are the beginnings of replies that another try may not get.
var passing = []string{
	"LOADING", "OOM", "READONLY", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "EXECABORT",
	"ERR max number of clients",
}

// failed says what was being done, and whether it may succeed later: a reply of Redis
// that is not among passing is final, everything else is the connection's.
func (t *Target) failed(what string, err error) error {
	sentinel := ps.ErrUnavailable
	var reply goredis.Error
	if errors.As(err, &reply) {
		sentinel = ps.ErrInvalid
		for _, begin := range passing {
			if strings.HasPrefix(reply.Error(), begin) {
				sentinel = ps.ErrUnavailable
			}
		}
	}
	return fmt.Errorf("%s: Redis at %s: %w: %w", what, t.client.Options().Addr, err, sentinel)
}
