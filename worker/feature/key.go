package feature

import (
	"github.com/cespare/xxhash/v2"

	"github.com/freshet-ml/freshet/ps"
)

// Key returns the key of a feature's value:
//
//	seed(name)       = Mix(XXH64(name))
//	key(name, value) = Mix(seed(name) XOR XXH64(value))
//
// with ps.Mix, and with XXH64 under seed 0, of the bytes. The value is the empty
// text if it is missing, decimal digits (with "-" if it is negative, and without
// leading zeros) for buckets and parts of the time, and else the column's or
// token's bytes as they are.
//
// Keys are in checkpoints, and importers and clients in other languages compute
// them: this never changes. testdata/keys.txt has examples.
func Key(name string, value []byte) ps.Key { return hash(seed(name), value) }

// CrossKey returns the key of a combination of values: crossed has the key of each
// crossed feature's value, in the order of the cross.
//
//	k = seed(name);  for each c of crossed: k = Mix(k XOR c)
//
// It never changes, as Key.
func CrossKey(name string, crossed ...ps.Key) ps.Key {
	k := seed(name)
	for _, c := range crossed {
		k = chain(k, c)
	}
	return k
}

// ConstantKey returns the key of the feature that every event has: that of the
// empty text of the feature without a name, which no spec can have.
func ConstantKey() ps.Key { return constantKey }

var constantKey = Key("", nil)

func seed(name string) ps.Key { return ps.Key(ps.Mix(xxhash.Sum64String(name))) }

func hash(seed ps.Key, text []byte) ps.Key { return chain(seed, ps.Key(xxhash.Sum64(text))) }

func chain(k, next ps.Key) ps.Key { return ps.Key(ps.Mix(uint64(k ^ next))) }
