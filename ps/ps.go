// Package ps holds the words of the parameter server: what a shard, a row, an
// update and an offset are, and the rules they obey. It does no I/O, starts no
// goroutine, reads no clock and imports nothing of the project.
//
// The one idea to keep in mind: a behaviour stream that can be read again is
// the write-ahead log. A shard therefore stores, with its rows, the first
// offset of each partition it has not yet applied, and accepts an update only
// if the update begins exactly there. Everything else (retries, duplicates,
// zombies, restarts) is harmless by that rule alone.
package ps

import (
	"fmt"
	"math/bits"
)

// Key names a row. It is a 64-bit hash, so its bits are taken to be uniform;
// whoever has small integers hashes them first (see Mix).
type Key uint64

// ShardID numbers the shards of a cluster from 0. A shard is the unit of
// ownership, movement and snapshot; their number is a power of two, fixed when
// the cluster is created.
type ShardID uint32

// Fence numbers the ownerships of one shard. Every change of owner raises it.
type Fence uint64

// Epoch numbers the committed checkpoints of a cluster.
type Epoch uint64

// Partition numbers the partitions of a behaviour stream from 0.
type Partition uint32

// Offset numbers the events of one partition from 0, without gaps.
type Offset uint64

// Generation numbers the assignments of partitions to workers. It only tells a
// replaced worker to stop; no safety rule reads it.
type Generation uint64

// NodeID names one life of a parameter-server process. A restarted process has
// another one, because its memory is gone.
type NodeID string

// StreamID is the identity of a behaviour stream: its contents and the way they
// are cut into partitions. A recreated topic or an edited file is another stream.
type StreamID string

// Range is the half-open interval [From, To) of offsets of one partition.
type Range struct{ From, To Offset }

// Len returns the number of offsets in r.
func (r Range) Len() int { return int(r.To - r.From) }

// String returns r as "[from,to)".
func (r Range) String() string { return fmt.Sprintf("[%d,%d)", r.From, r.To) }

// ShardOf returns the shard of a key: its highest log2(shards) bits. It depends
// on the key alone, so that the rows of one key in all tables share a shard, and
// so that keys which differ in their lower bits only can be kept together.
//
// shards must be a power of two.
func ShardOf(key Key, shards int) ShardID {
	return ShardID(uint64(key) >> (64 - bits.TrailingZeros(uint(shards))))
}

// ShardsMax is the largest number of shards of a cluster. It keeps the shard map
// within one etcd value.
const ShardsMax = 1 << 14

// ValidShards reports whether n can be the number of shards of a cluster.
func ValidShards(n int) error {
	if n < 1 || n > ShardsMax || n&(n-1) != 0 {
		return fmt.Errorf("%d shards: want a power of two from 1 to %d: %w", n, ShardsMax, ErrInvalid)
	}
	return nil
}

// Mix is a bijection of 64-bit integers that spreads every input bit over every
// output bit. It is the finalizer of SplitMix64 after one step of its counter.
//
// Source: Steele, Lea & Flood 2014, Fast Splittable Pseudorandom Number
// Generators, Figure 15 (doi:10.1145/2660193.2660195), with the constants of
// Stafford's variant 13.
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
