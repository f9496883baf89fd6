//go:build goexperiment.simd && amd64

package table

import (
	"math/bits"
	"simd/archsimd"
)

// vectors is whether this processor has those that probeVectors is written for. Only
// tests change it.
var vectors = archsimd.X86.AVX2()

// probeVectors is probe for each of hashes, but that it may find another cell with the
// tag, or one where the plain form finds none: both are guesses. It compares all cells of a line at once: how many cells a path has is
// chance, and a loop over them costs a wrong guess of the processor for many keys.
// Paths that leave the line, and segments of less than one, are for the plain form.
func (x *index) probeVectors(hashes []uint64, rows []uint32) {
	rows = rows[:len(hashes)]
	var free archsimd.Uint32x8
	for i, hash := range hashes {
		s := x.segment(hash)
		if len(s.cells) < lineCells {
			rows[i] = s.probe(hash)
			continue
		}
		cells := (*[lineCells]uint32)(s.cells[uint32(hash)&s.mask&^(lineCells-1):])
		low, high := archsimd.LoadUint32x8((*[8]uint32)(cells[:8])), archsimd.LoadUint32x8((*[8]uint32)(cells[8:]))
		numbers, tag := archsimd.BroadcastUint32x8(s.rows), archsimd.BroadcastUint32x8(s.tag(hash))
		empty := uint16(low.Equal(free).ToBits()) | uint16(high.Equal(free).ToBits())<<8
		tagged := uint16(low.AndNot(numbers).Equal(tag).ToBits()) | uint16(high.AndNot(numbers).Equal(tag).ToBits())<<8
		switch tagged &^= empty; {
		case tagged != 0:
			rows[i] = cells[bits.TrailingZeros16(tagged)%lineCells] & s.rows
		case empty != 0:
			rows[i] = 0
		default:
			rows[i] = s.probe(hash)
		}
	}
	archsimd.ClearAVXUpperBits()
}
