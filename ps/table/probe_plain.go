//go:build !goexperiment.simd || !amd64

package table

// vectors is false: without them the plain form is used.
var vectors = false

func (x *index) probeVectors([]uint64, []uint32) {}
