package vectors_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/worker/feature"
	"github.com/freshet-ml/freshet/worker/spec"
	"github.com/freshet-ml/freshet/worker/stream/mask"
	"github.com/freshet-ml/freshet/worker/vectors"
)

var item = spec.Feature{Name: "item", Kind: spec.Categorical, Column: "sku"}

// read opens and reads a source.
func read(t testing.TB, s vectors.Source, c vectors.Config) (ps.Rows, error) {
	t.Helper()
	in, err := vectors.Open(s)
	if err != nil {
		return ps.Rows{}, err
	}
	defer in.Close()
	return vectors.Read(t.Context(), in, c)
}

func golden(name string) string { return filepath.Join("testdata", name) }

// TestFilesOfOtherProgramsAreRead reads what NumPy 2.4.6 and PyArrow 26.0.1 have written.
func TestFilesOfOtherProgramsAreRead(t *testing.T) {
	texts := []string{"i3", "größe", "日本", "a-much-longer-identifier"}
	third := float32(1) / 3
	plain := []float32{0.5, -1.25, 3, 1e-3, 0, 0x1p-20, -7, 8, 9.5, third, 2 * third, 1}
	halves := []float32{0.5, -1.25, 3, 0x1.064p-10, 0, 0x1p-20, -7, 8, 9.5, 0x1.554p-2, 0x1.554p-1, 1}
	for name, test := range map[string]struct {
		source  vectors.Source
		ids     []string
		weights []float32
	}{
		"texts":                    {vectors.Source{IDs: "text.npy", Vectors: "f4.npy"}, texts, plain},
		"bytes":                    {vectors.Source{IDs: "bytes.npy", Vectors: "f8.npy"}, texts, plain},
		"integers":                 {vectors.Source{IDs: "integers.npy", Vectors: "f2.npy"}, []string{"3", "-17", "1099511627776", "0"}, halves},
		"unsigned integers":        {vectors.Source{IDs: "unsigned.npy", Vectors: "version2.npy"}, []string{"3", "17", "65535", "0"}, plain},
		"format 3.0":               {vectors.Source{IDs: "text.npy", Vectors: "version3.npy"}, texts, plain},
		"an npz":                   {vectors.Source{From: "stored.npz"}, texts, plain},
		"a compressed npz":         {vectors.Source{From: "deflated.npz", IDs: "item", Vectors: "embedding"}, texts, plain},
		"lists of floats":          {vectors.Source{From: "lists.parquet"}, texts, plain},
		"lists of doubles":         {vectors.Source{From: "doubles.parquet", IDs: "sku", Vectors: "embedding"}, []string{"3", "17", "1099511627776", "0"}, plain},
		"texts beside doubles":     {vectors.Source{From: "doubles.parquet", IDs: "name", Vectors: "embedding"}, texts, plain},
		"lists of one size":        {vectors.Source{From: "fixed.parquet"}, texts, plain},
		"floats in fixed binaries": {vectors.Source{From: "binary.parquet"}, texts, plain},
	} {
		t.Run(name, func(t *testing.T) {
			s := test.source
			for _, path := range []*string{&s.From, &s.IDs, &s.Vectors} {
				if *path != "" && (path == &s.From || s.From == "") {
					*path = golden(*path)
				}
			}
			rows, err := read(t, s, vectors.Config{Feature: item, Width: 3})
			if err != nil {
				t.Fatal(err)
			}
			var want []ps.Key
			for _, id := range test.ids {
				want = append(want, feature.Key("item", []byte(id)))
			}
			if !slices.Equal(rows.Keys, want) {
				t.Errorf("keys %x, want %x", rows.Keys, want)
			}
			if d := cmp.Diff(test.weights, ps.View[float32](rows.Values)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestFilesThatCannotBeUsedAreRefused(t *testing.T) {
	pair := func(ids, of string) vectors.Source { return vectors.Source{IDs: golden(ids), Vectors: golden(of)} }
	from := func(name, ids, of string) vectors.Source {
		return vectors.Source{From: golden(name), IDs: ids, Vectors: of}
	}
	for name, test := range map[string]struct {
		source vectors.Source
		width  int
		is     error
		want   string
	}{
		"another width":            {pair("text.npy", "f4.npy"), 4, ps.ErrInvalid, "f4.npy: vectors of 3 numbers, the table's rows have 4"},
		"columns first":            {pair("text.npy", "fortran.npy"), 3, ps.ErrInvalid, "np.ascontiguousarray"},
		"big endian":               {pair("text.npy", "big-endian.npy"), 3, ps.ErrInvalid, `astype("<f4")`},
		"objects":                  {pair("objects.npy", "f4.npy"), 3, ps.ErrInvalid, "dtype=str"},
		"records":                  {pair("records.npy", "f4.npy"), 3, ps.ErrInvalid, "records"},
		"vectors as identifiers":   {pair("f4.npy", "f4.npy"), 3, ps.ErrInvalid, "an array [4 3] of f4"},
		"identifiers as vectors":   {pair("text.npy", "text.npy"), 3, ps.ErrInvalid, "an array [4] of U96"},
		"one of the two":           {vectors.Source{Vectors: golden("f4.npy")}, 3, ps.ErrInvalid, "two .npy files"},
		"a file that is not":       {pair("none.npy", "f4.npy"), 3, os.ErrNotExist, "none.npy"},
		"no array of the name":     {from("deflated.npz", "", ""), 3, ps.ErrInvalid, `no array "ids": it has embedding, item`},
		"an npy alone":             {from("f4.npy", "", ""), 3, ps.ErrInvalid, "give both"},
		"neither":                  {vectors.Source{From: "vectors.go"}, 3, ps.ErrInvalid, "neither an .npz nor a Parquet file"},
		"no column of the name":    {from("doubles.parquet", "", ""), 3, ps.ErrInvalid, `no column "ids": it has sku, name, price, embedding`},
		"numbers as identifiers":   {from("doubles.parquet", "price", "embedding"), 3, ps.ErrInvalid, `column "price": identifiers are integers or texts`},
		"a number for a vector":    {from("doubles.parquet", "sku", "price"), 3, ps.ErrInvalid, `column "price": vectors are lists`},
		"lists as identifiers":     {from("doubles.parquet", "embedding", "embedding"), 3, ps.ErrInvalid, `column "embedding": identifiers`},
		"lists of another width":   {from("lists.parquet", "", ""), 2, ps.ErrInvalid, "row 1: a vector of 3 numbers, the table's rows have 2"},
		"binaries of another size": {from("binary.parquet", "", ""), 2, ps.ErrInvalid, "vectors of 3 numbers, the table's rows have 2"},
		"a vector that is missing": {from("holes.parquet", "", ""), 3, ps.ErrInvalid, "row 2: its vector, or element 0 of it, is missing"},
		"no identifier":            {from("null.parquet", "", ""), 3, ps.ErrInvalid, "row 2: it has no identifier"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, test.source, vectors.Config{Feature: item, Width: test.width})
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v with %q", err, test.is, test.want)
			}
		})
	}
}

// npy returns an .npy file.
func npy(descr, shape string, elements []byte) []byte {
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape)
	b := append([]byte("\x93NUMPY\x01\x00"), byte(len(header)), byte(len(header)>>8))
	return append(append(b, header...), elements...)
}

// write writes identifiers of 4 bytes each and vectors of 2 numbers into a new directory.
func write(t testing.TB, ids string, numbers ...float32) vectors.Source {
	t.Helper()
	dir := t.TempDir()
	s := vectors.Source{IDs: filepath.Join(dir, "ids.npy"), Vectors: filepath.Join(dir, "vectors.npy")}
	for path, b := range map[string][]byte{
		s.IDs:     npy("|S4", fmt.Sprintf("(%d,)", len(ids)/4), []byte(ids)),
		s.Vectors: npy("<f4", fmt.Sprintf("(%d, 2)", len(numbers)/2), ps.Bytes(numbers)),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestRowsThatCannotBeUsedAreNamed(t *testing.T) {
	tokens := spec.Feature{Name: "tags", Kind: spec.Tokens, Column: "tags", Split: "|"}
	nan, infinite := float32(math.NaN()), float32(math.Inf(-1))
	for name, test := range map[string]struct {
		feature spec.Feature
		source  vectors.Source
		want    string
	}{
		"an identifier that is there twice": {item, write(t, "a\x00\x00\x00b\x00\x00\x00a\x00\x00\x00", 1, 2, 3, 4, 5, 6), "row 3: has the identifier of row 1"},
		"an empty identifier":               {item, write(t, "a\x00\x00\x00\x00\x00\x00\x00", 1, 2, 3, 4), "row 2: the identifier is empty"},
		"a text that is no token":           {tokens, write(t, "HUSHA|B\x00", 1, 2, 3, 4), `row 2: the identifier has "|" in it`},
		"no number":                         {item, write(t, "HUSHb\x00\x00\x00", 1, 2, 3, nan), "row 2: element 1 is not a number"},
		"infinite":                          {item, write(t, "HUSH", infinite, 2), "row 1: element 0 is -Inf"},
		"too large":                         {item, write(t, "HUSH", 1, 1e7), "row 1: element 1 is 1e+07: want at most 1e+06"},
		"more identifiers than vectors":     {item, write(t, "a\x00\x00\x00b\x00\x00\x00", 1, 2), "2 identifiers"},
		"nothing":                           {item, write(t, ""), "there are no rows"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, test.source, vectors.Config{Feature: test.feature, Width: 2})
			if !errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrInvalid with %q", err, test.want)
			}
			if strings.Contains(err.Error(), "HUSH") {
				t.Errorf("an identifier is told: %v", err)
			}
		})
	}
}

