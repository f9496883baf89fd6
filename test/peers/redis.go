package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// redis is a Redis server of our own, without persistence, and a connection to it. The
// client is as lean as one can be (it knows how long a reply is), so that what is
// measured is the server.
type redis struct {
	process *exec.Cmd
	log     *os.File
	conn    net.Conn
	in      *bufio.Reader
	values  []byte // of the last MGET
	script  string // its SHA-1
	rows    int
}

const (
	keyBytes   = 8
	valueBytes = 4 * width
	// entryBytes is what a value takes in a reply or a request.
	entryBytes = len("$64\r\n") + valueBytes + len("\r\n")
)

// accumulate is what a push does, as a script: it adds 16 floats to each row. It makes no
// tables per row, which is twice as fast as the obvious loop.
func accumulate() string {
	var before, change, sums []string
	for i := range width {
		before = append(before, fmt.Sprintf("a%d", i))
		change = append(change, fmt.Sprintf("b%d", i))
		sums = append(sums, fmt.Sprintf("a%d+b%d", i, i))
	}
	return fmt.Sprintf(`local f = '<%s'
local call, unpack, pack = redis.call, struct.unpack, struct.pack
for i, k in ipairs(KEYS) do
  local %s = unpack(f, call('GET', k))
  local %s = unpack(f, ARGV[i])
  call('SET', k, pack(f, %s))
end
return #KEYS`, strings.Repeat("f", width), strings.Join(before, ","), strings.Join(change, ","), strings.Join(sums, ","))
}

// installRedis makes sure that there is a redis-server.
func installRedis(ctx context.Context) error {
	if _, err := exec.LookPath("redis-server"); err == nil {
		return nil
	}
	install := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", "redis-server", "redis-tools")
	install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := install.CombinedOutput()
	if err == nil {
		_, err = exec.LookPath("redis-server")
	}
	if err != nil {
		return fmt.Errorf("redis cannot be installed: apt-get install redis-server: %w: %s", err, lastLine(out))
	}
	return nil
}

// startRedis starts a server and fills it with rows. What it returns is to be closed even
// if there is an error.
func startRedis(ctx context.Context, dir string, rows int) (r *redis, err error) {
	r = &redis{rows: rows}
	free, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return r, err
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		return r, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return r, err
	}
	if r.log, err = os.CreateTemp(dir, "redis-*.log"); err != nil {
		return r, err
	}
	r.process = exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port,
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", dir)
	r.process.Stdout, r.process.Stderr = r.log, r.log
	r.process.SysProcAttr = ended()
	if err := r.process.Start(); err != nil {
		r.process = nil
		return r, fmt.Errorf("start redis-server: %w", err)
	}
	if err := r.dial(ctx, address); err != nil {
		return r, err
	}
	return r, r.fill()
}

// dial connects, as soon as the server listens.
func (r *redis) dial(ctx context.Context, address string) (err error) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if r.conn, err = new(net.Dialer).DialContext(ctx, "tcp", address); err == nil {
			r.in = bufio.NewReaderSize(r.conn, 1<<20)
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("redis-server does not answer at %s within %v: %w", address, patience, err)
		}
	}
}

// close ends the server.
func (r *redis) close() error {
	if r.conn != nil {
		_ = r.conn.Close() // the server is about to end
	}
	if r.process != nil {
		if err := r.process.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		_ = r.process.Wait() // it was told to
	}
	if r.log == nil {
		return nil
	}
	return errors.Join(r.log.Close(), os.Remove(r.log.Name()))
}

// fill sets every row and loads the script.
func (r *redis) fill() error {
	const most = 4096
	var buf []byte
	keys := make([]uint64, 0, most)
	for row := range r.rows {
		if keys = append(keys, uint64(row)); len(keys) < most && row < r.rows-1 {
			continue
		}
		buf = mset(buf[:0], keys)
		if err := r.one(buf, r.status); err != nil {
			return err
		}
		keys = keys[:0]
	}
	text := accumulate()
	return r.one(fmt.Appendf(nil, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%d\r\n%s\r\n", len(text), text), func(int) error {
		if _, err := r.line('$'); err != nil {
			return err
		}
		sha, err := r.in.ReadString('\n')
		r.script = strings.TrimSpace(sha)
		return err
	})
}

// one sends a request and takes its reply.
func (r *redis) one(request []byte, reply func(keys int) error) error {
	if _, err := r.conn.Write(request); err != nil {
		return err
	}
	return reply(0)
}

// line reads a line and returns what is behind its first byte, which must be kind.
func (r *redis) line(kind byte) (string, error) {
	text, err := r.in.ReadString('\n')
	if err != nil {
		return "", err
	}
	if text = strings.TrimSuffix(text, "\r\n"); text == "" || text[0] != kind {
		return "", fmt.Errorf("redis answered %q", text)
	}
	return text[1:], nil
}

