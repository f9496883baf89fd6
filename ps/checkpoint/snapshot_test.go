package checkpoint_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the newest formats; older ones stay")

// small is an incremental snapshot with rows and tombstones in two tables of
// three, in a memory bucket.
func small(t testing.TB) (*checkpoint.Bucket, checkpoint.File, checkpoint.Head, content) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	h := increment(head(), 40)
	c := content{
		rows:       [][]byte{records(h, 28, 5, random), nil, records(h, 24, 3, random)},
		tombstones: [][]byte{nil, records(h, 16, 1, random), records(h, 16, 2, random)},
	}
	b := openBucket(t, "mem://")
	f, err := write(t.Context(), b, checkpoint.Name(&h, 0xabc), h, c)
	if err != nil {
		t.Fatal(err)
	}
	return b, f, h, c
}

// increment makes h the head of an incremental file.
func increment(h checkpoint.Head, since uint64) checkpoint.Head {
	parent := h
	parent.Seq = since
	h.Since = since
	h.Parent = checkpoint.Ref{Name: checkpoint.Name(&parent, 1), Hash: checkpoint.Hash{1, 2, 3}, Bytes: 1000}
	return h
}

func TestASnapshotComesBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := head()
		h.Shards = 1 << rapid.IntRange(0, 4).Draw(rt, "log2 shards")
		h.Shard = ps.ShardID(rapid.IntRange(0, h.Shards-1).Draw(rt, "shard"))
		if rapid.Bool().Draw(rt, "incremental") {
			h = increment(h, rapid.Uint64Range(0, h.Seq-1).Draw(rt, "since"))
		}
		h.Tables = nil
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "content"), 0))
		var want content
		tables := rapid.IntRange(1, 5).Draw(rt, "tables")
		for range tables {
			kind := ps.Kind(rapid.IntRange(0, 2).Draw(rt, "kind"))
			// Rows of a few elements, of nearly a block, and of more than one.
			width := rapid.OneOf(rapid.IntRange(1, 40), rapid.IntRange(65536/kind.Size()-9, 65536/kind.Size()+9), rapid.Just(30_000)).Draw(rt, "width")
			h.Tables = append(h.Tables, checkpoint.Table{Kind: kind, Stride: checkpoint.RowHeadBytes + width*kind.Size()})
		}
		b := openBucket(t, "mem://")
		w, err := checkpoint.Create(t.Context(), b, checkpoint.Name(&h, 1), h)
		if err != nil {
			rt.Fatal(err)
		}
		defer w.Abort()
		var rows, tombstones uint64
		for i, table := range h.Tables {
			want.rows = append(want.rows, nil)
			for range rapid.IntRange(0, 3).Draw(rt, "calls") {
				n := rapid.IntRange(0, 1+100_000/table.Stride).Draw(rt, "rows")
				part := records(h, table.Stride, n, random)
				if err := w.Rows(ps.TableID(i), table.Stride, part); err != nil {
					rt.Fatal(err)
				}
				want.rows[i] = append(want.rows[i], part...)
				rows += uint64(n)
				clear(part) // the writer keeps no reference
			}
		}
		want.tombstones = make([][]byte, tables)
		for i := 0; i < tables && h.Parent.Bytes > 0; i++ {
			n := rapid.IntRange(0, 5000).Draw(rt, "tombstones")
			want.tombstones[i] = append(want.tombstones[i], records(h, checkpoint.TombstoneBytes, n, random)...)
			if err := w.Tombstones(ps.TableID(i), want.tombstones[i]); err != nil {
				rt.Fatal(err)
			}
			tombstones += uint64(n)
		}
		f, err := w.Close()
		if err != nil {
			rt.Fatal(err)
		}
		if f.Rows != rows || f.Tombstones != tombstones || f.Seq != h.Seq || f.Since != h.Since || f.Fence != h.Fence || f.Parent != h.Parent.Hash {
			rt.Fatalf("the file is said to be %+v, of %d rows and %d tombstones", f, rows, tombstones)
		}
		gotHead, got, err := read(t.Context(), b, f)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(h, gotHead); diff != "" {
			rt.Fatalf("head (-want +got):\n%s", diff)
		}
		for i := range want.rows {
			if !bytes.Equal(got.rows[i], want.rows[i]) || !bytes.Equal(got.tombstones[i], want.tombstones[i]) {
				rt.Fatalf("table %d: %d and %d bytes of rows and tombstones came back, want %d and %d, the same",
					i, len(got.rows[i]), len(got.tombstones[i]), len(want.rows[i]), len(want.tombstones[i]))
			}
		}
	})
}

