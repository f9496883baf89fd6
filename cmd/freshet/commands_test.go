package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/freshet-ml/freshet/worker/audit"
)

// walk calls visit with every command that Freshet has.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	if !cmd.Hidden {
		visit(cmd)
	}
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func TestHelp(t *testing.T) {
	walk(newRoot(newTerminal(io.Discard, io.Discard)), func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			path := append(strings.Fields(cmd.CommandPath())[1:], "--help")
			code, help, stderr := freshet(t, path...)
			if code != 0 || stderr != "" {
				t.Errorf("exit code %d, stderr %q, want 0 and nothing", code, stderr)
			}
			if !strings.Contains(help, "Examples:\n  freshet ") {
				t.Error("there is no example")
			}
			for line := range strings.Lines(help) {
				if n := len([]rune(strings.TrimRight(line, "\n"))); n > 80 {
					t.Errorf("a line has %d columns, want at most 80: %s", n, line)
				}
			}
		})
	})
	t.Run("of the root documents every exit code", func(t *testing.T) {
		_, help, _ := freshet(t, "--help")
		for _, want := range []string{" 0  done", " 1  failed", " 2  wrong usage", " 3  something", " 4  the cluster", "130  interrupted"} {
			if !strings.Contains(help, want) {
				t.Errorf("the help lacks %q", want)
			}
		}
	})
}

// keys returns the keys of a JSON object in order.
func keys(t *testing.T, doc []byte, path ...string) []string {
	t.Helper()
	var object map[string]json.RawMessage
	if err := json.Unmarshal(doc, &object); err != nil {
		t.Fatalf("%v is no object: %v", path, err)
	}
	if len(path) > 0 {
		return keys(t, object[path[0]], path[1:]...)
	}
	var names []string
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestKeysOfDocuments holds what scripts read. Keys may be added; one that is
// missing, or has another name, breaks them.
func TestKeysOfDocuments(t *testing.T) {
	code, up, stderr := freshet(t, "up", "--example", "shop", "--events", "3000", "--until-end", "--listen", "127.0.0.1:0", "-o", "json")
	if code != 0 {
		t.Fatalf("up ended with exit code %d: %s", code, stderr)
	}
	audited, err := json.Marshal(audit.Report{})
	if err != nil {
		t.Fatal(err)
	}
	bench, err := json.Marshal(benchReport{})
	if err != nil {
		t.Fatal(err)
	}
	code, epochs, stderr := freshet(t, "bench", "checkpoint", "--rows", "20000", "--touched", "0.05", "--rounds", "1", "--seconds", "0.2", "-o", "json")
	if code != 0 {
		t.Fatalf("bench checkpoint ended with exit code %d: %s", code, stderr)
	}
	var report checkpointReport
	if err := json.Unmarshal([]byte(epochs), &report); err != nil {
		t.Fatal(err)
	}
	// A row is 144 bytes; shards of 312 rows cost 2 blocks and their heads each.
	if share := report.Incremental.BytesShare; report.Full.Bytes < 20000*144 || share < 0.05 || share > 0.10 || report.TrainingRateRatio == 0 {
		t.Errorf("bench checkpoint of 20,000 rows, then of 5 %% of them, says\n%s", epochs)
	}
	lookups, err := json.Marshal(lookupReport{})
	if err != nil {
		t.Fatal(err)
	}
	figures := []string{"events", "log_loss", "auc", "calibration"}
	calls := []string{"keys_per_second", "keys_per_server_cpu_second", "p50_us", "p99_us"}
	for _, test := range []struct {
		name string
		doc  []byte
		path []string
		want []string
	}{
		{"up", []byte(up), nil, []string{
			"events", "seconds", "events_per_second", "nodes", "workers", "shards", "progressive", "holdout", "audit", "best",
		}},
		{"up", []byte(up), []string{"progressive"}, append(figures, "replayed")},
		{"up", []byte(up), []string{"holdout"}, figures},
		{"up", []byte(up), []string{"audit"}, []string{"lost", "doubled", "skipped"}},
		{"up", []byte(up), []string{"best"}, []string{"log_loss", "auc"}},
		{"audit", audited, nil, []string{"shards", "partitions", "events", "lost", "doubled", "skipped"}},
		{"bench store", bench, nil, []string{"bytes_per_row", "pull", "push"}},
		{"bench store", bench, []string{"pull"}, calls},
		{"bench store", bench, []string{"push"}, calls},
		{"bench lookup", lookups, nil, []string{"rows", "width", "keys", "in_flight", "encoding", "lookup"}},
		{"bench lookup", lookups, []string{"lookup"}, []string{
			"keys_per_second", "ns_per_key", "p50_us", "p99_us", "bytes_per_key", "request_bytes_per_key", "response_bytes_per_key",
		}},
		{"bench checkpoint", []byte(epochs), nil, []string{
			"full", "incremental", "training_rate_ratio", "training_cores_before", "push_p99_ratio",
		}},
		{"bench checkpoint", []byte(epochs), []string{"full"}, []string{"bytes", "seconds", "cpu_seconds"}},
		{"bench checkpoint", []byte(epochs), []string{"incremental"}, []string{"bytes", "touched_share"}},
	} {
		got := keys(t, test.doc, test.path...)
		for _, key := range test.want {
			if !slices.Contains(got, key) {
				t.Errorf("%s %v has the keys %v, want also %s", test.name, test.path, got, key)
			}
		}
	}
}

func TestAShopOfOnesOwnIsLearned(t *testing.T) {
	dir := t.TempDir()
	csv, specFile := filepath.Join(dir, "shop.csv"), filepath.Join(dir, "shop.yaml")
	if code, _, stderr := freshet(t, "stream", "generate", "--events", "60000", "--out", csv); code != 0 {
		t.Fatalf("stream generate: %s", stderr)
	}
	code, doc, stderr := freshet(t, "model", "init", "--from", csv, "--time", "ts", "--label", "clicked", "--user", "uid", "--item", "product")
	if code != 0 {
		t.Fatalf("model init: %s", stderr)
	}
	if strings.Contains(doc, "\n  - {name: click_probability") {
		t.Errorf("the spec reads the true probability:\n%s", doc)
	}
	write(t, specFile, doc)
	if code, shown, stderr := freshet(t, "model", "validate", specFile, "--show", "3"); code != 0 || strings.Count(shown, "partition ") != 3 {
		t.Errorf("model validate: exit code %d, %s%s", code, shown, stderr)
	}
	code, out, stderr := freshet(t, "up", specFile, "--until-end", "--listen", "127.0.0.1:0", "-o", "json")
	var r upReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("up: exit code %d, %v: %s", code, err, stderr)
	}
	if *r.Progressive.LogLoss > *r.Progressive.BaseLoss-0.01 {
		t.Errorf("log loss %.4f, want it well below the average's %.4f", *r.Progressive.LogLoss, *r.Progressive.BaseLoss)
	}
}

