package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/ps"
)

func TestRecoveryIsMeasuredAndLosesNothing(t *testing.T) {
	processes(t)
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	code, out, stderr := freshet(t, "bench", "recovery", "--kills", "2", "--bytes", "2000000", "--standby-bytes", "1000000",
		"--rate", "500", "--pause", "500ms", "--checkpoint-every", "300ms", "--shards", "8", "-o", "json")
	var r recoveryReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	if r.Kills != 2+2*2 || r.Standby.Kills != 2 || r.Epoch.Kills != 4 {
		t.Errorf("killed were %d, %d with standbys, %d with an epoch: want 6, 2 and 4", r.Kills, r.Standby.Kills, r.Epoch.Kills)
	}
	if r.Epoch.Bytes < 2_000_000 {
		t.Errorf("the epoch has %d bytes, want at least the 2,000,000 asked for", r.Epoch.Bytes)
	}
	for name, seconds := range map[string]float64{
		"standby": r.Standby.P50, "restore": r.Epoch.RestoreP50, "replay": r.Epoch.ReplayP50,
	} {
		if seconds <= 0 {
			t.Errorf("the %s took %v s, want above 0", name, seconds)
		}
	}
	if !r.Audit.Clean() || r.Audit.Events == 0 {
		t.Errorf("audit %+v, want events, none lost or doubled", r.Audit)
	}
	for _, test := range []struct{ path, want []string }{
		{nil, []string{"kills", "standby", "epoch", "audit"}},
		{[]string{"standby"}, []string{"p50_s", "p99_s"}},
		{[]string{"epoch"}, []string{"bytes", "restore_p99_s", "replay_p99_s"}},
		{[]string{"audit"}, []string{"lost", "doubled"}},
	} {
		got := keys(t, []byte(out), test.path...)
		for _, key := range test.want {
			if !slices.Contains(got, key) {
				t.Errorf("%v has the keys %v, want also %s", test.path, got, key)
			}
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestEventsOfBenchRecoveryHaveEveryKeyFirst(t *testing.T) {
	const keys, load = 100, 20
	path := filepath.Join(t.TempDir(), "events.csv")
	fill, err := writeRecoveryEvents(path, keys, load)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(doc)), "\n")[1:]
	if want := int64(7); fill != want || len(lines) != 7+load {
		t.Fatalf("%d of %d events are the first, want %d of %d", fill, len(lines), want, 7+load)
	}
	seen := make(map[string]int)
	for i, line := range lines {
		items := strings.Fields(line[strings.LastIndexByte(line, ',')+1:])
		if len(items) != recoveryItems {
			t.Errorf("event %d has %d keys, want %d: %s", i, len(items), recoveryItems, line)
		}
		for _, item := range items {
			if i < 7 {
				seen[item]++
			} else if seen[item] == 0 {
				t.Errorf("event %d has the key %s, which is new", i, item)
			}
		}
	}
	if len(seen) != 7*recoveryItems {
		t.Errorf("the first events have %d keys, want %d, each once", len(seen), 7*recoveryItems)
	}
}

func TestQuantilesOfFewTimes(t *testing.T) {
	seconds := func(n int) (times []time.Duration) {
		for i := n; i > 0; i-- {
			times = append(times, time.Duration(i)*time.Second)
		}
		return times
	}
	for _, test := range []struct {
		n     int
		share float64
		want  float64
	}{{1, 0.5, 1}, {1, 0.99, 1}, {20, 0.5, 10}, {20, 0.99, 20}, {200, 0.99, 198}} {
		if got := quantile(seconds(test.n), test.share); got != test.want {
			t.Errorf("quantile %v of 1 to %d s is %v, want %v", test.share, test.n, got, test.want)
		}
	}
}

func TestAShardIsBackOnlyWithAllItsPartitions(t *testing.T) {
	at := func(applied ...ps.Offset) (s ps.ShardProgress) {
		for _, a := range applied {
			s.Partitions = append(s.Partitions, ps.Progress{Applied: a})
		}
		return s
	}
	before := []ps.ShardProgress{at(5, 7), at(6, 6)}
	for _, test := range []struct {
		now  []ps.ShardProgress
		want bool
	}{
		{[]ps.ShardProgress{at(5, 7), at(6, 6)}, true},
		{[]ps.ShardProgress{at(9, 7), at(6, 8)}, true},
		{[]ps.ShardProgress{at(9, 6), at(6, 6)}, false},
		{[]ps.ShardProgress{at(5, 7), at(0, 9)}, false},
	} {
		if got := allReached(test.now, before); got != test.want {
			t.Errorf("of %v, that were at %v, it is said %v, want %v", test.now, before, got, test.want)
		}
	}
}
