package vectors

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/freshet-ml/freshet/ps"
)

// Names of what holds identifiers and vectors where nothing else is said.
const (
	DefaultIDs     = "ids"
	DefaultVectors = "vectors"
)

// Source says where identifiers and vectors are.
type Source struct {
	// From is an .npz or Parquet file. If it is empty, IDs and Vectors are .npy files.
	From string
	// IDs and Vectors name the arrays or columns in From. Default: DefaultIDs and
	// DefaultVectors.
	IDs, Vectors string
}

// Input is an open Source. It is read once, by one goroutine, and must be closed.
type Input struct {
	name string // of the file, for errors
	rows rows
}

// rows are identifiers and vectors, one after the other.
type rows interface {
	// fits reports that vectors do not have so many numbers, as far as that is known
	// before they are read.
	fits(width int) error
	// next fills vector with the next row's and returns its identifier as text, which is
	// valid until the next call. It returns io.EOF after the last row.
	next(vector []float64) (identifier []byte, err error)
	close() error
}

// What files begin with, which tells more than their names.
const (
	npyMagic     = "\x93NUMPY"
	zipMagic     = "PK"
	parquetMagic = "PAR1"
)

// Open opens a source and reads what it says of itself. It wraps ps.ErrInvalid if arrays or
// columns are missing or of types that are neither identifiers nor vectors, ps.ErrCorrupt if
// a file is damaged, and what opening a file does.
func Open(s Source) (*Input, error) {
	in := &Input{name: cmp.Or(s.From, s.Vectors)}
	var err error
	if s.From == "" {
		if s.IDs == "" || s.Vectors == "" {
			return nil, fmt.Errorf("identifiers and vectors are in two .npy files, or both in an .npz or Parquet file: %w", ps.ErrInvalid)
		}
		in.rows, err = openPair(s)
	} else {
		s.IDs, s.Vectors = cmp.Or(s.IDs, DefaultIDs), cmp.Or(s.Vectors, DefaultVectors)
		in.rows, err = openFile(s)
	}
	if err != nil {
		return nil, err
	}
	return in, nil
}

// Close closes the source's files.
func (in *Input) Close() error { return in.rows.close() }

// openFile opens the one file that holds all, by what it begins with.
func openFile(s Source) (rows, error) {
	file, err := os.Open(s.From)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (rows, error) {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.From, err), file.Close())
	}
	info, err := file.Stat()
	if err != nil {
		return fail(err)
	}
	begin := make([]byte, len(npyMagic))
	if n, err := file.ReadAt(begin, 0); err != nil && !errors.Is(err, io.EOF) {
		return fail(err)
	} else {
		begin = begin[:n]
	}
	var r rows
	switch {
	case hasPrefix(begin, zipMagic):
		r, err = openNPZ(s, file, info.Size())
	case hasPrefix(begin, parquetMagic):
		r, err = openParquet(s, file, info.Size())
	case hasPrefix(begin, npyMagic):
		err = fmt.Errorf("an .npy file is one array, and identifiers are another: give both, or an .npz: %w", ps.ErrInvalid)
	default:
		err = fmt.Errorf("it is neither an .npz nor a Parquet file: %w", ps.ErrInvalid)
	}
	if err != nil {
		return fail(err)
	}
	return r, nil
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}
