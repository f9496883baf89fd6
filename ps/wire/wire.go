// Package wire is the only bridge between the words of package ps and the
// protobuf messages of freshet.ps.v1, and between errors and gRPC statuses.
//
// Keys and values are aliased, not copied: a message made from words shares their
// memory until it is sent, and words made from a message share the message's.
// Everything that comes from the network is checked here for shape (whole
// elements, known outcomes), so that the words made from it can be trusted to be
// well-formed; whether they are right is the shard's business. What is malformed
// wraps ps.ErrInvalid.
package wire

import (
	"encoding/json"
	"fmt"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/route"
)

// MessageBytesMax is the largest message either side accepts. A larger pull or
// push is refused before it is sent, with ps.ErrTooLarge.
const MessageBytesMax = 64 << 20

// keys returns the keys in b.
func keys(b []byte) ([]ps.Key, error) {
	if len(b)%8 != 0 {
		return nil, fmt.Errorf("%d bytes of keys are no whole number of 8-byte keys: %w", len(b), ps.ErrInvalid)
	}
	return ps.View[ps.Key](b), nil
}

// PushRequest returns u as a message.
func PushRequest(u *ps.Update) *psv1.PushRequest {
	req := &psv1.PushRequest{
		Model:      u.Model,
		Stream:     string(u.Stream),
		Layout:     u.Layout,
		Version:    u.Version,
		Partition:  uint32(u.Partition),
		Generation: uint64(u.Generation),
		To:         uint64(u.To),
		Items:      make([]*psv1.Item, len(u.Items)),
		Pulled:     u.Pulled,
	}
	items := make([]psv1.Item, len(u.Items))
	for i := range u.Items {
		item := &u.Items[i]
		m := &items[i]
		m.Shard = uint32(item.Shard)
		m.From = uint64(item.From)
		m.Trained, m.Held, m.Skipped = item.Trained, item.Held, item.Skipped
		if item.Fingerprint != (ps.Fingerprint{}) {
			m.Fingerprint = fingerprintMessage(item.Fingerprint)
		}
		m.EventTime = item.EventTime
		m.Rows = make([]*psv1.Rows, len(item.Rows))
		for k, rows := range item.Rows {
			m.Rows[k] = &psv1.Rows{Table: uint32(rows.Table), Keys: ps.Bytes(rows.Keys), Values: rows.Values, Pulled: rows.Pulled}
		}
		req.Items[i] = m
	}
	return req
}

// Update returns the update that a message holds.
func Update(req *psv1.PushRequest) (*ps.Update, error) {
	u := &ps.Update{
		Model:      req.GetModel(),
		Stream:     ps.StreamID(req.GetStream()),
		Layout:     req.GetLayout(),
		Version:    req.GetVersion(),
		Partition:  ps.Partition(req.GetPartition()),
		Generation: ps.Generation(req.GetGeneration()),
		To:         ps.Offset(req.GetTo()),
		Items:      make([]ps.Item, len(req.GetItems())),
		Pulled:     req.GetPulled(),
	}
	for i, m := range req.GetItems() {
		item := &u.Items[i]
		*item = ps.Item{
			Shard:       ps.ShardID(m.GetShard()),
			From:        ps.Offset(m.GetFrom()),
			Trained:     m.GetTrained(),
			Held:        m.GetHeld(),
			Skipped:     m.GetSkipped(),
			Fingerprint: fingerprint(m.GetFingerprint()),
			EventTime:   m.GetEventTime(),
			Rows:        make([]ps.Rows, len(m.GetRows())),
		}
		for k, rows := range m.GetRows() {
			ks, err := keys(rows.GetKeys())
			if err != nil {
				return nil, fmt.Errorf("item of shard %d, table %d: %w", m.GetShard(), rows.GetTable(), err)
			}
			item.Rows[k] = ps.Rows{Table: ps.TableID(rows.GetTable()), Keys: ks, Values: rows.GetValues(), Pulled: rows.GetPulled()}
		}
	}
	return u, nil
}

// PushResponse returns answers as a message.
func PushResponse(answers []ps.Answer) *psv1.PushResponse {
	resp := &psv1.PushResponse{Answers: make([]*psv1.Answer, len(answers))}
	for i, a := range answers {
		m := &psv1.Answer{Shard: uint32(a.Shard), Outcome: psv1.Outcome(a.Outcome), Applied: uint64(a.Applied)}
		if a.Err != nil {
			m.Reason, m.Message = Reason(a.Err), a.Err.Error()
		}
		resp.Answers[i] = m
	}
	return resp
}

