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
// 64 bytes at a time, and short tokens are hashed without a branch, where the processor
// has AVX-512 eight at a time. addTokens and xxhash are the reference of the tests.

// wordMax is the longest token that is hashed without a branch.
const wordMax = 15

// block is how many bytes are searched for separators at once.
const block = 64

// words are the tokens of a text, as they are cut and before they are hashed.
type words struct {
	padded []byte // the text with separators behind it
	// Of each token, the first 16 bytes from its beginning on, of which some may be
	// behind its end, and its length. Their capacities are a multiple of 8.
	low, high, length []uint64
	long              []longWord
}

// longWord is a token of more than wordMax bytes.
type longWord struct {
	i        int // which token it is
	from, to int // in the padded text
}

// cut cuts a text into its tokens and returns how many there are.
func (w *words) cut(text, padding []byte, separator uint64) (n int) {
	// Behind the text come separators, so that the last token ends at one and a token
	// can be read in words beyond its end.
	size := len(text)/block*block + block
	w.padded = append(append(w.padded[:0], text...), padding[:size-len(text)+wordMax+1]...)
	if most := len(text)/2 + 1; most > len(w.low) {
		most = (most + 63) / 64 * 64
		w.low, w.high, w.length = make([]uint64, most), make([]uint64, most), make([]uint64, most)
	}
	w.long = w.long[:0]
	padded, from := w.padded, 0
	low := w.low
	high, length := w.high[:len(low)], w.length[:len(low)]
	for base := 0; base < size; base += block {
		var ends uint64
		if vectors {
			ends = separators512((*[block]byte)(padded[base:]), byte(separator))
		} else {
			ends = separators((*[block]byte)(padded[base:]), separator)
		}
		for ; ends != 0; ends &= ends - 1 {
			to := base + bits.TrailingZeros64(ends)
			size := to - from
			if size > wordMax {
				w.long = append(w.long, longWord{n, from, to})
			}
			if size > 0 {
				word := padded[from : from+wordMax+1]
				low[n], high[n] = binary.LittleEndian.Uint64(word), binary.LittleEndian.Uint64(word[8:])
				length[n] = uint64(size)
				n++
			}
			from = to + 1
		}
	}
	return n
}

// addWords is addTokens for a separator of one byte and tokens without weights.
func (x *Extractor) addWords(in *input, text []byte) {
	w := &x.words
	n := w.cut(text, in.padding, in.separator)
	if n == 0 {
		x.add(in, nil, 1)
		return
	}
	before := len(x.keys)
	x.keys = slices.Grow(x.keys, n+7)[:before+n] // vectors write whole eights
	if vectors {
		w.hash512(in.seed, x.keys[before:before+(n+7)/8*8])
	} else {
		w.hash(in.seed, x.keys[before:])
	}
	for _, long := range w.long {
		x.keys[before+long.i] = hash(in.seed, w.padded[long.from:long.to])
	}
	for range n {
		x.values = append(x.values, 1)
	}
}

// hash sets keys to those of the first tokens, as far as they are short.
func (w *words) hash(seed ps.Key, keys []ps.Key) {
	low, high, length := w.low[:len(keys)], w.high[:len(keys)], w.length[:len(keys)]
	for i := range keys {
		keys[i] = chain(seed, ps.Key(hashWord(low[i], high[i], length[i])))
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
