package model

// The loops over long rows of numbers. Where the processor has vectors, the functions in
// Wide do the first part, as many as fill vectors, and return how many that were; the
// loops here do the rest, or all. Both do the same operations in the same order for each
// number, so the results are the same to the last bit.

// rectify sets what is below 0 to 0.
func rectify(v []float32) {
	for i := rectifyWide(v); i < len(v); i++ {
		if v[i] < 0 {
			v[i] = 0
		}
	}
}

// pass multiplies delta with what a unit passes on, by its activation.
func pass(activations, delta []float32, kept float32) {
	delta = delta[:len(activations)]
	for i := passWide(activations, delta, kept); i < len(delta); i++ {
		delta[i] *= kept
		if activations[i] == 0 {
			delta[i] = 0
		}
	}
}

// axpy adds a x to y.
func axpy(a float32, x, y []float32) {
	y = y[:len(x)]
	for i := axpyWide(a, x, y); i < len(x); i++ {
		y[i] += float32(a * x[i])
	}
}

// scaled sets y to a x.
func scaled(a float32, x, y []float32) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] = a * v
	}
}

// dotProduct returns ⟨x, y⟩.
func dotProduct(x, y []float32) float32 {
	y = y[:len(x)]
	var sum float64
	for i, v := range x {
		sum += float64(v) * float64(y[i])
	}
	return float32(sum)
}

// sumFactors adds v_j x_j to sums, and its square to squares, for every feature j of an
// event. sums, squares: (k); factors: (rows, k), of which feature j has row index[j].
func sumFactors(index []int32, values, factors []float32, sums, squares []float64) {
	k := len(sums)
	done := sumWide(index, values, factors, sums, squares)
	if done == k {
		return
	}
	values = values[:len(index)]
	for j, row := range index {
		v := factors[int(row)*k+done : int(row)*k+k]
		sums, squares := sums[done:][:len(v)], squares[done:][:len(v)]
		for f := range v {
			vx := float64(v[f]) * float64(values[j])
			sums[f] += vx
			squares[f] += float64(vx * vx)
		}
	}
}

// addFactors adds d x_j (sums − v_j x_j) to the gradient of every feature j of an event.
// grads has the shape of factors.
func addFactors(index []int32, values, factors []float32, sums []float64, d float64, grads []float32) {
	k := len(sums)
	done := addFactorsWide(index, values, factors, sums, d, grads)
	if done == k {
		return
	}
	values = values[:len(index)]
	for j, row := range index {
		v, g := factors[int(row)*k+done:int(row)*k+k], grads[int(row)*k+done:int(row)*k+k]
		g, sums := g[:len(v)], sums[done:][:len(v)]
		x := float64(values[j])
		dx := d * x
		for f := range v {
			g[f] += float32(dx * (sums[f] - float64(float64(v[f])*x)))
		}
	}
}
