//go:build goexperiment.simd && amd64

package retrieve

import (
	"math"
	"math/rand/v2"
	"testing"
)

// Which form Top takes follows from the processor, so that both can only be compared from
// inside.
func TestVectorsScoreAsLoopsDo(t *testing.T) {
	if !vectors {
		t.Skip("the processor does not have AVX2")
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for width := 1; width <= 70; width++ {
		from, query := make([]float32, segmentItems*width), make([]float32, width)
		for _, s := range [][]float32{from, query} {
			for i := range s {
				switch rng.IntN(8) {
				case 0:
					s[i] = float32(math.Copysign(0, rng.NormFloat64()))
				case 1:
					s[i] = float32(rng.NormFloat64() * 1e-30)
				default:
					s[i] = float32(rng.NormFloat64())
				}
			}
		}
		var got, want scored
		for _, threshold := range []float32{float32(math.Inf(-1)), -1, 0, 3} {
			if !scoreWide(from, query, threshold, &got) {
				t.Fatal("scoreWide has not scored")
			}
			scorePlain(from, query, threshold, &want)
			for i := range want.scores {
				if math.Float32bits(got.scores[i]) != math.Float32bits(want.scores[i]) {
					t.Fatalf("width %d, item %d: score %v, want %v", width, i, got.scores[i], want.scores[i])
				}
			}
			if got.above != want.above {
				t.Fatalf("width %d, above %v: items %x, want %x", width, threshold, got.above, want.above)
			}
		}
	}
}
