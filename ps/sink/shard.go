package sink

import (
	"fmt"

	"github.com/freshet-ml/freshet/ps"
)

// shard is what is known of one shard.
type shard struct {
	// stored is the position in the target; zero if there is none.
	stored Position
	// written says that this run has seen the shard whole in the target.
	written bool

	// What has been taken: under which fence, up to which boundary if it is whole, and
	// how many parts of the base or delta behind it.
	fence ps.Fence
	seq   uint64
	whole bool
	parts int
	// known says that the base that comes is what is in the target already.
	known bool
}

// admit takes note of a delta, and reports whether it is to be written. It is an error if
// something before it is missing; from then on only a base will do.
func (f *shard) admit(d *ps.Delta) (bool, error) {
	if d.Fence < f.fence {
		return false, nil // of an owner that was followed by another
	}
	begins := d.Since == 0 && d.Part == 0
	if begins {
		f.fence, f.whole, f.parts = d.Fence, false, 0
		f.known = f.stored.same(positionOf(d))
	}
	// A base follows its own parts only, a delta the boundary that it is since.
	follows := d.Fence == f.fence && d.Part == f.parts && f.whole == (d.Since > 0) && (!f.whole || d.Since == f.seq)
	if !follows {
		err := fmt.Errorf("shard %d: part %d of what is from (fence %d) seq %d to %d follows part %d behind (fence %d) seq %d, whole %v: %w",
			d.Shard, d.Part, d.Fence, d.Since, d.Seq, f.parts, f.fence, f.seq, f.whole, ps.ErrCorrupt)
		f.whole, f.parts = false, -1
		return false, err
	}
	f.parts++
	if !d.More {
		f.whole, f.seq, f.parts = true, d.Seq, 0
	}
	return true, nil
}
