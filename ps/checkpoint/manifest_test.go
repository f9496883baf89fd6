package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freshet-ml/freshet/ps"
	"github.com/freshet-ml/freshet/ps/checkpoint"
)

// link is a file of a model's shard that follows parent, or a full one.
func link(model string, shard ps.ShardID, fence ps.Fence, seq, unique uint64, parent *checkpoint.File) checkpoint.File {
	h := checkpoint.Head{Model: model, Shard: shard, Fence: fence, Seq: seq}
	f := checkpoint.File{
		Ref: checkpoint.Ref{
			Name: checkpoint.Name(&h, unique), Bytes: 1000,
			Hash: checkpoint.Hash{1, byte(shard), byte(fence), byte(seq), byte(seq >> 8), byte(unique), byte(unique >> 8)},
		},
		Fence: fence, Seq: seq, Rows: 9,
	}
	if parent != nil {
		f.Since, f.Parent, f.Bytes = parent.Seq, parent.Hash, 100
	}
	return f
}

func manifest() checkpoint.Manifest {
	full := link("shop", 0, 3, 10, 1, nil)
	second := link("shop", 0, 3, 25, 2, &full)
	third := link("shop", 0, 5, 30, 3, &second)
	return checkpoint.Manifest{
		Model: "shop", Epoch: 12, Lineage: 2, Parent: 11, Created: time.UnixMilli(1_700_000_000_123).UTC(),
		Version: 4, Layout: 1<<63 + 1, Stream: "files:12ab", Partitions: 2,
		Shards: []checkpoint.Shard{
			{Shard: 0, Fence: 5, Seq: 30, Applied: []ps.Offset{7, 90}, Files: []checkpoint.File{full, second, third}},
			{Shard: 1, Fence: 2, Applied: []ps.Offset{8, 80}, Files: nil},
		},
	}
}

func TestAManifestComesBackAsItWasWritten(t *testing.T) {
	b := openBucket(t, "mem://")
	m := manifest()
	m.Created = m.Created.Add(77 * time.Microsecond).In(time.FixedZone("x", 3600))
	ref, err := checkpoint.WriteManifest(t.Context(), b, m)
	if err != nil {
		t.Fatal(err)
	}
	again, err := checkpoint.WriteManifest(t.Context(), b, m)
	if err != nil || again != ref {
		t.Errorf("writing it again gave %+v, %v; want %+v", again, err, ref)
	}
	if want := "manifests/shop/00000000000000000012-" + ref.Hash.String()[:16] + ".json"; ref.Name != want {
		t.Errorf("its name is %s, want %s", ref.Name, want)
	}
	got, err := checkpoint.ReadManifest(t.Context(), b, ref)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(manifest(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for what, change := range map[string]func(*checkpoint.Ref){
		"hash": func(r *checkpoint.Ref) { r.Hash[31]++ }, "bytes": func(r *checkpoint.Ref) { r.Bytes++ },
		"name": func(r *checkpoint.Ref) { r.Name = strings.Replace(r.Name, "12-", "13-", 1) },
	} {
		said := ref
		change(&said)
		if _, err := checkpoint.ReadManifest(t.Context(), b, said); !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), said.Name) {
			t.Errorf("another %s: got %v, want ErrCorrupt with the name", what, err)
		}
	}
}

func TestAManifestAnswers(t *testing.T) {
	m := manifest()
	if a, b := m.Applied(0), m.Applied(1); a != 7 || b != 80 {
		t.Errorf("lowest applied %d and %d, want 7 and 80", a, b)
	}
	want := []string{m.Shards[0].Files[0].Name, m.Shards[0].Files[1].Name, m.Shards[0].Files[2].Name}
	if got := m.Names(); !slices.Equal(got, want) {
		t.Errorf("it reaches %q, want %q", got, want)
	}
}

