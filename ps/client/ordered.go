package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	psv1 "github.com/freshet-ml/freshet/proto/freshet/ps/v1"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/wire"
)

// ordered is the stream of all pushes to one node, and of the pulls that have to see them.
type ordered struct {
	cancel context.CancelFunc
	turn   chan struct{} // capacity 1: held while a message is sent, so that waiting keeps their order
	opened chan struct{} // closed by run once stream is set or could not be

	stream grpc.ClientStream // set before opened is closed
	kept   []keptPull        // owned by who has the turn; the last that the node keeps

	mu      sync.Mutex
	waiting []waiter       // guarded by mu; sent and not answered, in order
	pushes  int            // guarded by mu; how many of waiting are pushes
	broken  error          // guarded by mu; set once, by run
	sends   sync.WaitGroup // pulls that are being sent; added to under mu while broken is nil
}

// keptPull is a pull that the node keeps the keys of.
type keptPull struct {
	number uint64
	shards []ps.ShardID // ascending
}

// waiter is who waits for the answer to a message. Its methods are called by the stream's
// own goroutine and must not block.
type waiter interface {
	// take takes in a message of the answer, and reports whether it was the last. An
	// error ends the stream; fail is then called.
	take(m *wire.Response) (done bool, err error)
	fail(err error)
}

// ordered returns the stream to an address, which may still be opening.
func (c *Client) ordered(address string) (*ordered, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.pushes[address]; s != nil {
		return s, nil
	}
	conn, err := c.connLocked(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(c.life)
	s := &ordered{cancel: cancel, turn: make(chan struct{}, 1), opened: make(chan struct{})}
	c.pushes[address] = s
	c.tasks.Add(1)
	go func() {
		defer c.tasks.Done()
		defer c.forget(address, s)
		s.run(ctx, conn)
		cancel()
		s.sends.Wait()
	}()
	return s, nil
}

// behindPushes returns the stream to an address if there are pushes on it that were not
// answered, else nil.
func (c *Client) behindPushes(address string) *ordered {
	c.mu.Lock()
	s := c.pushes[address]
	c.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pushes == 0 {
		return nil
	}
	return s
}

// forget makes the next push to an address open another stream than s.
func (c *Client) forget(address string, s *ordered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pushes[address] == s {
		delete(c.pushes, address)
	}
}

// begin waits until it is the caller's turn to send, and puts w behind those who wait for
// answers. If the stream was broken before, or ctx ends, it returns why, with w untouched
// and no turn. The caller ends the turn when it has sent.
func (s *ordered) begin(ctx context.Context, w ...waiter) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for earlier pushes: %w: %w", ps.ErrUnavailable, ctx.Err())
	}
	var err error
	select {
	case <-s.opened:
		err = s.wait(w...)
	case <-ctx.Done():
		err = fmt.Errorf("connecting: %w: %w", ps.ErrUnavailable, ctx.Err())
	}
	if err != nil {
		<-s.turn
	}
	return err
}

// exchange sends, as one message, those of u's items that are p's and what p pulls, and lets
// p wait for the answers. It returns what begin does.
func (s *ordered) exchange(ctx context.Context, u *ps.Update, p *part) error {
	if err := s.begin(ctx, p.waiters()...); err != nil {
		return err
	}
	defer func() { <-s.turn }()
	// A message cannot be taken back half sent, so giving up ends the stream. run
	// then tells everybody who waits, p among them.
	giveUp := context.AfterFunc(ctx, s.cancel)
	defer giveUp()
	defer s.sends.Done()
	var push, pull *wire.Message
	if len(p.positions) > 0 {
		push = wire.Pushing(u, p.positions, s.known(u.Pulled))
	}
	if p.pull != nil {
		pull = p.pull.request()
		s.keep(p.pull.number, p.pull.shards)
	}
	switch {
	case pull == nil:
		s.send(push)
	case push == nil:
		s.send(pull)
	default:
		s.send(wire.Join(push, pull))
	}
	return nil
}

