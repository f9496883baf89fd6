//go:build linux

package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps/server"
	"github.com/freshet-ml/freshet/ps/wire"
)

// trick is what a proxy does to one push of an exchange.
type trick int

const (
	noTrick        trick = iota
	duplicate            // the node gets it twice
	replayLate           // the node gets it once more later, by another stream
	reorder              // the node gets it after the one behind it
	delay                // the node gets it late, and all behind it
	drop                 // the node never gets it, and the stream breaks
	truncate             // the node gets a part of it
	loseAnswer           // the node gets it, and the stream breaks before it can say so
	truncateAnswer       // the client gets a part of what the node answers
)

// proxy stands between a node and everybody else, who know only its address. It
// forwards every call as it is, but for the tricks that it is asked to play on
// messages of push streams, and for connections (see link). Nothing that a proxy does
// may cost an event: it is the network.
type proxy struct {
	t       *testing.T
	link    *link
	address string
	target  string // the node's address
	conn    *grpc.ClientConn
	pace    *pace
	seen    *outcomes

	mu    sync.Mutex
	armed *prank // guarded by mu; nil if there is none
}

// prank is a trick to be played once. done is closed when it has worked.
type prank struct {
	trick trick
	done  chan struct{}
}

// outcomes counts what nodes answered to items, over all proxies of a test.
type outcomes struct {
	mu sync.Mutex
	n  map[psv1.Outcome]int
}

func (o *outcomes) add(answers *psv1.PushResponse) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range answers.GetAnswers() {
		o.n[a.GetOutcome()]++
	}
}

func (o *outcomes) count(outcome psv1.Outcome) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[outcome]
}

// pace lets the stream's new events through at a rate, so that there is work under
// way whenever a fault comes; what is replayed goes as fast as it can.
type pace struct {
	mu   sync.Mutex
	rate float64 // guarded by mu; events per second, 0: no bound
	next time.Time
	ends map[uint32]uint64 // guarded by mu; how far each partition has come
}

func (p *pace) set(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// wait returns when a push of a partition up to an offset may go on.
func (p *pace) wait(partition uint32, to uint64) {
	p.mu.Lock()
	now, fresh := time.Now(), uint64(0)
	if end := p.ends[partition]; to > end {
		fresh, p.ends[partition] = to-end, to
	}
	if p.next.Before(now) {
		p.next = now
	}
	if p.rate > 0 {
		p.next = p.next.Add(time.Duration(float64(fresh) / p.rate * float64(time.Second)))
	}
	d := time.Duration(0)
	if fresh > 0 {
		d = p.next.Sub(now)
	}
	p.mu.Unlock()
	time.Sleep(min(d, time.Second))
}

// bytesCodec hands messages through as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}
func (bytesCodec) Name() string { return "proto" }

// newProxy starts a proxy for a node that will listen at target.
func newProxy(t *testing.T, target string, pace *pace, seen *outcomes) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, link: newLink(listener), address: listener.Addr().String(), target: target, pace: pace, seen: seen}
	p.conn, err = grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}),
			grpc.MaxCallRecvMsgSize(wire.MessageBytesMax), grpc.MaxCallSendMsgSize(wire.MessageBytesMax)),
		grpc.WithInitialWindowSize(8<<20), grpc.WithInitialConnWindowSize(32<<20),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(server.Options(), grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(p.handle))...)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(p.link)
	}()
	t.Cleanup(func() {
		s.Stop()
		p.conn.Close()
		<-served
	})
	return p
}

// arm has the proxy play a trick on the next message it can be played on. What is
// returned is closed when it has worked.
func (p *proxy) arm(trick trick) <-chan struct{} {
	k := &prank{trick: trick, done: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = k
	return k.done
}

// take returns the prank to play now, if it is to be played on pushes or on answers.
func (p *proxy) take(answer bool) *prank {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.armed
	if k == nil || answer != (k.trick == loseAnswer || k.trick == truncateAnswer) {
		return &prank{}
	}
	p.armed = nil
	return k
}

// again arms a prank that has not worked, unless there is a newer one.
func (p *proxy) again(k *prank) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed == nil {
		p.armed = k
	}
}

// handle forwards one call.
func (p *proxy) handle(_ any, front grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(front)
	ctx, cancel := context.WithCancel(front.Context())
	defer cancel()
	back, err := p.open(ctx, method)
	if err != nil {
		return err
	}
	calls := &pushes{proxy: p, front: front, back: back, ready: make(map[int][][]byte)}
	defer calls.end()
	// What sends waits for the client, which may be until this call has returned.
	broken := make(chan error, 1)
	send, answer := calls.send, calls.answer
	if method != psv1.Parameters_Exchange_FullMethodName {
		send, answer = calls.forward, calls.relay
	}
	go func() {
		err := send(ctx)
		broken <- err
		if err != nil {
			cancel()
		}
	}()
	return answer(broken)
}

func (p *proxy) open(ctx context.Context, method string) (grpc.ClientStream, error) {
	return p.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
}