func TestIdentifiersOfPeopleAreMasked(t *testing.T) {
	secret := []byte("a secret of at least sixteen bytes")
	masker, err := mask.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	other, err := mask.New(secret)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := read(t, write(t, "u1\x00\x00u2\x00\x00", 1, 2, 3, 4), vectors.Config{Feature: item, Masker: masker, Width: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := []ps.Key{feature.Key("item", other.Append(nil, []byte("u1"))), feature.Key("item", other.Append(nil, []byte("u2")))}
	if !slices.Equal(rows.Keys, want) {
		t.Errorf("keys %x, want %x", rows.Keys, want)
	}
}

func TestWhichFeaturesHaveRowsOfTheirOwn(t *testing.T) {
	s := &spec.Spec{Model: "shop", Stream: spec.Stream{Identifiers: []string{"uid"}}, Features: []spec.Feature{
		{Name: "user", Kind: spec.Categorical, Column: "uid"},
		{Name: "tags", Kind: spec.Tokens, Column: "tags", Split: " "},
		{Name: "price", Kind: spec.Buckets, Column: "price", Log: 2},
		{Name: "hour", Kind: spec.Clock, Clock: spec.Hour},
		{Name: "shop", Kind: spec.Categorical, Column: "shop", CrossOnly: true},
		{Name: "user_x_hour", Kind: spec.Cross, Of: []string{"user", "hour"}},
	}}
	for name, want := range map[string]string{
		"user": "", "tags": "", "price": "buckets", "hour": "event time", "shop": "inside crosses only", "user_x_hour": "cross",
		"item": "it has user, tags, price, hour, shop, user_x_hour",
	} {
		f, masked, err := vectors.Feature(s, name)
		switch {
		case want == "" && (err != nil || f.Name != name || masked != (name == "user")):
			t.Errorf("%s: %+v, masked %v, %v", name, f, masked, err)
		case want != "" && (!errors.Is(err, ps.ErrInvalid) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want ErrInvalid with %q", name, err, want)
		}
	}
}

// TestADamagedFileIsNeverHalfRead cuts files anywhere and flips their bits: all rows are read,
// or there is an error.
func TestADamagedFileIsNeverHalfRead(t *testing.T) {
	for _, name := range []string{"stored.npz", "deflated.npz", "lists.parquet", "binary.parquet"} {
		t.Run(name, func(t *testing.T) {
			whole, err := os.ReadFile(golden(name))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), name)
			s := vectors.Source{From: path}
			if name == "deflated.npz" {
				s.IDs, s.Vectors = "item", "embedding"
			}
			for n := range len(whole) {
				for _, b := range [][]byte{whole[:n], slices.Concat(whole[:n], []byte{whole[n] ^ 1<<(n%8)}, whole[n+1:])} {
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Fatal(err)
					}
					rows, err := read(t, s, vectors.Config{Feature: item, Width: 3})
					if err == nil && (len(b) < len(whole) || len(rows.Keys) != 4) {
						t.Fatalf("of %d bytes of %d, byte %d flipped: %d rows and no error", len(b), len(whole), n, len(rows.Keys))
					}
					if err != nil && !errors.Is(err, ps.ErrInvalid) && !errors.Is(err, ps.ErrCorrupt) {
						t.Fatalf("of %d bytes of %d, byte %d flipped: %v, want ErrInvalid or ErrCorrupt", len(b), len(whole), n, err)
					}
				}
			}
		})
	}
}