// Answers returns the answers that a message holds.
func Answers(resp *psv1.PushResponse) ([]ps.Answer, error) {
	answers := make([]ps.Answer, len(resp.GetAnswers()))
	for i, m := range resp.GetAnswers() {
		a := ps.Answer{Shard: ps.ShardID(m.GetShard()), Outcome: ps.Outcome(m.GetOutcome()), Applied: ps.Offset(m.GetApplied())}
		switch {
		case m.GetOutcome() < 0 || m.GetOutcome() > psv1.Outcome(ps.Overlap):
			return nil, fmt.Errorf("shard %d answered with unknown outcome %d: %w", a.Shard, m.GetOutcome(), ps.ErrInvalid)
		case a.Outcome == ps.Refused:
			a.Err = Refusal(m.GetReason(), m.GetMessage())
		}
		answers[i] = a
	}
	return answers, nil
}

// PullRequest returns p as a message.
func PullRequest(p *ps.Pull) *psv1.PullRequest {
	return &psv1.PullRequest{
		Model:  p.Model,
		Layout: p.Layout,
		Shards: shardNumbers(p.Shards),
		Tables: tableKeysMessages(p.Tables),
		Number: p.Number,
	}
}

func tableKeysMessages(tables []ps.TableKeys) []*psv1.TableKeys {
	messages := make([]*psv1.TableKeys, len(tables))
	for i, t := range tables {
		messages[i] = &psv1.TableKeys{Table: uint32(t.Table), Counts: t.Counts, Keys: ps.Bytes(t.Keys)}
	}
	return messages
}

func tableKeys(messages []*psv1.TableKeys) ([]ps.TableKeys, error) {
	tables := make([]ps.TableKeys, len(messages))
	for i, t := range messages {
		ks, err := keys(t.GetKeys())
		if err != nil {
			return nil, fmt.Errorf("table %d: %w", t.GetTable(), err)
		}
		tables[i] = ps.TableKeys{Table: ps.TableID(t.GetTable()), Counts: t.GetCounts(), Keys: ks}
	}
	return tables, nil
}

// Pull returns the pull that a message holds. Its counts add up to its keys.
func Pull(req *psv1.PullRequest) (*ps.Pull, error) {
	tables, err := tableKeys(req.GetTables())
	if err != nil {
		return nil, err
	}
	p := &ps.Pull{Model: req.GetModel(), Layout: req.GetLayout(), Shards: shardIDs(req.GetShards()), Tables: tables, Number: req.GetNumber()}
	return p, checkPull(p)
}

// checkPull reports a shape that no pull has.
func checkPull(p *ps.Pull) error {
	if len(p.Shards) > ps.ShardsMax || len(p.Tables) > ps.TablesMax {
		return fmt.Errorf("%d tables at %d shards were asked for, there are at most %d and %d: %w",
			len(p.Tables), len(p.Shards), ps.TablesMax, ps.ShardsMax, ps.ErrInvalid)
	}
	for i, s := range p.Shards {
		if i > 0 && s <= p.Shards[i-1] {
			return fmt.Errorf("shards of a pull are not ascending: %d after %d: %w", s, p.Shards[i-1], ps.ErrInvalid)
		}
	}
	for _, t := range p.Tables {
		if len(t.Counts) != len(p.Shards) {
			return fmt.Errorf("table %d: %d counts for %d shards: %w", t.Table, len(t.Counts), len(p.Shards), ps.ErrInvalid)
		}
		var sum uint64
		for _, n := range t.Counts {
			sum += uint64(n)
		}
		if sum != uint64(len(t.Keys)) {
			return fmt.Errorf("table %d: counts add up to %d, %d keys given: %w", t.Table, sum, len(t.Keys), ps.ErrInvalid)
		}
	}
	return nil
}

// AppliedResponse returns shards as a message.
func AppliedResponse(shards []ps.ShardProgress) *psv1.AppliedResponse {
	resp := &psv1.AppliedResponse{Shards: make([]*psv1.ShardProgress, len(shards))}
	for i := range shards {
		resp.Shards[i] = progressMessage(&shards[i])
	}
	return resp
}

