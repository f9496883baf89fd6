package predict_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/freshet-ml/freshet/worker/model/sgemm"
	"github.com/freshet-ml/freshet/worker/predict"
	"github.com/freshet-ml/freshet/worker/spec"
)

const numeric, categorical = 13, 26 // as in Criteo's logs of clicks

// advertisements is a deepfm of 39 fields and a tower of 624-64-32.
func advertisements(t testing.TB) *spec.Spec {
	var doc strings.Builder
	doc.WriteString("model: ads\nlabel: {column: clicked}\nfeatures:\n")
	for i := range numeric {
		fmt.Fprintf(&doc, "  - {name: n%d, column: n%d, log: 2}\n", i, i)
	}
	for i := range categorical {
		fmt.Fprintf(&doc, "  - {name: c%d, column: c%d}\n", i, i)
	}
	doc.WriteString("network: {kind: deepfm, factors: 16, hidden: [64, 32]}\n")
	return parsed(t, doc.String())
}

// impressions returns columns of n events, the first half of which have one value if they
// share it.
func impressions(n int, share bool) (context, candidates []predict.Column) {
	rng := rand.New(rand.NewPCG(7, 0))
	for i := range numeric + categorical {
		c := column(fmt.Sprintf("n%d", i))
		values := rand.NewZipf(rng, 1.2, 8, 100_000)
		if i >= numeric {
			c.Name = fmt.Sprintf("c%d", i-numeric)
		}
		shared := share && i%2 == 0
		for range n {
			text := strconv.FormatUint(values.Uint64(), 10)
			if i >= numeric {
				text = fmt.Sprintf("%08x", values.Uint64())
			}
			c.Values = append(c.Values, text)
			if shared {
				break
			}
		}
		if shared {
			context = append(context, c)
		} else {
			candidates = append(candidates, c)
		}
	}
	return context, candidates
}

// BenchmarkScore scores 200 events of 39 fields. Of the time, pull-ns is the rows'.
func BenchmarkScore(b *testing.B) {
	const events = 200
	blas32.Use(sgemm.Implementation{})
	for _, share := range []bool{false, true} {
		context, candidates := impressions(events, share)
		s, rows := scorer(b, advertisements(b), nil)
		measure := func(name string, request func() error) {
			b.Run(fmt.Sprintf("%s/events=%d/shared=%v", name, events, share), func(b *testing.B) {
				if err := request(); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				rows.spent = 0
				for b.Loop() {
					if err := request(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(rows.spent.Nanoseconds())/float64(b.N), "pull-ns/op")
			})
		}
		all := append(context, candidates...)
		measure("predict", func() error { _, _, err := s.Predict(b.Context(), all); return err })
		measure("rank", func() error {
			_, _, err := s.Rank(b.Context(), predict.Rank{Context: context, Candidates: candidates, Top: 10})
			return err
		})
	}
}

func BenchmarkExplain(b *testing.B) {
	blas32.Use(sgemm.Implementation{})
	_, columns := impressions(1, false)
	s, rows := scorer(b, advertisements(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Explain(b.Context(), columns); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows.spent.Nanoseconds())/float64(b.N), "pull-ns/op")
}
