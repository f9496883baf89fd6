// Package kafka reads behaviour streams from a topic of Kafka: a partition of the topic is one
// of the stream, and a record, whose value is a JSON object, is an event.
//
// The one idea to keep in mind: an offset here is the log's less the base of its partition,
// which is where in the log the stream begins. Bases are part of the stream's identity, which
// a cluster stores with the model; so every model's stream begins at 0, wherever its log does,
// and whoever opens the stream again begins where all others do.
//
// Invariants: every offset below what was read is an event, also one that has no record any
// more (a transaction's marker, a record of an aborted one, what compaction took); and nothing
// is ever passed over because a log has lost it.
package kafka

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// Scheme is that of the URLs of topics: kafka://broker:9092,broker:9092/topic.
const Scheme = "kafka"

// readVersion is that of the rules by which values become events. It is part of every
// identity.
const readVersion = 1

// Config says which topic is read and how.
type Config struct {
	// URL is kafka://host:port,host:port/topic.
	URL string
	// Stream is the spec's part about the stream; its Source is not read. Format must be
	// spec.JSON.
	Stream spec.Stream
	// Columns are what events carry, in this order: members of the objects.
	Columns []string
	// Secret masks Stream.Identifiers; it is needed only if there are any.
	Secret []byte
	// Known, if not empty, is the identity of the stream as a model has it: the topic has to
	// be that one still, and offsets count from where it says. Otherwise the stream begins
	// at From.
	Known ps.StreamID
	// From is "earliest", "latest", a time ago such as "-24h", or a time as RFC 3339 has it.
	// Default: earliest.
	From string
	// Bounded makes readers end at what is in the topic when the first of them begins.
	Bounded bool
	// Auth is how brokers are reached and who they are told asks.
	Auth Auth
	// Logger is told of brokers that do not answer and partitions that are not read.
	// Default: discarded.
	Logger *slog.Logger
}

// Source is a topic as a behaviour stream. It implements stream.Source.
type Source struct {
	config   Config
	brokers  []string
	topic    string
	options  []kgo.Opt
	client   *kgo.Client // for what is asked about the topic
	admin    *kadm.Client
	identity identity

	mu   sync.Mutex
	ends []ps.Offset // guarded by mu; of a bounded stream, once the first reader has begun
}

var _ stream.Source = (*Source)(nil)

// askMax bounds what a broker is waited for when it is asked about the topic.
const askMax = 10 * time.Second

