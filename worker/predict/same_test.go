package predict_test

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

var secret = []byte("a secret of the test")

// example returns the spec of an example and the first of its events as CSV: of the real
// click stream where there is the data, of the simulated shop else.
func example(t *testing.T, name string) (*spec.Spec, []byte) {
	t.Helper()
	doc, err := examples.Spec(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse(name, doc)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if name == examples.ShopName {
		if _, err := (examples.Shop{Events: 2000, Seed: 3}).Write(t.Context(), &text, nil); err != nil {
			t.Fatal(err)
		}
		return s, text.Bytes()
	}
	data := os.Getenv("FRESHET_DATA")
	if data == "" {
		t.Skip("skipped: FRESHET_DATA is not set, so there are no real events")
	}
	if _, err := (examples.Kuairand{Dir: filepath.Join(data, "kuairand")}).Write(t.Context(), &text); err != nil {
		t.Fatal(err)
	}
	rows := text.Bytes()
	for range 2000 {
		rows = rows[bytes.IndexByte(rows, '\n')+1:]
	}
	return s, text.Bytes()[:text.Len()-len(rows)]
}

// trained are the batches, of so many events each, that a trainer makes of a stream, with
// the scores it computes.
func trained(t *testing.T, s *spec.Spec, rows *memory, text []byte, size int) (batches []*worker.Batch, scores [][]float32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.csv")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	inOrder := s.Stream
	inOrder.Partitions, inOrder.PartitionBy, inOrder.Sort, inOrder.Passes = 1, "", false, 1
	source, err := files.Open(t.Context(), files.Config{URL: "file://" + path, Stream: inOrder, Columns: feature.Columns(s), Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	reader, err := source.Read(t.Context(), []stream.Start{{}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	extractor, err := feature.New(s, feature.Columns(s))
	if err != nil {
		t.Fatal(err)
	}
	var event worker.Event
	for more := true; more; {
		b := new(worker.Batch)
		b.Reset(0, ps.Offset(len(batches)*size), 0)
		for b.Len() < size {
			if more = reader.Next(t.Context(), &event) == nil; !more {
				break
			}
			if err := extractor.Append(b, &event); err != nil {
				t.Fatal(err)
			}
		}
		if b.Len() > 0 {
			batches, scores = append(batches, b), append(scores, scored(t, s, rows, b))
		}
	}
	return batches, scores
}

// scored returns the scores of a batch, as a trainer computes them.
func scored(t *testing.T, s *spec.Spec, rows *memory, b *worker.Batch) []float32 {
	t.Helper()
	network, err := model.New(s)
	if err != nil {
		t.Fatal(err)
	}
	dense, err := model.NewDense(s, shards)
	if err != nil {
		t.Fatal(err)
	}
	var group ps.Group
	group.Fill(b.Keys, shards)
	var reads []ps.Read
	for i, table := range rows.layout.Tables[:s.FeatureTables()] {
		reads = append(reads, ps.Read{Table: ps.TableID(i), RowBytes: table.RowBytes(), Group: &group})
	}
	reads = dense.AppendReads(reads, ps.TableID(len(reads)))
	if err := rows.Pull(t.Context(), s.Model, rows.layout.Hash(), reads); err != nil {
		t.Fatal(err)
	}
	var weights [][]float32
	for i := range reads {
		pulled := ps.View[float32](reads[i].Values)
		if layer := i - s.FeatureTables(); layer >= 0 {
			ordered := make([]float32, len(pulled))
			dense.Order(layer, pulled, ordered)
			pulled = ordered
		}
		weights = append(weights, pulled)
	}
	scores := make([]float32, b.Len())
	network.Scores(b, group.Index, weights, scores)
	return scores
}

// columnsOf returns some rows of a CSV text as columns, but for those that the model has no
// use for.
func columnsOf(t *testing.T, s *spec.Spec, text []byte, from, to int) []predict.Column {
	t.Helper()
	records, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var columns []predict.Column
	for i, name := range records[0] {
		if !slices.Contains(append(s.Columns(), s.Stream.Time.Column), name) {
			continue
		}
		c := predict.Column{Name: name}
		for _, record := range records[1+from : 1+to] {
			c.Values = append(c.Values, record[i])
		}
		columns = append(columns, c)
	}
	return columns
}

func TestAnEventIsTheSameInAStreamAndInARequest(t *testing.T) {
	const size = 200
	for _, name := range examples.Names() {
		for _, network := range []string{"{kind: logistic}", "{kind: fm, factors: 8}", "{kind: deepfm, factors: 8, hidden: [24, 16], dropout: 0.5}"} {
			t.Run(name+" "+network, func(t *testing.T) {
				s, text := example(t, name)
				s.Network = parsed(t, "model: m\nlabel: {column: y}\nfeatures: [{name: f, column: f}]\nnetwork: "+network).Network
				scorer, rows := scorer(t, s, func(c *predict.ScorerConfig) { c.Secret = secret })
				batches, scores := trained(t, s, rows, text, size)
				if len(batches) < 5 {
					t.Fatalf("%d batches of the stream, want at least 5", len(batches))
				}
				for i, want := range batches {
					columns := columnsOf(t, s, text, i*size, i*size+want.Len())
					got, err := predict.BatchOf(scorer, columns)
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got.Keys, want.Keys) || !slices.Equal(got.Values, want.Values) || !slices.Equal(got.Fields, want.Fields) || !slices.Equal(got.Starts, want.Starts) {
						t.Fatalf("batch %d: a request's examples are not those of the stream", i)
					}
					predictions, _, err := scorer.Predict(t.Context(), columns)
					if err != nil {
						t.Fatal(err)
					}
					for j, p := range predictions {
						if p.Err != nil || p.Score != scores[i][j] {
							t.Fatalf("event %d of batch %d has score %v (%v), in the stream %v", j, i, p.Score, p.Err, scores[i][j])
						}
					}
				}
			})
		}
	}
}