func TestBrokenManifestsAreRefused(t *testing.T) {
	for what, change := range map[string]func(m *checkpoint.Manifest){
		"no model":                 func(m *checkpoint.Manifest) { m.Model = "" },
		"no epoch":                 func(m *checkpoint.Manifest) { m.Epoch, m.Parent = 0, 0 },
		"a parent epoch after it":  func(m *checkpoint.Manifest) { m.Parent = 12 },
		"no partitions":            func(m *checkpoint.Manifest) { m.Partitions = 0 },
		"a shard missing":          func(m *checkpoint.Manifest) { m.Shards = append(m.Shards[:1], m.Shards[0], m.Shards[1]) },
		"a shard twice":            func(m *checkpoint.Manifest) { m.Shards[1] = m.Shards[0] },
		"shards out of order":      func(m *checkpoint.Manifest) { slices.Reverse(m.Shards) },
		"an offset missing":        func(m *checkpoint.Manifest) { m.Shards[1].Applied = m.Shards[1].Applied[:1] },
		"another seq":              func(m *checkpoint.Manifest) { m.Shards[0].Seq++ },
		"a fence before its file":  func(m *checkpoint.Manifest) { m.Shards[0].Fence = 4 },
		"mutations without a file": func(m *checkpoint.Manifest) { m.Shards[1].Seq = 1 },
		"no full one":              func(m *checkpoint.Manifest) { m.Shards[0].Files = m.Shards[0].Files[1:] },
		"a link missing":           func(m *checkpoint.Manifest) { m.Shards[0].Files = slices.Delete(m.Shards[0].Files, 1, 2) },
		"two full ones":            func(m *checkpoint.Manifest) { m.Shards[0].Files[1].Parent = checkpoint.Hash{} },
		"another parent":           func(m *checkpoint.Manifest) { m.Shards[0].Files[2].Parent[0]++ },
		"another since":            func(m *checkpoint.Manifest) { m.Shards[0].Files[2].Since++ },
		"a name elsewhere":         func(m *checkpoint.Manifest) { m.Shards[0].Files[0].Name = "x" },
		"a name of a shard":        func(m *checkpoint.Manifest) { m.Shards[0].Files[2] = link("shop", 1, 5, 30, 3, &m.Shards[0].Files[1]) },
		"a name of a model":        func(m *checkpoint.Manifest) { m.Shards[0].Files[2] = link("feed", 0, 5, 30, 3, &m.Shards[0].Files[1]) },
		"no hash":                  func(m *checkpoint.Manifest) { m.Shards[0].Files[2].Hash = checkpoint.Hash{} },
		"no length":                func(m *checkpoint.Manifest) { m.Shards[0].Files[2].Bytes = 0 },
		"a fence that falls":       func(m *checkpoint.Manifest) { m.Shards[0].Files[2] = link("shop", 0, 2, 30, 3, &m.Shards[0].Files[1]) },
	} {
		m := manifest()
		change(&m)
		if _, _, err := m.Encode(); !errors.Is(err, ps.ErrInvalid) {
			t.Errorf("%s: Encode gave %v, want ErrInvalid", what, err)
		}
	}
}

func TestEveryChangedOrMissingByteOfAManifestIsNoticed(t *testing.T) {
	object, ref, err := manifest().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for at := range object {
		for _, flip := range []byte{1, 0x20, 0xff} {
			broken := bytes.Clone(object)
			broken[at] ^= flip
			if _, err := checkpoint.DecodeManifest(ref.Name, broken); !errors.Is(err, ps.ErrCorrupt) || !strings.Contains(err.Error(), ref.Name) {
				t.Fatalf("byte %d (%q) ^ %#x: %v, want ErrCorrupt with the name", at, object[at], flip, err)
			}
		}
		if _, err := checkpoint.DecodeManifest(ref.Name, object[:at]); !errors.Is(err, ps.ErrCorrupt) {
			t.Fatalf("cut at byte %d: %v, want ErrCorrupt", at, err)
		}
	}
	if _, err := checkpoint.DecodeManifest(ref.Name, append(bytes.Clone(object), '\n')); !errors.Is(err, ps.ErrCorrupt) {
		t.Errorf("with a byte more: %v, want ErrCorrupt", err)
	}
	if _, err := checkpoint.DecodeManifest(strings.Replace(ref.Name, "shop", "feed", 1), object); !errors.Is(err, ps.ErrCorrupt) {
		t.Errorf("under another name: %v, want ErrCorrupt", err)
	}
}

