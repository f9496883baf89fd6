package feature

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/freshet-ml/freshet/ps"
)

// Tokens of a few bytes, separated by one byte and without weights, are what logs of
// clicks consist of. To cut and hash each by itself costs some 15 ns, of which most is
// mispredicted branches: their lengths are as good as random. Here separators are found
// 64 bytes at a time, and a short token is hashed without a branch, in 4 ns. addTokens
// and xxhash are the reference of the tests.

// wordMax is the longest token that is hashed without a branch.
const wordMax = 15

// block is how many bytes are searched for separators at once.
const block = 64

// addWords is addTokens for a separator of one byte and tokens without weights.
func (x *Extractor) addWords(in *input, text []byte) {
	// Behind the text come separators, so that the last token ends at one and a token
	// can be read in words beyond its end.
	size := len(text)/block*block + block
	x.padded = append(append(x.padded[:0], text...), in.padding[:size-len(text)+wordMax+1]...)
	x.keys = slices.Grow(x.keys, len(text)/2+1)
	before, n := len(x.keys), len(x.keys)
	keys, padded := x.keys[:cap(x.keys)], x.padded
	from := 0
	for base := 0; base < size; base += block {
		ends := separators((*[block]byte)(padded[base:]), in.separator)
		for ; ends != 0; ends &= ends - 1 {
			end := base + bits.TrailingZeros64(ends)
			length := end - from
			switch {
			case length == 0:
				from = end + 1
				continue
			case length <= wordMax:
				word := padded[from : from+wordMax+1]
				keys[n] = chain(in.seed, ps.Key(hashWord(binary.LittleEndian.Uint64(word), binary.LittleEndian.Uint64(word[8:]), uint64(length))))
			default:
				keys[n] = hash(in.seed, padded[from:end])
			}
			n++
			from = end + 1
		}
	}
	if n == before {
		x.add(in, nil, 1)
		return
	}
	x.keys = keys[:n]
	for range n - before {
		x.values = append(x.values, 1)
	}
}

// separators returns a bit for each byte of text that is the separator, which is given
// eight times over.
func separators(text *[block]byte, separator uint64) (mask uint64) {
	const low7 = 0x7f7f7f7f7f7f7f7f
	for i := 0; i < block; i += 8 {
		x := binary.LittleEndian.Uint64(text[i:]) ^ separator
		// The highest bit of each byte that is 0, and no other.
		zeros := ^(x&low7 + low7 | x | low7)
		// The eight highest bits beside each other.
		mask |= zeros >> 7 * 0x0102040810204080 >> 56 << i
	}
	return mask
}

// The primes of XXH64.
const (
	prime1 = 0x9e3779b185ebca87
	prime2 = 0xc2b2ae3d27d4eb4f
	prime3 = 0x165667b19e3779f9
	prime4 = 0x85ebca77c2b2ae63
	prime5 = 0x27d4eb2f165667c5
)

// hashWord returns XXH64 under seed 0 of the first n bytes of low and high, little-endian;
// n is at most wordMax. Each step of the hash is computed, and taken if n has a part of
// that length.
func hashWord(low, high, n uint64) (sum uint64) {
	h := n + prime5
	eight := -(n >> 3) // all bits if there are 8 bytes, else none
	with := bits.RotateLeft64(h^bits.RotateLeft64(low*prime2, 31)*prime1, 27)*prime1 + prime4
	h ^= (h ^ with) & eight
	rest := low ^ (low^high)&eight
	four := -(n >> 2 & 1)
	with = bits.RotateLeft64(h^rest&0xffffffff*prime1, 23)*prime2 + prime3
	h ^= (h ^ with) & four
	rest = rest>>32&four | rest&^four
	one := -((n | n>>1) & 1)
	with = bits.RotateLeft64(h^rest&0xff*prime5, 11) * prime1
	h ^= (h ^ with) & one
	two := -(n >> 1 & 1)
	with = bits.RotateLeft64(h^rest>>8&0xff*prime5, 11) * prime1
	h ^= (h ^ with) & two
	three := -(n & (n >> 1) & 1)
	with = bits.RotateLeft64(h^rest>>16&0xff*prime5, 11) * prime1
	h ^= (h ^ with) & three
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

// newPadding returns separators for behind a text, and the separator eight times over.
func newPadding(separator byte) (padding []byte, eight uint64) {
	return slices.Repeat([]byte{separator}, block+wordMax+1), uint64(separator) * 0x0101010101010101
}
