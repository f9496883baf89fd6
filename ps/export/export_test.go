package export_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
	"github.com/freshet-ml/freshet/ps/export"
)

var model = ps.Model{Name: "shop", Version: 1, Stream: "s", Partitions: 2, Layout: ps.Layout{Seed: 7, Tables: []ps.Table{
	{Name: "linear", Kind: ps.Float32, Width: 1, Initializer: ps.Initializer{Name: ps.Zero}},
	{Name: "factors", Kind: ps.Float32, Width: 6, Initializer: ps.Initializer{Name: ps.Normal, Scale: 0.1}},
	{Name: "hidden1", Kind: ps.Float32, Width: 2, Initializer: ps.Initializer{Name: ps.Zero}},
	{Name: "sums", Kind: ps.Float64, Width: 2},
	{Name: "audit", Kind: ps.Uint64, Width: 1},
}}}

// stateBytes are behind every row's weights, and are not to be exported.
const stateBytes = 8

const upper = ps.Key(1) << 63 // of keys of shard 1

// rows are weights by key, in a table.
type rows map[ps.Key][]float64

// content is rows by table's name.
type content map[string]rows

// what the epoch in the bucket of newEpoch has.
var want = content{
	"linear":  {1: {-1.5}, 2: {0.25}, upper: {1e-9}},
	"factors": {1: {1, -2, 3, -4, 5, -6.5}, 3: {0.01, 0, 0, 0, 0, 0}, upper + 9: {1e-3, 1e-3, 0.1, 0, 2e-3, -0.1}},
	"hidden1": {4: {1e-9, 0}, upper + 4: {0.5, 0.5}},
	"sums":    {upper + 1: {1.0 / 3, 12}},
	"audit":   {5: {1 << 52}},
}

