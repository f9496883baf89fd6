package meta

import (
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freshet-ml/freshet/ps"
)

// keys is the prefix of a cluster's keys and names every one of them; see DESIGN.md.
// What a client of the cluster needs is below routes, what a leader plans from is
// below routes and training, and what changes often or is large is below neither.
type keys string

func (k keys) cluster() string               { return string(k) + "cluster" }
func (k keys) leader() string                { return string(k) + "leader" }
func (k keys) routes() string                { return string(k) + "routes/" }
func (k keys) shardMap() string              { return k.routes() + "map" }
func (k keys) nodes() string                 { return k.routes() + "nodes/" }
func (k keys) node(id ps.NodeID) string      { return k.nodes() + string(id) }
func (k keys) training() string              { return string(k) + "training/" }
func (k keys) workers() string               { return k.training() + "workers/" }
func (k keys) worker(id string) string       { return k.workers() + id }
func (k keys) models() string                { return k.training() + "models/" }
func (k keys) model(name string) string      { return k.models() + name }
func (k keys) assignments() string           { return k.training() + "assignments/" }
func (k keys) assignment(name string) string { return k.assignments() + name }
func (k keys) epochs() string                { return k.training() + "epochs/" }
func (k keys) epoch(model string) string     { return k.epochs() + model }
func (k keys) drains() string                { return k.training() + "drains/" }
func (k keys) drain(id ps.NodeID) string     { return k.drains() + string(id) }
func (k keys) coordinators() string          { return string(k) + "coordinators/" }
func (k keys) coordinator(id string) string  { return k.coordinators() + id }
func (k keys) events() string                { return string(k) + "events/" }
func (k keys) reports() string               { return string(k) + "reports/" }
func (k keys) report(worker string) string   { return k.reports() + worker }
func (k keys) spec(model string) string      { return string(k) + "specs/" + model }

// get reads one key, below all keys with a prefix.
func get(key string) clientv3.Op      { return clientv3.OpGet(key) }
func below(prefix string) clientv3.Op { return clientv3.OpGet(prefix, clientv3.WithPrefix()) }

// absent and unchanged are conditions of a transaction.
func absent(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
}

func unchanged(key string, modified int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", modified)
}

// reading is what several gets found at one revision.
type reading struct {
	revision int64
	found    []*mvccpb.KeyValue // of all gets, in order
}

func newReading(got *clientv3.TxnResponse) *reading {
	r := &reading{revision: got.Header.Revision}
	for _, response := range got.Responses {
		if of := response.GetResponseRange(); of != nil {
			r.found = append(r.found, of.Kvs...)
		}
	}
	return r
}

// key returns a key that was found, or nil.
func (r *reading) key(key string) *mvccpb.KeyValue {
	for _, kv := range r.found {
		if string(kv.Key) == key {
			return kv
		}
	}
	return nil
}

// below calls visit with every key below prefix that was found and the rest of its
// name, ascending.
func (r *reading) below(prefix string, visit func(name string, kv *mvccpb.KeyValue) error) error {
	for _, kv := range r.found {
		if name, ok := strings.CutPrefix(string(kv.Key), prefix); ok {
			if err := visit(name, kv); err != nil {
				return err
			}
		}
	}
	return nil
}
