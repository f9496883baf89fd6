package membership

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Cable is a network cable that can be pulled: while it is, nothing comes in and
// nothing goes out, and connections that are open are closed.
type Cable struct {
	pulled atomic.Bool
}

// Through lets what cfg says go through the cable.
func (c *Cable) Through(cfg *Config) {
	cfg.wrap = func(s sockets) sockets {
		f := &filter{sockets: s, cable: c, packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{})}
		f.work.Go(func() { forward(f, s.PacketCh(), f.packets, func(*memberlist.Packet) {}) })
		f.work.Go(func() { forward(f, s.StreamCh(), f.streams, func(c net.Conn) { _ = c.Close() }) })
		return f
	}
}

// Pull pulls the cable, or plugs it in again.
func (c *Cable) Pull(pulled bool) { c.pulled.Store(pulled) }

type filter struct {
	sockets
	cable   *Cable
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	work    sync.WaitGroup
}

func forward[T any](f *filter, from <-chan T, to chan<- T, drop func(T)) {
	for {
		select {
		case v := <-from:
			if f.cable.pulled.Load() {
				drop(v)
				continue
			}
			select {
			case to <- v:
			case <-f.done:
				drop(v)
			}
		case <-f.done:
			return
		}
	}
}

var errPulled = errors.New("the cable is pulled")

func (f *filter) PacketCh() <-chan *memberlist.Packet { return f.packets }
func (f *filter) StreamCh() <-chan net.Conn           { return f.streams }

func (f *filter) WriteTo(b []byte, to string) (time.Time, error) {
	return f.WriteToAddress(b, memberlist.Address{Addr: to})
}

func (f *filter) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if f.cable.pulled.Load() {
		return time.Now(), nil // as UDP: nobody is told
	}
	return f.sockets.WriteToAddress(b, to)
}

func (f *filter) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	return f.DialAddressTimeout(memberlist.Address{Addr: to}, timeout)
}

func (f *filter) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if f.cable.pulled.Load() {
		return nil, errPulled
	}
	return f.sockets.DialAddressTimeout(to, timeout)
}

func (f *filter) Shutdown() error {
	err := f.sockets.Shutdown() // while forward still takes what its listeners hand over
	close(f.done)
	f.work.Wait()
	return err
}

// Set records what is known of a member, as memberlist's callbacks do.
func (p *Pool) Set(m Member) { p.table.set(m) }

// Forget forgets members that have been gone since before a time.
func (p *Pool) Forget(before time.Time) { p.table.forget(before) }