func TestBytesAfterTheLastElementAreDamage(t *testing.T) {
	for _, which := range []int{0, 1} {
		s := write(t, "a\x00\x00\x00", 1, 2)
		path := []string{s.IDs, s.Vectors}[which]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(b, 7), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, s, vectors.Config{Feature: item, Width: 2}); !errors.Is(err, ps.ErrCorrupt) {
			t.Errorf("file %d: %v, want ErrCorrupt", which, err)
		}
	}
}

// TestManyPagesAndRowGroupsAreOneTable writes more rows than a page or a buffer holds.
func TestManyPagesAndRowGroupsAreOneTable(t *testing.T) {
	type row struct {
		ID     uint32    `parquet:"ids,dict"`
		Vector []float64 `parquet:"vectors,list"`
	}
	const n = 10_000
	var b bytes.Buffer
	w := parquet.NewGenericWriter[row](&b, parquet.PageBufferSize(4096), parquet.MaxRowsPerRowGroup(3000))
	for i := range n {
		if _, err := w.Write([]row{{math.MaxUint32 - uint32(i), []float64{float64(i), -float64(i), 0.5}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "table")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var progress []int64
	rows, err := read(t, vectors.Source{From: path}, vectors.Config{Feature: item, Width: 3, Progress: func(n int64) { progress = append(progress, n) }})
	if err != nil {
		t.Fatal(err)
	}
	weights := ps.View[float32](rows.Values)
	for i := range n {
		key := feature.Key("item", fmt.Append(nil, math.MaxUint32-uint32(i)))
		if rows.Keys[i] != key || weights[3*i] != float32(i) || weights[3*i+1] != -float32(i) || weights[3*i+2] != 0.5 {
			t.Fatalf("row %d is %x %v", i, rows.Keys[i], weights[3*i:3*i+3])
		}
	}
	if len(rows.Keys) != n || !slices.Equal(progress, []int64{8192}) {
		t.Errorf("%d rows, progress %v", len(rows.Keys), progress)
	}
}

// FuzzNPY reads anything as vectors, and as identifiers.
func FuzzNPY(f *testing.F) {
	for _, name := range []string{"f4.npy", "f2.npy", "text.npy", "integers.npy", "version2.npy", "fortran.npy", "records.npy"} {
		b, err := os.ReadFile(golden(name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(npy("<f4", "(2, 3)", make([]byte, 24)))
	f.Add(npy("<U1", "(99999999999999999999,)", nil))
	f.Add([]byte("\x93NUMPY\x01\x00\x02\x00\x00{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "it.npz")
		var archive bytes.Buffer
		w := zip.NewWriter(&archive)
		for name, content := range map[string][]byte{
			"it.npy":      b,
			"ids.npy":     npy("<u8", "(2,)", binary.LittleEndian.AppendUint64(make([]byte, 8), 1)),
			"vectors.npy": npy("<f4", "(2, 3)", make([]byte, 24)),
		} {
			member, err := w.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := member.Write(content); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, archive.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range []vectors.Source{{From: path, Vectors: "it"}, {From: path, IDs: "it"}} {
			rows, err := read(t, s, vectors.Config{Feature: item, Width: 3})
			switch {
			case err == nil && (len(rows.Keys) != 2 || len(rows.Values) != 24):
				t.Errorf("%d keys and %d bytes of two rows of three numbers", len(rows.Keys), len(rows.Values))
			case err != nil && !errors.Is(err, ps.ErrInvalid) && !errors.Is(err, ps.ErrCorrupt):
				t.Errorf("%v, want ErrInvalid or ErrCorrupt", err)
			}
		}
	})
}
