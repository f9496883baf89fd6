package vectors

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// arrays are rows of two arrays of as many elements.
type arrays struct {
	ids, vectors *array
	text         []byte
	closers      []func() error
}

// openPair opens two .npy files.
func openPair(s Source) (rows, error) {
	a := &arrays{}
	for _, one := range []struct {
		path string
		into **array
	}{{s.IDs, &a.ids}, {s.Vectors, &a.vectors}} {
		file, err := os.Open(one.path)
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
		a.closers = append(a.closers, file.Close)
		if *one.into, err = newArray(one.path, file); err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	return a, nil
}

// openNPZ opens two arrays of an .npz file, which it closes in the end.
func openNPZ(s Source, file *os.File, size int64) (rows, error) {
	archive, err := zip.NewReader(file, size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ps.ErrCorrupt, err)
	}
	a := &arrays{}
	for _, one := range []struct {
		name string
		into **array
	}{{s.IDs, &a.ids}, {s.Vectors, &a.vectors}} {
		member, err := memberOf(archive, one.name)
		if err == nil {
			var in io.ReadCloser
			if in, err = member.Open(); err == nil {
				a.closers = append(a.closers, in.Close)
				*one.into, err = newArray(member.Name, in)
			} else {
				err = fmt.Errorf("%s: %w: %w", member.Name, ps.ErrCorrupt, err)
			}
		}
		if err != nil {
			return nil, errors.Join(err, a.close())
		}
	}
	a.closers = append(a.closers, file.Close)
	return a, nil
}

// memberOf returns an array of an .npz file.
func memberOf(archive *zip.Reader, name string) (*zip.File, error) {
	var names []string
	for _, f := range archive.File {
		if f.Name == name+".npy" {
			return f, nil
		}
		names = append(names, strings.TrimSuffix(f.Name, ".npy"))
	}
	slices.Sort(names)
	return nil, fmt.Errorf("it has no array %q: it has %s: %w", name, strings.Join(names, ", "), ps.ErrInvalid)
}

func (a *arrays) fits(width int) error {
	if err := a.ids.identifiers(); err != nil {
		return err
	}
	if err := a.vectors.vectors(width); err != nil {
		return err
	}
	if n, m := a.ids.shape[0], a.vectors.shape[0]; n != m {
		return fmt.Errorf("%s has %d identifiers, %s %d vectors: want as many: %w", a.ids.name, n, a.vectors.name, m, ps.ErrInvalid)
	}
	return nil
}

func (a *arrays) next(vector []float64) (identifier []byte, err error) {
	// Both are read to their end, so that what is behind it or wrong with it is found.
	if err := a.ids.next(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := a.vectors.next(); err != nil {
		return nil, err
	}
	decodeFloats(vector, a.vectors.row, a.vectors.dtype.size)
	a.text, err = a.ids.appendText(a.text[:0])
	return a.text, err
}

func (a *arrays) close() error {
	var err error
	for _, c := range a.closers {
		err = errors.Join(err, c())
	}
	return err
}
