//go:build unix

package test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestACoordinatorBringsItsOwnEtcd is the smallest cluster: no etcd is installed,
// and every role ends cleanly when it is asked to, whatever it was doing.
func TestACoordinatorBringsItsOwnEtcd(t *testing.T) {
	c := &cluster{host: newHost(t), dir: t.TempDir()}
	coordinator := c.start("the coordinator", "coordinator", "--listen", "127.0.0.1:0", "--shards", "16",
		"--embed-etcd", filepath.Join(c.dir, "etcd"), "--embed-etcd-url", "http://127.0.0.1:0")
	c.flags = []string{"--etcd", coordinator.await(`"etcd embedded" endpoints=\[(\S+)\]`)[1]}
	c.address = coordinator.await(`"coordinator joined" .*address=(\S+)`)[1]
	c.apply([]byte(clicksSpec), c.writeClicks(events))
	node, _ := c.startNode("a")
	worker := c.startWorker("w")
	c.dial()
	if c.waitFor(events/100) == events {
		t.Error("all is learned: the roles have nothing to do when they are asked to end")
	}
	for _, p := range []*process{worker, node, coordinator} {
		p.terminate()
	}
}

// TestAnIdleRoleEndsCleanly ends roles that wait for something.
func TestAnIdleRoleEndsCleanly(t *testing.T) {
	c := newCluster(t, 5*time.Second, 1, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := "http://" + listener.Addr().String()
	listener.Close()
	for _, p := range []*process{
		c.start("a node without shards", c.role("ps", "--name", "a")...),
		c.start("a worker without a model", c.role("worker", "--name", "w", "--dead-letters", filepath.Join(c.dir, "w.jsonl"))...),
		c.start("a coordinator whose etcd waits for a quorum", "coordinator", "--listen", "127.0.0.1:0",
			"--embed-etcd", filepath.Join(c.dir, "member"), "--embed-etcd-url", "http://127.0.0.1:0",
			"--embed-etcd-name", "a", "--embed-etcd-cluster", "a="+free+",b=http://127.0.0.1:1,c=http://127.0.0.1:2"),
	} {
		p.await(`joined|waiting for the model|starting etcd`)
		p.terminate()
	}
}

// TestARoleThatCannotStartSaysWhy checks exit codes and messages: what is wrong,
// where, and what to do about it.
func TestARoleThatCannotStartSaysWhy(t *testing.T) {
	c := newCluster(t, 5*time.Second, 1, 1)
	c.apply([]byte(clicksSpec), c.writeClicks(1000))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	used := taken.Addr().String()
	letters := filepath.Join(c.dir, "letters.jsonl")
	other := "file://" + c.write("other.csv", []byte("user,item,clicked\nu1,i1,0\n"))
	secret := c.stream[3]

	for _, test := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{
			"a coordinator without etcd",
			[]string{"coordinator", "--etcd", "127.0.0.1:1", "--listen", "127.0.0.1:0"},
			3,
			[]string{"127.0.0.1:1", "start etcd or give its endpoints with --etcd"},
		},
		{
			"a node without etcd",
			[]string{"ps", "--etcd", "127.0.0.1:1"},
			3,
			[]string{"127.0.0.1:1", "start etcd or give its endpoints with --etcd"},
		},
		{
			"a worker without etcd",
			[]string{"worker", "--etcd", "127.0.0.1:1", "--dead-letters", letters},
			3,
			[]string{"127.0.0.1:1", "start etcd or give its endpoints with --etcd"},
		},
		{
			"a coordinator whose port is in use",
			c.role("coordinator", "--listen", used),
			3,
			[]string{used, "give another address with --listen, or port 0 for a free one"},
		},
		{
			"a node whose port is in use",
			c.role("ps", "--listen", used),
			3,
			[]string{used, "give another address with --listen, or port 0 for a free one"},
		},
		{
			"a coordinator whose etcd's port is in use",
			[]string{"coordinator", "--listen", "127.0.0.1:0", "--embed-etcd", filepath.Join(c.dir, "second"), "--embed-etcd-url", "http://" + used},
			3,
			[]string{used},
		},
		{
			"a coordinator whose etcd's directory is in use",
			[]string{"coordinator", "--listen", "127.0.0.1:0", "--embed-etcd", filepath.Join(c.dir, "etcd"), "--embed-etcd-url", "http://127.0.0.1:0"},
			4,
			[]string{filepath.Join(c.dir, "etcd"), "in use by another process; stop that one or choose another"},
		},
		{
			"a coordinator that is none of its etcd's members",
			[]string{
				"coordinator", "--listen", "127.0.0.1:0", "--embed-etcd", filepath.Join(c.dir, "third"),
				"--embed-etcd-name", "c", "--embed-etcd-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2",
			},
			2,
			[]string{`etcd member "c" is none of a=http://127.0.0.1:1,b=http://127.0.0.1:2`, "--embed-etcd-name"},
		},
		{
			"a coordinator with members and no directory",
			[]string{"coordinator", "--listen", "127.0.0.1:0", "--embed-etcd-name", "a", "--embed-etcd-cluster", "a=http://127.0.0.1:1"},
			2,
			[]string{"give one with --embed-etcd"},
		},
		{
			"a coordinator that wants another number of shards",
			c.role("coordinator", "--listen", "127.0.0.1:0", "--shards", "32"),
			4,
			[]string{"16 shards", "ask for 16"},
		},
		{
			"a worker whose file is not the model's",
			c.role("worker", "--stream", other, "--secret-file", secret, "--dead-letters", letters),
			4,
			[]string{"model clicks learns from stream", "the file, or how the spec cuts it, is another"},
		},
		{
			"a worker whose secret is not the model's",
			c.role("worker", "--stream", c.stream[1], "--secret-file", c.write("not-the-secret", []byte("another secret that is long enough")), "--dead-letters", letters),
			4,
			[]string{"model clicks learns from stream", "the secret is another: give the cluster's with --secret-file"},
		},
		{
			"a worker without a secret",
			c.role("worker", "--stream", c.stream[1], "--dead-letters", letters),
			2,
			[]string{"model clicks masks user", "give the secret of the cluster with --secret-file"},
		},
		{
			"a worker whose file is not there",
			c.role("worker", "--stream", other+".gone", "--secret-file", secret, "--dead-letters", letters),
			2,
			[]string{strings.TrimPrefix(other, "file://") + ".gone", "no such file"},
		},
		{
			"an operator whose coordinator is not there",
			[]string{"status", "--coordinator", "127.0.0.1:1"},
			3,
			[]string{"127.0.0.1:1", "connection refused"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // who misses etcd waits for it for five seconds
			h := newHost(t)
			start := time.Now()
			code, stdout, stderr := h.run(test.args...)
			if code != test.code {
				t.Errorf("freshet %s: exit code %d, want %d\n%s", strings.Join(test.args, " "), code, test.code, stderr)
			}
			for _, want := range test.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("freshet %s: the message does not say %q:\n%s", strings.Join(test.args, " "), want, stderr)
				}
			}
			if lines := strings.Count(stderr, "freshet: "); lines != 1 || stdout != "" {
				t.Errorf("%d messages and stdout %q, want one message, and that on stderr:\n%s", lines, stdout, stderr)
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %v to say so", took)
			}
		})
	}
}
