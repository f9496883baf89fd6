package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
)

// realData is FRESHET_DATA as the tests were started with it.
var realData = os.Getenv("FRESHET_DATA")

// TestMain takes away the settings in the environment, FRESHET_DATA among them: the
// commands under test would read them as flags.
//
// The tests' binary is Freshet, too: what the commands start as child processes has a
// role in the place of go test's flags.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "FRESHET_") {
			if err := os.Unsetenv(name); err != nil {
				panic(err)
			}
		}
	}
	os.Exit(m.Run())
}

// dataFolder returns a folder of the real data, or skips the test.
func dataFolder(t *testing.T, name string) string {
	t.Helper()
	if realData == "" {
		t.Skip("skipped: FRESHET_DATA is not set, so there is no real data to learn from")
	}
	return filepath.Join(realData, name)
}

// TestFTRLAgreesWithVowpalWabbit learns Vowpal Wabbit's own test file event by
// event and compares the progressive loss with the one Vowpal Wabbit publishes
// for it: --ftrl --ftrl_alpha 0.01 --ftrl_beta 0 --l1 2, squared loss.
//
// Figures in windows of one event hold every single prediction. Vowpal Wabbit clips
// a prediction to the labels it has seen; the product does not, so that is done here.
func TestFTRLAgreesWithVowpalWabbit(t *testing.T) {
	const published, events = 0.379717, 200
	c := newTestCluster(t, 1, 1)
	c.apply(`
model: vw
stream: {format: vw, partitions: 1}
loss: squared
features:
  - {name: words, column: features, split: " ", weight_after: ":"}
network: {kind: logistic, optimizer: {name: ftrl, learning_rate: 0.01, beta: 0, l1: 2, l2: 0}}
evaluation: {window: 1}
training: {in_flight: 1}
`, filepath.Join(dataFolder(t, "vw"), "0001.dat"))
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	c.audit(events)

	table, _, _ := c.model.Layout.Table(eval.FiguresTable)
	keys := make([]ps.Key, events)
	for o := range keys {
		keys[o] = eval.Key(eval.Progressive, eval.WindowOf(0, ps.Offset(o), 1))
	}
	values, err := pullRows(c.client, c.model, c.shards)(t.Context(), table, keys)
	if err != nil {
		t.Fatal(err)
	}
	rows := ps.View[float64](values)
	width := len(rows) / events
	low, high := 0.0, 0.0 // Vowpal Wabbit begins with labels from 0 to 0
	sum := 0.0
	for o := range events {
		var f eval.Figures
		f.AddRow(rows[o*width : (o+1)*width])
		low, high = min(low, f.Labels), max(high, f.Labels)
		clipped := min(max(f.Predictions, low), high)
		sum += (clipped - f.Labels) * (clipped - f.Labels)
	}
	if got := sum / events; math.Abs(got-published) > 0.00001 {
		t.Errorf("progressive loss %.6f, Vowpal Wabbit publishes %.6f", got, published)
	}
}

// upJSON runs "freshet up" to the end and returns its document.
func upJSON(t *testing.T, args ...string) upReport {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(append([]string{"up", "--until-end", "-o", "json", "--listen", "127.0.0.1:0"}, args...), &stdout, &stderr); code != 0 {
		t.Fatalf("up %v ended with exit code %d:\n%s", args, code, &stderr)
	}
	var report upReport
	decoder := json.NewDecoder(&stdout)
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("stdout is not one JSON document: %v", err)
	}
	if decoder.More() {
		t.Fatal("stdout has more than one document")
	}
	return report
}

func TestRealClicksAreLearned(t *testing.T) {
	r := upJSON(t, "--example", "kuairand", "--data", dataFolder(t, "kuairand"), "--in-flight", "256")
	t.Logf("AUC %.4f, log loss %.4f, %.0f events/s", *r.Progressive.AUC, *r.Progressive.LogLoss, r.EventsPerSecond)
	if r.Events != 228_329 || r.Audit.Events != 228_329 || !r.Audit.Clean() || r.Progressive.Replayed != 0 {
		t.Errorf("%d events, audit %+v, want 228,329, none lost, doubled or replayed", r.Events, r.Audit)
	}
	if *r.Progressive.AUC < 0.720 || *r.Progressive.LogLoss > 0.604 {
		t.Errorf("AUC %.4f and log loss %.4f, want at least 0.720 and at most 0.604", *r.Progressive.AUC, *r.Progressive.LogLoss)
	}
	if r.Nodes != 2 || r.Workers != 2 || r.InFlight != 256 {
		t.Errorf("%d nodes, %d workers, %d in flight, want 2, 2 and 256", r.Nodes, r.Workers, r.InFlight)
	}
}

func TestTheShopIsLearned(t *testing.T) {
	r := upJSON(t, "--example", "shop", "--events", "100000")
	if r.Events != 100_000 || !r.Audit.Clean() || r.Best == nil {
		t.Fatalf("%d events, audit %+v, best %v", r.Events, r.Audit, r.Best)
	}
	if loss := *r.Progressive.LogLoss; loss < r.Best.LogLoss || loss > *r.Progressive.BaseLoss-0.02 {
		t.Errorf("log loss %.4f: want it above the best possible %.4f and well below the average's %.4f", loss, r.Best.LogLoss, *r.Progressive.BaseLoss)
	}
}
