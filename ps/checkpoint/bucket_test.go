package checkpoint_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// s3 starts a store that speaks S3 in this process, with a bucket "models", and
// returns its address and how to take the bucket away.
func s3(t *testing.T) (settings string, destroy func()) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("models"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	return "?region=none&use_path_style=true&response_checksum_validation=when_required&endpoint=" + server.URL, server.Close
}

func TestEveryBucket(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		acceptance(t, openBucket(t, "file://"+t.TempDir()+"/not/there yet"))
	})
	t.Run("memory", func(t *testing.T) { acceptance(t, openBucket(t, "mem://")) })
	t.Run("s3", func(t *testing.T) {
		settings, _ := s3(t)
		acceptance(t, openBucket(t, "s3://models"+settings))
	})
	t.Run("s3 with a prefix", func(t *testing.T) {
		settings, _ := s3(t)
		b := openBucket(t, "s3://models/team/a"+settings)
		acceptance(t, b)
		put(t, b, "x/y", []byte("z"))
		if got, want := names(t, openBucket(t, "s3://models"+settings), "team/"), []string{"team/a/x/y"}; !slices.Equal(got, want) {
			t.Errorf("a bucket with prefix team/a put its object at %q, want %q", got, want)
		}
	})
}

// acceptance is what every bucket has to pass, beginning empty. It leaves it empty.
func acceptance(t *testing.T, b *checkpoint.Bucket) {
	large := make([]byte, 20<<20) // several parts of an upload
	random := seeded(t)
	for i := range large {
		large[i] = byte(random.Uint32())
	}
	objects := map[string][]byte{"a/b/1": []byte("one"), "a/b/2": large, "a/b2": {}, "a0/b": []byte("four"), "a/b/d/e-_.json": []byte("{}")}
	if got := names(t, b, ""); got != nil {
		t.Fatalf("a new bucket lists %q", got)
	}
	for name, content := range objects {
		w, err := b.Writer(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 100_000)
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if _, err := b.Reader(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("before Close, reading %s gave %v, want fs.ErrNotExist", name, err)
		}
		if slices.Contains(names(t, b, "a"), name) {
			t.Errorf("before Close, %s is listed", name)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		w.Abort() // does nothing any more
	}
	for name, want := range objects {
		if got := get(t, b, name); !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, want %d, the same", name, len(got), len(want))
		}
		r, err := b.Reader(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(len(want)) {
			t.Errorf("the size of %s is %d, want %d", name, r.Size(), len(want))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Run("names are listed by prefix, ascending", func(t *testing.T) {
		for prefix, want := range map[string][]string{
			"":       {"a/b/1", "a/b/2", "a/b/d/e-_.json", "a/b2", "a0/b"},
			"a/":     {"a/b/1", "a/b/2", "a/b/d/e-_.json", "a/b2"},
			"a/b":    {"a/b/1", "a/b/2", "a/b/d/e-_.json", "a/b2"},
			"a/b/":   {"a/b/1", "a/b/2", "a/b/d/e-_.json"},
			"a/b/d/": {"a/b/d/e-_.json"},
			"none/":  nil,
		} {
			if got := names(t, b, prefix); !slices.Equal(got, want) {
				t.Errorf("List(%q) = %q, want %q", prefix, got, want)
			}
		}
	})
	t.Run("nothing is written over", func(t *testing.T) {
		w, err := b.Writer(t.Context(), "a/b/1")
		if err == nil {
			_, err = w.Write([]byte("another"))
			if err == nil {
				err = w.Close()
			}
			w.Abort()
		}
		if !errors.Is(err, ps.ErrConflict) {
			t.Errorf("writing a/b/1 again gave %v, want ErrConflict", err)
		}
		if got := get(t, b, "a/b/1"); string(got) != "one" {
			t.Errorf("a/b/1 holds %q, want %q", got, "one")
		}
	})
	t.Run("of two writers of a name one wins", func(t *testing.T) {
		var errs []error
		var writers []*checkpoint.ObjectWriter
		for i := range 2 {
			w, err := b.Writer(t.Context(), "two")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprint(w, i); err != nil {
				t.Fatal(err)
			}
			writers = append(writers, w)
		}
		for _, w := range writers {
			errs = append(errs, w.Close())
		}
		if errs[0] != nil || !errors.Is(errs[1], ps.ErrConflict) {
			t.Errorf("closing both gave %v, want nil and ErrConflict", errs)
		}
		if got := get(t, b, "two"); string(got) != "0" {
			t.Errorf("it holds %q, want the first's, %q", got, "0")
		}
		if err := b.Delete(t.Context(), "two"); err != nil {
			t.Error(err)
		}
	})
	t.Run("an aborted object leaves nothing", func(t *testing.T) {
		for _, size := range []int{0, 10, len(large)} {
			w, err := b.Writer(t.Context(), "aborted/x")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(large[:size]); err != nil {
				t.Fatal(err)
			}
			w.Abort()
			w.Abort()
			if got := names(t, b, "aborted"); got != nil {
				t.Errorf("after %d bytes and Abort there are %q", size, got)
			}
		}
	})
	t.Run("a context that ends gives the object up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w, err := b.Writer(ctx, "cancelled/x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := w.Close(); !errors.Is(err, context.Canceled) {
			t.Errorf("Close gave %v, want context.Canceled", err)
		}
		if got := names(t, b, "cancelled"); got != nil {
			t.Errorf("there are %q", got)
		}
		if _, err := b.Reader(ctx, "a/b/1"); !errors.Is(err, context.Canceled) {
			t.Errorf("reading gave %v, want context.Canceled", err)
		}
	})
	t.Run("names that could mean something else are refused", func(t *testing.T) {
		for _, name := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", ".", "a b", "ä", "a\x00", strings.Repeat("a", 600)} {
			_, errWriter := b.Writer(t.Context(), name)
			_, errReader := b.Reader(t.Context(), name)
			for _, err := range []error{errWriter, errReader, b.Delete(t.Context(), name)} {
				if !errors.Is(err, ps.ErrInvalid) {
					t.Errorf("the name %q gave %v, want ErrInvalid", name, err)
				}
			}
		}
	})
	t.Run("what is deleted is gone, and may be deleted again", func(t *testing.T) {
		for name := range objects {
			for range 2 {
				if err := b.Delete(t.Context(), name); err != nil {
					t.Errorf("deleting %s: %v", name, err)
				}
			}
			if _, err := b.Reader(t.Context(), name); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(fmt.Sprint(err), name) {
				t.Errorf("reading %s gave %v, want fs.ErrNotExist with its name", name, err)
			}
		}
		if got := names(t, b, ""); got != nil {
			t.Errorf("%q remain", got)
		}
	})
}

func TestBadURLsAreRefusedAndSayWhatIsAccepted(t *testing.T) {
	for _, url := range []string{
		"", "models", "/var/models", "file://models", "file:models", "file:///x?create_dir=1", "http://x/y", "mem://name",
		"s3://", "s3:///x", "gs://", "s3://bucket/../x?region=a", "s3://user:hush@bucket", "s3://bucket?regino=hush", "://hush", "s3://\x00hush",
	} {
		_, err := checkpoint.OpenBucket(t.Context(), url)
		if !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("OpenBucket(%q) gave %v, want ErrInvalid", url, err)
		}
		if strings.Contains(fmt.Sprint(err), "hush") {
			t.Errorf("OpenBucket(%q) tells what may be a secret: %v", url, err)
		}
	}
	if _, err := checkpoint.OpenBucket(t.Context(), "ftp://x"); !strings.Contains(fmt.Sprint(err), "s3://bucket/prefix") {
		t.Errorf("the error %q does not say what is accepted", err)
	}
}