// file writes a snapshot file of a shard, after others.
func file(t *testing.T, b *checkpoint.Bucket, shard ps.ShardID, parents []checkpoint.File, c content, deleted map[string][]ps.Key) checkpoint.File {
	t.Helper()
	head := checkpoint.Head{
		Model: model.Name, Version: 1, Layout: model.Layout.Hash(), Stream: model.Stream, Shard: shard, Shards: 2,
		Fence: 1, Seq: uint64(10 * (len(parents) + 1)), Stored: 3, Partitions: make([]ps.Progress, 2),
	}
	if n := len(parents); n > 0 {
		head.Parent, head.Since = parents[n-1].Ref, parents[n-1].Seq
	}
	for _, table := range model.Layout.Tables {
		head.Tables = append(head.Tables, checkpoint.Table{Kind: table.Kind, Stride: checkpoint.RowHeadBytes + table.RowBytes() + stateBytes})
	}
	w, err := checkpoint.Create(t.Context(), b, checkpoint.Name(&head, 1), head)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for i, table := range model.Layout.Tables {
		var all []byte
		for key, weights := range c[table.Name] {
			all = binary.LittleEndian.AppendUint64(all, uint64(key))
			all = binary.LittleEndian.AppendUint64(all, head.Seq)
			for _, weight := range weights {
				switch table.Kind {
				case ps.Float32:
					all = binary.LittleEndian.AppendUint32(all, math.Float32bits(float32(weight)))
				case ps.Float64:
					all = binary.LittleEndian.AppendUint64(all, math.Float64bits(weight))
				case ps.Uint64:
					all = binary.LittleEndian.AppendUint64(all, uint64(weight))
				}
			}
			all = append(all, "STATE..."...)
		}
		if err := w.Rows(ps.TableID(i), head.Tables[i].Stride, all); err != nil {
			t.Fatal(err)
		}
	}
	for i, table := range model.Layout.Tables {
		var marks []byte
		if len(deleted[table.Name]) == 0 {
			continue
		}
		for _, key := range deleted[table.Name] {
			marks = binary.LittleEndian.AppendUint64(marks, uint64(key))
			marks = binary.LittleEndian.AppendUint64(marks, head.Seq)
		}
		if err := w.Tombstones(ps.TableID(i), marks); err != nil {
			t.Fatal(err)
		}
	}
	f, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// newEpoch writes an epoch: shard 0 is a full file and two increments that change, delete
// and bring back rows; shard 1 a full one.
func newEpoch(t *testing.T) export.Config {
	t.Helper()
	b, err := checkpoint.OpenBucket(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	var zero []checkpoint.File
	zero = append(zero, file(t, b, 0, zero, content{
		"linear":  {1: {100}, 2: {200}, 7: {700}},
		"factors": {1: {9, 9, 9, 9, 9, 9}, 3: want["factors"][3]},
		"hidden1": {4: want["hidden1"][4]},
		"audit":   {5: want["audit"][5]},
	}, nil))
	zero = append(zero, file(t, b, 0, zero, content{
		"linear":  {1: {101}, 2: want["linear"][2]},
		"factors": {1: want["factors"][1]},
	}, map[string][]ps.Key{"linear": {7}}))
	zero = append(zero, file(t, b, 0, zero, content{"linear": {1: want["linear"][1]}}, nil))
	one := []checkpoint.File{file(t, b, 1, nil, content{
		"linear":  {upper: want["linear"][upper]},
		"factors": {upper + 9: want["factors"][upper+9]},
		"hidden1": {upper + 4: want["hidden1"][upper+4]},
		"sums":    want["sums"],
	}, nil)}
	return export.Config{
		Bucket: b, Model: model, Tables: []ps.TableID{0, 1, 2, 3, 4}, Format: export.Safetensors, Dir: filepath.Join(t.TempDir(), "out"),
		Layers: map[ps.TableID][]ps.Key{2: {upper + 4, 4}},
		Manifest: checkpoint.Manifest{
			Model: model.Name, Epoch: 12, Lineage: 2, Layout: model.Layout.Hash(), Partitions: 2,
			Shards: []checkpoint.Shard{
				{Shard: 0, Fence: 1, Seq: 30, Applied: []ps.Offset{5, 6}, Files: zero},
				{Shard: 1, Fence: 1, Seq: 10, Applied: []ps.Offset{4, 8}, Files: one},
			},
		},
	}
}

// elements reads a tensor's bytes.
func elements(t *testing.T, dtype string, b []byte) (all []float64) {
	t.Helper()
	for len(b) > 0 {
		var f float64
		n := 0
		switch dtype {
		case "U64", "<u8":
			f, n = float64(binary.LittleEndian.Uint64(b)), 8
		case "F64", "<f8":
			f, n = math.Float64frombits(binary.LittleEndian.Uint64(b)), 8
		case "F32", "<f4":
			f, n = float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 4
		case "BF16", "<u2":
			f, n = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16)), 2
		case "F16", "<f2":
			f, n = half(binary.LittleEndian.Uint16(b)), 2
		case "I8", "|i1":
			f, n = float64(int8(b[0])), 1
		default:
			t.Fatalf("element type %s", dtype)
		}
		all, b = append(all, f), b[n:]
	}
	return all
}

