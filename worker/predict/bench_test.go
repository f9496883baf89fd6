package predict_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/blas/blas32"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
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

// million is a list of a million items: each has its own row, one of 10,000 sellers', and two
// of 1000 tags'.
func million() *predict.Items {
	const n = 1_000_000
	rng := rand.New(rand.NewPCG(1, 0))
	columns := []predict.Column{column("item"), column("seller"), column("tags")}
	for i := range n {
		columns[0].Values = append(columns[0].Values, strconv.Itoa(i))
		columns[1].Values = append(columns[1].Values, strconv.Itoa(rng.IntN(10_000)))
		columns[2].Values = append(columns[2].Values, strconv.Itoa(rng.IntN(1000))+"|"+strconv.Itoa(rng.IntN(1000)))
	}
	return &predict.Items{Name: "item", Columns: columns}
}

const millionDoc = `
model: million
label: {column: clicked}
features:
  - {name: user, column: user}
  - {name: item, column: item}
  - {name: seller, column: seller}
  - {name: tags, column: tags, split: "|"}
network: {kind: fm, factors: 32}
`

// BenchmarkItems is about a million items of 32 factors: how long a list takes, then their
// vectors, how many bytes both hold for an item, a search for 100, and a change.
func BenchmarkItems(b *testing.B) {
	var before, after runtime.MemStats
	list := million()
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	log := &lines{written: make(chan string, 8)}
	s, rows := scorer(b, parsed(b, millionDoc), func(c *predict.ScorerConfig) {
		c.Items, c.Logger = list, slog.New(slog.NewTextHandler(log, nil))
	})
	listed := time.Since(began)
	rows.forget = true
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	began = time.Now()
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	for !strings.Contains(<-log.written, "items can be retrieved") {
	}
	loaded := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(list)
	b.Run("load/items=1000000/width=32", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(listed.Seconds(), "list-s")
		b.ReportMetric(loaded.Seconds(), "vectors-s")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "bytes/item")
	})
	b.Run("retrieve/items=1000000/width=32/top=100", func(b *testing.B) {
		b.ReportAllocs()
		r := predict.Retrieve{Top: 100, Context: []predict.Column{column("user", "712")}, NotIn: []string{"1", "2", "3"}}
		for b.Loop() {
			if found, _, err := s.Retrieve(b.Context(), r); err != nil || len(found) != 100 {
				b.Fatal(len(found), err)
			}
		}
	})
	b.Run("changed/keys=200000", func(b *testing.B) { // more than the caches hold
		keys := make([]ps.Key, 200_000)
		for i := range keys { // one in two is an item's
			keys[i] = feature.Key([]string{"user", "item"}[i%2], []byte(strconv.Itoa(i*997%1_000_000)))
		}
		for b.Loop() {
			s.Changed(1, keys)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/key")
	})
}

// lines passes on what is logged.
type lines struct{ written chan string }

func (l *lines) Write(p []byte) (int, error) {
	l.written <- string(p)
	return len(p), nil
}
