//go:build linux

package test

import (
	"net"
	"sync"
	"time"
)

// link is a listener whose connections can be cut, delayed and stalled: the network
// between a node and everybody else.
type link struct {
	net.Listener

	mu    sync.Mutex
	conns map[*linkConn]bool // guarded by mu
	delay time.Duration      // guarded by mu; of every read and write
	// Guarded by mu; closed while bytes pass, and replaced to hold them up.
	in, out chan struct{}
	held    int // guarded by mu; reads and writes that were delayed or stalled
}

func newLink(listener net.Listener) *link {
	open := make(chan struct{})
	close(open)
	return &link{Listener: listener, conns: make(map[*linkConn]bool), in: open, out: open}
}

// Accept implements net.Listener.
func (l *link) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &linkConn{Conn: conn, link: l, closed: make(chan struct{})}
	l.mu.Lock()
	l.conns[c] = true
	l.mu.Unlock()
	return c, nil
}

// cut breaks all connections and returns how many there were.
func (l *link) cut() int {
	l.mu.Lock()
	conns := l.conns
	l.conns = make(map[*linkConn]bool)
	l.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	return len(conns)
}

// slow delays everything in both directions by d from now on.
func (l *link) slow(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// stall holds up what clients send (in) or what the node sends (out) until the
// returned function is called.
func (l *link) stall(in bool) (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	gate := make(chan struct{})
	if in {
		l.in = gate
	} else {
		l.out = gate
	}
	return func() { close(gate) }
}

// heldUp counts the reads and writes that were delayed or stalled.
func (l *link) heldUp() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// linkConn is one connection through a link.
type linkConn struct {
	net.Conn
	link   *link
	once   sync.Once
	closed chan struct{} // closed by Close
}

func (c *linkConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pass(true)
	return n, err
}

func (c *linkConn) Write(b []byte) (int, error) {
	c.pass(false)
	return c.Conn.Write(b)
}

// pass waits until the link lets bytes through.
func (c *linkConn) pass(in bool) {
	c.link.mu.Lock()
	gate, delay := c.link.in, c.link.delay
	if !in {
		gate = c.link.out
	}
	select {
	case <-gate:
		if delay > 0 {
			c.link.held++
		}
	default:
		c.link.held++
	}
	c.link.mu.Unlock()
	select {
	case <-gate:
	case <-c.closed:
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-c.closed:
		}
	}
}

func (c *linkConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}
