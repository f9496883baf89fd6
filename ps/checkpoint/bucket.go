package checkpoint

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// Bucket is where objects are kept: names to bytes that are written once. It is
// safe for concurrent use; what it hands out has one owner each.
//
// Every method that contacts the store wraps ps.ErrUnavailable together with the
// cause when the store cannot be reached or will not do it (the network, a full
// disk, a missing permission, a bucket or directory that is gone), and the
// context's error when that ended it.
type Bucket struct {
	store store
	url   string // without secrets
}

// store is what Bucket needs of a technology. Its errors are Bucket's but for the
// name.
type store interface {
	// create begins an object. Nobody sees it before commit.
	create(ctx context.Context, name string) (sink, error)
	// open wraps fs.ErrNotExist if there is no such object. Its reader returns io.EOF
	// at the object's end and nowhere else.
	open(ctx context.Context, name string) (body io.ReadCloser, size int64, err error)
	// list calls visit with the objects whose names begin with prefix, ascending.
	list(ctx context.Context, prefix string, visit func(Object) error) error
	// remove does nothing if there is no such object.
	remove(ctx context.Context, name string) error
	close() error
}

// sink takes the bytes of a new object. Either commit or abort is called, once.
type sink interface {
	io.Writer
	// commit makes the object durable and visible, or wraps ps.ErrConflict if there
	// is one of its name. After an error there is none.
	commit() error
	abort()
}

// Object is an entry of a bucket.
type Object struct {
	Name  string
	Bytes int64
}

// Unfinished ends the names under which a directory lists what a crash left of an
// object that was being written. Nothing reads them; Garbage finds them.
const Unfinished = ".part"

// finished returns the name of the object that name is or would have become.
func finished(name string) string {
	if cut, ok := strings.CutSuffix(name, Unfinished); ok {
		if dot := strings.LastIndexByte(cut, '.'); dot >= 0 {
			return cut[:dot]
		}
	}
	return name
}

// accepted says what OpenBucket takes, for its errors.
const accepted = `want file:///directory, mem://, s3://bucket/prefix?region=…, gs://bucket/prefix or azblob://container/prefix`

// OpenBucket opens the store that a URL names and sees whether it is there.
//
//	file:///directory          created with its parents if missing; every object is on the disk before it is reported written
//	mem://                     a store of its own that ends with the bucket; share the Bucket
//	s3://bucket/prefix         ?region=&endpoint=&use_path_style=true&profile=… for stores that speak S3
//	gs://bucket/prefix         Google Cloud Storage
//	azblob://container/prefix  Azure
//
// Credentials come from where the vendor's own tools find them, never from the
// URL. It wraps ps.ErrInvalid if the URL is none of these or its settings are
// wrong, ps.ErrUnavailable if the store does not answer or has no such bucket.
func OpenBucket(ctx context.Context, rawURL string) (*Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's message would repeat the URL, with whatever secret is in it.
		return nil, fmt.Errorf("bucket URL cannot be parsed: %s: %w", accepted, ps.ErrInvalid)
	}
	b := &Bucket{url: (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()}
	fail := func(err error) (*Bucket, error) { return nil, fmt.Errorf("open bucket %s: %w", b.url, err) }
	if u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return fail(fmt.Errorf("user, fragment or no slashes: %s: %w", accepted, ps.ErrInvalid))
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" {
			return fail(fmt.Errorf("no absolute directory and nothing else: %s: %w", accepted, ps.ErrInvalid))
		}
		b.store, err = openDirectory(filepath.Clean(u.Path))
	case "mem", "s3", "gs", "azblob":
		b.store, err = openBlobs(ctx, u)
	default:
		err = fmt.Errorf("no such kind of bucket: %s: %w", accepted, ps.ErrInvalid)
	}
	if err != nil {
		return fail(err)
	}
	return b, nil
}

// URL returns what the bucket was opened with, without settings.
func (b *Bucket) URL() string { return b.url }

