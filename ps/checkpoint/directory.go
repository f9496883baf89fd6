package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/freshet-ml/freshet/ps"
)

// directory keeps objects as files below a root. A file is written beside its
// place, synced, linked into place and its directory synced, in that order, so that
// a crash of the machine at any moment leaves the whole object or none.
type directory struct {
	root   string
	blocks sync.Pool // *[]byte of writeBytes, for files that are being written
}

// Large files are written past the page cache, in pieces of writeBytes: a checkpoint
// is read by nobody soon, its pages would push out others, and copying into pages of
// the cache is most of what writing costs the processor.
const (
	writeBytes    = 1 << 20 // a disk takes that much at full speed
	uncachedBytes = 4 << 10 // the largest sector in use
)

func openDirectory(root string) (*directory, error) {
	if err := makeDirectories(root); err != nil {
		return nil, unavailable(err)
	}
	return &directory{root: root}, nil
}

func (d *directory) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

func (d *directory) create(ctx context.Context, name string) (sink, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := d.present(); err != nil {
		return nil, err
	}
	path := d.path(name)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("it exists: %w", ps.ErrConflict)
	}
	if err := makeDirectories(filepath.Dir(path)); err != nil {
		return nil, unavailable(err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+Unfinished)
	if err != nil {
		return nil, unavailable(err)
	}
	block, ok := d.blocks.Get().(*[]byte)
	if !ok {
		block = aligned(writeBytes)
	}
	return &file{File: f, path: path, ended: ctx.Err, block: (*block)[:0], free: func() { d.blocks.Put(block) }}, nil
}

// aligned returns memory that can be written past the page cache.
func aligned(bytes int) *[]byte {
	b := make([]byte, bytes+uncachedBytes)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uncachedBytes
	b = b[skip:][:bytes:bytes]
	return &b
}

func (d *directory) open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		// A file system that is not mounted must not look like objects that are lost.
		if err := d.present(); err != nil {
			return nil, 0, err
		}
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, unavailable(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, 0, unavailable(err)
	}
	return &file{File: f, ended: ctx.Err}, info.Size(), nil
}

func (d *directory) list(ctx context.Context, prefix string, visit func(Object) error) error {
	if err := d.present(); err != nil {
		return err
	}
	below := d.root
	if slash := strings.LastIndexByte(prefix, '/'); slash > 0 {
		if err := validName(prefix[:slash]); err != nil {
			return err
		}
		below = d.path(prefix[:slash])
	}
	err := filepath.WalkDir(below, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return unavailable(err)
		}
		name, err := filepath.Rel(d.root, path)
		if err != nil {
			return unavailable(err)
		}
		name = filepath.ToSlash(name)
		if !entry.Type().IsRegular() || !strings.HasPrefix(name, prefix) {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return unavailable(err)
		}
		return visit(Object{Name: name, Bytes: info.Size()})
	})
	return err
}

func (d *directory) remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(err)
	}
	return d.present()
}

func (d *directory) close() error { return nil }

// present reports whether the root is still there.
func (d *directory) present() error {
	if _, err := os.Stat(d.root); err != nil {
		return unavailable(fmt.Errorf("the bucket's directory is gone: %w", err))
	}
	return nil
}

// file is an object being written or read.
type file struct {
	*os.File
	path  string
	ended func() error // of the context it was opened with

	// Of a file that is written only.
	block    []byte // what is not yet written, at most writeBytes, aligned
	uncached bool   // what is written bypasses the page cache
	cached   bool   // the file system does not do without it
	free     func() // gives block's memory back
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.ended(); err != nil {
		return 0, err
	}
	written := 0
	for written < len(p) {
		n := copy(f.block[len(f.block):cap(f.block)], p[written:])
		f.block = f.block[:len(f.block)+n]
		written += n
		if len(f.block) == cap(f.block) {
			if err := f.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// flush writes the block: past the page cache if it is a whole one, since others are
// no whole sectors.
func (f *file) flush() error {
	whole := len(f.block) == cap(f.block)
	if uncached := whole && !f.cached; uncached != f.uncached {
		f.uncached = setUncached(f.File, uncached)
		f.cached = f.uncached != uncached
	}
	n, err := f.File.Write(f.block)
	if f.uncached && errors.Is(err, syscall.EINVAL) {
		// Some file systems take the flag and then refuse, or want larger sectors.
		f.uncached, f.cached = setUncached(f.File, false), true
		_, err = f.File.Write(f.block[n:])
	}
	f.block = f.block[:0]
	if err != nil {
		return unavailable(err)
	}
	return nil
}

func (f *file) Read(p []byte) (int, error) {
	if err := f.ended(); err != nil {
		return 0, err
	}
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF {
		return n, unavailable(err)
	}
	return n, err
}

func (f *file) commit() error {
	defer f.free()
	if err := f.ended(); err != nil {
		f.discard()
		return err
	}
	if err := f.flush(); err != nil {
		f.discard()
		return err
	}
	if err := f.Sync(); err != nil {
		f.discard()
		return unavailable(err)
	}
	if err := f.Close(); err != nil {
		f.discard()
		return unavailable(err)
	}
	if err := place(f.Name(), f.path); err != nil {
		f.discard()
		return err
	}
	if err := syncDirectory(filepath.Dir(f.path)); err != nil {
		_ = os.Remove(f.path) // nothing names it
		return unavailable(err)
	}
	return nil
}

func (f *file) abort() {
	f.free()
	f.discard()
}

// discard removes what was written.
func (f *file) discard() {
	_ = f.Close()           // of no interest: the bytes are not wanted
	_ = os.Remove(f.Name()) // if it fails, Garbage finds it
}

// place gives the file at from its final path unless there is one already.
func place(from, to string) error {
	err := os.Link(from, to)
	switch {
	case err == nil:
		_ = os.Remove(from) // if it fails, a second name remains, which Garbage finds
		return nil
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("it exists: %w", ps.ErrConflict)
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		// A file system without links. Names are unique, so that nothing is lost if two
		// writers of one name come between these.
		if _, err := os.Lstat(to); err == nil {
			return fmt.Errorf("it exists: %w", ps.ErrConflict)
		}
		if err := os.Rename(from, to); err != nil {
			return unavailable(err)
		}
		return nil
	}
	return unavailable(err)
}

// makeDirectories makes a directory and its parents durable.
func makeDirectories(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if err := makeDirectories(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDirectory(parent)
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some network file systems sync on their own
		return err
	}
	return nil
}

// unavailable hides fs.ErrNotExist of a cause: in this package that is an object
// that is lost, and here it is a directory.
func unavailable(cause error) error {
	if errors.Is(cause, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ps.ErrUnavailable, cause.Error())
	}
	return fmt.Errorf("%w: %w", ps.ErrUnavailable, cause)
}