// pull sends m, a request for p's rows, and lets p wait for them. It returns what begin
// does. If ctx ends meanwhile the message is sent all the same: the stream is others', too.
func (s *ordered) pull(ctx context.Context, m *wire.Message, p *orderedPull) error {
	if err := s.begin(ctx, p); err != nil {
		m.Free()
		return err
	}
	if p.number != 0 {
		s.keep(p.number, p.shards)
	}
	go func() {
		defer s.sends.Done()
		defer func() { <-s.turn }()
		s.send(m)
	}()
	return nil
}

// keep notes what the node will keep, as it does: the last few, and of a number the last.
func (s *ordered) keep(number uint64, shards []ps.ShardID) {
	for i := range s.kept {
		if s.kept[i].number == number {
			s.kept[i].shards = shards
			return
		}
	}
	if len(s.kept) == wire.PullsKept {
		s.kept = append(s.kept[:0], s.kept[1:]...)
	}
	s.kept = append(s.kept, keptPull{number, shards})
}

// known returns the shards of which the node keeps the keys of a pull.
func (s *ordered) known(number uint64) []ps.ShardID {
	for i := range s.kept {
		if number != 0 && s.kept[i].number == number {
			return s.kept[i].shards
		}
	}
	return nil
}

func (s *ordered) send(m *wire.Message) {
	if s.stream.SendMsg(m) != nil {
		s.cancel() // run is told why
	}
	m.Free()
}

// wait puts waiters behind those who wait for answers and counts a send, unless the stream
// is broken.
func (s *ordered) wait(waiters ...waiter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	s.sends.Add(1)
	for _, w := range waiters {
		s.waiting = append(s.waiting, w)
		if _, push := w.(*part); push {
			s.pushes++
		}
	}
	return nil
}

// run opens the stream and hands answers to those who wait for them until it ends.
func (s *ordered) run(ctx context.Context, conn *grpc.ClientConn) {
	var err error
	if s.stream, err = psv1.NewParametersClient(conn).Exchange(ctx); err != nil {
		s.end(err)
		close(s.opened)
		return
	}
	close(s.opened)
	for {
		if err := s.receive(); err != nil {
			s.end(err)
			return
		}
	}
}

// receive hands the next message to who waits for it.
func (s *ordered) receive() error {
	var m wire.Response
	if err := s.stream.RecvMsg(&m); err != nil {
		return err
	}
	defer m.Free()
	for {
		w := s.first()
		if w == nil {
			return fmt.Errorf("an answer to no request: %w", ps.ErrCorrupt)
		}
		// It waits until it is done, so that end tells it if its answer is cut off.
		done, err := w.take(&m)
		if err != nil || !done {
			return err
		}
		s.answered()
		if p, push := w.(*part); !push || p.pull == nil {
			return nil
		}
		// The message has rows as well, for who comes next.
	}
}

// first returns who has waited longest, or nil.
func (s *ordered) first() waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return nil
	}
	return s.waiting[0]
}

// answered takes out who has waited longest.
func (s *ordered) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, push := s.waiting[0].(*part); push {
		s.pushes--
	}
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
}

// end marks the stream as broken by err and tells everybody who waits.
func (s *ordered) end(err error) {
	broken := brokenBy(err)
	s.mu.Lock()
	s.broken = broken
	waiting := s.waiting
	s.waiting, s.pushes = nil, 0
	s.mu.Unlock()
	for _, w := range waiting {
		w.fail(broken)
	}
}

// brokenBy returns why a stream ended. An end for no reason that the node gave
// means that it cannot be reached this way any more.
func brokenBy(err error) error {
	err = wire.FromStatus(err)
	if errors.Is(err, context.Canceled) || wire.Reason(err) == "INTERNAL" {
		return fmt.Errorf("the stream broke: %w: %w", ps.ErrUnavailable, err)
	}
	return err
}