// half is a float16's value, by the definition in IEEE 754.
func half(h uint16) float64 {
	sign, exponent, fraction := 1-2*float64(h>>15), int(h>>10&31), float64(h&1023)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		return math.NaN()
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// tensor is what a reader of a file finds.
type tensor struct {
	dtype string
	shape []int
	data  []byte
}

func readSafetensors(t *testing.T, dir string) map[string]tensor {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "weights.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(b)
	if n%8 != 0 {
		t.Errorf("the head has %d bytes, want a multiple of 8", n)
	}
	var head map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &head); err != nil {
		t.Fatal(err)
	}
	var metadata map[string]string
	if err := json.Unmarshal(head["__metadata__"], &metadata); err != nil || metadata["freshet_epoch"] != "12" {
		t.Errorf("metadata %v, %v; want epoch 12", metadata, err)
	}
	delete(head, "__metadata__")
	tensors := make(map[string]tensor)
	total := 0
	for name, doc := range head {
		var entry struct {
			DType   string `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if err := json.Unmarshal(doc, &entry); err != nil {
			t.Fatal(err)
		}
		tensors[name] = tensor{entry.DType, entry.Shape, b[8+n:][entry.Offsets[0]:entry.Offsets[1]]}
		total += entry.Offsets[1] - entry.Offsets[0]
	}
	if total != len(b)-8-int(n) {
		t.Errorf("the tensors have %d bytes, behind the head are %d", total, len(b)-8-int(n))
	}
	return tensors
}

var npyHead = regexp.MustCompile(`^\{'descr': '([^']+)', 'fortran_order': False, 'shape': \(([0-9, ]+)\), \} *\n$`)

func readNPY(t *testing.T, dir string) map[string]tensor {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.npy"))
	if err != nil {
		t.Fatal(err)
	}
	tensors := make(map[string]tensor)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end := 10 + int(binary.LittleEndian.Uint16(b[8:]))
		match := npyHead.FindSubmatch(b[10:end])
		if string(b[:8]) != "\x93NUMPY\x01\x00" || end%64 != 0 || match == nil {
			t.Fatalf("%s begins with %q", path, b[:end])
		}
		one := tensor{dtype: string(match[1]), data: b[end:]}
		for size := range strings.SplitSeq(strings.TrimSuffix(string(match[2]), ","), ", ") {
			n, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			one.shape = append(one.shape, n)
		}
		tensors[strings.TrimSuffix(filepath.Base(path), ".npy")] = one
	}
	return tensors
}

// fromTensors puts tables together.
func fromTensors(t *testing.T, tensors map[string]tensor) content {
	t.Helper()
	got := content{}
	for name, keys := range tensors {
		table, ok := strings.CutSuffix(name, ".keys")
		if !ok {
			continue
		}
		got[table] = rows{}
		weights := tensors[table+".weights"]
		values := elements(t, weights.dtype, weights.data)
		if len(keys.shape) != 1 || len(weights.shape) != 2 || weights.shape[0] != keys.shape[0] || weights.shape[0]*weights.shape[1] != len(values) {
			t.Fatalf("table %s has keys %v, weights %v with %d elements", table, keys.shape, weights.shape, len(values))
		}
		var scales []float64
		if s, ok := tensors[table+".scales"]; ok {
			scales = elements(t, s.dtype, s.data)
		}
		for i := range keys.shape[0] {
			row := values[i*weights.shape[1] : (i+1)*weights.shape[1]]
			if scales != nil {
				for j := range row {
					row[j] *= scales[i]
				}
			}
			got[table][ps.Key(binary.LittleEndian.Uint64(keys.data[8*i:]))] = row
		}
	}
	return got
}

func readLines(t *testing.T, dir string) content {
	t.Helper()
	got := content{}
	paths, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		table := strings.TrimSuffix(filepath.Base(path), ".jsonl")
		got[table] = rows{}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
			line := struct {
				Key     string    `json:"key"`
				Scale   *float64  `json:"scale"`
				Weights []float64 `json:"weights"`
			}{}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				t.Fatalf("%s: %v", lines.Text(), err)
			}
			key, err := strconv.ParseUint(line.Key, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if line.Scale != nil {
				for i := range line.Weights {
					line.Weights[i] *= *line.Scale
				}
			}
			got[table][ps.Key(key)] = line.Weights
		}
	}
	return got
}

func read(t *testing.T, c export.Config) content {
	t.Helper()
	switch c.Format {
	case export.JSONL:
		return readLines(t, c.Dir)
	case export.NPY:
		return fromTensors(t, readNPY(t, c.Dir))
	}
	return fromTensors(t, readSafetensors(t, c.Dir))
}

var formats = []export.Format{export.Safetensors, export.NPY, export.JSONL}

// errorOf is how far a weight may be from what it was, given its row's greatest.
var errorOf = map[ps.Encoding]func(weight, greatest float64) float64{
	ps.Plain:    func(w, _ float64) float64 { return math.Abs(w) / (1 << 24) }, // float64 to float32
	ps.Float16:  func(w, _ float64) float64 { return math.Abs(w)/(1<<11) + 1.0/(1<<25) },
	ps.BFloat16: func(w, _ float64) float64 { return math.Abs(w) / (1 << 8) },
	ps.Int8:     func(_, m float64) float64 { return m / 253 },
}