func TestAHeadOfManyPartitionsTakesSeveralBlocks(t *testing.T) {
	for _, n := range []int{1, 500, 511, 512, 513, 5000} {
		h := head()
		h.Partitions = make([]ps.Progress, n)
		for p := range h.Partitions {
			h.Partitions[p].Applied = ps.Offset(p)
		}
		// Every length of the head around whole blocks.
		for pad := range 4 {
			h.Stream = ps.StreamID(strings.Repeat("x", pad*31))
			b := openBucket(t, "mem://")
			f, err := write(t.Context(), b, checkpoint.Name(&h, 1), h, content{})
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := read(t.Context(), b, f)
			if diff := cmp.Diff(h, got); err != nil || diff != "" {
				t.Fatalf("%d partitions: %v; head (-want +got):\n%s", n, err, diff)
			}
		}
	}
	h := head()
	b := openBucket(t, "mem://")
	for pad := range 100 { // somewhere here a head ends exactly with a block
		h.Stream = ps.StreamID(strings.Repeat("x", 64<<10-700+pad))
		f, err := write(t.Context(), b, checkpoint.Name(&h, uint64(pad)), h, content{})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := read(t.Context(), b, f); err != nil {
			t.Fatalf("a stream's name of %d bytes: %v", len(h.Stream), err)
		}
	}
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	b, f, _, want := small(t)
	whole := get(t, b, f.Name)
	if int64(len(whole)) != f.Bytes {
		t.Fatalf("%d bytes, the file says %d", len(whole), f.Bytes)
	}
	for at := range whole {
		for _, flip := range []byte{1, 0x80, 0xff, 0x20} {
			broken := bytes.Clone(whole)
			broken[at] ^= flip
			put(t, b, f.Name, broken)
			_, got, err := read(t.Context(), b, f)
			noticed(t, f.Name, err)
			for i := range got.rows {
				if !bytes.HasPrefix(want.rows[i], got.rows[i]) || !bytes.HasPrefix(want.tombstones[i], got.tombstones[i]) {
					t.Errorf("byte %d ^ %#x: table %d gave rows that nobody wrote", at, flip, i)
				}
			}
			if t.Failed() {
				t.Fatalf("byte %d of %d, changed by %#x", at, len(whole), flip)
			}
		}
	}
}

// noticed checks that err says what is wrong and where.
func noticed(t *testing.T, name string, err error) {
	t.Helper()
	if !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "byte ") {
		t.Errorf("reading gave %v, want ErrCorrupt with the file's name and a byte", err)
	}
}

func TestEveryTruncationIsNoticed(t *testing.T) {
	b, f, _, _ := small(t)
	whole := get(t, b, f.Name)
	for n := range whole {
		put(t, b, f.Name, whole[:n])
		_, _, err := read(t.Context(), b, f)
		noticed(t, f.Name, err)
		// Even if the length in the manifest is the truncated one.
		said := f
		said.Bytes = int64(n)
		_, _, err = read(t.Context(), b, said)
		noticed(t, f.Name, err)
		if t.Failed() {
			t.Fatalf("%d bytes of %d", n, len(whole))
		}
	}
}

func TestAppendedBytesAreNoticed(t *testing.T) {
	b, f, _, _ := small(t)
	whole := get(t, b, f.Name)
	random := seeded(t)
	for n := 1; n < 200; n++ {
		more := bytes.Clone(whole)
		for range n {
			more = append(more, byte(random.Uint32()))
		}
		if n == 100 {
			more = append(bytes.Clone(whole), whole...)
		}
		put(t, b, f.Name, more)
		_, _, err := read(t.Context(), b, f)
		noticed(t, f.Name, err)
		said := f
		said.Bytes = int64(len(more))
		_, _, err = read(t.Context(), b, said)
		noticed(t, f.Name, err)
	}
}