// Open finds the topic. Errors wrap ps.ErrInvalid if the configuration cannot be one,
// ps.ErrUnavailable if no broker answers or there is no such topic, and ps.ErrModelMismatch
// if Known is of another topic, one of the same name that was made anew among them.
func Open(ctx context.Context, config Config) (*Source, error) {
	s := &Source{config: config}
	if s.config.Logger == nil {
		s.config.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.brokers, s.topic, err = parse(config.URL); err != nil {
		return nil, err
	}
	if config.Stream.Format != spec.JSON {
		return nil, fmt.Errorf("stream %s: format %q: of a topic it has to be %s: %w", config.URL, config.Stream.Format, spec.JSON, ps.ErrInvalid)
	}
	if s.options, err = config.Auth.options(); err != nil {
		return nil, err
	}
	s.options = append(s.options, kgo.SeedBrokers(s.brokers...), kgo.ClientID("freshet"), kgo.WithLogger(logger{s.config.Logger}))
	if s.client, err = kgo.NewClient(s.options...); err != nil {
		return nil, fmt.Errorf("stream %s: %w: %w", config.URL, ps.ErrInvalid, err)
	}
	s.admin = kadm.NewClient(s.client)
	if err := s.identify(ctx); err != nil {
		s.client.Close()
		return nil, err
	}
	return s, nil
}

// parse returns what a URL names.
func parse(text string) (brokers []string, topic string, err error) {
	rest, isKafka := strings.CutPrefix(text, Scheme+"://")
	hosts, topic, _ := strings.Cut(rest, "/")
	if topic, err = url.PathUnescape(topic); err != nil || !isKafka || hosts == "" || topic == "" || strings.ContainsAny(topic, "/?#") {
		return nil, "", fmt.Errorf("source %q: want kafka://host:port,host:port/topic: %w", text, ps.ErrInvalid)
	}
	brokers = strings.Split(hosts, ",")
	if slices.Contains(brokers, "") || strings.Contains(hosts, "@") {
		return nil, "", fmt.Errorf("source %q: want host:port of brokers, separated by commas, and no user: %w", text, ps.ErrInvalid)
	}
	return brokers, topic, nil
}

// identity is what makes a stream the one it is.
type identity struct {
	cluster string
	topic   string
	id      string // of the topic
	options string // hash
	bases   []int64
	secret  string // digits that tell secrets apart; empty where nothing is masked
}

// What follows secretMark in an identity tells which secret masked the identifiers, as in
// those of files (see files.MaskedBy).
const (
	secretMark   = "/"
	secretDigits = 8
)

// streamID returns the identity as it is stored.
func (i identity) streamID() ps.StreamID {
	bases := make([]string, len(i.bases))
	for p, b := range i.bases {
		bases[p] = strconv.FormatInt(b, 10)
	}
	text := fmt.Sprintf("kafka:%s:%s:%s:%s@%s", url.QueryEscape(i.cluster), url.QueryEscape(i.topic), i.id, i.options, strings.Join(bases, ","))
	if i.secret != "" {
		text += secretMark + i.secret
	}
	return ps.StreamID(text)
}

// parseIdentity is the inverse of streamID.
func parseIdentity(id ps.StreamID) (i identity, err error) {
	mistake := fmt.Errorf("the model's stream %q is no topic: %w", id, ps.ErrModelMismatch)
	rest, isKafka := strings.CutPrefix(string(id), "kafka:")
	rest, i.secret, _ = strings.Cut(rest, secretMark)
	head, bases, _ := strings.Cut(rest, "@")
	parts := strings.Split(head, ":")
	if !isKafka || len(parts) != 4 {
		return i, mistake
	}
	i.id, i.options = parts[2], parts[3]
	if i.cluster, err = url.QueryUnescape(parts[0]); err != nil {
		return i, mistake
	}
	if i.topic, err = url.QueryUnescape(parts[1]); err != nil {
		return i, mistake
	}
	for _, text := range strings.Split(bases, ",") {
		base, err := strconv.ParseInt(text, 10, 64)
		if err != nil || base < 0 {
			return i, mistake
		}
		i.bases = append(i.bases, base)
	}
	return i, nil
}

// reading returns the part of the identity that says how values become events.
func (s *Source) reading() (i identity, err error) {
	identifiers := slices.Sorted(slices.Values(s.config.Stream.Identifiers))
	if len(identifiers) > 0 {
		m, err := mask.New(s.config.Secret)
		if err != nil {
			return i, err
		}
		i.secret = m.Check()[:secretDigits]
	}
	document, err := json.Marshal([]any{readVersion, s.config.Stream.Format, s.config.Stream.Time, identifiers})
	if err != nil {
		return i, err
	}
	sum := sha256.Sum256(document)
	i.options = hex.EncodeToString(sum[:8])
	return i, nil
}

// identify asks for the topic and works out the stream's identity.
func (s *Source) identify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	found, err := s.describe(ctx)
	if err != nil {
		return err
	}
	now, err := s.reading()
	if err != nil {
		return err
	}
	now.cluster, now.topic, now.id = found.cluster, s.topic, found.id
	if s.config.Known == "" {
		if now.bases, err = s.begin(ctx, found.partitions); err != nil {
			return err
		}
		s.identity = now
		return nil
	}
	known, err := parseIdentity(s.config.Known)
	switch {
	case err != nil:
		return err
	case known.topic != now.topic || known.cluster != now.cluster:
		err = fmt.Errorf("topic %s of cluster %s is opened, the model learns from %s of %s", now.topic, now.cluster, known.topic, known.cluster)
	case known.id != now.id:
		err = fmt.Errorf("topic %s was deleted and made anew since the model was applied, and its offsets mean other events now: apply the model under another name", s.topic)
	case known.secret != now.secret:
		err = fmt.Errorf("identifiers were masked with another secret: give the cluster's")
	case known.options != now.options:
		err = fmt.Errorf("stream.time or stream.identifiers are not those that the model was applied with")
	case len(known.bases) > found.partitions:
		err = fmt.Errorf("topic %s has %d partitions, it had %d", s.topic, found.partitions, len(known.bases))
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w: %w", s.config.URL, ps.ErrModelMismatch, err)
	}
	s.identity = known
	s.warnGrown(found.partitions)
	return nil
}

// warnGrown says if the topic has partitions that the stream has not.
func (s *Source) warnGrown(partitions int) {
	if n := partitions - len(s.identity.bases); n > 0 {
		s.config.Logger.Error("the topic has grown: the events of its new partitions are not learned, and its keys go elsewhere than before; apply the model under another name to learn all of it",
			"topic", s.topic, "partitions", partitions, "read", len(s.identity.bases))
	}
}