func TestEveryRowComesOutAsItWasAtTheEpoch(t *testing.T) {
	for _, format := range formats {
		for encoding := range ps.Int8 + 1 {
			t.Run(fmt.Sprintf("%s, %v", format, encoding), func(t *testing.T) {
				c := newEpoch(t)
				c.Format, c.Encoding = format, encoding
				seen := content{}
				c.Seen = func(table ps.TableID, key ps.Key, before, after []byte) {
					name := model.Layout.Tables[table].Name
					if seen[name] == nil {
						seen[name] = rows{}
					}
					seen[name][key] = elements(t, "<f4", after)
					if diff := cmp.Diff(want[name][key], elements(t, "<f4", before), cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-6 })); diff != "" {
						t.Errorf("row %d of %s was seen otherwise (-want +got):\n%s", key, name, diff)
					}
				}
				d, err := export.Run(t.Context(), c)
				if err != nil {
					t.Fatal(err)
				}
				got := read(t, c)
				for i, table := range model.Layout.Tables {
					near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-12 })
					if table.Kind == ps.Float32 {
						if diff := cmp.Diff(got[table.Name], seen[table.Name], cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Abs(a) })); diff != "" {
							t.Errorf("what is read of %s and what was seen differ (-read +seen):\n%s", table.Name, diff)
						}
						for key, weights := range want[table.Name] {
							greatest := 0.0
							for _, w := range weights {
								greatest = max(greatest, math.Abs(w))
							}
							row := got[table.Name][key]
							for j, w := range weights {
								if most := errorOf[encoding](w, greatest); len(row) != len(weights) || math.Abs(row[j]-w) > most*1.0001 {
									t.Errorf("row %d of %s is %v, want %v within %g", key, table.Name, row, weights, most)
									break
								}
							}
						}
						if len(got[table.Name]) != len(want[table.Name]) {
							t.Errorf("%s has %d rows, want %d", table.Name, len(got[table.Name]), len(want[table.Name]))
						}
					} else if diff := cmp.Diff(want[table.Name], got[table.Name], near); diff != "" {
						t.Errorf("%s differs (-want +got):\n%s", table.Name, diff)
					}
					if d.Tables[i].Rows != int64(len(want[table.Name])) || d.Tables[i].Pruned != 0 {
						t.Errorf("%s is described as %+v, want %d rows", table.Name, d.Tables[i], len(want[table.Name]))
					}
				}
			})
		}
	}
}

func TestTheDescriptionSaysWhatIsThereAndHowLargeItIs(t *testing.T) {
	c := newEpoch(t)
	c.Format, c.Encoding, c.Tables = export.NPY, ps.Int8, []ps.TableID{2, 0}
	d, err := export.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(c.Dir, export.DescriptionName))
	if err != nil {
		t.Fatal(err)
	}
	var read export.Description
	if err := json.Unmarshal(doc, &read); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(d, read); diff != "" {
		t.Errorf("the file differs from what was returned (-returned +file):\n%s", diff)
	}
	if d.Epoch != 12 || !slices.Equal(d.Applied, []ps.Offset{4, 6}) {
		t.Errorf("epoch %d, applied %v, want 12 and the lowest, [4 6]", d.Epoch, d.Applied)
	}
	// linear's rows of one weight are no smaller as int8.
	if hidden, linear := d.Tables[0], d.Tables[1]; hidden.Encoding != "int8" || linear.Encoding != "plain" ||
		!slices.Equal(hidden.RowKeys, []string{fmt.Sprint(uint64(upper + 4)), "4"}) || linear.RowKeys != nil {
		t.Errorf("tables %+v, want hidden1 as int8 with its keys in order, linear plain", d.Tables)
	}
	wantFiles := []string{"hidden1.keys.npy", "hidden1.weights.npy", "hidden1.scales.npy", "linear.keys.npy", "linear.weights.npy"}
	if !slices.Equal(d.Files, wantFiles) {
		t.Errorf("files %v, want %v", d.Files, wantFiles)
	}
	before, after := int64(2*(8+8)+3*(8+4)), int64(5*128+2*(8+4+2)+3*(8+4))
	if d.BytesBefore != before || d.BytesAfter != after {
		t.Errorf("%d bytes before, %d after, want %d and %d", d.BytesBefore, d.BytesAfter, before, after)
	}
}

