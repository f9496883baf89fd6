package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/freshet-ml/freshet/ps"
)

// What is in up's directory, beside an example's events.
const (
	secretName  = "secret"
	streamName  = "stream" // its identity
	lettersName = "dead-letters.jsonl"
	etcdName    = "etcd"
	epochsName  = "epochs"
	membersName = "members" // logs and dead letters of child processes
)

// directory is where up works. It is empty when up begins, or what an earlier up has
// left there.
type directory struct {
	path      string
	temporary bool // nobody asked for it: it goes when up ends
	made      bool // it was not there before
	goesOn    bool // an earlier up has worked in it
}

// openDirectory makes the directory, a temporary one if path is empty.
func openDirectory(path string) (*directory, error) {
	if path == "" {
		path, err := os.MkdirTemp("", "freshet-up-")
		return &directory{path: path, temporary: true, made: true}, err
	}
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, usageError{fmt.Errorf("--dir: %w", err)}
		}
		return &directory{path: path, made: true}, nil
	case err != nil:
		return nil, usageError{fmt.Errorf("--dir: %w", err)}
	case len(entries) == 0:
		return &directory{path: path}, nil
	}
	for _, entry := range entries {
		if entry.Name() == etcdName && entry.IsDir() {
			return &directory{path: path, goesOn: true}, nil
		}
	}
	return nil, condition{
		fmt.Sprintf("--dir %s is not empty, and no earlier up has worked in it: give a new directory", path),
		ps.ErrConflict,
	}
}

func (d *directory) file(name string) string { return filepath.Join(d.path, name) }

// undo removes what up has written: it failed before it began to learn, and the
// same command with the mistake mended finds the directory as it was.
func (d *directory) undo() error {
	if d.goesOn {
		return nil
	}
	if d.made {
		return os.RemoveAll(d.path)
	}
	return d.clear()
}

// end removes a temporary directory, but for what is to be read, if it is there.
func (d *directory) end(keep ...string) error {
	if !d.temporary {
		return nil
	}
	for _, name := range keep {
		if _, err := os.Stat(d.file(name)); err == nil {
			return d.clear(keep...)
		}
	}
	return os.RemoveAll(d.path)
}

// clear removes all files but those named.
func (d *directory) clear(keep ...string) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		kept := false
		for _, name := range keep {
			kept = kept || entry.Name() == name
		}
		if !kept {
			err = errors.Join(err, os.RemoveAll(d.file(entry.Name())))
		}
	}
	return err
}