// ShardProgress returns the progress that a message holds.
func ShardProgress(resp *psv1.AppliedResponse) []ps.ShardProgress {
	shards := make([]ps.ShardProgress, len(resp.GetShards()))
	for i, m := range resp.GetShards() {
		shards[i] = progress(m)
	}
	return shards
}

func progressMessage(s *ps.ShardProgress) *psv1.ShardProgress {
	m := &psv1.ShardProgress{
		Shard: uint32(s.Shard), Fence: uint64(s.Fence), Seq: s.Seq, Rows: s.Rows,
		Partitions: make([]*psv1.Progress, len(s.Partitions)),
	}
	for k, p := range s.Partitions {
		m.Partitions[k] = &psv1.Progress{
			Applied: uint64(p.Applied), Trained: p.Trained, Held: p.Held, Skipped: p.Skipped,
			Fingerprint: fingerprintMessage(p.Fingerprint), EventTime: p.EventTime,
		}
	}
	return m
}

func progress(m *psv1.ShardProgress) ps.ShardProgress {
	s := ps.ShardProgress{
		Shard: ps.ShardID(m.GetShard()), Fence: ps.Fence(m.GetFence()), Seq: m.GetSeq(), Rows: m.GetRows(),
		Partitions: make([]ps.Progress, len(m.GetPartitions())),
	}
	for k, p := range m.GetPartitions() {
		s.Partitions[k] = ps.Progress{
			Applied: ps.Offset(p.GetApplied()), Trained: p.GetTrained(), Held: p.GetHeld(), Skipped: p.GetSkipped(),
			Fingerprint: fingerprint(p.GetFingerprint()), EventTime: p.GetEventTime(),
		}
	}
	return s
}

// FollowRequest returns a change of what is followed as a message.
func FollowRequest(model string, r ps.Reading, c ps.FollowChange) *psv1.FollowRequest {
	req := &psv1.FollowRequest{
		Model: model, Reading: r != ps.Reading{}, Layout: r.Layout, Encoding: psv1.Encoding(r.Encoding),
		Begin: shardNumbers(c.Begin), End: shardNumbers(c.End),
	}
	for id := range ps.TableID(ps.TablesMax) {
		if r.Tables.Has(id) {
			req.Tables = append(req.Tables, uint32(id))
		}
	}
	return req
}

// Reading returns what a follower's first message says that it reads. It wraps
// ps.ErrInvalid.
func Reading(req *psv1.FollowRequest) (ps.Reading, error) {
	if !req.GetReading() {
		return ps.Reading{}, nil
	}
	r := ps.Reading{Layout: req.GetLayout(), Encoding: ps.Encoding(req.GetEncoding())}
	if err := checkEncoding(req.GetEncoding()); err != nil {
		return ps.Reading{}, err
	}
	if r.Layout == 0 {
		return ps.Reading{}, fmt.Errorf("a reader has to say by which layout it reads: %w", ps.ErrInvalid)
	}
	for _, id := range req.GetTables() {
		if id >= ps.TablesMax {
			return ps.Reading{}, fmt.Errorf("table %d of a reader: want one below %d: %w", id, ps.TablesMax, ps.ErrInvalid)
		}
		r.Tables.Add(ps.TableID(id))
	}
	return r, nil
}

// FollowChange returns the change that a message asks for.
func FollowChange(req *psv1.FollowRequest) ps.FollowChange {
	return ps.FollowChange{Begin: shardIDs(req.GetBegin()), End: shardIDs(req.GetEnd())}
}

// FollowResponse returns news as a message, which shares their rows.
func FollowResponse(n *ps.News) *psv1.FollowResponse {
	resp := &psv1.FollowResponse{Deltas: make([]*psv1.Delta, len(n.Deltas)), Lost: make([]*psv1.LostShard, len(n.Lost))}
	for i, d := range n.Deltas {
		m := &psv1.Delta{
			Progress: progressMessage(&d.ShardProgress), Since: d.Since, Part: uint32(d.Part), More: d.More, Lineage: d.Lineage,
			AppliedAt: d.AppliedAt, SentAt: d.SentAt, Blocks: make([]*psv1.Block, len(d.Blocks)),
		}
		for k, b := range d.Blocks {
			m.Blocks[k] = &psv1.Block{Table: uint32(b.Table), Stride: uint32(b.Stride), Rows: b.Rows}
		}
		resp.Deltas[i] = m
	}
	for i, l := range n.Lost {
		resp.Lost[i] = &psv1.LostShard{Shard: uint32(l.Shard), Reason: Reason(l.Err), Message: l.Err.Error()}
	}
	return resp
}

