//go:build !(goexperiment.simd && amd64)

package retrieve

func scoreWide([]float32, []float32, float32, *scored) bool { return false }
