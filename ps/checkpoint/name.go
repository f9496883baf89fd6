package checkpoint

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/freshet-ml/freshet/ps"
)

// modelMax bounds a model's name as model specs do, so that every name of an object fits a file
// system's 255 bytes and a store's 1,024.
const modelMax = 63

// Digits of numbers in names: enough for every uint64, so that names sort as
// their numbers do.
const digits = 20

// SnapshotPrefix is what the names of all snapshot files of a model begin with.
func SnapshotPrefix(model string) string { return "snapshots/" + model + "/" }

// ManifestPrefix is what the names of all manifests of a model begin with.
func ManifestPrefix(model string) string { return "manifests/" + model + "/" }

// Name returns the name of a snapshot file with the given head. unique keeps two
// files of the same shard, fence and seq apart: it is a random number, another one
// for every attempt.
//
//	snapshots/<model>/<shard>/<fence>-<seq>-<unique>
func Name(h *Head, unique uint64) string {
	return fmt.Sprintf("%s%05d/%0*d-%0*d-%016x", SnapshotPrefix(h.Model), h.Shard, digits, h.Fence, digits, h.Seq, unique)
}

// manifestName returns the name of a manifest.
func manifestName(model string, epoch ps.Epoch, hash Hash) string {
	return fmt.Sprintf("%s%0*d-%s.json", ManifestPrefix(model), digits, epoch, hash.String()[:16])
}

// tip is a point in the life of a shard. Fences only rise, and seq does under a
// fence, so that tips order everything that can be committed.
type tip struct {
	fence ps.Fence
	seq   uint64
}

func (t tip) compare(o tip) int {
	return cmp.Or(cmp.Compare(t.fence, o.fence), cmp.Compare(t.seq, o.seq))
}

// snapshotName is what the name of a snapshot file says.
type snapshotName struct {
	model string
	shard ps.ShardID
	tip   tip
}

// parseSnapshot reads a name made by Name. ok is false for every other name.
func parseSnapshot(name string) (s snapshotName, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "snapshots" || validModel(parts[1]) != nil {
		return snapshotName{}, false
	}
	shard, okShard := number(parts[2], 5, 10)
	numbers := strings.Split(parts[3], "-")
	if len(numbers) != 3 || !okShard || shard >= ps.ShardsMax {
		return snapshotName{}, false
	}
	fence, okFence := number(numbers[0], digits, 10)
	seq, okSeq := number(numbers[1], digits, 10)
	_, okUnique := number(numbers[2], 16, 16)
	return snapshotName{
		model: parts[1], shard: ps.ShardID(shard), tip: tip{fence: ps.Fence(fence), seq: seq},
	}, okFence && okSeq && okUnique
}

// parseManifest reads the name of a manifest. ok is false for every other name.
func parseManifest(name string) (model string, epoch ps.Epoch, prefix string, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[0] != "manifests" || validModel(parts[1]) != nil {
		return "", 0, "", false
	}
	file, okJSON := strings.CutSuffix(parts[2], ".json")
	first, second, okDash := strings.Cut(file, "-")
	n, okEpoch := number(first, digits, 10)
	_, okHash := number(second, 16, 16)
	return parts[1], ps.Epoch(n), second, okJSON && okDash && okEpoch && okHash
}

// number reads an unsigned number of exactly so many digits, in lower case.
func number(s string, width, base int) (uint64, bool) {
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil && len(s) == width && s == strings.ToLower(s)
}

// validModel holds the names of models to what model specs allow, because they
// become part of a path.
func validModel(name string) error {
	if name == "" || len(name) > modelMax || name[0] == '-' || name[0] == '_' {
		return fmt.Errorf("model name %q: want 1 to %d letters, digits, \"-\" and \"_\", a letter or digit first: %w",
			name, modelMax, ps.ErrInvalid)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("model name %q: want only letters, digits, \"-\" and \"_\": %w", name, ps.ErrInvalid)
		}
	}
	return nil
}
