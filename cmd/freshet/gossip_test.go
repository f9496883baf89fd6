// How a role gossips follows from several flags and addresses together, most of which
// need other hosts to be seen at work, so this test looks at what is made of them.

package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRolesGossipBeyondTheirHostOnlyIfThatIsProtectedOrWanted(t *testing.T) {
	key := write(t, filepath.Join(t.TempDir(), "key"), "0123456789abcdef\n")
	local := gossipSettings{cluster: "c", bind: "127.0.0.1:0"}
	for name, test := range map[string]struct {
		flags          gossipFlags
		listen, others string
		want           gossipSettings
		says           string
	}{
		"at the loopback, of itself":        {gossipFlags{}, "127.0.0.1", "127.0.0.1", local, ""},
		"at the loopback, whatever is told": {gossipFlags{}, "127.0.0.1", "ps-0", local, ""},
		"beyond, not of itself":             {gossipFlags{}, "0.0.0.0", "ps-0", gossipSettings{}, ""},
		"not at all":                        {gossipFlags{bind: "off"}, "127.0.0.1", "127.0.0.1", gossipSettings{}, ""},
		"beyond, with a key": {
			gossipFlags{keyFile: key},
			"0.0.0.0", "ps-0",
			gossipSettings{cluster: "c", bind: "0.0.0.0:0", advertise: "ps-0:0", key: []byte("0123456789abcdef")},
			"",
		},
		"beyond, without a key if that is wanted": {
			gossipFlags{bind: "10.0.0.1:7946", advertise: "ps-0:7946", insecure: true},
			"0.0.0.0", "x",
			gossipSettings{cluster: "c", bind: "10.0.0.1:7946", advertise: "ps-0:7946"},
			"",
		},
		"asked for and not protected":  {gossipFlags{bind: "10.0.0.1:7946"}, "127.0.0.1", "", gossipSettings{}, "--gossip-key-file"},
		"a key and none":               {gossipFlags{keyFile: key, insecure: true}, "127.0.0.1", "", gossipSettings{}, "choose one"},
		"everywhere and nowhere":       {gossipFlags{keyFile: key}, "0.0.0.0", "", gossipSettings{}, "--gossip-advertise"},
		"an address without a port":    {gossipFlags{bind: "ps-0"}, "127.0.0.1", "", gossipSettings{}, "want host:port, or off"},
		"a key of the wrong length":    {gossipFlags{keyFile: write(t, filepath.Join(t.TempDir(), "short"), "abc")}, "127.0.0.1", "", gossipSettings{}, "3 bytes"},
		"a key file that is not there": {gossipFlags{keyFile: key + ".gone"}, "127.0.0.1", "", gossipSettings{}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.flags.settings("c", test.listen, test.others, slog.New(slog.DiscardHandler))
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) || exitCode(err) != exitUsage {
					t.Errorf("error is %v, want one of usage that says %q", err, test.says)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v (%v), want %+v", got, err, test.want)
			}
		})
	}
}

func TestAWorkerGossipsWhereItsEtcdIs(t *testing.T) {
	for endpoints, want := range map[string]string{
		"127.0.0.1:2379": "127.0.0.1", "http://127.0.0.1:2379": "127.0.0.1", "localhost:2379,[::1]:2379": "127.0.0.1",
		"127.0.0.1:2379,10.0.0.1:2379": "0.0.0.0", "https://etcd:2379": "0.0.0.0", "etcd": "0.0.0.0",
	} {
		if got := gossipHost(strings.Split(endpoints, ",")); got != want {
			t.Errorf("with etcd at %s a worker gossips at %s, want %s", endpoints, got, want)
		}
	}
}

func TestWhoSaysNothingDoesNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := askHealth(ctx, silent.Addr().String()); err == nil {
		t.Error("somebody who takes connections and says nothing has answered")
	}
	c := newTestCluster(t, 1, 1)
	if err := askHealth(t.Context(), c.coordinator); err != nil {
		t.Errorf("a coordinator has not answered: %v", err)
	}
}