// News returns the news that a message holds, which share its rows.
func News(resp *psv1.FollowResponse) *ps.News {
	n := &ps.News{Deltas: make([]*ps.Delta, len(resp.GetDeltas())), Lost: make([]ps.Lost, len(resp.GetLost()))}
	for i, m := range resp.GetDeltas() {
		d := &ps.Delta{
			ShardProgress: progress(m.GetProgress()), Since: m.GetSince(), Part: int(m.GetPart()), More: m.GetMore(), Lineage: m.GetLineage(),
			AppliedAt: m.GetAppliedAt(), SentAt: m.GetSentAt(), Blocks: make([]ps.Block, len(m.GetBlocks())),
		}
		for k, b := range m.GetBlocks() {
			d.Blocks[k] = ps.Block{Table: ps.TableID(b.GetTable()), Stride: int(b.GetStride()), Rows: b.GetRows()}
		}
		n.Deltas[i] = d
	}
	for i, m := range resp.GetLost() {
		n.Lost[i] = ps.Lost{Shard: ps.ShardID(m.GetShard()), Err: Refusal(m.GetReason(), m.GetMessage())}
	}
	return n
}

func shardNumbers(shards []ps.ShardID) []uint32 {
	numbers := make([]uint32, len(shards))
	for i, s := range shards {
		numbers[i] = uint32(s)
	}
	return numbers
}

func shardIDs(numbers []uint32) []ps.ShardID {
	shards := make([]ps.ShardID, len(numbers))
	for i, s := range numbers {
		shards[i] = ps.ShardID(s)
	}
	return shards
}

// TakeRequest returns a request for snapshots as a message.
func TakeRequest(model, bucket string, wants []checkpoint.Want) *psv1.TakeRequest {
	req := &psv1.TakeRequest{Model: model, Bucket: bucket, Shards: make([]*psv1.SnapshotWant, len(wants))}
	for i, w := range wants {
		req.Shards[i] = &psv1.SnapshotWant{Shard: uint32(w.Shard)}
		if w.Parent != (checkpoint.Hash{}) {
			req.Shards[i].Parent = w.Parent.String()
		}
	}
	return req
}

// Wants returns the snapshots that a message asks for.
func Wants(req *psv1.TakeRequest) ([]checkpoint.Want, error) {
	wants := make([]checkpoint.Want, len(req.GetShards()))
	for i, m := range req.GetShards() {
		wants[i].Shard = ps.ShardID(m.GetShard())
		if m.GetParent() == "" {
			continue
		}
		if err := wants[i].Parent.UnmarshalText([]byte(m.GetParent())); err != nil {
			return nil, fmt.Errorf("parent of the snapshot of shard %d: %w: %w", m.GetShard(), ps.ErrInvalid, err)
		}
	}
	return wants, nil
}

// TakeResponse returns what became of a snapshot as a message.
func TakeResponse(t checkpoint.Taken) (*psv1.TakeResponse, error) {
	m := &psv1.TakeResponse{Shard: uint32(t.Shard), Fence: uint64(t.Fence), Seq: t.Seq, Applied: make([]uint64, len(t.Applied))}
	for p, offset := range t.Applied {
		m.Applied[p] = uint64(offset)
	}
	if t.Err != nil {
		m.Reason, m.Message = Reason(t.Err), t.Err.Error()
		return m, nil
	}
	if t.File.Bytes == 0 {
		return m, nil
	}
	var err error
	if m.File, err = json.Marshal(t.File); err != nil {
		return nil, fmt.Errorf("file of the snapshot of shard %d: %w", t.Shard, err)
	}
	return m, nil
}

