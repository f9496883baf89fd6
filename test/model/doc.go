// Package model proves the protocol by looking at all of it: its tests are small
// models of learning, ownership, copies, checkpoint files and replicas, and an explorer
// that visits every state each of them can reach. The package holds no code but tests.
//
// The one idea to keep in mind: a model that finds nothing says little until it has
// found something. So each rule is there twice, as the design has it, where all states
// must be free of faults, and broken in a way that looks harmless, where the explorer
// must find the fault. Run the tests with -v to read the shortest way to each.
//
// # Whose rules
//
// The offset rule is ps.Judge itself and the cursor is train.Cursor itself: breaking
// either breaks these tests. Planning a batch's items repeats what worker/train does
// around its cursor. Promotion is node.MayPromote and collection checkpoint.Garbage. The
// other decisions of control (what a transaction compares, who contributes to an epoch,
// what an increment is written over) are stated in decisions_test.go; the product's are
// driven by the simulation. Trimming and the swap of a replica have no product code yet.
//
// # What is explored
//
// Numbers are those of the design's invariants. The larger models have their state and
// steps in a file of their own, *_machine_test.go.
//
//   - push_test.go (1, 2, 3, 5): two shards, three events of one partition, one or two
//     workers; nodes crash, ownership moves while the old owner lives on, sessions end
//     at any time, a push is lost, late or doubled. No fence is checked by a shard.
//   - ownership_test.go (1, 2, 6, 7, 8, 16): one shard at two or three nodes, two
//     partitions, one or two coordinators whose reads and transactions are separate
//     steps, standbys, snapshots, epochs, trimming. Here anybody may push any range
//     that can still be read, which is more than workers do.
//   - copy_test.go (1, 12): a shard is copied while it learns.
//   - increment_test.go (9, 10, 11): files over files, torn, given up, collected,
//     restored.
//   - replica_test.go (12, 13): what readers are served over changes of owner.
//
// Where a model knows what "all is applied" means, liveness is checked, too: from every
// state that can be reached, such a state can be reached.
//
// # What is not proven
//
// The models are bounded: three or four events, one crash, one or two of everything, and
// not all faults at once (one run never has two workers, a crash and a late push). They
// have rows without values, so they say nothing of optimizers, admission or expiry
// (14), of counts and fingerprints (15), nor of the stream (4) beyond its start. A
// snapshot of the ownership model covers one shard; a map has one shard, so its
// revision is that shard's. Rollbacks and lineages, increments that are gated, spec
// versions, a gap in seq at a follower, and torn bytes within a file are not in them.
// That a state can be reached does not say how soon. And models prove the rules, not
// the code around them, which the simulation and the crash tests run.
//
// # Budgets
//
// A model that exceeds its bound of states fails rather than be explored in part.
// -short leaves the large ones out.
package model
