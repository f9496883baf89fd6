package ps

// Fingerprint is a running summary of a set of events: how many, and the sum and
// exclusive or of their hashes. Two sets with equal fingerprints are, but for a
// chance of about 2^-64, equal; unlike a counter it notices one event lost and
// another doubled.
type Fingerprint struct {
	Count, Sum, Xor uint64
}

// EventHash returns the hash of an event: a function of its place in the stream.
// That its content is the same is the stream identity's business.
func EventHash(p Partition, o Offset) uint64 {
	return Mix(Mix(uint64(p)+1) ^ uint64(o))
}

// Add puts one event's hash into f.
func (f *Fingerprint) Add(hash uint64) {
	f.Count++
	f.Sum += hash
	f.Xor ^= hash
}

// Merge puts all events of g into f.
func (f *Fingerprint) Merge(g Fingerprint) {
	f.Count += g.Count
	f.Sum += g.Sum
	f.Xor ^= g.Xor
}
