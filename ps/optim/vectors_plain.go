//go:build !goexperiment.simd || !amd64

package optim

// lanes is 0: without vectors the plain form is used.
var lanes = 0

func (sgd) applyVectors([][]float32, int, []float32) bool     { return false }
func (adagrad) applyVectors([][]float32, int, []float32) bool { return false }
func (ftrl) applyVectors([][]float32, int, []float32) bool    { return false }

func validPrefix([]float32) int { return 0 }
