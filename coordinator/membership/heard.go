package membership

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/hashicorp/memberlist"
)

// farewellMark begins the message with which a member says that it leaves; its ID
// follows. It is on the wire: it never changes its meaning.
const farewellMark = 'L'

func farewell(id string) []byte { return append([]byte{farewellMark}, id...) }

// heard is what memberlist calls, from goroutines of its own and mostly with its lock
// held: nothing here blocks or calls memberlist back.
type heard struct {
	pool  *Pool
	about []byte // of this process

	mu     sync.Mutex
	double [3]string // the ID and addresses of the double that was logged last
}

// NotifyJoin is called for a member that is new, or was dead.
func (h *heard) NotifyJoin(n *memberlist.Node) { h.pool.table.set(member(n, Alive)) }

// NotifyUpdate is called for a member that says something else of itself.
func (h *heard) NotifyUpdate(n *memberlist.Node) { h.pool.table.set(member(n, Alive)) }

// NotifyLeave is called for a member that is dead or has left: memberlist does not say
// which. Who has left has said so before.
func (h *heard) NotifyLeave(n *memberlist.Node) {
	if n.Name == h.pool.cfg.ID {
		h.pool.table.set(member(n, Left)) // nobody can say so of us but ourselves
		return
	}
	h.pool.table.set(member(n, Dead))
}

// NotifyMsg is called for what a member has sent to us alone.
func (h *heard) NotifyMsg(message []byte) {
	if id, ok := bytes.CutPrefix(message, []byte{farewellMark}); ok && string(id) != h.pool.cfg.ID {
		h.pool.table.left(string(id))
	}
}

// NotifyMerge is called with all that a seed knows, or a member that has us as seed.
func (h *heard) NotifyMerge(theirs []*memberlist.Node) error {
	for _, n := range theirs {
		if n.Name != h.pool.cfg.ID || n.Address() == h.pool.self.Address || n.State == memberlist.StateLeft {
			continue
		}
		select {
		case h.pool.conflict <- n.Address():
		default:
		}
		h.log(n.Name, h.pool.self.Address, n.Address())
		return fmt.Errorf("two processes have the ID %s: one at %s and one at %s", n.Name, h.pool.self.Address, n.Address())
	}
	return nil
}

// NotifyConflict is called when a living member is said to be at another address too.
// memberlist stays with the one it knew.
func (h *heard) NotifyConflict(known, other *memberlist.Node) {
	h.log(known.Name, known.Address(), other.Address())
}

// log names a double once, and not with every packet that tells of it.
func (h *heard) log(id, known, other string) {
	h.mu.Lock()
	now := [3]string{id, known, other}
	again := h.double == now
	h.double = now
	h.mu.Unlock()
	if !again {
		h.pool.cfg.Logger.Error("two processes have the same ID in the gossip pool; the one that was known first is kept", "id", id, "known", known, "other", other)
	}
}

// NodeMeta returns what this process says of itself.
func (h *heard) NodeMeta(int) []byte { return h.about }

// GetBroadcasts returns nothing: all there is to say is memberlist's own.
func (h *heard) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState returns nothing, as GetBroadcasts.
func (h *heard) LocalState(bool) []byte { return nil }

// MergeRemoteState takes what LocalState returned.
func (h *heard) MergeRemoteState([]byte, bool) {}

func member(n *memberlist.Node, state State) Member {
	return Member{ID: n.Name, Role: decodeAbout(n.Meta).Role, Address: n.Address(), State: state}
}
