// Package simulation runs a whole cluster in one thread, by chance and repeatably: the
// product's state machines (shards with real tables, checkpoint files and manifests, the
// worker's cursor, the store's transactions, the coordinator's plans, epochs and
// rollbacks) over a simulated network, disk, clock and etcd. It holds no code but tests.
//
// The one idea to keep in mind: a seed is a schedule. One generator decides what happens
// next, so that a seed that fails can be replayed, step by step:
//
//	go test ./test/simulation -run TestSeeds -seed 4711
//
// # How it works
//
// Product code that blocks (a coordinator that takes an epoch, a node that opens a shard)
// runs as a coroutine and stops at every access to etcd, the bucket or the network; the
// world chooses which one goes on, which message arrives, and which fault strikes. So a
// coordinator's reads and its transaction are steps of their own, and anything may happen
// between them.
//
// A seed plans some kinds of faults and strikes until each has bitten: each kind has a
// counter of its effect, not of its attempts. A seed with little traffic or with a planned
// fault that did not bite says nothing; it is void and does not count.
//
// # What must hold
//
// After every push that is applied and every shard that is restored, whoever holds it, the
// shard is compared with the prefix of the stream that it says it has applied: counts,
// fingerprints, and the audit table for every key. Epochs, maps and deletions are checked
// as they are committed (invariants 6, 8, 9 and 10 of the design, and 13 for lineages). In
// the end, after faults have ceased, the owners have applied the whole stream.
//
// # Teeth
//
// variants_test.go has the product with one decision broken at a time. Each must be found.
//
// What is not in here: goroutines, real files and sockets (the tests with processes have
// them), gRPC's encoding, and the network's arithmetic.
package simulation
