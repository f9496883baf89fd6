package main

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/export"
	"github.com/freshet-ml/freshet/worker/eval"
)

func TestAnExportHasTheRowsOfItsEpoch(t *testing.T) {
	const events = 6_000
	c := newTestCluster(t, 1, 1)
	c.apply(strings.Replace(clusterSpec, "evaluation:", "network: {kind: deepfm, factors: 4, hidden: [3], factor_optimizer: {name: adagrad, learning_rate: 0.05}}\nevaluation:", 1), writeClicks(t, events))
	c.startNode("a")
	c.startWorker("v")
	c.dial()
	keeper, _ := c.keeper()
	c.waitFor(events / 3)
	c.take(keeper)
	c.waitFor(events)
	last := c.take(keeper)
	out := filepath.Join(t.TempDir(), "out")
	code, stdout, stderr := freshet(t, "export", "--coordinator", c.coordinator, "--format", "jsonl", "--out", out, "-o", "json")
	var d export.Description
	if err := json.Unmarshal([]byte(stdout), &d); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	if d.Epoch != last.Epoch.Number || len(d.Tables) < 4 {
		t.Errorf("epoch %d of tables %+v, want epoch %d and linear, factors and the layers", d.Epoch, d.Tables, last.Epoch.Number)
	}
	pull := pullRows(c.client, c.model, c.shards)
	for _, table := range d.Tables {
		id, layout, _ := c.model.Layout.Table(table.Name)
		keys, weights := readExported(t, filepath.Join(out, table.Name+".jsonl"))
		values, err := pull(t.Context(), id, keys)
		if err != nil {
			t.Fatal(err)
		}
		pulled := ps.View[float32](values)
		for i, w := range weights {
			if math.Float32bits(w) != math.Float32bits(pulled[i]) {
				t.Fatalf("weight %d of row %d of %s is %v, want %v", i%layout.Width, keys[i/layout.Width], table.Name, w, pulled[i])
			}
		}
		if len(keys) == 0 || int64(len(keys)) != table.Rows {
			t.Errorf("%d rows of %s are there, %d described, want as many, and some", len(keys), table.Name, table.Rows)
		}
		if dense := strings.HasPrefix(table.Name, "hidden") || table.Name == "output" || table.Name == "biases"; dense != (len(table.RowKeys) > 0) {
			t.Errorf("%s has the keys %v in order, want them for layers", table.Name, table.RowKeys)
		}
	}
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no directory":            {nil, exitUsage, "--out"},
		"a directory that is not": {[]string{"--out", out}, exitPrecondition, "is not empty"},
		"an epoch that is not":    {[]string{"--out", out + "2", "--epoch", "99"}, exitUsage, "keeps no epoch 99"},
		"a format that is not":    {[]string{"--out", out + "2", "--format", "parquet"}, exitUsage, "want safetensors, npy or jsonl"},
		"an encoding that is not": {[]string{"--out", out + "2", "--encoding", "int4"}, exitUsage, "want plain, float16"},
		"a table that is not":     {[]string{"--out", out + "2", "--tables", "embeddings"}, exitUsage, `no table "embeddings"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := freshet(t, append([]string{"export", "--coordinator", c.coordinator}, test.args...)...)
			if code != test.code || !strings.Contains(stderr, test.want) {
				t.Errorf("exit code %d: %s; want %d and %q", code, stderr, test.code, test.want)
			}
		})
	}
	code, stdout, stderr = freshet(t, "export", "--coordinator", c.coordinator, "--encoding", "int8", "--prune-below", "0.001", "--out", out+"3")
	if code != 0 || !strings.Contains(stdout, "as int8") || !strings.Contains(stdout, "pruned") {
		t.Errorf("exit code %d: %s%s; want what was written as int8 and pruned", code, stdout, stderr)
	}
}

func TestWhatAnExportDoesToTheAUCIsReported(t *testing.T) {
	const events = 6_000
	c := newTestCluster(t, 1, 1)
	path := writeClicks(t, events)
	c.apply(strings.Replace(clusterSpec, "evaluation:", "network: {kind: deepfm, factors: 4, hidden: [3], factor_optimizer: {name: adagrad, learning_rate: 0.05}}\nevaluation:", 1), path)
	c.startNode("a")
	c.startWorker("v")
	c.dial()
	keeper, _ := c.keeper()
	c.waitFor(events)
	c.take(keeper)
	secret := write(t, filepath.Join(t.TempDir(), "secret"), string(testSecret))
	scored := []string{"--coordinator", c.coordinator, "--events", "file://" + path, "--secret-file", secret, "--limit", "5000", "-o", "json"}

	// What the cluster itself predicts: nothing was learned since the epoch.
	code, stdout, stderr := freshet(t, append([]string{"predict"}, scored...)...)
	var predicted struct {
		Predictions []struct{ Prediction float64 }
	}
	if err := json.Unmarshal([]byte(stdout), &predicted); code != 0 || err != nil {
		t.Fatalf("predict: exit code %d, %v: %s", code, err, stderr)
	}
	var labels, values []float64
	for i, p := range predicted.Predictions {
		label, _ := click(i)
		labels, values = append(labels, float64(label)), append(values, p.Prediction)
	}
	want, ok := eval.AUC(labels, values)
	if !ok || want < 0.7 {
		t.Fatalf("the cluster's AUC is %v, %v, want it above 0.7", want, ok)
	}

	exported := func(name string, more ...string) *evaluation {
		t.Helper()
		code, stdout, stderr := freshet(t, append(append([]string{"export", "--out", filepath.Join(t.TempDir(), name)}, scored...), more...)...)
		var r exportReport
		if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || r.Evaluation == nil || r.Evaluation.AUCChange == nil {
			t.Fatalf("%s: exit code %d, %v: %s%s", name, code, err, stdout, stderr)
		}
		if e := r.Evaluation; e.Before.Events != 5000 || *e.Before.AUC != want || *e.AUCChange != *e.After.AUC-want {
			t.Errorf("%s: AUC %v before, of %d events, change %v, want %v of 5000 events", name, *e.Before.AUC, e.Before.Events, *e.AUCChange, want)
		}
		return r.Evaluation
	}
	// Rows of the few users that were only held out are not there and count as zeros.
	if e := exported("plain"); math.Abs(*e.AUCChange) > 1e-4 {
		t.Errorf("plain weights change the AUC by %v, want at most 1e-4", *e.AUCChange)
	}
	if e := exported("int8", "--encoding", "int8"); math.Abs(*e.AUCChange) > 0.005 || *e.After.LogLoss == *e.Before.LogLoss {
		t.Errorf("int8 changes the AUC by %v and the log loss from %v to %v, want a little", *e.AUCChange, *e.Before.LogLoss, *e.After.LogLoss)
	}
	if e := exported("pruned", "--prune-below", "1e6"); math.Abs(*e.After.AUC-0.5) > 1e-9 {
		t.Errorf("without any row of a feature the AUC is %v, want 0.5: all events are alike", *e.After.AUC)
	}
	code, _, stderr = freshet(t, append([]string{"export", "--out", filepath.Join(t.TempDir(), "out"), "--tables", "linear"}, scored...)...)
	if code != exitUsage || !strings.Contains(stderr, "--tables") {
		t.Errorf("with some tables only: exit code %d: %s; want %d", code, stderr, exitUsage)
	}
}

// readExported reads a file of JSON Lines.
func readExported(t *testing.T, path string) (keys []ps.Key, weights []float32) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var row struct {
			Key     string
			Weights []float32
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		key, err := strconv.ParseUint(row.Key, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		keys, weights = append(keys, ps.Key(key)), append(weights, row.Weights...)
	}
	return keys, weights
}