// status takes the reply of a MSET.
func (r *redis) status(int) error {
	_, err := r.line('+')
	return err
}

// number takes the reply of the script.
func (r *redis) number(keys int) error {
	text, err := r.line(':')
	if err == nil && text != strconv.Itoa(keys) {
		err = fmt.Errorf("the script changed %s rows, want %d", text, keys)
	}
	return err
}

// rowsOf takes the reply of a MGET.
func (r *redis) rowsOf(keys int) error {
	text, err := r.line('*')
	if err != nil {
		return err
	}
	if text != strconv.Itoa(keys) {
		return fmt.Errorf("redis answered with %s rows, want %d", text, keys)
	}
	r.values = slices.Grow(r.values[:0], keys*valueBytes)
	for range keys {
		entry, err := r.in.Peek(entryBytes)
		if err != nil {
			return err
		}
		if string(entry[:5]) != "$64\r\n" {
			return fmt.Errorf("redis answered %q for a row, want 64 bytes", entry[:5])
		}
		r.values = append(r.values, entry[5:5+valueBytes]...)
		if _, err := r.in.Discard(entryBytes); err != nil {
			return err
		}
	}
	return nil
}

func appendKey(buf []byte, key uint64) []byte {
	buf = append(buf, "$8\r\n"...)
	buf = binary.LittleEndian.AppendUint64(buf, key)
	return append(buf, "\r\n"...)
}

// someValue is a row of floats: every request carries the same.
var someValue = func() []byte {
	value := []byte("$64\r\n")
	for range width {
		value = append(value, 0, 0, 0x80, 0x3c) // 1/64, little-endian
	}
	return append(value, "\r\n"...)
}()

func mget(buf []byte, keys []uint64) []byte {
	buf = fmt.Appendf(buf, "*%d\r\n$4\r\nMGET\r\n", 1+len(keys))
	for _, key := range keys {
		buf = appendKey(buf, key)
	}
	return buf
}

func mset(buf []byte, keys []uint64) []byte {
	buf = fmt.Appendf(buf, "*%d\r\n$4\r\nMSET\r\n", 1+2*len(keys))
	for _, key := range keys {
		buf = append(appendKey(buf, key), someValue...)
	}
	return buf
}

// evalsha returns a function that writes a request to add to rows.
func (r *redis) evalsha(buf []byte, keys []uint64) []byte {
	count := strconv.Itoa(len(keys))
	buf = fmt.Appendf(buf, "*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%s\r\n", 3+2*len(keys), r.script, len(count), count)
	for _, key := range keys {
		buf = appendKey(buf, key)
	}
	for range keys {
		buf = append(buf, someValue...)
	}
	return buf
}

// command is one of the requests that are measured.
type command struct {
	write func(buf []byte, keys []uint64) []byte
	read  func(keys int) error
}

// rate sends requests of random keys for a while, with so many under way, and returns
// keys per second and per CPU-second of the server.
func (r *redis) rate(c command, keys, depth int, seconds float64) (perSecond, perCPU float64, err error) {
	before, err := processorTime(r.process.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	end := start.Add(time.Duration(seconds * float64(time.Second)))
	tokens := make(chan struct{}, depth) // one per request under way
	written := make(chan error, 1)
	go func() {
		defer close(tokens)
		random, drawn := rand.New(rand.NewPCG(1, uint64(depth))), make([]uint64, keys)
		var buf []byte
		for time.Now().Before(end) {
			buf = c.write(buf[:0], r.draw(random, drawn))
			tokens <- struct{}{}
			if _, err := r.conn.Write(buf); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	requests := 0
	for range tokens {
		if err := c.read(keys); err != nil {
			_ = r.conn.Close() // which ends who writes; the connection is of no more use
			for range tokens {
			}
			return 0, 0, errors.Join(err, <-written)
		}
		requests++
	}
	if err := <-written; err != nil {
		return 0, 0, err
	}
	took := time.Since(start).Seconds()
	after, err := processorTime(r.process.Process.Pid)
	return float64(requests*keys) / took, float64(requests*keys) / (after - before), err
}

// latency sends requests of random keys one after the other and returns the median time
// from the first byte written to the last value read, in microseconds.
func (r *redis) latency(c command, keys int, seconds float64) (p50 float64, err error) {
	random, drawn := rand.New(rand.NewPCG(2, 2)), make([]uint64, keys)
	var buf []byte
	var times []float64
	for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); time.Now().Before(end); {
		r.draw(random, drawn)
		start := time.Now()
		buf = c.write(buf[:0], drawn)
		if _, err := r.conn.Write(buf); err != nil {
			return 0, err
		}
		if err := c.read(keys); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/1e3)
	}
	if len(times) == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	return median(times), nil
}

// draw sets keys to random rows.
func (r *redis) draw(random *rand.Rand, keys []uint64) []uint64 {
	for i := range keys {
		keys[i] = uint64(random.IntN(r.rows))
	}
	return keys
}
