//go:build !goexperiment.simd || !amd64

package feature

import "github.com/freshet-ml/freshet/ps"

// vectors: there are none here.
const vectors = false

func separators512(*[block]byte, byte) uint64 { panic("feature: no vectors") }

func (w *words) hash512(ps.Key, []ps.Key) { panic("feature: no vectors") }
