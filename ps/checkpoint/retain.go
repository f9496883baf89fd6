package checkpoint

import (
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// chainMax is the most files of a chain: each is one more request and one more
// chance of damage when a shard is restored.
const chainMax = 8

// Fold reports whether the next snapshot of a shard with this chain of files has to
// be a full one: there is none yet, there are 8, or what was added is more than
// half of the full one.
func Fold(chain []File) bool {
	if len(chain) == 0 || len(chain) >= chainMax {
		return true
	}
	var added int64
	for _, f := range chain[1:] {
		added += f.Bytes
	}
	return 2*added > chain[0].Bytes
}

// Extend returns the chain that a new file makes of a shard's chain in the newest
// committed manifest: the file alone if it is a full one, else the chain up to the
// file's parent and the file. ok is false if the parent is not in the chain, as
// after a shard fell back to an older epoch: such a file must not be committed, for
// its parents may be garbage by then, and the next one has to be a full one.
//
// The result shares no memory with chain.
func Extend(chain []File, f File) (extended []File, ok bool) {
	if f.Full() {
		return []File{f}, true
	}
	for i, parent := range chain {
		if parent.Hash == f.Parent && parent.Seq == f.Since && parent.Fence <= f.Fence {
			return append(slices.Clone(chain[:i+1]), f), true
		}
	}
	return nil, false
}

// Garbage returns those of the listed names that can be deleted, in their order.
//
// recent are the committed manifests from which a shard may be restored on its own,
// the newest among them; pinned are committed ones that are kept for other reasons.
// Both are what etcd names; whatever is to be forgotten is removed there first. A
// pinned one that is to be restored is committed as a new epoch before.
//
// It relies on three rules of those who commit: an owner's files carry its fence, and
// the commit drops other fences'; a shard that is restored gets a higher fence; an
// incremental file is committed only by Extend of the newest manifest's chain.
//
// A snapshot file is garbage if no manifest of either kind reaches it and its
// (fence, seq) is below the shard's in every recent manifest: a snapshot that is
// still being written, or waits for its epoch, was taken of a shard that descends
// from one of those, so it is not below all of them. No clock is read, since the
// store's is not ours. A manifest is garbage if its epoch is below all recent ones
// and not pinned. What a crash left of either (see Unfinished) counts as the object
// it would have become.
//
// Names of models that recent does not know, and names that this package did not
// make, are never garbage.
func Garbage(recent, pinned []Manifest, listed []string) []string {
	kept := make(map[string]bool)
	epochs := make(map[string]map[ps.Epoch]bool)
	for _, manifests := range [][]Manifest{recent, pinned} {
		for i := range manifests {
			m := &manifests[i]
			for _, name := range m.Names() {
				kept[name] = true
			}
			if epochs[m.Model] == nil {
				epochs[m.Model] = make(map[ps.Epoch]bool)
			}
			epochs[m.Model][m.Epoch] = true
		}
	}
	h := newHorizon(recent)
	var garbage []string
	for _, name := range listed {
		whole := finished(name)
		if model, epoch, _, ok := parseManifest(whole); ok {
			if first, known := h.epochs[model]; known && epoch < first && !epochs[model][epoch] {
				garbage = append(garbage, name)
			}
			continue
		}
		s, ok := parseSnapshot(whole)
		if !ok || kept[whole] {
			continue
		}
		if lowest, known := h.tips[shardOf{s.model, s.shard}]; known && s.tip.compare(lowest) < 0 {
			garbage = append(garbage, name)
		}
	}
	return garbage
}

type shardOf struct {
	model string
	shard ps.ShardID
}

// horizon is the lowest of what recent manifests say.
type horizon struct {
	tips   map[shardOf]tip
	epochs map[string]ps.Epoch
}

func newHorizon(recent []Manifest) horizon {
	h := horizon{tips: make(map[shardOf]tip), epochs: make(map[string]ps.Epoch)}
	for i := range recent {
		m := &recent[i]
		if first, known := h.epochs[m.Model]; !known || m.Epoch < first {
			h.epochs[m.Model] = m.Epoch
		}
		for j := range m.Shards {
			s := &m.Shards[j]
			of := shardOf{m.Model, s.Shard}
			if lowest, known := h.tips[of]; !known || s.tip().compare(lowest) < 0 {
				h.tips[of] = s.tip()
			}
		}
	}
	return h
}