func TestRowsBelowTheNormAreLeftOutButNotThoseOfLayers(t *testing.T) {
	for _, format := range formats {
		c := newEpoch(t)
		c.Format, c.PruneBelow = format, 0.02
		pruned := 0
		c.Seen = func(_ ps.TableID, _ ps.Key, _, after []byte) {
			if after == nil {
				pruned++
			}
		}
		d, err := export.Run(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if pruned != 2 {
			t.Errorf("%s: %d rows were seen pruned, want 2", format, pruned)
		}
		got := read(t, c)
		_, small := got["linear"][upper]
		_, short := got["factors"][3]
		if small || short || len(got["linear"]) != 2 || len(got["factors"]) != 2 || len(got["hidden1"]) != 2 || len(got["sums"]) != 1 {
			t.Errorf("%s: %v is there, want all but 2 rows of linear and factors", format, got)
		}
		if d.Tables[0].Pruned != 1 || d.Tables[1].Pruned != 1 || d.Tables[2].Pruned != 0 {
			t.Errorf("%s: described as %+v, want one row pruned of linear and factors each", format, d.Tables)
		}
	}
}

func TestTheSameEpochGivesTheSameBytes(t *testing.T) {
	c := newEpoch(t)
	var before []byte
	for i := range 3 {
		c.Dir = filepath.Join(t.TempDir(), "out")
		if _, err := export.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(c.Dir, "weights.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && !bytes.Equal(b, before) {
			t.Error("the file differs from that of the run before")
		}
		before = b
	}
}

func TestAnExportThatFailsLeavesNothingBehind(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*export.Config)
		want   error
	}{
		"a file that is damaged": {func(c *export.Config) { c.Manifest.Shards[1].Files[0].Hash[3] ^= 1 }, ps.ErrCorrupt},
		"a file that is gone":    {func(c *export.Config) { c.Manifest.Shards[0].Files[0].Name += "0" }, ps.ErrCorrupt},
		"another layout":         {func(c *export.Config) { c.Model.Layout.Seed++ }, ps.ErrModelMismatch},
		"a norm below 0":         {func(c *export.Config) { c.PruneBelow = -1 }, ps.ErrInvalid},
		"a norm that is none":    {func(c *export.Config) { c.PruneBelow = math.NaN() }, ps.ErrInvalid},
		"a table twice":          {func(c *export.Config) { c.Tables = append(c.Tables, 0) }, ps.ErrInvalid},
		"no table":               {func(c *export.Config) { c.Tables = nil }, ps.ErrInvalid},
		"another format":         {func(c *export.Config) { c.Format = "parquet" }, ps.ErrInvalid},
	} {
		for _, format := range formats {
			for _, there := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, directory there %v", name, format, there), func(t *testing.T) {
					c := newEpoch(t)
					c.Format = format
					test.change(&c)
					if there {
						if err := os.Mkdir(c.Dir, 0o700); err != nil {
							t.Fatal(err)
						}
					}
					if _, err := export.Run(t.Context(), c); !errors.Is(err, test.want) {
						t.Errorf("error %v, want %v", err, test.want)
					}
					if left, err := os.ReadDir(c.Dir); len(left) > 0 || there != (err == nil) {
						t.Errorf("left behind: %v, %v", left, err)
					}
				})
			}
		}
	}
}

func TestADirectoryWithSomethingInItIsNotTouched(t *testing.T) {
	c := newEpoch(t)
	c.Dir = t.TempDir()
	path := filepath.Join(c.Dir, "mine")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := export.Run(t.Context(), c); !errors.Is(err, ps.ErrConflict) {
		t.Errorf("error %v, want ErrConflict", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "x" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestAWeightThatIsNotFiniteIsExportedOnlyAsItIs(t *testing.T) {
	inf := math.Inf(1)
	for encoding := range ps.Int8 + 1 {
		c := newEpoch(t)
		bad := file(t, c.Bucket, 1, []checkpoint.File{c.Manifest.Shards[1].Files[0]}, content{"factors": {upper + 9: {1, inf, 0, 0, 0, 0}}}, nil)
		c.Manifest.Shards[1].Files = append(c.Manifest.Shards[1].Files, bad)
		c.Encoding = encoding
		_, err := export.Run(t.Context(), c)
		if (encoding == ps.Plain) != (err == nil) || err != nil && !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%v: error %v, want ErrInvalid unless it is plain", encoding, err)
		}
		if err == nil && read(t, c)["factors"][upper+9][1] != inf {
			t.Errorf("row %v, want an infinite weight", read(t, c)["factors"][upper+9])
		}
	}
}
