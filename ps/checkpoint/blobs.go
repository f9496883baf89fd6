package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/gcsblob"   // gs://
	_ "gocloud.dev/blob/memblob"   // mem://
	_ "gocloud.dev/blob/s3blob"    // s3://
	"gocloud.dev/gcerrors"

	"github.com/freshet-ml/freshet/ps"
)

// partBytes is how much of an object is uploaded at a time. S3 takes 10,000 parts,
// which bounds a file to 80 GiB, and a few of them are in memory per writer.
const partBytes = 8 << 20

// blobs keeps objects in an object store, or in memory.
type blobs struct{ bucket *blob.Bucket }

func openBlobs(ctx context.Context, u *url.URL) (*blobs, error) {
	at := *u
	// The drivers ignore the path, which would put every cluster's objects into one heap.
	prefix := strings.Trim(at.Path, "/")
	at.Path, at.RawPath = "", ""
	if prefix != "" {
		if err := validName(prefix); err != nil {
			return nil, err
		}
	}
	if u.Scheme == "mem" && (u.Host != "" || prefix != "") {
		return nil, fmt.Errorf("memory has no name: %s: %w", accepted, ps.ErrInvalid)
	}
	if u.Scheme != "mem" && u.Host == "" {
		return nil, fmt.Errorf("which bucket? %s: %w", accepted, ps.ErrInvalid)
	}
	bucket, err := blob.OpenBucket(ctx, at.String())
	if err != nil {
		// The drivers repeat the URL, with whatever somebody thought to put there.
		return nil, fmt.Errorf("%w: %s", ps.ErrInvalid, strings.ReplaceAll(err.Error(), at.String(), u.Scheme+"://"+u.Host))
	}
	if prefix != "" {
		bucket = blob.PrefixedBucket(bucket, prefix+"/")
	}
	b := &blobs{bucket: bucket}
	if err := b.present(ctx); err != nil {
		return nil, errors.Join(err, bucket.Close())
	}
	return b, nil
}

// present reports whether the bucket is there and can be listed.
func (b *blobs) present(ctx context.Context) error {
	ok, err := b.bucket.IsAccessible(ctx)
	if err != nil {
		return cause(ctx, err)
	}
	if !ok {
		return fmt.Errorf("%w: there is no such bucket; create it first", ps.ErrUnavailable)
	}
	return nil
}

func (b *blobs) create(ctx context.Context, name string) (sink, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // some drivers do not look
	}
	ctx, cancel := context.WithCancel(ctx)
	w, err := b.bucket.NewWriter(ctx, name, &blob.WriterOptions{
		BufferSize: partBytes, ContentType: "application/octet-stream", IfNotExist: true,
	})
	if err != nil {
		cancel()
		return nil, cause(ctx, err)
	}
	return &upload{w: w, cancel: cancel, ended: ctx.Err}, nil
}

func (b *blobs) open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	r, err := b.bucket.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		// A bucket that is gone must not look like objects that are lost.
		if err := b.present(ctx); err != nil {
			return nil, 0, err
		}
	}
	if err != nil {
		return nil, 0, cause(ctx, err)
	}
	return &download{r: r, ended: ctx.Err}, r.Size(), nil
}

func (b *blobs) list(ctx context.Context, prefix string, visit func(Object) error) error {
	entries := b.bucket.List(&blob.ListOptions{Prefix: prefix})
	for {
		entry, err := entries.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if gcerrors.Code(err) == gcerrors.NotFound {
			return unavailable(err)
		}
		if err != nil {
			return cause(ctx, err)
		}
		if entry.IsDir {
			continue
		}
		if err := visit(Object{Name: entry.Key, Bytes: entry.Size}); err != nil {
			return err
		}
	}
}

func (b *blobs) remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := b.bucket.Delete(ctx, name)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return b.present(ctx)
	}
	if err != nil {
		return cause(ctx, err)
	}
	return nil
}

func (b *blobs) close() error { return b.bucket.Close() }

// upload is an object being written.
type upload struct {
	w      *blob.Writer
	cancel context.CancelFunc
	ended  func() error
}

func (u *upload) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	if err != nil {
		return n, u.cause(err)
	}
	return n, nil
}

func (u *upload) commit() error {
	defer u.cancel()
	if err := u.w.Close(); err != nil {
		return u.cause(err)
	}
	return nil
}

// cause knows that what is not found when an object is made is its bucket.
func (u *upload) cause(err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		return unavailable(err)
	}
	return causeOf(u.ended(), err)
}

// abort gives the parts up: the driver tells the store when it closes with a
// context that has ended.
func (u *upload) abort() {
	u.cancel()
	_ = u.w.Close() // its error is that of the context
}

// download is an object being read.
type download struct {
	r     *blob.Reader
	ended func() error
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, causeOf(d.ended(), err)
	}
	return n, err
}

func (d *download) Close() error { return d.r.Close() }

func cause(ctx context.Context, err error) error { return causeOf(ctx.Err(), err) }

// causeOf says in our words what a driver's error means. ended is the context's
// error, for drivers hide it in one of their own.
func causeOf(ended, err error) error {
	if ended != nil {
		return fmt.Errorf("%w: %w", ended, err)
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return fmt.Errorf("it exists: %w: %w", ps.ErrConflict, err)
	case gcerrors.InvalidArgument:
		return fmt.Errorf("%w: %w", ps.ErrInvalid, err)
	}
	return unavailable(err)
}
