package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/worker/deadletter"
)

// processes skips a test that starts processes, if tests are to be short.
func processes(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: -short, and this starts processes")
	}
}

func TestMembersThatAreKilledLoseAndDoubleNothing(t *testing.T) {
	processes(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("FRESHET_NAME", "everybody") // a child that read this would not be found
	const rows = 8000
	events := writePrices(t, rows, func(line int, row string) string {
		if line%500 == 0 {
			return "only one field"
		}
		return row
	})
	specFile := write(t, filepath.Join(t.TempDir(), "spec.yaml"), priceSpec)
	code, out, stderr := freshet(t, "up", specFile, "--stream", "file://"+events, "--rate", "1600", "--kill-every", "1s",
		"--checkpoint-every", "1s", "--until-end", "--listen", "127.0.0.1:0", "-o", "json")
	var r upReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	if r.Events != rows || !r.Audit.Clean() || r.Audit.Skipped != rows/500 {
		t.Errorf("%d events, audit %+v: want %d, none lost or doubled, %d skipped", r.Events, r.Audit, rows, rows/500)
	}
	if r.Kills == nil || r.Kills.Nodes < 2 || r.Kills.Workers < 1 {
		t.Errorf("kills are %v in %.1f s, want two nodes and a worker at least", r.Kills, r.Seconds)
	}
	if got := keys(t, []byte(out), "kills"); !slices.Equal(got, []string{"nodes", "workers"}) {
		t.Errorf("kills have the keys %v, want nodes and workers", got)
	}
	list, err := deadletter.Open(deadletter.Config{Path: r.DeadLetters})
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	if list.Total() != rows/500 {
		t.Errorf("%d dead letters are listed, want %d, each once", list.Total(), rows/500)
	}
}

func TestARunWithoutKillsSaysSo(t *testing.T) {
	processes(t)
	args := []string{"up", "--example", "shop", "--events", "2000", "--kill-every", "1h", "--until-end", "--listen", "127.0.0.1:0"}
	code, out, stderr := freshet(t, args...)
	if code != 0 || !strings.Contains(out, "kills: NONE") || !strings.Contains(out, "--kill-every") {
		t.Errorf("exit code %d, report %q, want that none was killed and what to do\n%s", code, out, stderr)
	}
}

func TestAMemberThatEndsByItselfEndsTheRunAndLeavesItsLog(t *testing.T) {
	processes(t)
	t.Setenv("TMPDIR", t.TempDir())
	specFile := write(t, filepath.Join(t.TempDir(), "spec.yaml"), priceSpec)
	events := writePrices(t, 3000, func(_ int, row string) string { return row[:len(row)-1] + "yes" })
	refused(t, exitFailure, []string{"worker-", "check the spec against the stream", events + ":", ".log"},
		"up", specFile, "--stream", "file://"+events, "--until-end", "--listen", "127.0.0.1:0", "--kill-every", "1h")
	logs, err := filepath.Glob(filepath.Join(os.TempDir(), "*", membersName, "*.log"))
	if err != nil || len(logs) != 4 {
		t.Errorf("%v are kept (%v), want the logs of two nodes and two workers", logs, err)
	}
}

func TestTheRateIsKept(t *testing.T) {
	const events, rate = 3000, 3000
	code, out, stderr := freshet(t, "up", "--example", "shop", "--events", fmt.Sprint(events), "--rate", fmt.Sprint(rate),
		"--until-end", "--listen", "127.0.0.1:0", "-o", "json")
	var r upReport
	if err := json.Unmarshal([]byte(out), &r); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, stderr)
	}
	// Each worker may be a tenth of a second ahead.
	if least := float64(events)/rate - 0.1; r.Seconds < least || r.Rate != rate {
		t.Errorf("%d events at %v per second took %.2f s, want at least %.2f", events, r.Rate, r.Seconds, least)
	}
}

// TestWhoIsKilledWhen kills children that are not there: only whose turn it is counts.
func TestWhoIsKilledWhen(t *testing.T) {
	const minute = 12 // kills, 5 s apart
	var killed []string
	k := &killer{
		nodes:   []killable{turns{"n0", &killed}, turns{"n1", &killed}},
		workers: []killable{turns{"w0", &killed}, turns{"w1", &killed}},
	}
	for turn := range minute {
		k.kill(turn)
	}
	if got, want := strings.Join(killed, " "), "n0 n1 w0 n0 n1 w1 n0 n1 w0 n0 n1 w1"; got != want {
		t.Errorf("killed were %s, want %s", got, want)
	}
	if got, want := k.kills(), (kills{8, 4}); got != want {
		t.Errorf("counted were %v, want %v", got, want)
	}
	if !k.stop() || k.stop() || k.kill(minute) {
		t.Error("somebody was killed after the end, or it ended twice")
	}
}

type turns struct {
	name   string
	killed *[]string
}

func (t turns) kill() bool {
	*t.killed = append(*t.killed, t.name)
	return true
}

func TestAChildThatCannotBeStartedIsSaid(t *testing.T) {
	c := &child{name: "nobody", log: filepath.Join(t.TempDir(), "none", "nobody.log")}
	if err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody") || !strings.Contains(err.Error(), c.log) {
		t.Errorf("got %v, want who and why", err)
	}
	if c.kill() {
		t.Error("nobody was killed")
	}
}