func TestAStoreThatIsNotThereIsUnavailable(t *testing.T) {
	t.Run("no bucket", func(t *testing.T) {
		settings, _ := s3(t)
		if _, err := checkpoint.OpenBucket(t.Context(), "s3://other"+settings); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
	t.Run("a server that goes away", func(t *testing.T) {
		settings, destroy := s3(t)
		b := openBucket(t, "s3://models"+settings)
		put(t, b, "x", []byte("y"))
		destroy()
		unavailable(t, b)
	})
	t.Run("a directory that goes away", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "bucket")
		b := openBucket(t, "file://"+dir)
		put(t, b, "x", []byte("y"))
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		unavailable(t, b)
	})
	t.Run("a file in the directory's place", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bucket")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.OpenBucket(t.Context(), "file://"+path); !errors.Is(err, ps.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	})
}

// unavailable checks that nothing about b looks like an object that is lost. It
// asks for everything at once, because drivers try several times.
func unavailable(t *testing.T, b *checkpoint.Bucket) {
	t.Helper()
	file := checkpoint.File{Ref: checkpoint.Ref{Name: checkpoint.Name(ptr(head()), 1), Bytes: 1}}
	var all sync.WaitGroup
	for what, ask := range map[string]func() error{
		"Reader": func() error { _, err := b.Reader(t.Context(), "x"); return err },
		"List":   func() error { _, err := b.List(t.Context(), ""); return err },
		"Delete": func() error { return b.Delete(t.Context(), "x") },
		"Open":   func() error { _, err := checkpoint.Open(t.Context(), b, file); return err },
		"Writer": func() error {
			w, err := b.Writer(t.Context(), "z")
			if err != nil {
				return err
			}
			defer w.Abort()
			_, err = w.Write([]byte("y"))
			return cmp.Or(err, w.Close())
		},
	} {
		all.Go(func() {
			if err := ask(); !errors.Is(err, ps.ErrUnavailable) || errors.Is(err, ps.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s gave %v, want ErrUnavailable alone", what, err)
			}
		})
	}
	all.Wait()
}

func ptr[T any](v T) *T { return &v }

func TestADirectoryListsWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	b := openBucket(t, "file://"+dir)
	name := checkpoint.Name(ptr(head()), 1)
	w, err := checkpoint.Create(t.Context(), b, name, head()) // and neither closed nor aborted
	if err != nil {
		t.Fatal(err)
	}
	left := names(t, b, checkpoint.SnapshotPrefix("shop"))
	if len(left) != 1 || !strings.HasPrefix(left[0], name) || !strings.HasSuffix(left[0], checkpoint.Unfinished) {
		t.Fatalf("the bucket lists %q, want %q with more and %q", left, name, checkpoint.Unfinished)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, b, ""); !slices.Equal(got, []string{name}) {
		t.Errorf("closed, it lists %q, want %q", got, name)
	}
}

func TestFilesOfADirectoryCopyElsewhere(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	b := openBucket(t, "file://"+from)
	h := head()
	f, err := write(t.Context(), b, checkpoint.Name(&h, 5), h, content{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(t.Context(), openBucket(t, "file://"+to), f); err != nil {
		t.Error(err)
	}
}
