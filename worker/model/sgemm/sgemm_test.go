package sgemm_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"

	"github.com/freshet-ml/freshet/worker/model/sgemm"
)

// call is the arguments of one product.
type call struct {
	tA, tB      blas.Transpose
	m, n, k     int
	alpha, beta float32
	a, b, c     []float32
	lda, ldb    int
	ldc         int
}

func (p call) String() string {
	return fmt.Sprintf("%c%c m=%d n=%d k=%d alpha=%v beta=%v lda=%d ldb=%d ldc=%d", p.tA, p.tB, p.m, p.n, p.k, p.alpha, p.beta, p.lda, p.ldb, p.ldc)
}

func (p call) by(of blas.Float32, c []float32) {
	of.Sgemm(p.tA, p.tB, p.m, p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.beta, c, p.ldc)
}

// sentinel lies where nothing may be written.
const sentinel = -12345.5

// newCall returns a product of random matrices with random strides. Between the rows of
// c, and around it, are sentinels.
func newCall(rng *rand.Rand, m, n, k int) call {
	transposes := []blas.Transpose{blas.NoTrans, blas.Trans, blas.ConjTrans}
	factors := []float32{1, 1, 0, -0.5, 2.25}
	p := call{
		m: m, n: n, k: k, tA: transposes[rng.IntN(3)], tB: transposes[rng.IntN(3)],
		alpha: factors[rng.IntN(5)], beta: factors[rng.IntN(5)],
	}
	filled := func(rows, columns int) ([]float32, int) {
		stride := max(1, columns+rng.IntN(4))
		data := make([]float32, max(0, (rows-1)*stride+columns))
		for i := range data {
			data[i] = float32(rng.NormFloat64())
		}
		return data, stride
	}
	if p.tA == blas.NoTrans {
		p.a, p.lda = filled(m, k)
	} else {
		p.a, p.lda = filled(k, m)
	}
	if p.tB == blas.NoTrans {
		p.b, p.ldb = filled(k, n)
	} else {
		p.b, p.ldb = filled(n, k)
	}
	p.c, p.ldc = filled(m, n)
	for i := range p.c {
		if i%p.ldc >= n {
			p.c[i] = sentinel
		}
	}
	return p
}

// sizes are around those of tiles and blocks.
func size(rng *rand.Rand, most int) int {
	around := []int{0, 1, 2, 5, 6, 7, 15, 16, 17, 31, 32, 33, 95, 96, 97, 192, 255, 256, 257, 511, 512, 513, 520}
	n := around[rng.IntN(len(around))]
	if rng.IntN(3) == 0 || n > most {
		n = rng.IntN(most)
	}
	return n
}

func TestProductsAreGonums(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	calls := 400
	if testing.Short() {
		calls = 100
	}
	for range calls {
		p := newCall(rng, size(rng, 200), size(rng, 540), size(rng, 540))
		want, got := append([]float32(nil), p.c...), guarded(p.c)
		p.by(gonum.Implementation{}, want)
		p.by(sgemm.Implementation{}, got)
		for i, w := range want {
			// Both add k products of about 1 in float32, in different orders.
			if far := math.Abs(float64(got[i] - w)); !(far <= 1e-5*float64(4+p.k)) {
				t.Fatalf("%v: element %d is %v, gonum's %v", p, i, got[i], w)
			}
			if i%p.ldc >= p.n && got[i] != sentinel {
				t.Fatalf("%v: element %d between two rows became %v", p, i, got[i])
			}
		}
		for i, v := range got[:cap(got)][len(got):] {
			if v != sentinel {
				t.Fatalf("%v: element %d behind the last became %v", p, i, v)
			}
		}
	}
}

// guarded returns a copy of c with sentinels behind it.
func guarded(c []float32) []float32 {
	copied := append(make([]float32, 0, len(c)+64), c...)
	behind := copied[:cap(copied)][len(c):]
	for i := range behind {
		behind[i] = sentinel
	}
	return copied
}

