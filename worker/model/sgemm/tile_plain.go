//go:build !(goexperiment.simd && amd64)

package sgemm

// chooseTile says that there is none: gonum's own product is the plain form.
func chooseTile() (tile, int) { return nil, 0 }
