package files_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/freshet-ml/freshet/worker"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/files"
)

// impressions returns a click log of n rows with 19 columns, the size and shape of
// a real one.
func impressions(n int, quote string) string {
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	b.WriteString("user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n")
	for i := range n {
		fmt.Fprintf(&b, "%d,%s%d%s,20220425,0,%d,%d,0,0,0,0,0,%d,%d,%d,0,0,0,0,%d\n", rng.IntN(27285), quote, rng.IntN(7583), quote,
			1650812741436+int64(i)*1000-rng.Int64N(100000), rng.IntN(2), rng.IntN(2), rng.IntN(100000), rng.IntN(200000), rng.IntN(9))
	}
	return b.String()
}

// lines returns Vowpal Wabbit text of n lines with 3 namespaces and 50 features.
func lines(n int) string {
	rng := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%d |user %d |item %d |words", rng.IntN(2), rng.IntN(10000), rng.IntN(10000))
		for range 48 {
			fmt.Fprintf(&b, " %d:%.7e", rng.IntN(20000), rng.Float64())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func clickLog(url string) files.Config {
	c := csv(url, "user_id", "video_id", "time_ms", "is_click", "duration_ms", "tab")
	c.Stream.Time = spec.Time{Column: "time_ms", Unit: spec.Milliseconds}
	return c
}

func BenchmarkNext(b *testing.B) {
	const rows = 200_000
	plain := impressions(rows, "")
	with := func(c files.Config, change func(*files.Config)) files.Config {
		change(&c)
		return c
	}
	vowpal := lines(20_000)
	for _, bench := range []struct {
		name   string
		text   string
		config files.Config
	}{
		{"csv", plain, clickLog(write(b, "a.csv", plain))},
		{"csv/quoted", impressions(rows, `"`), clickLog(write(b, "q.csv", impressions(rows, `"`)))},
		{"csv/partitions=16", plain, with(clickLog(write(b, "a.csv", plain)), func(c *files.Config) {
			c.Stream.Partitions, c.Stream.PartitionBy = 16, "user_id"
		})},
		{"csv/masked", plain, with(clickLog(write(b, "a.csv", plain)), func(c *files.Config) {
			c.Stream.Identifiers, c.Secret = []string{"user_id"}, []byte("s")
		})},
		{"csv/zstd", plain, clickLog(write(b, "a.csv.zst", plain))},
		{"csv/sorted", plain, with(clickLog(write(b, "a.csv", plain)), func(c *files.Config) { c.Stream.Sort = true })},
		{"vw", vowpal, vw(write(b, "a.dat", vowpal), "label", "importance", "user", "item", "words")},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := open(b, bench.config)
			var e worker.Event
			n := 0
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := s.Read(b.Context(), starts(s))
				if err != nil {
					b.Fatal(err)
				}
				for {
					if err = r.Next(b.Context(), &e); err != nil {
						break
					}
					n++
				}
				if err != io.EOF {
					b.Fatal(err)
				}
				r.Close()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	text := impressions(200_000, "")
	for _, name := range []string{"a.csv", "a.csv.zst"} {
		for _, sort := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/sort=%v", name, sort), func(b *testing.B) {
				c := clickLog(write(b, name, text))
				c.Stream.Sort = sort
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					s, err := files.Open(b.Context(), c)
					if err != nil {
						b.Fatal(err)
					}
					s.Close()
				}
			})
		}
	}
}