// Taken returns what became of a snapshot that a message tells of.
func Taken(m *psv1.TakeResponse) (checkpoint.Taken, error) {
	t := checkpoint.Taken{Shard: ps.ShardID(m.GetShard()), Fence: ps.Fence(m.GetFence()), Seq: m.GetSeq(), Applied: make([]ps.Offset, len(m.GetApplied()))}
	for p, offset := range m.GetApplied() {
		t.Applied[p] = ps.Offset(offset)
	}
	if m.GetReason() != "" {
		t.Err = Refusal(m.GetReason(), m.GetMessage())
		return t, nil
	}
	if len(m.GetFile()) == 0 {
		return t, nil
	}
	if err := json.Unmarshal(m.GetFile(), &t.File); err != nil {
		return t, fmt.Errorf("file of the snapshot of shard %d: %w: %w", m.GetShard(), ps.ErrCorrupt, err)
	}
	if t.File.Bytes <= 0 {
		return t, fmt.Errorf("file of the snapshot of shard %d: %d bytes long: %w", m.GetShard(), t.File.Bytes, ps.ErrCorrupt)
	}
	return t, nil
}

// HoldingsResponse returns holdings as a message.
func HoldingsResponse(holdings []ps.Holding) *psv1.HoldingsResponse {
	msg := &psv1.HoldingsResponse{Holdings: make([]*psv1.Holding, len(holdings))}
	for i, h := range holdings {
		msg.Holdings[i] = &psv1.Holding{
			Model: h.Model, Shard: uint32(h.Shard), Fence: uint64(h.Fence), Copy: h.Copy, Rows: h.Rows, Bytes: h.Bytes,
			KeysPulled: h.KeysPulled, KeysPushed: h.KeysPushed, Seq: h.Seq,
		}
	}
	return msg
}

// Holdings returns the holdings that a message tells of.
func Holdings(msg *psv1.HoldingsResponse) []ps.Holding {
	holdings := make([]ps.Holding, len(msg.GetHoldings()))
	for i, h := range msg.GetHoldings() {
		holdings[i] = ps.Holding{
			Model: h.GetModel(), Shard: ps.ShardID(h.GetShard()), Fence: ps.Fence(h.GetFence()), Copy: h.GetCopy(),
			Rows: h.GetRows(), Bytes: h.GetBytes(), KeysPulled: h.GetKeysPulled(), KeysPushed: h.GetKeysPushed(), Seq: h.GetSeq(),
		}
	}
	return holdings
}

// ShardMap returns m as a message.
func ShardMap(m route.Map) *psv1.ShardMap {
	msg := &psv1.ShardMap{
		Version:   m.Version,
		Shards:    make([]*psv1.ShardOwner, len(m.Shards)),
		Addresses: make(map[string]string, len(m.Addresses)),
	}
	for i, s := range m.Shards {
		msg.Shards[i] = &psv1.ShardOwner{Node: string(s.Owner), Fence: uint64(s.Fence), Target: string(s.Target)}
		for _, n := range s.Standbys {
			msg.Shards[i].Standbys = append(msg.Shards[i].Standbys, string(n))
		}
	}
	for node, address := range m.Addresses {
		msg.Addresses[string(node)] = address
	}
	return msg
}

// RouteMap returns the shard map that a message holds.
func RouteMap(msg *psv1.ShardMap) (route.Map, error) {
	if err := ps.ValidShards(len(msg.GetShards())); err != nil {
		return route.Map{}, fmt.Errorf("shard map of version %d: %w", msg.GetVersion(), err)
	}
	m := route.Map{
		Version:   msg.GetVersion(),
		Shards:    make([]route.Shard, len(msg.GetShards())),
		Addresses: make(map[ps.NodeID]string, len(msg.GetAddresses())),
	}
	for i, s := range msg.GetShards() {
		m.Shards[i] = route.Shard{Owner: ps.NodeID(s.GetNode()), Fence: ps.Fence(s.GetFence()), Target: ps.NodeID(s.GetTarget())}
		for _, n := range s.GetStandbys() {
			m.Shards[i].Standbys = append(m.Shards[i].Standbys, ps.NodeID(n))
		}
	}
	for node, address := range msg.GetAddresses() {
		m.Addresses[ps.NodeID(node)] = address
	}
	return m, nil
}

func fingerprintMessage(f ps.Fingerprint) *psv1.Fingerprint {
	return &psv1.Fingerprint{Count: f.Count, Sum: f.Sum, Xor: f.Xor}
}

func fingerprint(m *psv1.Fingerprint) ps.Fingerprint {
	return ps.Fingerprint{Count: m.GetCount(), Sum: m.GetSum(), Xor: m.GetXor()}
}
