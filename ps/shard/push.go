package shard

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// Push judges one item of an update and applies it if its turn has come. The
// answer's outcome is, in this order:
//
//   - Refused with ps.ErrModelMismatch: model, stream, layout or version are not
//     the shard's;
//   - Refused with ps.ErrInvalid: there is no such partition, the item is for
//     another shard, or its range is empty or reversed;
//   - Refused with ps.ErrReplaced: a newer generation of the partition's
//     assignment has pushed before;
//   - Duplicate, Gap or Overlap, as ps.Judge says;
//   - Refused with ps.ErrInvalid: the counts do not fit, or a row's table, key or
//     value is bad;
//   - Refused with ps.ErrOutOfMemory: there is no room for the new rows;
//   - Applied.
//
// Only Applied changes the shard, and it applies the item whole: rows of all
// tables, offset, counts, fingerprint and event time. (Every outcome but Refused
// also remembers the generation, which no safety rule reads.) An item without
// rows and with no counts is an empty advance. The caller keeps u and item.
//
// It allocates nothing for existing rows of aligned values.
func (s *Shard) Push(u *ps.Update, item *ps.Item) ps.Answer {
	if err := s.match(u); err != nil {
		return s.refuse(u, err)
	}
	if err := s.address(u, item); err != nil {
		return s.refuse(u, err)
	}
	if seen := s.generations[u.Partition]; u.Generation < seen {
		return s.refuse(u, fmt.Errorf("shard %d: partition %d: generation %d after %d: %w",
			s.config.ID, u.Partition, u.Generation, seen, ps.ErrReplaced))
	}
	progress := &s.partitions[u.Partition]
	outcome := ps.Judge(progress.Applied, ps.Range{From: item.From, To: u.To})
	if outcome == ps.Applied {
		if err := s.check(u, item); err != nil {
			return s.refuse(u, err)
		}
		if err := s.fits(item); err != nil {
			return s.refuse(u, err)
		}
		s.apply(item)
		advance(progress, u, item)
	}
	s.generations[u.Partition] = u.Generation
	return ps.Answer{Shard: s.config.ID, Outcome: outcome, Applied: progress.Applied}
}

// refuse returns the answer to an item that is refused for err. It tells how far
// the partition is, if there is one.
func (s *Shard) refuse(u *ps.Update, err error) ps.Answer {
	a := ps.Answer{Shard: s.config.ID, Outcome: ps.Refused, Err: err}
	if int64(u.Partition) < int64(len(s.partitions)) {
		a.Applied = s.partitions[u.Partition].Applied
	}
	return a
}

// match reports that the update is not for this model as the shard knows it.
func (s *Shard) match(u *ps.Update) error {
	m := &s.config.Model
	switch {
	case u.Model != m.Name:
		return fmt.Errorf("shard %d: update of model %q, not %q: %w", s.config.ID, u.Model, m.Name, ps.ErrModelMismatch)
	case u.Stream != m.Stream:
		return fmt.Errorf("shard %d: update from stream %q, not %q: %w", s.config.ID, u.Stream, m.Stream, ps.ErrModelMismatch)
	case u.Layout != s.layout:
		return fmt.Errorf("shard %d: update for layout %016x, not %016x: %w", s.config.ID, u.Layout, s.layout, ps.ErrModelMismatch)
	case u.Version != m.Version:
		return fmt.Errorf("shard %d: update of version %d, not %d: %w", s.config.ID, u.Version, m.Version, ps.ErrModelMismatch)
	}
	return nil
}

// address reports that the item cannot be for this shard, or for any.
func (s *Shard) address(u *ps.Update, item *ps.Item) error {
	switch {
	case int64(u.Partition) >= int64(len(s.partitions)):
		return fmt.Errorf("shard %d: partition %d of a stream of %d: %w", s.config.ID, u.Partition, len(s.partitions), ps.ErrInvalid)
	case item.Shard != s.config.ID:
		return fmt.Errorf("shard %d: item for shard %d: %w", s.config.ID, item.Shard, ps.ErrInvalid)
	case item.From >= u.To:
		return fmt.Errorf("shard %d: partition %d: no events in [%d,%d): %w", s.config.ID, u.Partition, item.From, u.To, ps.ErrInvalid)
	}
	return nil
}

// check reports the first thing wrong with an item whose turn has come.
func (s *Shard) check(u *ps.Update, item *ps.Item) error {
	events, count := uint64(u.To-item.From), item.Fingerprint.Count
	// Compared one by one, since the sum of bad counts may wrap around.
	if count > events || item.Trained > count || item.Held > count-item.Trained || item.Skipped != count-item.Trained-item.Held {
		return fmt.Errorf("shard %d: partition %d: %d trained, %d held and %d skipped events, %d in the fingerprint, %d in [%d,%d): %w",
			s.config.ID, u.Partition, item.Trained, item.Held, item.Skipped, count, events, item.From, u.To, ps.ErrInvalid)
	}
	if count == 0 && item.Fingerprint != (ps.Fingerprint{}) {
		return fmt.Errorf("shard %d: partition %d: fingerprint of no event has sum %016x and xor %016x: %w",
			s.config.ID, u.Partition, item.Fingerprint.Sum, item.Fingerprint.Xor, ps.ErrInvalid)
	}
	var seen [ps.TablesMax / 64]uint64
	for i := range item.Rows {
		rows := &item.Rows[i]
		t, err := s.table(rows.Table)
		if err != nil {
			return err
		}
		// Room is looked for for each table's rows by themselves.
		if seen[rows.Table/64]>>(rows.Table%64)&1 != 0 {
			return fmt.Errorf("shard %d: table %q is in the item twice: %w", s.config.ID, s.name(rows.Table), ps.ErrInvalid)
		}
		seen[rows.Table/64] |= 1 << (rows.Table % 64)
		if count == 0 && len(rows.Keys) > 0 {
			return fmt.Errorf("shard %d: table %q: rows of no event: %w", s.config.ID, s.name(rows.Table), ps.ErrInvalid)
		}
		if err := s.own(rows.Table, rows.Keys); err != nil {
			return err
		}
		if err := t.Validate(*rows); err != nil {
			return fmt.Errorf("shard %d: %w", s.config.ID, err)
		}
	}
	return nil
}

// fits reports that there is no room for the item's new rows.
func (s *Shard) fits(item *ps.Item) error {
	for i := range item.Rows {
		if err := s.tables[item.Rows[i].Table].Fits(item.Rows[i].Keys); err != nil {
			return fmt.Errorf("shard %d: %w", s.config.ID, err)
		}
	}
	return nil
}

// apply updates the rows of a checked item for which there is room.
func (s *Shard) apply(item *ps.Item) {
	s.seq++
	for i := range item.Rows {
		rows := &item.Rows[i]
		if err := s.tables[rows.Table].Apply(*rows, s.seq); err != nil {
			panic(fmt.Sprintf("shard %d: checked rows of table %q do not apply: %v", s.config.ID, s.name(rows.Table), err))
		}
	}
}

func advance(p *ps.Progress, u *ps.Update, item *ps.Item) {
	p.Applied = u.To
	p.Trained += item.Trained
	p.Held += item.Held
	p.Skipped += item.Skipped
	p.Fingerprint.Merge(item.Fingerprint)
	p.EventTime = max(p.EventTime, item.EventTime)
}
