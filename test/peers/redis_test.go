package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"os/exec"
	"strings"
	"testing"
)

func TestRequestsToRedisAreWhatItsProtocolSays(t *testing.T) {
	r := &redis{script: strings.Repeat("a", 40)}
	const one, two = "$8\r\n\x01\x00\x00\x00\x00\x00\x00\x00\r\n", "$8\r\n\x02\x00\x00\x00\x00\x00\x00\x00\r\n"
	value := "$64\r\n" + strings.Repeat("\x00\x00\x80\x3c", 16) + "\r\n"
	for name, test := range map[string]struct {
		got  []byte
		want string
	}{
		"MGET":    {mget(nil, []uint64{1, 2}), "*3\r\n$4\r\nMGET\r\n" + one + two},
		"MSET":    {mset(nil, []uint64{1, 2}), "*5\r\n$4\r\nMSET\r\n" + one + value + two + value},
		"EVALSHA": {r.evalsha(nil, []uint64{1, 2}), "*7\r\n$7\r\nEVALSHA\r\n$40\r\n" + r.script + "\r\n$1\r\n2\r\n" + one + two + value + value},
	} {
		if string(test.got) != test.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, test.got, test.want)
		}
	}
}

func TestAnAnswerThatIsNotARowIsAnError(t *testing.T) {
	row := "$64\r\n" + strings.Repeat("x", 64) + "\r\n"
	for name, test := range map[string]struct {
		reply string
		want  string // of the error; empty for none
	}{
		"two rows":        {"*2\r\n" + row + row, ""},
		"too few":         {"*1\r\n" + row, "want 2"},
		"a missing row":   {"*2\r\n" + row + "$-1\r\n" + row, "want 64 bytes"},
		"an error":        {"-ERR wrong\r\n", "ERR wrong"},
		"a cut off reply": {"*2\r\n" + row, io.EOF.Error()},
	} {
		r := &redis{in: bufio.NewReader(strings.NewReader(test.reply))}
		err := r.rowsOf(2)
		if test.want == "" && (err != nil || string(r.values) != strings.Repeat("x", 128)) {
			t.Errorf("%s: %q, %v; want both rows", name, r.values, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: error %v, want %s", name, err, test.want)
		}
	}
}

func TestARequestThatFailsEndsTheMeasurement(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	go func() {
		_, _ = io.CopyN(io.Discard, there, 1)
		fmt.Fprint(there, "-ERR no memory\r\n") // the other side may be gone
		_, _ = io.Copy(io.Discard, there)
	}()
	r := &redis{conn: here, in: bufio.NewReader(here), rows: 10, process: &exec.Cmd{Process: self(t)}}
	if _, _, err := r.rate(command{mget, r.rowsOf}, 4, 2, 60); err == nil || !strings.Contains(err.Error(), "no memory") {
		t.Errorf("error %v, want that of the server", err)
	}
}

func TestRedisAddsWhatItIsGiven(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("skipped: there is no redis-server")
	}
	r, err := startRedis(t.Context(), t.TempDir(), 5000)
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := []uint64{7, 4999}
	for _, c := range []command{{r.evalsha, r.number}, {r.evalsha, r.number}, {mget, r.rowsOf}} {
		if _, err := r.conn.Write(c.write(nil, keys)); err != nil {
			t.Fatal(err)
		}
		if err := c.read(len(keys)); err != nil {
			t.Fatal(err)
		}
	}
	third := math.Float32bits(3.0 / 64) // what was set, and added twice
	want := bytes.Repeat([]byte{byte(third), byte(third >> 8), byte(third >> 16), byte(third >> 24)}, 2*width)
	if !bytes.Equal(r.values, want) {
		t.Errorf("rows are %x, want %x", r.values, want)
	}
	if perSecond, perCPU, err := r.rate(command{mget, r.rowsOf}, 100, 3, 0.2); err != nil || perSecond <= 0 || perCPU <= 0 {
		t.Errorf("%v keys per second, %v per CPU-second, %v; want more than none", perSecond, perCPU, err)
	}
	if p50, err := r.latency(command{mget, r.rowsOf}, 100, 0.05); err != nil || p50 <= 0 {
		t.Errorf("%v µs, %v; want more than none", p50, err)
	}
}
