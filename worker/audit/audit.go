// Package audit proves, or disproves, that every event was applied exactly once.
//
// Each shard keeps, with its rows, a fingerprint of the events that contributed to
// it, per partition. The audit reads the stream once from its start, works out
// which events should have contributed to which shard, and compares. It needs
// nothing of the trainers that pushed, so it also finds their mistakes.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/contribution"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
)

// Report is an audit's result. Its JSON is the answer of "audit -o json": keys may
// be added and do not change.
type Report struct {
	Shards     int `json:"shards"`
	Partitions int `json:"partitions"`
	// Events counts the stream's events that some shard has applied the range of.
	Events int64 `json:"events"`
	// Lost and Doubled count contributions, over all shards and partitions: an
	// event that three shards lack is lost three times. Where as many are lost as
	// doubled, the fingerprint tells, and one of each is reported.
	Lost    int64 `json:"lost"`
	Doubled int64 `json:"doubled"`
	// Skipped counts the events that cannot be used.
	Skipped int64 `json:"skipped"`
	// Findings says where, for at most FindingsMax shards and partitions.
	Findings []string `json:"findings,omitempty"`
}

// FindingsMax bounds the findings of a report.
const FindingsMax = 20

// Clean reports whether nothing was lost or doubled.
func (r Report) Clean() bool { return r.Lost == 0 && r.Doubled == 0 }

// Config is what an audit needs.
type Config struct {
	Spec   *spec.Spec
	Source stream.Source
	// Progress is what the shards say, indexed by shard. Pushes may go on
	// meanwhile: the audit is of the moment it was read.
	Progress []ps.ShardProgress
	// Read, if not nil, is told now and then how many events were read.
	Read func(events int64)
}

// batchEvents is how many events are extracted before they are counted.
const batchEvents = 256

// Run reads the stream and compares. It returns an error if the stream cannot be
// read or is shorter than what a shard has applied (ps.ErrModelMismatch).
func Run(ctx context.Context, c Config) (report Report, err error) {
	shards, partitions := len(c.Progress), c.Source.Partitions()
	report = Report{Shards: shards, Partitions: partitions}
	applied := make([][]ps.Offset, partitions) // by partition and shard
	starts := make([]stream.Start, partitions)
	last := make([]ps.Offset, partitions) // the furthest that any shard has applied
	expected := make([]*contribution.Counter, partitions)
	batches := make([]worker.Batch, partitions)
	dense := c.Spec.DenseKeys()
	for p := range partitions {
		applied[p] = make([]ps.Offset, shards)
		for s, shard := range c.Progress {
			if len(shard.Partitions) != partitions {
				return report, fmt.Errorf("shard %d knows %d partitions, the stream has %d: %w", s, len(shard.Partitions), partitions, ps.ErrModelMismatch)
			}
			applied[p][s] = shard.Partitions[p].Applied
			last[p] = max(last[p], applied[p][s])
		}
		starts[p].Partition = ps.Partition(p)
		expected[p] = contribution.New(shards, c.Spec.Evaluation.Window, dense...)
		batches[p].Reset(ps.Partition(p), 0, 0)
	}
	count := func(p ps.Partition) {
		b := &batches[p]
		for i := range b.Len() {
			offset := b.From + ps.Offset(i)
			if offset < last[p] {
				report.Events++
				if b.Roles[i] == worker.Skip {
					report.Skipped++
				}
			}
			expected[p].Add(b, i, func(s ps.ShardID) bool { return offset < applied[p][s] })
		}
	}
	extractor, err := feature.New(c.Spec, feature.Columns(c.Spec))
	if err != nil {
		return report, err
	}
	reader, err := c.Source.Read(ctx, starts)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	var event worker.Event
	for read := int64(0); ; read++ {
		err := reader.Next(ctx, &event)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return report, fmt.Errorf("audit, after %d events: %w", read, err)
		}
		b := &batches[event.Partition]
		if event.Offset != b.To {
			return report, fmt.Errorf("audit: partition %d: offset %d in the place of %d: %w", event.Partition, event.Offset, b.To, ps.ErrCorrupt)
		}
		if b.Len() >= batchEvents || b.Pass != event.Pass {
			count(event.Partition)
			b.Reset(event.Partition, event.Offset, event.Pass)
		}
		_ = extractor.Append(b, &event) // what cannot be used was listed when it was learned
		if c.Read != nil && read%100_000 == 0 {
			c.Read(read)
		}
	}
	for p := range partitions {
		count(ps.Partition(p))
		if end, known := reader.End(ps.Partition(p)); known && end < last[p] {
			return report, fmt.Errorf("partition %d ends at offset %d, but a shard has applied %d: this is not the stream the model was learned from: %w",
				p, end, last[p], ps.ErrModelMismatch)
		}
		for s, want := range expected[p].Counts() {
			report.compare(ps.ShardID(s), ps.Partition(p), want, c.Progress[s].Partitions[p])
		}
	}
	return report, nil
}

// compare adds what one shard has too much or too little of one partition.
func (r *Report) compare(s ps.ShardID, p ps.Partition, want contribution.Count, got ps.Progress) {
	if want.Fingerprint == got.Fingerprint {
		return
	}
	difference := int64(got.Fingerprint.Count) - int64(want.Fingerprint.Count)
	switch {
	case difference < 0:
		r.Lost -= difference
	case difference > 0:
		r.Doubled += difference
	default:
		r.Lost++
		r.Doubled++
	}
	if len(r.Findings) < FindingsMax {
		r.Findings = append(r.Findings, fmt.Sprintf("shard %d, partition %d, up to offset %d: %d events contributed, %d should have (trained %d, held %d, skipped %d, should be %d, %d, %d)",
			s, p, got.Applied, got.Fingerprint.Count, want.Fingerprint.Count,
			got.Trained, got.Held, got.Skipped, want.Trained, want.Held, want.Skipped))
	}
}
