package optim

// WithLanes runs f with vectors of at most the given number of lanes, 0 for the
// plain form, and reports whether this processor and build have them.
func WithLanes(n int, f func()) bool {
	if n > lanes {
		return false
	}
	defer func(most int) { lanes = most }(lanes)
	lanes = n
	f()
	return true
}
