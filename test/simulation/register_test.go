package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// register is etcd: keys with revisions, changed by transactions. It is what the
// product's store believes to speak to.
type register struct {
	clientv3.KV // nil: only Txn is used
	world       *world

	revision int64
	keys     []*mvccpb.KeyValue // ascending
}

var errEtcd = errors.New("etcd has no leader")

func (r *register) find(key string) (int, bool) {
	return slices.BinarySearchFunc(r.keys, key, func(kv *mvccpb.KeyValue, key string) int {
		return strings.Compare(string(kv.Key), key)
	})
}

func (r *register) get(key string) *mvccpb.KeyValue {
	if i, found := r.find(key); found {
		return r.keys[i]
	}
	return nil
}

// put stores a value at the revision under way.
func (r *register) put(key string, value []byte) {
	i, found := r.find(key)
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: bytes.Clone(value), CreateRevision: r.revision, ModRevision: r.revision, Version: 1}
	if found {
		kv.CreateRevision, kv.Version = r.keys[i].CreateRevision, r.keys[i].Version+1
		r.keys[i] = kv
		return
	}
	r.keys = slices.Insert(r.keys, i, kv)
}

// set changes one key by itself.
func (r *register) set(key string, value []byte) {
	r.revision++
	r.put(key, value)
}

// remove deletes one key by itself, as the end of its lease does.
func (r *register) remove(key string) {
	if i, found := r.find(key); found {
		r.revision++
		r.keys = slices.Delete(r.keys, i, i+1)
	}
}

// Txn begins a transaction.
func (r *register) Txn(context.Context) clientv3.Txn { return &transaction{register: r} }

type transaction struct {
	register        *register
	conditions      []clientv3.Cmp
	then, otherwise []clientv3.Op
}

func (t *transaction) If(c ...clientv3.Cmp) clientv3.Txn  { t.conditions = c; return t }
func (t *transaction) Then(o ...clientv3.Op) clientv3.Txn { t.then = o; return t }
func (t *transaction) Else(o ...clientv3.Op) clientv3.Txn { t.otherwise = o; return t }

// Commit is a step of its own: whatever the caller has read before may be old by then.
func (t *transaction) Commit() (*clientv3.TxnResponse, error) {
	r, w := t.register, t.register.world
	writes := slices.ContainsFunc(t.then, func(o clientv3.Op) bool { return o.IsPut() })
	self := w.current
	if self != nil {
		self.between = writes
	}
	if err := w.pause(); err != nil {
		return nil, err
	}
	if self != nil {
		self.between = false
		if w.strikes(etcdDown, 25) {
			w.tracef("%s: etcd does not answer", self.name)
			w.bite(etcdDown)
			return nil, errEtcd
		}
	}
	holds := t.holds()
	do := t.otherwise
	if holds {
		do = t.then
	} else if writes {
		w.conflicts++
		if w.leaders() > 1 {
			w.bite(twoLeaders)
		}
		w.tracef("%s: a transaction conflicts", w.running())
	}
	if holds && writes {
		r.revision++
	}
	response := &etcdserverpb.TxnResponse{Header: &etcdserverpb.ResponseHeader{}, Succeeded: holds}
	written := ""
	for _, o := range do {
		switch {
		case o.IsPut():
			r.put(string(o.KeyBytes()), o.ValueBytes())
			written += " " + string(o.KeyBytes())
			response.Responses = append(response.Responses, &etcdserverpb.ResponseOp{Response: &etcdserverpb.ResponseOp_ResponsePut{}})
		default:
			found := r.within(string(o.KeyBytes()), string(o.RangeBytes()))
			response.Responses = append(response.Responses, &etcdserverpb.ResponseOp{
				Response: &etcdserverpb.ResponseOp_ResponseRange{ResponseRange: &etcdserverpb.RangeResponse{Kvs: found}},
			})
		}
	}
	response.Header.Revision = r.revision
	if written != "" {
		w.tracef("%s: commits%s at revision %d", w.running(), written, r.revision)
		w.committed()
		if self != nil && w.strikes(etcdAnswerLost, 3) {
			w.tracef("%s: and does not hear of it", self.name)
			w.bite(etcdAnswerLost)
			return nil, errEtcd
		}
	}
	return (*clientv3.TxnResponse)(response), nil
}

// within returns the keys in [from, end), or the key from if end is empty.
func (r *register) within(from, end string) []*mvccpb.KeyValue {
	i, found := r.find(from)
	if end == "" {
		if !found {
			return nil
		}
		return r.keys[i : i+1 : i+1]
	}
	j, _ := r.find(end)
	return slices.Clone(r.keys[i:j])
}

// holds reports whether all conditions do.
func (t *transaction) holds() bool {
	for i := range t.conditions {
		c := t.conditions[i].GetCompare()
		if t.register.world.variant.ignores(t, string(c.Key)) {
			continue
		}
		kv := t.register.get(string(c.Key))
		if kv == nil {
			kv = &mvccpb.KeyValue{}
		}
		is, want := kv.ModRevision, c.GetModRevision()
		if c.Target == etcdserverpb.Compare_CREATE {
			is, want = kv.CreateRevision, c.GetCreateRevision()
		}
		if is != want {
			return false
		}
	}
	return true
}

// writes reports whether the transaction would write a key.
func (t *transaction) writes(key string) bool {
	return slices.ContainsFunc(t.then, func(o clientv3.Op) bool { return o.IsPut() && string(o.KeyBytes()) == key })
}