// topicNow is what a broker says of the topic.
type topicNow struct {
	cluster    string
	id         string
	partitions int
}

// describe asks a broker for the topic: what the client remembers of it may be of one that was
// deleted.
func (s *Source) describe(ctx context.Context) (topicNow, error) {
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(s.topic)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, s.client)
	if err != nil {
		return topicNow{}, fmt.Errorf("stream %s: no broker answers: %w: %w", s.config.URL, ps.ErrUnavailable, err)
	}
	if len(response.Topics) != 1 {
		return topicNow{}, fmt.Errorf("stream %s: %d topics were told of, one was asked for: %w", s.config.URL, len(response.Topics), ps.ErrCorrupt)
	}
	found := response.Topics[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil || len(found.Partitions) == 0 {
		return topicNow{}, fmt.Errorf("stream %s: topic %s: %w: %w", s.config.URL, s.topic, ps.ErrUnavailable, err)
	}
	now := topicNow{id: hex.EncodeToString(found.TopicID[:]), partitions: len(found.Partitions)}
	if response.ClusterID != nil {
		now.cluster = *response.ClusterID
	}
	return now, nil
}

// begin returns where in the log each partition begins.
func (s *Source) begin(ctx context.Context, partitions int) ([]int64, error) {
	var listed kadm.ListedOffsets
	var err error
	switch from := s.config.From; from {
	case "", "earliest":
		listed, err = s.admin.ListStartOffsets(ctx, s.topic)
	case "latest":
		listed, err = s.admin.ListCommittedOffsets(ctx, s.topic)
	default:
		at, parseErr := time.Parse(time.RFC3339, from)
		if ago, agoErr := time.ParseDuration(from); agoErr == nil && ago < 0 {
			at, parseErr = time.Now().Add(ago), nil
		}
		if parseErr != nil {
			return nil, fmt.Errorf(`begin at %q: want earliest, latest, a time ago such as -24h, or a time such as 2026-01-31T00:00:00Z: %w`, from, ps.ErrInvalid)
		}
		listed, err = s.admin.ListOffsetsAfterMilli(ctx, at.UnixMilli(), s.topic)
	}
	return s.offsets(listed, err, partitions)
}

// offsets returns listed offsets by partition.
func (s *Source) offsets(listed kadm.ListedOffsets, err error, partitions int) ([]int64, error) {
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: offsets of topic %s: %w: %w", s.config.URL, s.topic, ps.ErrUnavailable, err)
	}
	offsets := make([]int64, partitions)
	for p := range offsets {
		o, ok := listed.Lookup(s.topic, int32(p))
		if !ok {
			return nil, fmt.Errorf("stream %s: topic %s: nothing is said of partition %d: %w", s.config.URL, s.topic, p, ps.ErrUnavailable)
		}
		offsets[p] = o.Offset
	}
	return offsets, nil
}

// newest returns, by partition, the end of what is in it and belongs to no open transaction.
func (s *Source) newest(ctx context.Context) ([]ps.Offset, error) {
	listed, err := s.admin.ListCommittedOffsets(ctx, s.topic)
	ends, err := s.offsets(listed, err, len(s.identity.bases))
	if err != nil {
		return nil, err
	}
	newest := make([]ps.Offset, len(ends))
	for p, end := range ends {
		newest[p] = ps.Offset(max(0, end-s.identity.bases[p]))
	}
	return newest, nil
}

// Identity names the topic, how it is read, and where in its log the stream begins.
func (s *Source) Identity() ps.StreamID { return s.identity.streamID() }

// Partitions returns how many partitions of the topic are read.
func (s *Source) Partitions() int { return len(s.identity.bases) }

// Size returns how many events are in the topic now; 0 if no broker says so.
func (s *Source) Size() int64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	newest, err := s.newest(ctx)
	if err != nil {
		return 0
	}
	sum := int64(0)
	for _, n := range newest {
		sum += int64(n)
	}
	return sum
}

// Close ends the connections that are not a reader's.
func (s *Source) Close() error {
	s.client.Close()
	return nil
}

// logger passes on what the client has to say to operators: trouble.
type logger struct{ to *slog.Logger }

func (l logger) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l logger) Log(level kgo.LogLevel, message string, pairs ...any) {
	if level == kgo.LogLevelError {
		l.to.Warn("kafka: "+message, pairs...)
		return
	}
	l.to.Info("kafka: "+message, pairs...)
}
