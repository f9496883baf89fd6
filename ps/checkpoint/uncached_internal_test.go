// How a file is written is not to be seen from outside, and what a file system refuses
// cannot be asked for: these tests look at and spoil the file that is being written.

package checkpoint

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestFilesAreWhatWasWrittenWhateverTheirLength(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 3*writeBytes+4097)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	for _, test := range []struct {
		name  string
		spoil func(*file)
	}{
		{"past the page cache where that is possible", func(*file) {}},
		{"through the page cache", func(f *file) { f.cached = true }},
		{"when the file system refuses to write past it", func(f *file) {
			b := make([]byte, writeBytes+uncachedBytes+1)
			skip := 1 + -uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uncachedBytes
			f.block = b[skip:][:0:writeBytes]
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := OpenBucket(t.Context(), "file://"+t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for _, length := range []int{0, 1, 4096, writeBytes - 1, writeBytes, writeBytes + 1, 2*writeBytes + 4096, len(content)} {
				w, err := b.Writer(t.Context(), "object")
				if err != nil {
					t.Fatal(err)
				}
				test.spoil(w.sink.(*file))
				for left := content[:length]; len(left) > 0; {
					n := min(len(left), 1+random.IntN(2*writeBytes))
					if got, err := w.Write(left[:n]); err != nil || got != n {
						t.Fatalf("a write of %d bytes of %d: %d, %v", n, length, got, err)
					}
					left = left[n:]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				got, err := b.get(t.Context(), "object", int64(len(content)))
				if err != nil || !bytes.Equal(got, content[:length]) {
					t.Errorf("%d bytes were written, %d others are read (%v)", length, len(got), err)
				}
				if err := b.Delete(t.Context(), "object"); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
