package server

import (
	"cmp"

	"github.com/freshet-ml/freshet/coordinator"
	adminv1 "github.com/freshet-ml/freshet/proto/freshet/admin/v1"
	"github.com/freshet-ml/freshet/ps"
)

// progress is what the shards know of a model's stream, or why that is not known.
type progress struct {
	shards []ps.ShardProgress
	err    string
}

// statusOf puts a status together from a view and the progress of its models, in
// their order.
func statusOf(v coordinator.View, known []progress) coordinator.Status {
	st := coordinator.Status{
		Cluster:            v.Cluster.Name,
		Shards:             len(v.Shards),
		ShardsWithoutOwner: withoutOwner(v),
		MapVersion:         v.Revision,
		Nodes:              make([]coordinator.NodeStatus, 0, len(v.Nodes)),
		Workers:            make([]coordinator.WorkerStatus, 0, len(v.Workers)),
		Models:             make([]coordinator.ModelStatus, 0, len(v.Models)),
	}
	owned, copies, arriving := make(map[ps.NodeID]int), make(map[ps.NodeID]int), make(map[ps.NodeID]int)
	for _, s := range v.Shards {
		owned[s.Owner]++
		arriving[s.Target]++
		for _, n := range s.Standbys {
			copies[n]++
		}
	}
	for _, n := range v.Nodes {
		st.Nodes = append(st.Nodes, coordinator.NodeStatus{
			ID: n.ID, Address: n.Address, Shards: owned[n.ID], Copies: copies[n.ID], Arriving: arriving[n.ID],
			Name: n.Name, Zone: n.Zone, Capacity: cmp.Or(n.Capacity, 1), Draining: n.Draining,
		})
	}
	for _, w := range v.Workers {
		partitions := v.Assignments[w.Model].Partitions(w.ID)
		if partitions == nil {
			partitions = []ps.Partition{}
		}
		st.Workers = append(st.Workers, coordinator.WorkerStatus{
			ID: w.ID, Model: w.Model, Partitions: partitions, Events: w.Report.Events, BusySeconds: w.Report.BusySeconds,
		})
	}
	for i, m := range v.Models {
		st.Models = append(st.Models, modelStatus(v, m, known[i]))
	}
	return st
}

func modelStatus(v coordinator.View, m ps.Model, known progress) coordinator.ModelStatus {
	assignment := v.Assignments[m.Name]
	st := coordinator.ModelStatus{
		Name:          m.Name,
		Version:       m.Version,
		Stream:        m.Stream,
		Generation:    assignment.Generation,
		ProgressError: known.err,
		Partitions:    make([]coordinator.PartitionStatus, m.Partitions),
	}
	for p := range st.Partitions {
		st.Partitions[p].Partition = ps.Partition(p)
		if p < len(assignment.Owners) {
			st.Partitions[p].Worker = assignment.Owners[p]
		}
	}
	addEnds(st.Partitions, v.Workers, m.Name)
	addProgress(&st, known.shards)
	return st
}

// addEnds takes over the ends that workers of the model have seen. Of several for one
// partition the largest is right, since a stream only grows.
func addEnds(partitions []coordinator.PartitionStatus, workers []coordinator.Worker, model string) {
	for _, w := range workers {
		if w.Model != model {
			continue
		}
		for _, r := range w.Report.Partitions {
			if r.EndKnown && int(r.Partition) < len(partitions) {
				p := &partitions[r.Partition]
				p.End, p.EndKnown = max(p.End, r.End), true
			}
			if int(r.Partition) < len(partitions) {
				p := &partitions[r.Partition]
				p.Newest = max(p.Newest, r.Newest)
			}
		}
	}
}

// addProgress sums the shards up.
func addProgress(st *coordinator.ModelStatus, shards []ps.ShardProgress) {
	for i, shard := range shards {
		st.Rows += shard.Rows
		for p := range st.Partitions {
			var at ps.Progress // a shard that was never pushed to may have none
			if p < len(shard.Partitions) {
				at = shard.Partitions[p]
			}
			partition := &st.Partitions[p]
			if i == 0 || at.Applied < partition.Applied {
				partition.Applied = at.Applied
			}
			// Every shard skips the same events, only not at the same time.
			partition.Skipped = max(partition.Skipped, at.Skipped)
			partition.EventTime = max(partition.EventTime, at.EventTime)
		}
	}
}

// withoutOwner counts the shards that no living node owns.
func withoutOwner(v coordinator.View) int {
	m, n := v.Map(), 0
	for s := range m.Shards {
		if _, err := m.Address(ps.ShardID(s)); err != nil {
			n++
		}
	}
	return n
}

