package checkpoint_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

func openBucket(t testing.TB, url string) *checkpoint.Bucket {
	t.Helper()
	b, err := checkpoint.OpenBucket(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// head is of shard 2 of 4: a float32 table of 3 elements, a float64 one of 2, an
// audit table, and two partitions.
func head() checkpoint.Head {
	return checkpoint.Head{
		Model: "shop", Version: 3, Layout: 1<<63 + 5, Stream: "files:12ab", Shard: 2, Shards: 4, Fence: 7, Seq: 100, Stored: 77,
		Partitions: []ps.Progress{
			{Applied: 50, Trained: 30, Held: 3, Skipped: 1, Fingerprint: ps.Fingerprint{Count: 34, Sum: 1<<64 - 1, Xor: 1 << 60}, EventTime: 1_700_000_000_000},
			{Applied: 9, EventTime: -1},
		},
		Tables: []checkpoint.Table{
			{Kind: ps.Float32, Stride: checkpoint.RowHeadBytes + 12},
			{Kind: ps.Float64, Stride: checkpoint.RowHeadBytes + 16},
			{Kind: ps.Uint64, Stride: checkpoint.RowHeadBytes + 8},
		},
	}
}

// records are n rows (or tombstones) that belong into a file of h.
func records(h checkpoint.Head, stride, n int, random *rand.Rand) []byte {
	b := make([]byte, n*stride)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	for at := 0; at < len(b); at += stride {
		key := random.Uint64()
		if h.Shards > 1 {
			bits := 0
			for 1<<bits < h.Shards {
				bits++
			}
			key = key>>bits | uint64(h.Shard)<<(64-bits)
		}
		binary.LittleEndian.PutUint64(b[at:], key)
		binary.LittleEndian.PutUint64(b[at+8:], h.Since+1+random.Uint64N(h.Seq-h.Since))
	}
	return b
}

// content is what a snapshot holds, by table.
type content struct {
	rows, tombstones [][]byte
}

func write(ctx context.Context, b *checkpoint.Bucket, name string, h checkpoint.Head, c content) (checkpoint.File, error) {
	w, err := checkpoint.Create(ctx, b, name, h)
	if err != nil {
		return checkpoint.File{}, err
	}
	defer w.Abort()
	for i, rows := range c.rows {
		if err := w.Rows(ps.TableID(i), h.Tables[i].Stride, rows); err != nil {
			return checkpoint.File{}, err
		}
	}
	for i, marks := range c.tombstones {
		if err := w.Tombstones(ps.TableID(i), marks); err != nil {
			return checkpoint.File{}, err
		}
	}
	return w.Close()
}

func read(ctx context.Context, b *checkpoint.Bucket, f checkpoint.File) (checkpoint.Head, content, error) {
	r, err := checkpoint.Open(ctx, b, f)
	if err != nil {
		return checkpoint.Head{}, content{}, err
	}
	defer r.Close()
	h := r.Head()
	c := content{rows: make([][]byte, len(h.Tables)), tombstones: make([][]byte, len(h.Tables))}
	for {
		table, stride, rows, err := r.Next()
		if err == io.EOF {
			return h, c, nil
		}
		if err != nil {
			return h, c, err
		}
		into := c.rows
		if stride == checkpoint.TombstoneBytes {
			into = c.tombstones
		} else if stride != h.Tables[table].Stride {
			return h, c, fmt.Errorf("stride %d of table %d: want %d", stride, table, h.Tables[table].Stride)
		}
		into[table] = append(into[table], rows...)
	}
}

// put stores an object as it is.
func put(t testing.TB, b *checkpoint.Bucket, name string, bytes []byte) {
	t.Helper()
	if err := b.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	w, err := b.Writer(t.Context(), name)
	if err == nil {
		_, err = w.Write(bytes)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, b *checkpoint.Bucket, name string) []byte {
	t.Helper()
	r, err := b.Reader(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	bytes, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

func names(t testing.TB, b *checkpoint.Bucket, prefix string) []string {
	t.Helper()
	objects, err := b.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		names = append(names, o.Name)
	}
	return names
}

// seeded returns a generator whose seed the test reports if it fails.
func seeded(t testing.TB) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}