func TestTheReportFitsAScreen(t *testing.T) {
	code, report, stderr := freshet(t, "up", "--example", "shop", "--events", "3000", "--until-end", "--listen", "127.0.0.1:0")
	if code != 0 {
		t.Fatalf("up ended with exit code %d: %s", code, stderr)
	}
	if n := strings.Count(report, "\n"); n > 24 {
		t.Errorf("the report has %d lines, want at most 24:\n%s", n, report)
	}
	for line := range strings.Lines(report) {
		if n := len([]rune(line)); n > 81 {
			t.Errorf("a line has %d columns, want at most 80: %s", n-1, line)
		}
	}
}

// TestProgressWhereItCannotBeRedrawn holds that what is quick says nothing.
func TestProgressWhereItCannotBeRedrawn(t *testing.T) {
	var stderr bytes.Buffer
	term := newTerminal(io.Discard, &stderr)
	term.progress("0 events")
	if stderr.Len() > 0 {
		t.Errorf("the first progress is printed at once: %q", &stderr)
	}
	term.last = term.last.Add(-plainEvery)
	term.progress("%d events", 1)
	term.progress("%d events", 2)
	if got := stderr.String(); got != "1 events\n" {
		t.Errorf("after %v the progress is %q, want one line", plainEvery, got)
	}
}

// interruptible makes the test outlive the interrupt that it sends itself, should
// the command not be listening.
func interruptible(t *testing.T) {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, os.Interrupt)
	t.Cleanup(func() { signal.Stop(ignored) })
}

func TestAnInterrupt(t *testing.T) {
	events := writeClicks(t, 300_000)
	specFile := write(t, filepath.Join(t.TempDir(), "clicks.yaml"), clusterSpec)
	for _, test := range []struct {
		name string
		args []string
		want int
	}{
		{"ends what serves with 0", nil, 0},
		{"ends what is not done with 130", []string{"--until-end"}, exitInterrupted},
	} {
		t.Run(test.name+" and leaves nothing behind", func(t *testing.T) {
			interruptible(t)
			temporary := t.TempDir()
			t.Setenv("TMPDIR", temporary)
			var stdout, stderr syncBuffer
			ended := make(chan int, 1)
			args := append([]string{"up", specFile, "--stream", "file://" + events, "--listen", "127.0.0.1:0"}, test.args...)
			go func() { ended <- run(args, &stdout, &stderr) }()
			await(t, "it serves", func() bool { return strings.Contains(stderr.String(), "serving at") })
			start := time.Now()
			if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if code := <-ended; code != test.want {
				t.Errorf("exit code %d, want %d: %s", code, test.want, &stderr)
			}
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %v to end", took)
			}
			left, err := os.ReadDir(temporary)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v (%v)", left, err)
			}
			if stdout.String() != "" || !strings.Contains(stderr.String(), "interrupted") || strings.Contains(stderr.String(), "level=") {
				t.Errorf("stdout %q, stderr %q: want only that it was interrupted", &stdout, &stderr)
			}
		})
	}
}

// await waits until what is said is so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for ticks := time.NewTicker(5 * time.Millisecond); !so(); <-ticks.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
