//go:build goexperiment.simd && amd64

package feature

import (
	"simd/archsimd"

	"github.com/freshet-ml/freshet/ps"
)

// vectors reports whether the processor has what the forms of this file need: they
// multiply 64-bit integers, which only AVX-512 can. Only tests change it.
var vectors = archsimd.X86.AVX512()

// separators512 is separators.
func separators512(text *[block]byte, separator byte) uint64 {
	return archsimd.LoadUint8x64(text).Equal(archsimd.BroadcastUint8x64(separator)).ToBits()
}

// hash512 is hash, eight tokens at a time; len(keys) is a multiple of 8. The steps are
// those of hashWord and ps.Mix.
func (w *words) hash512(seed ps.Key, keys []ps.Key) {
	p1, p2, p3 := archsimd.BroadcastUint64x8(prime1), archsimd.BroadcastUint64x8(prime2), archsimd.BroadcastUint64x8(prime3)
	p4, p5 := archsimd.BroadcastUint64x8(prime4), archsimd.BroadcastUint64x8(prime5)
	one, three, four := archsimd.BroadcastUint64x8(1), archsimd.BroadcastUint64x8(3), archsimd.BroadcastUint64x8(4)
	two, eight := archsimd.BroadcastUint64x8(2), archsimd.BroadcastUint64x8(8)
	word, octet := archsimd.BroadcastUint64x8(1<<32-1), archsimd.BroadcastUint64x8(0xff)
	golden, mixA, mixB := archsimd.BroadcastUint64x8(0x9e3779b97f4a7c15), archsimd.BroadcastUint64x8(0xbf58476d1ce4e5b9), archsimd.BroadcastUint64x8(0x94d049bb133111eb)
	seeds := archsimd.BroadcastUint64x8(uint64(seed))
	low, high, length := w.low[:len(keys)], w.high[:len(keys)], w.length[:len(keys)]
	for len(keys) >= 8 && len(low) >= 8 && len(high) >= 8 && len(length) >= 8 {
		n := archsimd.LoadUint64x8Slice(length)
		rest := archsimd.LoadUint64x8Slice(low)
		h := n.Add(p5)
		has := n.And(eight).Equal(eight)
		with := h.Xor(rest.Mul(p2).RotateAllLeft(31).Mul(p1)).RotateAllLeft(27).Mul(p1).Add(p4)
		h = with.Merge(h, has)
		rest = archsimd.LoadUint64x8Slice(high).Merge(rest, has)
		has = n.And(four).Equal(four)
		with = h.Xor(rest.And(word).Mul(p1)).RotateAllLeft(23).Mul(p2).Add(p3)
		h = with.Merge(h, has)
		rest = rest.ShiftAllRight(32).Merge(rest, has)
		tail := n.And(three)
		with = h.Xor(rest.And(octet).Mul(p5)).RotateAllLeft(11).Mul(p1)
		h = with.Merge(h, tail.GreaterEqual(one))
		with = h.Xor(rest.ShiftAllRight(8).And(octet).Mul(p5)).RotateAllLeft(11).Mul(p1)
		h = with.Merge(h, tail.GreaterEqual(two))
		with = h.Xor(rest.ShiftAllRight(16).And(octet).Mul(p5)).RotateAllLeft(11).Mul(p1)
		h = with.Merge(h, tail.Equal(three))
		h = h.Xor(h.ShiftAllRight(33)).Mul(p2)
		h = h.Xor(h.ShiftAllRight(29)).Mul(p3)
		h = h.Xor(h.ShiftAllRight(32))
		k := h.Xor(seeds).Add(golden)
		k = k.Xor(k.ShiftAllRight(30)).Mul(mixA)
		k = k.Xor(k.ShiftAllRight(27)).Mul(mixB)
		k = k.Xor(k.ShiftAllRight(31))
		k.Store((*[8]uint64)(ps.View[uint64](ps.Bytes(keys[:8]))))
		keys, low, high, length = keys[8:], low[8:], high[8:], length[8:]
	}
	archsimd.ClearAVXUpperBits()
}