func TestAWholeFileInAnothersPlaceIsNoticed(t *testing.T) {
	b, f, h, c := small(t)
	for what, change := range map[string]func(*checkpoint.Head){
		"another model": func(h *checkpoint.Head) {
			h.Model = "feed"
			h.Parent.Name = strings.Replace(h.Parent.Name, "shop", "feed", 1)
		},
		"another fence":   func(h *checkpoint.Head) { h.Fence++ },
		"another seq":     func(h *checkpoint.Head) { h.Seq++ },
		"another parent":  func(h *checkpoint.Head) { h.Parent.Hash[5]++ },
		"another stream":  func(h *checkpoint.Head) { h.Stream = "other" },
		"another version": func(h *checkpoint.Head) { h.Version++ },
	} {
		other := h
		change(&other)
		g, err := write(t.Context(), b, checkpoint.Name(&other, 77), other, c)
		if err != nil {
			t.Fatal(err)
		}
		said := f
		said.Bytes = g.Bytes
		put(t, b, f.Name, get(t, b, g.Name))
		if _, _, err := read(t.Context(), b, said); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%s: reading gave %v, want ErrCorrupt", what, err)
		}
		if err := b.Delete(t.Context(), g.Name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheManifestsWordIsChecked(t *testing.T) {
	b, f, _, _ := small(t)
	for what, change := range map[string]func(*checkpoint.File){
		"hash": func(f *checkpoint.File) { f.Hash[31]++ }, "bytes": func(f *checkpoint.File) { f.Bytes-- },
		"fence": func(f *checkpoint.File) { f.Fence++ }, "seq": func(f *checkpoint.File) { f.Seq++ },
		"since": func(f *checkpoint.File) { f.Since-- }, "parent": func(f *checkpoint.File) { f.Parent = checkpoint.Hash{} },
		"rows": func(f *checkpoint.File) { f.Rows++ }, "tombstones": func(f *checkpoint.File) { f.Tombstones++ },
		"name": func(f *checkpoint.File) { f.Name = strings.TrimSuffix(f.Name, "abc") + "abd" },
	} {
		said := f
		change(&said)
		if _, _, err := read(t.Context(), b, said); !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), said.Name) {
			t.Errorf("another %s: reading gave %v, want ErrCorrupt with the name", what, err)
		}
	}
	if _, _, err := read(t.Context(), b, f); err != nil {
		t.Errorf("as it is: %v", err)
	}
}

func TestAReaderThatFailedStaysSo(t *testing.T) {
	b, f, _, _ := small(t)
	whole := get(t, b, f.Name)
	whole[len(whole)-60] ^= 1 // the footer
	put(t, b, f.Name, whole)
	r, err := checkpoint.Open(t.Context(), b, f)
	if err != nil {
		t.Fatal(err)
	}
	var first error
	for first == nil {
		_, _, _, first = r.Next()
	}
	if _, _, _, again := r.Next(); again != first || first == io.EOF {
		t.Errorf("Next gave %v and then %v", first, again)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestAWriterTakesOnlyWhatTheHeadAnnounced(t *testing.T) {
	full, incremental := head(), increment(head(), 40)
	random := seeded(t)
	row := func(h checkpoint.Head, stride int) []byte { return records(h, stride, 1, random) }
	for what, c := range map[string]struct {
		h  checkpoint.Head
		do func(w *checkpoint.Writer) error
	}{
		"another stride":      {full, func(w *checkpoint.Writer) error { return w.Rows(0, 32, row(full, 32)) }},
		"half a row":          {full, func(w *checkpoint.Writer) error { return w.Rows(0, 28, row(full, 28)[:20]) }},
		"an unknown table":    {full, func(w *checkpoint.Writer) error { return w.Rows(3, 28, nil) }},
		"a tombstone in full": {full, func(w *checkpoint.Writer) error { return w.Tombstones(0, row(full, 16)) }},
		"tables backwards": {full, func(w *checkpoint.Writer) error {
			return errors.Join(w.Rows(2, 24, row(full, 24)), w.Rows(0, 28, row(full, 28)))
		}},
		"rows after tombstones": {incremental, func(w *checkpoint.Writer) error {
			return errors.Join(w.Tombstones(0, row(incremental, 16)), w.Rows(2, 24, row(incremental, 24)))
		}},
		"a key of another shard": {full, func(w *checkpoint.Writer) error { return w.Rows(0, 28, append(make([]byte, 8), row(full, 28)[8:]...)) }},
		"a row the parent has": {incremental, func(w *checkpoint.Writer) error {
			return w.Rows(0, 28, append(row(incremental, 28)[:8], append([]byte{40}, make([]byte, 19)...)...))
		}},
		"a row of the future": {full, func(w *checkpoint.Writer) error {
			return w.Rows(0, 28, append(row(full, 28)[:8], append([]byte{101}, make([]byte, 19)...)...))
		}},
	} {
		b := openBucket(t, "mem://")
		w, err := checkpoint.Create(t.Context(), b, checkpoint.Name(&c.h, 1), c.h)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.do(w); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", what, err)
		}
		if _, err := w.Close(); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: Close gave %v, want the same ErrInvalid", what, err)
		}
		w.Abort()
		if got := names(t, b, ""); got != nil {
			t.Errorf("%s: there are %q", what, got)
		}
	}
}

