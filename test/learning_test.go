//go:build unix

package test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/worker/eval"
)

// TestRealClicksAreLearnedBySeparateProcesses learns a real click stream with a
// coordinator, two nodes and two workers, each a process of its own.
func TestRealClicksAreLearnedBySeparateProcesses(t *testing.T) {
	const (
		events = 228_329
		// reference is the AUC that `freshet up` reaches with the same spec and as
		// much in flight, all in one process. Which of two workers' pushes comes first
		// is chance, and so is what an event is scored with; it moves the fourth digit.
		// A cluster that loses its way between processes (a worker that is sent rows of
		// another shard, pulls that are older than what is in flight allows) loses more.
		reference, tolerance = 0.727, 0.005
		// lossMax is the log loss that the one process has to reach.
		lossMax = 0.604
	)
	data := os.Getenv("FRESHET_DATA")
	if data == "" {
		t.Skip("skipped: FRESHET_DATA is not set, so there is no real data to learn from")
	}
	c := newCluster(t, 5*time.Second, 2, 2)
	document, err := examples.Spec(examples.KuairandName)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, "kuairand.csv")
	writeKuairand(t, filepath.Join(data, "kuairand"), path)
	c.startNode("a")
	c.startNode("b")
	c.apply(document, path)
	start := time.Now()
	c.startWorker("v", "--in-flight", "256")
	c.startWorker("w", "--in-flight", "256")
	c.dial()
	c.waitForEnd()
	took := time.Since(start)
	c.audit(events)

	learned, replayed := c.figures(events)
	if replayed.Events != 0 {
		t.Errorf("%.0f events were replayed though nothing failed", replayed.Events)
	}
	auc, _ := learned.AUC()
	loss, _ := learned.Loss()
	t.Logf("AUC %.4f, log loss %.4f, %.1f s", auc, loss, took.Seconds())
	if !(math.Abs(auc-reference) <= tolerance) || !(loss <= lossMax) {
		t.Errorf("AUC %.4f and log loss %.4f, want %.3f ± %.3f as in one process, and at most %.3f", auc, loss, reference, tolerance, lossMax)
	}

	scored := c.predict(path)
	labels := column(t, path, "is_click", len(scored))
	truth := make([]float64, len(labels))
	for i, label := range labels {
		if label == "1" {
			truth[i] = 1
		}
	}
	after, ok := eval.AUC(truth, scored)
	t.Logf("AUC %.4f of the first %d events, scored by the model that has learned them", after, len(scored))
	if !ok || after < auc || after > 0.95 {
		t.Errorf("AUC %.4f of predictions for events that were learned: want more than the %.4f before learning, and not certainty", after, auc)
	}
	if again := c.predict(path); !slices.Equal(scored, again) {
		t.Error("the same events are predicted differently though nothing was learned in between")
	}
	differ := 0
	for i, p := range c.predict(c.writeStrangers(path, "user_id", len(scored))) {
		if p != scored[i] {
			differ++
		}
	}
	if differ < len(scored)*9/10 {
		t.Errorf("of %d predictions %d change when the users are strangers: the users that were learned, masked, are not found again", len(scored), differ)
	}
	code, stdout, stderr := c.run("predict", "--coordinator", c.address, "--events", "file://"+path,
		"--secret-file", c.write("another-secret", []byte("quite another secret of more bytes")))
	if code != 4 || stdout != "" || !strings.Contains(stderr, "the secret is another") {
		t.Errorf("predict with another secret: exit code %d, %d bytes of stdout, %q, want 4, none and why", code, len(stdout), stderr)
	}
}

// predict scores the first thousand events of a file by the operator's command.
func (c *cluster) predict(path string) []float64 {
	c.t.Helper()
	const limit = 1000
	var got struct {
		Model       string
		Predictions []struct {
			Line       int64
			Prediction *float64
			Error      string
		}
		Events, Unusable int64
	}
	c.must(&got, "predict", "--events", "file://"+path, "--limit", fmt.Sprint(limit), c.stream[2], c.stream[3])
	if got.Model != c.model.Name || len(got.Predictions) != limit || got.Events != limit || got.Unusable != 0 {
		c.t.Fatalf("predict: model %q, %d predictions, %d events, %d unusable, want %q, %d, %d and 0",
			got.Model, len(got.Predictions), got.Events, got.Unusable, c.model.Name, limit, limit)
	}
	scores := make([]float64, limit)
	for i, p := range got.Predictions {
		// The header is line 1.
		if p.Line != int64(i)+2 || p.Prediction == nil || !(*p.Prediction > 0 && *p.Prediction < 1) {
			c.t.Fatalf("prediction %d is %+v, want line %d and a probability", i, p, i+2)
		}
		scores[i] = *p.Prediction
	}
	return scores
}

func writeKuairand(t *testing.T, dir, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	joined, err := examples.Kuairand{Dir: dir}.Write(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events, %d clicks", joined.Events, joined.Clicks)
}

// writeStrangers writes the first n events of a file with users nobody knows.
func (c *cluster) writeStrangers(path, user string, n int) (strangers string) {
	c.t.Helper()
	header, rows := readRows(c.t, path, n)
	at := slices.Index(header, user)
	for i := range rows {
		rows[i][at] = fmt.Sprintf("stranger %d", i)
	}
	var b bytes.Buffer
	if err := csv.NewWriter(&b).WriteAll(append([][]string{header}, rows...)); err != nil {
		c.t.Fatal(err)
	}
	return c.write("strangers.csv", b.Bytes())
}

// column returns the first n values of a column.
func column(t *testing.T, path, name string, n int) []string {
	t.Helper()
	header, rows := readRows(t, path, n)
	at := slices.Index(header, name)
	values := make([]string, n)
	for i, row := range rows {
		values[i] = row[at]
	}
	return values
}

// readRows returns the first n rows of a CSV file, and its header.
func readRows(t *testing.T, path string, n int) (header []string, rows [][]string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	for i := range n + 1 {
		row, err := r.Read()
		if err != nil {
			t.Fatalf("%s, row %d of %d wanted: %v", path, i, n, err)
		}
		if i == 0 {
			header = row
			continue
		}
		rows = append(rows, row)
	}
	return header, rows
}
