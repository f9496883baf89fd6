package examples_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/freshet-ml/freshet/cmd/freshet/examples"
	"github.com/freshet-ml/freshet/ps"
)

// small is a data set of three users, two of whom are known, and two videos.
func small() map[string]string {
	return map[string]string{
		"log.csv": "user_id,video_id,time_ms,is_click,duration_ms,tab\n" +
			"1,10,3000,1,5,0\n" +
			"2,11,1000,0,6,1\n" +
			"3,10,3000,0,5,1\n" + // user 3 is in no table
			"2,11,1000,0,6,1\n" + // the second row once more
			"1,12,2000,1,7,1\n", // nor is video 12
		"users.csv": "user_id,user_active_degree,follow_user_num_range,onehot_feat1,onehot_feat2,onehot_feat3\n" +
			"1,full,\"(10,50]\",a,b,c\n2,low,0,d,e,f\n",
		"videos.csv": "author_id,video_id,upload_type,tag\n" + // the identifier comes second
			"7,10,Web,\"3,9\"\n8,11,Camera,\n",
	}
}

// folder writes files, those whose name ends in .zst compressed.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		data := []byte(text)
		if strings.HasSuffix(name, ".zst") {
			e, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			data = e.EncodeAll(data, nil)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKuairandJoins(t *testing.T) {
	const want = "user_id,video_id,time_ms,is_click,duration_ms,tab," +
		"user_active_degree,follow_user_num_range,onehot_feat1,onehot_feat2,onehot_feat3,author_id,upload_type,tag\n" +
		"2,11,1000,0,6,1,low,0,d,e,f,8,Camera,\n" +
		"2,11,1000,0,6,1,low,0,d,e,f,8,Camera,\n" +
		"1,12,2000,1,7,1,full,\"(10,50]\",a,b,c,,,\n" +
		"1,10,3000,1,5,0,full,\"(10,50]\",a,b,c,7,Web,\"3,9\"\n" +
		"3,10,3000,0,5,1,,,,,,7,Web,\"3,9\"\n"
	compressed := small()
	for _, name := range []string{"log.csv", "videos.csv"} {
		compressed[name+".zst"] = compressed[name]
		delete(compressed, name)
	}
	for name, files := range map[string]map[string]string{"plain files": small(), "compressed files": compressed} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			got, err := examples.Kuairand{Dir: folder(t, files)}.Write(t.Context(), &b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, b.String()); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if want := (examples.Joined{Events: 5, Clicks: 2, UnknownUsers: 1, UnknownVideos: 1}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestKuairandRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(files map[string]string)
		kind   error
		says   []string
	}{
		{
			"a folder without the tables",
			func(f map[string]string) { delete(f, "users.csv"); delete(f, "videos.csv") },
			fs.ErrNotExist,
			[]string{"no users.csv", "no videos.csv", "KuaiRand-Pure", ".csv.zst"},
		},
		{
			"a table without a column",
			func(f map[string]string) { f["videos.csv"] = strings.ReplaceAll(f["videos.csv"], "tag", "tags") },
			ps.ErrCorrupt,
			[]string{"videos.csv", "no column tag", "author_id"},
		},
		{
			"a log without a column",
			func(f map[string]string) { f["log.csv"] = strings.ReplaceAll(f["log.csv"], "time_ms", "date") },
			ps.ErrCorrupt,
			[]string{"log.csv", "no column time_ms"},
		},
		{"an empty file", func(f map[string]string) { f["log.csv"] = "" }, ps.ErrCorrupt, []string{"log.csv", "empty", "user_id"}},
		{
			"a row with too few values",
			func(f map[string]string) { f["log.csv"] += "1,10\n" },
			ps.ErrCorrupt,
			[]string{"log.csv", "line 7"},
		},
		{
			"a time that is no number",
			func(f map[string]string) { f["log.csv"] += "1,10,noon,0,5,1\n" },
			ps.ErrCorrupt,
			[]string{"log.csv, line 7", "time_ms"},
		},
		{
			"a label that is no label",
			func(f map[string]string) { f["log.csv"] += "1,10,4000,yes,5,1\n" },
			ps.ErrCorrupt,
			[]string{"log.csv, line 7", "is_click"},
		},
		{
			"a user with two rows",
			func(f map[string]string) { f["users.csv"] += "2,low,0,d,e,f\n" },
			ps.ErrCorrupt,
			[]string{"users.csv, line 4", "user_id"},
		},
		{
			"a column that two files have",
			func(f map[string]string) {
				f["videos.csv"] = strings.Replace(f["videos.csv"], "author_id", "author_id,tab", 1)
			},
			ps.ErrCorrupt,
			nil,
		},
		{
			"compressed text that is not",
			func(f map[string]string) {
				f["users.csv.zst"] = f["users.csv"]
				delete(f, "users.csv")
			},
			nil, // spoilt below
			[]string{"users.csv.zst"},
		},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			files := small()
			c.change(files)
			dir := folder(t, files)
			if c.kind == nil {
				c.kind = ps.ErrCorrupt
				if err := os.WriteFile(filepath.Join(dir, "users.csv.zst"), []byte("user_id,user_active_degree"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var b bytes.Buffer
			_, err := examples.Kuairand{Dir: dir}.Write(t.Context(), &b)
			if !errors.Is(err, c.kind) {
				t.Fatalf("got %v, want %v", err, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if b.Len() > 0 {
				t.Errorf("%d bytes were written", b.Len())
			}
		})
	}
	t.Run("a folder that is not there is named", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "gone")
		_, err := examples.Kuairand{Dir: dir}.Write(t.Context(), &bytes.Buffer{})
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "want a folder with log.csv") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a file instead of a folder is refused", func(t *testing.T) {
		path := filepath.Join(folder(t, small()), "log.csv")
		if _, err := (examples.Kuairand{Dir: path}).Write(t.Context(), &bytes.Buffer{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a cancelled context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := (examples.Kuairand{Dir: folder(t, small())}).Write(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a full disk ends it", func(t *testing.T) {
		if _, err := (examples.Kuairand{Dir: folder(t, small())}).Write(t.Context(), &limited{left: 10}); !errors.Is(err, errFull) {
			t.Errorf("got %v", err)
		}
	})
}

// kuairand returns the real events, or skips the test.
func kuairand(t *testing.T) []byte {
	t.Helper()
	data := os.Getenv("FRESHET_DATA")
	if data == "" {
		t.Skip("FRESHET_DATA, the folder with the data set in its folder kuairand, is not set")
	}
	var b bytes.Buffer
	got, err := examples.Kuairand{Dir: filepath.Join(data, "kuairand")}.Write(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if want := (examples.Joined{Events: 228_329, Clicks: 100_900}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	return b.Bytes()
}

func TestKuairandOnRealData(t *testing.T) {
	text := kuairand(t)
	needed := specOf(t, "kuairand").Columns()
	n, last := 0, int64(0)
	filled := make(map[string]int)
	rows(t, bytes.NewReader(text), func(row func(string) string) {
		n++
		ms, err := strconv.ParseInt(row("time_ms"), 10, 64)
		if err != nil || ms < last {
			t.Fatalf("event %d: time %s after %d", n, row("time_ms"), last)
		}
		last = ms
		for _, c := range needed {
			if row(c) != "" {
				filled[c]++
			}
		}
	})
	if n != 228_329 {
		t.Errorf("%d events, want 228329", n)
	}
	for _, c := range needed {
		if filled[c] < 200_000 {
			t.Errorf("column %s is filled in %d events only", c, filled[c])
		}
	}
	slices.Sort(needed)
	t.Logf("read %d columns: %v", len(needed), needed)
}
