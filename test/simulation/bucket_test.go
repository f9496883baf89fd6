package simulation_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// objects are a bucket in memory. An object that was not committed when its writer died
// leaves a beginning of it under the name of an unfinished one.
type objects struct {
	world   *world
	content map[string][]byte
	names   []string // ascending
	damaged map[string]bool
}

func (o *objects) put(name string, content []byte) {
	if i, found := slices.BinarySearch(o.names, name); !found {
		o.names = slices.Insert(o.names, i, name)
	}
	o.content[name] = content
}

// reach stops the task and may fail it: what every access to the bucket does first.
func (o *objects) reach() error {
	if err := o.world.pause(); err != nil {
		return err
	}
	if o.world.current != nil && o.world.strikes(bucketDown, 25) {
		o.world.tracef("%s: the bucket does not answer", o.world.running())
		o.world.bite(bucketDown)
		return fmt.Errorf("no route to the bucket: %w", ps.ErrUnavailable)
	}
	return nil
}

// Create begins an object.
func (o *objects) Create(_ context.Context, name string) (checkpoint.Sink, error) {
	if err := o.reach(); err != nil {
		return nil, err
	}
	return &sink{objects: o, name: name, task: o.world.current}, nil
}

// Open opens an object.
func (o *objects) Open(_ context.Context, name string) (io.ReadCloser, int64, error) {
	if err := o.reach(); err != nil {
		return nil, 0, err
	}
	content, ok := o.content[name]
	if o.damaged[name] && o.world.current != nil {
		o.world.bite(damage)
	}
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(content)), int64(len(content)), nil
}

// List lists objects.
func (o *objects) List(_ context.Context, prefix string) ([]checkpoint.Object, error) {
	if err := o.reach(); err != nil {
		return nil, err
	}
	var found []checkpoint.Object
	for _, name := range o.names {
		if strings.HasPrefix(name, prefix) {
			found = append(found, checkpoint.Object{Name: name, Bytes: int64(len(o.content[name]))})
		}
	}
	return found, nil
}

// Remove deletes an object.
func (o *objects) Remove(_ context.Context, name string) error {
	if err := o.reach(); err != nil {
		return err
	}
	i, found := slices.BinarySearch(o.names, name)
	if !found {
		return nil
	}
	o.world.tracef("%s: deletes %s", o.world.running(), name)
	o.names = slices.Delete(o.names, i, i+1)
	delete(o.content, name)
	o.world.deleted++
	if o.world.reached[name] {
		o.world.failf("invariant 10: %s is deleted, and a retained manifest reaches it", name)
	}
	return nil
}

// sink is an object being written.
type sink struct {
	objects *objects
	task    *task
	name    string
	content []byte
}

func (s *sink) Write(p []byte) (int, error) {
	if s.task != nil && s.task.dead {
		return 0, errCrashed
	}
	s.content = append(s.content, p...)
	return len(p), nil
}

// Commit makes the object visible, unless its writer dies first.
func (s *sink) Commit() error {
	if err := s.objects.reach(); err != nil {
		if s.task != nil && s.task.dead {
			s.tear()
		}
		return err
	}
	if _, exists := s.objects.content[s.name]; exists {
		return ps.ErrConflict
	}
	s.objects.put(s.name, s.content)
	return nil
}

// Abort gives the object up; a process that died did not get to do so.
func (s *sink) Abort() {
	if s.task != nil && s.task.dead {
		s.tear()
	}
}

// tear leaves what had come to the disk.
func (s *sink) tear() {
	w := s.objects.world
	n := 0
	if len(s.content) > 0 {
		n = w.random.IntN(len(s.content))
	}
	w.torn++
	w.bite(tornFile)
	s.objects.put(fmt.Sprintf("%s.%d%s", s.name, w.torn, checkpoint.Unfinished), s.content[:n])
}

// harm flips a byte, cuts the tail off or removes an object that was committed.
func (o *objects) harm(name string) {
	content := slices.Clone(o.content[name])
	switch o.world.random.IntN(3) {
	case 0:
		content[o.world.random.IntN(len(content))] ^= 1 << o.world.random.IntN(8)
		o.content[name] = content
	case 1:
		o.content[name] = content[:o.world.random.IntN(len(content))]
	default:
		i, _ := slices.BinarySearch(o.names, name)
		o.names = slices.Delete(o.names, i, i+1)
		delete(o.content, name)
	}
	o.damaged[name] = true
}
