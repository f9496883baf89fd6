//go:build !(goexperiment.simd && amd64)

package model

func rectifyWide([]float32) int                                       { return 0 }
func passWide([]float32, []float32, float32) int                      { return 0 }
func axpyWide(float32, []float32, []float32) int                      { return 0 }
func sumWide([]int32, []float32, []float32, []float64, []float64) int { return 0 }
func addFactorsWide([]int32, []float32, []float32, []float64, float64, []float32) int {
	return 0
}
