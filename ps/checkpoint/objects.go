package checkpoint

import (
	"context"
	"io"
)

// Objects is a store that OpenBucket does not know: one that a simulation keeps in
// memory and damages, for example. Its errors are those that Bucket's methods
// promise, and its methods are called as Bucket's are.
type Objects interface {
	// Create begins an object. Nobody sees it before Commit.
	Create(ctx context.Context, name string) (Sink, error)
	// Open wraps fs.ErrNotExist if there is no such object. Its reader returns io.EOF
	// at the object's end and nowhere else.
	Open(ctx context.Context, name string) (body io.ReadCloser, size int64, err error)
	// List returns the objects whose names begin with prefix, ascending.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Remove does nothing if there is no such object.
	Remove(ctx context.Context, name string) error
}

// Sink takes the bytes of a new object. Either Commit or Abort is called, once.
type Sink interface {
	io.Writer
	// Commit makes the object durable and visible, or wraps ps.ErrConflict if there
	// is one of its name. After an error there is none, unless the answer was lost.
	Commit() error
	Abort()
}

// NewBucket returns a bucket that keeps its objects in o. The URL is for people.
func NewBucket(url string, o Objects) *Bucket { return &Bucket{store: foreign{o}, url: url} }

// foreign makes a store of Objects.
type foreign struct{ objects Objects }

func (f foreign) create(ctx context.Context, name string) (sink, error) {
	s, err := f.objects.Create(ctx, name)
	return foreignSink{s}, err
}

func (f foreign) open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	return f.objects.Open(ctx, name)
}

func (f foreign) list(ctx context.Context, prefix string, visit func(Object) error) error {
	objects, err := f.objects.List(ctx, prefix)
	for _, o := range objects {
		if err == nil {
			err = visit(o)
		}
	}
	return err
}

func (f foreign) remove(ctx context.Context, name string) error { return f.objects.Remove(ctx, name) }
func (f foreign) close() error                                  { return nil }

type foreignSink struct{ Sink }

func (s foreignSink) commit() error { return s.Commit() }
func (s foreignSink) abort()        { s.Abort() }
