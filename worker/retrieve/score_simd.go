//go:build goexperiment.simd && amd64

package retrieve

import "simd/archsimd"

// vectors is whether the processor has those that scoreWide is written for. Those of
// AVX2 are enough: it waits for memory more than it computes. Only tests change it.
var vectors = archsimd.X86.AVX2()

// scoreWide is scorePlain, eight items at a time. It reports whether it has scored.
// Products are rounded before they are added, as in the plain form.
func scoreWide(from, query []float32, threshold float32, to *scored) bool {
	if !vectors {
		return false
	}
	least := archsimd.BroadcastFloat32x8(threshold)
	for g := range to.above {
		var low, high archsimd.Float32x8
		for _, element := range query {
			x, y := archsimd.BroadcastFloat32x8(element), (*[lanes]float32)(from)
			low = archsimd.LoadFloat32x8((*[8]float32)(y[:8])).Mul(x).Add(low)
			high = archsimd.LoadFloat32x8((*[8]float32)(y[8:])).Mul(x).Add(high)
			from = from[lanes:]
		}
		scores := (*[lanes]float32)(to.scores[g*lanes:])
		low.Store((*[8]float32)(scores[:8]))
		high.Store((*[8]float32)(scores[8:]))
		to.above[g] = uint16(low.Greater(least).ToBits()) | uint16(high.Greater(least).ToBits())<<8
	}
	archsimd.ClearAVXUpperBits()
	return true
}
