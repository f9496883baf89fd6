package predict

import "math/bits"

// directory finds things by their hashes. It says in which order to keep them: by the first
// bits of their hashes, so that those that a hash may be of stand side by side. Hashes are
// taken to be uniform.
type directory struct {
	firsts []int32 // those whose hashes begin with b are [firsts[b]:firsts[b+1]]
	shift  int
}

// newDirectory returns the directory of things, and where each belongs.
func newDirectory[H ~uint64](hashes []H) (d directory, places []int32) {
	width := bits.Len(uint(len(hashes))) // from one half to one a bucket
	d = directory{firsts: make([]int32, 1<<width+1), shift: 64 - width}
	for _, h := range hashes {
		d.firsts[d.bucket(uint64(h))+1]++
	}
	for b := range 1 << width {
		d.firsts[b+1] += d.firsts[b]
	}
	next := append([]int32(nil), d.firsts...)
	places = make([]int32, len(hashes))
	for i, h := range hashes {
		b := d.bucket(uint64(h))
		places[i] = next[b]
		next[b]++
	}
	return d, places
}

func (d *directory) bucket(hash uint64) uint64 { return hash >> d.shift }

// span returns where the things are that may have a hash.
func (d *directory) span(hash uint64) (from, to int32) {
	b := d.bucket(hash)
	return d.firsts[b], d.firsts[b+1]
}
