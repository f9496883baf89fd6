package train_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/eval"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/model/sgemm"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// TestLayersLearnRealClicks learns a real click stream with several networks, test then
// train. Those with layers see single features only, and have to find by themselves what
// the example's crosses tell its logistic regression.
//
// Seen: AUC .718 logistic without crosses, .727 with them, .731 deepfm and .731 mlp without.
// What overlaps what is chance, and moves it by .0005.
func TestLayersLearnRealClicks(t *testing.T) {
	data := os.Getenv("FRESHET_DATA")
	switch {
	case data == "":
		t.Skip("skipped: FRESHET_DATA is not set, so there is no real data to learn from")
	case testing.Short():
		t.Skip("skipped: four runs over 228,329 events")
	}
	defer blas32.Use(blas32.Implementation())
	blas32.Use(sgemm.Implementation{})
	example, err := examples.Spec(examples.KuairandName)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kuairand.csv")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := (examples.Kuairand{Dir: filepath.Join(data, "kuairand")}).Write(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	whole := strings.NewReplacer("  identifiers: [user_id]\n", "", "partitions: 8", "partitions: 3").Replace(string(example))
	single := whole[:strings.Index(whole, "  # Together.")] + whole[strings.Index(whole, "network:"):]
	deep := func(doc, network string) string {
		return strings.Replace(doc, "network:\n  kind: logistic\n", "network:\n"+network, 1)
	}
	const layers = "  factors: 8\n  factor_optimizer: {name: adagrad, learning_rate: 0.05, initial_accumulator: 0.1}\n  hidden: [32, 16]\n"
	reports := make(map[string]eval.Report)
	for name, doc := range map[string]string{
		"logistic":              single,
		"logistic with crosses": whole,
		"deepfm":                deep(single, "  kind: deepfm\n"+layers),
		"mlp":                   deep(single, "  kind: mlp\n"+layers),
	} {
		s, err := spec.Parse("kuairand.yaml", []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		f := &fixture{spec: s, events: 228_329}
		if f.source, err = files.Open(t.Context(), files.Config{URL: "file://" + path, Stream: s.Stream, Columns: feature.Columns(s)}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.source.Close() })
		f.model = ps.Model{Name: s.Model, Version: 1, Layout: s.Layout(eval.Tables()), Stream: f.source.Identity(), Partitions: f.source.Partitions()}
		f.params = newMemory(t, f.model)
		if err := learn(t, f, nil); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		report := f.series(t, eval.Progressive)
		reports[name] = report
		t.Logf("%s: AUC %.4f, log loss %.4f", name, *report.AUC, *report.LogLoss)
	}
	for _, name := range []string{"deepfm", "mlp"} {
		for _, other := range []string{"logistic", "logistic with crosses"} {
			if got, want := reports[name], reports[other]; *got.AUC < *want.AUC || *got.LogLoss > *want.LogLoss {
				t.Errorf("%s has AUC %.4f and log loss %.4f, want better than the %.4f and %.4f of %s",
					name, *got.AUC, *got.LogLoss, *want.AUC, *want.LogLoss, other)
			}
		}
	}
}