// forward sends what a client asks to the node. It returns nil when the client is done.
func (c *pushes) forward(context.Context) error {
	for {
		var m []byte
		switch err := c.front.RecvMsg(&m); {
		case errors.Is(err, io.EOF):
			return c.back.CloseSend()
		case err != nil:
			return err
		}
		if c.back.SendMsg(&m) != nil {
			return nil // why is told by who receives
		}
	}
}

// pushes is one call through a proxy.
type pushes struct {
	proxy *proxy
	front grpc.ServerStream
	back  grpc.ClientStream

	mu    sync.Mutex
	sent  int              // guarded by mu; messages that the client has sent
	order []pending        // guarded by mu; what the node is to answer next
	ended bool             // guarded by mu; nothing more is answered
	next  int              // owned by answer; the message whose answer the client waits for
	ready map[int][][]byte // owned by answer; answers that came before their turn
	parts [][]byte         // owned by answer; of the answer that comes, without its last

	said *psv1.PushResponse // owned by answer; what its parts say of the push
}

// pending is a message that the node has not answered.
type pending struct {
	message int    // its place in what the client sent; -1 for a copy, whose answer the client does not get
	push    bool   // without one, no tricks are played: pulls change nothing
	pull    bool   // perhaps behind the push
	prank   *prank // that has worked when the node answers with an outcome
	works   psv1.Outcome
}

// relay sends what the node answers to the client.
func (c *pushes) relay(broken <-chan error) error {
	for {
		var m []byte
		err := c.back.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.front.SendMsg(&m)
		}
		if err != nil {
			return told(err, broken)
		}
	}
}

// told returns what ended a call: what the sending half says, if it says anything.
func told(err error, broken <-chan error) error {
	select {
	case why := <-broken:
		if why != nil {
			return why
		}
	default:
	}
	return err
}

var errCut = status.Error(codes.Unavailable, "the proxy cut the stream")

// reorderWait is how long a message waits for one behind it.
const reorderWait = 50 * time.Millisecond