func TestWhatIsNoNumberSpreads(t *testing.T) {
	nan, infinity := float32(math.NaN()), float32(math.Inf(1))
	rng := rand.New(rand.NewPCG(1, 0))
	for _, bad := range []float32{nan, infinity} {
		p := newCall(rng, 50, 70, 60)
		p.tA, p.tB, p.lda, p.ldb, p.alpha, p.beta = blas.NoTrans, blas.NoTrans, 60, 70, 1, 0
		p.a, p.b = random(rng, 50*60), random(rng, 60*70)
		p.c, p.ldc = random(rng, 50*70), 70
		p.c[3] = nan // times beta = 0 it is 0
		p.a[20*60+7] = bad
		p.by(sgemm.Implementation{}, p.c)
		for i, v := range p.c {
			if spoilt := v-v != 0; spoilt != (i/70 == 20) {
				t.Fatalf("a(20, 7) = %v: c(%d, %d) = %v", bad, i/70, i%70, v)
			}
		}
		p.a[20*60+7], p.b[7*70+69] = 1, bad
		p.by(sgemm.Implementation{}, p.c)
		for i, v := range p.c {
			if spoilt := v-v != 0; spoilt != (i%70 == 69) {
				t.Fatalf("b(7, 69) = %v: c(%d, %d) = %v", bad, i/70, i%70, v)
			}
		}
	}
}

func TestMistakesPanicAsGonums(t *testing.T) {
	of := func(implementation blas.Float32, p call) (said any) {
		defer func() { said = recover() }()
		p.by(implementation, p.c)
		return nil
	}
	for name, spoil := range map[string]func(*call){
		"no such transpose of a": func(p *call) { p.tA = 'X' },
		"no such transpose of b": func(p *call) { p.tB = 'X' },
		"a negative size":        func(p *call) { p.n = -1 },
		"a short row of a":       func(p *call) { p.lda = 39 },
		"a short row of b":       func(p *call) { p.ldb = 39 },
		"a short row of c":       func(p *call) { p.ldc = 39 },
		"a short a":              func(p *call) { p.a = p.a[:len(p.a)-1] },
		"a short b":              func(p *call) { p.b = p.b[:len(p.b)-1] },
		"a short c":              func(p *call) { p.c = p.c[:len(p.c)-1] },
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 0))
			p := call{
				tA: blas.NoTrans, tB: blas.NoTrans, m: 40, n: 40, k: 40, alpha: 1, beta: 1, lda: 40, ldb: 40, ldc: 40,
				a: random(rng, 1600), b: random(rng, 1600), c: random(rng, 1600),
			}
			spoil(&p)
			want := of(gonum.Implementation{}, p)
			if got := of(sgemm.Implementation{}, p); want == nil || got != want {
				t.Errorf("%v: panicked with %v, want %v", p, got, want)
			}
		})
	}
}

func random(rng *rand.Rand, n int) []float32 {
	data := make([]float32, n)
	for i := range data {
		data[i] = float32(rng.NormFloat64())
	}
	return data
}

func TestSgemmAllocatesNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	p := newCall(rng, 97, 33, 65)
	p.alpha = 1
	if got := testing.AllocsPerRun(20, func() { p.by(sgemm.Implementation{}, p.c) }); got >= 1 {
		t.Errorf("%v allocations a product, want 0", got)
	}
}

func BenchmarkSgemm(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 0))
	for _, s := range []struct {
		tA, tB  blas.Transpose
		m, n, k int
	}{
		{blas.NoTrans, blas.NoTrans, 512, 512, 512},
		{blas.NoTrans, blas.NoTrans, 512, 512, 624}, // a layer forward
		{blas.Trans, blas.NoTrans, 624, 512, 512},   // to its weights
		{blas.NoTrans, blas.Trans, 512, 624, 512},   // to its inputs
	} {
		for name, of := range map[string]blas.Float32{"freshet": sgemm.Implementation{}, "gonum": gonum.Implementation{}} {
			b.Run(fmt.Sprintf("%s/%c%c/m=%d/n=%d/k=%d", name, s.tA, s.tB, s.m, s.n, s.k), func(b *testing.B) {
				p := call{tA: s.tA, tB: s.tB, m: s.m, n: s.n, k: s.k, alpha: 1, lda: s.k, ldb: s.n, ldc: s.n}
				if s.tA != blas.NoTrans {
					p.lda = s.m
				}
				if s.tB != blas.NoTrans {
					p.ldb = s.k
				}
				p.a, p.b, p.c = random(rng, s.m*s.k), random(rng, s.k*s.n), make([]float32, s.m*s.n)
				for b.Loop() {
					p.by(of, p.c)
				}
				b.ReportMetric(2*float64(s.m)*float64(s.n)*float64(s.k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	}
}
