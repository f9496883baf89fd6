package files_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-ml/freshet/worker/spec"
)

// dataset returns the URL of a file of the test data, which is not part of the
// project.
func dataset(t *testing.T, name string) string {
	dir := os.Getenv("FRESHET_DATA")
	if dir == "" {
		t.Skip("FRESHET_DATA does not name the folder with the test data")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return "file://" + filepath.Join(dir, name)
}

func TestKuaiRand(t *testing.T) {
	config := clickLog(dataset(t, "kuairand/log.csv.zst"))
	config.Stream.Sort = true
	config.Stream.Partitions, config.Stream.PartitionBy = 4, "user_id"
	config.Stream.Identifiers, config.Secret = []string{"user_id"}, []byte(secret)
	began := time.Now()
	s := open(t, config)
	opened := time.Since(began)
	events := readAll(t, s)
	t.Logf("open %v, read %v, %s", opened, time.Since(began)-opened, s.Identity())
	if len(events) != 228_329 || s.Size() != 228_329 {
		t.Fatalf("got %d events, size %d, want 228329", len(events), s.Size())
	}
	clicks, last := 0, int64(0)
	for _, e := range events {
		if e.Err != "" || e.Time < last || len(e.Columns[0]) != 32 || strconv.FormatInt(e.Time, 10) != e.Columns[2] {
			t.Fatalf("after time %d: %+v", last, e)
		}
		last = e.Time
		if e.Columns[3] == "1" {
			clicks++
		}
	}
	if share := float64(clicks) / float64(len(events)); share < 0.3 || share > 0.6 {
		t.Fatalf("got %.3f clicks per impression, want about 0.44", share)
	}
}

func TestVowpalWabbitData(t *testing.T) {
	s := open(t, vw(dataset(t, "vw/0001.dat"), "label", "importance", "features"))
	events := readAll(t, s)
	if len(events) != 200 || s.Size() != 200 {
		t.Fatalf("got %d events, size %d, want 200", len(events), s.Size())
	}
	for _, e := range events {
		if e.Err != "" || e.Columns[0] != "0" && e.Columns[0] != "1" || e.Columns[1] != "<nil>" || len(strings.Fields(e.Columns[2])) < 5 {
			t.Fatalf("got %.200v", e)
		}
	}
	if got := events[0].Columns; got[0] != "1" || !strings.HasPrefix(got[2], "13:3.9656971e-02 24:") || !strings.HasSuffix(got[2], " const:.01") {
		t.Fatalf("first row: got %q", got)
	}
	config := vw(dataset(t, "vw/rcv1_small.dat.zst"), "label", "f")
	config.Stream.Time = spec.Time{}
	if n := len(readAll(t, open(t, config))); n != 1000 {
		t.Fatalf("rcv1_small: got %d rows, want 1000", n)
	}
}