// Writer begins an object of the given name: parts of letters, digits, "-", "_" and
// "." between slashes. ctx governs all writing. It wraps ps.ErrInvalid if the name
// is none, and may, as Close does, wrap ps.ErrConflict if there is such an object.
func (b *Bucket) Writer(ctx context.Context, name string) (*ObjectWriter, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	s, err := b.store.create(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("create %s in %s: %w", name, b.url, err)
	}
	return &ObjectWriter{sink: s, name: name, url: b.url}, nil
}

// Reader opens an object. ctx governs all reading. It wraps fs.ErrNotExist if there
// is none, which for an object that was ever named means that it is lost.
func (b *Bucket) Reader(ctx context.Context, name string) (*ObjectReader, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	body, size, err := b.store.open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", name, b.url, err)
	}
	return &ObjectReader{ReadCloser: body, size: size}, nil
}

// List returns the objects whose names begin with prefix, ascending by name.
func (b *Bucket) List(ctx context.Context, prefix string) ([]Object, error) {
	var objects []Object
	err := b.store.list(ctx, prefix, func(o Object) error {
		objects = append(objects, o)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s* in %s: %w", prefix, b.url, err)
	}
	return objects, nil
}

// Delete removes an object. It is no error if there is none.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := validName(name); err != nil {
		return err
	}
	if err := b.store.remove(ctx, name); err != nil {
		return fmt.Errorf("delete %s in %s: %w", name, b.url, err)
	}
	return nil
}

// Close ends the use of the bucket, after all that it handed out has ended.
func (b *Bucket) Close() error { return b.store.close() }

// put writes a whole object.
func (b *Bucket) put(ctx context.Context, name string, content []byte) error {
	w, err := b.Writer(ctx, name)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Close()
}

// get reads a whole object of at most so many bytes.
func (b *Bucket) get(ctx context.Context, name string, bytesMax int64) ([]byte, error) {
	r, err := b.Reader(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > bytesMax {
		return nil, fmt.Errorf("%d bytes, at most %d are read: %w", r.Size(), bytesMax, ps.ErrCorrupt)
	}
	content, err := io.ReadAll(io.LimitReader(r, bytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("byte %d: %w", len(content), err)
	}
	return content, nil
}

// ObjectWriter writes an object. Nobody sees it before Close has returned nil.
type ObjectWriter struct {
	sink  sink
	name  string
	url   string
	ended bool
}

// Write adds p and keeps no reference to it.
func (w *ObjectWriter) Write(p []byte) (int, error) {
	n, err := w.sink.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %s in %s: %w", w.name, w.url, err)
	}
	return n, nil
}

// Close makes the object durable and visible. After an error there is none, unless
// the store's answer was lost.
func (w *ObjectWriter) Close() error {
	w.ended = true
	if err := w.sink.commit(); err != nil {
		return fmt.Errorf("finish %s in %s: %w", w.name, w.url, err)
	}
	return nil
}

// Abort gives the object up. After Close, or a second time, it does nothing.
func (w *ObjectWriter) Abort() {
	if !w.ended {
		w.ended = true
		w.sink.abort()
	}
}

// ObjectReader reads an object from its beginning.
type ObjectReader struct {
	io.ReadCloser
	size int64
}

// Size returns the bytes of the object.
func (r *ObjectReader) Size() int64 { return r.size }

// nameMax bounds the name of an object; stores take 1,024.
const nameMax = 512

// validName keeps names to what every store takes as it is, and inside the bucket.
func validName(name string) error {
	ok := name != "" && len(name) <= nameMax
	for part := range strings.SplitSeq(name, "/") {
		ok = ok && part != "" && part[0] != '.'
		for _, c := range []byte(part) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
		}
	}
	if !ok {
		return fmt.Errorf("object name %q: want letters, digits, \"-\", \"_\" and \".\" between slashes, at most %d bytes: %w",
			name, nameMax, ps.ErrInvalid)
	}
	return nil
}