func TestManifestsOfEveryVersionOpen(t *testing.T) {
	if *rewrite {
		object, ref, err := manifest().Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll("testdata/manifest-v1", 0o750); err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join("testdata/manifest-v1", filepath.Base(ref.Name)), object)
	}
	for version, want := range map[string]checkpoint.Manifest{"v1": manifest()} {
		paths, err := filepath.Glob("testdata/manifest-" + version + "/*.json")
		if err != nil || len(paths) != 1 {
			t.Fatalf("golden files %q, %v: want one", paths, err)
		}
		object, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		m, err := checkpoint.DecodeManifest("manifests/shop/"+filepath.Base(paths[0]), object)
		if diff := cmp.Diff(want, m); err != nil || diff != "" {
			t.Errorf("%s: %v; (-want +got):\n%s", paths[0], err, diff)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	object, ref, err := manifest().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ref.Name, object)
	f.Fuzz(func(t *testing.T, name string, object []byte) {
		m, err := checkpoint.DecodeManifest(name, object)
		if err != nil {
			if !errors.Is(err, ps.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
			return
		}
		if err := m.Valid(); err != nil {
			t.Errorf("decoded a manifest that is not valid: %v", err)
		}
	})
}

func TestFold(t *testing.T) {
	chain := func(bytes ...int64) (files []checkpoint.File) {
		for _, n := range bytes {
			files = append(files, checkpoint.File{Ref: checkpoint.Ref{Bytes: n}})
		}
		return files
	}
	for _, c := range []struct {
		chain []checkpoint.File
		want  bool
	}{
		{nil, true},
		{chain(1000), false},
		{chain(1000, 500), false},
		{chain(1000, 501), true},
		{chain(1000, 250, 251), true},
		{chain(1000, 1, 1, 1, 1, 1, 1), false},
		{chain(1000, 1, 1, 1, 1, 1, 1, 1), true},
	} {
		if got := checkpoint.Fold(c.chain); got != c.want {
			t.Errorf("Fold of %d files, %v: %v, want %v", len(c.chain), c.chain, got, c.want)
		}
	}
}

func TestAFileExtendsTheChainThatHasItsParent(t *testing.T) {
	chain := manifest().Shards[0].Files
	full := link("shop", 0, 6, 40, 1, nil)
	onLast, onFirst := link("shop", 0, 6, 40, 2, &chain[2]), link("shop", 0, 6, 40, 3, &chain[0])
	stranger := link("shop", 0, 6, 40, 4, &full)
	for _, c := range []struct {
		what  string
		chain []checkpoint.File
		f     checkpoint.File
		want  []checkpoint.File
	}{
		{"a full one begins anew", chain, full, []checkpoint.File{full}},
		{"the first", nil, full, []checkpoint.File{full}},
		{"on the newest", chain, onLast, []checkpoint.File{chain[0], chain[1], chain[2], onLast}},
		{"on an earlier one, when what followed was lost", chain, onFirst, []checkpoint.File{chain[0], onFirst}},
		{"on one that is not committed", chain, stranger, nil},
		{"on nothing", nil, onLast, nil},
	} {
		got, ok := checkpoint.Extend(c.chain, c.f)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != (c.want != nil) {
			t.Errorf("%s: ok %v (-want +got):\n%s", c.what, ok, diff)
		}
	}
}

func TestGarbageIsWhatNobodyReachesAndNobodyCanCommit(t *testing.T) {
	m := manifest()
	name := func(fence ps.Fence, seq, unique uint64) string { return link("shop", 0, fence, seq, unique, nil).Name }
	later := manifest()
	full := link("shop", 0, 5, 44, 9, nil)
	later.Epoch, later.Parent = 13, 12
	later.Shards[0] = checkpoint.Shard{Shard: 0, Fence: 5, Seq: 44, Applied: []ps.Offset{9, 99}, Files: []checkpoint.File{full}}
	for _, c := range []struct {
		name             string
		recent, pinned   []checkpoint.Manifest
		listed, deleting []string
	}{
		{"what is reached stays", []checkpoint.Manifest{m}, nil, m.Names(), nil},
		{"what is pinned stays", []checkpoint.Manifest{later}, []checkpoint.Manifest{m}, m.Names(), nil},
		{"what was folded goes", []checkpoint.Manifest{later}, nil, m.Names(), m.Names()},
		{"it stays while a recent one reaches it", []checkpoint.Manifest{m, later}, nil, m.Names(), nil},
		{"an older fence goes, whatever its seq", []checkpoint.Manifest{m}, nil, []string{name(4, 999, 7)}, []string{name(4, 999, 7)}},
		{"the tip's own seq may be on its way", []checkpoint.Manifest{m}, nil, []string{name(5, 30, 7), name(5, 31, 7), name(6, 1, 7)}, nil},
		{"below the newest tip but not the oldest", []checkpoint.Manifest{m, later}, nil, []string{name(5, 35, 7)}, nil},
		{"a shard without files", []checkpoint.Manifest{m}, nil, []string{link("shop", 1, 2, 0, 1, nil).Name, link("shop", 1, 1, 5, 1, nil).Name}, []string{link("shop", 1, 1, 5, 1, nil).Name}},
		{"what a crash left counts as what it would be", []checkpoint.Manifest{m}, nil, []string{name(4, 1, 7) + ".123" + checkpoint.Unfinished, name(5, 31, 7) + ".123" + checkpoint.Unfinished}, []string{name(4, 1, 7) + ".123" + checkpoint.Unfinished}},
		{"another model, an unknown shard, a stranger", []checkpoint.Manifest{m}, nil, []string{link("feed", 0, 1, 1, 1, nil).Name, link("shop", 2, 1, 1, 1, nil).Name, "README", "snapshots/shop/x"}, nil},
		{"nothing is known", nil, []checkpoint.Manifest{m}, []string{name(1, 1, 1)}, nil},
		{"manifests below the oldest", []checkpoint.Manifest{later}, []checkpoint.Manifest{m}, []string{manifestNamed("shop", 11), manifestNamed("shop", 12), manifestNamed("shop", 13), manifestNamed("shop", 14), manifestNamed("feed", 1)}, []string{manifestNamed("shop", 11)}},
	} {
		if got := checkpoint.Garbage(c.recent, c.pinned, c.listed); !slices.Equal(got, c.deleting) {
			t.Errorf("%s: of %q got %q, want %q", c.name, c.listed, got, c.deleting)
		}
	}
}

func manifestNamed(model string, epoch int) string {
	return fmt.Sprintf("manifests/%s/%020d-0123456789abcdef.json", model, epoch)
}

// TestGarbageNeverTakesWhatIsCommittedLater lives through epochs of two shards:
// nodes take snapshots that wait, are lost or are committed; owners change; a shard
// is restored from any recent epoch, and rollbacks begin a lineage from any that is
// retained. Collection runs at any moment, with what etcd said then or a while ago.
func TestGarbageNeverTakesWhatIsCommittedLater(t *testing.T) {
	const shards = 2
	bite := 0
	rapid.Check(t, func(t *rapid.T) {
		type live struct {
			fence ps.Fence
			seq   uint64
			chain []checkpoint.File // the committed one it descends from
		}
		var (
			alive   [shards]live
			fences  [shards]ps.Fence // the highest ever, in etcd
			waiting [shards][]checkpoint.File
			bucket  = map[string]bool{}
			history []checkpoint.Manifest
			recent  []checkpoint.Manifest
			pinned  []checkpoint.Manifest
			stale   [2][]checkpoint.Manifest // what a slow leader knows
			unique  uint64
		)
		restore := func(s int, from checkpoint.Shard) {
			fences[s]++
			alive[s] = live{fence: fences[s], seq: from.Seq, chain: from.Files}
			waiting[s] = nil // taken under an older fence: the commit drops them
		}
		commit := func(m checkpoint.Manifest) {
			if err := m.Valid(); err != nil {
				t.Fatalf("the test made a broken manifest: %v", err)
			}
			for _, name := range m.Names() {
				if !bucket[name] {
					t.Fatalf("epoch %d needs %s, which was collected", m.Epoch, name)
				}
			}
			history = append(history, m)
			recent = append(recent, m)
			if len(recent) > 3 {
				if rapid.Bool().Draw(t, "pin") {
					pinned = append(pinned, recent[0])
				}
				recent = recent[1:]
			}
			if len(pinned) > 2 {
				pinned = pinned[1:]
			}
		}
		next := func() checkpoint.Manifest {
			m := checkpoint.Manifest{Model: "m", Epoch: ps.Epoch(len(history) + 1), Parent: ps.Epoch(len(history)), Partitions: 1}
			for s := range shards {
				m.Shards = append(m.Shards, checkpoint.Shard{Shard: ps.ShardID(s), Applied: []ps.Offset{0}})
				if len(recent) > 0 {
					m.Shards[s] = recent[len(recent)-1].Shards[s]
				}
			}
			return m
		}
		for range rapid.IntRange(20, 200).Draw(t, "steps") {
			s := rapid.IntRange(0, shards-1).Draw(t, "shard")
			a := &alive[s]
			switch rapid.SampledFrom([]string{"push", "push", "snapshot", "snapshot", "commit", "commit", "owner", "rollback", "stale", "collect", "collect"}).Draw(t, "step") {
			case "push":
				a.seq += rapid.Uint64Range(1, 5).Draw(t, "mutations")
			case "snapshot":
				unique++
				var parent *checkpoint.File
				if len(a.chain) > 0 && len(a.chain) < 3 && rapid.Bool().Draw(t, "incremental") {
					parent = &a.chain[len(a.chain)-1]
				}
				f := link("m", ps.ShardID(s), a.fence, a.seq, unique, parent)
				bucket[f.Name] = true
				if rapid.IntRange(0, 3).Draw(t, "lost") > 0 {
					waiting[s] = append(waiting[s], f)
				}
			case "commit":
				m := next()
				for s := range shards {
					if len(waiting[s]) == 0 || rapid.IntRange(0, 4).Draw(t, "late") == 0 {
						continue
					}
					f := waiting[s][len(waiting[s])-1]
					a := &alive[s]
					chain, ok := checkpoint.Extend(m.Shards[s].Files, f)
					if !ok {
						waiting[s] = nil
						continue
					}
					a.chain = chain
					waiting[s] = nil
					m.Shards[s] = checkpoint.Shard{Shard: ps.ShardID(s), Fence: f.Fence, Seq: f.Seq, Applied: []ps.Offset{0}, Files: a.chain}
				}
				commit(m)
			case "owner": // from any recent epoch, as if newer files were broken
				if len(recent) > 0 {
					restore(s, rapid.SampledFrom(recent).Draw(t, "from").Shards[s])
				}
			case "rollback": // a new epoch with the old files, then all shards load it
				if retained := slices.Concat(recent, pinned); len(retained) > 0 {
					m := next()
					copy(m.Shards, rapid.SampledFrom(retained).Draw(t, "to").Shards)
					commit(m)
					for s := range shards {
						restore(s, m.Shards[s])
					}
				}
			case "stale":
				stale = [2][]checkpoint.Manifest{slices.Clone(recent), slices.Clone(pinned)}
			case "collect":
				know := [2][]checkpoint.Manifest{recent, pinned}
				if len(stale[0]) > 0 && rapid.Bool().Draw(t, "by a slow leader") {
					know = stale
				}
				var listed []string
				for name := range bucket {
					listed = append(listed, name)
				}
				slices.Sort(listed)
				for _, name := range checkpoint.Garbage(know[0], know[1], listed) {
					delete(bucket, name)
					bite++
				}
			}
			for _, m := range slices.Concat(recent, pinned) {
				for _, name := range m.Names() {
					if !bucket[name] {
						t.Fatalf("epoch %d is retained and needs %s, which was collected", m.Epoch, name)
					}
				}
			}
			for s := range shards {
				for _, f := range waiting[s] {
					if !bucket[f.Name] {
						t.Fatalf("%s waited to be committed and was collected", f.Name)
					}
				}
			}
		}
	})
	if bite < 200 && !testing.Short() { // which tries a fifth as much
		t.Errorf("only %d files were ever collected: the test proves nothing", bite)
	}
}
