// Package sgemm multiplies float32 matrices on one core. Implementation is gonum's
// blas.Float32 with Sgemm replaced, so that it stands behind the calls of gonum's
// blas32 once a program says
//
//	blas32.Use(sgemm.Implementation{})
//
// It starts no goroutine: the cores of those who multiply are busy with more of the
// same. It is deterministic, and keeps no state but a pool of buffers.
//
// The one idea to keep in mind: the processor multiplies faster than it can fetch, so
// both matrices are first copied into panels, in the order in which a tile of 6 rows and
// two vectors of columns reads them; the tile's sums stay in registers for the whole
// depth of a panel. Whatever the shapes and transposes, there is one tile.
//
// Source: Van Zee & van de Geijn 2015, BLIS: A Framework for Rapidly Instantiating BLAS
// Functionality, Section 4 (doi:10.1145/2764454).
package sgemm

import (
	"sync"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

// Implementation is gonum's own but for Sgemm. The zero value is ready, and safe for
// concurrent use.
type Implementation struct{ gonum.Implementation }

var _ blas.Float32 = Implementation{}

// Sizes of what is packed at once, in elements.
const (
	tileRows = 6 // with two vectors of columns 12 sums; Go keeps 15 vectors in registers
	// tileColumnsMax is the widest tile's: two vectors of AVX-512.
	tileColumnsMax = 32
	depth          = 256 // a panel of the right matrix is 32 KiB: it stays in the first cache
	// rows and columns of a block: 96 KiB of the left matrix and 512 KiB of the right
	// one, which stay in the second cache together.
	blockRows    = 16 * tileRows
	blockColumns = 512
	// Below so many products copying costs more than it saves.
	productsMin = 4096
)

// tile adds the product of a panel of tileRows rows and one of tileColumns columns, both
// of the given depth, to c, whose rows are stride apart. a has three elements more than
// it needs, because the tile loads four at a time.
type tile func(depth int, a, b, c []float32, stride int)

// Sgemm is gonum's: c = alpha op(a) op(b) + beta c, with op(a) of (m, k), op(b) of (k, n)
// and c of (m, n), and the same panics. It differs in rounding, since it adds in another
// order and rounds a product and its sum at once, and in that it leaves out no product
// whose left factor is 0, so that 0 times infinity or NaN is NaN.
//
// Without the processor for it, and for products so small that copying would not pay, it
// is gonum's own.
func (i Implementation) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	multiply, tileColumns := chooseTile()
	p := product{
		a: matrix{data: a, stride: lda, rows: m, columns: k, transposed: tA != blas.NoTrans},
		b: matrix{data: b, stride: ldb, rows: k, columns: n, transposed: tB != blas.NoTrans},
		c: matrix{data: c, stride: ldc, rows: m, columns: n}, alpha: alpha,
		tile: multiply, tileColumns: tileColumns,
	}
	if multiply == nil || m*n*k < productsMin || alpha == 0 || !isTranspose(tA) || !isTranspose(tB) ||
		!p.a.valid() || !p.b.valid() || !p.c.valid() {
		i.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	p.c.scale(beta)
	buffers := pool.Get().(*buffers)
	defer pool.Put(buffers)
	p.run(buffers)
}

func isTranspose(t blas.Transpose) bool {
	return t == blas.NoTrans || t == blas.Trans || t == blas.ConjTrans
}

// buffers hold what is packed. A row beyond the block's and three elements more are
// for the tile's loads.
type buffers struct {
	a [blockRows*depth + 4]float32
	b [blockColumns * depth]float32
	// edge is a tile of which only a part belongs to c.
	edge [tileRows * tileColumnsMax]float32
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

// matrix is (rows, columns) elements, row-major with rows stride apart, or column-major
// if transposed.
type matrix struct {
	data          []float32
	stride        int
	rows, columns int
	transposed    bool
}

// valid reports whether data holds a matrix that is not empty.
func (m matrix) valid() bool {
	major, minor := m.rows, m.columns
	if m.transposed {
		major, minor = minor, major
	}
	return major > 0 && minor > 0 && m.stride >= minor && len(m.data) >= (major-1)*m.stride+minor
}

// scale multiplies every element by beta. Times 0 even NaN is 0, as BLAS has it.
func (m matrix) scale(beta float32) {
	if beta == 1 {
		return
	}
	for i := range m.rows {
		row := m.data[i*m.stride : i*m.stride+m.columns]
		if beta == 0 {
			clear(row)
			continue
		}
		for j := range row {
			row[j] *= beta
		}
	}
}

// product is c += alpha a b.
type product struct {
	a, b, c     matrix
	alpha       float32
	tile        tile
	tileColumns int
}

// run goes through the blocks, so that what is packed is used as often as can be while
// it is in its cache.
func (p *product) run(buf *buffers) {
	for column := 0; column < p.b.columns; column += blockColumns {
		columns := min(blockColumns, p.b.columns-column)
		for at := 0; at < p.a.columns; at += depth {
			deep := min(depth, p.a.columns-at)
			p.packB(buf.b[:], at, deep, column, columns)
			for row := 0; row < p.a.rows; row += blockRows {
				rows := min(blockRows, p.a.rows-row)
				p.packA(buf.a[:], row, rows, at, deep)
				p.block(buf, row, rows, column, columns, deep)
			}
		}
	}
}

// block adds the product of what is packed to c's block at (row, column).
func (p *product) block(buf *buffers, row, rows, column, columns, deep int) {
	for j := 0; j < columns; j += p.tileColumns {
		b := buf.b[j*deep : (j+p.tileColumns)*deep]
		for i := 0; i < rows; i += tileRows {
			a := buf.a[i*deep : (i+tileRows)*deep+3]
			to := p.c.data[(row+i)*p.c.stride+column+j:]
			height, width := min(tileRows, rows-i), min(p.tileColumns, columns-j)
			if height == tileRows && width == p.tileColumns {
				p.tile(deep, a, b, to, p.c.stride)
				continue
			}
			clear(buf.edge[:])
			p.tile(deep, a, b, buf.edge[:], p.tileColumns)
			for r := range height {
				addTo(to[r*p.c.stride:r*p.c.stride+width], buf.edge[r*p.tileColumns:])
			}
		}
	}
}

func addTo(to, from []float32) {
	from = from[:len(to)]
	for i := range to {
		to[i] += from[i]
	}
}

// packA writes alpha times the block of a at (row, at) as panels of (deep, tileRows).
// Rows beyond the last are zeros.
func (p *product) packA(to []float32, row, rows, at, deep int) {
	for i := 0; i < rows; i += tileRows {
		panel := to[i*deep : (i+tileRows)*deep]
		height := min(tileRows, rows-i)
		if height < tileRows {
			clear(panel)
		}
		p.a.pack(panel, tileRows, at, deep, row+i, height, true)
		if p.alpha != 1 {
			for i := range panel {
				panel[i] *= p.alpha
			}
		}
	}
}

// packB writes the block of b at (at, column) as panels of (deep, tileColumns). Columns
// beyond the last are zeros.
func (p *product) packB(to []float32, at, deep, column, columns int) {
	for j := 0; j < columns; j += p.tileColumns {
		panel := to[j*deep : (j+p.tileColumns)*deep]
		width := min(p.tileColumns, columns-j)
		if width < p.tileColumns {
			clear(panel)
		}
		p.b.pack(panel, p.tileColumns, at, deep, column+j, width, false)
	}
}

// pack writes a strip of m as (deep, width): along from at, across from first, of which
// there are n. Along are the columns of the left matrix and the rows of the right one.
func (m matrix) pack(to []float32, width, at, deep, first, n int, left bool) {
	if left == m.transposed { // what lies side by side in the strip does so in m
		for k := range deep {
			start := (at+k)*m.stride + first
			copy(to[k*width:k*width+n], m.data[start:start+n])
		}
		return
	}
	line := func(i int) []float32 {
		start := (first+i)*m.stride + at
		return m.data[start : start+deep]
	}
	i := 0
	for ; i+4 <= n; i += 4 {
		pack4(to[i:], width, line(i), line(i+1), line(i+2), line(i+3))
	}
	for ; i < n; i++ {
		for k, v := range line(i) {
			to[k*width+i] = v
		}
	}
}

// pack4 writes four lines as columns of to, whose rows are width apart.
func pack4(to []float32, width int, a, b, c, d []float32) {
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	for k := range a {
		four := (*[4]float32)(to[k*width:])
		four[0], four[1], four[2], four[3] = a[k], b[k], c[k], d[k]
	}
}
