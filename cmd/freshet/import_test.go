package main

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/coordinator/epochs"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/graft"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/stream/mask"
)

// factorSpec has a vector of 4 numbers for each value.
var factorSpec = strings.Replace(slowSpec, "evaluation:", "network: {kind: fm, factors: 4, factor_optimizer: {name: adagrad, learning_rate: 0.05}}\nevaluation:", 1)

// npy returns an .npy file.
func npy(descr, shape string, elements []byte) []byte {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape)
	return slices.Concat([]byte("\x93NUMPY\x01\x00"), []byte{byte(len(header)), byte(len(header) >> 8)}, []byte(header), elements)
}

// writeVectors writes an .npz file.
func writeVectors(t *testing.T, ids []string, width int, weights []float32) (path string) {
	t.Helper()
	const size = 24
	var text []byte
	for _, id := range ids {
		text = append(text, id+strings.Repeat("\x00", size-len(id))...)
	}
	path = filepath.Join(t.TempDir(), "vectors.npz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	archive := zip.NewWriter(file)
	for name, content := range map[string][]byte{
		"ids.npy":     npy(fmt.Sprintf("|S%d", size), fmt.Sprintf("(%d,)", len(ids)), text),
		"vectors.npy": npy("<f4", fmt.Sprintf("(%d, %d)", len(ids), width), ps.Bytes(weights)),
	} {
		w, err := archive.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// imported are rows that a test imports: of values that the stream does not have, so that
// nothing is learned of them.
type imported struct {
	table   ps.TableID
	ids     []string
	keys    []ps.Key
	weights []float32
}

// newImported makes n rows of the second table for values of a feature.
func newImported(of string, n, width int) imported {
	rows := imported{table: 1}
	for i := range n {
		id := fmt.Sprintf("new-%d", i)
		rows.ids, rows.keys = append(rows.ids, id), append(rows.keys, feature.Key(of, []byte(id)))
		for j := range width {
			rows.weights = append(rows.weights, float32(int64(ps.Mix(uint64(i*width+j))))*0x1p-63)
		}
	}
	return rows
}

// served checks that the cluster serves the rows to the last bit. Nodes follow an import by
// themselves, so it waits for that.
func (c *testCluster) served(rows imported) {
	c.t.Helper()
	pull := pullRows(c.client, c.model, c.shards)
	deadline := time.Now().Add(time.Minute)
	for ticks := time.NewTicker(5 * time.Millisecond); ; <-ticks.C {
		values, err := pull(c.t.Context(), rows.table, rows.keys)
		if err == nil && slices.Equal(values, ps.Bytes(rows.weights)) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("rows that were imported are not served after a minute (%v)", err)
		}
	}
}

// importReported runs "import" and returns its report.
func (c *testCluster) importReported(args ...string) importReport {
	c.t.Helper()
	code, stdout, stderr := freshet(c.t, append([]string{"import", "--coordinator", c.coordinator, "-o", "json"}, args...)...)
	var r importReport
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
		c.t.Fatalf("import ended with exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	return r
}

func TestImportedVectorsAreServedAndNoEventIsLostOrDoubled(t *testing.T) {
	const events = 20_000
	bucket := "file://" + t.TempDir()
	c := newCheckpointedCluster(t, 2, 1, epochSettings{bucket: bucket, every: 300 * time.Millisecond})
	path := writeClicks(t, events)
	c.apply(factorSpec, path)
	stopA, stopB := c.startNode("a"), c.startNode("b")
	c.startWorker("w")
	c.dial()
	c.waitFor(events / 10)

	rows := newImported("item", 300, 4)
	withKnown := append(slices.Clone(rows.ids), "i3", "i29") // which the stream has
	file := writeVectors(t, withKnown, 4, append(slices.Clone(rows.weights), 1, 2, 3, 4, 5, 6, 7, 8))
	dry := c.importReported("--feature", "item", "--from", file, "--dry-run")
	if !dry.DryRun || dry.Rows != 302 || dry.Born+dry.Replaced != 302 || dry.Bytes != 0 {
		t.Errorf("a dry run reports %+v", dry)
	}
	r := c.importReported("--feature", "item", "--from", file)
	if r.Model != "clicks" || r.Table != "factors" || r.Feature != "item" || r.Rows != 302 || r.Born != 300 || r.Replaced != 2 ||
		r.Lineage != 1 || r.Epoch == 0 || r.Bytes == 0 || r.Shards != c.shards {
		t.Errorf("import reports %+v, want 302 rows, 300 of them new, and lineage 1", r)
	}
	c.served(rows)
	c.audit(events)
	c.served(rows)

	// Another one, after the end of the stream: rows are replaced, and scores follow.
	secret := write(t, filepath.Join(t.TempDir(), "secret"), string(testSecret))
	scored := write(t, filepath.Join(t.TempDir(), "scored.csv"), "user,item\nnobody,new-0\n")
	predict := func() float64 {
		t.Helper()
		code, stdout, stderr := freshet(t, "predict", "--coordinator", c.coordinator, "--events", "file://"+scored, "--secret-file", secret, "-o", "json")
		var doc struct {
			Predictions []struct{ Prediction float64 }
		}
		if err := json.Unmarshal([]byte(stdout), &doc); code != 0 || err != nil || len(doc.Predictions) != 1 {
			t.Fatalf("predict: exit code %d, %v: %s%s", code, err, stdout, stderr)
		}
		return doc.Predictions[0].Prediction
	}
	before := predict()
	for i := range rows.weights {
		rows.weights[i] *= -1000
	}
	again := c.importReported("--feature", "item", "--from", writeVectors(t, rows.ids, 4, rows.weights), "--reset-state")
	if again.Born != 0 || again.Replaced != 300 || again.Lineage != 2 {
		t.Errorf("a second import reports %+v, want 300 rows replaced, and lineage 2", again)
	}
	c.served(rows)
	if after := predict(); math.Abs(after-before) < 1e-6 {
		t.Errorf("a vector a thousand times as long changes the prediction from %v to %v only", before, after)
	}

	// They outlive all nodes, through epochs that were taken since.
	stopA()
	stopB()
	c.startNode("c")
	c.startNode("d")
	c.served(rows)
	c.audit(events)
	if code, stdout, stderr := freshet(t, "verify", "--coordinator", c.coordinator); code != 0 {
		t.Errorf("verify: exit code %d: %s%s", code, stdout, stderr)
	}
}

func TestAnImportComesBeforeTheFirstEvent(t *testing.T) {
	const events = 5_000
	bucket := "file://" + t.TempDir()
	c := newCheckpointedCluster(t, 1, 1, epochSettings{bucket: bucket})
	c.apply(factorSpec, writeClicks(t, events))
	c.startNode("a")
	c.dial()
	c.waitFor(0) // until its shards have an owner
	dir := t.TempDir()
	// Weights of the linear table, for users, whose identifiers are masked.
	users := imported{table: 0, weights: []float32{0.25, -1.5}}
	m, err := mask.New(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"4711", "4712"} {
		users.keys = append(users.keys, feature.Key("user", m.Append(nil, []byte(id))))
	}
	ids := write(t, filepath.Join(dir, "ids.npy"), string(npy("<i4", "(2,)", ps.Bytes([]int32{4711, 4712}))))
	weights := write(t, filepath.Join(dir, "weights.npy"), string(npy("<f8", "(2,)", ps.Bytes([]float64{0.25, -1.5}))))
	secret := write(t, filepath.Join(dir, "secret"), string(testSecret))
	args := []string{"--feature", "user", "--table", "linear", "--ids", ids, "--vectors", weights, "--secret-file", secret}
	if dry := c.importReported(append(args, "--dry-run")...); dry.Born != 2 || dry.Epoch != 0 {
		t.Errorf("a dry run before the first epoch reports %+v, want 2 rows born", dry)
	}
	if r := c.importReported(args...); r.Born != 2 || r.Epoch != 2 || r.Lineage != 1 || r.Table != "linear" {
		t.Errorf("import reports %+v, want 2 rows of linear born, in epoch 2", r)
	}
	c.served(users)
	c.startWorker("w")
	c.audit(events)
	c.served(users)
}

// grafted makes a manifest of the newest epoch with rows.
func (c *testCluster) grafted(dir string, rows imported) checkpoint.Ref {
	c.t.Helper()
	bucket, base := c.newestManifest(dir)
	defer bucket.Close()
	made, err := graft.Run(c.t.Context(), graft.Config{
		Bucket: bucket, Base: base, Model: c.model,
		Rows: ps.Rows{Table: rows.table, Keys: rows.keys, Values: ps.Bytes(rows.weights)},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return made.Manifest
}

// newestManifest returns the manifest of the newest epoch, and its bucket.
func (c *testCluster) newestManifest(dir string) (*checkpoint.Bucket, checkpoint.Manifest) {
	c.t.Helper()
	epoch, err := c.store.Epoch(c.t.Context(), c.model.Name)
	if err != nil {
		c.t.Fatal(err)
	}
	bucket, err := checkpoint.OpenBucket(c.t.Context(), "file://"+dir)
	if err != nil {
		c.t.Fatal(err)
	}
	m, err := checkpoint.ReadManifest(c.t.Context(), bucket, epoch.Retained[0].Manifest)
	if err != nil {
		c.t.Fatal(err)
	}
	return bucket, m
}

func TestAnImportGoesOnFromAnEpochThatIsStillKept(t *testing.T) {
	const events = 20_000
	c := newTestCluster(t, 1, 1)
	c.apply(factorSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startPacedWorker("w", 2000) // so that there are events left for every epoch
	c.dial()
	k, dir := c.keeper()
	rows := newImported("item", 100, 4)
	n := int64(0)
	next := func() epochs.Result { // the next epoch, of some more events
		t.Helper()
		at, _ := c.applied()
		n = max(n, at) + 100
		c.waitFor(n)
		r := c.take(k)
		if !r.Taken {
			t.Fatal("no epoch was taken")
		}
		return r
	}
	next()
	stale := c.grafted(dir, rows)
	for range 3 {
		next()
	}
	if _, err := k.Adopt(t.Context(), c.model.Name, stale); !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), "epoch 1, which is not kept") {
		t.Errorf("an import into an epoch that is not kept any more: %v, want ErrConflict", err)
	}
	made := c.grafted(dir, rows) // of epoch 4
	between := next()
	other := rows
	other.weights = make([]float32, len(rows.weights))
	second := c.grafted(dir, other) // of epoch 5
	adopted, err := k.Adopt(t.Context(), c.model.Name, made)
	if err != nil {
		t.Fatal(err)
	}
	if adopted.Number != between.Epoch.Number+1 || adopted.Lineage != 1 || adopted.Events >= between.Epoch.Events {
		t.Errorf("%+v was adopted after %+v, want the next one, of fewer events", adopted, between.Epoch)
	}
	c.served(rows)
	// An import into the lineage before would take this one back.
	if _, err := k.Adopt(t.Context(), c.model.Name, second); !errors.Is(err, ps.ErrConflict) || !strings.Contains(err.Error(), "lineage 1") {
		t.Errorf("an import into an epoch of another lineage: %v, want ErrConflict", err)
	}
	stop()
	c.startWorker("x")
	c.audit(events)
	c.served(rows)
}

// rewritten writes a file again under another head.
func rewritten(t *testing.T, bucket *checkpoint.Bucket, f checkpoint.File, change func(*checkpoint.Head)) checkpoint.File {
	t.Helper()
	r, err := checkpoint.Open(t.Context(), bucket, f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := r.Head()
	head.Partitions = slices.Clone(head.Partitions)
	change(&head)
	w, err := checkpoint.Create(t.Context(), bucket, checkpoint.Name(&head, rand.Uint64()), head)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for {
		table, stride, rows, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.Rows(table, stride, rows)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestWhatAnImportMayNotChangeIsNotAdopted(t *testing.T) {
	const events = 5_000
	c := newTestCluster(t, 1, 1)
	c.apply(factorSpec, writeClicks(t, events))
	c.startNode("a")
	stop := c.startPacedWorker("w", 2000)
	c.dial()
	k, dir := c.keeper()
	c.waitFor(events / 5)
	stop() // so that every shard has something left to learn
	c.take(k)
	older, err := c.store.Epoch(t.Context(), c.model.Name)
	if err != nil {
		t.Fatal(err)
	}
	c.startWorker("x")
	c.waitFor(events)
	c.take(k)
	rows := newImported("item", 100, 4)
	before, err := c.store.Epoch(t.Context(), c.model.Name)
	if err != nil {
		t.Fatal(err)
	}
	bucket, base := c.newestManifest(dir)
	defer bucket.Close()
	half, err := checkpoint.ReadManifest(t.Context(), bucket, older.Retained[0].Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if half.Shards[3].Seq >= base.Shards[3].Seq {
		t.Fatalf("shard 3 has seq %d in both epochs: the older one's files are no others", half.Shards[3].Seq)
	}
	for name, test := range map[string]struct {
		change func(*checkpoint.Manifest)
		is     error
		want   string
	}{
		"offsets": {func(m *checkpoint.Manifest) { m.Shards[3].Applied[0]++ }, ps.ErrInvalid, "shard 3 has fence"},
		"a fence": {func(m *checkpoint.Manifest) { m.Shards[3].Fence++ }, ps.ErrInvalid, "shard 3 has fence"},
		"an older file": {func(m *checkpoint.Manifest) {
			// Files of an older epoch under the newest one's offsets would lose events.
			files := slices.Clone(half.Shards[3].Files)
			m.Shards[3].Files, m.Shards[3].Seq = files, files[len(files)-1].Seq
		}, ps.ErrInvalid, "shard 3"},
		"a fingerprint": {func(m *checkpoint.Manifest) {
			m.Shards[3].Files[0] = rewritten(t, bucket, m.Shards[3].Files[0], func(h *checkpoint.Head) { h.Partitions[2].Fingerprint.Xor ^= 1 })
		}, ps.ErrInvalid, "shard 3: its file has progress"},
		"the layout of a file": {func(m *checkpoint.Manifest) {
			m.Shards[3].Files[0] = rewritten(t, bucket, m.Shards[3].Files[0], func(h *checkpoint.Head) { h.Layout++ })
		}, ps.ErrInvalid, "shard 3: its file is of model"},
		"a file that is not there": {func(m *checkpoint.Manifest) {
			if err := os.Rename(filepath.Join(dir, m.Shards[4].Files[0].Name), filepath.Join(dir, "gone")); err != nil {
				t.Fatal(err)
			}
		}, ps.ErrCorrupt, "00004"},
		"a byte of a file": {func(m *checkpoint.Manifest) {
			path := filepath.Join(dir, m.Shards[5].Files[0].Name)
			content, err := os.ReadFile(path)
			if err == nil {
				content[len(content)/2] ^= 1
				err = os.WriteFile(path, content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, ps.ErrCorrupt, "00005"},
		"the layout":             {func(m *checkpoint.Manifest) { m.Layout++ }, ps.ErrInvalid, "is not the cluster's"},
		"the stream":             {func(m *checkpoint.Manifest) { m.Stream += "x" }, ps.ErrInvalid, "is not the cluster's"},
		"an epoch that is not":   {func(m *checkpoint.Manifest) { m.Epoch, m.Parent = 100, 99 }, ps.ErrConflict, "epoch 99"},
		"an epoch with no files": {func(m *checkpoint.Manifest) { m.Shards[6].Files, m.Shards[6].Seq = nil, 0 }, ps.ErrInvalid, "shard 6"},
	} {
		t.Run(name, func(t *testing.T) {
			ref := c.grafted(dir, rows)
			m, err := checkpoint.ReadManifest(t.Context(), bucket, ref)
			if err != nil {
				t.Fatal(err)
			}
			if m.Parent != base.Epoch {
				t.Fatalf("it is made of epoch %d, want %d", m.Parent, base.Epoch)
			}
			test.change(&m)
			if ref, err = checkpoint.WriteManifest(t.Context(), bucket, m); err != nil {
				t.Fatal(err)
			}
			if _, err := k.Adopt(t.Context(), c.model.Name, ref); !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v with %q", err, test.is, test.want)
			}
		})
	}
	after, err := c.store.Epoch(t.Context(), c.model.Name)
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the epoch was %v and is %v (%v)", before, after, err)
	}
	c.audit(events)
}

func TestWhatCannotBeImportedIsRefusedWithItsReason(t *testing.T) {
	const events = 1_000
	bucket := t.TempDir()
	c := newCheckpointedCluster(t, 1, 1, epochSettings{bucket: "file://" + bucket})
	c.apply(factorSpec, writeClicks(t, events))
	c.startNode("a")
	c.startWorker("w")
	c.dial()
	c.waitFor(events)
	dir := t.TempDir()
	good := writeVectors(t, []string{"a", "b"}, 4, make([]float32, 8))
	twice := writeVectors(t, []string{"HUSH", "b", "HUSH"}, 4, make([]float32, 12))
	nan := writeVectors(t, []string{"HUSH", "b"}, 4, []float32{0, 0, 0, 0, 0, 0, float32(math.NaN()), 0})
	wide := writeVectors(t, []string{"a"}, 5, make([]float32, 5))
	other := write(t, filepath.Join(dir, "other"), "not the secret of this cluster")
	text := write(t, filepath.Join(dir, "text.csv"), "item,vector\n")
	ask := func(args ...string) []string {
		return append([]string{"import", "--coordinator", c.coordinator}, args...)
	}
	for name, test := range map[string]struct {
		code int
		args []string
		want []string
	}{
		"no feature":             {exitUsage, ask("--from", good), []string{"--feature"}},
		"a feature that is not":  {exitUsage, ask("--feature", "sku", "--from", good), []string{"--feature", `no feature "sku"`, "user, item"}},
		"no input":               {exitUsage, ask("--feature", "item"), []string{"two .npy files"}},
		"a file that is not":     {exitUsage, ask("--feature", "item", "--from", filepath.Join(dir, "none.npz")), []string{"none.npz", "no such file"}},
		"a file of another kind": {exitUsage, ask("--feature", "item", "--from", text), []string{"text.csv", "neither"}},
		"no such array":          {exitUsage, ask("--feature", "item", "--from", good, "--ids", "sku"), []string{`"sku"`, "ids, vectors"}},
		"another width":          {exitUsage, ask("--feature", "item", "--from", wide), []string{"vectors of 5 numbers", "have 4"}},
		"an identifier twice":    {exitUsage, ask("--feature", "item", "--from", twice), []string{"row 3", "row 1"}},
		"not a number":           {exitUsage, ask("--feature", "item", "--from", nan), []string{"row 2", "element 2 is not a number"}},
		"a table of the layers":  {exitUsage, ask("--feature", "item", "--from", good, "--table", "figures"), []string{"--table figures", "linear, factors"}},
		"people, and no secret":  {exitUsage, ask("--feature", "user", "--from", good), []string{"masks", "--secret-file"}},
		"another secret":         {exitPrecondition, ask("--feature", "user", "--from", good, "--secret-file", other), []string{"secret is another"}},
		"another model":          {exitPrecondition, ask("--feature", "item", "--from", good, "--model", "x"), []string{"model x", "clicks"}},
		"nobody there":           {exitUnavailable, []string{"import", "--coordinator", "127.0.0.1:1", "--feature", "item", "--from", good}, []string{"127.0.0.1:1", "refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, test.code, test.want, test.args...)
			if _, _, stderr := freshet(t, test.args...); strings.Contains(stderr, "HUSH") {
				t.Errorf("an identifier is told: %s", stderr)
			}
		})
	}
	if names, err := filepath.Glob(filepath.Join(bucket, "*", "*")); err != nil || len(names) > 0 {
		t.Errorf("%v was written (%v), want nothing before the input is checked", names, err)
	}
	code, stdout, stderr := freshet(t, ask("--feature", "item", "--from", good)...)
	if code != 0 || stderr != "" || !strings.Contains(stdout, "2 rows of factors for feature item of model clicks: 2 new, 0 replaced") ||
		!strings.Contains(stdout, "epoch 2, with which lineage 1 begins") {
		t.Errorf("exit code %d: %q %q", code, stdout, stderr)
	}
	c.audit(events)
	noBucket := newTestCluster(t, 1, 1)
	noBucket.apply(factorSpec, writeClicks(t, events))
	noBucket.startNode("a")
	refused(t, exitPrecondition, []string{"--checkpoints"}, "import", "--coordinator", noBucket.coordinator, "--feature", "item", "--from", good)
}
