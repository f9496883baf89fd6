package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/freshet-ml/freshet/worker/audit"
)

// TestAClusterLearnsATopic sends a file to a topic, learns it from there, and then finds out
// that every event is in once.
func TestAClusterLearnsATopic(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: -short, and this starts processes")
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "clicks"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	url := "kafka://" + strings.Join(broker.ListenAddrs(), ",") + "/clicks"
	const events = 12_000
	file := writeClicks(t, events)
	code, stdout, stderr := freshet(t, "stream", "send", strings.TrimPrefix(file, "file://"), "--to", url, "--key", "user", "-o", "json")
	if code != 0 || !strings.Contains(stdout, fmt.Sprintf(`"rows": %d`, events)) {
		t.Fatalf("exit code %d: %q %q", code, stdout, stderr)
	}
	doc, err := os.ReadFile(write(t, filepath.Join(t.TempDir(), "x.yaml"), topicSpec))
	if err != nil {
		t.Fatal(err)
	}
	spec := write(t, filepath.Join(t.TempDir(), "clicks.yaml"), string(doc))
	code, stdout, stderr = freshet(t, "up", spec, "--stream", url, "--until-end", "--listen", "127.0.0.1:0", "--shards", "16", "-o", "json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var report struct {
		Events      int64        `json:"events"`
		Audit       audit.Report `json:"audit"`
		Progressive struct {
			AUC float64 `json:"auc"`
		} `json:"progressive"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	if report.Events != events || !report.Audit.Clean() || report.Audit.Skipped != 0 || report.Progressive.AUC < 0.6 {
		t.Errorf("learned %+v, want %d events once each, and something learned", report, events)
	}

	// In a directory it goes on where it was, whatever --from would mean by now.
	dir := filepath.Join(t.TempDir(), "state")
	for run, want := range []int64{events, 2 * events} {
		if run == 1 {
			if code, _, stderr := freshet(t, "stream", "send", strings.TrimPrefix(file, "file://"), "--to", url); code != 0 {
				t.Fatalf("exit code %d: %s", code, stderr)
			}
		}
		code, stdout, stderr := freshet(t, "up", spec, "--stream", url, "--until-end", "--listen", "127.0.0.1:0", "--shards", "16", "--dir", dir, "-o", "json",
			"--from", []string{"earliest", "latest"}[run])
		if err := json.Unmarshal([]byte(stdout), &report); code != 0 || err != nil || report.Events != want || !report.Audit.Clean() {
			t.Errorf("run %d: exit code %d, %v, %+v, want %d events: %s", run, code, err, report, want, stderr)
		}
	}

	// What cannot be: said with what to do.
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"another topic": {[]string{"up", spec, "--stream", strings.Replace(url, "/clicks", "/nobodys", 1), "--until-end", "--listen", "127.0.0.1:0"}, []string{"nobodys"}},
		"no time":       {[]string{"up", spec, "--stream", url, "--from", "soon", "--until-end", "--listen", "127.0.0.1:0"}, []string{"soon", "-24h"}},
		"a file from":   {[]string{"up", spec, "--stream", "file://" + file, "--from", "latest", "--until-end", "--listen", "127.0.0.1:0"}, []string{"--from"}},
		"no column":     {[]string{"stream", "send", strings.TrimPrefix(file, "file://"), "--to", url, "--key", "nobody"}, []string{"nobody", "user"}},
	} {
		code, _, stderr := freshet(t, test.args...)
		if code == 0 {
			t.Errorf("%s: accepted", name)
		}
		for _, want := range test.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q does not name %s", name, stderr, want)
			}
		}
	}
}

const topicSpec = `
model: clicks
stream: {format: json, identifiers: [user]}
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
evaluation: {window: 1000}
`