func TestImpossibleHeadsAreRefused(t *testing.T) {
	for what, change := range map[string]func(*checkpoint.Head){
		"no model":              func(h *checkpoint.Head) { h.Model = "" },
		"a model that is a way": func(h *checkpoint.Head) { h.Model = "../x" },
		"odd shards":            func(h *checkpoint.Head) { h.Shards = 3 },
		"a shard too many":      func(h *checkpoint.Head) { h.Shard = 4 },
		"no partitions":         func(h *checkpoint.Head) { h.Partitions = nil },
		"events uncounted":      func(h *checkpoint.Head) { h.Partitions[0].Trained++ },
		"no tables":             func(h *checkpoint.Head) { h.Tables = nil },
		"rows of nothing":       func(h *checkpoint.Head) { h.Tables[0].Stride = 16 },
		"half elements":         func(h *checkpoint.Head) { h.Tables[1].Stride = 28 },
		"giant rows":            func(h *checkpoint.Head) { h.Tables[0].Stride = checkpoint.StrideMax + 4 },
		"an unknown kind":       func(h *checkpoint.Head) { h.Tables[0].Kind = 3 },
		"since without parent":  func(h *checkpoint.Head) { h.Since = 5 },
		"a parent later":        func(h *checkpoint.Head) { *h = increment(*h, 40); h.Fence = 6 },
		"a parent elsewhere":    func(h *checkpoint.Head) { *h = increment(*h, 40); h.Shard = 1 },
		"a parent at other seq": func(h *checkpoint.Head) { *h = increment(*h, 40); h.Since = 41 },
		"since after seq":       func(h *checkpoint.Head) { *h = increment(*h, 101) },
		"a parent unhashed":     func(h *checkpoint.Head) { *h = increment(*h, 40); h.Parent.Hash = checkpoint.Hash{} },
	} {
		h := head()
		change(&h)
		if _, err := checkpoint.Create(t.Context(), openBucket(t, "mem://"), checkpoint.Name(&h, 1), h); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: Create gave %v, want ErrInvalid", what, err)
		}
	}
	h := head()
	other := h
	other.Seq++
	if _, err := checkpoint.Create(t.Context(), openBucket(t, "mem://"), checkpoint.Name(&other, 1), h); !errors.Is(err, ps.ErrInvalid) {
		t.Errorf("another's name: Create gave %v, want ErrInvalid", err)
	}
}

func TestTheNameOfAFileDoesNotChangeItsHash(t *testing.T) {
	b, f, h, c := small(t)
	g, err := write(t.Context(), b, checkpoint.Name(&h, 2), h, c)
	if err != nil {
		t.Fatal(err)
	}
	if g.Hash != f.Hash || g.Name == f.Name {
		t.Errorf("%s has hash %v and %s %v, want two names and one hash", f.Name, f.Hash, g.Name, g.Hash)
	}
	c.rows[0][20]++
	if g, err = write(t.Context(), b, checkpoint.Name(&h, 3), h, c); err != nil || g.Hash == f.Hash {
		t.Errorf("with another weight the hash is %v as well (%v)", g.Hash, err)
	}
}

// TestFilesOfEveryVersionOpen reads testdata/snapshot-v<n>.hex, a dump of the file,
// as the manifest's entry in the .json beside it says.
func TestFilesOfEveryVersionOpen(t *testing.T) {
	written, file, head, rows := small(t)
	if *rewrite {
		doc, err := json.MarshalIndent(file, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		save(t, "testdata/snapshot-v1.json", append(doc, '\n'))
		save(t, "testdata/snapshot-v1.hex", []byte(hex.Dump(get(t, written, file.Name))))
	}
	for _, version := range []string{"v1"} {
		doc, err := os.ReadFile("testdata/snapshot-" + version + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var f checkpoint.File
		if err := json.Unmarshal(doc, &f); err != nil {
			t.Fatal(err)
		}
		b := openBucket(t, "mem://")
		object := undump(t, "testdata/snapshot-"+version+".hex")
		put(t, b, f.Name, object)
		h, c, err := read(t.Context(), b, f)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		if diff := cmp.Diff(head, h); diff != "" {
			t.Errorf("%s: head (-want +got):\n%s", version, diff)
		}
		if diff := cmp.Diff([][][]byte{rows.rows, rows.tombstones}, [][][]byte{c.rows, c.tombstones}); diff != "" {
			t.Errorf("%s: rows and tombstones (-want +got):\n%s", version, diff)
		}
		if version == "v1" && (f != file || !bytes.Equal(get(t, written, file.Name), object)) {
			t.Errorf("written today it is another file: %+v, want %+v", file, f)
		}
	}
}

func save(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// undump reads what hex.Dump wrote.
func undump(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var object []byte
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.Join(strings.Fields(line[8:58]), ""))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		object = append(object, b...)
	}
	return object
}

func FuzzReader(f *testing.F) {
	b, file, _, _ := small(f)
	f.Add(get(f, b, file.Name))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, object []byte) {
		b := openBucket(t, "mem://")
		put(t, b, file.Name, object)
		said := file
		said.Bytes = int64(len(object))
		if _, _, err := read(t.Context(), b, said); err != nil && !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("%d bytes gave %v, want ErrCorrupt or the file", len(object), err)
		}
	})
}