// send forwards pushes. It is the only one that sends to the node by this stream.
func (c *pushes) send(ctx context.Context) error {
	incoming := make(chan []byte)
	failed := make(chan error, 1)
	go func() {
		for {
			var m []byte
			if err := c.front.RecvMsg(&m); err != nil {
				failed <- err
				return
			}
			select {
			case incoming <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case m := <-incoming:
			if err := c.push(m, incoming); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return c.back.CloseSend()
			}
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// push forwards one push, or plays a trick on it.
func (c *pushes) push(m []byte, behind <-chan []byte) error {
	var request psv1.ExchangeRequest
	if err := proto.Unmarshal(m, &request); err != nil {
		return fmt.Errorf("a client sent what cannot be read: %w", err)
	}
	asked, joint := request.GetPush(), request.GetPull() != nil
	if asked == nil {
		c.pass(m, pending{message: c.number(), pull: true})
		return nil
	}
	alone, err := pushOf(&request)
	if err != nil {
		return err
	}
	c.proxy.pace.wait(asked.GetPartition(), asked.GetTo())
	k := c.proxy.take(false)
	switch k.trick {
	case duplicate:
		c.pass(m, pending{message: c.number(), push: true, pull: joint})
		c.pass(alone, pending{message: -1, push: true, prank: k, works: psv1.Outcome_OUTCOME_DUPLICATE})
	case replayLate:
		c.pass(m, pending{message: c.number(), push: true, pull: joint})
		go c.proxy.replay(alone, k)
	case reorder:
		return c.reorder(m, joint, behind, k)
	case delay:
		time.Sleep(300 * time.Millisecond)
		c.pass(m, pending{message: c.number(), push: true, pull: joint})
		close(k.done)
	case drop:
		close(k.done)
		return errCut
	case truncate:
		part := m[:len(m)-1]
		for cut := min(64, len(m)/2); cut > 0; cut-- { // a part that reads as a whole would be another message
			if proto.Unmarshal(m[:len(m)-cut], new(psv1.ExchangeRequest)) != nil {
				part = m[:len(m)-cut]
				break
			}
		}
		c.pass(part, pending{message: c.number(), push: true, pull: joint, prank: k, works: -1})
	default:
		c.pass(m, pending{message: c.number(), push: true, pull: joint})
	}
	return nil
}

// pushOf returns a request without its pull, and without the rows that refer to keys of an
// earlier one: another stream does not know these, and a shard that has the push already
// does not look at them.
func pushOf(request *psv1.ExchangeRequest) ([]byte, error) {
	push := proto.CloneOf(request.GetPush())
	for _, item := range push.GetItems() {
		item.Rows = slices.DeleteFunc(item.GetRows(), func(r *psv1.Rows) bool { return len(r.GetPulled()) > 0 })
	}
	return proto.Marshal(&psv1.ExchangeRequest{Push: push})
}

// reorder forwards a push after the one behind it, with the pulls between them.
func (c *pushes) reorder(m []byte, joint bool, behind <-chan []byte, k *prank) error {
	type held struct {
		m []byte
		p pending
	}
	late := []held{{m, pending{message: c.number(), push: true, pull: joint}}}
	timeout := time.After(reorderWait)
	for found := false; !found; {
		select {
		case next := <-behind:
			var request psv1.ExchangeRequest
			if err := proto.Unmarshal(next, &request); err != nil {
				return fmt.Errorf("a client sent what cannot be read: %w", err)
			}
			if found = request.GetPush() != nil; found {
				c.pass(next, pending{message: c.number(), push: true, pull: request.GetPull() != nil, prank: k, works: psv1.Outcome_OUTCOME_GAP})
			} else {
				late = append(late, held{next, pending{message: c.number(), pull: true}})
			}
		case <-timeout:
			found = true
			c.proxy.again(k)
		}
	}
	for _, h := range late {
		c.pass(h.m, h.p)
	}
	return nil
}

// number counts one message of the client's.
func (c *pushes) number() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	return c.sent - 1
}

// pass sends a message to the node. What goes wrong, who receives will be told.
func (c *pushes) pass(m []byte, p pending) {
	c.mu.Lock()
	ended := c.ended
	if !ended {
		c.order = append(c.order, p)
	}
	c.mu.Unlock()
	if ended && p.prank != nil { // its client died while it was held up here
		c.proxy.again(p.prank)
	}
	_ = c.back.SendMsg(&m)
}

// answer gives the node's answers to the client, in the order of what it sent.
func (c *pushes) answer(broken <-chan error) error {
	for {
		var m []byte
		if err := c.back.RecvMsg(&m); err != nil {
			c.refused(err)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return told(err, broken)
		}
		var response psv1.ExchangeResponse
		if err := proto.Unmarshal(m, &response); err != nil {
			return fmt.Errorf("a node answered what cannot be read: %w", err)
		}
		if response.GetPush() != nil {
			c.said = response.GetPush()
		}
		if response.GetMore() {
			c.parts = append(c.parts, m)
			continue
		}
		said := c.said
		c.said = nil
		c.proxy.seen.add(said)
		p := c.first()
		if rows := response.GetPull() != nil || response.GetReason() != ""; p.push != (said != nil) || p.pull != rows {
			return fmt.Errorf("a node answered a push (%v) and a pull (%v) with: a push %v, a pull %v", p.push, p.pull, said != nil, rows)
		}
		if p.prank != nil {
			if slices.ContainsFunc(said.GetAnswers(), func(a *psv1.Answer) bool { return a.GetOutcome() == p.works }) {
				close(p.prank.done)
			} else {
				c.proxy.again(p.prank)
			}
		}
		if p.message < 0 {
			continue
		}
		if p.push {
			var err error
			if m, err = c.spoil(m); err != nil {
				return err
			}
		}
		c.ready[p.message] = append(c.parts, m)
		c.parts = nil
		for parts, ok := c.ready[c.next]; ok; parts, ok = c.ready[c.next] {
			delete(c.ready, c.next)
			c.next++
			for _, part := range parts {
				if err := c.front.SendMsg(&part); err != nil {
					return told(err, broken)
				}
			}
		}
	}
}

// spoil plays a trick on the answer to a push, if one is to be played.
func (c *pushes) spoil(m []byte) ([]byte, error) {
	switch k := c.proxy.take(true); k.trick {
	case loseAnswer:
		close(k.done)
		return nil, errCut
	case truncateAnswer:
		m = m[:len(m)-1]
		if proto.Unmarshal(m, new(psv1.ExchangeResponse)) == nil {
			c.proxy.again(k)
			return nil, errCut
		}
		close(k.done)
	}
	return m, nil
}

// first takes out what the node has answered.
func (c *pushes) first() pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.order[0]
	c.order = c.order[1:]
	return p
}

// end settles everything when the call is over.
func (c *pushes) end() {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	c.refused(nil)
}

// refused settles the pranks of messages that the node did not answer: it was right to
// end the stream at a part of one.
func (c *pushes) refused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.order {
		switch {
		case p.prank == nil:
		case p.works < 0 && status.Code(err) == codes.Internal:
			close(p.prank.done)
		default:
			c.proxy.again(p.prank)
		}
	}
	c.order = nil
}

// replay sends a push again, long after it was answered, as a zombie would.
func (p *proxy) replay(m []byte, k *prank) {
	time.Sleep(500 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var said psv1.ExchangeResponse
	var raw []byte
	back, err := p.open(ctx, psv1.Parameters_Exchange_FullMethodName)
	if err == nil {
		err = back.SendMsg(&m)
	}
	if err == nil {
		err = back.RecvMsg(&raw)
	}
	if err == nil {
		err = proto.Unmarshal(raw, &said)
	}
	if err == nil && slices.ContainsFunc(said.GetPush().GetAnswers(), func(a *psv1.Answer) bool { return a.GetOutcome() == psv1.Outcome_OUTCOME_DUPLICATE }) {
		p.seen.add(said.GetPush())
		close(k.done)
		return
	}
	p.again(k)
}