// statusMessage returns a status as it travels.
func statusMessage(st coordinator.Status) *adminv1.Status {
	message := &adminv1.Status{
		Cluster:            st.Cluster,
		Shards:             uint32(st.Shards),
		ShardsWithoutOwner: uint32(st.ShardsWithoutOwner),
		MapVersion:         st.MapVersion,
	}
	for _, n := range st.Nodes {
		message.Nodes = append(message.Nodes, &adminv1.NodeStatus{
			Id: string(n.ID), Address: n.Address, Shards: uint32(n.Shards), Copies: uint32(n.Copies), Arriving: uint32(n.Arriving),
			Name: n.Name, Zone: n.Zone, Capacity: n.Capacity, Draining: n.Draining,
		})
	}
	for _, w := range st.Workers {
		partitions := make([]uint32, len(w.Partitions))
		for i, p := range w.Partitions {
			partitions[i] = uint32(p)
		}
		message.Workers = append(message.Workers, &adminv1.WorkerStatus{
			Id: w.ID, Model: w.Model, Partitions: partitions, Events: w.Events, BusySeconds: w.BusySeconds,
		})
	}
	for _, m := range st.Models {
		model := &adminv1.ModelStatus{
			Name:          m.Name,
			Version:       m.Version,
			Stream:        string(m.Stream),
			Generation:    uint64(m.Generation),
			Rows:          m.Rows,
			ProgressError: m.ProgressError,
		}
		for _, p := range m.Partitions {
			model.Partitions = append(model.Partitions, &adminv1.PartitionStatus{
				Partition: uint32(p.Partition),
				Worker:    p.Worker,
				Applied:   uint64(p.Applied),
				End:       uint64(p.End),
				EndKnown:  p.EndKnown,
				Skipped:   p.Skipped,
				EventTime: p.EventTime,
				Newest:    uint64(p.Newest),
			})
		}
		message.Models = append(message.Models, model)
	}
	return message
}

// statusWords is the inverse of statusMessage.
func statusWords(message *adminv1.Status) coordinator.Status {
	st := coordinator.Status{
		Cluster:            message.GetCluster(),
		Shards:             int(message.GetShards()),
		ShardsWithoutOwner: int(message.GetShardsWithoutOwner()),
		MapVersion:         message.GetMapVersion(),
		Nodes:              make([]coordinator.NodeStatus, 0, len(message.GetNodes())),
		Workers:            make([]coordinator.WorkerStatus, 0, len(message.GetWorkers())),
		Models:             make([]coordinator.ModelStatus, 0, len(message.GetModels())),
	}
	for _, n := range message.GetNodes() {
		st.Nodes = append(st.Nodes, coordinator.NodeStatus{
			ID: ps.NodeID(n.GetId()), Address: n.GetAddress(), Shards: int(n.GetShards()), Copies: int(n.GetCopies()), Arriving: int(n.GetArriving()),
			Name: n.GetName(), Zone: n.GetZone(), Capacity: n.GetCapacity(), Draining: n.GetDraining(),
		})
	}
	for _, w := range message.GetWorkers() {
		partitions := make([]ps.Partition, len(w.GetPartitions()))
		for i, p := range w.GetPartitions() {
			partitions[i] = ps.Partition(p)
		}
		st.Workers = append(st.Workers, coordinator.WorkerStatus{
			ID: w.GetId(), Model: w.GetModel(), Partitions: partitions, Events: w.GetEvents(), BusySeconds: w.GetBusySeconds(),
		})
	}
	for _, m := range message.GetModels() {
		model := coordinator.ModelStatus{
			Name:          m.GetName(),
			Version:       m.GetVersion(),
			Stream:        ps.StreamID(m.GetStream()),
			Generation:    ps.Generation(m.GetGeneration()),
			Rows:          m.GetRows(),
			ProgressError: m.GetProgressError(),
			Partitions:    make([]coordinator.PartitionStatus, len(m.GetPartitions())),
		}
		for i, p := range m.GetPartitions() {
			model.Partitions[i] = coordinator.PartitionStatus{
				Partition: ps.Partition(p.GetPartition()),
				Worker:    p.GetWorker(),
				Applied:   ps.Offset(p.GetApplied()),
				End:       ps.Offset(p.GetEnd()),
				EndKnown:  p.GetEndKnown(),
				Skipped:   p.GetSkipped(),
				EventTime: p.GetEventTime(),
				Newest:    ps.Offset(p.GetNewest()),
			}
		}
		st.Models = append(st.Models, model)
	}
	return st
}
